//! How many clients are in, by user and by database, and whether there is room for one more.
//! Must not know sockets.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::wire::{ErrorReport, SqlState};

/// All seats that are taken.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    users: HashMap<Arc<str>, usize>,
    databases: HashMap<Arc<str>, usize>,
}

/// One client's seat, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    user: Arc<str>,
    database: Arc<str>,
}

impl Crowd {
    /// A seat for a client, counted by user and by database; each limit is checked if there is one.
    pub(super) fn sit(
        self: &Arc<Self>,
        (user, most_of_user): (&str, Option<NonZeroUsize>),
        (database, most_in_database): (&str, Option<NonZeroUsize>),
    ) -> Result<Seat, ErrorReport> {
        let mut taken = self.taken.lock();
        let full = |seats: Option<&usize>, most: Option<NonZeroUsize>| {
            most.is_some_and(|most| seats.is_some_and(|taken| *taken >= most.get()))
        };
        let refused = |message: String, key: &str| {
            ErrorReport::error(SqlState::TOO_MANY_CONNECTIONS, message)
                .with_hint(format!("Raise {key}, or close sessions that are not used."))
        };
        if full(taken.users.get(user), most_of_user) {
            return Err(refused(format!("too many connections for role \"{user}\""), "user.max_clients"));
        }
        if full(taken.databases.get(database), most_in_database) {
            let message = format!("too many connections for database \"{database}\"");
            return Err(refused(message, "database.max_clients"));
        }
        let user = count(&mut taken.users, user);
        let database = count(&mut taken.databases, database);
        Ok(Seat { crowd: self.clone(), user, database })
    }
}

impl Crowd {
    /// Whether a client is in that database.
    pub(super) fn is_in(&self, database: &str) -> bool {
        self.taken.lock().databases.contains_key(database)
    }
}

fn count(seats: &mut HashMap<Arc<str>, usize>, name: &str) -> Arc<str> {
    if let Some((known, _)) = seats.get_key_value(name) {
        let known = known.clone();
        seats.entry(known.clone()).and_modify(|n| *n += 1);
        return known;
    }
    let name: Arc<str> = name.into();
    seats.insert(name.clone(), 1);
    name
}

fn leave(seats: &mut HashMap<Arc<str>, usize>, name: &str) {
    if let Some(n) = seats.get_mut(name) {
        *n -= 1;
        if *n == 0 {
            seats.remove(name);
        }
    }
}

impl Seat {
    /// Whether no other client is in the same database.
    pub(super) fn is_alone(&self) -> bool {
        self.crowd.taken.lock().databases.get(&self.database) == Some(&1)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.crowd.taken.lock();
        leave(&mut taken.users, &self.user);
        leave(&mut taken.databases, &self.database);
    }
}
