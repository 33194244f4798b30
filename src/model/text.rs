//! Ids and names: free Unicode of bounded length, told apart by type so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The longest an id or a name may be, in characters. ZITADEL's protos say the same (`max_len: 200`).
const MAX_CHARS: usize = 200;

/// Text of 1 to 200 characters, whichever they are: what is looked for may have been made by other rules.
fn bounded(field: &'static str, text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    // A character has at most four bytes: whoever sends megabytes is told so without a count.
    if text.len() > MAX_CHARS.saturating_mul(4) || text.chars().count() > MAX_CHARS {
        return Err(Error::invalid(field, "must have at most 200 characters"));
    }
    Ok(text.to_owned())
}

/// Text of 1 to 200 characters that may be given to something new.
///
/// A newline cannot forge a line in a log or on a terminal, and no two texts look alike because of a character that
/// shows nothing.
fn visible(field: &'static str, text: &str) -> Result<String> {
    let bounded = bounded(field, text)?;
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not hold control characters"));
    }
    if text.chars().any(is_invisible) {
        return Err(Error::invalid(
            field,
            "must not hold characters that show nothing or change the direction of text",
        ));
    }
    if text.trim() != text {
        return Err(Error::invalid(
            field,
            "must not begin or end with white space",
        ));
    }
    Ok(bounded)
}

/// Separators of lines and paragraphs, controls of direction, and characters without a shape. The two joiners
/// (U+200C, U+200D) are not among them, because several scripts are spelled with them.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{2028}' | '\u{2029}'
            | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{00ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                $check($field, text).map(Self)
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
            pub(crate) const fn from_trusted(text: String) -> Self {
                Self(text)
            }
        }
    };
}

bounded_text!(
    /// A user's id: opaque, 1 to 200 characters; totpd's own or of the caller's choice. What is parsed may be given to a
    /// new user; an id to look for is read by [`Self::for_lookup`].
    UserId,
    "id",
    visible
);
bounded_text!(
    /// An authenticator's id, made by totpd. What is parsed is looked for.
    TotpId,
    "totpId",
    bounded
);
bounded_text!(
    /// An organization's id, made by totpd. What is parsed is looked for.
    OrgId,
    "organization",
    bounded
);
bounded_text!(
    /// A token's id, which names it without being the token. What is parsed is looked for.
    TokenId,
    "token",
    bounded
);
bounded_text!(
    /// A name a person chose: of a user, an authenticator, an organization, a token. What is parsed may be given to
    /// something new; a name to look for is read by [`Self::for_lookup`].
    Name,
    "name",
    visible
);
impl UserId {
    /// Reads an id to look for. It may hold characters that a new one must not: older users may have them.
    pub fn for_lookup(text: &str) -> Result<Self> {
        bounded("id", text).map(Self)
    }
}

impl Name {
    /// Reads a name that the caller knows under another field, so that the error says which.
    pub fn parse(field: &'static str, text: &str) -> Result<Self> {
        visible(field, text).map(Self)
    }

    /// Reads an issuer. The label of an enrolment's URI is `issuer:account`: a colon in the issuer would move the
    /// border between the two, and apps do not all undo percent-encoding.
    pub fn parse_issuer(field: &'static str, text: &str) -> Result<Self> {
        if text.contains(':') {
            return Err(Error::invalid(field, "must not hold a colon"));
        }
        Self::parse(field, text)
    }

    /// Reads a name to look for. It may hold characters that a new one must not: older names may have them.
    pub fn for_lookup(field: &'static str, text: &str) -> Result<Self> {
        bounded(field, text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_and_names_are_one_to_two_hundred_characters_that_can_be_seen() {
        for good in [
            "1",
            "a b/ü",
            "a  b",
            "a\u{a0}b",
            "می\u{200c}خواهم",
            "👩\u{200d}💻",
            &"ü".repeat(200),
        ] {
            assert_eq!(good.parse::<UserId>().unwrap().to_string(), good);
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        let long = ["ü".repeat(201), "x".repeat(100_000)];
        let invisible = [
            ('\0', '\u{1f}'),
            ('\u{7f}', '\u{9f}'),
            ('\u{ad}', '\u{ad}'),
            ('\u{61c}', '\u{61c}'),
            ('\u{200b}', '\u{200b}'),
            ('\u{200e}', '\u{200f}'),
            ('\u{2028}', '\u{202e}'),
            ('\u{2060}', '\u{2064}'),
            ('\u{2066}', '\u{2069}'),
            ('\u{feff}', '\u{feff}'),
            ('\u{e0000}', '\u{e007f}'),
        ];
        let forged = invisible
            .into_iter()
            .flat_map(|(first, last)| first..=last)
            .map(|it| format!("a{it}b"));
        let blanks = ["", " ", " a", "a ", "a\u{a0}", "\u{3000}a"].map(str::to_owned);
        for bad in long.into_iter().chain(forged).chain(blanks) {
            assert!(bad.parse::<UserId>().is_err(), "{bad:.20?}");
            assert!(bad.parse::<Name>().is_err(), "{bad:.20?}");
        }
    }

    #[test]
    fn what_is_looked_for_is_judged_by_its_length_alone() {
        for old in [" a ", "a\nb", "\0", "a\u{200b}", "\u{202e}a"] {
            assert_eq!(UserId::for_lookup(old).unwrap().as_str(), old);
            assert_eq!(Name::for_lookup("name", old).unwrap().as_str(), old);
            assert_eq!(old.parse::<TotpId>().unwrap().as_str(), old);
            assert_eq!(old.parse::<OrgId>().unwrap().as_str(), old);
        }
        for bad in ["", &"ü".repeat(201)] {
            assert!(UserId::for_lookup(bad).is_err());
            assert!(Name::for_lookup("name", bad).is_err());
            assert!(bad.parse::<TotpId>().is_err());
        }
    }

    #[test]
    fn an_issuer_holds_no_colon() {
        assert!(Name::parse_issuer("issuer", "Example & Co").is_ok());
        for bad in ["a:b", ":", "a\nb", "a "] {
            assert!(Name::parse_issuer("issuer", bad).is_err(), "{bad}");
        }
    }
}
