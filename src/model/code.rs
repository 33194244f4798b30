//! One-time codes, time steps, and the window of accepted steps.

use std::str::FromStr;

use zeroize::Zeroizing;

use super::{Drift, Period};
use crate::error::{Error, Result};

/// A one-time code as a person typed it: six to nine ASCII digits and nothing else.
///
/// It has no `Debug` and no `Display`, because it is a credential while its step lasts.
#[derive(Clone)]
pub struct Code(Zeroizing<String>);

impl FromStr for Code {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let well_formed =
            (6..=9).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        well_formed
            .then(|| Self(Zeroizing::new(text.to_owned())))
            .ok_or_else(|| Error::invalid("code", "expected 6 to 9 digits and nothing else"))
    }
}

impl Code {
    /// The digits, for the comparison and for programs that act as an authenticator app.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

/// The number of a time step: the moving factor of RFC 6238 §4.2. Steps of different periods cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(i64);

impl Step {
    /// The last used step of an authenticator that has used none. It is before every step.
    pub const NONE: Self = Self(-1);

    /// The step with this number.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The step that an authenticator shows during this one, if its clock is off by `drift`.
    #[must_use]
    pub fn shifted(self, drift: Drift) -> Self {
        Self(self.0.saturating_add(drift.steps()))
    }
}

/// With a longer period the step after the present one is never accepted: its code would be known for too long before.
const LONGEST_PERIOD_WITH_NEXT_STEP_S: u16 = 60;

/// The steps around the present one whose codes are accepted (RFC 6238 §5.2). Never more than one on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The present step only.
    Present,
    /// The present step, the one before and the one after.
    OneEitherSide,
}

impl Window {
    /// The number of steps before the present one.
    pub const fn steps(self) -> u16 {
        match self {
            Self::Present => 0,
            Self::OneEitherSide => 1,
        }
    }

    /// The number of steps after the present one: none where a period is over 60 seconds (RFC 6238 §5.2).
    pub const fn steps_after(self, period: Period) -> u16 {
        match self {
            Self::OneEitherSide if period.seconds() <= LONGEST_PERIOD_WITH_NEXT_STEP_S => 1,
            Self::Present | Self::OneEitherSide => 0,
        }
    }
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "0" => Ok(Self::Present),
            "1" => Ok(Self::OneEitherSide),
            _ => Err(Error::invalid("window", "expected 0 or 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SECURITY.md 4
    #[test]
    fn a_code_has_one_spelling() {
        for good in ["123456", "000000", "12345678", "123456789"] {
            assert!(good.parse::<Code>().is_ok(), "{good}");
        }
        let flood = "1".repeat(64 * 1024);
        for bad in [
            "",
            "12345",
            "1234567890",
            " 123456",
            "123456 ",
            "123 456",
            "12345\u{a0}6",
            "+12345",
            "-12345",
            "１２３４５６",
            "12345\0",
            "123456\n",
            "12345a",
            "٠١٢٣٤٥",
            &flood,
        ] {
            assert!(bad.parse::<Code>().is_err(), "{bad:.20}");
        }
    }

    /// SECURITY.md 7
    #[test]
    fn no_window_is_wider_than_one_step() {
        for (text, period_s, before, after) in [
            ("0", 30, 0, 0),
            ("0", 300, 0, 0),
            ("1", 10, 1, 1),
            ("1", 60, 1, 1),
            ("1", 61, 1, 0),
            ("1", 300, 1, 0),
        ] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.steps(), before);
            let period = Period::from_seconds(period_s).unwrap();
            assert_eq!(window.steps_after(period), after, "{period_s}");
        }
        for bad in ["2", "-1", "01", "", "one"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
