//! Detects jumps of the wall clock: nothing is deleted by age until the clock has run for an hour without one.
//!
//! Reads no clock and no database: readings are passed in (SECURITY.md 36).

use std::time::Duration;

use crate::model::{ClockReading, Timestamp};

/// A difference of this much between the wall clock and the time since boot within [`STEADY_AFTER`] is a jump. Drift and
/// leap seconds stay far below it.
const JUMP: Duration = Duration::from_mins(1);
/// A clock is steady when it has run for this long without a jump.
const STEADY_AFTER: Duration = Duration::from_hours(1);

/// Compares the clock readings of one process.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    /// `None` before the first reading.
    baseline: Option<Baseline>,
}

/// What the next reading is compared with. All times are since boot.
#[derive(Debug, Clone, Copy)]
struct Baseline {
    /// The first reading of the process.
    first: Duration,
    /// Renewed every hour, so that drift does not add up to a jump.
    reference: ClockReading,
    /// The first reading, or the one that showed the last jump.
    steady_since: Duration,
}

/// How far the wall clock is from where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jump {
    Ahead(Duration),
    Back(Duration),
}

impl ClockWatch {
    /// Records a reading. Returns how far the wall clock has jumped, if it has.
    pub(super) fn observe(&mut self, reading: ClockReading) -> Option<Jump> {
        let fresh = Baseline {
            first: reading.since_boot,
            reference: reading,
            steady_since: reading.since_boot,
        };
        let baseline = self.baseline.get_or_insert(fresh);
        let passed = reading
            .since_boot
            .saturating_sub(baseline.reference.since_boot);
        let expected = baseline.reference.now.after(passed);
        let jump = jump(expected, reading.now);
        if jump.is_some() {
            let first = baseline.first;
            *baseline = Baseline { first, ..fresh };
        } else if passed >= STEADY_AFTER {
            baseline.reference = reading;
        }
        jump
    }

    /// The time since the first reading, if there was no jump in the hour before `reading`, which was observed already.
    pub(super) fn steady_for(&self, reading: ClockReading) -> Option<Duration> {
        let baseline = self.baseline?;
        let steady = reading.since_boot.saturating_sub(baseline.steady_since);
        (steady >= STEADY_AFTER).then(|| reading.since_boot.saturating_sub(baseline.first))
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
