//! The two worlds that are compared: one server with all the rows, and the proxy over three with the same rows.
//! Must not know the statements.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::common::{Changes, Front, Pg, rows};

/// The worlds, and a client of each.
pub(super) struct Worlds {
    /// All rows on one server.
    pub(super) plain: Client,
    /// The proxy.
    pub(super) proxy: Client,
    /// Other connections to the servers: those above may be inside a transaction.
    direct: Vec<Client>,
    direct_plain: Client,
    _pg: Pg,
    _front: Front,
}

/// Users and the partition that PostgreSQL's own hash gives them: A, B are on shard1, D on shard2, C, E on shard3.
/// `hashtextextended(user_id, 0) & 16383`, checked by `placement.rs`.
const USERS: [(&str, char); 14] = [
    ("user_0", 'A'),
    ("user_8", 'A'),
    ("user_1", 'B'),
    ("user_10", 'B'),
    ("", 'A'),
    ("user_4", 'D'),
    ("user_21", 'D'),
    ("it's", 'D'),
    ("日本", 'D'),
    ("user_1 ", 'D'),
    ("user_2", 'E'),
    ("user_3", 'C'),
    ("Ünï", 'C'),
    ("x\\y", 'E'),
];

const TABLES: &str = concat!(
    include_str!("../../sql/sharded/users.sql"),
    include_str!("../../sql/sharded/orders.sql"),
    include_str!("../../sql/reference/countries.sql"),
);
const AUDIT: &str = include_str!("../../sql/single/audit_log.sql");

/// Ids below are from sequences, which differ between the worlds.
const FIRST_ID: u32 = 100_000;

impl Worlds {
    /// Starts both with the same rows.
    pub(super) async fn start() -> Self {
        let (pg, front) = tokio::join!(Pg::start(), Front::demo(0, Changes::default()));
        let plain = pg.connect_app().await;
        plain.batch_execute(&format!("{TABLES}{AUDIT}")).await.unwrap();
        plain.batch_execute(&seed(|_| true, true)).await.unwrap();
        let mut direct = Vec::new();
        for shard in 0..3 {
            let client = front.herd.primary(shard).connect_app().await;
            let here = ["AB", "D", "CE"][shard];
            client.batch_execute(&seed(|partition| here.contains(partition), shard == 1)).await.unwrap();
            direct.push(client);
        }
        let proxy = front.connect().await;
        let direct_plain = pg.connect_app().await;
        Self { plain, proxy, direct, direct_plain, _pg: pg, _front: front }
    }

    /// Puts the first rows back everywhere.
    pub(super) async fn restore(&self) {
        let sql = "select seed.restore()";
        let all = self.direct.iter().chain([&self.direct_plain]).map(|client| client.batch_execute(sql));
        for done in futures_util::future::join_all(all).await {
            done.unwrap();
        }
    }

    /// Puts the first rows back on the one server, as if nothing had been written.
    pub(super) async fn restore_plain(&self) {
        self.direct_plain.batch_execute("select seed.restore()").await.unwrap();
    }

    /// What differs between the tables of the two worlds.
    pub(super) async fn difference(&self) -> Option<String> {
        for (table, shards) in [("users", 0..3), ("orders", 0..3), ("audit_log", 1..2)] {
            let mut sharded = Vec::new();
            for client in &self.direct[shards] {
                sharded.extend(contents(client, table).await);
            }
            sharded.sort();
            let one = contents(&self.direct_plain, table).await;
            if one != sharded {
                let only = |a: &[String], b: &[String]| -> Vec<String> {
                    a.iter().filter(|row| !b.contains(row)).cloned().collect()
                };
                return Some(format!(
                    "table {table}: only on one server {:?}, only on shards {:?}, {} and {} rows",
                    only(&one, &sharded),
                    only(&sharded, &one),
                    one.len(),
                    sharded.len()
                ));
            }
        }
        let countries = contents(&self.direct_plain, "countries").await;
        for (shard, client) in self.direct.iter().enumerate() {
            if contents(client, "countries").await != countries {
                return Some(format!("table countries on shard {shard}"));
            }
        }
        None
    }
}

/// All rows, without what a sequence or a clock has put there.
async fn contents(client: &Client, table: &str) -> Vec<String> {
    let columns: BTreeMap<&str, &str> = BTreeMap::from([
        ("users", "user_id, name, email, partition_key"),
        ("orders", "user_id, order_id, amount"),
        ("audit_log", "user_id, action, detail"),
        ("countries", "code, name, continent"),
    ]);
    let own = match table {
        "countries" => String::new(),
        _ => format!(
            ", case when id >= {FIRST_ID} then id end, case when created_at < '2025-01-01' then created_at end"
        ),
    };
    let mut all = rows(client, &format!("select {}{own} from {table}", columns[table])).await;
    all.sort();
    all
}

/// SQL that makes the first rows of these partitions, and a function that puts them back.
fn seed(here: impl Fn(char) -> bool, audit_log: bool) -> String {
    let mut sql = String::new();
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    for (n, (user, partition)) in USERS.iter().enumerate().filter(|(_, (_, partition))| here(*partition)) {
        let id = FIRST_ID as usize + n;
        let user = quoted(user);
        sql.push_str(&format!(
            "insert into users values ({id}, {user}, 'Name {}', 'u{n}@example.org', '2024-01-01 10:00:{n:02}', '{partition}');\n",
            n % 5
        ));
        for order in 0..n % 4 {
            sql.push_str(&format!(
                "insert into orders values ({}, {user}, 'o{n}-{order}', {}.{order}5, '2024-02-0{} 00:00:00');\n",
                id * 10 + order,
                n * 10 + order,
                order + 1
            ));
        }
    }
    let mut tables = vec!["users", "orders", "countries"];
    if audit_log {
        tables.push("audit_log");
        sql.push_str(
            "insert into audit_log select 100000 + n, 'user_' || n, case n % 2 when 0 then 'login' else 'buy' end, \
             null, '2024-03-01' from generate_series(0, 5) n;\n",
        );
    }
    sql.push_str("create schema seed;\n");
    let mut restore = String::new();
    for table in tables {
        sql.push_str(&format!("create table seed.{table} as table {table};\n"));
        restore.push_str(&format!("delete from {table}; insert into {table} select * from seed.{table};\n"));
    }
    sql.push_str(&format!(
        "create function seed.restore() returns void language plpgsql as $$ begin {restore} end $$;\n"
    ));
    sql
}
