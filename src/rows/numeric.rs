//! PostgreSQL's `numeric`, for values of at most 38 digits.
//! Must not know columns or expressions; a result with more digits is refused, never rounded.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::RowsError;

/// An exact decimal number: `digits × 10^-scale`; `scale` is the number of digits printed after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numeric {
    digits: i128,
    scale: u32,
}

/// 10^38 is the largest power of ten below 2^127.
const MAX_SCALE: u32 = 38;

impl From<i64> for Numeric {
    fn from(n: i64) -> Self {
        Self { digits: i128::from(n), scale: 0 }
    }
}

impl Numeric {
    /// `digits × 10^-scale`.
    ///
    /// # Errors
    /// [`RowsError::Unsupported`] if it needs more than 38 digits.
    pub fn new(digits: i128, scale: u32) -> Result<Self, RowsError> {
        if scale > MAX_SCALE || digits.unsigned_abs() >= ten_to(MAX_SCALE) as u128 {
            return Err(too_long());
        }
        Ok(Self { digits, scale })
    }

    fn checked(digits: Option<i128>, scale: u32) -> Result<Self, RowsError> {
        Self::new(digits.ok_or_else(too_long)?, scale)
    }

    /// Both with the larger scale of the two.
    fn aligned(self, other: Self) -> Result<(i128, i128, u32), RowsError> {
        let scale = self.scale.max(other.scale);
        let at = |n: Self| n.digits.checked_mul(ten_to(scale - n.scale)).ok_or_else(too_long);
        Ok((at(self)?, at(other)?, scale))
    }

    pub(super) fn add(self, other: Self) -> Result<Self, RowsError> {
        let (a, b, scale) = self.aligned(other)?;
        Self::checked(a.checked_add(b), scale)
    }

    pub(super) fn sub(self, other: Self) -> Result<Self, RowsError> {
        self.add(other.negated())
    }

    pub(super) fn mul(self, other: Self) -> Result<Self, RowsError> {
        Self::checked(self.digits.checked_mul(other.digits), self.scale + other.scale)
    }

    /// The quotient with the scale PostgreSQL chooses (at least 16 significant digits), rounded half away from 0.
    pub(super) fn div(self, other: Self) -> Result<Self, RowsError> {
        if other.digits == 0 {
            return Err(RowsError::DivisionByZero);
        }
        let scale = self.quotient_scale(other);
        // Long division, digit by digit: a scaled-up dividend would not fit.
        let shift = i64::from(scale) + i64::from(other.scale) - i64::from(self.scale);
        let (mut rest, divisor) = (self.digits.unsigned_abs(), other.digits.unsigned_abs());
        let mut quotient = rest / divisor;
        rest %= divisor;
        for _ in 0..shift {
            rest = rest.checked_mul(10).ok_or_else(too_long)?;
            quotient =
                quotient.checked_mul(10).and_then(|q| q.checked_add(rest / divisor)).ok_or_else(too_long)?;
            rest %= divisor;
        }
        // `shift` is never negative: the scale is at least that of the dividend.
        if rest >= divisor - rest {
            quotient += 1;
        }
        let digits = i128::try_from(quotient).ok();
        let negative = (self.digits < 0) != (other.digits < 0);
        Self::checked(digits.map(|d| if negative { -d } else { d }), scale)
    }

    /// Source: `select_div_scale` of PostgreSQL's numeric.c, described by its effect: 16 significant digits,
    /// counted in groups of four, and never fewer decimals than either operand.
    fn quotient_scale(self, other: Self) -> u32 {
        let ((weight1, first1), (weight2, first2)) = (self.leading_group(), other.leading_group());
        let weight = weight1 - weight2 - i32::from(first1 <= first2);
        u32::try_from(16 - weight * 4).unwrap_or(0).max(self.scale).max(other.scale)
    }

    /// The position (0 for units) and value of the first group of four digits that is not zero.
    fn leading_group(self) -> (i32, u128) {
        if self.digits == 0 {
            return (0, 0);
        }
        // Whole groups after the point: pad the fraction to a multiple of four.
        let pad = (4 - self.scale % 4) % 4;
        let fraction_groups = ((self.scale + pad) / 4) as i32;
        let mut rest = self.digits.unsigned_abs();
        // The lowest group takes `4 - pad` digits of what is stored, the others four each.
        let lowest = ten_to(4 - pad) as u128;
        if rest < lowest {
            return (-fraction_groups, rest * ten_to(pad) as u128);
        }
        rest /= lowest;
        let mut groups = 1;
        while rest >= 10_000 {
            rest /= 10_000;
            groups += 1;
        }
        (groups - fraction_groups, rest)
    }

