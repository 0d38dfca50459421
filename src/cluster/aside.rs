//! Connections beside the pools that live long: to the primary of a shard, as the control user.
//! Must not know what they are for.

use std::sync::Arc;

use super::error::ClusterError;
use super::server::ServerState;
use super::topology::Cluster;
use crate::pool::{ConnectError, Endpoint, Opened, connect};
use crate::shard::ShardId;

/// Why there is no connection beside the pools.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// There is no primary.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// It cannot be reached, or refused.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Cluster {
    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The primary of a shard as it is known now.
    ///
    /// # Errors
    /// [`ClusterError`]: there is none, or there are two.
    pub fn primary_of(&self, shard: ShardId) -> Result<Arc<ServerState>, ClusterError> {
        let servers =
            self.shards.get(shard.index()).ok_or(ClusterError::NoSuchShard { shard: shard.index() })?;
        self.primary(shard, servers).map(|(_, server)| server.clone())
    }

    /// A new connection to the primary of a shard as the control user. Cancel safe.
    ///
    /// # Errors
    /// [`AsideError`].
    pub async fn connect_aside(&self, shard: ShardId) -> Result<(Arc<ServerState>, Opened), AsideError> {
        let server = self.primary_of(shard)?;
        let endpoint = Endpoint {
            host: server.config.host.clone(),
            port: server.config.port,
            database: self.server_database.clone(),
            user: self.config.control.user.clone(),
            password: self.config.control.password.clone(),
            pass: None,
            tls: self.tls.clone(),
            connect_timeout: self.config.pool.connect_timeout,
            parameters: vec![("application_name".into(), "pgherd listen".into())],
            keys: self.keys.clone(),
        };
        Ok((server, connect(&endpoint).await?))
    }
}
