//! Sessions kept for reuse, and how many work at once.
//! Must not know what they are used for.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::super::error::HttpError;
use super::Link;
use crate::config::User;
use crate::session::Proxy;
use crate::wire::SqlState;

/// All sessions of the HTTP server.
pub(in crate::http) struct Links {
    proxy: Arc<Proxy>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Last used, last in.
    idle: Mutex<Vec<Link>>,
    /// Places to work, and how many there are in all.
    places: Mutex<(usize, Arc<Semaphore>)>,
}

/// A session lent to a request. Dropped, it is kept for the next one; if a statement is under way, that is cancelled
/// first, and a transaction rolled back.
pub(in crate::http) struct Lent {
    link: Option<Link>,
    shared: Arc<Shared>,
    place: Option<OwnedSemaphorePermit>,
}

impl Links {
    pub(in crate::http) fn new(proxy: Arc<Proxy>) -> Self {
        let places = Mutex::new((0, Arc::new(Semaphore::new(0))));
        Self { proxy, shared: Arc::new(Shared { idle: Mutex::default(), places }) }
    }

    /// A session of this user on this database; at most `most` work at once.
    ///
    /// # Errors
    /// 53300 if no place is free before the deadline; what a login is refused with.
    pub(in crate::http) async fn lend(
        &self,
        user: &Arc<User>,
        database: &str,
        most: usize,
        deadline: Instant,
    ) -> Result<Lent, HttpError> {
        let place = self.shared.place(most, deadline).await?;
        let link = match self.shared.take_idle(user, database) {
            Some(link) => link,
            None => Link::open(&self.proxy, user.clone(), database, deadline).await?,
        };
        Ok(Lent { link: Some(link), shared: self.shared.clone(), place: Some(place) })
    }
}

impl Shared {
    async fn place(&self, most: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, HttpError> {
        let places = {
            let mut places = self.places.lock();
            if places.0 != most {
                // A reload changed the number: what is lent now does not count against the new one.
                *places = (most, Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))));
            }
            places.1.clone()
        };
        match timeout_at(deadline, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                let message =
                    format!("all {most} sessions of the HTTP server were at work until the time was over");
                Err(HttpError::new(SqlState::TOO_MANY_CONNECTIONS, message)
                    .hint("Nothing was done. Raise http.max_sessions, or send fewer requests at once."))
            }
        }
    }

    fn take_idle(&self, user: &Arc<User>, database: &str) -> Option<Link> {
        let mut idle = self.idle.lock();
        loop {
            let fits = |link: &Link| Arc::ptr_eq(&link.user, user) && link.database == database;
            let at = idle.iter().rposition(fits)?;
            let mut link = idle.remove(at);
            if link.is_alive() {
                return Some(link);
            }
        }
    }

    fn give_back(&self, mut link: Link) {
        let most = self.places.lock().0;
        link.shrink();
        let mut idle = self.idle.lock();
        if idle.len() >= most && !idle.is_empty() {
            // The one that was unused longest: another user's, or of a configuration that is gone.
            idle.remove(0);
        }
        idle.push(link);
    }
}

impl Deref for Lent {
    type Target = Link;

    fn deref(&self) -> &Link {
        self.link.as_ref().expect("it is taken in drop only")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Link {
        self.link.as_mut().expect("it is taken in drop only")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        if link.is_clean() {
            self.shared.give_back(link);
            return;
        }
        let (shared, place) = (self.shared.clone(), self.place.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if link.clean().await.is_ok() && link.is_clean() {
                    shared.give_back(link);
                }
                drop(place);
            });
        }
    }
}
