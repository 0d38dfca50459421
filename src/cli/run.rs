//! `pgherd run`: the proxy itself, until it is told to stop.
//! Must not know how a command line looks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Failure, runtime};
use crate::config::Config;
use crate::http;
use crate::session::{Proxy, StartError};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How a running proxy and the one who runs it talk to each other.
#[derive(Debug)]
pub(super) struct Control {
    /// Told once clients can connect.
    pub(super) ready: oneshot::Sender<()>,
    /// Cancelled when the proxy is to drain and end.
    pub(super) stop: CancellationToken,
    /// Whether SIGINT and SIGTERM are its own to handle.
    pub(super) signals: bool,
}

impl Control {
    /// Of a proxy that has the process to itself: a SIGINT or SIGTERM stops it.
    pub(super) fn foreground() -> Self {
        Self { ready: oneshot::channel().0, stop: CancellationToken::new(), signals: true }
    }
}

/// Serves until [`Control::stop`], then drains: idle clients are told to go, others when their transaction ends. A
/// second signal does not wait for them.
///
/// # Errors
/// A port that cannot be listened on, or TLS files that cannot be used.
pub(super) async fn run(config: Arc<Config>, control: Control) -> Result<(), Failure> {
    let started = config.clone();
    // Deriving verifiers takes 0.5 ms of CPU per user: not on a worker.
    let proxy = tokio::task::spawn_blocking(move || {
        let _guard = tokio::runtime::Handle::current();
        Proxy::start(started)
    })
    .await
    .map_err(|e| Failure::new(format!("cannot start: {e}")))?
    .map_err(|e| Failure::new(e.to_string()))?;
    let mut given = if control.signals { handed_over()? } else { Vec::new() };
    let given_http = config.http.as_ref().and_then(|http| {
        let at = given.iter().position(|l| l.local_addr().is_ok_and(|a| a == http.listen))?;
        Some(given.swap_remove(at))
    });
    let shared = !given.is_empty();
    if !shared {
        for address in &config.listen {
            given.push(listen_or_say(*address, "proxy.listen", config.reuse_port)?);
        }
    }
    // From here on clients can connect; they wait until the servers are known, lest the first be told that there are none.
    proxy.settled().await;
    let doors: Vec<_> = given.into_iter().map(|listener| open(&proxy, listener, shared)).collect();
    let http = match &config.http {
        Some(http) => {
            let listener = match given_http {
                Some(listener) => listener,
                None => listen_or_say(http.listen, "http.listen", config.reuse_port)?,
            };
            tracing::info!(address = %http.listen, "listening for HTTP");
            Some(tokio::spawn(http::serve(proxy.clone(), listener)))
        }
        None => None,
    };
    if control.signals {
        tokio::spawn(reload_on_hangup(proxy.clone()));
    }
    // In the foreground nobody waits for it.
    let _ = control.ready.send(());
    tell_systemd(&NotifyState::Ready);
    tokio::select! {
        () = control.stop.cancelled() => {}
        () = proxy.shutdown_begun() => {}
        () = runtime::interrupted(), if control.signals => {}
    }
    tell_systemd(&NotifyState::Stopping);
    proxy.begin_shutdown();
    let clients = proxy.clients();
    tracing::info!(clients, "draining");
    tokio::select! {
        drained = drained(&proxy, doors.into_iter().chain(http), proxy.config().timeouts.drain) => {
            if !drained {
                tracing::warn!(clients = proxy.clients(), "clients were still in a transaction at the end");
            }
        }
        () = runtime::interrupted(), if control.signals => tracing::warn!("a second signal: not waiting any longer"),
        () = proxy.shutdown_now() => tracing::warn!("told not to wait any longer"),
    }
    Ok(())
}

/// Waits until all requests are answered and all clients are gone, or the time is over; whether they are gone.
async fn drained(proxy: &Proxy, tasks: impl Iterator<Item = JoinHandle<()>>, limit: Duration) -> bool {
    let all = async {
        for task in tasks {
            // Its end is all that is waited for.
            let _ = task.await;
        }
        proxy.drained(limit).await
    };
    timeout(limit, all).await.unwrap_or(false)
}

/// A listening socket, or why there is none; `key` is the setting that names the address.
fn listen_or_say(address: SocketAddr, key: &str, reuse_port: bool) -> Result<TcpListener, Failure> {
    listen(address, reuse_port).map_err(|source| {
        let taken = source.kind() == std::io::ErrorKind::AddrInUse;
        let failure = Failure::new(StartError::Listen { address, source }.to_string());
        if taken { failure.remedy(format!("Stop what listens there, or change {key}.")) } else { failure }
    })
}

/// Takes clients in. `shared`: others hold the socket too.
fn open(proxy: &Arc<Proxy>, listener: TcpListener, shared: bool) -> JoinHandle<()> {
    let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |a| a.to_string());
    if shared {
        tracing::info!(address, "listening on a socket that was handed over; proxy.listen is not used");
        tokio::spawn(proxy.clone().accept_shared(listener))
    } else {
        tracing::info!(address, "listening");
        tokio::spawn(proxy.clone().accept(listener))
    }
}

/// Listening sockets that systemd, or whoever started the process, has opened for it (`LISTEN_FDS`).
fn handed_over() -> Result<Vec<TcpListener>, Failure> {
    let mut given = ListenFd::from_env();
    let mut listeners = Vec::new();
    for i in 0..given.len() {
        let taken = given.take_tcp_listener(i).and_then(|listener| match listener {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Some)
            }
            None => Ok(None),
        });
        let unfit = |e| Failure::new(format!("socket {} of LISTEN_FDS cannot be used: {e}", i + 3));
        listeners.extend(taken.map_err(unfit)?);
    }
    Ok(listeners)
}

/// Where nobody listens to it, as outside systemd, nothing happens.
fn tell_systemd(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd cannot be told the state");
    }
}

/// What came of it is logged by the reload itself.
async fn reload_on_hangup(proxy: Arc<Proxy>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        let _ = proxy.reload().await;
    }
}

/// A listening socket with a backlog that a storm of reconnects fits into.
fn listen(address: SocketAddr, reuse_port: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
