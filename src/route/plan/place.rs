//! The partitions that an INSERT's rows belong to, and the key values it must be given on the way.
//! Must not know syntax.

use smallvec::SmallVec;

use super::cond::{Parts, key_column};
use super::insert::{Cell, Given, Insert, Key as Column, Rows};
use super::keys::{Operand, Read, Source, Typed, Values, from_text};
use super::rewrite::{Place, literal};
use crate::route::RouteError;
use crate::shard::{Key, KeyColumn, KeyType, Map, Method, PartitionId};
use crate::wire::SqlState;

/// Where an INSERT goes.
#[derive(Debug)]
pub(super) struct Placed {
    /// The partitions of its rows.
    pub(super) parts: Parts,
    /// What must be spliced in.
    pub(super) edits: Vec<(Place, String)>,
}

impl Insert {
    /// Where it goes with these values.
    ///
    /// # Errors
    /// 23502 and 23514 as one server with these constraints would raise, [`RouteError::Refused`] for a key that
    /// only a server could compute.
    pub(super) fn place(&self, map: &Map, values: &Values<'_>) -> Result<Placed, RouteError> {
        match &self.rows {
            Rows::Wrong => Ok(Placed { parts: Parts::none(), edits: Vec::new() }),
            Rows::Listed(cells) => self.place_rows(cells, map, values),
            Rows::Selected { keys, agreeing } => self.place_selected(keys, *agreeing, map, values),
        }
    }

    fn place_rows(&self, cells: &[Cell], map: &Map, values: &Values<'_>) -> Result<Placed, RouteError> {
        let mut parts = SmallVec::new();
        let mut edits: Vec<_> = self.added.iter().cloned().collect();
        for row in cells.chunks(self.keys.len().max(1)) {
            let Some(part) = self.place_row(row, map, values)? else { continue };
            parts.push(part);
            for (i, (column, cell)) in self.keys.iter().zip(row).enumerate() {
                let Cell::Default(place) = cell else { continue };
                let value = key_column(map, &self.table, i).and_then(|c| value_of(c, part));
                let value = value.and_then(|v| literal(&v.to_string()));
                let (place, value) = place.zip(value).ok_or_else(|| self.cannot_fill(column))?;
                let comma = if place.is_default() { "" } else { ", " };
                edits.push((place, format!("{comma}{value}")));
            }
        }
        Ok(Placed { parts: Parts::some(parts), edits })
    }

    /// The partition of one row; `None` if every server refuses it.
    fn place_row(
        &self,
        row: &[Cell],
        map: &Map,
        values: &Values<'_>,
    ) -> Result<Option<PartitionId>, RouteError> {
        let mut found: Option<(PartitionId, &Column, Key)> = None;
        let mut refused_anywhere = false;
        let columns = || self.keys.iter().zip(row).enumerate();
        // Those that are filled in last: messages say what the others belong to.
        for (i, (column, cell)) in
            columns().filter(|(_, (c, _))| !c.fill).chain(columns().filter(|(_, (c, _))| c.fill))
        {
            let operand = match cell {
                Cell::Value(operand) => operand,
                Cell::Default(_) if column.fill => continue,
                Cell::Default(_) if !column.has_default => return Err(self.null(column)),
                Cell::Default(_) | Cell::Expression => return Err(self.computed(column)),
            };
            match stored(operand, column, values) {
                Read::Key(key) => self.agree(&mut found, map, i, column, key)?,
                Read::Null => return Err(self.null(column)),
                Read::Never => refused_anywhere = true,
                Read::Unknown => return Err(self.computed(column)),
            }
        }
        if refused_anywhere {
            return Ok(None);
        }
        match found {
            Some((part, ..)) => Ok(Some(part)),
            None => Err(self.keys.first().map_or_else(|| self.no_key(), |column| self.null(column))),
        }
    }

