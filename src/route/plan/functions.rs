//! What calling a function by its name means for routing.
//! Must not know syntax, tables or keys.

use super::survey::Call;
use crate::catalog::{
    Catalog, Function, FunctionKind, HARMLESS, Volatility, function_of_server, leaves_by_name,
};
use crate::route::{Access, Asks, Pin};

/// The function behind the view `pg_prepared_statements`.
pub(super) const PREPARED: &str = "pg_prepared_statement";

/// What a function asks of the server that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect {
    /// Where it may run.
    pub(super) access: Access,
    /// What it leaves behind in the session.
    pub(super) pin: Option<Pin>,
    /// What it tells of the session.
    pub(super) asks: Asks,
    /// Its answer depends on the transaction it runs in.
    pub(super) binds: bool,
    /// It acts on one cluster's own state (a sequence, a lock, a notification): always the default shard's where
    /// no table says otherwise.
    pub(super) homed: bool,
}

/// Whether every shard gives the same answer, so that a query that calls it can be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// The same everywhere.
    Same,
    /// Any answer is right, for each row anew; but a subquery that is computed once must not be computed per shard.
    AnyPerRow,
    /// An aggregate or window function: it needs all rows.
    AllRows,
    /// Each shard has its own answer.
    Differs,
}

/// Forms of SQL that the parser reports as functions but that are not in `pg_proc`.
const SYNTAX: &[&str] = &[
    "array",
    "cast",
    "coalesce",
    "current_catalog",
    "current_role",
    "current_schema",
    "current_user",
    "exists",
    "greatest",
    "grouping",
    "least",
    "nullif",
    "row",
    "session_user",
    "unnest",
    "user",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
];

