//! Reading a database's functions, and what runs them unasked: triggers, rules, defaults, constraints, policies.
//! Must not know what is done about those that leave something in a session.

use std::collections::HashMap;

use tokio_postgres::Row;

use crate::catalog::{Catalog, Code, Function, FunctionKind, HARMLESS, Leaves, Runs, Search, Volatility};
use crate::pool::{ControlError, ControlPool};

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
         AND EXISTS (SELECT FROM pg_catalog.pg_constraint x WHERE x.oid = d.objid AND x.contypid <> 0))";

/// What the expressions of users' own objects do, a letter each, with the relation whose reading does it:
/// `s`, some expression calls `currval` (OID 1575) or `lastval` (2559); `p`, a relation reads `pg_prepared_statements` or
/// calls `pg_prepared_statement` (2510); `v`, it calls a volatile function, itself or through views. Nobody depends on what
/// is pinned, so the trees themselves are looked into; a user's object has an OID from 16384 on.
const TOLD: &str = "WITH RECURSIVE trees(rel, reads, tree) AS MATERIALIZED ( \
       SELECT ev_class, ev_type = '1', ev_action::text || coalesce(ev_qual::text, '') FROM pg_catalog.pg_rewrite \
         WHERE ev_class >= 16384 \
       UNION ALL SELECT polrelid, true, concat(polqual::text, polwithcheck::text) FROM pg_catalog.pg_policy \
       UNION ALL SELECT 0, false, adbin::text FROM pg_catalog.pg_attrdef WHERE adrelid >= 16384 \
       UNION ALL SELECT 0, false, conbin::text FROM pg_catalog.pg_constraint WHERE oid >= 16384 \
       UNION ALL SELECT 0, false, typdefaultbin::text FROM pg_catalog.pg_type WHERE oid >= 16384 \
       UNION ALL SELECT 0, false, tgqual::text FROM pg_catalog.pg_trigger WHERE oid >= 16384), \
     told AS (SELECT rel, tree LIKE '%:funcid 1575 %' OR tree LIKE '%:funcid 2559 %' AS sequences, \
         tree LIKE '%:funcid 2510 %' OR tree LIKE '%:relid ' || 'pg_catalog.pg_prepared_statements'::regclass::oid || ' %' \
           AS statements, \
         reads AND tree ~ (SELECT ':funcid (' || pg_catalog.string_agg(p.oid::text, '|') || ') ' \
           FROM pg_catalog.pg_proc p WHERE p.oid < 16384 AND p.provolatile = 'v' AND p.proname <> ALL ('{HARMLESS}')) \
           AS restless FROM trees), \
     by_users(classid, objid) AS (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
       JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid AND p.provolatile = 'v' AND p.proname <> ALL ('{HARMLESS}') \
       WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass \
         AND d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass)), \
     restless(oid) AS ( \
       SELECT rel FROM told WHERE restless \
       UNION SELECT x.ev_class FROM by_users u JOIN pg_catalog.pg_rewrite x ON x.oid = u.objid AND x.ev_type = '1' \
         WHERE u.classid = 'pg_catalog.pg_rewrite'::regclass \
       UNION SELECT x.polrelid FROM by_users u JOIN pg_catalog.pg_policy x ON x.oid = u.objid \
         WHERE u.classid = 'pg_catalog.pg_policy'::regclass \
       UNION SELECT x.ev_class FROM restless \
         JOIN pg_catalog.pg_class c ON c.oid = restless.oid AND c.relkind <> 'm' \
         JOIN pg_catalog.pg_depend d ON d.refobjid = c.oid \
           AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.classid = 'pg_catalog.pg_rewrite'::regclass \
         JOIN pg_catalog.pg_rewrite x ON x.oid = d.objid AND x.ev_type = '1') \
     SELECT 's', 0::oid, '' WHERE EXISTS (SELECT FROM told WHERE sequences) \
     UNION ALL SELECT 'p', c.oid, c.relname::text FROM told JOIN pg_catalog.pg_class c ON c.oid = told.rel WHERE told.statements \
     UNION ALL SELECT 'v', c.oid, c.relname::text FROM restless r JOIN pg_catalog.pg_class c ON c.oid = r.oid \
       WHERE c.relkind <> 'm'";

/// Reads all functions, and finds those that may leave something in a session.
pub(super) async fn read(pool: &ControlPool, catalog: &mut Catalog) -> Result<(), ControlError> {
    let mut codes = Vec::new();
    for row in pool.query(&functions(catalog.server_version_num)).await? {
        let function = function(&row)?;
        let name: String = row.try_get(0)?;
        if function.is_user {
            codes.push(Code {
                oid: row.try_get(6)?,
                name: name.clone(),
                language: row.try_get(7)?,
                volatility: function.volatility,
                extension: row.try_get(8)?,
                source: function.source.clone(),
            });
        }
        add(&mut catalog.functions, name, function);
    }
    catalog.tells_sequences = codes.iter().any(Code::tells_sequences);
    let mut statements = Vec::new();
    for row in pool.query(&TOLD.replace("{HARMLESS}", &format!("{{{}}}", HARMLESS.join(",")))).await? {
        let (oid, name): (u32, String) = (row.try_get(1)?, row.try_get(2)?);
        match row.try_get(0)? {
            "s" => catalog.tells_sequences = true,
            "p" => statements.push((Runs::Reading, oid, name)),
            _ => drop(catalog.restless.insert(name.to_lowercase())),
        }
    }
    if let Some(mut search) = Search::of_statements(&codes, statements) {
        while search.reached(reached(pool, &search).await?) {}
        search.end(&mut catalog.tell_statements);
    }
    for level in Leaves::ALL {
        let Some(mut search) = Search::new(&codes, level) else { break };
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
        let runs = match row.try_get(0)? {
            "f" => Runs::Function,
            "r" => Runs::Reading,
            "w" => Runs::Writing,
            _ => Runs::Anything,
        };
        found.push((runs, row.try_get(1)?, row.try_get(2)?));
    }
    Ok(found)
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
