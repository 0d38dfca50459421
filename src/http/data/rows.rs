//! Statements to JSON rows, one by one, as they come from the session.
//! Must not know HTTP answers.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::error::HttpError;
use super::super::link::{Lent, Param};
use super::json_out::{OutColumn, put_row};
use crate::wire::SqlState;

/// The rows of one statement, or of several one after the other.
pub(super) struct Rows {
    session: Lent,
    params: Vec<Param>,
    /// Still to be run, without their limit.
    statements: VecDeque<String>,
    /// Rows still wanted; `None`: all.
    left: Option<u64>,
    columns: Option<Vec<OutColumn>>,
    /// The whole wait ends here; `None`: each wait has `pause`.
    deadline: Option<Instant>,
    pause: Duration,
}

impl Rows {
    /// Starts the first statement, so that an error of it is known before anything is answered.
    pub(super) async fn start(
        session: Lent,
        statements: Vec<String>,
        params: Vec<Param>,
        limit: Option<u64>,
        deadline: Option<Instant>,
        pause: Duration,
    ) -> Result<Self, HttpError> {
        let statements = VecDeque::from(statements);
        let mut rows = Self { session, params, statements, left: limit, columns: None, deadline, pause };
        rows.next_statement().await?;
        Ok(rows)
    }

    /// Appends the next row; `false` if there is none.
    pub(super) async fn put_next(&mut self, out: &mut Vec<u8>) -> Result<bool, HttpError> {
        while let Some(columns) = &self.columns {
            let deadline = self.deadline.unwrap_or_else(|| Instant::now() + self.pause);
            self.session.until(deadline);
            match self.session.row().await? {
                Ok(row) => {
                    if put_row(out, columns, &row).is_none() {
                        let message = "a row is not what its columns promise";
                        return Err(HttpError::new(SqlState::INTERNAL_ERROR, message));
                    }
                    self.left = self.left.map(|left| left.saturating_sub(1));
                    return Ok(true);
                }
                Err(_) => self.next_statement().await?,
            }
        }
        Ok(false)
    }

    async fn next_statement(&mut self) -> Result<(), HttpError> {
        let began = self.columns.take().is_some();
        let Some(mut sql) = self.statements.pop_front() else { return Ok(()) };
        if let Some(left) = self.left {
            if left == 0 && began {
                return Ok(()); // the first is run even for no rows: it may be wrong
            }
            sql.push_str(&format!(" LIMIT {left}"));
        }
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + self.pause);
        let fields = self.session.start(&sql, &self.params, deadline).await?;
        self.columns = Some(OutColumn::all(&fields));
        Ok(())
    }
}
