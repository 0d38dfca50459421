//! Runs one statement in both worlds and compares.
//! Must not know what the statements are.

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::statements::{Block, Expected};
use crate::worlds::Worlds;

/// An answer as it is compared.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// Types of parameters, names and types of columns, rows, and the numbers of command tags.
    Rows { params: Vec<u32>, columns: Vec<(String, u32)>, rows: Vec<Vec<Option<Vec<u8>>>>, counts: Vec<u64> },
    /// SQLSTATE, message, hint.
    Failed { code: String, message: String, hint: Option<String> },
}

/// Checks every block and fails with all that are not as expected.
pub(super) async fn check_all(worlds: &Worlds, blocks: &[Block]) {
    let mut wrong = Vec::new();
    for block in blocks {
        for finding in check(worlds, block).await {
            wrong.push(format!("line {}: {}\n    {finding}", block.line, block.sql));
        }
    }
    assert!(wrong.is_empty(), "{} of {} statements:\n{}", wrong.len(), blocks.len(), wrong.join("\n"));
}

async fn check(worlds: &Worlds, block: &Block) -> Vec<String> {
    let mut findings = Vec::new();
    if block.params.is_none() && !block.extended_only {
        let plain = simple(&worlds.plain, &block.plain).await;
        let proxy = simple(&worlds.proxy, &block.sql).await;
        compare(worlds, block, "simple", plain, proxy, &mut findings).await;
    }
    if !block.simple_only {
        let plain = extended(&worlds.plain, &block.plain, block).await;
        let proxy = extended(&worlds.proxy, &block.sql, block).await;
        compare(worlds, block, "extended", plain, proxy, &mut findings).await;
    }
    if !block.simple_only {
        for client in [&worlds.plain, &worlds.proxy] {
            client.batch_execute("begin").await.unwrap();
        }
        let plain = extended(&worlds.plain, &block.plain, block).await;
        let proxy = extended(&worlds.proxy, &block.sql, block).await;
        for client in [&worlds.plain, &worlds.proxy] {
            client.batch_execute("rollback").await.unwrap();
        }
        let mut inside = block.clone();
        if block.spread {
            inside.expected = Expected::Refused("several shards inside a transaction".to_owned());
        }
        compare(worlds, &inside, "in a transaction", plain, proxy, &mut findings).await;
    }
    findings
}

async fn compare(
    worlds: &Worlds,
    block: &Block,
    how: &str,
    plain: Answer,
    proxy: Answer,
    findings: &mut Vec<String>,
) {
    if let Some(finding) = verdict(block, &plain, &proxy) {
        findings.push(format!("{how}: {finding}"));
    }
    if !block.writes() {
        return;
    }
    let refused = matches!(block.expected, Expected::Refused(_) | Expected::Fails(..));
    if refused {
        // Nothing may have been written: compare with the rows as they were.
        worlds.restore_plain().await;
    }
    if let Some(difference) = worlds.difference().await {
        findings.push(format!("{how}: {difference}"));
    }
    worlds.restore().await;
}

/// What is not as expected.
fn verdict(block: &Block, plain: &Answer, proxy: &Answer) -> Option<String> {
    let good = match (&block.expected, proxy) {
        (Expected::Same, _) => normal(block, plain) == normal(block, proxy),
        (Expected::SameCode, Answer::Failed { code, .. }) => {
            matches!(plain, Answer::Failed { code: wanted, .. } if wanted == code)
        }
        (Expected::Fails(wanted, what), Answer::Failed { code, message, .. }) => {
            wanted == code && message.contains(what)
        }
        (Expected::Refused(what), Answer::Failed { code, message, hint }) => {
            code == "0A000" && message.contains(what.as_str()) && hint.is_some()
        }
        (_, Answer::Rows { .. }) => false,
    };
    (!good).then(|| {
        format!(
            "{:?}\n      one server: {}\n      proxy:      {}",
            block.expected,
            brief(plain),
            brief(proxy)
        )
    })
}

