//! What every command stands on: the async runtime, logging, the TLS provider, Ctrl-C.
//! Must not know which command runs.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::Log;

/// Virtual memory only: the SQL parser recurses on long chains, and an overflow could not be caught.
const STACK: usize = 64 << 20;
/// How long a thread that has looked up a name or derived a key waits for more of it.
const KEEP_HELPER: Duration = Duration::from_secs(1);
/// How long tasks that nobody waits for may hold up the end of the process.
const LINGER: Duration = Duration::from_secs(1);

/// One worker per core.
pub(super) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a command to its end.
pub(super) fn block_on<F>(workers: usize, command: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = build(workers)?;
    let done = runtime.block_on(command);
    runtime.shutdown_timeout(LINGER);
    done
}

/// Lets this thread use as much stack as a worker; whether it may. The main thread's grows up to a limit that is looked at
/// as it grows; how far it can be raised is the machine's to say. Source: getrlimit(2), RLIMIT_STACK.
fn raise_stack_limit() -> bool {
    let enough = STACK as u64;
    match getrlimit(Resource::RLIMIT_STACK) {
        Ok((now, _)) if now >= enough => true,
        Ok((_, most)) => most >= enough && setrlimit(Resource::RLIMIT_STACK, enough, most).is_ok(),
        Err(_) => false,
    }
}

/// Runs a command to its end or to a Ctrl-C, which drops it.
pub(super) fn block_on_interruptible<F>(command: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    block_on(all_cores(), async {
        tokio::select! {
            done = command => done,
            () = interrupted() => Err(Failure::new("interrupted")),
        }
    })
}

/// Waits for the next SIGINT or SIGTERM. Cancel safe.
pub(super) async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await; // then the signals do what they do by default
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// Sends log lines to stderr. `RUST_LOG` overrides the configuration's filter.
pub(super) fn logging(log: &Log) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| log.filter.clone());
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    // The first call of a process wins; that is enough.
    let _ = if log.json { lines.json().try_init() } else { lines.try_init() };
}

fn build(workers: usize) -> Result<Runtime, Failure> {
    // Two providers are compiled in, so rustls must be told; a second call is refused and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // A single worker is the main thread: in a process of one thread the kernel need not count a file's users at each
    // call, and the runtime has nobody to share its queues with.
    let mut builder = if workers <= 1 && raise_stack_limit() {
        Builder::new_current_thread()
    } else {
        let mut several = Builder::new_multi_thread();
        several.on_thread_park(crate::pool::before_sleep);
        several
    };
    builder.worker_threads(workers.max(1)).thread_stack_size(STACK).thread_name("pgherd");
    builder.thread_keep_alive(KEEP_HELPER).enable_all();
    builder.build().map_err(|e| Failure::new(format!("cannot start worker threads: {e}")))
}
