//! The statements of the mix, and which comes next.
//! Must not know connections beyond sending one statement.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::super::args::Protocol;

/// One class of statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    UserById,
    OrdersOfUser,
    JoinOfUser,
    InsertOrder,
    UpdateUser,
}

impl Operation {
    pub(super) const ALL: [Self; 5] =
        [Self::UserById, Self::OrdersOfUser, Self::JoinOfUser, Self::InsertOrder, Self::UpdateUser];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UserById => "select user",
            Self::OrdersOfUser => "select orders",
            Self::JoinOfUser => "select join",
            Self::InsertOrder => "insert order",
            Self::UpdateUser => "update user",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::UserById => {
                "SELECT id, user_id, name, email, created_at, partition_key FROM users WHERE user_id = $1"
            }
            Self::OrdersOfUser => {
                "SELECT order_id, amount, created_at FROM orders WHERE user_id = $1 ORDER BY order_id"
            }
            Self::JoinOfUser => {
                "SELECT u.name, o.order_id, o.amount FROM users u JOIN orders o ON o.user_id = u.user_id \
                 WHERE u.user_id = $1"
            }
            Self::InsertOrder => {
                "INSERT INTO orders (user_id, order_id, amount) VALUES ($1, $2, $3::bigint / 100.0)"
            }
            Self::UpdateUser => "UPDATE users SET name = $2 WHERE user_id = $1",
        }
    }

    fn types(self) -> &'static [Type] {
        match self {
            Self::UserById | Self::OrdersOfUser | Self::JoinOfUser => &[Type::VARCHAR],
            Self::InsertOrder => &[Type::VARCHAR, Type::VARCHAR, Type::INT8],
            Self::UpdateUser => &[Type::VARCHAR, Type::VARCHAR],
        }
    }
}

/// The classes that can be asked for in one way of asking.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    reads: &'static [Operation],
    writes: &'static [Operation],
}

impl Mix {
    /// All of them.
    pub(super) const WIRE: Self = Self {
        reads: &[Operation::UserById, Operation::OrdersOfUser, Operation::JoinOfUser],
        writes: &[Operation::InsertOrder, Operation::UpdateUser],
    };
    /// The HTTP API has neither joins nor updates.
    pub(super) const HTTP: Self =
        Self { reads: &[Operation::UserById, Operation::OrdersOfUser], writes: &[Operation::InsertOrder] };
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub(super) struct Task<'a> {
    pub(super) operation: Operation,
    pub(super) user_id: &'a str,
    pub(super) text: String,
    pub(super) cents: i64,
}

impl Task<'_> {
    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        match self.operation {
            Operation::UserById | Operation::OrdersOfUser | Operation::JoinOfUser => vec![&self.user_id],
            Operation::InsertOrder => vec![&self.user_id, &self.text, &self.cents],
            Operation::UpdateUser => vec![&self.user_id, &self.text],
        }
    }

    /// The text with its values as literals.
    fn literal_sql(&self) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let sql = self.operation.sql().replace("$1", &quote(self.user_id));
        sql.replace("$2", &quote(&self.text)).replace("$3", &self.cents.to_string())
    }
}

/// The statements of one connection, prepared as far as the protocol wants.
pub(super) enum Statements {
    Simple,
    Extended,
    Prepared(Vec<Statement>),
}

impl Statements {
    /// Prepares what must be prepared on a new connection.
    pub(super) async fn new(client: &Client, protocol: Protocol) -> Result<Self, tokio_postgres::Error> {
        Ok(match protocol {
            Protocol::Simple => Self::Simple,
            Protocol::Extended => Self::Extended,
            Protocol::Prepared => {
                let mut prepared = Vec::with_capacity(Operation::ALL.len());
                for operation in Operation::ALL {
                    prepared.push(client.prepare_typed(operation.sql(), operation.types()).await?);
                }
                Self::Prepared(prepared)
            }
        })
    }

    /// Sends one statement and reads its whole answer.
    pub(super) async fn run(&self, client: &Client, task: &Task<'_>) -> Result<(), tokio_postgres::Error> {
        let operation = task.operation;
        match self {
            Self::Simple => client.simple_query(&task.literal_sql()).await.map(drop),
            Self::Extended => {
                let typed: Vec<_> =
                    task.values().into_iter().zip(operation.types().iter().cloned()).collect();
                client.query_typed(operation.sql(), &typed).await.map(drop)
            }
            Self::Prepared(prepared) => match prepared.get(operation as usize) {
                Some(statement) => client.query(statement, &task.values()).await.map(drop),
                None => Ok(()), // cannot be: all are prepared
            },
        }
    }
}

/// What comes next on one connection.
pub(super) struct Choice {
    random: SmallRng,
    mix: Mix,
    write_ratio: f64,
    worker: u32,
    count: u64,
}

impl Choice {
    pub(super) fn new(seed: u64, worker: u32, write_ratio: f64, mix: Mix) -> Self {
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(worker)));
        Self { random, mix, write_ratio, worker, count: 0 }
    }

    /// The next statement, on one of these users; `None` if there are none.
    pub(super) fn next<'a>(&mut self, ids: &'a [String]) -> Option<Task<'a>> {
        let user_id = ids.get(self.random.random_range(0..ids.len().max(1)))?;
        self.count += 1;
        let classes =
            if self.random.random_bool(self.write_ratio) { self.mix.writes } else { self.mix.reads };
        let operation = *classes.get(self.random.random_range(0..classes.len().max(1)))?;
        let cents = self.random.random_range(100..100_000);
        let text = match operation {
            Operation::InsertOrder => format!("load_{}_{}", self.worker, self.count),
            Operation::UpdateUser => format!("Load {} {}", self.worker, self.count),
            Operation::UserById | Operation::OrdersOfUser | Operation::JoinOfUser => String::new(),
        };
        Some(Task { operation, user_id, text, cents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_writes_is_kept() {
        let ids = ["a".to_owned(), "b".to_owned()];
        for (ratio, least, most) in [(0.0, 0, 0), (0.25, 2300, 2700), (1.0, 10_000, 10_000)] {
            let mut choice = Choice::new(1, 0, ratio, Mix::WIRE);
            let is_write = |op| matches!(op, Operation::InsertOrder | Operation::UpdateUser);
            let writes = (0..10_000).filter(|_| is_write(choice.next(&ids).unwrap().operation)).count();
            assert!((least..=most).contains(&writes), "{ratio}: {writes}");
        }
        assert!(Choice::new(1, 0, 0.5, Mix::HTTP).next(&[]).is_none());
    }

    #[test]
    fn values_become_literals_that_cannot_break_out() {
        let task = Task { operation: Operation::InsertOrder, user_id: "o'x", text: "t".into(), cents: 250 };
        let sql = task.literal_sql();
        assert!(sql.ends_with("VALUES ('o''x', 't', 250::bigint / 100.0)"), "{sql}");
    }

    #[test]
    fn operations_are_numbered_as_they_are_prepared() {
        for (i, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, i);
            assert_eq!(operation.sql().matches('$').count(), operation.types().len(), "{}", operation.name());
        }
    }
}