    pub(super) fn rem(self, other: Self) -> Result<Self, RowsError> {
        if other.digits == 0 {
            return Err(RowsError::DivisionByZero);
        }
        let (a, b, scale) = self.aligned(other)?;
        Self::checked(a.checked_rem(b), scale)
    }

    pub(super) fn negated(self) -> Self {
        Self { digits: -self.digits, ..self }
    }

    pub(super) fn abs(self) -> Self {
        Self { digits: self.digits.abs(), ..self }
    }

    /// To `places` decimals (left of the point if negative), half away from zero.
    pub(super) fn round(self, places: i64) -> Result<Self, RowsError> {
        let drop = i64::from(self.scale) - places;
        let Ok(drop) = u32::try_from(drop) else {
            let more = u32::try_from(-drop).ok().filter(|n| *n <= MAX_SCALE).ok_or_else(too_long)?;
            return Self::checked(self.digits.checked_mul(ten_to(more)), self.scale + more);
        };
        let kept_scale = u32::try_from(places).unwrap_or(0);
        if drop > MAX_SCALE {
            return Self::new(0, kept_scale);
        }
        let unit = ten_to(drop);
        let (whole, rest) = (self.digits / unit, self.digits % unit);
        let up = i128::from(rest.unsigned_abs() * 2 >= unit as u128 && drop > 0) * self.digits.signum();
        let below_zero = u32::try_from(-places).unwrap_or(0).min(MAX_SCALE);
        Self::checked((whole + up).checked_mul(ten_to(below_zero)), kept_scale)
    }

    pub(super) fn floor(self) -> Self {
        Self { digits: self.digits.div_euclid(ten_to(self.scale)), scale: 0 }
    }

    pub(super) fn ceil(self) -> Self {
        self.negated().floor().negated()
    }

    pub(super) fn order(self, other: Self) -> Ordering {
        let parts = |n: Self| (n.digits.div_euclid(ten_to(n.scale)), n.digits.rem_euclid(ten_to(n.scale)));
        let scale = self.scale.max(other.scale);
        let ((whole1, part1), (whole2, part2)) = (parts(self), parts(other));
        // A fraction is below 10^its own scale, so aligned it is below 10^38.
        let at = |part: i128, n: Self| part * ten_to(scale - n.scale);
        whole1.cmp(&whole2).then_with(|| at(part1, self).cmp(&at(part2, other)))
    }

    /// The nearest `double precision`.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Rounded half away from zero; `None` if it does not fit.
    pub(super) fn to_i64(self) -> Option<i64> {
        self.round(0).ok().and_then(|n| i64::try_from(n.digits).ok())
    }

    /// As the cast from `double precision` makes it: from 15 significant digits.
    pub(super) fn from_f64(value: f64) -> Result<Self, RowsError> {
        if !value.is_finite() {
            return Err(RowsError::unsupported("numeric infinity or NaN", "Keep it as double precision."));
        }
        let text = format!("{value:.14e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.')).parse()
    }

    /// Groups of four digits, most significant first, without zero groups at either end, and the weight of the
    /// first: what the binary format carries.
    pub(super) fn groups(self) -> (Vec<u16>, i16) {
        let pad = (4 - self.scale % 4) % 4;
        let mut weight = -(((self.scale + pad) / 4) as i16);
        let mut groups = Vec::new();
        let mut rest = self.digits.unsigned_abs();
        let mut first = ten_to(4 - pad) as u128;
        let mut factor = ten_to(pad) as u128;
        while rest > 0 {
            groups.push((rest % first * factor) as u16);
            rest /= first;
            (first, factor) = (10_000, 1);
            weight += 1;
        }
        while groups.first() == Some(&0) {
            groups.remove(0);
        }
        groups.reverse();
        (groups, weight - 1)
    }

    /// Digits after the point.
    pub(super) fn scale(self) -> u32 {
        self.scale
    }

    pub(super) fn is_negative(self) -> bool {
        self.digits < 0
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = self.digits.unsigned_abs();
        if self.scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let unit = ten_to(self.scale) as u128;
        write!(f, "{sign}{}.{:0width$}", digits / unit, digits % unit, width = self.scale as usize)
    }
}

impl FromStr for Numeric {
    type Err = RowsError;

