//! From a proven user to a client ready for its first statement: its database, its seat, what it is told.
//! Must not know how it has proved who it is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::cancels::{CancelSlot, LEAVE, REFRESH};
use super::client::{Place, Standing};
use super::crowd::Seat;
use super::join::unless_gone;
use super::prepared::Named;
use super::proxy::{Proxy, Shutdown};
use super::rest::Resting;
use super::served::{Report, ReportError};
use super::vars::Vars;
use super::{ADMIN_DATABASE, Admitted};
use crate::cluster::{ClusterError, Leased, Need};
use crate::config::PoolMode;
use crate::stats::SessionInfo;
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, SqlState, TransactionStatus};

/// For what follows the parameters, bytes: the longest cancel key, and ReadyForQuery.
const ROOM: usize = 300;

impl Proxy {
    /// From a proven user to a client ready for its first statement; `None` if it was turned away.
    pub(super) async fn welcome(
        self: &Arc<Self>,
        mut admitted: Admitted,
        peer: &str,
        application: Option<&str>,
    ) -> Option<(Resting, BytesMut)> {
        let generation = self.generation.load(Acquire);
        // The rest of the login: a server may have to be asked, and the database may be paused.
        let limit = self.config().timeouts.login;
        let prepare = async {
            let prepared = self.prepare(&admitted).await?;
            let fixed = unless_gone(&admitted.stream, fixed_server(&prepared.0)).await;
            fixed.map(|fixed| fixed.map(|fixed| (prepared, fixed))).transpose()
        };
        let prepared = tokio::time::timeout(limit, prepare).await;
        let prepared = prepared.unwrap_or_else(|_| Err(self.login_too_long(&admitted.database)));
        let prepared = prepared.transpose()?;
        let ((place, vars, report, seat), fixed) = match prepared {
            Ok(prepared) => prepared,
            Err(mut report) => {
                report.severity = crate::wire::Severity::Fatal;
                self.record(&report, &admitted.user.name, &admitted.database);
                tracing::info!(%peer, user = %admitted.user.name, why = %report.message, "a client was refused");
                let mut out = admitted.unsent;
                out.put_report(&report);
                // The client may be gone already.
                drop(admitted.stream.write_all(&out).await);
                drop(admitted.stream.flush().await);
                return None;
            }
        };
        let cancel = self.cancels.register(admitted.protocol_minor >= 2, fixed.as_ref().map(|f| f.pid))?;
        if *self.shutdown.borrow() > Shutdown::No {
            cancel.ask(LEAVE); // it came in at the last moment
        }
        if self.generation.load(Acquire) != generation {
            cancel.ask(REFRESH); // it may have missed the call
        }
        let mut out = admitted.unsent;
        out.reserve(report.told.len() + ROOM);
        out.extend_from_slice(&report.told);
        put_key(&mut out, &cancel);
        out.put_ready(TransactionStatus::Idle);
        if admitted.stream.write_all(&out).await.is_err() || admitted.stream.flush().await.is_err() {
            self.cancels.remove(cancel.id);
            return None;
        }
        let parameter = admitted.parameters.iter().find(|(name, _)| name == "application_name");
        let application = application.or(parameter.map(|(_, value)| value.as_str()));
        let stats = self.stats.session(SessionInfo {
            id: cancel.id,
            user: admitted.user.name.clone(),
            database: admitted.database.clone(),
            application: application.unwrap_or_default().to_owned(),
            address: peer.to_owned(),
            tls: admitted.is_tls,
        });
        let config = self.config();
        let resting = Resting {
            proxy: self.clone(),
            database: self.stats.database(&admitted.database),
            config,
            router: None,
            place,
            user: admitted.user,
            standing: Box::new(Standing { pass: admitted.pass, seat, fixed }),
            stats,
            cancel,
            stream: admitted.stream.joint(),
            vars,
            reported: report.parameters.clone(),
            statements: Named::default(),
            writes: SmallVec::new(),
        };
        Some((resting, admitted.leftover))
    }

