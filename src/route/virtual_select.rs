//! A parsed SELECT over one virtual table to plain values that `rows` can answer.
//! Must not know which virtual tables there are, nor their columns.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's enums hold every dialect; what is not named here is refused by name"
)]

use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, GroupByExpr, Ident, LimitClause, ObjectName, OrderByExpr, OrderByKind, OrderBySort, Query,
    Select as AstSelect, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement,
    TableFactor, WildcardAdditionalOptions, visit_relations,
};

use super::RouteError;
use super::virtual_expr::{Converter, output_name};
use crate::rows::{Expr, FromTable, Item, OrderBy, Select, Value};
use crate::wire::SqlState;

/// The schema of virtual tables.
pub(super) const SCHEMA: &str = "pgherd";

/// The SELECT over a virtual table that a statement is, if it names one (`pgherd.latency`); with `bare`, on the
/// `pgherd` database, any table without a schema is one, and no table at all is fine too.
///
/// # Errors
/// [`RouteError::Refused`] if virtual tables are mixed with others, or for what [`Select`] cannot say.
pub(super) fn virtual_select(ast: &Statement, bare: bool) -> Result<Option<Select>, RouteError> {
    let Statement::Query(query) = ast else {
        return match names_schema(ast) {
            true => Err(refused("a statement other than SELECT")),
            false => Ok(None),
        };
    };
    if !bare && !names_schema(ast) && !body_names_schema(&query.body) {
        return Ok(None);
    }
    convert(query, bare).map(Some)
}

