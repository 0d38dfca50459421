//! Column filters of a query string, `amount=gte.10`, as conditions with bound values.
//! Must not know the rest of the query.

use super::super::error::HttpError;
use crate::catalog::Column;
use crate::route::{Fragment, quoted};
use crate::wire::SqlState;

const FORMS: &str = "Write column=op.value with eq, neq, gt, gte, lt, lte, like, ilike, in.(a,b), is.null, is.true, \
                     is.false, or not. before one of these.";

/// A filter as a condition; parameters are numbered from `first`.
pub(super) fn condition(column: &Column, filter: &str, first: usize) -> Result<Fragment, HttpError> {
    let (negated, plain) = match filter.strip_prefix("not.") {
        Some(plain) => (true, plain),
        None => (false, filter),
    };
    let Some((op, value)) = plain.split_once('.') else { return Err(unknown(column, plain)) };
    let name = quoted(&column.name);
    let compared =
        |op: &str| Fragment { sql: format!("{name} {op} ${first}"), params: vec![value.to_owned()] };
    let mut fragment = match op {
        "eq" => compared("="),
        "neq" => compared("<>"),
        "gt" => compared(">"),
        "gte" => compared(">="),
        "lt" => compared("<"),
        "lte" => compared("<="),
        "like" => compared("LIKE"),
        "ilike" => compared("ILIKE"),
        "is" => {
            let what = match value {
                "null" => "NULL",
                "true" => "TRUE",
                "false" => "FALSE",
                "unknown" => "UNKNOWN",
                _ => return Err(unknown(column, value)),
            };
            Fragment { sql: format!("{name} IS {what}"), params: Vec::new() }
        }
        "in" => {
            let values = list(value).ok_or_else(|| unknown(column, value))?;
            let numbers: Vec<_> = (first..first + values.len()).map(|n| format!("${n}")).collect();
            Fragment { sql: format!("{name} IN ({})", numbers.join(", ")), params: values }
        }
        _ => return Err(unknown(column, op)),
    };
    if fragment.params.iter().any(|value| value.contains('\0')) {
        return Err(unknown(column, "a value with a zero byte"));
    }
    fragment.sql = if negated { format!("(NOT ({}))", fragment.sql) } else { format!("({})", fragment.sql) };
    Ok(fragment)
}

fn unknown(column: &Column, what: &str) -> HttpError {
    let message = format!("the filter of column \"{}\" is not understood at \"{what}\"", column.name);
    HttpError::new(SqlState::SYNTAX_ERROR, message).hint(FORMS)
}

/// `(a,"b,c",d)`; in quotes a backslash takes the next character as it is.
fn list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut values = Vec::new();
    loop {
        if let Some(inside) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = inside.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(chars.next()?.1),
                    (_, c) => value.push(c),
                }
            };
            values.push(value);
            rest = inside.get(end..)?;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (value, after) = rest.split_at(end);
            values.push(value.to_owned());
            rest = after;
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.is_empty().then_some(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column() -> Column {
        Column {
            name: "od\"d".to_owned(),
            type_oid: 25,
            type_name: "text".to_owned(),
            not_null: false,
            default: None,
            is_serial: false,
            is_generated: false,
            collation: None,
        }
    }

    #[test]
    fn filters_bind_their_values() {
        for (filter, sql, params) in [
            ("eq.user_1", "(\"od\"\"d\" = $4)", &["user_1"][..]),
            ("not.gte.1.5", "(NOT (\"od\"\"d\" >= $4))", &["1.5"]),
            ("in.(a,\"b,\\\"c\",)", "(\"od\"\"d\" IN ($4, $5, $6))", &["a", "b,\"c", ""]),
            ("is.null", "(\"od\"\"d\" IS NULL)", &[]),
            ("not.is.true", "(NOT (\"od\"\"d\" IS TRUE))", &[]),
            ("eq.", "(\"od\"\"d\" = $4)", &[""]),
            ("like.%'; drop table t; --", "(\"od\"\"d\" LIKE $4)", &["%'; drop table t; --"]),
        ] {
            let got = condition(&column(), filter, 4).unwrap();
            assert_eq!(
                (got.sql.as_str(), got.params),
                (sql, params.iter().map(ToString::to_string).collect())
            );
        }
        for wrong in [
            "",
            "eq",
            "user_1",
            "equals.1",
            "is.nothing",
            "in.a",
            "in.(a",
            "in.(\"a)",
            "in.(\"a\"b)",
            "not.not.eq.1",
        ] {
            assert!(condition(&column(), wrong, 1).is_err(), "{wrong}");
        }
    }
}
