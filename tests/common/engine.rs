//! A runtime that a proxy in this process has to itself, of the same kind as in its own process.
//! Must not know what runs there.

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// As much stack as the process gives its workers.
const STACK: usize = 64 << 20;

/// Ends, with all that runs in it, when it is dropped.
pub struct Engine {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Engine {
    /// Two workers, or so many as `PGHERD_TEST_WORKERS` says; a single one has all to do by itself.
    pub fn start() -> Self {
        let workers = std::env::var("PGHERD_TEST_WORKERS").map_or(2, |n| n.parse().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, handle) = std::sync::mpsc::channel();
        let run = move || {
            let mut builder = Builder::new_current_thread();
            if workers > 1 {
                builder = Builder::new_multi_thread();
                builder.on_thread_park(pgherd::pool::before_sleep);
            }
            builder.worker_threads(workers).thread_stack_size(STACK);
            let runtime = builder.enable_all().build().unwrap();
            started.send(runtime.handle().clone()).unwrap();
            drop(runtime.block_on(stopped));
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        };
        std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap();
        Self { handle: handle.recv().unwrap(), _stop: stop }
    }

    /// Runs something there, whatever it starts included.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.handle.spawn(work).await.unwrap()
    }
}
