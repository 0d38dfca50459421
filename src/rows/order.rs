//! Rows in order: as keys of groups and of DISTINCT, and by ORDER BY.
//! Must not know expressions.

use std::cmp::Ordering;

use super::Value;

/// Values ordered one after the other, NULLs equal to each other and last: a key of a set or map.
#[derive(Debug, Clone)]
pub(super) struct Ordered(pub(super) Vec<Value>);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        let pairs = self.0.iter().zip(&other.0);
        pairs.map(|(a, b)| with_nulls(a, b, false)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

/// How one sort key sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// Compares two rows' sort keys.
pub(super) fn by_keys(a: &[Value], b: &[Value], directions: &[Direction]) -> Ordering {
    for ((a, b), how) in a.iter().zip(b).zip(directions) {
        let order = match (a.is_null(), b.is_null()) {
            (false, false) if how.descending => b.order(a),
            _ => with_nulls(a, b, how.nulls_first),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn with_nulls(a: &Value, b: &Value, nulls_first: bool) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (false, false) => a.order(b),
        (true, true) => Ordering::Equal,
        (true, false) if nulls_first => Ordering::Less,
        (false, true) if !nulls_first => Ordering::Less,
        (true, false) | (false, true) => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_stand_where_they_are_asked_to_in_both_directions() {
        let values = [Value::Int(2), Value::Null, Value::Int(1), Value::Int(3)];
        for (descending, nulls_first, want) in [
            (false, false, ["1", "2", "3", ""]),
            (false, true, ["", "1", "2", "3"]),
            (true, false, ["3", "2", "1", ""]),
            (true, true, ["", "3", "2", "1"]),
        ] {
            let mut rows: Vec<_> = values.iter().map(|v| vec![v.clone()]).collect();
            rows.sort_by(|a, b| by_keys(a, b, &[Direction { descending, nulls_first }]));
            let shown: Vec<_> = rows.iter().map(|r| r[0].to_text()).collect();
            assert_eq!(shown, want);
        }
    }

    #[test]
    fn equal_numbers_are_one_key() {
        let key = |text: &str| Ordered(vec![Value::Numeric(text.parse().unwrap()), Value::Null]);
        assert_eq!(key("1.0"), key("1.00"));
        assert_ne!(key("1.0"), key("1.01"));
    }
}
