//! Invented users and orders: the same seed and number give the same rows for ever.
//! Must not know partitions, nor how rows are sent.

use std::fmt::Write;

const FIRST: [&str; 16] = [
    "Ada", "Bo", "Chen", "Dora", "Emil", "Fatima", "Grace", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mara",
    "Niko", "Olga", "Priya",
];
const LAST: [&str; 16] = [
    "Adler", "Brook", "Costa", "Diaz", "Eriksen", "Fischer", "Garcia", "Haas", "Ito", "Jensen", "Kim",
    "Lopez", "Mori", "Novak", "Okafor", "Patel",
];
/// 2024-01-01 00:00, from where on everybody signed up.
const EPOCH: time::PrimitiveDateTime = time::macros::datetime!(2024-01-01 00:00);
/// The most orders of one user.
const MOST_ORDERS: u64 = 9;

/// What all rows are derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u64);

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) user_id: String,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) created_at: String,
    /// How many orders belong to it.
    pub(super) orders: u64,
}

/// One order of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) order_id: String,
    /// In hundredths.
    pub(super) cents: u64,
    pub(super) created_at: String,
}

/// The id of the user of that number.
pub(super) fn user_id(number: u64) -> String {
    format!("user_{number:06}")
}

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The user of that number.
    pub(super) fn user(self, number: u64) -> User {
        let mut random = self.random(number, 0);
        let first = pick(&FIRST, random.next());
        let last = pick(&LAST, random.next());
        let email = format!("{}.{}.{number}@example.com", first.to_lowercase(), last.to_lowercase());
        User {
            user_id: user_id(number),
            name: format!("{first} {last}"),
            email,
            created_at: moment(random.next()),
            orders: random.next() % (MOST_ORDERS + 1),
        }
    }

    /// A user's order, counted from 0.
    pub(super) fn order(self, number: u64, nth: u64) -> Order {
        let mut random = self.random(number, nth + 1);
        Order {
            order_id: format!("order_{number:06}_{}", nth + 1),
            cents: 100 + random.next() % 99_900,
            created_at: moment(random.next()),
        }
    }

    fn random(self, number: u64, stream: u64) -> Random {
        Random(mix(self.0 ^ mix(number) ^ mix(stream.rotate_left(32))))
    }
}

impl User {
    /// Bytes of the row in PostgreSQL: `pg_column_size(users)`.
    pub(super) fn bytes(&self, partition_key: &str) -> u64 {
        let before = 4 + text(&self.user_id) + text(&self.name) + text(&self.email);
        ROW_HEADER + (before as u64).next_multiple_of(8) + 8 + text(partition_key) as u64
    }

    /// A line of COPY's text format, without `id`.
    pub(super) fn copy_line(&self, partition_key: &str, out: &mut String) {
        let Self { user_id, name, email, created_at, .. } = self;
        let key = copy_text(partition_key);
        let _ = writeln!(out, "{user_id}\t{name}\t{email}\t{created_at}\t{key}");
    }
}

impl Order {
    /// Bytes of the row in PostgreSQL: `pg_column_size(orders)`.
    pub(super) fn bytes(&self, user_id: &str) -> u64 {
        // numeric: one byte of length, two of sign and scale, two for each group of four digits that is not zero at
        // either end
        let groups = u64::from(self.cents >= 100) + u64::from(!self.cents.is_multiple_of(100));
        let before = 4 + text(user_id) + text(&self.order_id);
        ROW_HEADER + (before as u64 + 3 + 2 * groups).next_multiple_of(8) + 8
    }

    /// A line of COPY's text format, without `id`.
    pub(super) fn copy_line(&self, user_id: &str, out: &mut String) {
        let Self { order_id, cents, created_at } = self;
        let _ = writeln!(out, "{user_id}\t{order_id}\t{}.{:02}\t{created_at}", cents / 100, cents % 100);
    }
}

/// A row's header, padded.
const ROW_HEADER: u64 = 24;

/// A short text with its byte of length.
fn text(value: &str) -> usize {
    value.len() + 1
}

/// Escaped for COPY's text format.
fn copy_text(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn pick<'a>(from: &[&'a str; 16], random: u64) -> &'a str {
    from[(random % 16) as usize]
}

fn moment(random: u64) -> String {
    let at = EPOCH + time::Duration::seconds((random % (365 * 86_400)) as i64);
    let (date, time) = (at.date(), at.time());
    let (y, m, d) = (date.year(), u8::from(date.month()), date.day());
    format!("{y:04}-{m:02}-{d:02} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// splitmix64: ours, because library generators may change between versions. Source: Steele, Lea, Flood, 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_people_and_another_one_others() {
        let (a, b) = (Seed::new(1), Seed::new(2));
        assert_eq!(a.user(7), a.user(7));
        assert_ne!(a.user(7).created_at, b.user(7).created_at);
        assert_ne!(a.order(7, 0).cents, a.order(7, 1).cents);
        // Pinned: a change here would change everybody's data.
        let user = a.user(123);
        assert_eq!(user.user_id, "user_000123");
        assert!(user.email.ends_with(".123@example.com") && user.orders <= MOST_ORDERS);
    }

    #[test]
    fn lines_have_as_many_fields_as_the_copy_has_columns() {
        let seed = Seed::new(1);
        let mut out = String::new();
        seed.user(1).copy_line("a\tb", &mut out);
        assert_eq!(out.trim_end().split('\t').count(), 5, "{out}");
        assert!(out.ends_with("a\\tb\n"));
        out.clear();
        seed.order(1, 0).copy_line("user_000001", &mut out);
        assert_eq!(out.split('\t').count(), 4, "{out}");
    }

    #[test]
    fn on_average_a_user_has_four_and_a_half_orders() {
        let seed = Seed::new(1);
        let orders: u64 = (0..10_000).map(|n| seed.user(n).orders).sum();
        assert!((44_000..46_000).contains(&orders), "{orders}");
    }
}
