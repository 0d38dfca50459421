//! The same bytes to the proxy and to one PostgreSQL: what is committed must be the same.
//! Must not know what the bytes are.

use std::time::Duration;

use bytes::BytesMut;
use pgherd::wire::{ErrorFields, next_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::common::{Front, Pg, Raw, eventually, rows};
use super::victim::Victims;

/// Longest time in which a session that got an end of input must be over.
const OVER: Duration = Duration::from_secs(30);

/// The proxy before its servers, and another server that is asked the same.
pub(crate) struct Oracle {
    alone: Pg,
    admin: Client,
    /// To look at what the proxy's servers have, where they have all of the tables.
    there: Vec<Client>,
    /// … and the one alone.
    wanted: Client,
}

/// What is looked at: rows that hostile clients have made, and their end.
const LOOK: [(&str, &str, &str); 2] = [
    ("audit_log", "select user_id || ': ' || action from audit_log", "truncate audit_log"),
    (
        "users",
        "select 'user ' || user_id || ': ' || name from users where user_id not like 'victim%'",
        "delete from users where user_id not like 'victim%'",
    ),
];

impl Oracle {
    pub(crate) async fn new(front: &Front, alone: Pg) -> Self {
        let wanted = alone.connect().await;
        let mut there = Vec::new();
        for shard in &front.herd.shards {
            there.push(shard.primary.connect().await);
        }
        Self { alone, admin: front.admin().await, there, wanted }
    }

    /// What is there, sorted; and it is taken away.
    async fn look(clients: &[Client]) -> Result<Vec<String>, tokio_postgres::Error> {
        let mut all = Vec::new();
        for client in clients {
            for (table, look, end) in LOOK {
                let known = format!("select 1 where to_regclass('{table}') is not null");
                if !first_column(client, &known).await?.is_empty() {
                    all.extend(first_column(client, look).await?);
                    client.batch_execute(end).await?;
                }
            }
        }
        all.sort();
        Ok(all)
    }

    /// There are conversations over which PostgreSQL crashes; the proxy's servers must not.
    async fn after_crash(&mut self) {
        self.wanted = eventually("the server is back", OVER, async || self.alone.try_connect().await).await;
        Self::look(&self.there).await.unwrap();
        Self::look(std::slice::from_ref(&self.wanted)).await.unwrap();
    }

    /// A session that ends in mid-batch may end before its server has done all that it was sent: until the proxy uses none,
    /// and no server has a connection that the proxy has given up.
    async fn all_done(&self, front: &Front) {
        let has =
            "select count(*) from pg_stat_activity where usename = 'app' and backend_type = 'client backend'";
        eventually("all is done", OVER, async || {
            let used = "select sum(in_use + waiting + pinned) from pgherd.pools";
            let mut done = rows(&self.admin, used).await == ["0"];
            for (shard, server) in front.herd.shards.iter().zip(&self.there) {
                let open = format!(
                    "select sum(open) from pgherd.pools where server like '%:{}'",
                    shard.primary.port
                );
                let (open, has) = (rows(&self.admin, &open).await, rows(server, has).await);
                done &= open == has || open == ["∅"] && has == ["0"];
            }
            done.then_some(())
        })
        .await;
    }

    /// Both are told the same, and that no more will come. What was said is compared, and what is then there: whether it
    /// is the same, or less because something was refused; else what it is.
    pub(crate) async fn ask(
        &mut self,
        (front, victims): (&Front, &Victims),
        bytes: &[u8],
        what: &str,
    ) -> Result<bool, String> {
        let (proxy, alone) = tokio::join!(Raw::connect(front), Raw::direct(&self.alone));
        let by_server = say(alone, bytes, 0, what).await;
        // The proxy cancels what runs for a client that says that it will say no more: so it says that last.
        let answers = by_server.iter().filter(|word| word.starts_with('Z')).count();
        let by_proxy = say(proxy, bytes, answers, what).await;
        if by_proxy.last().is_none_or(|word| !word.starts_with('Z')) {
            let _pause = victims.pause().await;
            self.all_done(front).await;
        }
        let there = Self::look(&self.there).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let Ok(wanted) = Self::look(std::slice::from_ref(&self.wanted)).await else {
            self.after_crash().await;
            return Ok(false);
        };
        let about = || {
            let shown = bytes.escape_ascii();
            format!(
                "{what}\n{shown}\nthe proxy: {by_proxy:?} {there:?}\nthe server: {by_server:?} {wanted:?}"
            )
        };
        let ((told, rest), (wants, _)) = (split(&by_proxy), split(&by_server));
        let refusal = |word: &String| word == "E 08P01" || word == "E 0A000";
        // It may refuse in its own words what the other refuses, and does not keep the portal of a Query that failed: of that
        // a server says 25P02, or if it was one that a failed transaction takes (ROLLBACK TO) that it cannot be run.
        let left_over = |at: usize| {
            at > 1 && told[at - 1] == "Z E" && told[at - 2].starts_with('E') // right behind a Query that failed
        };
        let alike = |(at, (a, b)): &(usize, (&String, &String))| {
            a == b
                || (refusal(a) || *a == "E 25P02") && b.starts_with('E')
                || *a == "E 34000" && *b == "E 25P02"
                || *a == "E 34000" && *b == "E 55000" && left_over(*at)
        };
        let same = told.iter().zip(wants).enumerate().take_while(alike).count();
        if same == told.len() && same == wants.len() && !rest.iter().any(refusal) {
            return if there == wanted {
                Ok(true)
            } else {
                Err(format!("not the same is there: {}", about()))
            };
        }
        // It may give up sooner, but not in silence, and not having done what the other would not have.
        let mut other = told[same..].iter().chain(rest);
        if !other.next().is_some_and(refusal) && !rest.iter().any(refusal) {
            return Err(about());
        }
        // A change of a row may be what was refused.
        let of = |row: &String| match row.strip_prefix("user ") {
            Some(user) => user.split(": ").next().unwrap_or_default().to_owned(),
            None => row.clone(),
        };
        let mut more: Vec<String> = there.iter().map(of).collect();
        wanted
            .iter()
            .map(of)
            .for_each(|row| drop(more.iter().position(|r| *r == row).map(|at| more.remove(at))));
        if more.is_empty() {
            Ok(false)
        } else {
            Err(format!("{more:?} would not be on one server: {}", about()))
        }
    }
}

async fn first_column(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let row = |message| {
        if let SimpleQueryMessage::Row(row) = message { row.get(0).map(str::to_owned) } else { None }
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// Says it, and after so many answers that it will say no more; what is answered: errors, ends of statements,
/// ReadyForQuery.
async fn say(mut client: Raw, bytes: &[u8], answers: usize, what: &str) -> Vec<String> {
    let (mut reader, mut writer) = client.stream.split();
    let seen = tokio::sync::Semaphore::new(0);
    let send = async {
        // The other side may close first.
        drop(writer.write_all(bytes).await);
        drop(timeout(OVER / 3, seen.acquire_many(answers as u32)).await);
        drop(writer.shutdown().await);
    };
    let read = async {
        let (mut buf, mut said) = (BytesMut::new(), Vec::<String>::new());
        while matches!(reader.read_buf(&mut buf).await, Ok(n) if n > 0) {
            while let Some(frame) = next_frame(&mut buf, 1 << 30).unwrap() {
                let text = || String::from_utf8_lossy(frame.body.strip_suffix(&[0]).unwrap_or(&frame.body));
                match frame.tag {
                    // Rows that no ORDER BY puts in order are compared as a set.
                    b'D' if frame.body.windows(6).any(|part| part == b"victim") => {} // they are at work
                    b'D' => {
                        let rows = said.iter().rev().take_while(|word| word.starts_with("D ")).count();
                        said.push(format!("D {}", frame.body.escape_ascii()));
                        let from = said.len() - 1 - rows;
                        said[from..].sort();
                    }
                    b'E' => said.push(format!("E {}", ErrorFields::parse(&frame.body).unwrap().code)),
                    b'C' | b'Z' => said.push(format!("{} {}", char::from(frame.tag), text())),
                    _ => {}
                }
                seen.add_permits(usize::from(frame.tag == b'Z'));
            }
        }
        seen.close();
        said
    };
    let both = timeout(OVER, async { tokio::join!(send, read) }).await;
    let shown = bytes.escape_ascii();
    both.unwrap_or_else(|_| panic!("the session is not over after {OVER:?}: {what}\n{shown}")).1
}

/// What was said up to the last ReadyForQuery, and after it: that may stay behind in a server.
fn split(said: &[String]) -> (&[String], &[String]) {
    said.split_at(said.iter().rposition(|word| word.starts_with('Z')).map_or(0, |at| at + 1))
}
