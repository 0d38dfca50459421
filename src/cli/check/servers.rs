//! Checks servers: do they answer, are they what the configuration says, can they do what the proxy needs?
//! Must not know tables.

use futures_util::future::join_all;
use tokio_postgres::Client;

use super::super::control::{self, Primary};
use super::super::failure::describe;
use super::finding::Finding;
use crate::config::{Database, Role, Server};
use crate::local::SUPPORTED;
use crate::shard::ShardId;

/// What a server said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    version_num: i32,
    version: String,
    role: Role,
    encoding: String,
    max_prepared: i32,
    /// One per cluster and its replicas; `None` if this account may not know.
    system: Option<i64>,
    /// A replica's `pg_stat_wal_receiver.status`.
    receiver: Option<String>,
}

const FACTS: &str = "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    pg_is_in_recovery(), current_setting('server_encoding'),
    current_setting('max_prepared_transactions')::int,
    CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE')
         THEN (SELECT system_identifier FROM pg_control_system()) END,
    (SELECT status FROM pg_stat_wal_receiver)";

/// The primaries that could be found, in the order of the shards, and all that is wrong.
pub(super) async fn check(database: &Database) -> (Vec<Primary>, Vec<Finding>) {
    let mut primaries = Vec::new();
    let mut findings = Vec::new();
    for (i, shard) in database.shards.iter().enumerate() {
        let asked = join_all(shard.servers.iter().map(|server| ask(database, server))).await;
        let place = format!("database {}, {}", database.name, shard.name);
        let mut facts = Vec::new();
        let mut found: Vec<(String, Client)> = Vec::new();
        for (server, answer) in shard.servers.iter().zip(asked) {
            let at = format!("{place}, {}", server.address());
            match answer {
                Err(what) => findings.push(unreachable(&at, what, database)),
                Ok((client, said)) => {
                    findings.extend(judge(&at, server, &said, database.shards.len()));
                    if said.role == Role::Primary {
                        found.push((server.address(), client));
                    }
                    facts.push((server.address(), said));
                }
            }
        }
        findings.extend(judge_shard(&place, &facts, shard.servers.len()));
        if found.len() == 1 {
            let id = ShardId(i as u16);
            let of_shard = |(address, client)| Primary { id, shard: shard.name.clone(), address, client };
            primaries.extend(found.into_iter().map(of_shard));
        }
    }
    (primaries, findings)
}

fn unreachable(at: &str, what: String, database: &Database) -> Finding {
    let remedy = if what.contains("(28") || what.contains("(3D000)") {
        format!(
            "check `control` of database {}: user, password, and the database's name there",
            database.name
        )
    } else {
        "is it running, and reachable from here? check host and port".to_owned()
    };
    Finding::error(at, what, remedy)
}

async fn ask(database: &Database, server: &Server) -> Result<(Client, Facts), String> {
    let client = control::connect(database, server).await?;
    let row = client.query_one(FACTS, &[]).await.map_err(|e| describe(&e))?;
    let facts = facts(&row).map_err(|e| describe(&e))?;
    Ok((client, facts))
}

fn facts(row: &tokio_postgres::Row) -> Result<Facts, tokio_postgres::Error> {
    let in_recovery: bool = row.try_get(2)?;
    Ok(Facts {
        version_num: row.try_get(0)?,
        version: row.try_get(1)?,
        role: if in_recovery { Role::Replica } else { Role::Primary },
        encoding: row.try_get(3)?,
        max_prepared: row.try_get(4)?,
        system: row.try_get(5)?,
        receiver: row.try_get(6)?,
    })
}

