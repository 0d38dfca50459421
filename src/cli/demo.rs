//! `pgherd demo`: servers, tables, data and the proxy on this machine, until Ctrl-C.
//! Must not know how each of these is done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::client::Target;
use super::generate::{self, Existing};
use super::{Failure, args, cluster, run, runtime, setup, tables, ui};
use crate::config::{Config, DEMO_SERVERS, demo_text};
use crate::local::{Cluster, Options};

/// Longest wait for the proxy to listen: its servers are up already.
const READY: Duration = Duration::from_secs(30);
/// The first generated user that is shown in the examples, if it is there.
const SHOWN: &str = "user_000042";

type Running = JoinHandle<Result<(), Failure>>;

/// Brings all up, waits, brings all down.
pub(super) fn main(args: args::Demo) -> Result<(), Failure> {
    let text = demo_text(args.port_base).ok_or_else(|| {
        Failure::new(format!("--port-base {} leaves no room for the demo's ports", args.port_base))
            .remedy("choose one from 1 to 64534")
    })?;
    let path = args.data.dir.join("proxy.toml");
    let config = Config::parse(&text, &path, &|name| std::env::var(name).ok())?.config;
    runtime::logging(&config.log);
    runtime::block_on(config.workers.get(), demo(args, Arc::new(config), text))
}

async fn demo(args: args::Demo, config: Arc<Config>, text: String) -> Result<(), Failure> {
    let start = Instant::now();
    let options = Options {
        dir: args.data.dir.clone(),
        port_base: args.port_base,
        shards: DEMO_SERVERS / 2,
        fresh: args.fresh,
        also: own_ports(&config),
    };
    let cluster = tokio::select! {
        up = Cluster::up(&options, &ui::say) => up?,
        () = runtime::interrupted() => return Err(Failure::new("interrupted")),
    };
    cluster::warn_of_promoted(&cluster);
    let (ready, is_ready) = oneshot::channel();
    let stop = CancellationToken::new();
    let mut proxy: Option<Running> = None;
    let control = run::Control { ready, stop: stop.clone(), signals: false };
    let session = async {
        write_config(cluster.dir(), &text)?;
        setup::databases(&config, &tables::shipped(), None).await?;
        let running = proxy.insert(tokio::spawn(run::run(config.clone(), control)));
        wait_ready(running, is_ready).await?;
        let target = target(&config)?;
        generate::fill(&config, &target, args.scale, 1, Existing::Keep).await?;
        ui::print(&banner(&config, &shown_user(&target).await?, start.elapsed()));
        ended(running).await
    };
    let result = tokio::select! {
        result = session => result,
        () = runtime::interrupted() => Ok(()),
    };
    ui::say("stopping; the data stays");
    stop.cancel();
    let down = async {
        if let Some(proxy) = proxy.filter(|proxy| !proxy.is_finished()) {
            ended_later(proxy).await;
        }
        cluster.stop().await
    };
    tokio::select! {
        down = down => down?,
        () = runtime::interrupted() => {} // a second Ctrl-C: what still runs is stopped at once, by being dropped
    }
    result
}

/// The ports of the proxy itself, for they too must be free.
fn own_ports(config: &Config) -> Vec<(u16, String)> {
    let proxy = config.listen.iter().map(|addr| (addr.port(), "the proxy".to_owned()));
    let http = config.http.iter().map(|http| (http.listen.port(), "the proxy's HTTP server".to_owned()));
    proxy.chain(http).collect()
}

/// The configuration is there to be looked at and to be used with `pgherd -c`.
fn write_config(dir: &Path, text: &str) -> Result<(), Failure> {
    let path = dir.join("proxy.toml");
    std::fs::write(&path, text).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
}

async fn wait_ready(proxy: &mut Running, is_ready: oneshot::Receiver<()>) -> Result<(), Failure> {
    let ready = async {
        tokio::select! {
            Ok(()) = is_ready => Ok(()),
            done = ended(proxy) => done.and(Err(Failure::new("the proxy ended before it was ready"))),
        }
    };
    match timeout(READY, ready).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(format!("the proxy was not ready within {} s", READY.as_secs()))),
    }
}

/// Waits for the proxy's end. Cancel safe.
async fn ended(proxy: &mut Running) -> Result<(), Failure> {
    match proxy.await {
        Ok(done) => done,
        Err(e) => Err(Failure::new(format!("the proxy broke off: {e}"))),
    }
}

async fn ended_later(mut proxy: Running) {
    if let Err(failure) = ended(&mut proxy).await {
        ui::complain(&failure.to_string());
    }
}

fn target(config: &Config) -> Result<Target, Failure> {
    let config_file = args::ConfigFile { path: config.path.clone() };
    let connect =
        args::Connect { config: config_file, url: None, host: None, port: None, user: None, dbname: None };
    Target::new(&connect, Some(config))
}

/// A user that exists.
async fn shown_user(target: &Target) -> Result<String, Failure> {
    let client = target.connect_first().await?;
    let row = client.query_opt("SELECT user_id FROM users WHERE user_id = $1", &[&SHOWN]).await?;
    Ok(match row {
        Some(row) => row.try_get(0)?,
        None => "user_000001".to_owned(), // at the smallest scales
    })
}

fn banner(config: &Config, user: &str, took: Duration) -> String {
    let (host, port) =
        config.listen.first().map_or(("127.0.0.1".into(), 6432), |addr| (addr.ip().to_string(), addr.port()));
    let psql = |name: &str, database: &str| format!("psql postgres://{name}:{name}@{host}:{port}/{database}");
    let app = psql("app", "app");
    let http = config.http.as_ref().map_or_else(String::new, |http| {
        let base = format!("http://{}", http.listen);
        format!(
            "The same over HTTP:\n\n  \
               curl {base}/api/health\n\n"
        )
    });
    format!(
        "\nUp after {seconds:.1} s: three shards behind one port. Paste into another terminal:\n\n  \
           {app}\n\n\
         Worth trying there:\n\n  \
           SELECT * FROM users WHERE user_id = '{user}';\n  \
           SELECT name, order_id, amount FROM orders JOIN users USING (user_id) WHERE user_id = '{user}';\n  \
           INSERT INTO users (user_id, name, email) VALUES ('me', 'Me', 'me@example.com') RETURNING *;\n\n\
         And what the proxy saw of it:\n\n  \
           {admin} -c 'SHOW LATENCY'\n\n\
         {http}\
         Ctrl-C stops everything; the next `pgherd demo` finds the data again.",
        seconds = took.as_secs_f64(),
        admin = psql("admin", "pgherd"),
    )
}
