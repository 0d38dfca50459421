//! LIKE and ILIKE with the escape character `\`.
//! Must not know expressions.

use super::RowsError;

/// Whether text matches a pattern. `fold` is ILIKE: ASCII letters match in either case (collation "C").
///
/// # Errors
/// [`RowsError::BadEscape`] if the pattern ends with `\` and matching gets that far.
pub(super) fn like(text: &str, pattern: &str, fold: bool) -> Result<bool, RowsError> {
    let fold_char = |c: char| if fold { c.to_ascii_lowercase() } else { c };
    let text: Vec<char> = text.chars().map(fold_char).collect();
    let pattern: Vec<char> = pattern.chars().map(fold_char).collect();
    let (mut t, mut p) = (0, 0);
    // Where to go back to: the pattern after the last `%`, and the text it has swallowed so far.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('%') => {
                p += 1;
                retry = Some((p, t));
                continue;
            }
            None if t == text.len() => return Ok(true),
            None => None,
            Some('_') => (t < text.len()).then_some(1),
            Some('\\') => match pattern.get(p + 1) {
                Some(literal) => (text.get(t) == Some(literal)).then_some(2),
                // PostgreSQL notices only with text left to compare.
                None if t < text.len() => return Err(RowsError::BadEscape),
                None => None,
            },
            Some(literal) => (text.get(t) == Some(literal)).then_some(1),
        };
        match (step, retry) {
            (Some(width), _) => {
                t += 1;
                p += width;
            }
            (None, Some((after, from))) if from < text.len() => {
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            (None, _) => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_postgresql() {
        for (text, pattern, fold, want) in [
            ("abc", "abc", false, true),
            ("abc", "a%", false, true),
            ("abc", "%c", false, true),
            ("abc", "%b%", false, true),
            ("abc", "a_c", false, true),
            ("abc", "a_", false, false),
            ("abc", "ABC", false, false),
            ("abc", "AB%", true, true),
            ("é", "É", true, false),
            ("é", "_", false, true),
            ("a%c", "a\\%c", false, true),
            ("abc", "a\\%c", false, false),
            ("", "%", false, true),
            ("", "", false, true),
            ("x", "", false, false),
            ("aXbXc", "a%X%c", false, true),
            ("mississippi", "m%iss%pi", false, true),
            ("mississippi", "m%iss%pa", false, false),
        ] {
            assert_eq!(like(text, pattern, fold), Ok(want), "{text} {pattern}");
        }
        assert_eq!(like("ab", "a\\", false), Err(RowsError::BadEscape));
    }

    #[test]
    fn many_percent_signs_take_no_exponential_time() {
        let text = "a".repeat(3000);
        let pattern = "%a".repeat(1000) + "b";
        assert_eq!(like(&text, &pattern, false), Ok(false));
    }
}
