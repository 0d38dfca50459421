//! From a listening socket to requests: HTTP/1.1, a bounded number of connections, an orderly end.
//! Must not know any endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::auth::Peer;
use super::router;
use crate::session::Proxy;

/// Longest wait for the head of a request, and for the next request on an idle connection.
const HEAD: Duration = Duration::from_secs(60);
/// The longest head of a request, bytes.
const HEAD_BYTES: usize = 64 << 10;
/// Connections at once where no `[http]` says another number.
const CONNECTIONS: usize = 1000;

/// Serves until the proxy's shutdown begins, then until the requests under way have their answers. Dropped, it ends
/// at once.
pub async fn serve(proxy: Arc<Proxy>, listener: TcpListener) {
    let router = router::build(proxy.clone());
    let places = proxy.config().http.as_ref().map_or(CONNECTIONS, |http| http.max_connections);
    let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _ends_all = stop.clone().drop_guard();
    let accepting = async {
        loop {
            // A place first: who does not get one waits in the backlog.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = connection(router.clone(), stream, peer, stop.clone());
                    tracker.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors: accepting at once again would only spin.
                    tracing::error!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = proxy.shutdown_begun() => {}
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

async fn connection(router: Router, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    // Without it answers are only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "an HTTP connection broke off");
    }
}
