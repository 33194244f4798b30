//! The fields of an authenticator as other programs write them: secrets, algorithms, digits, periods, names.
//!
//! A fault never repeats what it is about: a value in the wrong place may be a secret.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use data_encoding::{BASE32_NOPAD, BASE64, BASE64_NOPAD, Encoding, HEXLOWER_PERMISSIVE};
use serde_json::value::RawValue;
use totpd::api::messages::read_data;
use totpd::model::{Drift, Name, Period, Timestamp, UserId};
use totpd::service::{ImportRow, ImportTotp, ImportUser, NewUsername, State};
use totpd::totp::{Algorithm, Parameters, Secret};
use zeroize::Zeroizing;

/// The most data of a user: the most that a request has.
const MAX_DATA_BYTES: usize = 64 << 10;

/// Why a row is not taken. It repeats nothing of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(Cow<'static, str>);

impl Fault {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How secrets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecretRule {
    /// Whether secrets under 128 bits are taken (SECURITY.md 24).
    pub(crate) allows_short: bool,
}

/// An authenticator as a file describes it, in text. What is missing has the value that all programs assume.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) user_id: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) secret: Option<Secret>,
    pub(crate) algorithm: Option<String>,
    pub(crate) digits: Option<String>,
    pub(crate) period: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) created: Option<Timestamp>,
    /// Whether the user is disabled there. It is made inactive here.
    pub(crate) is_disabled: bool,
}

impl Draft {
    /// The row, if every field is good.
    pub(crate) fn finish(self) -> Result<ImportRow, Fault> {
        let username = self.username.as_deref().and_then(given);
        let id = self.user_id.as_deref().and_then(given);
        if username.is_none() && id.is_none() {
            return Err(Fault::new("it names no user; --user NAME says whose it is"));
        }
        let secret = self.secret.ok_or_else(|| Fault::new("it has no secret"))?;
        let user = ImportUser {
            id: id.map(user_id).transpose()?,
            usernames: username
                .map(new_username)
                .transpose()?
                .into_iter()
                .collect(),
            state: if self.is_disabled {
                State::Inactive
            } else {
                State::Active
            },
            schema_id: None,
            data: None,
        };
        let totp = ImportTotp {
            secret,
            parameters: Parameters {
                algorithm: algorithm(self.algorithm.as_deref().unwrap_or_default())?,
                digits: digits(self.digits.as_deref().unwrap_or_default())?,
                period: period(self.period.as_deref().unwrap_or_default())?,
            },
            name: self
                .name
                .as_deref()
                .and_then(given)
                .map(totp_name)
                .transpose()?,
            drift: Drift::NONE,
            created: self.created,
        };
        Ok(ImportRow {
            user,
            totp: Some(totp),
        })
    }
}

/// The text without white space around it, if there is any.
pub(crate) fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|it| !it.is_empty())
}

pub(crate) fn user_id(text: &str) -> Result<UserId, Fault> {
    let reason =
        "the user's id is longer than 200 characters, or holds characters that cannot be seen";
    text.parse().map_err(|_| Fault::new(reason))
}

pub(crate) fn username(text: &str) -> Result<Name, Fault> {
    let reason =
        "the username is longer than 200 characters, or holds characters that cannot be seen";
    Name::parse("username", text).map_err(|_| Fault::new(reason))
}

fn new_username(text: &str) -> Result<NewUsername, Fault> {
    Ok(NewUsername {
        username: username(text)?,
        is_organization_specific: false,
    })
}

/// Refuses a row of another organization than the first one names: an import fills one.
pub(crate) fn require_same_organization(
    first: &mut Option<String>,
    named: Option<&str>,
) -> Result<(), Fault> {
    let Some(named) = named else {
        return Ok(());
    };
    if first.get_or_insert_with(|| named.to_owned()) == named {
        return Ok(());
    }
    let reason = "it is of another organization than the first one; export and import each by itself (--org)";
    Err(Fault::new(reason))
}