/// What is wrong with one server by itself.
fn judge(at: &str, server: &Server, facts: &Facts, shards: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let major = u32::try_from(facts.version_num / 10_000).unwrap_or(0);
    if !SUPPORTED.contains(&major) {
        let (least, most) = SUPPORTED.into_inner();
        let what = format!("is PostgreSQL {}", facts.version);
        findings.push(Finding::error(at, what, format!("use a version from {least} to {most}")));
    }
    if facts.role != server.role {
        let (is, expected) = (facts.role.as_str(), server.role.as_str());
        let remedy = format!("set role = \"{is}\" in the configuration, or make it a {expected}");
        findings.push(Finding::error(at, format!("is a {is}, but role = \"{expected}\""), remedy));
    }
    if facts.encoding != "UTF8" && shards > 1 {
        let what = format!("its database is in encoding {}", facts.encoding);
        findings.push(Finding::error(at, what, "use a database in UTF8: keys are hashed by their bytes"));
    }
    if facts.max_prepared == 0 && shards > 1 {
        let remedy = "set it to max_connections or more in postgresql.conf, and restart the server";
        findings.push(Finding::warning(at, "max_prepared_transactions is 0: no two-phase commit", remedy));
    }
    if facts.role == Role::Replica && facts.receiver.as_deref() != Some("streaming") {
        let remedy = "look into its log: primary_conninfo, the replication slot, pg_hba.conf of the primary";
        findings.push(Finding::warning(at, "is a replica, but does not stream from its primary", remedy));
    }
    findings
}

/// What is wrong with the servers of one shard together. `configured` are all, also those that did not answer.
fn judge_shard(place: &str, servers: &[(String, Facts)], configured: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let primaries: Vec<_> = servers.iter().filter(|(_, facts)| facts.role == Role::Primary).collect();
    let addresses: Vec<_> = primaries.iter().map(|(address, _)| address.as_str()).collect();
    if primaries.is_empty() && servers.len() == configured {
        findings.push(Finding::error(
            place,
            "has no primary",
            "promote a replica, or add the primary's address",
        ));
    }
    if primaries.len() > 1 {
        let what = format!("has {} primaries: {}", primaries.len(), addresses.join(", "));
        findings.push(Finding::error(
            place,
            what,
            "make all but one a replica again: writes stop until then",
        ));
    }
    let strangers = servers.iter().filter(|(_, facts)| {
        let known = servers.iter().find_map(|(_, facts)| facts.system);
        facts.system.is_some() && facts.system != known
    });
    for (address, _) in strangers {
        let what = format!("{address} holds another cluster's data than the shard's first server");
        findings.push(Finding::error(
            place,
            what,
            "check its port: a replica must be a copy of its shard's primary",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            version_num: 150_018,
            version: "15.18".into(),
            role: Role::Primary,
            encoding: "UTF8".into(),
            max_prepared: 100,
            system: Some(1),
            receiver: None,
        }
    }

    fn server(role: Role) -> Server {
        Server { host: "h".into(), port: 1, role, weight: 1 }
    }

    #[test]
    fn each_fault_of_a_server_is_found_and_a_good_one_has_none() {
        assert_eq!(judge("x", &server(Role::Primary), &good(), 3), []);
        for (facts, role, what) in [
            (Facts { version_num: 120_005, ..good() }, Role::Primary, "is PostgreSQL"),
            (good(), Role::Replica, "is a primary, but role"),
            (Facts { encoding: "LATIN1".into(), ..good() }, Role::Primary, "encoding LATIN1"),
            (Facts { max_prepared: 0, ..good() }, Role::Primary, "max_prepared_transactions"),
            (Facts { role: Role::Replica, ..good() }, Role::Replica, "does not stream"),
        ] {
            let found = judge("x", &server(role), &facts, 3);
            assert!(found.len() == 1 && found[0].what.contains(what), "{what}: {found:?}");
        }
        let single = Facts { max_prepared: 0, encoding: "LATIN1".into(), ..good() };
        assert_eq!(judge("x", &server(Role::Primary), &single, 1), []);
    }

    #[test]
    fn two_primaries_no_primary_and_strangers_are_found() {
        let replica = Facts { role: Role::Replica, receiver: Some("streaming".into()), ..good() };
        let at = |n: u8, facts: &Facts| (format!("h:{n}"), facts.clone());
        assert_eq!(judge_shard("s", &[at(1, &good()), at(2, &replica)], 2), []);
        let stranger = Facts { system: Some(2), ..replica.clone() };
        for (servers, configured, what) in [
            (vec![at(1, &good()), at(2, &good())], 2, "2 primaries: h:1, h:2"),
            (vec![at(1, &replica)], 1, "no primary"),
            (vec![at(1, &good()), at(2, &stranger)], 2, "h:2 holds another"),
        ] {
            let found = judge_shard("s", &servers, configured);
            assert!(found.len() == 1 && found[0].what.contains(what), "{what}: {found:?}");
        }
        assert_eq!(judge_shard("s", &[at(1, &replica)], 2), [], "the other may be the primary");
    }
}