    /// Each key column alone decides the partition, so all of them must name the same.
    fn agree<'c>(
        &self,
        found: &mut Option<(PartitionId, &'c Column, Key)>,
        map: &Map,
        i: usize,
        column: &'c Column,
        key: Key,
    ) -> Result<(), RouteError> {
        let Some(method) = key_column(map, &self.table, i) else { return Err(self.no_key()) };
        let name = |id| map.partition(id).map_or("?", |p| p.name.as_str());
        let part = map.partition_of(method, &key);
        match (found.as_ref(), part) {
            (None, Ok(part)) => {
                *found = Some((part, column, key));
                Ok(())
            }
            (Some((first, ..)), Ok(part)) if *first == part => Ok(()),
            (Some((first, other, other_key)), part) => {
                let message = match part {
                    Ok(part) => format!(
                        "new row for relation \"{}\" is in two partitions: {} by \"{}\" = '{other_key}', {} by \"{}\" = '{key}'",
                        self.table.name,
                        name(*first),
                        other.column,
                        name(part),
                        column.column,
                    ),
                    Err(none) => none.to_string(),
                };
                let hint = key_column(map, &self.table, i).and_then(|c| value_of(c, *first)).map(|value| {
                    let or_not = if column.fill { ", or leave it out: pgherd fills it in" } else { "" };
                    format!(
                        "\"{}\" = '{other_key}' belongs to partition {}: use \"{}\" = '{value}'{or_not}.",
                        other.column,
                        name(*first),
                        column.column,
                    )
                });
                Err(check_violation(message, hint))
            }
            (None, Err(none)) => Err(check_violation(none.to_string(), None)),
        }
    }

    fn place_selected(
        &self,
        keys: &[Given],
        agreeing: bool,
        map: &Map,
        values: &Values<'_>,
    ) -> Result<Placed, RouteError> {
        let mut all: Vec<Parts> = Vec::new();
        for (i, (column, given)) in self.keys.iter().zip(keys).enumerate() {
            let parts = match given {
                Given::OneOf(operands) => self.parts_of(operands, map, i, column, values)?,
                Given::Flow(cond) if column.not_null => cond.parts_of_new(&self.table, map, values),
                Given::Default if !column.fill && !column.has_default => return Err(self.null(column)),
                Given::Default if column.fill => return Err(self.cannot_fill(column)),
                Given::Default | Given::Flow(_) | Given::Expression => return Err(self.computed(column)),
            };
            all.push(parts);
        }
        let edits = Vec::new();
        if let Some(empty) = all.iter().find(|p| p.is_none()) {
            return Ok(Placed { parts: empty.clone(), edits });
        }
        let narrowest = all.iter().find(|p| p.single().is_some()).or(all.first()).cloned();
        let parts = narrowest.ok_or_else(|| self.no_key())?;
        if agreeing || all.len() == 1 {
            return Ok(Placed { parts, edits });
        }
        match parts.single() {
            Some(part) if all.iter().all(|p| p.single() == Some(part)) => Ok(Placed { parts, edits }),
            _ => Err(RouteError::Refused {
                what: format!(
                    "INSERT … SELECT into table \"{}\" whose key columns may disagree",
                    self.table.name
                ),
                hint: "Give every key column as a constant, or copy all of them from one table.".to_owned(),
            }),
        }
    }

    fn parts_of(
        &self,
        operands: &[Operand],
        map: &Map,
        i: usize,
        column: &Column,
        values: &Values<'_>,
    ) -> Result<Parts, RouteError> {
        let mut parts = SmallVec::new();
        for operand in operands {
            match stored(operand, column, values) {
                Read::Key(key) => {
                    let mut found = None;
                    self.agree(&mut found, map, i, column, key)?;
                    parts.extend(found.map(|(part, ..)| part));
                }
                // Where there is a row, every server refuses it.
                Read::Null if column.not_null => {}
                Read::Never => {}
                Read::Null => return Err(self.null(column)),
                Read::Unknown => return Err(self.computed(column)),
            }
        }
        Ok(Parts::some(parts))
    }