/// A user's data, within the bounds of the API.
pub(crate) fn data(json: &RawValue) -> Result<String, Fault> {
    if json.get().len() > MAX_DATA_BYTES {
        return Err(Fault::new("its data has more than 64 KiB"));
    }
    read_data(json.get()).map_err(|_| {
        Fault::new(
            "its data is no object, or has more than 2,000 values, or is nested over 30 deep",
        )
    })
}

pub(crate) fn totp_name(text: &str) -> Result<Name, Fault> {
    let reason = "the authenticator's name is longer than 200 characters, or holds characters that cannot be seen";
    Name::parse("name", text).map_err(|_| Fault::new(reason))
}

/// The algorithm, in any of the spellings in use: `SHA1`, `sha-256`, `HmacSHA512`. SHA-1 if there is none.
pub(crate) fn algorithm(text: &str) -> Result<Algorithm, Fault> {
    let is_kept = |it: &char| !matches!(it, '-' | '_' | ' ');
    let plain: String = text.to_ascii_lowercase().chars().filter(is_kept).collect();
    match plain.strip_prefix("hmac").unwrap_or(&plain) {
        "" | "sha1" => Ok(Algorithm::Sha1),
        "sha256" => Ok(Algorithm::Sha256),
        "sha512" => Ok(Algorithm::Sha512),
        _ => Err(Fault::new(
            "its algorithm is none of SHA1, SHA256 and SHA512",
        )),
    }
}

/// The length of a code. Six if there is none.
pub(crate) fn digits(text: &str) -> Result<u8, Fault> {
    let Some(text) = given(text) else {
        return Ok(Parameters::ENROLMENT.digits);
    };
    let digits = text.parse().ok().filter(|it| (6..=9).contains(it));
    digits.ok_or_else(|| Fault::new("its codes do not have 6 to 9 digits"))
}

/// The period in seconds. Thirty if there is none.
pub(crate) fn period(text: &str) -> Result<Period, Fault> {
    let Some(text) = given(text) else {
        return Ok(Parameters::ENROLMENT.period);
    };
    let seconds = text.parse().ok();
    let period = seconds.and_then(|it| Period::from_seconds(it).ok());
    period.ok_or_else(|| Fault::new("its period is not 10 to 300 seconds"))
}

/// A time in RFC 3339, also with a blank in place of the `T`.
pub(crate) fn time(text: &str) -> Result<Timestamp, Fault> {
    let text = text.trim().replacen(' ', "T", 1);
    text.parse()
        .map_err(|_| Fault::new("its time of creation is not like 2026-11-23T17:06:19Z"))
}

/// Base32 without padding, whose last character may carry bits that no byte takes. Programs in use write such.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = BASE32_NOPAD.specification();
    specification.check_trailing_bits = false;
    specification.encoding().unwrap_or(BASE32_NOPAD)
});

impl SecretRule {
    /// A secret in base32 as people and programs write it: in any case, with blanks, hyphens and padding.
    pub(crate) fn base32(self, text: &str) -> Result<Secret, Fault> {
        let kept = text.bytes().filter(|it| !matches!(it, b' ' | b'-' | b'='));
        let plain: Zeroizing<Vec<u8>> =
            Zeroizing::new(kept.map(|it| it.to_ascii_uppercase()).collect());
        if plain
            .iter()
            .any(|it| matches!(it, b'0' | b'1' | b'8' | b'9'))
        {
            let reason = "the secret is not base32, in which 0, 1, 8 and 9 do not occur";
            return Err(Fault::new(reason));
        }
        let bytes = BASE32.decode(&plain).map(Zeroizing::new);
        self.bytes(&bytes.map_err(|_| Fault::new("the secret is not base32"))?)
    }

    pub(crate) fn hex(self, text: &str) -> Result<Secret, Fault> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .map(Zeroizing::new);
        self.bytes(&bytes.map_err(|_| Fault::new("the secret is not hexadecimal"))?)
    }

    pub(crate) fn base64(self, text: &str) -> Result<Secret, Fault> {
        self.bytes(&base64(text).ok_or_else(|| Fault::new("the secret is not base64"))?)
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<Secret, Fault> {
        let secret = Secret::from_bytes_or_short(bytes).map_err(|_| {
            Fault::new(format!(
                "the secret has {} bits; 80 are the fewest and 1,024 the most that are taken",
                bytes.len().saturating_mul(8)
            ))
        })?;
        if secret.is_short() && !self.allows_short {
            return Err(Fault::new(format!(
                "the secret has {} bits, fewer than 128; --allow-short-secrets takes it",
                bytes.len().saturating_mul(8)
            )));
        }
        Ok(secret)
    }
}

