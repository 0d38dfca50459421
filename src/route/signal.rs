//! `SELECT pg_terminate_backend(n)` and `pg_cancel_backend(n)`, where such a call stands alone: which process it means.
//! Must not know which there are. A call among other things is not understood here: servers know their own processes.

use super::filter::quoted;
use super::lex::TokenKind;
use super::words::Words;
use super::{Env, Param};

/// OID of `int4`, the type of a process id.
const INT4: u32 = 23;

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Whether the session is to end; else what it runs.
    pub ends: bool,
    /// The process id.
    pub process: u32,
    /// A text with the same parameters and columns that says that it was done.
    pub instead: String,
}

enum Process {
    Number(u32),
    Param(usize),
}

/// The call of a SELECT that does nothing else.
pub(super) fn signal(statement: &[u8], params: &[Param<'_>], env: &Env) -> Option<Signal> {
    let mut words = Words::new(statement, env.nonstandard_strings);
    let w = &mut words;
    w.eat("select").then_some(())?;
    let name = match w.qualified_name()?.as_slice() {
        [name] => name.clone(),
        [schema, name] if schema == "pg_catalog" => name.clone(),
        _ => return None,
    };
    let ends = match name.as_str() {
        "pg_terminate_backend" => true,
        "pg_cancel_backend" => false,
        _ => return None,
    };
    w.eat_symbol(b'(').then_some(())?;
    let process = argument(w)?;
    w.eat_symbol(b')').then_some(())?;
    let column = if w.eat("as") || !w.is_over() { w.name()? } else { name };
    w.is_over().then_some(())?;
    let column = quoted(&column);
    Some(match process {
        Process::Number(process) => Signal { ends, process, instead: format!("SELECT true AS {column}") },
        Process::Param(at) => {
            let param = params.get(at).filter(|p| matches!(p.type_oid, 0 | INT4))?;
            let process = match (param.value?, param.binary) {
                (bytes, true) => u32::from_be_bytes(bytes.try_into().ok()?),
                (text, false) => std::str::from_utf8(text).ok()?.trim().parse().ok()?,
            };
            let instead = format!("SELECT ${}::int4 IS NOT NULL AS {column}", at + 1);
            Signal { ends, process, instead }
        }
    })
}

fn argument(w: &mut Words<'_>) -> Option<Process> {
    let argument = match w.peek().filter(|token| token.kind == TokenKind::Param) {
        Some(token) => {
            let digits = std::str::from_utf8(token.bytes(w.text())).ok()?.trim_start_matches('$');
            w.bump();
            Process::Param(digits.parse::<usize>().ok()?.checked_sub(1)?)
        }
        None => Process::Number(w.number()?.parse().ok()?),
    };
    while w.eat_operator("::") {
        w.eat_any(&["int", "int4", "integer"])?;
    }
    Some(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_stands_alone_is_understood_and_no_other() {
        let text = |value: &'static [u8], type_oid| Param { value: Some(value), binary: false, type_oid };
        let of = |sql: &str, params: &[Param<'_>]| {
            let found = signal(sql.as_bytes(), params, &Env::default());
            found.map(|s| (s.ends, s.process, s.instead))
        };
        let done = "SELECT true AS \"pg_terminate_backend\"".to_owned();
        assert_eq!(of("select pg_terminate_backend(8388609)", &[]), Some((true, 8_388_609, done)));
        let done = "SELECT true AS \"Done\"".to_owned();
        for sql in [
            "SELECT pg_catalog.pg_cancel_backend( 7::int ) AS \"Done\" ;",
            "select pg_cancel_backend(7) \"Done\"",
        ] {
            assert_eq!(of(sql, &[]), Some((false, 7, done.clone())), "{sql}");
        }
        let done = "SELECT $1::int4 IS NOT NULL AS \"pg_cancel_backend\"".to_owned();
        let binary = Param { value: Some(&[0, 0x80, 0, 1]), binary: true, type_oid: 23 };
        for param in [text(b"8388609", 0), text(b" 8388609", 23), binary] {
            assert_eq!(of("select pg_cancel_backend($1)", &[param]), Some((false, 8_388_609, done.clone())));
        }
        for (sql, param) in [
            ("select pg_cancel_backend($1)", text(b"7", 20)), // there is no such function
            ("select pg_cancel_backend($2)", text(b"7", 0)),
            ("select pg_cancel_backend($1)", text(b"x", 0)),
            ("select pg_cancel_backend($1)", Param { value: None, binary: false, type_oid: 0 }),
            ("select pg_cancel_backend(-7)", text(b"7", 0)),
            ("select pg_cancel_backend(7), 1", text(b"7", 0)),
            ("select pg_cancel_backend(7) from t", text(b"7", 0)),
            ("select pg_cancel_backend(7); select 1", text(b"7", 0)),
            ("select pg_cancel_backend(7 + 1)", text(b"7", 0)),
            ("select mine.pg_cancel_backend(7)", text(b"7", 0)),
            ("select pg_cancel_backend(pid) from pg_stat_activity", text(b"7", 0)),
        ] {
            assert_eq!(of(sql, &[param]), None, "{sql}");
        }
    }
}
