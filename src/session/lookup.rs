//! Users that the configuration does not name: looked up on a server, and believed for a while.
//! Must not know sockets, nor tell anybody outside whether a user exists.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use secrecy::SecretString;
use tokio::time::Instant;

use super::proxy::Proxy;
use super::verifier::Verifier;
use crate::cluster::LookupError;
use crate::config::{Database, User, UserAuth};

/// Names that are remembered, of users that exist and of those that do not.
const REMEMBERED: usize = 10_000;
/// Lookups of one name wait for each other; so do, by chance, some of different ones.
const LANES: usize = 64;
/// A wrong password may be a changed one: what is known is then forgotten, but not more often than this.
const DOUBT_AFTER: Duration = Duration::from_secs(1);
/// Where the servers of a `*` database are asked: roles are the same in all of a server's databases.
const ANY_DATABASE: &str = "postgres";

/// What a server said of a name.
#[derive(Debug)]
pub(super) struct Found {
    /// Who it would be.
    pub(super) user: Arc<User>,
    /// What its proof is checked against, or why no proof can do, for the log.
    pub(super) verifier: Result<Verifier, &'static str>,
    at: Instant,
}

/// What was looked up lately, by database and name.
pub(super) struct Lookups {
    known: Cache<(String, String), Arc<Found>>,
    lanes: Vec<tokio::sync::Mutex<()>>,
}

impl Default for Lookups {
    fn default() -> Self {
        let lanes = (0..LANES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { known: Cache::new(REMEMBERED), lanes }
    }
}

impl Lookups {
    fn fresh(&self, key: &(String, String), limit: Duration) -> Option<Arc<Found>> {
        self.known.get(key).filter(|found| found.at.elapsed() < limit)
    }

    /// After a reload nothing is believed any more.
    pub(super) fn forget_all(&self) {
        self.known.clear();
    }
}

impl Proxy {
    /// Asks the servers of a database about a name, or remembers. `asked`: the database as the client named it.
    pub(super) async fn look_up(
        &self,
        database: &Database,
        asked: &str,
        name: &str,
    ) -> Result<Arc<Found>, LookupError> {
        let Some(query) = &database.auth_query else { return Err(LookupError::NoServer) };
        let key = (database.name.clone(), name.to_owned());
        if let Some(found) = self.lookups.fresh(&key, query.cache) {
            return Ok(found);
        }
        let lane = name.bytes().fold(0usize, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())) % LANES;
        let _turn = match self.lookups.lanes.get(lane) {
            Some(lane) => Some(lane.lock().await),
            None => None,
        };
        if let Some(found) = self.lookups.fresh(&key, query.cache) {
            return Ok(found);
        }
        let on = if database.is_wildcard() { ANY_DATABASE } else { asked };
        let served = self.serve_database(on).ok().flatten().ok_or(LookupError::NoServer)?;
        let verifier = match served.cluster.look_up(&query.sql, name).await? {
            None => Err("the servers know no such user, or it has no password"),
            Some(text) => Verifier::parse(&text).ok_or("the server stores no SCRAM-SHA-256 verifier for it"),
        };
        let user = Arc::new(looked_up(name));
        let found = Arc::new(Found { user, verifier, at: Instant::now() });
        self.lookups.known.insert(key, found.clone());
        Ok(found)
    }

    /// Its password was wrong, or it was changed: the server is asked again.
    pub(super) fn doubt(&self, database: &Database, name: &str) {
        let key = (database.name.clone(), name.to_owned());
        if self.lookups.known.get(&key).is_some_and(|found| found.at.elapsed() >= DOUBT_AFTER) {
            self.lookups.known.remove(&key);
        }
    }
}

/// Its rights are those that the servers give it.
fn looked_up(name: &str) -> User {
    User {
        name: name.to_owned(),
        auth: UserAuth::Verifier(SecretString::default()),
        cert_cn: None,
        max_clients: None,
        admin: false,
        databases: Vec::new(),
        server_user: name.to_owned(),
        server_password: None,
        pool_size: None,
    }
}
