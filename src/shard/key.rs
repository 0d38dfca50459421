//! Sharding keys: typed values that can be hashed and compared as PostgreSQL would.
//! Must not know which table or partition they belong to.

use std::fmt;

use super::hash::{hash_extended_bytes, hash_extended_int};

/// The types a sharding key column can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `text`
    Text,
    /// `varchar` with or without a length
    Varchar,
    /// `char(n)`: trailing spaces do not count
    Bpchar,
    /// `uuid`
    Uuid,
}

impl KeyType {
    /// Every supported type, for error messages.
    pub const SUPPORTED: &'static str = "smallint, integer, bigint, text, varchar, char(n), uuid";

    /// The key type of a type OID, if it is supported.
    #[must_use]
    pub fn of_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            21 => Self::Int2,
            23 => Self::Int4,
            20 => Self::Int8,
            25 => Self::Text,
            1043 => Self::Varchar,
            1042 => Self::Bpchar,
            2950 => Self::Uuid,
            _ => return None,
        })
    }

    /// Whether its keys are whole numbers.
    #[must_use]
    pub fn is_int(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    /// Whether its keys are character strings.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Varchar | Self::Bpchar)
    }

    /// Its name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Text => "text",
            Self::Varchar => "character varying",
            Self::Bpchar => "character",
            Self::Uuid => "uuid",
        }
    }
}

/// A sharding key's value, never NULL. Numbers of all widths are one kind, so equal numbers are equal keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Of any integer type.
    Int(i64),
    /// Of any character type, in UTF-8; trailing spaces already removed for `char(n)`.
    Text(String),
    /// 16 bytes in print order.
    Uuid([u8; 16]),
}

/// A value that is no value of the key's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of the type's syntax (22P02).
    #[error("invalid input syntax for type {}: \"{text}\"", .kind.name())]
    Syntax {
        /// The key's type.
        kind: KeyType,
        /// The text.
        text: String,
    },
    /// A number the type cannot hold (22003).
    #[error("value \"{text}\" is out of range for type {}", .kind.name())]
    Range {
        /// The key's type.
        kind: KeyType,
        /// The text.
        text: String,
    },
    /// Bytes that are not the binary format of the type (22P03).
    #[error("incorrect binary data format for type {}", .kind.name())]
    Binary {
        /// The key's type.
        kind: KeyType,
    },
}

impl Key {
    /// Reads a value's text form, as the type's input function would.
    ///
    /// # Errors
    /// [`KeyError::Syntax`] or [`KeyError::Range`], which PostgreSQL would raise too. Forms that only newer
    /// servers accept for integers (`0x1F`, `1_000`) are `Syntax` as well: leave those to a server.
    pub fn from_text(kind: KeyType, text: &str) -> Result<Self, KeyError> {
        match kind {
            KeyType::Int2 => int(kind, text, i64::from(i16::MIN), i64::from(i16::MAX)),
            KeyType::Int4 => int(kind, text, i64::from(i32::MIN), i64::from(i32::MAX)),
            KeyType::Int8 => int(kind, text, i64::MIN, i64::MAX),
            KeyType::Text | KeyType::Varchar => Ok(Self::Text(text.to_owned())),
            KeyType::Bpchar => Ok(Self::Text(text.trim_end_matches(' ').to_owned())),
            KeyType::Uuid => {
                uuid(text).map(Self::Uuid).ok_or_else(|| KeyError::Syntax { kind, text: text.to_owned() })
            }
        }
    }

    /// Reads a value's binary form (big-endian integers, UTF-8 text, 16 bytes of uuid).
    ///
    /// `kind` is the type the bytes were *sent* as.
    ///
    /// # Errors
    /// [`KeyError::Binary`] if the length or the encoding is wrong.
    pub fn from_binary(kind: KeyType, bytes: &[u8]) -> Result<Self, KeyError> {
        let wrong = || KeyError::Binary { kind };
        match kind {
            KeyType::Int2 => {
                bytes.try_into().map(|b| Self::Int(i64::from(i16::from_be_bytes(b)))).map_err(|_| wrong())
            }
            KeyType::Int4 => {
                bytes.try_into().map(|b| Self::Int(i64::from(i32::from_be_bytes(b)))).map_err(|_| wrong())
            }
            KeyType::Int8 => bytes.try_into().map(|b| Self::Int(i64::from_be_bytes(b))).map_err(|_| wrong()),
            KeyType::Text | KeyType::Varchar | KeyType::Bpchar => {
                let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
                Self::from_text(kind, text)
            }
            KeyType::Uuid => bytes.try_into().map(Self::Uuid).map_err(|_| wrong()),
        }
    }

    /// PostgreSQL's extended hash of the value.
    #[must_use]
    pub fn hash_extended(&self, seed: u64) -> u64 {
        match self {
            Self::Int(n) => hash_extended_int(*n, seed),
            Self::Text(text) => hash_extended_bytes(text.as_bytes(), seed),
            Self::Uuid(bytes) => hash_extended_bytes(bytes, seed),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

fn int(kind: KeyType, text: &str, min: i64, max: i64) -> Result<Key, KeyError> {
    // What C's isspace accepts in the C locale, which PostgreSQL skips on both sides.
    let trimmed = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(KeyError::Syntax { kind, text: text.to_owned() });
    }
    trimmed
        .parse::<i64>()
        .ok()
        .filter(|n| (min..=max).contains(n))
        .map(Key::Int)
        .ok_or_else(|| KeyError::Range { kind, text: text.to_owned() })
}

/// The forms `uuid_in` accepts: 32 hex digits, hyphens allowed after any group of four, braces round it all.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0u8; 16];
    let mut rest = inner.as_bytes();
    for (i, slot) in bytes.iter_mut().enumerate() {
        let (pair, tail) = rest.split_at_checked(2)?;
        let high = char::from(*pair.first()?).to_digit(16)?;
        let low = char::from(*pair.get(1)?).to_digit(16)?;
        *slot = (high * 16 + low) as u8;
        rest = tail;
        if i % 2 == 1 && i < 15 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_as_postgresql_reads_them() {
        for (text, want) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("+7", Some(7)),
            ("-7", Some(-7)),
            ("007", Some(7)),
            ("", None),
            ("7.0", None),
            ("- 7", None),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
        ] {
            assert_eq!(Key::from_text(KeyType::Int4, text).ok(), want.map(Key::Int), "{text:?}");
        }
        assert!(matches!(Key::from_text(KeyType::Int2, "40000"), Err(KeyError::Range { .. })));
    }

    #[test]
    fn uuids_read_in_every_form_and_print_in_one() {
        let want = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            want,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(Key::from_text(KeyType::Uuid, text).unwrap().to_string(), want, "{text}");
        }
        for text in
            ["", "a0eebc99", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a-0eebc999c0b4ef8bb6d6bb9bd380a11"]
        {
            assert!(Key::from_text(KeyType::Uuid, text).is_err(), "{text}");
        }
    }

    #[test]
    fn trailing_spaces_count_for_varchar_but_not_for_char() {
        assert_ne!(Key::from_text(KeyType::Varchar, "a "), Key::from_text(KeyType::Varchar, "a"));
        assert_eq!(Key::from_text(KeyType::Bpchar, "a "), Key::from_text(KeyType::Bpchar, "a"));
    }
}
