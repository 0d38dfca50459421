//! Reading a database's functions, and what runs them unasked: triggers, rules, defaults, constraints, policies.
//! Must not know what is done about those that leave something in a session.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::expressions::{self, Own};
use crate::catalog::{
    Catalog, Code, Function, FunctionKind, Leaves, RelationKind, Restless, Runs, Search, Volatility,
};
use crate::pool::{ControlError, ControlPool};

/// What tells of prepared statements.
const STATEMENTS: &[&str] = &["pg_prepared_statements", "pg_prepared_statement"];
/// What tells of channels listened to.
const CHANNELS: &[&str] = &["pg_listening_channels"];

/// Bodies in SQL that were parsed when the function was made exist since PostgreSQL 14.
const PARSED_BODIES: u32 = 140_000;

fn functions(version: u32) -> String {
    let parsed = if version >= PARSED_BODIES { "pg_catalog.pg_get_function_sqlbody(p.oid)" } else { "NULL" };
    format!(
        "SELECT p.proname::text, p.provolatile::text, p.prokind::text, p.proretset, u.theirs, \
         CASE WHEN u.theirs THEN coalesce(nullif(p.prosrc, ''), {parsed}, '') ELSE '' END, \
         p.oid, l.lanname::text, \
         CASE WHEN u.theirs THEN (SELECT e.extname::text FROM pg_catalog.pg_depend d \
              JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
              WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
                AND d.refclassid = 'pg_catalog.pg_extension'::regclass LIMIT 1) END \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang, \
         LATERAL (SELECT n.nspname NOT IN ('pg_catalog','information_schema') AS theirs) u ORDER BY p.oid"
    )
}

/// What runs functions `f`, or reads relations `r` or writes relations `w` on the way: a letter for what it is, its OID
/// and its bare name.
const REACHED: &str = "WITH f AS (SELECT pg_catalog.unnest('{F}'::oid[]) AS oid), \
     r AS (SELECT pg_catalog.unnest('{R}'::oid[]) AS oid), w AS (SELECT pg_catalog.unnest('{W}'::oid[]) AS oid), \
     d AS (SELECT DISTINCT p.classid, p.objid, p.refclassid = 'pg_catalog.pg_class'::regclass AS by_relation, \
              p.refobjid IN (SELECT oid FROM r) AS by_read \
           FROM pg_catalog.pg_depend p WHERE \
              p.refclassid = 'pg_catalog.pg_proc'::regclass AND p.refobjid IN (SELECT oid FROM f) \
              OR p.refclassid = 'pg_catalog.pg_class'::regclass \
                 AND p.refobjid IN (SELECT oid FROM r UNION SELECT oid FROM w)), \
     rel(runs, oid) AS ( \
       SELECT 'w', t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.tgfoid IN (SELECT oid FROM f) \
       UNION SELECT CASE WHEN x.ev_type = '1' AND (d.by_read OR NOT d.by_relation) THEN 'r' ELSE 'w' END, x.ev_class \
         FROM d JOIN pg_catalog.pg_rewrite x ON x.oid = d.objid \
         WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass \
       UNION SELECT CASE WHEN a.attgenerated = 'v' THEN 'r' ELSE 'w' END, x.adrelid \
         FROM d JOIN pg_catalog.pg_attrdef x ON x.oid = d.objid \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum \
         WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND NOT d.by_relation \
       UNION SELECT 'w', d.objid FROM d JOIN pg_catalog.pg_class c ON c.oid = d.objid \
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND c.relkind IN ('r','p','f') AND NOT d.by_relation \
       UNION SELECT 'w', x.conrelid FROM d JOIN pg_catalog.pg_constraint x ON x.oid = d.objid \
         WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND NOT d.by_relation AND x.conrelid <> 0 \
       UNION SELECT 'r', x.polrelid FROM d JOIN pg_catalog.pg_policy x ON x.oid = d.objid \
         WHERE d.classid = 'pg_catalog.pg_policy'::regclass \
       UNION SELECT 'w', x.indrelid FROM d JOIN pg_catalog.pg_index x ON x.indexrelid = d.objid \
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND NOT d.by_relation \
       UNION SELECT 'w', x.confrelid FROM pg_catalog.pg_constraint x \
         WHERE x.contype = 'f' AND x.conrelid IN (SELECT oid FROM w UNION SELECT oid FROM r) \
       UNION SELECT 'w', x.inhparent FROM pg_catalog.pg_inherits x WHERE x.inhrelid IN (SELECT oid FROM w)) \
     SELECT rel.runs, c.oid, c.relname::text FROM rel JOIN pg_catalog.pg_class c ON c.oid = rel.oid \
     UNION SELECT 'f', p.oid, p.proname::text FROM d JOIN pg_catalog.pg_proc p ON p.oid = d.objid \
       WHERE d.classid = 'pg_catalog.pg_proc'::regclass \
     UNION SELECT 'a', 0::oid, '' FROM d WHERE NOT d.by_relation AND ( \
       d.classid IN ('pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_cast'::regclass, \
         'pg_catalog.pg_type'::regclass, 'pg_catalog.pg_amproc'::regclass) \
       OR d.classid = 'pg_catalog.pg_constraint'::regclass \
         AND EXISTS (SELECT FROM pg_catalog.pg_constraint x WHERE x.oid = d.objid AND x.contypid <> 0)) \
     UNION SELECT 'e', 0::oid, '' FROM pg_catalog.pg_event_trigger e \
       WHERE e.evtenabled <> 'D' AND e.evtfoid IN (SELECT oid FROM f)";

