//! Points in time, as microseconds since the Unix epoch. Only the command line reads the clock.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use time::{Date, Month, OffsetDateTime, Time};

use super::{Period, Step};
use crate::error::{Error, Result};

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

    /// The time step of this period at this time (RFC 6238 §4.2, T0 = 0). Step 0 before 1970.
    pub fn step(self, period: Period) -> Step {
        Step::from_number(
            self.seconds()
                .div_euclid(i64::from(period.seconds()))
                .max(0),
        )
    }

    /// Whole seconds since 1970.
    pub(crate) const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
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

/// RFC 3339 in any offset, with up to nine digits of a second's fraction, of which six count.
impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "expected a time such as 2026-11-23T17:06:19Z";
        parse_rfc_3339(text).ok_or_else(|| Error::invalid("time", expected))
    }
}

fn parse_rfc_3339(text: &str) -> Option<Timestamp> {
    let (head, rest) = text.split_at_checked(19)?;
    let is_laid_out = head.bytes().zip(*b"0000-00-00T00:00:00").all(|(it, form)| {
        if form == b'0' {
            it.is_ascii_digit()
        } else {
            it == form
        }
    });
    if !is_laid_out {
        return None;
    }
    let number = |at: std::ops::Range<usize>| head.get(at)?.parse::<u8>().ok();
    let year = head.get(0..4)?.parse().ok().filter(|it| *it > 0)?;
    let month = Month::try_from(number(5..7)?).ok()?;
    let date = Date::from_calendar_date(year, month, number(8..10)?).ok()?;
    let (micros, offset) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let length = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, offset) = rest.split_at_checked(length)?;
            if !(1..=9).contains(&length) {
                return None;
            }
            (format!("{digits:0<6}").get(..6)?.parse().ok()?, offset)
        }
    };
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let time = Time::from_hms_micro(hour, minute, second, micros).ok()?;
    let at = date.with_time(time).assume_utc().unix_timestamp_nanos();
    let micros = i64::try_from(at.div_euclid(1_000)).ok()?;
    let ahead_s = offset_s(offset)?;
    Some(Timestamp(
        micros.saturating_sub(ahead_s.saturating_mul(1_000_000)),
    ))
}

/// The seconds that an offset is ahead of UTC.
fn offset_s(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, clock) = text.split_at_checked(1)?;
    let (hours, minutes) = clock.split_once(':')?;
    let two = |text: &str, most: i64| {
        let digits = text.len() == 2 && text.bytes().all(|it| it.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .filter(|it: &i64| *it <= most)
    };
    let minutes = two(hours, 23)?
        .saturating_mul(60)
        .saturating_add(two(minutes, 59)?);
    match sign {
        "+" => Some(minutes.saturating_mul(60)),
        "-" => Some(minutes.saturating_mul(-60)),
        _ => None,
    }
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

/// Reads a length of time: a number and one of d, h, m, s, ms. The error says what is expected.
pub fn parse_span(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a number with d, h, m, s or ms, such as 90d";
    // `ms` comes first, because it also ends with `s`.
    let (number, unit_ms) = [
        ("ms", 1),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ]
    .into_iter()
    .find_map(|(unit, milliseconds)| Some((text.strip_suffix(unit)?, milliseconds)))
    .ok_or(EXPECTED)?;
    let number: u64 = Some(number)
        .filter(|it| it.bytes().all(|it| it.is_ascii_digit()))
        .and_then(|it| it.parse().ok())
        .filter(|it| *it > 0)
        .ok_or(EXPECTED)?;
    // A century is longer than any useful value, and adding it to a time does not overflow.
    number
        .checked_mul(unit_ms)
        .filter(|it| *it <= 36_500 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or("expected at most 36500d")
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
    fn a_time_is_read_as_rfc_3339_and_no_other_way() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-23T17:06:19.000007Z", 1_795_453_579_000_007),
            ("2026-11-23T18:06:19.0000079+01:00", 1_795_453_579_000_007),
            ("2026-11-23T12:36:19.5-04:30", 1_795_453_579_500_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
            ("9999-12-31T23:59:59.999999999Z", 253_402_300_799_999_999),
        ] {
            assert_eq!(
                text.parse::<Timestamp>().unwrap().micros(),
                micros,
                "{text}"
            );
        }
        for bad in [
            "",
            "now",
            "2026-11-23",
            "2026-11-23T17:06:19",
            "2026-11-23 17:06:19Z",
            "2026-11-23t17:06:19Z",
            "2026-11-23T17:06:19z",
            "2026-11-23T17:06Z",
            "2026-02-30T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T17:06:60Z",
            "0000-01-01T00:00:00Z",
            "2026-11-23T17:06:19.Z",
            "2026-11-23T17:06:19.1234567890Z",
            "2026-11-23T17:06:19+1:00",
            "2026-11-23T17:06:19+24:00",
            "2026-11-23T17:06:19+01:60",
            "+026-11-23T17:06:19Z",
            "2026-11-23T17:06:19Z ",
            "٢026-11-23T17:06:19Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_step_is_as_long_as_its_period() {
        for (at, period_s, step) in [
            (59, 30, 1),
            (60, 30, 2),
            (-5, 30, 0),
            (59, 10, 5),
            (599, 300, 1),
            (600, 300, 2),
        ] {
            let period = Period::from_seconds(period_s).unwrap();
            let at = Timestamp::from_seconds(at);
            assert_eq!(at.step(period), Step::from_number(step), "{at}");
        }
    }
}
