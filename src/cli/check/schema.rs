//! Checks tables: do the configured ones exist, alike on all shards, with keys that can be hashed?
//! Must not know replicas: they hold what their primary holds.

use std::collections::BTreeMap;

use super::super::control::Primary;
use super::super::failure::describe;
use super::super::setup::{STRIDE, columns_that_may_collide};
use super::super::tables;
use super::finding::Finding;
use crate::config::Database;
use crate::shard::{KeyType, KeyTypes, Placement, TableName};

/// A column as its catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    type_oid: u32,
    type_name: String,
    not_null: bool,
    collation: Option<String>,
    deterministic: bool,
}

/// Columns in order; a table that does not exist has none.
type Columns = Vec<Column>;

/// All that is wrong with the configured tables.
pub(super) async fn check(database: &Database, primaries: &[Primary]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut types = KeyTypes::new();
    for (table, placement) in &database.map.tables {
        let place = format!("database {}, table {table}", database.name);
        let mut columns = BTreeMap::new();
        for primary in primaries.iter().filter(|primary| belongs(placement, primary)) {
            match read(primary, table).await {
                Ok(read) => drop(columns.insert(primary.shard.clone(), read)),
                Err(e) => {
                    findings.push(Finding::error(&place, format!("{}: {}", primary.shard, describe(&e)), ""))
                }
            }
        }
        findings.extend(missing(&place, table, &columns));
        columns.retain(|_, columns| !columns.is_empty());
        findings.extend(drift(&place, &columns));
        let first = columns.values().next();
        if let (Placement::Sharded(keys), Some(columns)) = (placement, first) {
            for key in keys {
                match judge_key(&place, &key.column, columns) {
                    Ok(kind) => drop(types.insert((table.clone(), key.column.clone()), kind)),
                    Err(finding) => findings.push(finding),
                }
            }
            findings.extend(ids(&place, table, primaries).await);
        }
    }
    for error in database.map.with_key_types(&types).err().into_iter().flatten() {
        let place = format!("database {}, table {}", database.name, error.table);
        let what = format!("column {}: {}", error.column, error.problem);
        findings.push(Finding::error(place, what, "correct the values of this key in the configuration"));
    }
    findings
}

fn belongs(placement: &Placement, primary: &Primary) -> bool {
    match placement {
        Placement::Sharded(_) | Placement::Reference => true,
        Placement::Single(shard) => *shard == primary.id,
    }
}

async fn read(primary: &Primary, table: &TableName) -> Result<Columns, tokio_postgres::Error> {
    let sql = "SELECT a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                      l.collname::text, coalesce(l.collisdeterministic, true)
               FROM pg_attribute a
               JOIN pg_class c ON c.oid = a.attrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_collation l ON l.oid = a.attcollation
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
                 AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY a.attnum";
    let rows = primary.client.query(sql, &[&table.schema, &table.name]).await?;
    let column = |row: &tokio_postgres::Row| {
        Ok(Column {
            name: row.try_get(0)?,
            type_oid: row.try_get(1)?,
            type_name: row.try_get(2)?,
            not_null: row.try_get(3)?,
            collation: row.try_get(4)?,
            deterministic: row.try_get(5)?,
        })
    };
    rows.iter().map(column).collect()
}

fn missing(place: &str, table: &TableName, shards: &BTreeMap<String, Columns>) -> Option<Finding> {
    let without: Vec<_> =
        shards.iter().filter(|(_, columns)| columns.is_empty()).map(|(s, _)| s.as_str()).collect();
    if without.is_empty() {
        return None;
    }
    let ours = tables::shipped().iter().any(|file| file.name() == *table);
    let remedy =
        if ours { "run: pgherd setup" } else { "create it there, or remove it from the configuration" };
    Some(Finding::error(place, format!("does not exist on {}", without.join(", ")), remedy))
}

