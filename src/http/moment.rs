//! Moments as JSON has them: ISO 8601 in UTC, to the microsecond.
//! Must not know what happened then.

use std::time::SystemTime;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::macros::format_description;

/// A moment, e.g. `2026-01-31T12:00:00.000001Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(SystemTime);

impl From<SystemTime> for Moment {
    fn from(at: SystemTime) -> Self {
        Self(at)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        let text = OffsetDateTime::from(self.0).format(form).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_iso_8601_in_utc() {
        let at = Moment(SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042));
        assert_eq!(serde_json::to_string(&at).unwrap(), "\"2023-11-14T22:13:20.000042Z\"");
    }
}
