//! `pgherd cluster`: the local servers without the proxy.
//! Must not know how servers are started.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::args::{ClusterUp, DataDir};
use super::{Failure, ui};
use crate::local::{APP_DATABASE, Cluster, LocalError, Options, SUPERUSER, SUPERUSER_PASSWORD, ServerStatus};

/// Longest wait for a server's own word on its role.
const ASK: Duration = Duration::from_secs(3);

/// Starts the servers and lets them run on.
pub(super) async fn up(args: ClusterUp) -> Result<(), Failure> {
    let ClusterUp { data, port_base, shards, fresh } = args;
    let options = Options { dir: data.dir, port_base, shards, fresh, also: Vec::new() };
    let cluster = Cluster::up(&options, &ui::say).await?;
    warn_of_promoted(&cluster);
    let mut table = ui::table(&["server", "address"]);
    for server in cluster.servers() {
        table.add_row([server.spec().name.clone(), format!("127.0.0.1:{}", server.spec().port)]);
    }
    ui::print(&table.to_string());
    let app = crate::local::APP_USER;
    ui::print(&format!("database {APP_DATABASE}, user {app}, password {}", crate::local::APP_PASSWORD));
    cluster.release();
    Ok(())
}

/// Stops the servers.
pub(super) async fn down(which: DataDir) -> Result<(), Failure> {
    match Cluster::down(&which.dir).await.map_err(no_cluster)? {
        0 => ui::print("nothing was running"),
        n => ui::print(&format!("stopped {}", ui::count(n, "server"))),
    }
    Ok(())
}

/// Shows the servers.
pub(super) async fn status(which: DataDir) -> Result<(), Failure> {
    let mut table = ui::table(&["server", "address", "state", "pid", "role", "replication"]);
    for server in Cluster::status(&which.dir).await.map_err(no_cluster)? {
        let [role, replication] = match server.port.filter(|_| server.ready) {
            Some(port) => roles(port).await,
            None => [String::new(), String::new()],
        };
        let address = server.port.map(|port| format!("127.0.0.1:{port}")).unwrap_or_default();
        let pid = server.pid.map(|pid| pid.to_string()).unwrap_or_default();
        table.add_row([server.name.clone(), address, state(&server).to_owned(), pid, role, replication]);
    }
    ui::print(&table.to_string());
    Ok(())
}

/// A replica that was promoted is a primary of its own now: the proxy would find two in its shard.
pub(super) fn warn_of_promoted(cluster: &Cluster) {
    for name in cluster.promoted() {
        ui::complain(&format!(
            "warning: the {name} was promoted earlier and follows no one; start over with --fresh"
        ));
    }
}

fn no_cluster(error: LocalError) -> Failure {
    if let LocalError::NotOurs(dir) = &error {
        return Failure::new(format!("there is no cluster in {}", dir.display()))
            .remedy("make one with `pgherd cluster up`, or name its directory with --data-dir");
    }
    error.into()
}

fn state(server: &ServerStatus) -> &'static str {
    match (server.pid, server.ready) {
        (None, _) => "stopped",
        (Some(_), false) => "starting",
        (Some(_), true) => "running",
    }
}

/// What a server says of itself: its role and how replication stands.
async fn roles(port: u16) -> [String; 2] {
    match timeout(ASK, ask(port)).await {
        Ok(Ok(said)) => said,
        Ok(Err(e)) => [String::new(), super::failure::describe(&e)],
        Err(_) => [String::new(), "no answer".to_owned()],
    }
}

async fn ask(port: u16) -> Result<[String; 2], tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(SUPERUSER).password(SUPERUSER_PASSWORD).dbname(APP_DATABASE);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let sql =
        "SELECT pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'),
               (SELECT status FROM pg_stat_wal_receiver),
               greatest(0, pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()))::bigint";
    let row = client.query_one(sql, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(["primary".into(), format!("replicas streaming from it: {}", row.try_get::<_, i64>(1)?)]);
    }
    let receiver = row.try_get::<_, Option<String>>(2)?.unwrap_or_else(|| "not connected".into());
    let behind = row.try_get::<_, Option<i64>>(3)?.unwrap_or_default();
    Ok(["replica".into(), format!("{receiver}, {behind} bytes to replay")])
}
