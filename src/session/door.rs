//! What is loaded once to let clients in: users with their verifiers, the certificate, the places before login.
//! Must not know sockets: it is asked, and answers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use pgwire::api::auth::sasl::scram::ScramServerAuth;
use quick_cache::sync::Cache;
use rustls::pki_types::pem;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lookup::Found;
use super::packet::NEWEST_MINOR;
use super::password;
use super::proxy::Proxy;
use super::refusal::Refusal;
use super::tls::DoorTls;
use super::verifier::{ITERATIONS, Mint, Verifier};
use crate::config::{Config, Database, PoolMode, User, UserAuth};
use crate::wire::{ErrorReport, SqlState};

/// The database of virtual tables, for admin users only.
pub const ADMIN_DATABASE: &str = "pgherd";

/// Before, servers speak protocol 3.0 only, and their cancel keys have four bytes. Source: docs, "Protocol Versions".
const FIRST_WITH_LONG_KEYS: u32 = 180_000;

/// Lets clients in. One per configuration; [`Door::reloaded`] makes the next.
pub struct Door {
    config: Arc<Config>,
    pub(super) tls: Option<DoorTls>,
    users: HashMap<String, Known>,
    mint: Mint,
    /// What fakes claim: the most common number of iterations among the real verifiers.
    fake_iterations: usize,
    places: Arc<Semaphore>,
    /// For logins in clear: never knows a certificate.
    plain_scram: ScramServerAuth,
    proxy: OnceLock<Weak<Proxy>>,
    /// Whose passwords, sent as such, were found right, by [`Door::digest`]. A reload makes another door, which
    /// remembers nothing.
    pub(super) remembered: Cache<[u8; 32], Arc<User>>,
    /// Places for passwords that are being checked.
    pub(super) checking: Arc<Semaphore>,
}

struct Known {
    user: Arc<User>,
    proof: Proof,
}

/// How a user proves who it is.
#[derive(Clone)]
enum Proof {
    /// No proof asked, but of a local peer only.
    Local,
    Password(Verifier),
    /// The client's certificate alone.
    Certificate,
}

/// A configuration that no door can be made of.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A file that cannot be read, or is not PEM.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Pem {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate file without a certificate.
    #[error("tls.cert: {} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// Authorities that clients' certificates cannot be checked with.
    #[error("tls.client_ca: {} cannot be used: {why}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Certificate and key do not fit, or rustls does not take them.
    #[error("tls: certificate and key cannot be used: {0}")]
    Tls(rustls::Error),
    /// A verifier that is none.
    #[error("user \"{0}\": the verifier is not of the form SCRAM-SHA-256$4096:salt$stored:server")]
    Verifier(String),
}

/// Whom a name belongs to, as far as one may tell before the proof.
pub(super) struct Asked {
    /// The user; `None` if there is none, which must not show until the proof has failed.
    pub(super) user: Option<Arc<User>>,
    /// What the proof is checked against; `None`: no proof is asked.
    pub(super) verifier: Option<Verifier>,
    /// Why the proof cannot succeed, for the log.
    pub(super) hopeless: Option<&'static str>,
}

impl Door {
    /// Reads the files and derives the verifiers, 0.5 ms of CPU each, on all cores. Blocks.
    ///
    /// # Errors
    /// [`DoorError`], naming key or user at fault.
    pub fn new(config: Arc<Config>) -> Result<Self, DoorError> {
        Self::build(config, Mint::new(), &HashMap::new())
    }

    /// The door of a changed configuration. Verifiers of unchanged passwords are kept, and so are the salts; logins
    /// under way end as they began. Blocks as [`Door::new`] does.
    ///
    /// # Errors
    /// As [`Door::new`]; this door then stays as it is.
    pub fn reloaded(&self, config: Arc<Config>) -> Result<Self, DoorError> {
        Self::build(config, self.mint.clone(), &self.users)
    }