/// Differences to the first shard. Types that users made have other numbers on other servers: names count.
fn drift(place: &str, shards: &BTreeMap<String, Columns>) -> Vec<Finding> {
    let mut shards = shards.iter();
    let Some((first, wanted)) = shards.next() else { return Vec::new() };
    let found = shards.filter_map(|(shard, columns)| {
        let what = difference(wanted, columns)?;
        let what = format!("differs between {first} and {shard}: {what}");
        Some(Finding::error(place, what, "make the table the same on all shards"))
    });
    found.collect()
}

fn difference(a: &Columns, b: &Columns) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{} columns and {}", a.len(), b.len()));
    }
    a.iter().zip(b).find_map(|(a, b)| {
        let (a, b) = (describe_column(a), describe_column(b));
        (a != b).then(|| format!("{a} and {b}"))
    })
}

fn describe_column(column: &Column) -> String {
    let mut text = format!("{} {}", column.name, column.type_name);
    if let Some(collation) = column.collation.as_ref().filter(|name| *name != "default") {
        text.push_str(&format!(" collate {collation}"));
    }
    if column.not_null {
        text.push_str(" not null");
    }
    text
}

fn judge_key(place: &str, name: &str, columns: &Columns) -> Result<KeyType, Finding> {
    let Some(column) = columns.iter().find(|column| column.name == name) else {
        let remedy = "name a column of the table under keys, or add the column";
        return Err(Finding::error(place, format!("has no column {name}, which is its key"), remedy));
    };
    let Some(kind) = KeyType::of_oid(column.type_oid) else {
        let what = format!("its key {name} is of type {}", column.type_name);
        return Err(Finding::error(place, what, format!("use one of: {}", KeyType::SUPPORTED)));
    };
    if !column.deterministic {
        let collation = column.collation.as_deref().unwrap_or_default();
        let what = format!("its key {name} has the nondeterministic collation {collation}");
        return Err(Finding::error(
            place,
            what,
            "give it a deterministic collation: equal must mean equal bytes",
        ));
    }
    Ok(kind)
}

async fn ids(place: &str, table: &TableName, primaries: &[Primary]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if primaries.len() < 2 {
        return findings;
    }
    for primary in primaries {
        for column in columns_that_may_collide(primary, table).await.unwrap_or_default() {
            let what =
                format!("{column} on {} does not count in steps of {STRIDE}: ids may collide", primary.shard);
            findings.push(Finding::warning(place, what, "run: pgherd setup"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_oid: u32, type_name: &str) -> Column {
        Column {
            name: name.into(),
            type_oid,
            type_name: type_name.into(),
            not_null: true,
            collation: None,
            deterministic: true,
        }
    }

    #[test]
    fn keys_must_exist_and_be_hashable() {
        let columns = vec![
            column("id", 23, "integer"),
            column("price", 1700, "numeric(10,2)"),
            Column { deterministic: false, collation: Some("ci".into()), ..column("name", 25, "text") },
        ];
        assert_eq!(judge_key("t", "id", &columns), Ok(KeyType::Int4));
        for (name, what) in [("nope", "no column nope"), ("price", "numeric(10,2)"), ("name", "collation ci")]
        {
            let finding = judge_key("t", name, &columns).unwrap_err();
            assert!(finding.what.contains(what), "{finding:?}");
        }
    }

    #[test]
    fn shards_that_differ_are_named_with_the_first_difference() {
        let shard = |columns: &[Column]| columns.to_vec();
        let base = [column("id", 23, "integer"), column("user_id", 1043, "character varying(50)")];
        let own_type = [column("id", 16_400, "integer"), base[1].clone()];
        let alike = BTreeMap::from([("a".into(), shard(&base)), ("b".into(), shard(&own_type))]);
        assert_eq!(drift("t", &alike), []);
        let nullable = [base[0].clone(), Column { not_null: false, ..base[1].clone() }];
        for (other, what) in [
            (shard(&base[..1]), "2 columns and 1"),
            (shard(&nullable), "user_id character varying(50) not null and user_id character varying(50)"),
        ] {
            let found = drift("t", &BTreeMap::from([("a".into(), shard(&base)), ("b".into(), other)]));
            assert!(found.len() == 1 && found[0].what.contains(what), "{found:?}");
        }
    }
}
