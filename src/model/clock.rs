//! What the clocks of a machine say, and which of it no right clock can say.

use std::time::Duration;

use super::Timestamp;
use crate::error::{Error, Result};

/// The day on which this version was made: no right clock is earlier.
///
/// A constant and not the time of a build, so that one source always builds the same program.
pub const VERSION_DATE: Timestamp = Timestamp::from_seconds(1_795_392_000);

/// No version is in use for more than 20 years: no right clock is later.
pub(crate) const LATEST_PLAUSIBLE_TIME: Timestamp =
    Timestamp::from_seconds(1_795_392_000 + 7_305 * 86_400);

/// A clock that stands this much later than what is on record may be wrong: nothing is deleted by age until a person
/// confirms it.
pub(crate) const LONGEST_EVENT_GAP: Duration = Duration::from_hours(30 * 24);

/// What two clocks of the machine say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock. It may be wrong, and it may jump either way.
    pub now: Timestamp,
    /// The time since the machine started, sleep included. It never jumps, and starts anew with the machine.
    pub since_boot: Duration,
}

/// Refuses a clock that is earlier than this version, or 20 years later. What is made by such a clock would have
/// expired, or would lie in the future, as soon as the clock is right.
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

    /// Who changes the version changes the date too.
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
