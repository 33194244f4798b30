//! Readings of the machine's clocks, and the bounds of a plausible time.

use std::time::Duration;

use super::Timestamp;
use crate::error::{Error, Result};

/// The date of this version. No correct clock is earlier.
///
/// A constant, not the time of the build, so that builds are reproducible.
pub const VERSION_DATE: Timestamp = Timestamp::from_seconds(1_795_392_000);

/// 20 years after this version. No version is in use for so long, so no correct clock is later.
pub(crate) const LATEST_PLAUSIBLE_TIME: Timestamp =
    Timestamp::from_seconds(1_795_392_000 + 7_305 * 86_400);

/// A clock that is this much later than the newest event may be wrong: nothing is deleted by age until a person confirms
/// the clock.
pub(crate) const LONGEST_EVENT_GAP: Duration = Duration::from_hours(30 * 24);

/// The readings of two clocks of the machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock. It may be wrong, and it may jump either way.
    pub now: Timestamp,
    /// The time since the machine booted, including sleep. It never jumps.
    pub since_boot: Duration,
}

/// Refuses a clock that is earlier than this version or over 20 years later. Whatever such a clock dates would be expired or
/// in the future as soon as the clock is right.
pub(crate) fn require_plausible(now: Timestamp) -> Result<()> {
    let problem = if now < VERSION_DATE {
        format!("it says {now}, but this version of totpd was made on {VERSION_DATE}; set it right")
    } else if now > LATEST_PLAUSIBLE_TIME {
        format!("it says {now}, over 20 years after this version of totpd was made; set it right")
    } else {
        return Ok(());
    };
    Err(Error::invalid("the clock", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when the version changes, as a reminder to change the date too.
    #[test]
    fn the_version_has_its_date() {
        assert_eq!(env!("CARGO_PKG_VERSION"), "0.1.0");
        assert_eq!(VERSION_DATE.to_string(), "2026-11-23T00:00:00.000000Z");
        assert_eq!(
            LATEST_PLAUSIBLE_TIME.to_string(),
            "2046-11-23T00:00:00.000000Z"
        );
    }

    /// SECURITY.md 36
    #[test]
    fn a_clock_before_this_version_or_long_after_it_is_refused() {
        let second = Duration::from_secs(1);
        for (now, is_plausible) in [
            (Timestamp::from_seconds(0), false),
            (VERSION_DATE.before(second), false),
            (VERSION_DATE, true),
            (LATEST_PLAUSIBLE_TIME, true),
            (LATEST_PLAUSIBLE_TIME.after(second), false),
            (Timestamp::from_micros(i64::MAX), false),
        ] {
            assert_eq!(require_plausible(now).is_ok(), is_plausible, "{now}");
        }
    }
}
