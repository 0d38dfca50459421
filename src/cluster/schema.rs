//! Reading the catalogs of every shard, typing the map's keys by them, and saying where shards differ.
//! Must not know what routing makes of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Release},
};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;

use super::error::ClusterError;
use super::server::ServerState;
use super::status::Drift;
use super::topology::{Cluster, Schema};
use crate::catalog::{Catalog, Collation, Column, Relation, RelationKind};
use crate::config::Role;
use crate::pool::{ControlError, ControlPool};
use crate::shard::{KeyType, Placement, ShardId, TableName};

/// How an error ends that says so.
pub(super) const NO_SUCH_DATABASE: &str = "(3D000)";

const HEAD: &str = "SELECT pg_catalog.current_setting('server_version_num')::int, \
     pg_catalog.current_setting('server_encoding'), \
     pg_catalog.array_to_string(pg_catalog.current_schemas(false), E'\\n'), \
     EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D')";

const RELATIONS: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text, \
     (c.relhastriggers OR c.relhasrules) AND c.relkind IN ('r','p'), c.relpersistence = 'u' OR c.relkind = 'S' \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r','p','v','m','f','S') AND c.relpersistence <> 't' \
       AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

const COLUMNS: &str = "SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid, \
     pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
     pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '', a.attgenerated <> '', \
     CASE WHEN l.collname = 'default' THEN (SELECT datcollate::text FROM pg_catalog.pg_database \
          WHERE datname = pg_catalog.current_database()) ELSE l.collname::text END, \
     coalesce(l.collisdeterministic, true) \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r','p','v','m','f') \
       AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
     ORDER BY 1, 2, a.attnum";

const UNIQUES: &str = "SELECT n.nspname::text, c.relname::text, \
     (SELECT pg_catalog.string_agg(a.attname, E'\\n' ORDER BY k.ord) \
        FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(num, ord) \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num \
       WHERE k.ord <= i.indnkeyatts) \
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE i.indisunique AND i.indexprs IS NULL AND i.indpred IS NULL \
       AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

/// What each view reads, through other views too.
const VIEW_READS: &str = "WITH RECURSIVE reads(view, rel) AS ( \
       SELECT DISTINCT r.ev_class, d.refobjid FROM pg_catalog.pg_rewrite r \
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid \
          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class \
       UNION \
       SELECT reads.view, d.refobjid FROM reads \
         JOIN pg_catalog.pg_rewrite r ON r.ev_class = reads.rel \
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid \
          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class) \
     SELECT vn.nspname::text, v.relname::text, tn.nspname::text, t.relname::text FROM reads \
       JOIN pg_catalog.pg_class v ON v.oid = reads.view JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace \
       JOIN pg_catalog.pg_class t ON t.oid = reads.rel JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
     WHERE v.relkind IN ('v','m') AND t.relkind IN ('r','p','f') \
       AND vn.nspname NOT LIKE 'pg\\_%' AND vn.nspname <> 'information_schema'";

/// Falls behind again if a reading is given up or fails.
struct Behind<'a> {
    behind: &'a AtomicBool,
    was: bool,
}

impl Behind<'_> {
    fn read(mut self) {
        self.was = false;
    }
}

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        if self.was {
            self.behind.store(true, Release);
        }
    }
}

/// How long what was read counts as fresh.
const FRESH: Duration = Duration::from_millis(500);

type Name = (String, String);

impl Cluster {
    /// Reads the catalogs again and puts them in force if anything changed.
    ///
    /// # Errors
    /// [`ClusterError::NoCatalog`] if no server of the default shard answers; the old schema stays in force.
    pub async fn reload_schema(&self) -> Result<Arc<Schema>, ClusterError> {
        let asked = Instant::now();
        let mut read_at = self.schema_lock.lock().await;
        if let (Some(at), Some(schema)) = (*read_at, self.schema.load_full())
            && at > asked
        {
            return Ok(schema); // read while this call waited
        }
        // What takes effect from here on may be missed. If the reading fails, all is as before.
        let behind = Behind { behind: &self.behind, was: self.behind.swap(false, AcqRel) };
        let read = self.read_again(&mut read_at).await?;
        behind.read();
        Ok(read)
    }