/// Without what may differ: the order of rows that no ORDER BY fixes, the hint of an error.
fn normal(block: &Block, answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    match &mut answer {
        Answer::Rows { rows, .. } => {
            if !block.is_ordered() {
                rows.sort();
            }
        }
        Answer::Failed { hint, .. } => *hint = None,
    }
    answer
}

fn brief(answer: &Answer) -> String {
    match answer {
        Answer::Rows { params, columns, rows, counts } => {
            let cell = |cell: &Option<Vec<u8>>| match cell {
                Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                None => "∅".to_owned(),
            };
            let rows: Vec<String> =
                rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join("|")).collect();
            format!("{params:?} {columns:?} {counts:?} {rows:?}")
        }
        Answer::Failed { code, message, hint } => format!("{code} {message} ({hint:?})"),
    }
}

fn failed(error: &Error) -> Answer {
    let db = error.as_db_error().unwrap_or_else(|| panic!("not a server's error: {error:?}"));
    Answer::Failed {
        code: db.code().code().to_owned(),
        message: db.message().to_owned(),
        hint: db.hint().map(str::to_owned),
    }
}

async fn simple(client: &Client, sql: &str) -> Answer {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => return failed(&error),
    };
    let (mut columns, mut rows, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(names) => {
                columns.extend(names.iter().map(|column| (column.name().to_owned(), 0)));
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|i| row.get(i).map(|text| text.as_bytes().to_vec())).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => counts.push(count),
            other => panic!("{other:?}"),
        }
    }
    Answer::Rows { params: Vec::new(), columns, rows, counts }
}

async fn extended(client: &Client, sql: &str, block: &Block) -> Answer {
    match try_extended(client, sql, block).await {
        Ok(answer) => answer,
        Err(error) => failed(&error),
    }
}

async fn try_extended(client: &Client, sql: &str, block: &Block) -> Result<Answer, Error> {
    let statement = client.prepare(sql).await?;
    let params = statement.params().iter().map(Type::oid).collect();
    let columns = statement.columns().iter().map(|c| (c.name().to_owned(), c.type_().oid())).collect();
    let values: Vec<Text> = block.params.iter().flatten().cloned().map(Text).collect();
    assert_eq!(values.len(), statement.params().len(), "{sql}");
    let found = client.query_raw(&statement, &values).await?;
    futures_util::pin_mut!(found);
    let mut rows = Vec::new();
    while let Some(row) = futures_util::StreamExt::next(&mut found).await {
        let row = row?;
        rows.push((0..row.len()).map(|i| row.get::<_, Option<Raw>>(i).map(|raw| raw.0)).collect());
    }
    Ok(Answer::Rows { params, columns, rows, counts: found.rows_affected().into_iter().collect() })
}

/// A value's bytes as they came.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A parameter written as text, sent in the binary form of the type that the server expects.
#[derive(Debug)]
struct Text(Option<String>);

impl ToSql for Text {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        if let Kind::Array(of) = ty.kind() {
            let inner = text.trim_start_matches('{').trim_end_matches('}');
            let element = |text: &str| Self(Some(text.to_owned()).filter(|text| text != "NULL"));
            let elements: Vec<Self> = inner.split(',').filter(|text| !text.is_empty()).map(element).collect();
            assert_ne!(*of, Type::INT8, "only what the statements need");
            return elements.to_sql(ty, out);
        }
        match *ty {
            Type::INT2 => text.parse::<i16>()?.to_sql(ty, out),
            Type::INT4 => text.parse::<i32>()?.to_sql(ty, out),
            Type::INT8 => text.parse::<i64>()?.to_sql(ty, out),
            Type::FLOAT8 => text.parse::<f64>()?.to_sql(ty, out),
            Type::BOOL => text.parse::<bool>()?.to_sql(ty, out),
            _ => text.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
