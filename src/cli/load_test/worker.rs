//! One connection of the load test: one statement after the other until told to stop.
//! Must not know the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Way};
use super::operation::Choice;
use super::record::Record;

/// The first pause before connecting again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// All one connection needs.
pub(super) struct Worker {
    pub(super) way: Way,
    pub(super) ids: Arc<Vec<String>>,
    pub(super) record: Arc<Record>,
    pub(super) choice: Choice,
    /// From 0.
    pub(super) number: usize,
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Works until `stop`; a statement that runs then is finished.
    pub(super) async fn run(mut self) {
        while let Some(connection) = self.connected().await {
            self.work(connection).await;
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Until `stop` or the loss of the connection.
    async fn work(&mut self, mut connection: Connection) {
        let ids = self.ids.clone();
        while !self.stop.is_cancelled() && !connection.is_closed() {
            let Some(task) = self.choice.next(&ids) else { return };
            let start = Instant::now();
            match connection.run(&task).await {
                Ok(()) => self.record.success(self.number, task.operation, start.elapsed()),
                Err(e) => self.record.failure(self.number, task.operation, e),
            }
        }
    }

    /// A connection with its statements, after as many tries as it takes; `None` if stopped meanwhile.
    async fn connected(&self) -> Option<Connection> {
        let mut pause = FIRST_PAUSE;
        while !self.stop.is_cancelled() {
            let connected = tokio::select! {
                connected = self.way.connect() => connected,
                () = self.stop.cancelled() => return None,
            };
            match connected {
                Ok(connected) => return Some(connected),
                Err(e) => self.record.no_connection(self.number, e),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.stop.cancelled() => return None,
            }
        }
        None
    }
}
