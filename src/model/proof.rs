//! What a person shows to prove that a change is theirs.

use std::str::FromStr;

use super::{Code, RecoveryCode};
use crate::error::{Error, Result};

/// A code that allows a change: a one-time code of an authenticator, or a recovery code.
///
/// It has no `Debug` and no `Display`, because it is a credential until it is used.
#[derive(Clone)]
pub enum Proof {
    /// A one-time code: six to nine digits.
    Code(Code),
    /// A recovery code.
    RecoveryCode(RecoveryCode),
}

/// Tells the two apart by their form: a recovery code has sixteen symbols.
impl FromStr for Proof {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(code) = text.parse() {
            return Ok(Self::Code(code));
        }
        let recovery = text.parse().map(Self::RecoveryCode);
        recovery.map_err(|_| {
            let problem = "expected 6 to 9 digits, or a recovery code";
            Error::invalid("Totpd-Code", problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_tells_a_one_time_code_from_a_recovery_code() {
        for (text, is_code) in [
            ("123456", true),
            ("123456789", true),
            ("1234567890123456", false),
            ("1234-5678-9012-3456", false),
            ("oiL0 abcd efgh jkmn", false),
        ] {
            let proof = text.parse::<Proof>().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(matches!(proof, Proof::Code(_)), is_code, "{text}");
        }
        for bad in [
            "",
            "12345",
            "1234567890",
            "123 456",
            "abcdef",
            "1234-5678-9012-345u",
        ] {
            let error = bad.parse::<Proof>().err().unwrap().to_string();
            assert!(error.starts_with("Totpd-Code: expected"), "{bad}: {error}");
        }
    }
}