    async fn read_again(&self, read_at: &mut Option<Instant>) -> Result<Arc<Schema>, ClusterError> {
        let started = Instant::now();
        let default = self.config.map.default_shard;
        // All at once: whoever waits for it waits for the slowest shard, not for their sum.
        let ids = (0..self.shards.len() as u16).map(ShardId).filter(|id| *id != default);
        let reading =
            futures_util::future::join_all(ids.map(|id| async move { (id, self.read_shard(id).await) }));
        let (catalog, read) = tokio::join!(self.read_shard(default), reading);
        let (mut catalog, mut others) = (catalog?, Vec::new());
        for (id, read) in read {
            match read {
                Ok(other) => others.push((id, other)),
                Err(error) => tracing::debug!(shard = %self.shard_name(id), %error, "catalogs not compared"),
            }
        }
        let drift = self.drift(default, &catalog, &others);
        // A table of a single placement exists on its own shard only.
        for (id, other) in &others {
            for (name, placement) in &self.config.map.tables {
                let key = (name.schema.clone(), name.name.clone());
                if *placement == Placement::Single(*id)
                    && let Some(relation) = other.relations.get(&key)
                {
                    catalog.relations.insert(key, relation.clone());
                }
            }
        }
        for (_, other) in &others {
            catalog.leavers.join(&other.leavers); // functions may be others there
            catalog.tell_statements.join(&other.tell_statements);
            catalog.tell_channels.join(&other.tell_channels);
            catalog.tells_sequences |= other.tells_sequences;
            catalog.fires_events |= other.fires_events;
            catalog.restless.extend(other.restless.iter().cloned());
        }
        if catalog.tells_sequences {
            self.tell_sequences();
        }
        *read_at = Some(started);
        let old = self.schema.load_full();
        catalog.generation = old.as_ref().map_or(1, |s| s.catalog.generation);
        if let Some(old) = old {
            if *old.catalog == catalog && old.drift == drift {
                return Ok(old);
            }
            catalog.generation += 1;
        }
        let map = self.typed_map(&catalog)?;
        for d in &drift {
            tracing::warn!(database = %self.config.name, object = %d.object, shard = %d.shard, problem = %d.problem,
                "shards differ");
        }
        let schema = Arc::new(Schema { catalog: Arc::new(catalog), map, drift });
        self.schema.store(Some(schema.clone()));
        self.schema_version.fetch_add(1, Release);
        self.schema_changed.notify_waiters();
        Ok(schema)
    }

    /// Whether the catalogs were read so lately that reading them again for a missing table would only be load.
    #[must_use]
    pub fn is_schema_fresh(&self) -> bool {
        self.schema_lock.try_lock().is_ok_and(|read_at| read_at.is_some_and(|at| at.elapsed() < FRESH))
    }

    /// The schema in force, waiting for the first one.
    ///
    /// # Errors
    /// [`ClusterError::NoCatalog`] if it has not come within the control account's probe timeout;
    /// [`ClusterError::NoDatabase`] as soon as a server says that there is no such database.
    pub async fn wait_schema(&self) -> Result<Arc<Schema>, ClusterError> {
        let changed = self.schema_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(schema) = self.schema() {
            return Ok(schema);
        }
        let limit = tokio::time::sleep(self.config.control.probe_timeout);
        tokio::select! {
            () = changed => {}
            () = self.missing() => {
                return Err(ClusterError::NoDatabase { database: self.server_database.clone() });
            }
            () = limit => {}
        }
        self.schema().ok_or_else(|| self.no_catalog())
    }

    /// Waits until a server of the default shard has said that it has no such database.
    async fn missing(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let said = |s: &Arc<ServerState>| {
            s.known.lock().last_error.as_ref().is_some_and(|e| e.ends_with(NO_SUCH_DATABASE))
        };
        let default = self.config.map.default_shard.index();
        while !self.shards.get(default).into_iter().flatten().any(said) {
            tick.tick().await;
        }
    }

    fn no_catalog(&self) -> ClusterError {
        let default = self.config.map.default_shard;
        let servers = self.shards.get(default.index()).into_iter().flatten();
        let said = servers.filter_map(|s| {
            let known = s.known.lock();
            known.last_error.as_ref().map(|e| format!("{}: {e}", s.config.address()))
        });
        let detail: Vec<String> = said.collect();
        ClusterError::NoCatalog {
            database: self.server_database.clone(),
            detail: (!detail.is_empty()).then(|| detail.join("; ")),
        }
    }

