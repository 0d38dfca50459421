//! A client's parameters: the types it declared, and values read by them.
//! Must not know the query.

use super::AdminError;
use crate::rows::{RowsError, Type, Value};

/// One parameter's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamType {
    /// The OID that ParameterDescription shows and values are read by.
    pub oid: u32,
    /// The type it counts as in expressions.
    pub kind: Type,
}

/// Types that clients declare and that count as one of ours: `smallint`, `oid`, `real`, `name`, `char(n)`,
/// `varchar`, `unknown`. Source: PostgreSQL's `pg_type.dat`.
const LIKE_OURS: [(u32, Type); 7] = [
    (21, Type::Int4),
    (26, Type::Int8),
    (700, Type::Float8),
    (19, Type::Text),
    (1042, Type::Text),
    (1043, Type::Text),
    (705, Type::Text),
];

/// The type of a declared OID; `None` for 0, which leaves it open.
///
/// # Errors
/// [`AdminError::ParameterType`].
pub(super) fn declared(oid: u32) -> Result<Option<Type>, AdminError> {
    if oid == 0 {
        return Ok(None);
    }
    let like = || LIKE_OURS.iter().find(|(o, _)| *o == oid).map(|(_, kind)| *kind);
    Type::of_oid(oid).or_else(like).map(Some).ok_or(AdminError::ParameterType(oid))
}

impl ParamType {
    fn read(self, bytes: &[u8], binary: bool) -> Result<Value, RowsError> {
        if !binary {
            let text = Value::from_binary(Type::Text, bytes)?;
            return match (text, self.kind) {
                (text, Type::Text) => Ok(text),
                (Value::Text(text), kind) => Value::from_text(kind, &text),
                (other, _) => Ok(other),
            };
        }
        let wrong = |_| RowsError::BadBinary(self.kind.name());
        match self.oid {
            21 => Ok(Value::Int(i64::from(i16::from_be_bytes(bytes.try_into().map_err(wrong)?)))),
            26 => Ok(Value::Int(i64::from(u32::from_be_bytes(bytes.try_into().map_err(wrong)?)))),
            700 => Ok(Value::Float(f64::from(f32::from_be_bytes(bytes.try_into().map_err(wrong)?)))),
            _ => Value::from_binary(self.kind, bytes),
        }
    }
}

/// The values of a statement's parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    pub(super) kinds: Vec<Type>,
    pub(super) values: Vec<Value>,
}

impl Params {
    /// None at all: the simple protocol.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the values of a Bind: each with whether it is in binary format; `None` is NULL.
    ///
    /// # Errors
    /// [`AdminError::ParameterCount`]; [`AdminError::Rows`] for what is no value of its type.
    pub fn read<'a>(
        types: &[ParamType],
        values: impl IntoIterator<Item = (Option<&'a [u8]>, bool)>,
    ) -> Result<Self, AdminError> {
        let given: Vec<_> = values.into_iter().collect();
        if given.len() != types.len() {
            return Err(AdminError::ParameterCount { given: given.len(), wanted: types.len() });
        }
        let read = |(kind, (bytes, binary)): (&ParamType, (Option<&[u8]>, bool))| match bytes {
            Some(bytes) => kind.read(bytes, binary),
            None => Ok(Value::Null),
        };
        let values = types.iter().zip(given).map(read).collect::<Result<_, _>>()?;
        Ok(Self { kinds: types.iter().map(|t| t.kind).collect(), values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_the_type_the_client_declared() {
        for (oid, bytes, binary, want) in [
            (21, &[0xff, 0xfe][..], true, Value::Int(-2)),
            (23, &[0, 0, 0, 7], true, Value::Int(7)),
            (20, b" 7 ", false, Value::Int(7)),
            (26, &[0xff, 0xff, 0xff, 0xff], true, Value::Int(4_294_967_295)),
            (700, &[0x3f, 0, 0, 0], true, Value::Float(0.5)),
            (1043, b"x", true, Value::Text("x".into())),
            (16, b"t", false, Value::Bool(true)),
        ] {
            let kind = declared(oid).unwrap().unwrap();
            let params = Params::read(&[ParamType { oid, kind }], [(Some(bytes), binary)]).unwrap();
            assert_eq!(params.values, [want], "{oid}");
        }
        assert_eq!(declared(0), Ok(None));
        assert_eq!(declared(1082), Err(AdminError::ParameterType(1082)));
        assert!(Params::read(&[], [(None, false)]).is_err());
    }
}
