//! Several shards of real servers: primaries with streaming replicas.
//! Must not know the proxy.

use pgherd::local::Follow;

use super::Pg;
use super::pg::{machine, temp_dir};

/// One shard: a primary and its replicas.
#[derive(Debug)]
pub struct Shard {
    // Replicas go first: a primary waits for them when it is stopped in good order.
    /// Replicas of the primary.
    pub replicas: Vec<Pg>,
    /// The primary.
    pub primary: Pg,
}

/// Shards of real servers on free ports, all stopped when dropped.
#[derive(Debug)]
pub struct Herd {
    /// The shards in order.
    pub shards: Vec<Shard>,
}

impl Herd {
    /// Starts so many shards, each with so many replicas (at most 3).
    pub async fn start(shards: usize, replicas: usize) -> Self {
        let started = (1..=shards).map(|number| Shard::start(number, replicas));
        Self { shards: futures_util::future::join_all(started).await }
    }

    /// The primary of a shard, from 0.
    pub fn primary(&self, shard: usize) -> &Pg {
        &self.shards[shard].primary
    }

    /// Waits until all replicas have replayed all that their primaries wrote so far.
    pub async fn caught_up(&self) {
        for shard in &self.shards {
            for replica in &shard.replicas {
                replica.caught_up_with(&shard.primary).await;
            }
        }
    }

    /// Runs statements on every primary as the superuser in database `app`.
    pub async fn sql(&self, sql: &str) {
        for shard in &self.shards {
            shard.primary.sql(sql).await;
        }
    }
}

impl Shard {
    async fn start(number: usize, replicas: usize) -> Self {
        let dir = temp_dir(&machine().await.0);
        let primary = Pg::primary(&format!("shard{number} primary"), replicas, &dir).await;
        let followers = (1..=replicas).map(|replica| {
            let follows = Follow { port: primary.port, number: replica };
            let (name, dir) = (format!("shard{number} replica{replica}"), dir.clone());
            async move { Pg::replica(&name, follows, &dir).await }
        });
        let replicas = futures_util::future::join_all(followers).await;
        Self { replicas, primary }
    }
}