    fn typed_map(&self, catalog: &Catalog) -> Result<Arc<crate::shard::Map>, ClusterError> {
        let mut types = HashMap::new();
        for (table, placement) in &self.config.map.tables {
            let Placement::Sharded(keys) = placement else { continue };
            let Some(relation) = catalog.relations.get(&(table.schema.clone(), table.name.clone())) else {
                continue;
            };
            for key in keys {
                let kind = relation.column(&key.column).and_then(|c| KeyType::of_oid(c.type_oid));
                if let Some(kind) = kind {
                    types.insert((table.clone(), key.column.clone()), kind);
                }
            }
        }
        let typed = self.config.map.with_key_types(&types).map_err(|e| ClusterError::NoCatalog {
            database: self.server_database.clone(),
            detail: Some(e.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        })?;
        Ok(Arc::new(typed))
    }

    /// From the primary if it answers, else from any server of the shard.
    async fn read_shard(&self, shard: ShardId) -> Result<Catalog, ClusterError> {
        let servers = self.shards.get(shard.index()).into_iter().flatten();
        let pools = self.control.get(shard.index()).into_iter().flatten();
        let mut order: Vec<_> = servers.zip(pools).collect();
        order.sort_by_key(|(s, _)| (!s.is_up(), s.role().unwrap_or(s.config.role) == Role::Replica));
        let limit = self.config.control.probe_timeout * 4;
        for (server, pool) in order {
            match tokio::time::timeout(limit, read(pool)).await {
                Ok(Ok(catalog)) => return Ok(catalog),
                Ok(Err(error)) => {
                    tracing::debug!(server = %server.config.address(), %error, "cannot read catalogs");
                    let mut known = server.known.lock();
                    known.last_error.get_or_insert_with(|| error.to_string());
                }
                Err(_) => {
                    tracing::debug!(server = %server.config.address(), "reading catalogs took too long")
                }
            }
        }
        Err(self.no_catalog())
    }

    /// Where shards differ in what must be the same: sharded and reference tables, and keys' types.
    fn drift(&self, default: ShardId, catalog: &Catalog, others: &[(ShardId, Catalog)]) -> Vec<Drift> {
        let mut drift = Vec::new();
        for (table, placement) in &self.config.map.tables {
            let key = (table.schema.clone(), table.name.clone());
            let add = |shard: ShardId, problem: String| Drift {
                object: table.to_string(),
                shard: self.shard_name(shard),
                problem,
            };
            match placement {
                Placement::Single(home) => {
                    let there = if *home == default {
                        Some(catalog)
                    } else {
                        others.iter().find(|(id, _)| id == home).map(|(_, c)| c)
                    };
                    if there.is_some_and(|c| !c.relations.contains_key(&key)) {
                        drift.push(add(*home, "the table does not exist".into()));
                    }
                }
                Placement::Sharded(_) | Placement::Reference => {
                    let Some(base) = catalog.relations.get(&key) else {
                        drift.push(add(default, "the table does not exist".into()));
                        continue;
                    };
                    for (id, other) in others {
                        match other.relations.get(&key) {
                            None => drift.push(add(*id, "the table does not exist".into())),
                            Some(relation) => {
                                drift.extend(differences(base, relation).into_iter().map(|p| add(*id, p)));
                            }
                        }
                    }
                    drift.extend(key_problems(table, placement, base).into_iter().map(|p| add(default, p)));
                }
            }
        }
        drift
    }
}

fn differences(base: &Relation, other: &Relation) -> Vec<String> {
    let mut found = Vec::new();
    let names = |r: &Relation| r.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    if names(base) != names(other) {
        found.push(format!(
            "columns are ({}) instead of ({})",
            names(other).join(", "),
            names(base).join(", ")
        ));
    }
    for column in &base.columns {
        let Some(twin) = other.column(&column.name) else { continue };
        if twin.type_name != column.type_name {
            found.push(format!(
                "column {} is {} instead of {}",
                column.name, twin.type_name, column.type_name
            ));
        }
        if twin.not_null != column.not_null {
            found.push(format!("column {} differs in NOT NULL", column.name));
        }
        if twin.collation != column.collation {
            found.push(format!("column {} has another collation", column.name));
        }
    }
    let sets = |r: &Relation| r.unique.iter().cloned().collect::<HashSet<_>>();
    if sets(base) != sets(other) {
        found.push("unique constraints differ".into());
    }
    found
}

fn key_problems(table: &TableName, placement: &Placement, relation: &Relation) -> Vec<String> {
    let Placement::Sharded(keys) = placement else { return Vec::new() };
    let mut found = Vec::new();
    for key in keys {
        match relation.column(&key.column) {
            None => found.push(format!("sharding key {} is no column of {table}", key.column)),
            Some(column) if KeyType::of_oid(column.type_oid).is_none() => found.push(format!(
                "sharding key {} has type {}; supported are {}",
                key.column,
                column.type_name,
                KeyType::SUPPORTED
            )),
            Some(column) if column.collation.as_ref().is_some_and(|c| !c.deterministic) => {
                found.push(format!(
                    "sharding key {} has a nondeterministic collation, which cannot be hashed",
                    key.column
                ))
            }
            Some(_) => {}
        }
    }
    found
}

async fn read(pool: &ControlPool) -> Result<Catalog, ControlError> {
    let head = pool.query_one(HEAD).await?;
    let version: i32 = head.try_get(0)?;
    let path: String = head.try_get(2)?;
    let mut catalog = Catalog {
        server_version_num: version.unsigned_abs(),
        encoding: head.try_get(1)?,
        search_path: path.lines().map(str::to_owned).collect(),
        fires_events: head.try_get(3)?,
        ..Catalog::default()
    };
    for row in pool.query(RELATIONS).await? {
        let relation = Relation {
            kind: relation_kind(row.try_get(2)?),
            columns: Vec::new(),
            unique: Vec::new(),
            reads: Vec::new(),
            unlogged: row.try_get(4)?,
            has_triggers: row.try_get(3)?,
        };
        catalog.relations.insert(name(&row, 0)?, relation);
    }
    for row in pool.query(COLUMNS).await? {
        if let Some(relation) = catalog.relations.get_mut(&name(&row, 0)?) {
            relation.columns.push(column(&row)?);
        }
    }
    for row in pool.query(UNIQUES).await? {
        let columns: Option<String> = row.try_get(2)?;
        if let (Some(relation), Some(columns)) = (catalog.relations.get_mut(&name(&row, 0)?), columns) {
            relation.unique.push(columns.lines().map(str::to_owned).collect());
        }
    }
    catalog.relations.values_mut().for_each(|r| r.unique.sort());
    let mut reads: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
    for row in pool.query(VIEW_READS).await? {
        reads.entry(name(&row, 0)?).or_default().push(name(&row, 2)?);
    }
    for (view, mut tables) in reads {
        tables.sort();
        let unlogged = tables.iter().any(|t| catalog.relations.get(t).is_some_and(|r| r.unlogged));
        if let Some(relation) = catalog.relations.get_mut(&view) {
            relation.reads = tables;
            relation.unlogged |= unlogged;
        }
    }
    super::code::read(pool, &mut catalog).await?;
    Ok(catalog)
}

fn name(row: &Row, at: usize) -> Result<Name, ControlError> {
    Ok((row.try_get(at)?, row.try_get(at + 1)?))
}

fn relation_kind(kind: &str) -> RelationKind {
    match kind {
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::Foreign,
        "S" => RelationKind::Sequence,
        _ => RelationKind::Table,
    }
}

fn column(row: &Row) -> Result<Column, ControlError> {
    let default: Option<String> = row.try_get(6)?;
    let identity: bool = row.try_get(7)?;
    let collation: Option<String> = row.try_get(9)?;
    let deterministic: bool = row.try_get(10)?;
    Ok(Column {
        name: row.try_get(2)?,
        type_oid: row.try_get(3)?,
        type_name: row.try_get(4)?,
        not_null: row.try_get(5)?,
        is_serial: identity || default.as_ref().is_some_and(|d| d.starts_with("nextval(")),
        default,
        is_generated: row.try_get(8)?,
        collation: collation.map(|name| Collation { name, deterministic }),
    })
}