    fn build(config: Arc<Config>, mint: Mint, old: &HashMap<String, Known>) -> Result<Self, DoorError> {
        let tls = config.tls.as_ref().map(DoorTls::load).transpose()?;
        let users = known(&config.users, &mint, old)?;
        Ok(Self {
            tls,
            fake_iterations: usual_iterations(&users),
            users,
            mint,
            places: Arc::new(Semaphore::new(config.limits.max_unauthenticated.min(Semaphore::MAX_PERMITS))),
            plain_scram: ScramServerAuth::new(),
            proxy: OnceLock::new(),
            remembered: Cache::new(password::REMEMBERED),
            checking: Arc::new(Semaphore::new(password::AT_ONCE)),
            config,
        })
    }

    /// The user of that name.
    pub(super) fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users.get(name).map(|known| known.user.clone())
    }

    /// What stands for a name and a password where they are remembered.
    pub(super) fn digest(&self, name: &str, password: &SecretString) -> [u8; 32] {
        self.mint.digest(name, password)
    }

    pub(super) fn login_timeout(&self) -> Duration {
        self.config.timeouts.login
    }

    pub(super) fn scram(&self, is_tls: bool) -> &ScramServerAuth {
        match &self.tls {
            Some(tls) if is_tls => &tls.scram,
            _ => &self.plain_scram,
        }
    }

    /// A place for one client that has not proved itself yet; given back when dropped.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            let message = "too many clients are logging in at once (limits.max_unauthenticated)";
            Refusal::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
        })
    }

    /// Whom a name belongs to that a server was asked about: what it said, and the user if it knows one.
    pub(super) fn ask_of(&self, name: &str, found: &Found) -> Asked {
        let fake = self.mint.fake(name, self.fake_iterations);
        match &found.verifier {
            Ok(verifier) => {
                Asked { user: Some(found.user.clone()), verifier: Some(verifier.clone()), hopeless: None }
            }
            Err(why) => Asked { user: None, verifier: Some(fake), hopeless: Some(why) },
        }
    }

    /// The proxy behind the door, which can ask servers about users.
    pub(super) fn proxy(&self) -> Option<Arc<Proxy>> {
        self.proxy.get()?.upgrade()
    }

    /// The newest minor version of the protocol that clients of a database are offered. In session pooling it is that of
    /// its servers, as far as they are known: a client is to find what it would find on its server itself.
    pub(super) fn newest_minor(&self, database: &str) -> u16 {
        let of_session = |database: &&Arc<Database>| database.pool_mode == PoolMode::Session;
        let Some(database) = self.config.database(database).filter(of_session) else { return NEWEST_MINOR };
        let clusters = self.proxy().map(|proxy| proxy.clusters()).unwrap_or_default();
        let its_own = clusters.iter().filter(|cluster| Arc::ptr_eq(cluster.config(), database));
        match its_own.filter_map(|cluster| cluster.oldest_version()).min() {
            Some(version) if version < FIRST_WITH_LONG_KEYS => 0,
            _ => NEWEST_MINOR,
        }
    }

    /// The door is this proxy's.
    pub(super) fn lead_to(&self, proxy: &Arc<Proxy>) {
        // A second one would be a mistake of ours, and the first one stays.
        let _ = self.proxy.set(Arc::downgrade(proxy));
    }

    /// Whether users that are not known here may be looked up for this database, and on which one's servers.
    pub(super) fn looks_up(&self, name: &str, database: &str) -> Option<&Arc<Database>> {
        let database = self.config.database(database)?;
        (!self.users.contains_key(name) && database.auth_query.is_some()).then_some(database)
    }

    /// Whom a name belongs to. A fake verifier is made each time, needed or not: it costs what it costs.
    /// `cn`: the common name of the certificate that the client has shown.
    pub(super) fn ask(&self, name: &str, is_local: bool, cn: Option<&str>) -> Asked {
        let fake = self.mint.fake(name, self.fake_iterations);
        let hopeless = |why| Asked { user: None, verifier: Some(fake.clone()), hopeless: Some(why) };
        match self.users.get(name) {
            None => hopeless("there is no such user"),
            Some(known) if known.user.cert_cn.as_deref().is_some_and(|wanted| cn != Some(wanted)) => {
                hopeless("this user has to show another certificate")
            }
            Some(Known { user, proof: Proof::Certificate }) => {
                Asked { user: Some(user.clone()), verifier: None, hopeless: None }
            }
            Some(Known { user, proof: Proof::Local }) if is_local => {
                Asked { user: Some(user.clone()), verifier: None, hopeless: None }
            }
            Some(Known { proof: Proof::Local, .. }) => {
                hopeless("this user is trusted, which holds for loopback addresses only")
            }
            Some(Known { user, proof: Proof::Password(verifier) }) => {
                Asked { user: Some(user.clone()), verifier: Some(verifier.clone()), hopeless: None }
            }
        }
    }

    /// Whether a user who proved itself may enter a database.
    pub(super) fn may_enter(&self, user: &User, database: &str) -> Result<(), Refusal> {
        if database == ADMIN_DATABASE {
            return if user.admin { Ok(()) } else { Err(denied(database)) };
        }
        let Some(found) = self.config.database(database) else {
            let message = format!("database \"{database}\" does not exist");
            return Err(Refusal::fatal(SqlState::INVALID_CATALOG_NAME, message));
        };
        let listed = |name: &String| name == database || (found.is_wildcard() && name == "*");
        if user.databases.is_empty() || user.databases.iter().any(listed) {
            Ok(())
        } else {
            Err(denied(database))
        }
    }
}