    /// Reads what `numeric_in` reads, without NaN and infinity.
    fn from_str(text: &str) -> Result<Self, RowsError> {
        let wrong = || RowsError::BadText { kind: "numeric", text: text.to_owned() };
        let trimmed = text.trim_matches(super::text::is_space);
        let (negative, rest) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        if ["nan", "inf", "infinity"].contains(&rest.to_ascii_lowercase().as_str()) {
            return Err(RowsError::unsupported("numeric infinity or NaN", "Use double precision."));
        }
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| wrong())?),
            None => (rest, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = || whole.bytes().chain(part.bytes());
        if all().next().is_none() || !all().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let mut digits: i128 = 0;
        for byte in all() {
            digits = digits
                .checked_mul(10)
                .and_then(|d| d.checked_add(i128::from(byte - b'0')))
                .ok_or_else(too_long)?;
        }
        let digits = if negative { -digits } else { digits };
        let scale = i64::try_from(part.len()).unwrap_or(i64::MAX).saturating_sub(i64::from(exponent));
        match u32::try_from(scale) {
            Ok(scale) => Self::new(digits, scale),
            Err(_) => {
                let up = u32::try_from(-scale).ok().filter(|n| *n <= MAX_SCALE).ok_or_else(too_long)?;
                Self::checked(digits.checked_mul(ten_to(up)), 0)
            }
        }
    }
}

/// 10^n; `n` is never above 38.
fn ten_to(n: u32) -> i128 {
    10i128.pow(n.min(MAX_SCALE))
}

fn too_long() -> RowsError {
    RowsError::unsupported("a numeric value of more than 38 digits", "Cast to double precision first.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Numeric {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_read_and_print_with_their_scale() {
        for (text, want) in [
            ("0", "0"),
            ("-0.00", "0.00"),
            ("1.50", "1.50"),
            (" +12. ", "12"),
            (".5", "0.5"),
            ("-0.05", "-0.05"),
            ("1.5e3", "1500"),
            ("15e-3", "0.015"),
            ("1.25e1", "12.5"),
        ] {
            assert_eq!(n(text).to_string(), want, "{text}");
        }
        for text in ["", ".", "1.2.3", "1e", "abc", "1 2", "--1"] {
            assert!(matches!(text.parse::<Numeric>(), Err(RowsError::BadText { .. })), "{text}");
        }
        assert_eq!("1e39".parse::<Numeric>().unwrap_err().sqlstate(), "0A000");
    }

    /// Expected values are those of PostgreSQL 15.
    #[test]
    fn quotients_have_the_digits_postgresql_gives() {
        for (a, b, want) in [
            ("1", "3", "0.33333333333333333333"),
            ("2", "3", "0.66666666666666666667"),
            ("10", "2", "5.0000000000000000"),
            ("0", "7", "0.00000000000000000000"),
            ("100000", "7", "14285.714285714286"),
            ("-7", "2", "-3.5000000000000000"),
            ("1.5", "0.001", "1500.0000000000000000"),
            ("0.0001", "3", "0.000033333333333333333333"),
            ("10000000000000000000", "9000000000000000000", "1.1111111111111111"),
            ("123456789012345678", "3", "41152263004115226"),
        ] {
            assert_eq!(n(a).div(n(b)).unwrap().to_string(), want, "{a}/{b}");
        }
        assert_eq!(n("1").div(n("0.0")), Err(RowsError::DivisionByZero));
    }

    #[test]
    fn rounding_goes_away_from_zero_at_the_half() {
        for (text, places, want) in [
            ("2.5", 0, "3"),
            ("-2.5", 0, "-3"),
            ("1.45", 1, "1.5"),
            ("1.5", 3, "1.500"),
            ("1234.5", -2, "1200"),
            ("1250", -2, "1300"),
            ("7", -5, "0"),
        ] {
            assert_eq!(n(text).round(places).unwrap().to_string(), want, "{text} {places}");
        }
        assert_eq!((n("-1.5").floor(), n("-1.5").ceil()), (n("-2"), n("-1")));
    }

    #[test]
    fn values_compare_across_scales() {
        for (a, b, want) in [
            ("1.0", "1.00", Ordering::Equal),
            ("-1.5", "-1.4", Ordering::Less),
            ("0.1", "0.09", Ordering::Greater),
            (
                "99999999999999999999999999999999999999",
                "0.00000000000000000000000000000000000001",
                Ordering::Greater,
            ),
        ] {
            assert_eq!(n(a).order(n(b)), want, "{a} {b}");
        }
    }

    #[test]
    fn floats_become_numbers_of_fifteen_digits() {
        for (value, want) in [
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1.0 / 3.0, "0.333333333333333"),
            (1500.0, "1500"),
        ] {
            assert_eq!(Numeric::from_f64(value).unwrap().to_string(), want);
        }
        assert!(Numeric::from_f64(f64::NAN).is_err());
    }
}
