//! Keys of a map in the types of their columns, once the catalogs have said which those are.
//! Must not know where the types come from.

use std::collections::HashMap;

use super::{Key, KeyColumn, KeyError, KeyType, Map, Method, PartitionId, Placement, TableName};

/// The types of key columns, by table and column.
pub type KeyTypes = HashMap<(TableName, String), KeyType>;

/// A list value or range bound that does not fit its column. Found at start or after DDL, never by a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}, column \"{column}\": {problem}")]
pub struct RetypeError {
    /// The table.
    pub table: TableName,
    /// The key column.
    pub column: String,
    /// What is wrong with its values.
    pub problem: RetypeProblem,
}

/// What can be wrong with a key column's values once its type is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetypeProblem {
    /// No value of the type at all.
    #[error(transparent)]
    Value(#[from] KeyError),
    /// A number where the column holds text or uuids.
    #[error("{value} is a number, and the column is of type {}; write it in quotes", .kind.name())]
    NotText {
        /// The column's type.
        kind: KeyType,
        /// The number.
        value: i64,
    },
    /// Two spellings of one value, for different partitions.
    #[error("the value {0} is there twice, for different partitions")]
    Twice(Key),
    /// Ascending as text, but not in the column's type.
    #[error("the bound {next} does not come after {last}")]
    Order {
        /// The bound before.
        last: Key,
        /// The bound.
        next: Key,
    },
}

impl Map {
    /// This map with the values of its list and range keys read as values of their columns' types.
    ///
    /// The configuration knows only numbers and text; `'A0EE…'` of a uuid column becomes 16 bytes here, `"7"` of an
    /// integer column the number. Columns that `types` does not have (their table does not exist yet) stay as they
    /// are. Applying it twice changes nothing, but a type that changed needs the configuration's own map.
    ///
    /// # Errors
    /// One [`RetypeError`] for each column whose values do not fit; never an empty list.
    pub fn with_key_types(&self, types: &KeyTypes) -> Result<Self, Vec<RetypeError>> {
        let mut map = self.clone();
        let mut errors = Vec::new();
        for (table, placement) in &mut map.tables {
            let Placement::Sharded(keys) = placement else { continue };
            for key in keys {
                let Some(kind) = types.get(&(table.clone(), key.column.clone())) else { continue };
                match key.method.with_type(*kind) {
                    Ok(method) => key.method = method,
                    Err(problem) => {
                        errors.push(RetypeError {
                            table: table.clone(),
                            column: key.column.clone(),
                            problem,
                        });
                    }
                }
            }
        }
        if errors.is_empty() { Ok(map) } else { Err(errors) }
    }

    /// The key columns of sharded tables, whose types [`Map::with_key_types`] wants to know.
    pub fn key_columns(&self) -> impl Iterator<Item = (&TableName, &KeyColumn)> {
        self.tables.iter().flat_map(|(table, placement)| {
            let keys = match placement {
                Placement::Sharded(keys) => keys.as_slice(),
                Placement::Reference | Placement::Single(_) => &[],
            };
            keys.iter().map(move |key| (table, key))
        })
    }
}

impl Method {
    fn with_type(&self, kind: KeyType) -> Result<Self, RetypeProblem> {
        match self {
            Self::Hash => Ok(Self::Hash),
            Self::List(values) => list(values, kind).map(Self::List),
            Self::Range(bounds) => range(bounds, kind).map(Self::Range),
        }
    }
}

fn list(
    values: &HashMap<Key, PartitionId>,
    kind: KeyType,
) -> Result<HashMap<Key, PartitionId>, RetypeProblem> {
    let mut typed = HashMap::with_capacity(values.len());
    for (value, partition) in values {
        let value = retype(value, kind)?;
        if typed.insert(value.clone(), *partition).is_some_and(|other| other != *partition) {
            return Err(RetypeProblem::Twice(value));
        }
    }
    Ok(typed)
}

fn range(
    bounds: &[(Option<Key>, PartitionId)],
    kind: KeyType,
) -> Result<Vec<(Option<Key>, PartitionId)>, RetypeProblem> {
    let mut typed: Vec<(Option<Key>, PartitionId)> = Vec::with_capacity(bounds.len());
    for (bound, partition) in bounds {
        let bound = bound.as_ref().map(|key| retype(key, kind)).transpose()?;
        if let (Some((Some(last), _)), Some(next)) = (typed.last(), &bound)
            && last >= next
        {
            return Err(RetypeProblem::Order { last: last.clone(), next: next.clone() });
        }
        typed.push((bound, *partition));
    }
    Ok(typed)
}

