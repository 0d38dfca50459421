//! The same statement on one plain PostgreSQL with all the rows and through the proxy over three shards: answers are
//! equal, or the refusal is expected. Every bug becomes a line in `tests/differential/` first.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::HashMap;
use std::error::Error;

use common::{Changes, Front, Pg};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

const SCHEMA: &str = concat!(
    include_str!("../sql/sharded/users.sql"),
    include_str!("../sql/sharded/orders.sql"),
    include_str!("../sql/reference/countries.sql"),
    include_str!("../sql/single/audit_log.sql"),
);

/// What came of a statement, in a form that can be compared.
#[derive(Debug, PartialEq)]
enum Answer {
    Rows { columns: Vec<String>, rows: Vec<Vec<Option<Vec<u8>>>>, tag: u64 },
    Error { code: String, message: String },
}

impl Answer {
    fn failed(error: &tokio_postgres::Error) -> Self {
        let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
        Self::Error { code: db.code().code().to_owned(), message: db.message().to_owned() }
    }

    fn sorted(mut self) -> Self {
        if let Self::Rows { rows, .. } = &mut self {
            rows.sort();
        }
        self
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::Error { code, .. } if code == "0A000")
    }
}

/// A value as the server sent it, whatever its type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// By the simple protocol: text values, names of columns, the command's count.
async fn simple(client: &Client, sql: &str) -> Answer {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => return Answer::failed(&error),
    };
    let (mut columns, mut rows, mut tag) = (Vec::new(), Vec::new(), 0);
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(described) => {
                columns = described.iter().map(|c| c.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|i| row.get(i).map(|v| v.as_bytes().to_vec())).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => tag = count,
            _ => {}
        }
    }
    Answer::Rows { columns, rows, tag }
}

/// By the extended protocol: binary values, names and types of columns.
async fn extended(client: &Client, sql: &str) -> Answer {
    let statement = match client.prepare(sql).await {
        Ok(statement) => statement,
        Err(error) => return Answer::failed(&error),
    };
    let columns = statement.columns().iter().map(|c| format!("{} {}", c.name(), c.type_())).collect();
    if statement.columns().is_empty() {
        return match client.execute(&statement, &[]).await {
            Ok(tag) => Answer::Rows { columns, rows: Vec::new(), tag },
            Err(error) => Answer::failed(&error),
        };
    }
    match client.query(&statement, &[]).await {
        Ok(answered) => {
            let value = |row: &tokio_postgres::Row, i| row.get::<_, Option<Raw>>(i).map(|raw| raw.0);
            let rows: Vec<Vec<_>> =
                answered.iter().map(|row| (0..row.len()).map(|i| value(row, i)).collect()).collect();
            let tag = rows.len() as u64;
            Answer::Rows { columns, rows, tag }
        }
        Err(error) => Answer::failed(&error),
    }
}

/// Both sides with the same rows.
struct Pair {
    one: Client,
    herd: Client,
    front: Front,
    names: HashMap<&'static str, String>,
    _plain: Pg,
}

impl Pair {
    async fn start() -> Self {
        let plain = Pg::start().await;
        let one = plain.connect_app().await;
        one.batch_execute(SCHEMA).await.unwrap();
        let front = Front::demo(0, Changes::default()).await;
        let herd = front.connect().await;
        let mut names = HashMap::new();
        for n in 0..40 {
            let user = format!("user_{n}");
            let partition = partition_of(&one, &user).await;
            let name = match partition {
                "A" | "B" => "$ONE",
                "D" => "$TWO",
                _ => "$THREE",
            };
            names.entry(name).or_insert_with(|| user.clone());
            let mut sql = vec![format!(
                "insert into users values ({n}, '{user}', 'name {n}', 'e{n}@example.com', \
                 '2024-01-01'::timestamp + '{n} hours', '{partition}')"
            )];
            for o in 0..n % 4 {
                let id = n * 10 + o;
                sql.push(format!(
                    "insert into orders values ({id}, '{user}', 'order {id}', {o}.5 + {n} % 3, '2024-02-01')"
                ));
            }
            for statement in &sql {
                one.batch_execute(statement).await.unwrap();
                herd.batch_execute(statement).await.unwrap();
            }
        }
        let audit =
            "insert into audit_log (id, user_id, action, created_at) values (1, 'u', 'a', '2024-01-01')";
        one.batch_execute(audit).await.unwrap();
        herd.batch_execute(audit).await.unwrap();
        for (name, value) in [("$MISSING", "nobody"), ("$NEW1", "fresh_1"), ("$NEW2", "fresh_2")] {
            names.insert(name, value.to_owned());
        }
        for (name, user) in
            [("$NEW1PART", "fresh_1"), ("$NEW2PART", "fresh_2"), ("$QUOTEPART", "a'b"), ("$UNIPART", "żółw")]
        {
            names.insert(name, partition_of(&one, user).await.to_owned());
        }
        Self { one, herd, front, names, _plain: plain }
    }

    fn fill_in(&self, line: &str) -> String {
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(line.to_owned(), |text, (name, value)| text.replace(**name, value))
    }

