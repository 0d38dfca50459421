//! Reads a key out of a statement's own bytes or its parameters, as PostgreSQL would type it.
//! Must not know where in the statement the value stands, nor shards. What is in doubt is [`Read::Unknown`].

use std::borrow::Cow;

use smallvec::SmallVec;

use super::arrays;
use crate::catalog::oid;
use crate::route::lex::LiteralAt;
use crate::route::literal::decode;
use crate::route::{Env, Param};
use crate::shard::{Key, KeyError, KeyType};

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The statement's nth literal, from 0; read anew from every text that shares the plan.
    Literal(u32),
    /// `$n`, from 1.
    Param(u16),
    /// NULL.
    Null,
}

/// A constant or a parameter, perhaps with a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand {
    /// Where it stands.
    pub(super) source: Source,
    /// A literal written as a number, not as a string.
    pub(super) number: bool,
    /// A minus before the number.
    pub(super) negated: bool,
    /// The type it is cast to; of an array, the type of its elements.
    pub(super) cast: Option<KeyType>,
}

/// How a value's type is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Typed {
    /// The type it is compared as.
    pub(super) kind: KeyType,
    /// The type is concluded from a constant, not read from the catalog: then no error can be foretold.
    pub(super) guessed: bool,
}

/// What a value turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    /// A key.
    Key(Key),
    /// NULL.
    Null,
    /// Not a value that any row can have, or one that every server refuses: any server will do.
    Never,
    /// Not understood: nothing may be concluded.
    Unknown,
}

/// The keys of one comparison, usually one.
pub(super) type Keys = SmallVec<[Key; 1]>;

/// Types that compare and hash alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// smallint, integer, bigint.
    Int,
    /// text, varchar.
    Text,
    /// char(n): comparing it with text depends on which side is which.
    Bpchar,
    /// uuid.
    Uuid,
}

/// The class of a type.
pub(super) fn class(kind: KeyType) -> Class {
    match kind {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => Class::Int,
        KeyType::Text | KeyType::Varchar => Class::Text,
        KeyType::Bpchar => Class::Bpchar,
        KeyType::Uuid => Class::Uuid,
    }
}

/// The values of one execution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// The statement's text.
    pub(super) text: &'a [u8],
    /// Its literals.
    pub(super) literals: &'a [LiteralAt],
    /// Bind's parameters.
    pub(super) params: &'a [Param<'a>],
    /// The session.
    pub(super) env: &'a Env,
    /// Parameters whose type the server may infer from a use that is not a key comparison.
    pub(super) untrusted: &'a [u16],
}

impl<'a> Values<'a> {
    /// The value compared with a column of that type.
    pub(super) fn read(&self, operand: &Operand, typed: Typed) -> Read {
        match operand.source {
            Source::Null => Read::Null,
            Source::Literal(_) if operand.number => self.number(operand, typed),
            Source::Literal(n) => match (self.literal(n), text_type(operand.cast, typed.kind)) {
                (Some(text), Some(kind)) => from_text(kind, &text),
                _ => Read::Unknown,
            },
            Source::Param(n) => self.param(n, operand.cast, typed),
        }
    }

