//! What the expressions of users' own objects do that call functions, or read views, of the server's own: nobody depends
//! on those in the catalogs, so the trees themselves are looked into.
//! Must not know what is done about it.

use std::collections::HashSet;

use super::code::runs;
use crate::catalog::{
    Expression, HARMLESS, Runs, SERVER_RELATIONS, Volatility, function_of_server, leaves_by_name,
};
use crate::pool::{ControlError, ControlPool};

/// A user's object has an OID from here on. Source: PostgreSQL's `FirstNormalObjectId`.
const FIRST: u32 = 16384;

/// A letter for what is done, the relation (or function) that does it, its name, when, and the expression as SQL.
///
/// `s`, some expression calls `currval` (OID 1575) or `lastval` (2559); `p`, a relation reads `pg_prepared_statements` or
/// calls `pg_prepared_statement` (2510); `c`, it calls `pg_listening_channels` (3035); `l`, it calls a function that leaves
/// something in the session ({LEAVING}); `v`, it is not for replicas: it calls a volatile function or one that tells of
/// the server ({RESTLESS}, and users' own {FOUND}), reads what tells of it ({RELATIONS}) or a sequence, or locks
/// rows, itself or through views.
const EXPRESSIONS: &str = "WITH RECURSIVE trees(class, oid, rel, runs, tree) AS MATERIALIZED ( \
       SELECT 'r', oid, ev_class, CASE WHEN ev_type = '1' THEN 'r' ELSE 'w' END, \
         ev_action::text || coalesce(ev_qual::text, '') FROM pg_catalog.pg_rewrite WHERE ev_class >= 16384 \
       UNION ALL SELECT 'p', oid, polrelid, 'r', concat(polqual::text, polwithcheck::text) FROM pg_catalog.pg_policy \
       UNION ALL SELECT 'd', oid, adrelid, 'w', adbin::text FROM pg_catalog.pg_attrdef \
         WHERE adrelid >= 16384 AND adbin::text ~ ':funcid (1575|2559|2510|3035|{LEAVING}) ' \
       UNION ALL SELECT 'c', oid, conrelid, CASE WHEN conrelid = 0 THEN 'a' ELSE 'w' END, conbin::text \
         FROM pg_catalog.pg_constraint WHERE oid >= 16384 AND conbin IS NOT NULL \
       UNION ALL SELECT 't', oid, 0, 'a', typdefaultbin::text FROM pg_catalog.pg_type \
         WHERE oid >= 16384 AND typdefaultbin IS NOT NULL \
       UNION ALL SELECT 'g', oid, tgrelid, 'w', tgqual::text FROM pg_catalog.pg_trigger \
         WHERE oid >= 16384 AND tgqual IS NOT NULL \
       UNION ALL SELECT 'f', oid, oid, 'f', proargdefaults::text FROM pg_catalog.pg_proc \
         WHERE oid >= 16384 AND proargdefaults IS NOT NULL), \
     told AS (SELECT class, oid, rel, runs, tree LIKE '%:funcid 1575 %' OR tree LIKE '%:funcid 2559 %' AS sequences, \
         tree LIKE '%:funcid 2510 %' OR tree LIKE '%:relid ' || 'pg_catalog.pg_prepared_statements'::regclass::oid || ' %' \
           AS statements, \
         tree LIKE '%:funcid 3035 %' AS channels, tree ~ ':funcid ({LEAVING}) ' AS leaving, \
         runs = 'r' AND (tree LIKE '%:hasForUpdate true %' OR tree ~ ':funcid ({RESTLESS}) ' OR tree ~ (':relid (' \
           || (SELECT pg_catalog.string_agg(c.oid::text, '|') FROM pg_catalog.pg_class c \
               WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.oid < 16384 AND c.relkind = 'v' \
                 AND (c.relname LIKE 'pg\\_stat\\_%' OR c.relname LIKE 'pg\\_statio\\_%' OR c.relname = ANY ('{{RELATIONS}}'))) \
           || ') ')) AS restless FROM trees), \
     by_users(classid, objid) AS ( \
       SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid \
         AND (p.provolatile = 'v' AND p.proname <> ALL ('{{HARMLESS}}') OR p.oid = ANY ('{{FOUND}}')) \
       WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass \
         AND d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass) \
       UNION SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
         JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind = 'S' \
       WHERE d.refclassid = 'pg_catalog.pg_class'::regclass \
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
     SELECT 's', 0::oid, '', '', '' WHERE EXISTS (SELECT FROM told WHERE sequences) \
     UNION ALL SELECT w.letter, c.oid, c.relname::text, '', '' FROM told JOIN pg_catalog.pg_class c ON c.oid = told.rel, \
         LATERAL (SELECT 'p' WHERE told.statements UNION ALL SELECT 'c' WHERE told.channels) w(letter) \
     UNION ALL SELECT 'v', c.oid, c.relname::text, '', '' FROM restless r JOIN pg_catalog.pg_class c ON c.oid = r.oid \
       WHERE c.relkind <> 'm' \
     UNION ALL SELECT 'l', t.rel, coalesce(c.relname::text, p.proname::text, ''), t.runs, coalesce(CASE t.class \
         WHEN 'r' THEN pg_catalog.pg_get_ruledef(t.oid) \
         WHEN 'p' THEN (SELECT concat_ws(' ', pg_catalog.pg_get_expr(x.polqual, x.polrelid), \
             pg_catalog.pg_get_expr(x.polwithcheck, x.polrelid)) FROM pg_catalog.pg_policy x WHERE x.oid = t.oid) \
         WHEN 'd' THEN (SELECT pg_catalog.pg_get_expr(x.adbin, x.adrelid) FROM pg_catalog.pg_attrdef x WHERE x.oid = t.oid) \
         WHEN 'c' THEN pg_catalog.pg_get_constraintdef(t.oid) \
         WHEN 't' THEN (SELECT x.typdefault FROM pg_catalog.pg_type x WHERE x.oid = t.oid) \
         WHEN 'g' THEN pg_catalog.pg_get_triggerdef(t.oid) \
         WHEN 'f' THEN pg_catalog.pg_get_function_arguments(t.oid) END, '') \
       FROM told t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.rel AND t.class <> 'f' \
       LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.rel AND t.class = 'f' WHERE t.leaving \
     UNION ALL SELECT 'l', 0::oid, '', 'a', p.proname || '(' FROM pg_catalog.pg_operator o \
       JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode AND p.oid = ANY ('{{LEAVERS}}') WHERE o.oid >= 16384 \
     UNION ALL SELECT 'l', 0::oid, '', 'a', p.proname || '(' FROM pg_catalog.pg_cast o \
       JOIN pg_catalog.pg_proc p ON p.oid = o.castfunc AND p.oid = ANY ('{{LEAVERS}}') WHERE o.oid >= 16384 \
     UNION ALL SELECT 'l', g.aggfnoid::oid, f.proname::text, 'f', p.proname || '(' FROM pg_catalog.pg_aggregate g \
       JOIN pg_catalog.pg_proc f ON f.oid = g.aggfnoid \
       JOIN pg_catalog.pg_proc p ON p.oid IN (g.aggtransfn, g.aggfinalfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn) \
         AND p.oid = ANY ('{{LEAVERS}}') WHERE g.aggfnoid >= 16384";

