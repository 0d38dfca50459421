//! What each byte can be in SQL: one table look-up for each byte of a text.
//! Must not know tokens longer than a byte. Source: PostgreSQL's `scan.l`.

/// What a byte can be at the start of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Space,
    Letter,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Dot,
    Colon,
    Operator,
    Symbol,
}

static CLASSES: [Class; 256] = classes();

/// What a word can go on with (letters, digits and `$`), folded as PostgreSQL folds; zero for all else.
static WORD_BYTES: [u8; 256] = word_bytes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Symbol; 256];
    let mut byte = 0usize;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/'
            | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            _ => Class::Symbol,
        };
        byte += 1;
    }
    table
}

/// A byte's class.
pub(super) fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

const fn word_bytes() -> [u8; 256] {
    let (classes, mut table, mut byte) = (classes(), [0; 256], 0);
    while byte < 256 {
        if matches!(classes[byte], Class::Letter | Class::Digit | Class::Dollar) {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

/// Whether a byte can go on a word; the first one cannot be a digit or `$`.
pub(super) fn is_word_byte(byte: u8) -> bool {
    folded_word_byte(byte) != 0
}

/// The byte in lower case if it can go on a word, else zero.
pub(super) fn folded_word_byte(byte: u8) -> u8 {
    WORD_BYTES[usize::from(byte)]
}