    fn null(&self, column: &Column) -> RouteError {
        if let Some(unknown) = &self.unknown {
            // A server finds that first.
            return RouteError::Sql {
                code: SqlState::UNDEFINED_COLUMN,
                message: format!("column \"{unknown}\" of relation \"{}\" does not exist", self.table.name),
                detail: None,
                hint: None,
            };
        }
        RouteError::Sql {
            code: SqlState::NOT_NULL_VIOLATION,
            message: format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                column.column, self.table.name
            ),
            detail: None,
            hint: Some(format!("\"{}\" is a sharding key: every row needs one.", column.column)),
        }
    }

    fn computed(&self, column: &Column) -> RouteError {
        RouteError::Refused {
            what: format!(
                "INSERT into table \"{}\" with a computed sharding key \"{}\"",
                self.table.name, column.column
            ),
            hint: format!("Give \"{}\" as a literal or a parameter of its own type.", column.column),
        }
    }

    fn cannot_fill(&self, column: &Column) -> RouteError {
        RouteError::Refused {
            what: format!(
                "INSERT into table \"{}\" without \"{}\" in this form",
                self.table.name, column.column
            ),
            hint: format!("Give \"{}\" in every row.", column.column),
        }
    }

    fn no_key(&self) -> RouteError {
        RouteError::Refused {
            what: format!("INSERT into table \"{}\", of which no key column is known", self.table.name),
            hint: "Check the table's keys in proxy.toml against its columns.".to_owned(),
        }
    }
}

fn check_violation(message: String, hint: Option<String>) -> RouteError {
    RouteError::Sql { code: SqlState::CHECK_VIOLATION, message, detail: None, hint }
}

/// The value of a list column that stands for a partition, the least if there are several.
fn value_of(column: &KeyColumn, part: PartitionId) -> Option<&Key> {
    match &column.method {
        Method::List(values) => values.iter().filter(|(_, id)| **id == part).map(|(key, _)| key).min(),
        Method::Hash | Method::Range(_) => None,
    }
}

/// The key that a column holds after an operand was stored in it by assignment. Source: PostgreSQL docs, "Value
/// Storage": what is too long is an error, unless the excess is blanks, which are cut.
pub(super) fn stored(operand: &Operand, column: &Column, values: &Values<'_>) -> Read {
    let Some(kind) = column.kind else { return Read::Unknown };
    let read = match number_as_text(operand, kind, values) {
        Some(read) => read,
        None => values.read(operand, Typed { kind, guessed: true }),
    };
    match (read, column.length) {
        (Read::Key(Key::Text(text)), Some(length)) => cut(text, length),
        (read, _) => read,
    }
}

fn cut(text: String, length: usize) -> Read {
    match text.char_indices().nth(length) {
        None => Read::Key(Key::Text(text)),
        Some((end, _)) => match text.split_at_checked(end) {
            Some((kept, excess)) if excess.bytes().all(|b| b == b' ') => {
                Read::Key(Key::Text(kept.to_owned()))
            }
            _ => Read::Never,
        },
    }
}

/// An integer stored in a column of characters: its digits. `None` if it is no integer, or no such column.
fn number_as_text(operand: &Operand, kind: KeyType, values: &Values<'_>) -> Option<Read> {
    if !kind.is_text() || operand.cast.is_some() {
        return None;
    }
    let read = match operand.source {
        Source::Literal(_) if operand.number => values.digits(operand).map(Key::Int),
        Source::Param(n) => {
            let param = values.params.get(usize::from(n).checked_sub(1)?)?;
            let declared = KeyType::of_oid(param.type_oid).filter(|t| t.is_int())?;
            match values.read(operand, Typed { kind: declared, guessed: true }) {
                Read::Key(key) => Some(key),
                other @ (Read::Null | Read::Never | Read::Unknown) => return Some(other),
            }
        }
        Source::Literal(_) | Source::Null => return None,
    };
    Some(read.map_or(Read::Unknown, |number| from_text(kind, &number.to_string())))
}
