//! Recovery codes, which stand in for an authenticator that is lost (SECURITY.md 38).

use std::str::FromStr;

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Symbols in a code. Each stands for 5 bits, so a code has 80.
pub(crate) const SYMBOLS: usize = 16;
/// Symbols between two hyphens.
const GROUP: usize = 4;
/// The alphabet of Crockford's base32, in lower case. It leaves out I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Longer text is refused. A code with a hyphen and a blank on either side of each symbol is shorter.
const MAX_TEXT_BYTES: usize = 64;

/// A recovery code. All spellings of one code give the same value.
///
/// It has no `Debug` and no `Display`, because it is a credential until it is used.
#[derive(Clone)]
pub struct RecoveryCode(Zeroizing<[u8; SYMBOLS]>);

impl RecoveryCode {
    /// Takes the lower 5 bits of each byte.
    pub(crate) fn from_random(random: &[u8; SYMBOLS]) -> Self {
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        for (to, from) in symbols.iter_mut().zip(random) {
            *to = ALPHABET
                .get(usize::from(from & 31))
                .copied()
                .unwrap_or_default();
        }
        Self(symbols)
    }

    /// The symbols without hyphens, for the digest.
    pub(crate) fn symbols(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The code as it is shown, once: `xxxx-xxxx-xxxx-xxxx`.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT_BYTES));
        for (nth, group) in self.0.chunks(GROUP).enumerate() {
            if nth > 0 {
                text.push('-');
            }
            text.extend(group.iter().copied().map(char::from));
        }
        text
    }
}

/// Reads a code in any case, with or without hyphens and blanks. O is read as 0, and I and L as 1, as Crockford says.
impl FromStr for RecoveryCode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            let problem = "expected a recovery code, such as xxxx-xxxx-xxxx-xxxx";
            Error::invalid("code", problem)
        };
        if text.len() > MAX_TEXT_BYTES {
            return Err(malformed());
        }
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        let mut free = symbols.iter_mut();
        for byte in text.bytes().filter(|it| !matches!(it, b' ' | b'-')) {
            let symbol = match byte.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            if !ALPHABET.contains(&symbol) {
                return Err(malformed());
            }
            *free.next().ok_or_else(malformed)? = symbol;
        }
        if free.next().is_some() {
            return Err(malformed());
        }
        Ok(Self(symbols))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let code = text.parse::<RecoveryCode>().ok()?;
        Some(code.text().to_string())
    }

    /// SECURITY.md 38
    #[test]
    fn all_spellings_of_a_code_are_one_code() {
        let shown = "0123-456a-bj1z-0011";
        for spelling in [
            shown,
            "0123456ABJ1Z0011",
            "o123 456a bjlz ooil",
            " O12-3456-A-BJ-IZ-00LI ",
            "0-1-2-3-4-5-6-a-b-j-1-z-0-0-1-1",
            "0123\u{2d}456A BJ1Z0011",
        ] {
            assert_eq!(read(spelling).as_deref(), Some(shown), "{spelling}");
        }
    }

    /// SECURITY.md 38
    #[test]
    fn what_is_no_code_is_malformed() {
        let long = format!("{}0123-456a-bj1z-0011", " ".repeat(64));
        for bad in [
            "",
            "123456",
            "0123-456a-bj1z-001",
            "0123-456a-bj1z-00111",
            "0123-456u-bj1z-0011",
            "0123_456a_bj1z_0011",
            "0123\u{a0}456a-bj1z-0011",
            "0123\t456abj1z0011",
            "0123-456a-bj1z-001é",
            "\u{ff10}123-456a-bj1z-0011",
            "0123-456a-bj1z-001\0",
            "0123-456a-bj1z-0011\n",
            &long,
            &"-".repeat(16),
            &"0".repeat(64 * 1024),
        ] {
            assert!(read(bad).is_none(), "{bad:.30}");
        }
    }

    #[test]
    fn random_bytes_give_every_symbol_and_no_other() {
        let mut seen = std::collections::BTreeSet::new();
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for random in all.chunks(SYMBOLS) {
            let code = RecoveryCode::from_random(random.try_into().unwrap());
            assert_eq!(read(&code.text()).as_deref(), Some(code.text().as_str()));
            seen.extend(code.symbols().iter().copied());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ALPHABET);
    }
}
