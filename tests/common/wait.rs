//! Waiting for something to become true, without fixed sleeps.
//! Must not know what is waited for.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// Asks until the answer is `Some`, and returns it; panics with `what` when `limit` is over.
pub async fn eventually<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asking = async {
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(limit, asking).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}
