//! One-time codes, time steps, and the window of accepted steps.

use std::str::FromStr;

use zeroize::Zeroizing;

use super::Timestamp;
use crate::error::{Error, Result};

/// The length of a time step in seconds (RFC 6238 §4.1: X = 30). Every authenticator app assumes it.
pub(crate) const PERIOD_S: i64 = 30;

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

/// The number of a time step: the moving factor of RFC 6238 §4.2.
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

    /// The time at which this step ends.
    pub(crate) const fn end(self) -> Timestamp {
        Timestamp::from_seconds(self.0.saturating_add(1).saturating_mul(PERIOD_S))
    }
}

/// The steps around the present one whose codes are accepted (RFC 6238 §5.2). Never more than one on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The present step only.
    Present,
    /// The present step, the one before and the one after.
    OneEitherSide,
}

impl Window {
    /// The number of steps on either side.
    pub const fn steps(self) -> u16 {
        match self {
            Self::Present => 0,
            Self::OneEitherSide => 1,
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
        assert_eq!("0".parse::<Window>().unwrap().steps(), 0);
        assert_eq!("1".parse::<Window>().unwrap().steps(), 1);
        for bad in ["2", "-1", "01", "", "one"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }
}
