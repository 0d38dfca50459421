//! Aggregates: what is kept per group and what comes out.
//! Must not know how rows are grouped.

use std::collections::BTreeSet;

use super::eval::{eval, holds};
use super::functions::AggregateFunction;
use super::node::AggregateCall;
use super::order::Ordered;
use super::{Numeric, RowsError, Type, Value};

/// The state of one aggregate in one group.
pub(super) struct Accumulator<'a> {
    call: &'a AggregateCall,
    /// Values seen, for DISTINCT.
    seen: BTreeSet<Ordered>,
    count: i64,
    /// The sum, extreme or truth so far; NULL before the first value.
    so_far: Value,
}

impl<'a> Accumulator<'a> {
    pub(super) fn new(call: &'a AggregateCall) -> Self {
        Self { call, seen: BTreeSet::new(), count: 0, so_far: Value::Null }
    }

    /// Takes one row of the group.
    ///
    /// # Errors
    /// What the argument and the sum raise.
    pub(super) fn take(&mut self, row: &[Value], params: &[Value]) -> Result<(), RowsError> {
        if let Some(filter) = &self.call.filter
            && !holds(filter, row, params)?
        {
            return Ok(());
        }
        let Some(arg) = &self.call.arg else {
            self.count += 1;
            return Ok(());
        };
        let value = eval(arg, row, params)?.into_owned();
        if value.is_null() || (self.call.distinct && !self.seen.insert(Ordered(vec![value.clone()]))) {
            return Ok(());
        }
        self.count += 1;
        match self.call.function {
            AggregateFunction::Count => {}
            AggregateFunction::Sum(_) | AggregateFunction::Avg(_) => self.add(value)?,
            AggregateFunction::Extreme(largest) => {
                let better = if largest {
                    value.order(&self.so_far).is_gt()
                } else {
                    value.order(&self.so_far).is_lt()
                };
                if self.so_far.is_null() || better {
                    self.so_far = value;
                }
            }
            AggregateFunction::Logical(all) => {
                if self.so_far.is_null() || value == Value::Bool(!all) {
                    self.so_far = value;
                }
            }
        }
        Ok(())
    }

    /// Integers are summed as numeric: a bigint could overflow on the way although PostgreSQL's would not.
    fn add(&mut self, value: Value) -> Result<(), RowsError> {
        let value = if let Value::Int(n) = value { Value::Numeric(Numeric::from(n)) } else { value };
        self.so_far = match (&self.so_far, value) {
            (Value::Numeric(a), Value::Numeric(b)) => Value::Numeric(a.add(b)?),
            (Value::Float(a), Value::Float(b)) => Value::Float(add_floats(*a, b)?),
            (_, first) => first,
        };
        Ok(())
    }

    /// The aggregate's value.
    ///
    /// # Errors
    /// [`RowsError::OutOfRange`] if the sum of integers is no bigint.
    pub(super) fn finish(self) -> Result<Value, RowsError> {
        match (self.call.function, self.so_far) {
            (AggregateFunction::Count, _) => Ok(Value::Int(self.count)),
            (AggregateFunction::Sum(Type::Int4), Value::Numeric(sum)) => sum
                .to_i64()
                .map(Value::Int)
                .ok_or_else(|| RowsError::OutOfRange("bigint out of range".to_owned())),
            (AggregateFunction::Avg(_), Value::Numeric(sum)) => {
                sum.div(Numeric::from(self.count)).map(Value::Numeric)
            }
            (AggregateFunction::Avg(_), Value::Float(sum)) => Ok(Value::Float(sum / self.count as f64)),
            (
                AggregateFunction::Sum(_)
                | AggregateFunction::Avg(_)
                | AggregateFunction::Extreme(_)
                | AggregateFunction::Logical(_),
                value,
            ) => Ok(value),
        }
    }
}

fn add_floats(a: f64, b: f64) -> Result<f64, RowsError> {
    let sum = a + b;
    if sum.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(RowsError::OutOfRange("value out of range: overflow".to_owned()));
    }
    Ok(sum)
}
