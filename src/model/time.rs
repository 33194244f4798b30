//! Points in time, as microseconds since the Unix epoch. Only the command line reads the clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::Step;
use super::code::PERIOD_S;

/// Returns the present time. The command line passes the system's clock, a test its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A point in time in UTC, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Earlier than every other time. Used where something has never happened.
    pub(crate) const NEVER: Self = Self(i64::MIN);

    /// From microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From seconds since 1970.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The time step at this time (RFC 6238 §4.2, T0 = 0, X = 30 s). Step 0 before 1970.
    pub fn step(self) -> Step {
        Step::from_number(self.0.div_euclid(1_000_000).div_euclid(PERIOD_S).max(0))
    }

    /// This time plus `span`.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// This time minus `span`.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// The duration from `earlier` to this time; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339, UTC, `Z`, always six digits of microseconds: `2026-11-23T17:06:19.000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0).saturating_mul(1_000);
        // RFC 3339 ends with the year 9999. Beyond it the epoch is written, which is plainly wrong and does not panic.
        let at =
            OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.microsecond()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339_with_microseconds() {
        assert_eq!(
            Timestamp::from_micros(0).to_string(),
            "1970-01-01T00:00:00.000000Z"
        );
        let at = Timestamp::from_micros(1_795_453_579_000_007);
        assert_eq!(at.to_string(), "2026-11-23T17:06:19.000007Z");
        assert_eq!(
            Timestamp::from_micros(-1).to_string(),
            "1969-12-31T23:59:59.999999Z"
        );
        assert!(!Timestamp::from_micros(i64::MAX).to_string().is_empty());
    }

    #[test]
    fn a_step_is_thirty_seconds() {
        assert_eq!(Timestamp::from_seconds(59).step(), Step::from_number(1));
        assert_eq!(Timestamp::from_seconds(60).step(), Step::from_number(2));
        assert_eq!(Timestamp::from_seconds(-5).step(), Step::from_number(0));
    }
}