/// A function of the server's own.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) volatility: Volatility,
}

impl Own {
    /// Whether it is not for replicas.
    pub(super) fn is_restless(&self) -> bool {
        let volatile = self.volatility == Volatility::Volatile && !HARMLESS.contains(&self.name.as_str());
        volatile || function_of_server(&self.name)
    }

    fn leaves(&self) -> bool {
        self.name == "set_config" || leaves_by_name(&self.name).is_some()
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Whether any asks for what was drawn from a sequence.
    pub(super) sequences: bool,
    /// Relations that read `pg_prepared_statements`.
    pub(super) statements: Vec<(Runs, u32, String)>,
    /// Relations that ask `pg_listening_channels()`.
    pub(super) channels: Vec<(Runs, u32, String)>,
    /// Names in lower case of relations that are not for replicas to read.
    pub(super) restless: HashSet<String>,
    /// Expressions that may leave something in a session.
    pub(super) leaving: Vec<Expression>,
}

/// Looks into all. `own`: the server's functions; `found`: users' own that are not for replicas although they do not say so.
pub(super) async fn read(pool: &ControlPool, own: &[Own], found: &[u32]) -> Result<Told, ControlError> {
    let list = |oids: &mut dyn Iterator<Item = u32>, by: &str| -> String {
        oids.map(|oid| oid.to_string()).collect::<Vec<_>>().join(by)
    };
    let own = || own.iter().filter(|f| f.oid < FIRST);
    let mut told = Told::default();
    let sql = EXPRESSIONS
        .replace("{HARMLESS}", &HARMLESS.join(","))
        .replace("{RELATIONS}", &SERVER_RELATIONS.join(","))
        .replace("{LEAVING}", &list(&mut own().filter(|f| f.leaves()).map(|f| f.oid), "|"))
        .replace("{LEAVERS}", &list(&mut own().filter(|f| f.leaves()).map(|f| f.oid), ","))
        .replace("{RESTLESS}", &list(&mut own().filter(|f| f.is_restless()).map(|f| f.oid), "|"))
        .replace("{FOUND}", &list(&mut found.iter().copied(), ","));
    for row in pool.query(&sql).await? {
        let (letter, oid, name): (&str, u32, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match letter {
            "s" => told.sequences = true,
            "p" => told.statements.push((Runs::Reading, oid, name)),
            "c" => told.channels.push((Runs::Reading, oid, name)),
            "l" => told.leaving.push(Expression {
                runs: runs(row.try_get(3)?),
                oid,
                name,
                source: row.try_get(4)?,
            }),
            _ => drop(told.restless.insert(name.to_lowercase())),
        }
    }
    Ok(told)
}
