//! The text form of `timestamp with time zone` in UTC: `2026-01-01 00:00:00+00`.
//! Must not know clocks or other time zones than those a text names by its offset.

use super::RowsError;

/// `infinity` and `-infinity`, as PostgreSQL stores them.
const INFINITY: i64 = i64::MAX;
const MINUS_INFINITY: i64 = i64::MIN;
const DAY: i64 = 86_400_000_000;
/// 4714-11-24 BC and 294277-01-01, days from 2000-01-01: the ends of what PostgreSQL holds.
const FIRST_DAY: i64 = -2_451_545;
const END_DAY: i64 = 106_751_983;

/// Prints microseconds since 2000-01-01 00:00 UTC.
pub(super) fn format(micros: i64) -> String {
    match micros {
        INFINITY => return "infinity".to_owned(),
        MINUS_INFINITY => return "-infinity".to_owned(),
        _ => {}
    }
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let rest = micros.rem_euclid(DAY);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (printed_year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let mut text = format!(
        "{printed_year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text + "+00" + era
}

/// Reads `YYYY-MM-DD[ HH:MM[:SS[.ffffff]]][Z|±HH[[:]MM]]`, without a zone as UTC, `infinity` and `epoch`.
///
/// # Errors
/// Another form is refused (0A000): PostgreSQL reads many more, and a wrong guess would be a wrong time.
pub(super) fn parse(text: &str) -> Result<i64, RowsError> {
    let trimmed = text.trim_matches(super::text::is_space);
    match trimmed.to_ascii_lowercase().as_str() {
        "infinity" => return Ok(INFINITY),
        "-infinity" => return Ok(MINUS_INFINITY),
        "epoch" => return Ok(days(1970, 1, 1) * DAY),
        _ => {}
    }
    let fields = fields(trimmed).ok_or_else(|| {
        RowsError::unsupported(
            format!("the timestamp format of \"{text}\""),
            "Write it as '2026-01-31 12:00:00+00'.",
        )
    })?;
    fields.micros().ok_or_else(|| RowsError::NoSuchTime(text.to_owned()))
}

struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    offset_minutes: i64,
}

impl Fields {
    /// `None` if there is no such moment.
    fn micros(&self) -> Option<i64> {
        let within = |n: i64, low: i64, high: i64| (low..=high).contains(&n).then_some(());
        within(self.month, 1, 12)?;
        within(self.day, 1, days_in(self.year, self.month))?;
        within(self.minute, 0, 59)?;
        within(self.second, 0, 60)?;
        let time = ((self.hour * 60 + self.minute) * 60 + self.second) * 1_000_000 + self.micros;
        within(time, 0, DAY)?; // 24:00:00 is the next day's start
        within(self.offset_minutes.abs(), 0, 16 * 60 - 1)?;
        let day = days(self.year, self.month, self.day);
        within(day, FIRST_DAY, END_DAY - 1)?;
        (day * DAY).checked_add(time)?.checked_sub(self.offset_minutes * 60_000_000)
    }
}

fn fields(text: &str) -> Option<Fields> {
    let mut at = Scanner { rest: text.as_bytes() };
    let year = at.digits(4, 6)?;
    at.byte(b"-")?;
    let month = at.digits(1, 2)?;
    at.byte(b"-")?;
    let day = at.digits(1, 2)?;
    let mut found = Fields { year, month, day, hour: 0, minute: 0, second: 0, micros: 0, offset_minutes: 0 };
    if year == 0 {
        return None;
    }
    if !at.rest.is_empty() {
        at.byte(b" Tt")?;
        found.hour = at.digits(1, 2)?;
        at.byte(b":")?;
        found.minute = at.digits(2, 2)?;
        if at.byte(b":").is_some() {
            found.second = at.digits(2, 2)?;
            if at.byte(b".").is_some() {
                let (before, value) = (at.rest.len(), at.digits(1, 6)?);
                found.micros = value * 10i64.pow((6 - (before - at.rest.len())) as u32);
            }
        }
        found.offset_minutes = at.zone()?;
    }
    at.rest.is_empty().then_some(found)
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl Scanner<'_> {
    fn byte(&mut self, any_of: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        any_of.contains(first).then(|| {
            self.rest = rest;
            *first
        })
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let len = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(len)?;
        if !(least..=most).contains(&len) {
            return None;
        }
        self.rest = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Minutes east of UTC; none is UTC.
    fn zone(&mut self) -> Option<i64> {
        if self.rest.is_empty() || self.byte(b"Zz").is_some() {
            return Some(0);
        }
        let sign = if self.byte(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.digits(2, 2)?;
        let minutes = if self.byte(b":").is_some() { self.digits(2, 2)? } else { 0 };
        (minutes < 60).then_some(sign * (hours * 60 + minutes))
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 2000-01-01 to a date of the proleptic Gregorian calendar. Years are counted from March, so that the
/// leap day is a year's last and months have a regular length pattern of 153 days in five.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let whole = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    whole + (153 * m + 2) / 5 + day - 1 - 730_425
}

/// The date of a day counted from 2000-01-01; the inverse of [`days`].
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 730_425; // from March 1st of year 0
    let cycle = shifted.div_euclid(146_097); // 400 years
    let in_cycle = shifted.rem_euclid(146_097);
    let year_in_cycle = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
    let in_year = in_cycle - (year_in_cycle * 365 + year_in_cycle / 4 - year_in_cycle / 100);
    let m = (5 * in_year + 2) / 153;
    let day = in_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (cycle * 400 + year_in_cycle + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_a_thousand_years_is_the_same_there_and_back() {
        let mut expected = days(1599, 1, 1);
        for year in 1599..2601 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days(year, month, day), expected);
                    assert_eq!(civil(expected), (year, month, day));
                    expected += 1;
                }
            }
        }
        assert_eq!(days(2000, 1, 1), 0);
    }

    #[test]
    fn moments_print_as_a_session_in_utc_shows_them() {
        for (micros, want) in [
            (0, "2000-01-01 00:00:00+00"),
            (820_454_400_000_000, "2025-12-31 00:00:00+00"),
            (1_500_000, "2000-01-01 00:00:01.5+00"),
            (-1, "1999-12-31 23:59:59.999999+00"),
            (INFINITY, "infinity"),
            (MINUS_INFINITY, "-infinity"),
            (days(0, 1, 1) * DAY, "0001-01-01 00:00:00+00 BC"),
            (days(12345, 6, 7) * DAY, "12345-06-07 00:00:00+00"),
        ] {
            assert_eq!(format(micros), want);
        }
    }

    #[test]
    fn iso_forms_are_read_and_others_refused() {
        for (text, want) in [
            ("2000-01-01", "2000-01-01 00:00:00+00"),
            (" 2026-02-28T23:59:59.25Z ", "2026-02-28 23:59:59.25+00"),
            ("2026-01-01 00:00+02", "2025-12-31 22:00:00+00"),
            ("2026-01-01 00:00:00-05:30", "2026-01-01 05:30:00+00"),
            ("2026-01-01 24:00:00", "2026-01-02 00:00:00+00"),
            ("epoch", "1970-01-01 00:00:00+00"),
        ] {
            assert_eq!(parse(text).map(format).as_deref(), Ok(want), "{text}");
        }
        for (text, code) in [
            ("2026-02-29", "22008"),
            ("2026-13-01", "22008"),
            ("2026-01-01 25:00", "22008"),
            ("yesterday", "0A000"),
            ("1/2/2026", "0A000"),
            ("2026-01-01 10:00 Europe/Oslo", "0A000"),
            ("0000-01-01", "0A000"),
            ("", "0A000"),
        ] {
            assert_eq!(parse(text).unwrap_err().sqlstate(), code, "{text}");
        }
    }
}
