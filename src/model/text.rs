//! Ids and names: free Unicode of bounded length, told apart by type so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The longest an id or a name may be, in characters. ZITADEL's protos say the same (`max_len: 200`).
const MAX_CHARS: usize = 200;

/// 1 to 200 characters, none of them a control character: a newline in a name must not be able to
/// forge a line in a log or on a terminal.
fn bounded(field: &'static str, text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    // A character has at most four bytes: whoever sends megabytes is told so without a count.
    if text.len() > MAX_CHARS.saturating_mul(4) || text.chars().count() > MAX_CHARS {
        return Err(Error::invalid(field, "must have at most 200 characters"));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not hold control characters"));
    }
    Ok(text.to_owned())
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                bounded($field, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// What totpd itself wrote or made needs no second judgement.
            pub(crate) const fn known(text: String) -> Self {
                Self(text)
            }
        }
    };
}

bounded_text!(
    /// A user's id: opaque, 1 to 200 characters; totpd's own or of the caller's choice.
    UserId,
    "id"
);
bounded_text!(
    /// An authenticator's id, made by totpd.
    TotpId,
    "totpId"
);
bounded_text!(
    /// An organization's id.
    OrgId,
    "organization"
);
bounded_text!(
    /// A token's id, which names it without being the token.
    TokenId,
    "token"
);
bounded_text!(
    /// A name a person chose: of a user, an authenticator, an organization, a token, an issuer.
    Name,
    "name"
);

impl Name {
    /// Reads a name that the caller knows under another field, so that the error says which.
    pub fn parse(field: &'static str, text: &str) -> Result<Self> {
        bounded(field, text).map(Self)
    }

    /// Reads an issuer. The label of an enrolment's URI is `issuer:account`: a colon in the issuer would move the
    /// border between the two, and apps do not all undo percent-encoding.
    pub fn parse_issuer(field: &'static str, text: &str) -> Result<Self> {
        if text.contains(':') {
            return Err(Error::invalid(field, "must not hold a colon"));
        }
        Self::parse(field, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_to_two_hundred_characters_without_control_characters() {
        for good in ["1", "a b/ü", &"ü".repeat(200)] {
            assert_eq!(good.parse::<UserId>().unwrap().to_string(), good);
        }
        for bad in ["", "a\nb", "\u{85}", &"ü".repeat(201), &"x".repeat(100_000)] {
            assert!(bad.parse::<UserId>().is_err(), "{} bytes", bad.len());
        }
    }
}
