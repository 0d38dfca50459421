//! The functions and aggregates virtual tables know, and the choice among overloads.
//! Must not know how they are computed.

use super::{RowsError, Type};

/// A scalar function of fixed argument types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Lower,
    Upper,
    Length,
    Abs(Type),
    Round(Type),
    RoundTo,
    Ceil(Type),
    Floor(Type),
}

/// An aggregate of a fixed argument type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AggregateFunction {
    /// Of rows without an argument, else of values that are not NULL.
    Count,
    Sum(Type),
    Avg(Type),
    /// The largest if true, else the smallest.
    Extreme(bool),
    /// bool_and if true, else bool_or.
    Logical(bool),
}

/// One overload.
struct Overload<F> {
    name: &'static str,
    args: &'static [Type],
    result: Type,
    function: F,
}

const fn overload<F>(name: &'static str, args: &'static [Type], result: Type, function: F) -> Overload<F> {
    Overload { name, args, result, function }
}

use Type::{Bool, Float8, Int4, Int8, Text, Timestamptz};

const FUNCTIONS: &[Overload<Function>] = &[
    overload("lower", &[Text], Text, Function::Lower),
    overload("upper", &[Text], Text, Function::Upper),
    overload("length", &[Text], Int4, Function::Length),
    overload("char_length", &[Text], Int4, Function::Length),
    overload("abs", &[Int4], Int4, Function::Abs(Int4)),
    overload("abs", &[Int8], Int8, Function::Abs(Int8)),
    overload("abs", &[Type::Numeric], Type::Numeric, Function::Abs(Type::Numeric)),
    overload("abs", &[Float8], Float8, Function::Abs(Float8)),
    overload("round", &[Float8], Float8, Function::Round(Float8)),
    overload("round", &[Type::Numeric], Type::Numeric, Function::Round(Type::Numeric)),
    overload("round", &[Type::Numeric, Int4], Type::Numeric, Function::RoundTo),
    overload("ceil", &[Float8], Float8, Function::Ceil(Float8)),
    overload("ceil", &[Type::Numeric], Type::Numeric, Function::Ceil(Type::Numeric)),
    overload("ceiling", &[Float8], Float8, Function::Ceil(Float8)),
    overload("ceiling", &[Type::Numeric], Type::Numeric, Function::Ceil(Type::Numeric)),
    overload("floor", &[Float8], Float8, Function::Floor(Float8)),
    overload("floor", &[Type::Numeric], Type::Numeric, Function::Floor(Type::Numeric)),
];

const AGGREGATES: &[Overload<AggregateFunction>] = &[
    overload("sum", &[Int4], Int8, AggregateFunction::Sum(Int4)),
    overload("sum", &[Int8], Type::Numeric, AggregateFunction::Sum(Int8)),
    overload("sum", &[Type::Numeric], Type::Numeric, AggregateFunction::Sum(Type::Numeric)),
    overload("sum", &[Float8], Float8, AggregateFunction::Sum(Float8)),
    overload("avg", &[Int4], Type::Numeric, AggregateFunction::Avg(Int4)),
    overload("avg", &[Int8], Type::Numeric, AggregateFunction::Avg(Int8)),
    overload("avg", &[Type::Numeric], Type::Numeric, AggregateFunction::Avg(Type::Numeric)),
    overload("avg", &[Float8], Float8, AggregateFunction::Avg(Float8)),
    overload("min", &[Int4], Int4, AggregateFunction::Extreme(false)),
    overload("min", &[Int8], Int8, AggregateFunction::Extreme(false)),
    overload("min", &[Type::Numeric], Type::Numeric, AggregateFunction::Extreme(false)),
    overload("min", &[Float8], Float8, AggregateFunction::Extreme(false)),
    overload("min", &[Text], Text, AggregateFunction::Extreme(false)),
    overload("min", &[Timestamptz], Timestamptz, AggregateFunction::Extreme(false)),
    overload("max", &[Int4], Int4, AggregateFunction::Extreme(true)),
    overload("max", &[Int8], Int8, AggregateFunction::Extreme(true)),
    overload("max", &[Type::Numeric], Type::Numeric, AggregateFunction::Extreme(true)),
    overload("max", &[Float8], Float8, AggregateFunction::Extreme(true)),
    overload("max", &[Text], Text, AggregateFunction::Extreme(true)),
    overload("max", &[Timestamptz], Timestamptz, AggregateFunction::Extreme(true)),
    overload("bool_and", &[Bool], Bool, AggregateFunction::Logical(true)),
    overload("every", &[Bool], Bool, AggregateFunction::Logical(true)),
    overload("bool_or", &[Bool], Bool, AggregateFunction::Logical(false)),
];

