//! Users that only the servers know: asked for by `auth_query`, as the control user.
//! Must not know how a user proves who it is.

use super::topology::Cluster;
use crate::config::Role;
use crate::pool::ControlError;

/// Why a user could not be looked up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookupError {
    /// No server of the default shard answers.
    #[error("no server of the default shard answers")]
    NoServer,
    /// The query failed.
    #[error(transparent)]
    Query(#[from] ControlError),
    /// Its answer is not what is expected.
    #[error("auth_query did not give one row of name and verifier, both text: {0}")]
    Shape(String),
}

impl Cluster {
    /// What `sql` tells of a user: its `rolpassword`, `None` if it has none or there is no such user. Cancel safe.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn look_up(&self, sql: &str, user: &str) -> Result<Option<String>, LookupError> {
        let shard = self.config.map.default_shard.index();
        let servers = self.shards.get(shard).into_iter().flatten();
        let pools = self.lookups.get(shard).into_iter().flatten();
        let mut order: Vec<_> = servers.zip(pools).collect();
        order.sort_by_key(|(s, _)| (!s.is_up(), s.role() == Some(Role::Replica)));
        let (_, pool) = order.first().ok_or(LookupError::NoServer)?;
        let rows = pool.query_about(sql, user).await?;
        match rows.as_slice() {
            [] => Ok(None),
            [row] => row.try_get(1).map_err(|e| LookupError::Shape(e.to_string())),
            rows => Err(LookupError::Shape(format!("it gave {} rows", rows.len()))),
        }
    }
}