    /// Compares one line under one protocol; what is wrong, if anything.
    async fn compare(&self, expected: &str, sql: &str, by_extended: bool) -> Option<String> {
        let ask = async |client: &Client| {
            if by_extended { extended(client, sql).await } else { simple(client, sql).await }
        };
        let got = ask(&self.herd).await;
        if expected == "refused" {
            return (!got.is_refusal()).then(|| format!("{sql}\n  was to be refused: {got:?}"));
        }
        let want = ask(&self.one).await;
        let equal = match (&want, &got) {
            (Answer::Error { code: a, message: m }, Answer::Error { code: b, message: n }) => {
                a == b && m == n
            }
            _ if expected == "ordered" => want == got,
            _ => return self.differ(sql, by_extended, want.sorted(), got.sorted()),
        };
        (!equal).then(|| format!("{sql} (extended: {by_extended})\n  one  {want:?}\n  herd {got:?}"))
    }

    fn differ(&self, sql: &str, by_extended: bool, want: Answer, got: Answer) -> Option<String> {
        (want != got).then(|| format!("{sql} (extended: {by_extended})\n  one  {want:?}\n  herd {got:?}"))
    }
}

/// The demo's map, computed by PostgreSQL.
async fn partition_of(pg: &Client, user: &str) -> &'static str {
    let row = pg.query_one("select (hashtextextended($1, 0) & 16383)::int", &[&user]).await.unwrap();
    match row.get::<_, i32>(0) {
        0..4915 => "A",
        4915..8192 => "B",
        8192..10649 => "C",
        10649..14745 => "D",
        _ => "E",
    }
}

fn lines(file: &str) -> Vec<(&str, &str)> {
    let meant = file.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let lines: Vec<_> = meant.map(|l| l.split_once(": ").unwrap_or_else(|| panic!("{l}"))).collect();
    assert!(lines.iter().all(|(e, _)| ["same", "ordered", "refused"].contains(e)), "an unknown expectation");
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_answered_as_by_one_server_or_refused() {
    let pair = Pair::start().await;
    let file = pair.fill_in(include_str!("differential/reads.txt"));
    let mut wrong = Vec::new();
    for (expected, sql) in lines(&file) {
        for by_extended in [false, true] {
            wrong.extend(pair.compare(expected, sql, by_extended).await);
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_change_the_same_rows_or_are_refused() {
    for by_extended in [false, true] {
        let pair = Pair::start().await;
        let file = pair.fill_in(include_str!("differential/writes.txt"));
        let mut wrong = Vec::new();
        for (expected, sql) in lines(&file) {
            wrong.extend(pair.compare(expected, sql, by_extended).await);
        }
        for table in ["users", "orders", "audit_log", "countries"] {
            // A fan-out gives all rows of a sharded table; the others are whole anyway. What defaults filled in differs.
            let columns = match table {
                "users" => "id, user_id, name, email, partition_key",
                "orders" => "id, user_id, order_id, amount",
                "audit_log" => "id, user_id, action",
                _ => "*",
            };
            wrong.extend(pair.compare("same", &format!("select {columns} from {table}"), false).await);
        }
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        // Each row is where its key says.
        for (shard, partitions) in [(0, "('A','B')"), (1, "('D')"), (2, "('C','E')")] {
            let stray = format!("select user_id from users where partition_key not in {partitions}");
            assert!(
                pair.front.herd.primary(shard).sql(&stray).await.is_empty(),
                "rows stray on shard {shard}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_as_parameters_of_any_type_find_their_rows() {
    let pair = Pair::start().await;
    for n in 0..40 {
        let user = format!("user_{n}");
        for sql in [
            "select name from users where user_id = $1",
            "select name from users where user_id = any(array[$1])",
            "select name from users join orders using (user_id) where user_id = $1",
            "select count(*)::text from orders where user_id = $1::text",
        ] {
            let ask = async |client: &Client| {
                let rows = client.query(sql, &[&user]).await.unwrap();
                rows.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>()
            };
            assert_eq!(ask(&pair.herd).await, ask(&pair.one).await, "{sql} {user}");
        }
        let users: Vec<String> = vec![user, format!("user_{}", (n * 7) % 40)];
        let ask = async |client: &Client| {
            let sql = "select user_id from users where user_id = any($1)";
            let mut found: Vec<String> =
                client.query(sql, &[&users]).await.unwrap().iter().map(|r| r.get(0)).collect();
            found.sort();
            found
        };
        assert_eq!(ask(&pair.herd).await, ask(&pair.one).await, "{users:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_left_out_partition_is_filled_in_and_a_wrong_one_refused() {
    let pair = Pair::start().await;
    for n in 100..130 {
        let user = format!("filled_{n}");
        let want = partition_of(&pair.one, &user).await;
        let sql = format!(
            "insert into users (id, user_id, name, email) values ({n}, $1, 'n', 'e') returning partition_key"
        );
        let row = pair.herd.query_one(&sql, &[&user]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), want, "{user}");
        let other = ["A", "B", "C", "D", "E"].into_iter().find(|p| *p != want).unwrap();
        let sql = "insert into users (user_id, name, email, partition_key) values ($1, 'n', 'e', $2)";
        let refused = pair.herd.execute(sql, &[&user, &other]).await.unwrap_err();
        let db = refused.as_db_error().unwrap();
        assert_eq!(db.code().code(), "23514");
        assert!(db.hint().unwrap().contains(&format!("belongs to partition {want}")), "{db:?}");
        let found = pair.herd.query("select 1 from users where user_id = $1", &[&user]).await.unwrap();
        assert_eq!(found.len(), 1);
    }
}