/// What a call means: argument types to cast to, result type, the function.
pub(super) type Chosen<F> = (&'static [Type], Type, F);

/// The function a call means. `args` of `None` have no type yet.
///
/// # Errors
/// [`RowsError::NoFunction`] or [`RowsError::NotUnique`].
pub(super) fn function(name: &str, args: &[Option<Type>]) -> Result<Chosen<Function>, RowsError> {
    choose(FUNCTIONS, name, args)
}

/// The aggregate a call means; `count` has no overloads and is not among them.
///
/// # Errors
/// [`RowsError::NoFunction`] or [`RowsError::NotUnique`].
pub(super) fn aggregate(name: &str, args: &[Option<Type>]) -> Result<Chosen<AggregateFunction>, RowsError> {
    if matches!(name, "sum" | "avg") && args == [None] {
        // PostgreSQL has sums of intervals and money too, so a value without a type fits several.
        return Err(RowsError::NotUnique(format!("function {name}(unknown)")));
    }
    choose(AGGREGATES, name, args)
}

pub(super) fn is_aggregate(name: &str) -> bool {
    name == "count" || AGGREGATES.iter().any(|a| a.name == name)
}

/// The names of all functions, for hints.
pub(super) fn known() -> String {
    let mut names = vec!["coalesce", "count", "greatest", "least", "nullif"];
    names.extend(FUNCTIONS.iter().map(|f| f.name));
    names.extend(AGGREGATES.iter().map(|a| a.name));
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// `name(bigint, unknown)`, as PostgreSQL's messages print a call.
pub(super) fn call_text(name: &str, args: &[Option<Type>]) -> String {
    let args: Vec<_> = args.iter().map(|a| a.map_or("unknown", Type::name)).collect();
    format!("{name}({})", args.join(", "))
}

/// The overload PostgreSQL would choose. Source: docs, "Function Type Resolution": an exact match, else those
/// reachable by implicit casts, of these the ones with most exact matches, then most preferred types.
fn choose<F: Copy>(all: &[Overload<F>], name: &str, args: &[Option<Type>]) -> Result<Chosen<F>, RowsError> {
    let fits = |o: &&Overload<F>| {
        o.name == name
            && o.args.len() == args.len()
            && args
                .iter()
                .zip(o.args)
                .all(|(have, want)| have.is_none_or(|have| casts_implicitly(have, *want)))
    };
    // Ranked by exact matches, then by preferred types where it is no exact match.
    let rank = |o: &&Overload<F>| {
        let exact = args.iter().zip(o.args).filter(|(have, want)| **have == Some(**want)).count();
        let preferred = o.args.iter().filter(|want| is_preferred(**want)).count();
        (exact, preferred)
    };
    let candidates: Vec<_> = all.iter().filter(fits).collect();
    let best = candidates.iter().map(rank).max();
    let mut best_ones = candidates.into_iter().filter(|o| Some(rank(o)) == best);
    let Some(first) = best_ones.next() else { return Err(RowsError::NoFunction(call_text(name, args))) };
    // Only values without a type leave a tie, and PostgreSQL then takes text.
    let chosen = best_ones.find(|o| o.args.contains(&Text)).unwrap_or(first);
    Ok((chosen.args, chosen.result, chosen.function))
}

fn is_preferred(kind: Type) -> bool {
    matches!(kind, Float8 | Text | Timestamptz | Bool)
}

/// Whether PostgreSQL casts without being asked, in any expression.
pub(super) fn casts_implicitly(from: Type, to: Type) -> bool {
    from == to || matches!((from.rung(), to.rung()), (Some(a), Some(b)) if a <= b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overloads_are_chosen_as_postgresql_chooses() {
        for (name, args, want) in [
            ("round", &[Some(Int8)][..], Some(Float8)),
            ("round", &[Some(Type::Numeric)], Some(Type::Numeric)),
            ("round", &[None], Some(Float8)),
            ("round", &[Some(Int8), Some(Int4)], Some(Type::Numeric)),
            ("round", &[Some(Float8), Some(Int4)], None),
            ("round", &[Some(Type::Numeric), Some(Int8)], None),
            ("abs", &[Some(Int4)], Some(Int4)),
            ("abs", &[None], Some(Float8)),
            ("lower", &[None], Some(Text)),
            ("lower", &[Some(Int8)], None),
            ("nothing", &[], None),
        ] {
            assert_eq!(function(name, args).ok().map(|c| c.1), want, "{name} {args:?}");
        }
        for (name, args, want) in [
            ("sum", Some(Int4), Some(Int8)),
            ("sum", Some(Int8), Some(Type::Numeric)),
            ("avg", Some(Int8), Some(Type::Numeric)),
            ("min", None, Some(Text)),
            ("max", Some(Bool), None),
            ("sum", None, None),
        ] {
            assert_eq!(aggregate(name, &[args]).ok().map(|c| c.1), want, "{name} {args:?}");
        }
    }
}
