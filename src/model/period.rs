//! How long a code lasts, and how far an authenticator's clock is off.

use crate::error::{Error, Result};

/// The length of a time step in seconds (RFC 6238 §4.1: X), 10 to 300.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(u16);

impl Period {
    /// The period of new enrolments. Every authenticator app assumes it.
    pub const ENROLMENT: Self = Self(30);

    /// A period of 10 to 300 seconds: a shorter one leaves no time to type, a longer one leaves too much to guess.
    pub fn from_seconds(seconds: u16) -> Result<Self> {
        if (10..=300).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Error::invalid("period", "expected 10 to 300 seconds"))
        }
    }

    /// A period from the database, whose CHECK has judged it.
    pub(crate) const fn from_trusted(seconds: u16) -> Self {
        // Zero would divide by zero.
        Self(if seconds == 0 { 30 } else { seconds })
    }

    /// The seconds.
    pub const fn seconds(self) -> u16 {
        self.0
    }
}

/// How many steps an authenticator's clock is ahead of ours, −20 to 20. Negative: it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Drift(i8);

impl Drift {
    /// The farthest that a clock may be off.
    pub(crate) const MAX_STEPS: i64 = 20;

    /// A clock that is right, as far as is known.
    pub const NONE: Self = Self(0);

    /// A drift of so many steps, if it is within the limit.
    pub fn from_steps(steps: i64) -> Option<Self> {
        let is_within = steps.unsigned_abs() <= Self::MAX_STEPS.unsigned_abs();
        i8::try_from(steps).ok().filter(|_| is_within).map(Self)
    }

    /// The number of steps.
    pub fn steps(self) -> i64 {
        i64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_ten_to_three_hundred_seconds() {
        for (seconds, is_good) in [
            (0, false),
            (9, false),
            (10, true),
            (300, true),
            (301, false),
        ] {
            assert_eq!(Period::from_seconds(seconds).is_ok(), is_good, "{seconds}");
        }
    }

    #[test]
    fn a_drift_is_at_most_twenty_steps() {
        for (steps, is_good) in [
            (i64::MIN, false),
            (-21, false),
            (-20, true),
            (0, true),
            (20, true),
            (21, false),
            (256, false),
        ] {
            let drift = Drift::from_steps(steps);
            assert_eq!(drift.map(Drift::steps), is_good.then_some(steps), "{steps}");
        }
    }
}