    /// A login that was not over within `timeouts.login_ms`.
    fn login_too_long(self: &Arc<Self>, database: &str) -> ErrorReport {
        let served = self.serve_database(database).ok().flatten();
        if served.is_some_and(|served| served.cluster.is_paused()) {
            return ErrorReport::error(
                SqlState::CANNOT_CONNECT_NOW,
                format!("database \"{database}\" is paused"),
            );
        }
        let message = "canceling authentication due to timeout";
        ErrorReport::error(SqlState::QUERY_CANCELED, message).with_hint("The limit is timeouts.login_ms.")
    }

    async fn prepare(self: &Arc<Self>, admitted: &Admitted) -> Result<Prepared, ErrorReport> {
        let config = self.config();
        let of_database = config.database(&admitted.database).and_then(|d| d.max_clients);
        let of_user = (admitted.user.name.as_str(), admitted.user.max_clients);
        let seat = self.crowd.sit(of_user, (&admitted.database, of_database))?;
        // An operator gets in whatever the crowd.
        if admitted.database != ADMIN_DATABASE && self.clients() > config.limits.max_clients {
            let report =
                ErrorReport::error(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already");
            return Err(report.with_hint("Raise proxy.max_clients."));
        }
        if admitted.database == ADMIN_DATABASE {
            let vars = Vars::of_startup(&[], true);
            return Ok((Place::Admin, vars, Arc::new(admin_report(&admitted.user.name)), seat));
        }
        let served = self
            .serve_database(&admitted.database)
            .map_err(|e| ErrorReport::error(SqlState::INTERNAL_ERROR, e.to_string()))?;
        let Some(served) = served else {
            let message = format!("database \"{}\" does not exist", admitted.database);
            return Err(ErrorReport::error(SqlState::INVALID_CATALOG_NAME, message));
        };
        let pools = served.cluster.pools_of(&admitted.user, admitted.pass.as_ref());
        if let Err(error) = served.router().await {
            if matches!(error, ClusterError::NoDatabase { .. }) {
                self.leave_databases(vec![admitted.database.clone()]); // it may be made any time
            }
            return Err(error.report());
        }
        let (vars, report) = served
            .enter(&pools, &admitted.user.server_user, &admitted.parameters)
            .await
            .map_err(|error| match error {
                ReportError::Cluster(error) => error.report(),
                ReportError::Server(crate::pool::ServerError::Sql(fields)) => {
                    ErrorReport::error(fields.sqlstate(), fields.message)
                }
                ReportError::Server(error) => {
                    ErrorReport::error(SqlState::CONNECTION_FAILURE, error.to_string())
                }
            })?;
        Ok((Place::Database { served, pools }, vars, report, seat))
    }
}

/// In session pooling over one shard a client has one server from its login on, and bears that server's process id:
/// what `pg_backend_pid()` and notifications say is then true of it.
async fn fixed_server(place: &Place) -> Result<Option<Leased>, ErrorReport> {
    let Place::Database { served, pools } = place else { return Ok(None) };
    let config = served.cluster.config();
    if config.pool_mode != PoolMode::Session || !config.map.is_single() {
        return Ok(None);
    }
    let leased = served.cluster.lease(pools, config.map.default_shard, Need::PRIMARY, Instant::now());
    Box::pin(leased).await.map(Some).map_err(|error| error.report())
}

/// What a client starts with.
type Prepared = (Place, Arc<Vars>, Arc<Report>, Seat);

fn put_key(out: &mut BytesMut, cancel: &CancelSlot) {
    out.put_u8(b'K');
    out.put_u32(8 + cancel.key.len() as u32);
    out.put_u32(cancel.id);
    out.put_slice(&cancel.key);
}

/// What database `pgherd` reports: enough for psql and drivers to work.
fn admin_report(user: &str) -> Report {
    let parameters = [
        ("server_version", concat!("15.0 (pgherd ", env!("CARGO_PKG_VERSION"), ")")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "off"),
        ("session_authorization", user),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Report::new(Arc::new(parameters.into()), true, Vec::new())
}