fn retype(key: &Key, kind: KeyType) -> Result<Key, RetypeProblem> {
    match key {
        Key::Text(text) => Ok(Key::from_text(kind, text)?),
        Key::Int(n) if kind.is_int() => Ok(Key::from_text(kind, &n.to_string())?),
        Key::Int(n) => Err(RetypeProblem::NotText { kind, value: *n }),
        Key::Uuid(_) => Ok(Key::from_text(kind, &key.to_string())?),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::shard::ShardId;

    fn map(method: Method) -> Map {
        let keys = vec![KeyColumn { column: "k".into(), method, fill: false }];
        Map::new(
            vec!["s".into()],
            vec![("A".into(), 1, ShardId(0)), ("B".into(), 1, ShardId(0))],
            BTreeMap::from([(TableName::new("public", "t"), Placement::Sharded(keys))]),
            ShardId(0),
        )
    }

    fn list_of(values: &[(&str, u16)]) -> Map {
        map(Method::List(values.iter().map(|(v, p)| (Key::Text((*v).into()), PartitionId(*p))).collect()))
    }

    fn range_of(bounds: &[Option<Key>]) -> Map {
        map(Method::Range(
            bounds.iter().enumerate().map(|(i, b)| (b.clone(), PartitionId(i as u16))).collect(),
        ))
    }

    fn typed(map: &Map, kind: KeyType) -> Result<Method, String> {
        let types = KeyTypes::from([((TableName::new("public", "t"), "k".to_owned()), kind)]);
        let map = map.with_key_types(&types).map_err(|e| e[0].to_string())?;
        Ok(map.key_columns().next().unwrap().1.method.clone())
    }

    #[test]
    fn list_values_become_values_of_the_column() {
        let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for (kind, text, want) in [
            (KeyType::Int4, "07", Key::Int(7)),
            (KeyType::Varchar, "07", Key::Text("07".into())),
            (KeyType::Bpchar, "a ", Key::Text("a".into())),
            (KeyType::Uuid, id, Key::from_text(KeyType::Uuid, id).unwrap()),
        ] {
            let want = Method::List(HashMap::from([(want, PartitionId(1))]));
            assert_eq!(typed(&list_of(&[(text, 1)]), kind), Ok(want), "{text}");
        }
    }

    #[test]
    fn values_that_do_not_fit_say_table_column_and_why() {
        let text = |t: &str| Some(Key::Text(t.into()));
        let twice = list_of(&[("7", 0), ("07", 1)]);
        for (map, kind, want) in [
            (list_of(&[("x", 0)]), KeyType::Int8, "invalid input syntax for type bigint: \"x\""),
            (twice, KeyType::Int8, "the value 7 is there twice, for different partitions"),
            (
                range_of(&[Some(Key::Int(1))]),
                KeyType::Text,
                "1 is a number, and the column is of type text; write it in quotes",
            ),
            (range_of(&[text("10"), text("9")]), KeyType::Int4, "the bound 9 does not come after 10"),
            (
                range_of(&[Some(Key::Int(40_000))]),
                KeyType::Int2,
                "value \"40000\" is out of range for type smallint",
            ),
        ] {
            assert_eq!(typed(&map, kind), Err(format!("table public.t, column \"k\": {want}")));
        }
        assert!(typed(&list_of(&[("7", 0), ("07", 0)]), KeyType::Int8).is_ok());
    }

    #[test]
    fn an_unknown_column_stays_as_it_is_and_a_second_pass_changes_nothing() {
        let map = list_of(&[("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 0)]);
        assert_eq!(map.with_key_types(&KeyTypes::new()).as_ref(), Ok(&map));
        let types = KeyTypes::from([((TableName::new("public", "t"), "k".to_owned()), KeyType::Uuid)]);
        let once = map.with_key_types(&types).unwrap();
        assert_ne!(once, map);
        assert_eq!(once.with_key_types(&types).as_ref(), Ok(&once));
    }
}