fn denied(database: &str) -> Refusal {
    let message = format!("permission denied for database \"{database}\"");
    let report = ErrorReport::fatal(SqlState::INSUFFICIENT_PRIVILEGE, message);
    Refusal::told(report.with_detail("User does not have CONNECT privilege."))
}

fn usual_iterations(users: &HashMap<String, Known>) -> usize {
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for known in users.values() {
        if let Proof::Password(verifier) = &known.proof {
            *counts.entry(verifier.iterations()).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|&(iterations, n)| (n, iterations)).map_or(ITERATIONS, |(i, _)| i)
}

/// All users with their proofs; what must be derived is dealt to all cores.
fn known(
    users: &[User],
    mint: &Mint,
    old: &HashMap<String, Known>,
) -> Result<HashMap<String, Known>, DoorError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = users.len().div_ceil(cores).max(1);
    let proofs = thread::scope(|scope| {
        let prove = |part: &[User]| part.iter().map(|u| proof(u, mint, old)).collect::<Result<Vec<_>, _>>();
        let threads: Vec<_> =
            users.chunks(share).map(|part| (part, scope.spawn(move || prove(part)))).collect();
        let done = threads.into_iter().map(|(part, t)| match t.join() {
            Ok(proofs) => proofs,
            Err(_) => prove(part), // a thread that could not do it: once more, here
        });
        done.collect::<Result<Vec<_>, _>>()
    })?;
    let proofs = proofs.into_iter().flatten();
    Ok(users
        .iter()
        .zip(proofs)
        .map(|(user, proof)| (user.name.clone(), Known { user: Arc::new(user.clone()), proof }))
        .collect())
}

fn proof(user: &User, mint: &Mint, old: &HashMap<String, Known>) -> Result<Proof, DoorError> {
    match &user.auth {
        UserAuth::Trust => Ok(Proof::Local),
        UserAuth::Certificate => Ok(Proof::Certificate),
        UserAuth::Verifier(text) => Verifier::parse(text.expose_secret())
            .map(Proof::Password)
            .ok_or_else(|| DoorError::Verifier(user.name.clone())),
        UserAuth::Password(password) => Ok(old
            .get(&user.name)
            .filter(|known| has_password(&known.user, password))
            .map(|known| known.proof.clone())
            .unwrap_or_else(|| Proof::Password(Verifier::derive(password, mint.salt(&user.name))))),
    }
}

fn has_password(user: &User, password: &SecretString) -> bool {
    match &user.auth {
        UserAuth::Password(old) => old.expose_secret() == password.expose_secret(),
        UserAuth::Verifier(_) | UserAuth::Certificate | UserAuth::Trust => false,
    }
}
