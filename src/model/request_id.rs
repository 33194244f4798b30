//! The id of a request, by which its answer, its log lines and its events are found together.

use std::str::FromStr;

use crate::error::{Error, Result};

const MAX_LENGTH: usize = 64;

/// An id of a request: 1 to 64 of `A-Za-z0-9._-`, so that it can stand in a header and in a line of a log as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// An id of 32 hexadecimal digits.
    pub fn of_numbers(high: u64, low: u64) -> Self {
        Self(format!("{high:016x}{low:016x}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_allowed = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
        if (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            let problem = "expected 1 to 64 letters, digits, dots, underscores and hyphens";
            Err(Error::invalid("request id", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_holds_nothing_that_could_forge_a_line() {
        let longest = "a".repeat(64);
        for good in ["a", "A-Z.a_z-09", longest.as_str()] {
            assert_eq!(good.parse::<RequestId>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(65);
        for bad in [
            "",
            " a",
            "a b",
            "a\nb",
            "ä",
            "a\"b",
            "a,b",
            "a/b",
            too_long.as_str(),
        ] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad:?}");
        }
        assert_eq!(RequestId::of_numbers(1, u64::MAX).as_str().len(), 32);
    }
}
