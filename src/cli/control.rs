//! Connections to the servers behind the proxy, with the control account.
//! Must not know what is asked over them.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Failure;
use super::failure::describe;
use super::tls::Connector;
use crate::config::{Database, Server, Shard};
use crate::shard::ShardId;

/// Longest time for one statement over a control connection, ms.
const STATEMENT_MS: u32 = 30_000;

/// The database's name on its servers; a pass-through one is looked at through `postgres`, which is always there.
pub(super) fn server_database(database: &Database) -> &str {
    match (&database.server_database, database.is_wildcard()) {
        (Some(name), _) => name,
        (None, true) => "postgres",
        (None, false) => &database.name,
    }
}

/// Connects to one server.
///
/// # Errors
/// What was wrong, in one line.
pub(super) async fn connect(database: &Database, server: &Server) -> Result<Client, String> {
    let mut config = tokio_postgres::Config::new();
    config.host(&server.host).port(server.port).user(&database.control.user);
    config.dbname(server_database(database)).application_name("pgherd control");
    config.options(format!("-c statement_timeout={STATEMENT_MS} -c client_min_messages=warning"));
    if let Some(password) = &database.control.password {
        config.password(password.expose_secret());
    }
    let limit = database.pool.connect_timeout;
    let connector = Connector::new(&database.server_tls)?;
    match timeout(limit, connector.connect(&config)).await {
        Ok(done) => done.map_err(|e| describe(&e)),
        Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
    }
}

/// A shard's primary, found by asking.
pub(super) struct Primary {
    /// The shard.
    pub(super) id: ShardId,
    /// Its name.
    pub(super) shard: String,
    /// The server's `host:port`.
    pub(super) address: String,
    /// A connection to it.
    pub(super) client: Client,
}

/// The primary of every shard, in their order.
///
/// # Errors
/// A shard without a primary that answers, or with two.
pub(super) async fn primaries(database: &Database) -> Result<Vec<Primary>, Failure> {
    let found =
        database.shards.iter().enumerate().map(|(i, shard)| primary(database, ShardId(i as u16), shard));
    join_all(found).await.into_iter().collect()
}

async fn primary(database: &Database, id: ShardId, shard: &Shard) -> Result<Primary, Failure> {
    let asked = join_all(shard.servers.iter().map(|server| ask(database, server))).await;
    let mut primaries = Vec::new();
    let mut said = Vec::new();
    for (server, answer) in shard.servers.iter().zip(asked) {
        match answer {
            Ok((client, false)) => primaries.push((server.address(), client)),
            Ok((_, true)) => said.push(format!("{} is in recovery", server.address())),
            Err(e) => said.push(format!("{}: {e}", server.address())),
        }
    }
    let shard = shard.name.clone();
    match primaries.len() {
        1 => {}
        0 => {
            let message = format!("{shard} of database \"{}\" has no primary that answers", database.name);
            return Err(Failure::new(format!("{message} ({})", said.join("; "))).remedy("see: pgherd check"));
        }
        _ => {
            let both: Vec<_> = primaries.iter().map(|(address, _)| address.as_str()).collect();
            let message = format!("{shard} has {} primaries: {}", both.len(), both.join(", "));
            return Err(Failure::new(message).remedy("make all but one a replica again; see: pgherd check"));
        }
    }
    let (address, client) = primaries.remove(0);
    Ok(Primary { id, shard, address, client })
}

/// Connects and asks whether the server is in recovery.
async fn ask(database: &Database, server: &Server) -> Result<(Client, bool), String> {
    let client = connect(database, server).await?;
    let limit = Duration::from_millis(u64::from(STATEMENT_MS));
    let row = timeout(limit, client.query_one("SELECT pg_is_in_recovery()", &[])).await;
    let row = row.map_err(|_| "connected, but no answer to a query".to_owned())?.map_err(|e| describe(&e))?;
    let in_recovery = row.try_get(0).map_err(|e| describe(&e))?;
    Ok((client, in_recovery))
}