/// Reads all functions, and finds those that may leave something in a session, and what else they do.
pub(super) async fn read(pool: &ControlPool, catalog: &mut Catalog) -> Result<(), ControlError> {
    let (mut all, mut codes, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for row in pool.query(&functions(catalog.server_version_num)).await? {
        let function = function(&row)?;
        let (oid, name): (u32, String) = (row.try_get(6)?, row.try_get(0)?);
        if function.is_user {
            codes.push(Code {
                oid,
                name: name.clone(),
                language: row.try_get(7)?,
                volatility: function.volatility,
                extension: row.try_get(8)?,
                source: function.source.clone(),
            });
        } else {
            own.push(Own { oid, name: name.clone(), volatility: function.volatility });
        }
        all.push((oid, name, function));
    }
    let sequences = catalog.relations.iter().filter(|(_, r)| r.kind == RelationKind::Sequence);
    let volatile = own.iter().filter(|f| f.is_restless() && f.volatility == Volatility::Volatile);
    let names = sequences.map(|((_, name), _)| name.to_lowercase()).chain(volatile.map(|f| f.name.clone()));
    let mut restless = Restless::new(&codes, names);
    let told = loop {
        let told = expressions::read(pool, &own, restless.functions()).await?;
        if !restless.relations(told.restless.iter().cloned()) {
            break told;
        }
    };
    for (oid, name, mut function) in all {
        if restless.functions().contains(&oid) {
            function.volatility = Volatility::Volatile;
        }
        add(&mut catalog.functions, name, function);
    }
    catalog.restless = told.restless;
    catalog.tells_sequences = told.sequences || codes.iter().any(Code::tells_sequences);
    for (names, reading, found) in [
        (STATEMENTS, told.statements, &mut catalog.tell_statements),
        (CHANNELS, told.channels, &mut catalog.tell_channels),
    ] {
        if let Some(mut search) = Search::naming(&codes, names, reading) {
            while search.reached(reached(pool, &search).await?) {}
            search.end(found);
        }
    }
    for level in Leaves::ALL {
        let Some(mut search) = Search::new(&codes, &told.leaving, level) else { break };
        while search.reached(reached(pool, &search).await?) {}
        search.end(&mut catalog.leavers);
    }
    Ok(())
}

async fn reached(pool: &ControlPool, search: &Search<'_>) -> Result<Vec<(Runs, u32, String)>, ControlError> {
    let list = |oids: &[u32]| {
        let texts: Vec<String> = oids.iter().map(u32::to_string).collect();
        format!("{{{}}}", texts.join(","))
    };
    let (read, written) = search.relations();
    let sql = REACHED
        .replace("{F}", &list(&search.functions()))
        .replace("{R}", &list(&read))
        .replace("{W}", &list(&written));
    let mut found = Vec::new();
    for row in pool.query(&sql).await? {
        found.push((runs(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?));
    }
    Ok(found)
}

/// What a letter stands for.
pub(super) fn runs(letter: &str) -> Runs {
    match letter {
        "f" => Runs::Function,
        "r" => Runs::Reading,
        "w" => Runs::Writing,
        "e" => Runs::Event,
        _ => Runs::Anything,
    }
}

fn function(row: &Row) -> Result<Function, ControlError> {
    let volatility: &str = row.try_get(1)?;
    let kind: &str = row.try_get(2)?;
    Ok(Function {
        volatility: match volatility {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        },
        kind: match kind {
            "p" => FunctionKind::Procedure,
            "a" => FunctionKind::Aggregate,
            "w" => FunctionKind::Window,
            _ => FunctionKind::Plain,
        },
        returns_set: row.try_get(3)?,
        is_user: row.try_get(4)?,
        source: row.try_get(5)?,
    })
}

fn add(functions: &mut HashMap<String, Function>, name: String, one: Function) {
    match functions.entry(name) {
        std::collections::hash_map::Entry::Vacant(slot) => {
            slot.insert(one);
        }
        std::collections::hash_map::Entry::Occupied(mut slot) => {
            let all = slot.get_mut();
            all.volatility = all.volatility.max(one.volatility);
            all.kind = all.kind.max(one.kind);
            all.returns_set |= one.returns_set;
            all.is_user |= one.is_user;
            if !one.source.is_empty() {
                all.source.push('\n');
                all.source.push_str(&one.source);
            }
        }
    }
}