/// Words that PostgreSQL turns into a call of now() or the like.
const CLOCK_WORDS: &[&str] =
    &["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];

/// Of those that are harmless, the ones of which any answer is right.
const ANY_ANSWER: &[&str] = &[
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "random",
    "random_normal",
    "timeofday",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
];

/// Functions whose answer belongs to the transaction or the server process.
const OF_TRANSACTION: &[&str] = &[
    "age",
    "now",
    "pg_backend_pid",
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_export_snapshot",
    "statement_timestamp",
    "transaction_timestamp",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
];

/// Functions that are stable, but whose answer is the same on all shards: it depends on the session's settings,
/// which are the same everywhere, or on their arguments' output functions.
const SAME_EVERYWHERE: &[&str] = &[
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_user",
    "date",
    "date_add",
    "date_bin",
    "date_part",
    "date_subtract",
    "date_trunc",
    "extract",
    "format",
    "generate_series",
    "interval",
    "json_array",
    "json_build_array",
    "json_build_object",
    "json_object",
    "json_populate_record",
    "json_populate_recordset",
    "json_to_record",
    "json_to_recordset",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_path_exists_tz",
    "jsonb_path_match_tz",
    "jsonb_path_query_array_tz",
    "jsonb_path_query_first_tz",
    "jsonb_path_query_tz",
    "jsonb_populate_record",
    "jsonb_populate_recordset",
    "jsonb_to_record",
    "jsonb_to_recordset",
    "length",
    "make_timestamptz",
    "overlaps",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "session_user",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timezone",
    "to_ascii",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "phraseto_tsquery",
    "plainto_tsquery",
    "websearch_to_tsquery",
    "ts_headline",
];

/// What a call asks of a server.
pub(super) fn effect(call: &Call, catalog: &Catalog) -> Effect {
    let name = call.name.as_str();
    let none = Effect { access: Access::Read, pin: None, asks: Asks::default(), binds: false, homed: false };
    let primary = Effect { access: Access::Primary, ..none };
    if CLOCK_WORDS.contains(&name) {
        return Effect { binds: true, ..none };
    }
    if SYNTAX.contains(&name) {
        return none;
    }
    let Some(function) = catalog.functions.get(name) else {
        return Effect { access: Access::Write, pin: Some(Pin::Unseen), homed: true, ..none };
    };
    if is_theirs(function) {
        let pin = catalog.leavers.function(name).map(Pin::from);
        let prepared = catalog.tell_statements.function(name).is_some();
        let channels = catalog.tell_channels.function(name).is_some();
        return Effect {
            pin,
            asks: Asks { prepared, channels, ..Asks::default() },
            ..by_volatility(function)
        };
    }
    match name {
        "nextval" | "setval" => Effect { access: Access::Write, homed: true, ..none },
        "currval" | "lastval" => {
            Effect { asks: Asks { sequence: true, undrawn: true, ..Asks::default() }, ..primary }
        }
        "set_config" if call.third_is_true => Effect { binds: true, ..primary },
        // The server is asked afterwards what was set.
        "set_config" if call.first_is_text => Effect { pin: Some(Pin::Unseen), ..primary },
        "set_config" => Effect { pin: Some(Pin::SetConfig), ..primary },
        // All shards are listened to: it may run wherever its transaction is.
        "pg_notify" => {
            let asks = Asks { notifies: true, ..Asks::default() };
            Effect { access: Access::Write, binds: true, asks, ..none }
        }
        "pg_listening_channels" => {
            Effect { asks: Asks { channels: true, ..Asks::default() }, homed: true, ..primary }
        }
        PREPARED => Effect { asks: Asks { prepared: true, ..Asks::default() }, homed: true, ..primary },
        _ if name.starts_with("pg_advisory_xact_") || name.starts_with("pg_try_advisory_xact_") => {
            Effect { binds: true, homed: true, ..primary }
        }
        _ if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => {
            Effect { pin: Some(Pin::AdvisoryLock), homed: true, ..primary }
        }
        "pg_terminate_backend" | "pg_cancel_backend" => {
            Effect { asks: Asks { process: true, ..Asks::default() }, ..by_volatility(function) }
        }
        // They may assign a transaction id, which a replica cannot.
        "txid_current" | "pg_current_xact_id" => Effect { binds: true, ..primary },
        // A herd as one server is never in recovery, whichever replica would have answered.
        "current_setting" => primary,
        _ if function_of_server(name) && function.volatility != Volatility::Volatile => {
            Effect { homed: true, ..primary }
        }
        _ if HARMLESS.contains(&name) => none,
        _ => {
            let pin = leaves_by_name(name).map(Pin::from);
            Effect { pin, binds: OF_TRANSACTION.contains(&name), ..by_volatility(function) }
        }
    }
}

/// Whether a call takes or gives back an advisory lock.
pub(super) fn locks(name: &str, catalog: &Catalog) -> bool {
    (name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_"))
        && catalog.functions.get(name).is_some_and(|function| !is_theirs(function))
}

/// What `row.name` asks of a server if `name` is a function of users that does more than compute.
pub(super) fn effect_of_field(name: &str, catalog: &Catalog) -> Option<Effect> {
    let function = catalog.functions.get(name).filter(|function| is_theirs(function))?;
    let call = || Call { name: name.to_owned(), first_is_text: false, third_is_true: false, in_from: false };
    (function.volatility == Volatility::Volatile || catalog.leavers.function(name).is_some())
        .then(|| effect(&call(), catalog))
}

fn by_volatility(function: &Function) -> Effect {
    let writes = function.volatility == Volatility::Volatile;
    let access = if writes { Access::Write } else { Access::Read };
    Effect { access, pin: None, asks: Asks::default(), binds: false, homed: writes }
}

/// Whether the name may mean a function whose body users wrote, whatever else has it.
fn is_theirs(function: &Function) -> bool {
    function.is_user && !function.source.is_empty()
}

/// Whether a query that calls `name` can be spread over shards.
pub(super) fn spread(name: &str, catalog: &Catalog) -> Spread {
    if CLOCK_WORDS.contains(&name) {
        return Spread::Differs;
    }
    if SYNTAX.contains(&name) {
        return if name == "grouping" { Spread::AllRows } else { Spread::Same };
    }
    let Some(function) = catalog.functions.get(name) else { return Spread::Differs };
    match function.kind {
        FunctionKind::Aggregate | FunctionKind::Window => return Spread::AllRows,
        FunctionKind::Procedure => return Spread::Differs,
        FunctionKind::Plain => {}
    }
    if is_theirs(function) {
        if catalog.leavers.function(name).is_some() {
            return Spread::Differs;
        }
        return if function.volatility == Volatility::Immutable { Spread::Same } else { Spread::Differs };
    }
    if ANY_ANSWER.contains(&name) {
        return Spread::AnyPerRow;
    }
    let same = function.volatility == Volatility::Immutable || SAME_EVERYWHERE.contains(&name);
    if same && !OF_TRANSACTION.contains(&name) { Spread::Same } else { Spread::Differs }
}

/// Whether a call of `name` is a plain function's, as far as the catalog tells; an unknown one may be anything.
pub(super) fn is_plain(name: &str, catalog: &Catalog) -> bool {
    CLOCK_WORDS.contains(&name)
        || SYNTAX.contains(&name) && name != "grouping"
        || catalog
            .functions
            .get(name)
            .is_some_and(|f| matches!(f.kind, FunctionKind::Plain | FunctionKind::Procedure))
}

/// Words that date and time input turns into the present moment.
pub(super) fn names_the_present(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| ["now", "today", "tomorrow", "yesterday"].iter().any(|w| word.eq_ignore_ascii_case(w)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn catalog() -> Catalog {
        let function = |volatility, kind, source: &str| Function {
            volatility,
            kind,
            returns_set: false,
            is_user: !source.is_empty(),
            source: source.to_owned(),
        };
        let functions = [
            ("lower", Volatility::Immutable, FunctionKind::Plain, ""),
            ("now", Volatility::Stable, FunctionKind::Plain, ""),
            ("random", Volatility::Volatile, FunctionKind::Plain, ""),
            ("nextval", Volatility::Volatile, FunctionKind::Plain, ""),
            ("lastval", Volatility::Volatile, FunctionKind::Plain, ""),
            ("pg_advisory_lock", Volatility::Volatile, FunctionKind::Plain, ""),
            ("pg_advisory_xact_lock", Volatility::Volatile, FunctionKind::Plain, ""),
            ("txid_current", Volatility::Stable, FunctionKind::Plain, ""),
            ("count", Volatility::Immutable, FunctionKind::Aggregate, ""),
            ("version", Volatility::Stable, FunctionKind::Plain, ""),
            ("to_char", Volatility::Stable, FunctionKind::Plain, ""),
            ("set_config", Volatility::Volatile, FunctionKind::Plain, ""),
            ("mine", Volatility::Volatile, FunctionKind::Plain, "insert into t values (1)"),
            ("timeofday", Volatility::Volatile, FunctionKind::Plain, "a user's own of that name"),
        ];
        let functions = functions.map(|(name, v, k, s)| (name.to_owned(), function(v, k, s)));
        Catalog { functions: HashMap::from(functions), ..Catalog::default() }
    }

    fn call(name: &str) -> Call {
        Call { name: name.to_owned(), first_is_text: false, third_is_true: false, in_from: false }
    }

    #[test]
    fn functions_go_where_they_may() {
        use Access::{Primary, Read, Write};
        let catalog = catalog();
        for (name, access, pin, binds, spread_to) in [
            ("lower", Read, None, false, Spread::Same),
            ("coalesce", Read, None, false, Spread::Same),
            ("now", Read, None, true, Spread::Differs),
            ("current_date", Read, None, true, Spread::Differs),
            ("random", Read, None, false, Spread::AnyPerRow),
            ("nextval", Write, None, false, Spread::Differs),
            ("lastval", Primary, None, false, Spread::Differs),
            ("pg_advisory_lock", Primary, Some(Pin::AdvisoryLock), false, Spread::Differs),
            ("pg_advisory_xact_lock", Primary, None, true, Spread::Differs),
            ("txid_current", Primary, None, true, Spread::Differs),
            ("set_config", Primary, Some(Pin::SetConfig), false, Spread::Differs),
            ("count", Read, None, false, Spread::AllRows),
            ("version", Read, None, false, Spread::Differs),
            ("to_char", Read, None, false, Spread::Same),
            ("mine", Write, None, false, Spread::Differs),
            ("timeofday", Write, None, false, Spread::Differs),
            ("never_heard_of", Write, Some(Pin::Unseen), false, Spread::Differs),
        ] {
            let got = effect(&call(name), &catalog);
            assert_eq!((got.access, got.pin, got.binds), (access, pin, binds), "{name}");
            assert_eq!(spread(name, &catalog), spread_to, "{name}");
        }
        let local = Call { third_is_true: true, ..call("set_config") };
        assert_eq!(effect(&local, &catalog).pin, None);
        let named = Call { first_is_text: true, ..call("set_config") };
        assert_eq!(effect(&named, &catalog).pin, Some(Pin::Unseen));
    }

    #[test]
    fn the_present_is_found_in_whatever_words_stand_round_it() {
        for (text, want) in [("now", true), (" Today 12:00", true), ("nowhere", false), ("2024-01-01", false)]
        {
            assert_eq!(names_the_present(text), want, "{text}");
        }
    }
}
