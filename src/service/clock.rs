//! Whether the wall clock has run evenly of late: nothing is deleted by age on the word of one that has not.
//!
//! Reads no clock and no database: it judges the readings that it is given (SECURITY.md 36).

use std::time::Duration;

use crate::model::{ClockReading, Timestamp};

/// A wall clock that moved this much differently within [`STEADY_AFTER`] has jumped. Drift and leap seconds stay
/// far below it, and a service that sets the clock once jumps over it.
const JUMP: Duration = Duration::from_mins(1);
/// A clock is steady when it has run for this long without a jump.
const STEADY_AFTER: Duration = Duration::from_hours(1);

/// The readings of one process.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    /// What the next reading is compared with, and since when there was no jump.
    known: Option<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The time since boot of the first reading of all.
    begun: Duration,
    /// Renewed every hour, so that drift does not add up to a jump.
    reference: ClockReading,
    /// The same of the first reading, or of the last jump.
    steady_since: Duration,
}

/// How far the wall clock moved from where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jump {
    Ahead(Duration),
    Back(Duration),
}

impl ClockWatch {
    /// Takes a reading, and says so if the wall clock has jumped since earlier ones.
    pub(super) fn observe(&mut self, reading: ClockReading) -> Option<Jump> {
        let fresh = Known {
            begun: reading.since_boot,
            reference: reading,
            steady_since: reading.since_boot,
        };
        let known = self.known.get_or_insert(fresh);
        let passed = reading
            .since_boot
            .saturating_sub(known.reference.since_boot);
        let expected = known.reference.now.after(passed);
        let jump = jump(expected, reading.now);
        if jump.is_some() {
            let begun = known.begun;
            *known = Known { begun, ..fresh };
        } else if passed >= STEADY_AFTER {
            known.reference = reading;
        }
        jump
    }

    /// How long the readings go on, if there was no jump in the hour before this one, which was observed.
    pub(super) fn steady_for(&self, reading: ClockReading) -> Option<Duration> {
        let known = self.known?;
        let steady = reading.since_boot.saturating_sub(known.steady_since);
        (steady >= STEADY_AFTER).then(|| reading.since_boot.saturating_sub(known.begun))
    }
}

fn jump(expected: Timestamp, now: Timestamp) -> Option<Jump> {
    let (ahead, back) = (now.since(expected), expected.since(now));
    if ahead > JUMP {
        Some(Jump::Ahead(ahead))
    } else if back > JUMP {
        Some(Jump::Back(back))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose wall clock can be set.
    struct Machine {
        watch: ClockWatch,
        reading: ClockReading,
    }

    impl Machine {
        fn new() -> Self {
            let reading = ClockReading {
                now: Timestamp::from_seconds(1_795_453_575),
                since_boot: Duration::from_secs(700),
            };
            let mut watch = ClockWatch::default();
            assert_eq!(watch.observe(reading), None);
            Self { watch, reading }
        }

        /// Lets time pass, during which the wall clock moves by `wall` and not by what passed.
        fn pass(&mut self, passed: Duration, wall: Duration) -> Option<Jump> {
            self.reading.since_boot = self.reading.since_boot.saturating_add(passed);
            self.reading.now = self.reading.now.after(wall);
            self.watch.observe(self.reading)
        }

        fn is_steady(&self) -> bool {
            self.watch.steady_for(self.reading).is_some()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);
    const YEAR: Duration = Duration::from_hours(24 * 365);

    #[test]
    fn a_clock_is_steady_after_an_hour_without_a_jump() {
        let mut machine = Machine::new();
        for _ in 0..59 {
            assert_eq!(machine.pass(MINUTE, MINUTE), None);
            assert!(!machine.is_steady());
        }
        machine.pass(MINUTE, MINUTE);
        assert!(machine.is_steady());
        let ahead = machine.pass(MINUTE, MINUTE + YEAR);
        assert_eq!(ahead, Some(Jump::Ahead(YEAR)));
        assert!(!machine.is_steady());
        let almost = HOUR.saturating_sub(SECOND);
        assert_eq!(machine.pass(almost, almost), None);
        assert!(!machine.is_steady());
        machine.pass(SECOND, SECOND);
        assert!(machine.is_steady());
    }

    #[test]
    fn a_jump_is_told_once_and_putting_it_right_is_one_more() {
        let mut machine = Machine::new();
        assert_eq!(machine.pass(MINUTE, MINUTE + HOUR), Some(Jump::Ahead(HOUR)));
        assert_eq!(machine.pass(MINUTE, MINUTE), None);
        machine.reading.now = machine.reading.now.before(HOUR);
        assert_eq!(machine.pass(MINUTE, MINUTE), Some(Jump::Back(HOUR)));
        assert_eq!(machine.pass(MINUTE, MINUTE), None);
    }

    #[test]
    fn a_minute_within_an_hour_is_no_jump_and_steps_that_add_up_are_one() {
        let mut machine = Machine::new();
        assert_eq!(machine.pass(MINUTE, 2 * MINUTE), None);
        assert_eq!(machine.pass(MINUTE, MINUTE), None);
        let more = machine.pass(MINUTE, MINUTE + SECOND);
        assert_eq!(more, Some(Jump::Ahead(MINUTE + SECOND)));
    }

    #[test]
    fn drift_and_a_long_sleep_are_no_jumps() {
        let mut machine = Machine::new();
        // Half a per cent: more than any clock drifts.
        for _ in 0..48 {
            assert_eq!(machine.pass(HOUR, HOUR + 18 * SECOND), None);
        }
        assert_eq!(machine.pass(30 * 24 * HOUR, 30 * 24 * HOUR), None);
        assert!(machine.is_steady());
    }
}
