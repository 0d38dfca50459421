//! A connection of the load test: to a server of the wire protocol, or to the HTTP API.
//! Must not know what is measured.

use std::sync::Arc;

use tokio_postgres::Client;

use super::super::Failure;
use super::super::args::Protocol;
use super::super::client::Target;
use super::failed::Failed;
use super::http::{HttpConnection, Site};
use super::operation::{Mix, Statements, Task};

/// Where connections go, and what is spoken there.
#[derive(Clone)]
pub(super) enum Way {
    Wire(Box<Target>, Protocol),
    Http(Arc<Site>),
}

/// One connection, with one statement at a time.
pub(super) enum Connection {
    Wire(Client, Statements),
    Http(HttpConnection),
}

impl Way {
    /// What can be asked there.
    pub(super) fn mix(&self) -> Mix {
        match self {
            Self::Wire(..) => Mix::WIRE,
            Self::Http(_) => Mix::HTTP,
        }
    }

    /// For messages and plots: what is spoken, and where.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Wire(target, protocol) => format!("{}, {} protocol", target.describe(), protocol.name()),
            Self::Http(site) => format!("{site}, HTTP"),
        }
    }

    /// The first connection of the test, for looking round: its failure says what to do.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect_first(&self) -> Result<Connection, Failure> {
        match self {
            Self::Wire(target, _) => Ok(Connection::Wire(target.connect_first().await?, Statements::Simple)),
            Self::Http(site) => {
                let connected = HttpConnection::new(site.clone()).await;
                let remedy = "is it running, with [http] listen in its configuration?";
                Ok(Connection::Http(connected.map_err(|e| Failure::new(e.message).remedy(remedy))?))
            }
        }
    }

    /// One more connection, ready for statements.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self) -> Result<Connection, Failed> {
        match self {
            Self::Wire(target, protocol) => {
                let client = target.connect().await.map_err(|e| Failed::from(&e))?;
                let statements = Statements::new(&client, *protocol).await.map_err(|e| Failed::from(&e))?;
                Ok(Connection::Wire(client, statements))
            }
            Self::Http(site) => Ok(Connection::Http(HttpConnection::new(site.clone()).await?)),
        }
    }
}

impl Connection {
    /// Sends one statement and reads its whole answer.
    ///
    /// # Errors
    /// What the other side said, or why it said nothing.
    pub(super) async fn run(&mut self, task: &Task<'_>) -> Result<(), Failed> {
        match self {
            Self::Wire(client, statements) => {
                statements.run(client, task).await.map_err(|e| Failed::from(&e))
            }
            Self::Http(connection) => connection.run(task).await,
        }
    }

    /// Whether nothing more can be sent on it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Wire(client, _) => client.is_closed(),
            Self::Http(connection) => connection.is_closed(),
        }
    }
}