/// Standard base64, with padding or without.
pub(crate) fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let kept = text.bytes().filter(|it| !it.is_ascii_whitespace());
    let plain = Zeroizing::new(kept.collect::<Vec<u8>>());
    let bytes = BASE64
        .decode(&plain)
        .or_else(|_| BASE64_NOPAD.decode(&plain));
    bytes.ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SecretRule = SecretRule {
        allows_short: false,
    };

    fn read(secret: &Result<Secret, Fault>) -> Result<usize, String> {
        match secret {
            Ok(it) => Ok(it.base32().len()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    #[test]
    fn base32_is_read_as_people_write_it() {
        let plain = RULE
            .base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
            .ok()
            .unwrap();
        for text in [
            "gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
            "gezd gnbv gy3t qojq gezd gnbv gy3t qojq",
            "GEZD-GNBV-GY3T-QOJQ-GEZD-GNBV-GY3T-QOJQ",
            " GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ======",
        ] {
            let read = RULE.base32(text).ok().unwrap();
            assert_eq!(*read.base32(), *plain.base32(), "{text}");
        }
        // 26 characters are 130 bits, of which the last two are no part of a byte.
        assert_eq!(read(&RULE.base32("ABCDEFGHIJKLMNOPQRSTUVWXYZ")), Ok(26));
        for bad in ["0EZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "1", "8", "9"] {
            assert!(
                read(&RULE.base32(bad))
                    .unwrap_err()
                    .contains("0, 1, 8 and 9")
            );
        }
        for bad in ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQA", "ä", "A_B", "A\nB"] {
            assert_eq!(
                read(&RULE.base32(bad)).unwrap_err(),
                "the secret is not base32"
            );
        }
    }

    /// SECURITY.md 24
    #[test]
    fn short_secrets_are_taken_only_if_that_is_said_and_very_short_ones_never() {
        let said = SecretRule { allows_short: true };
        for (length, with, without) in [
            (0, false, false),
            (2, false, false),
            (9, false, false),
            (10, true, false),
            (15, true, false),
            (16, true, true),
            (128, true, true),
            (129, false, false),
        ] {
            let bytes = vec![7; length];
            assert_eq!(said.bytes(&bytes).is_ok(), with, "{length}");
            assert_eq!(RULE.bytes(&bytes).is_ok(), without, "{length}");
        }
        let told = RULE.bytes(&[7; 10]).err().unwrap().to_string();
        assert!(
            told.contains("80 bits") && told.contains("--allow-short-secrets"),
            "{told}"
        );
    }

    #[test]
    fn parameters_are_read_in_every_spelling_and_others_refused() {
        for (text, expected) in [
            ("", Algorithm::Sha1),
            ("sha1", Algorithm::Sha1),
            ("HmacSHA1", Algorithm::Sha1),
            ("SHA-256", Algorithm::Sha256),
            ("hmac-sha-512", Algorithm::Sha512),
        ] {
            assert_eq!(algorithm(text), Ok(expected), "{text}");
        }
        for bad in ["MD5", "SHA3", "SHA2560", "hmac hmac"] {
            assert!(algorithm(bad).is_err(), "{bad}");
        }
        for (text, expected) in [
            ("", Some(6)),
            ("7", Some(7)),
            (" 9 ", Some(9)),
            ("5", None),
            ("10", None),
            ("six", None),
            ("-6", None),
        ] {
            assert_eq!(digits(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("", Some(30)),
            ("10", Some(10)),
            ("300", Some(300)),
            ("0", None),
            ("9", None),
            ("301", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(period(text).ok().map(Period::seconds), expected, "{text}");
        }
    }
}