    /// The text of a literal.
    pub(super) fn literal(&self, ordinal: u32) -> Option<Cow<'a, str>> {
        decode(self.text, self.literals.get(ordinal as usize)?, self.env)
    }

    /// A literal's or parameter's text where it is one of digits, with the operand's sign.
    pub(super) fn digits(&self, operand: &Operand) -> Option<i64> {
        let Source::Literal(n) = operand.source else { return None };
        let digits = self.literal(n).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
        let sign = if operand.negated { "-" } else { "" };
        format!("{sign}{digits}").parse().ok()
    }

    fn number(&self, operand: &Operand, typed: Typed) -> Read {
        let understood = operand.cast.is_none_or(KeyType::is_int);
        match class(typed.kind) {
            Class::Int if understood => {
                self.digits(operand).map_or(Read::Unknown, |n| Read::Key(Key::Int(n)))
            }
            // There is no operator between a character type or uuid and a number.
            Class::Text | Class::Bpchar | Class::Uuid if operand.cast.is_none() && !typed.guessed => {
                Read::Never
            }
            Class::Int | Class::Text | Class::Bpchar | Class::Uuid => Read::Unknown,
        }
    }

    fn param(&self, n: u16, cast: Option<KeyType>, typed: Typed) -> Read {
        let Some(param) = usize::from(n).checked_sub(1).and_then(|i| self.params.get(i)) else {
            return Read::Unknown;
        };
        let inferred = matches!(param.type_oid, 0 | oid::UNKNOWN);
        let declared = if inferred { None } else { KeyType::of_oid(param.type_oid) };
        if !inferred && declared.is_none() {
            return Read::Unknown;
        }
        let Some(kind) = param_type(declared, cast, typed.kind) else {
            let mismatch = declared.is_some_and(KeyType::is_int) && class(typed.kind) != Class::Int;
            return if mismatch && cast.is_none() && !typed.guessed { Read::Never } else { Read::Unknown };
        };
        let Some(bytes) = param.value else { return Read::Null };
        let trusted = !inferred || cast.is_some() || self.untrusted.binary_search(&n).is_err();
        let sent = declared.unwrap_or(kind);
        self.param_value(bytes, param.binary, sent, kind, trusted, inferred)
    }

    /// `sent` is the type the bytes are in, `kind` the one they are compared as. A parameter that is not trusted
    /// may have been given another type by another use of it: then only what all of them share is read.
    fn param_value(
        &self,
        bytes: &[u8],
        binary: bool,
        sent: KeyType,
        kind: KeyType,
        trusted: bool,
        inferred: bool,
    ) -> Read {
        if binary && sent.is_int() {
            let read = if inferred { int_of_any_width(bytes) } else { Key::from_binary(sent, bytes).ok() };
            return match read {
                Some(key) if trusted => Read::Key(key),
                None if trusted => Read::Never,
                _ => Read::Unknown,
            };
        }
        if binary && sent == KeyType::Uuid {
            return Key::from_binary(sent, bytes).map_or(Read::Never, Read::Key);
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return Read::Unknown };
        let foreign = self.env.foreign_encoding && !text.is_ascii();
        let padded = class(kind) == Class::Text && !trusted && text.ends_with(' ');
        if foreign || padded { Read::Unknown } else { from_text(kind, text) }
    }

    /// The elements of the array that `= ANY(operand)` compares with. `None`: not understood.
    pub(super) fn read_array(&self, operand: &Operand, typed: Typed) -> Option<Keys> {
        let mut keys = Keys::new();
        match operand.source {
            Source::Null => {}
            Source::Literal(_) if operand.number => return None,
            Source::Literal(n) => {
                let kind = text_type(operand.cast, typed.kind)?;
                self.text_elements(&self.literal(n)?, kind, &mut keys)?;
            }
            Source::Param(n) => self.param_elements(n, operand.cast, typed, &mut keys)?,
        }
        Some(keys)
    }

    fn text_elements(&self, text: &str, kind: KeyType, keys: &mut Keys) -> Option<()> {
        for element in arrays::from_text(text)?.into_iter().flatten() {
            match from_text(kind, &element) {
                Read::Key(key) => keys.push(key),
                Read::Null | Read::Never => {}
                Read::Unknown => return None,
            }
        }
        Some(())
    }

    fn param_elements(&self, n: u16, cast: Option<KeyType>, typed: Typed, keys: &mut Keys) -> Option<()> {
        let param = self.params.get(usize::from(n).checked_sub(1)?)?;
        let declared = match param.type_oid {
            0 | oid::UNKNOWN if self.untrusted.binary_search(&n).is_ok() && cast.is_none() => return None,
            0 | oid::UNKNOWN => None,
            declared => Some(element_type(declared)?),
        };
        let kind = param_type(declared, cast, typed.kind)?;
        let Some(bytes) = param.value else { return Some(()) };
        if !param.binary {
            let text = std::str::from_utf8(bytes).ok()?;
            if self.env.foreign_encoding && !text.is_ascii() {
                return None;
            }
            return self.text_elements(text, kind, keys);
        }
        let (element, elements) = arrays::from_binary(bytes)?;
        if elements.is_empty() {
            return Some(());
        }
        let sent =
            param_type(Some(KeyType::of_oid(element)?), cast, typed.kind).and(KeyType::of_oid(element))?;
        for bytes in elements.into_iter().flatten() {
            match self.param_value(bytes, true, sent, kind, true, false) {
                Read::Key(key) => keys.push(key),
                Read::Null | Read::Never => {}
                Read::Unknown => return None,
            }
        }
        Some(())
    }
}

/// The type a string literal is read as where it is compared with a column of type `kind`.
pub(super) fn text_type(cast: Option<KeyType>, kind: KeyType) -> Option<KeyType> {
    param_type(cast, None, kind).map(|read| if class(kind) == Class::Int { read } else { kind })
}

/// The type a parameter's text is read as; `None` if the types do not go together in a way that is understood.
///
/// Characters are always read as the column's: a `char(n)` column ignores blanks at the end whatever it is
/// compared with, while a varchar column compared with a `char(n)` value would begin to, and is not understood.
fn param_type(declared: Option<KeyType>, cast: Option<KeyType>, kind: KeyType) -> Option<KeyType> {
    let fits = |from: KeyType| match class(kind) {
        Class::Int => class(from) == Class::Int,
        Class::Uuid => class(from) == Class::Uuid,
        Class::Text => class(from) == Class::Text,
        Class::Bpchar => matches!(class(from), Class::Text | Class::Bpchar),
    };
    if !declared.is_none_or(fits) || !cast.is_none_or(fits) {
        return None;
    }
    Some(if class(kind) == Class::Int { declared.or(cast).unwrap_or(kind) } else { kind })
}

fn element_type(array: u32) -> Option<KeyType> {
    Some(match array {
        oid::INT2_ARRAY => KeyType::Int2,
        oid::INT4_ARRAY => KeyType::Int4,
        oid::INT8_ARRAY => KeyType::Int8,
        oid::TEXT_ARRAY => KeyType::Text,
        oid::VARCHAR_ARRAY => KeyType::Varchar,
        oid::BPCHAR_ARRAY => KeyType::Bpchar,
        oid::UUID_ARRAY => KeyType::Uuid,
        _ => return None,
    })
}

/// Without a declared type the server infers the column's; the width shows which of the integer types it was.
fn int_of_any_width(bytes: &[u8]) -> Option<Key> {
    let kind = match bytes.len() {
        2 => KeyType::Int2,
        4 => KeyType::Int4,
        8 => KeyType::Int8,
        _ => return None,
    };
    Key::from_binary(kind, bytes).ok()
}

/// A value's text form. What the type refuses is an error on every server, unless another reading (a `numeric`
/// in an IN list, the integer forms of newer servers) is possible.
pub(super) fn from_text(kind: KeyType, text: &str) -> Read {
    match Key::from_text(kind, text) {
        Ok(key) => Read::Key(key),
        Err(KeyError::Syntax { .. }) if kind.is_int() && text.bytes().any(|b| b.is_ascii_digit()) => {
            Read::Unknown
        }
        Err(KeyError::Syntax { .. } | KeyError::Range { .. } | KeyError::Binary { .. }) => Read::Never,
    }
}