fn names_schema(ast: &Statement) -> bool {
    visit_relations(ast, |name| match parts(name).as_deref() {
        Some([schema, _]) if schema == SCHEMA => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// `TABLE pgherd.x` in a set operation is not among the relations that sqlparser visits.
fn body_names_schema(body: &SetExpr) -> bool {
    match body {
        SetExpr::Table(table) => table.schema_name.as_ref().is_some_and(|s| s.eq_ignore_ascii_case(SCHEMA)),
        SetExpr::Query(query) => body_names_schema(&query.body),
        SetExpr::SetOperation { left, right, .. } => body_names_schema(left) || body_names_schema(right),
        _ => false,
    }
}

pub(super) fn refused(construct: &str) -> RouteError {
    RouteError::Refused {
        what: format!("{construct} is not supported in queries on virtual tables"),
        hint: "Write SELECT columns FROM pgherd.table WHERE … GROUP BY … ORDER BY … LIMIT …; \
               SHOW HELP on the pgherd database lists the tables."
            .to_owned(),
    }
}

pub(super) fn sql_error(code: SqlState, message: String) -> RouteError {
    RouteError::Sql { code, message, detail: None, hint: None }
}

/// A name's parts, folded; `None` if one of them is not an identifier.
pub(super) fn parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(fold)).collect()
}

pub(super) fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

fn convert(query: &Query, bare: bool) -> Result<Select, RouteError> {
    check_query(query)?;
    let body = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        SetExpr::Query(_) => return Err(refused("a SELECT in parentheses")),
        SetExpr::SetOperation { .. } => return Err(refused("UNION, INTERSECT or EXCEPT")),
        SetExpr::Values(_) => return Err(refused("VALUES")),
        SetExpr::Table(_) => return Err(refused("TABLE")),
        _ => return Err(refused("a data-modifying statement")),
    };
    check_select(body)?;
    let mut converter = Converter::new(from_table(body, bare)?);
    let (limit, offset) = converter.limits(query)?;
    let order_by = match query.order_by.as_ref().map(|o| (&o.kind, &o.interpolate)) {
        None => Vec::new(),
        Some((OrderByKind::Expressions(list), None)) => {
            list.iter().map(|o| converter.order(o)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(refused("this form of ORDER BY")),
    };
    Ok(Select {
        items: body.projection.iter().map(|i| converter.item(i)).collect::<Result<_, _>>()?,
        distinct: match body.distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(_) => return Err(refused("DISTINCT ON")),
        },
        filter: body.selection.as_ref().map(|e| converter.expr(e)).transpose()?,
        group_by: match &body.group_by {
            GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => converter.exprs(list)?,
            _ => return Err(refused("this form of GROUP BY")),
        },
        having: body.having.as_ref().map(|e| converter.expr(e)).transpose()?,
        order_by,
        limit,
        offset,
        from: converter.from.map(|table| FromTable { name: table.name, alias: table.alias }),
    })
}

/// Refuses what stands around the body of a query.
fn check_query(query: &Query) -> Result<(), RouteError> {
    let found = [
        (query.with.is_some(), "WITH"),
        (!query.locks.is_empty(), "FOR UPDATE or FOR SHARE"),
        (query.for_clause.is_some(), "FOR"),
        (query.settings.is_some(), "SETTINGS"),
        (query.format_clause.is_some(), "FORMAT"),
        (!query.pipe_operators.is_empty(), "a pipe operator"),
    ];
    found.iter().find(|(there, _)| *there).map_or(Ok(()), |(_, construct)| Err(refused(construct)))
}

/// Refuses the parts of a SELECT that are not looked at.
fn check_select(select: &AstSelect) -> Result<(), RouteError> {
    let found = [
        (select.into.is_some(), "INTO"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.projection.is_empty(), "an empty select list"),
        (
            select.top.is_some()
                || select.exclude.is_some()
                || select.select_modifiers.is_some()
                || select.prewhere.is_some()
                || select.qualify.is_some()
                || select.value_table_mode.is_some()
                || select.flavor != SelectFlavor::Standard
                || !select.lateral_views.is_empty()
                || !select.connect_by.is_empty()
                || !select.cluster_by.is_empty()
                || !select.distribute_by.is_empty()
                || !select.sort_by.is_empty(),
            "a clause of another SQL dialect",
        ),
    ];
    found.iter().find(|(there, _)| *there).map_or(Ok(()), |(_, construct)| Err(refused(construct)))
}

/// The FROM table and how columns may be qualified.
pub(super) struct From {
    pub(super) name: String,
    pub(super) alias: Option<String>,
    /// Whether it was written with its schema, so that columns may be, too.
    pub(super) has_schema: bool,
}

fn from_table(select: &AstSelect, bare: bool) -> Result<Option<From>, RouteError> {
    let [from] = select.from.as_slice() else {
        return if select.from.is_empty() { Ok(None) } else { Err(refused("more than one table in FROM")) };
    };
    if !from.joins.is_empty() {
        return Err(refused("a join"));
    }
    let TableFactor::Table {
        name,
        alias,
        args,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = &from.relation
    else {
        return Err(refused("a subquery or function in FROM"));
    };
    if args.is_some() || *with_ordinality {
        return Err(refused("a function in FROM"));
    }
    if sample.is_some() {
        return Err(refused("TABLESAMPLE"));
    }
    if !with_hints.is_empty()
        || version.is_some()
        || !partitions.is_empty()
        || json_path.is_some()
        || !index_hints.is_empty()
    {
        return Err(refused("a clause of another SQL dialect"));
    }
    if alias.as_ref().is_some_and(|a| !a.columns.is_empty() || a.at.is_some()) {
        return Err(refused("a list of column aliases"));
    }
    let alias = alias.as_ref().map(|a| fold(&a.name));
    match parts(name).as_deref() {
        Some([schema, table]) if schema == SCHEMA => {
            Ok(Some(From { name: table.clone(), alias, has_schema: true }))
        }
        Some([table]) if bare => Ok(Some(From { name: table.clone(), alias, has_schema: false })),
        _ => Err(refused(&format!("table {name} beside virtual tables"))),
    }
}

impl Converter {
    fn limits(&mut self, query: &Query) -> Result<(Option<Expr>, Option<Expr>), RouteError> {
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit: l, offset: o, limit_by }) if limit_by.is_empty() => {
                limit = l.as_ref().map(|e| self.expr(e)).transpose()?;
                offset = o.as_ref().map(|o| self.expr(&o.value)).transpose()?;
            }
            Some(_) => return Err(refused("LIMIT of another SQL dialect")),
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(refused("FETCH … WITH TIES or PERCENT"));
            }
            if limit.is_some() {
                return Err(sql_error(
                    SqlState::SYNTAX_ERROR,
                    "multiple LIMIT clauses not allowed".to_owned(),
                ));
            }
            limit = match &fetch.quantity {
                Some(quantity) => Some(self.expr(quantity)?),
                None => Some(Expr::Literal(Value::Int(1))),
            };
        }
        Ok((limit, offset))
    }

    fn order(&mut self, by: &OrderByExpr) -> Result<OrderBy, RouteError> {
        if by.with_fill.is_some() {
            return Err(refused("WITH FILL"));
        }
        let descending = match &by.options.sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => return Err(refused("ORDER BY … USING")),
        };
        let nulls_first = by.options.nulls_first.unwrap_or(descending);
        Ok(OrderBy { expr: self.expr(&by.expr)?, descending, nulls_first })
    }

    fn item(&mut self, item: &SelectItem) -> Result<Item, RouteError> {
        match item {
            SelectItem::UnnamedExpr(expr) => Ok(Item::Expr(self.expr(expr)?, output_name(expr))),
            SelectItem::ExprWithAlias { expr, alias } => Ok(Item::Expr(self.expr(expr)?, fold(alias))),
            SelectItem::Wildcard(options) if is_plain(options) => Ok(Item::All),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                if is_plain(options) =>
            {
                let qualifier = parts(name).ok_or_else(|| refused("this form of *"))?;
                self.check_qualifier(&qualifier).map(|()| Item::All)
            }
            _ => Err(refused("this form of * or alias")),
        }
    }
}

fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    use super::*;

    fn select(sql: &str, bare: bool) -> Result<Option<Select>, RouteError> {
        let ast = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        virtual_select(&ast[0], bare)
    }

    #[test]
    fn only_tables_of_the_schema_are_virtual_unless_the_database_is_ours() {
        for (sql, bare, want) in [
            ("select * from pgherd.latency", false, Some("latency")),
            ("select * from PGHERD.Latency", false, Some("latency")),
            ("select * from \"pgherd\".\"Latency\"", false, Some("Latency")),
            ("select * from latency", false, None),
            ("select * from latency", true, Some("latency")),
            ("select * from pgherd.latency", true, Some("latency")),
            ("select 1", false, None),
            ("select * from users u join orders using (user_id)", false, None),
            ("insert into users values (1)", false, None),
            ("insert into users values (1)", true, None),
        ] {
            let found = select(sql, bare).unwrap().map(|s| s.from.unwrap().name);
            assert_eq!(found.as_deref(), want, "{sql}");
        }
        assert_eq!(select("select 1", true).unwrap().unwrap().from, None);
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        for (sql, want) in [
            ("select * from pgherd.latency, users", "more than one table in FROM"),
            ("select * from users, pgherd.latency", "more than one table in FROM"),
            ("select * from pgherd.latency join users on true", "a join"),
            (
                "select * from users where id in (select 1 from pgherd.latency)",
                "table users beside virtual tables",
            ),
            ("with x as (select 1) select * from pgherd.latency", "WITH"),
            ("select * from (select * from pgherd.latency) x", "a subquery or function in FROM"),
            ("select * from pgherd.latency union select * from users", "UNION, INTERSECT or EXCEPT"),
            ("select 1 except table pgherd.latency", "UNION, INTERSECT or EXCEPT"),
            ("select distinct on (shard) * from pgherd.latency", "DISTINCT ON"),
            ("select rank() over (order by 1) from pgherd.latency", "a window function"),
            ("select * from pgherd.latency for update", "FOR UPDATE or FOR SHARE"),
            ("select * from pgherd.latency where shard = any(array['a'])", "ANY or ALL"),
            ("select * from pgherd.latency where shard ~ 'a'", "operator ~"),
            ("select * from pgherd.latency where shard like 'a' escape 'b'", "LIKE … ESCAPE"),
            ("select p99_us::numeric(10,2) from pgherd.latency", "type NUMERIC(10,2)"),
            ("select p99_us::varchar from pgherd.latency", "type VARCHAR"),
            ("select (select 1) from pgherd.latency", "a subquery"),
            ("select * from pgherd.latency group by rollup (shard)", "GROUPING SETS, CUBE or ROLLUP"),
            ("select * from pgherd.latency l (a, b)", "a list of column aliases"),
            ("select * from pgherd.latency tablesample system (1)", "TABLESAMPLE"),
            (
                "select max(x order by y) from pgherd.latency",
                "ORDER BY or another clause among a function's arguments",
            ),
            ("select now() - interval '1 day' from pgherd.errors", "INTERVAL"),
            ("delete from pgherd.errors", "a statement other than SELECT"),
            ("explain select * from pgherd.latency", "a statement other than SELECT"),
        ] {
            match select(sql, false) {
                Err(RouteError::Refused { what, .. }) => {
                    assert_eq!(
                        what,
                        format!("{want} is not supported in queries on virtual tables"),
                        "{sql}"
                    );
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
        assert!(matches!(select("select * from pg_catalog.pg_class", true), Err(RouteError::Refused { .. })));
    }

    #[test]
    fn columns_may_be_qualified_by_the_name_in_force_only() {
        for (sql, want) in [
            ("select latency.shard from pgherd.latency", true),
            ("select pgherd.latency.shard from pgherd.latency", true),
            ("select l.shard from pgherd.latency as l", true),
            ("select l.* from pgherd.latency l", true),
            ("select latency.shard from pgherd.latency l", false),
            ("select other.shard from pgherd.latency", false),
            ("select other.* from pgherd.latency", false),
        ] {
            let got = select(sql, false);
            assert_eq!(got.is_ok(), want, "{sql}: {got:?}");
            if let Err(e) = got {
                assert!(matches!(e, RouteError::Sql { code: SqlState::UNDEFINED_TABLE, .. }), "{sql}");
            }
        }
    }

    #[test]
    fn outputs_are_named_as_postgresql_names_them() {
        for (expr, want) in [
            ("shard", "shard"),
            ("l.SHARD", "shard"),
            ("\"Shard\"", "Shard"),
            ("1", "?column?"),
            ("true", "?column?"),
            ("shard || 'x'", "?column?"),
            ("count(*)", "count"),
            ("COALESCE(shard, 'x')", "coalesce"),
            ("ceil(1.5)", "ceil"),
            ("1::bigint", "int8"),
            ("shard::text", "shard"),
            ("cast(count(*) as double precision)", "count"),
            ("text 'a'", "text"),
            ("case when true then 1 end", "case"),
            ("case when true then 1 else count end", "count"),
            ("current_user", "current_user"),
            ("x as y", "y"),
        ] {
            let select = select(&format!("select {expr} from pgherd.latency l"), false).unwrap().unwrap();
            assert!(
                matches!(&select.items[0], Item::Expr(_, name) if name == want),
                "{expr}: {:?}",
                select.items
            );
        }
    }

    #[test]
    fn a_sign_belongs_to_the_number_after_it() {
        for (text, want) in [
            ("-5", Value::Int(-5)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("9223372036854775808", Value::Numeric("9223372036854775808".parse().unwrap())),
            ("-1.50", Value::Numeric("-1.50".parse().unwrap())),
        ] {
            let select = select(&format!("select {text} from pgherd.x"), false).unwrap().unwrap();
            assert_eq!(select.items, [Item::Expr(Expr::Literal(want), "?column?".to_owned())], "{text}");
        }
    }

    #[test]
    fn a_long_chain_of_operators_is_refused_not_followed() {
        let sql = format!("select 1{} from pgherd.x", " + 1".repeat(5000));
        std::thread::Builder::new()
            .stack_size(64 << 20)
            .spawn(move || assert!(select(&sql, false).is_err()))
            .unwrap()
            .join()
            .unwrap();
    }
}
