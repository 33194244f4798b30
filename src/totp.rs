//! The arithmetic of an authenticator (RFC 6238), its secret, its URI, and the waits after failures (RFC 4226 §7.3).
//!
//! Knows no database, no users and no clock.

mod drift;

use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

pub(crate) use drift::{Match, match_code, match_two_codes};

use crate::error::{Error, Result};
use crate::model::{Code, Period, Step, Window};

/// The length of a generated secret: that of SHA-1's output, as RFC 4226 §4 R6 recommends.
pub(crate) const SECRET_BYTES: usize = 20;

/// The shortest secret: RFC 4226 §4 R6 demands at least 128 bits.
const SECRET_BYTES_MIN: usize = 16;

/// The shortest secret that an import may take where a person says so: 80 bits were the default of many libraries.
const SHORT_SECRET_BYTES_MIN: usize = 10;

/// The longest secret: one SHA-512 block. HMAC hashes longer keys first, so they gain nothing (RFC 2104 §2).
pub(crate) const SECRET_BYTES_MAX: usize = 128;

/// The shared secret of an authenticator. It has no `Debug` and no `Display`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Creates a secret from 16 to 128 bytes: a shorter one is not allowed (RFC 4226 §4 R6), a longer one gains nothing (RFC
    /// 2104 §2).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(Error::invalid("secret", "expected 128 to 1024 bits"))
        }
    }

    /// Creates a secret from 10 to 128 bytes, for an authenticator that exists elsewhere and cannot be changed.
    pub fn from_bytes_or_short(bytes: &[u8]) -> Result<Self> {
        if (SHORT_SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(Error::invalid("secret", "expected 80 to 1024 bits"))
        }
    }

    /// Whether it has fewer than 128 bits.
    pub fn is_short(&self) -> bool {
        self.0.len() < SECRET_BYTES_MIN
    }

    /// Parses base32 without padding, as [`Self::base32`] returns it.
    pub fn from_base32(text: &str) -> Result<Self> {
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).map(Zeroizing::new);
        Self::from_bytes(
            &bytes.map_err(|_| Error::invalid("secret", "expected base32 without padding"))?,
        )
    }

    /// The bytes, for sealing and for arithmetic.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret in base32 without padding (RFC 4648 §6), as authenticator apps accept it.
    pub fn base32(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE32_NOPAD.encode(&self.0))
    }
}

/// The hash function of the HMAC (RFC 6238 §1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The one that every authenticator app supports, used for new enrolments.
    Sha1,
    /// RFC 6238 §1.2
    Sha256,
    /// RFC 6238 §1.2
    Sha512,
}

impl Algorithm {
    /// Its name in the database, in URIs and in exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }
}

/// The parameters of code generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// The hash.
    pub algorithm: Algorithm,
    /// The length of a code, 6 to 9.
    pub digits: u8,
    /// How long a code lasts.
    pub period: Period,
}

impl Parameters {
    /// The parameters of new enrolments, which every authenticator app supports.
    pub const ENROLMENT: Self = Self {
        algorithm: Algorithm::Sha1,
        digits: 6,
        period: Period::ENROLMENT,
    };
}

/// The step within the window around `now` whose code equals `code`, if any. `now` is the present step of the
/// authenticator's own period and clock.
///
/// The comparison is that of totp-rs, which takes constant time. If two steps of the window have the same code, the earlier
/// one is returned.
pub fn matching_step(
    secret: &Secret,
    parameters: Parameters,
    window: Window,
    code: &Code,
    now: Step,
) -> Option<Step> {
    let first = now.number().saturating_sub(window.steps().into());
    let after = window.steps_after(parameters.period);
    let last = now.number().saturating_add(after.into());
    let generator = generator(secret, parameters);
    (first.max(0)..=last)
        .find(|it| has_code(&generator, *it, code))
        .map(Step::from_number)
}

/// A code with another number of digits than the authenticator's is not equal.
fn has_code(generator: &totp_rs::Totp, step: i64, code: &Code) -> bool {
    u64::try_from(step).is_ok_and(|it| generator.check(code.digits(), it).is_some())
}

/// The code of a step, as an authenticator app shows it. The server never needs it; examples, the demo and tests use it in
/// place of an app.
pub fn code_at(secret: &Secret, parameters: Parameters, step: Step) -> Result<Code> {
    let step = u64::try_from(step.number()).unwrap_or_default();
    generator(secret, parameters)
        .generate(step)
        .to_string()
        .parse()
}

fn generator(secret: &Secret, parameters: Parameters) -> totp_rs::Totp {
    let algorithm = match parameters.algorithm {
        Algorithm::Sha1 => totp_rs::Algorithm::SHA1,
        Algorithm::Sha256 => totp_rs::Algorithm::SHA256,
        Algorithm::Sha512 => totp_rs::Algorithm::SHA512,
    };
    // With a step duration of 1, the time that totp-rs expects is the number of the step.
    totp_rs::Builder::new()
        .with_algorithm(algorithm)
        .with_digits(parameters.digits)
        .with_skew(0)
        .with_step_duration(1)
        .with_secret(secret.bytes().to_vec())
        .build_noncompliant()
}

/// The characters that a URI may contain unescaped (RFC 3986 §2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The `otpauth` URI that an authenticator app scans.
///
/// All parameters are included even if they have default values, because apps assume different defaults.
pub fn enrolment_uri(issuer: &str, account: &str, secret: &Secret) -> Zeroizing<String> {
    key_uri(issuer, account, secret, Parameters::ENROLMENT)
}

/// The `otpauth` URI of an authenticator with any parameters.
pub fn key_uri(
    issuer: &str,
    account: &str,
    secret: &Secret,
    parameters: Parameters,
) -> Zeroizing<String> {
    let issuer = utf8_percent_encode(issuer, UNRESERVED);
    let account = utf8_percent_encode(account, UNRESERVED);
    // The secret comes last, so that the text is not reallocated once it holds the secret.
    let start = format!(
        "otpauth://totp/{issuer}:{account}?algorithm={}&digits={}&issuer={issuer}&period={}&secret=",
        parameters.algorithm.name(),
        parameters.digits,
        parameters.period.seconds()
    );
    let secret = secret.base32();
    let mut uri = Zeroizing::new(String::with_capacity(
        start.len().saturating_add(secret.len()),
    ));
    uri.push_str(&start);
    uri.push_str(&secret);
    uri
}

/// The first failure in a row that starts a wait.
const FIRST_FAILURE_WITH_WAIT: u32 = 5;
/// The length of the first wait.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait. It allows about 104 guesses a day and locks no user out for good.
pub const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// The wait after `failures` failures in a row (RFC 4226 §7.3): 30 s × 2^(n−5) from the fifth on, at most 15 min.
pub fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(FIRST_FAILURE_WITH_WAIT) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
            FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SECURITY.md 9: RFC 6238 Appendix B, all of it.
    #[test]
    fn rfc_6238_appendix_b_holds() {
        let table = [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000_i64, "65353130", "77737706", "47863826"),
        ];
        let digits = b"1234567890".repeat(7);
        for (time, sha1, sha256, sha512) in table {
            let step = Step::from_number(time / 30);
            for (algorithm, length, code) in [
                (Algorithm::Sha1, 20, sha1),
                (Algorithm::Sha256, 32, sha256),
                (Algorithm::Sha512, 64, sha512),
            ] {
                let secret = Secret::from_bytes(&digits[..length]).unwrap();
                let parameters = Parameters {
                    algorithm,
                    digits: 8,
                    period: Period::ENROLMENT,
                };
                let matched = matching_step(
                    &secret,
                    parameters,
                    Window::Present,
                    &code.parse().unwrap(),
                    step,
                );
                assert_eq!(matched, Some(step), "{algorithm:?} at {time}");
            }
        }
    }

    /// SECURITY.md 7
    #[test]
    fn the_window_is_one_step_either_side_or_none() {
        let secret = Secret::from_bytes(&[7; SECRET_BYTES]).unwrap();
        for (offset, with_one, with_none) in [
            (-2, false, false),
            (-1, true, false),
            (0, true, true),
            (1, true, false),
            (2, false, false),
        ] {
            let code = code_at(
                &secret,
                Parameters::ENROLMENT,
                Step::from_number(1000 + offset),
            )
            .unwrap();
            let good = |window| {
                matching_step(
                    &secret,
                    Parameters::ENROLMENT,
                    window,
                    &code,
                    Step::from_number(1000),
                )
            };
            assert_eq!(good(Window::OneEitherSide).is_some(), with_one, "{offset}");
            assert_eq!(good(Window::Present).is_some(), with_none, "{offset}");
        }
    }

    /// SECURITY.md 24
    #[test]
    fn a_secret_under_128_bits_is_refused_unless_a_person_says_so() {
        assert!(Secret::from_bytes(&[1; 15]).is_err());
        assert!(Secret::from_bytes(&[1; 16]).is_ok());
        for (length, is_good, is_short) in [
            (2, false, false),
            (9, false, false),
            (10, true, true),
            (15, true, true),
            (16, true, false),
            (128, true, false),
            (129, false, false),
        ] {
            let secret = Secret::from_bytes_or_short(&vec![1; length]);
            assert_eq!(secret.is_ok(), is_good, "{length}");
            assert_eq!(secret.is_ok_and(|it| it.is_short()), is_short, "{length}");
        }
    }

    #[test]
    fn a_code_of_another_length_matches_nothing() {
        let secret = Secret::from_bytes(&[7; SECRET_BYTES]).unwrap();
        let step = Step::from_number(1_000);
        let of = |digits| Parameters {
            digits,
            ..Parameters::ENROLMENT
        };
        for (ours, typed) in [(6, 8), (8, 6), (7, 6), (6, 7), (9, 6), (6, 9)] {
            let code = code_at(&secret, of(typed), step).unwrap();
            let found = matching_step(&secret, of(ours), Window::OneEitherSide, &code, step);
            assert!(found.is_none(), "{ours} digits, {typed} typed");
        }
    }

    /// SECURITY.md 7: where a period is over 60 seconds, only the step before.
    #[test]
    fn a_long_period_has_no_later_step_in_its_window() {
        let secret = Secret::from_bytes(&[7; SECRET_BYTES]).unwrap();
        let now = Step::from_number(1_000);
        for (period_s, last) in [(10, 1), (60, 1), (61, 0), (300, 0)] {
            let parameters = Parameters {
                period: Period::from_seconds(period_s).unwrap(),
                ..Parameters::ENROLMENT
            };
            for offset in -3..=3 {
                let step = Step::from_number(1_000 + offset);
                let code = code_at(&secret, parameters, step).unwrap();
                let found = matching_step(&secret, parameters, Window::OneEitherSide, &code, now);
                let is_good = (-1..=last).contains(&offset);
                assert_eq!(found, is_good.then_some(step), "{period_s} s, {offset}");
            }
        }
    }

    /// SECURITY.md 11
    #[test]
    fn waits_double_from_the_fifth_failure_to_fifteen_minutes() {
        let waits: Vec<u64> = (0..12).map(|it| wait_after(it).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }

    /// The odds of guessing in SECURITY.md.
    #[test]
    fn a_day_of_guessing_gets_104_guesses_and_nine_more_for_each_login() {
        let within = |time: Duration| {
            let (mut guesses, mut passed) = (0, Duration::ZERO);
            while passed < time {
                guesses += 1;
                passed += wait_after(guesses);
            }
            guesses
        };
        assert_eq!(within(Duration::from_hours(24)), 104);
        assert_eq!(wait_after(4), Duration::ZERO, "nobody waits");
        assert_eq!(within(Duration::from_secs(451)), 9);
        for before in (0..1_440).map(Duration::from_mins) {
            let after = Duration::from_hours(24).saturating_sub(before);
            assert!(within(before) + within(after) <= 104 + 9, "{before:?}");
        }
    }

    #[test]
    fn the_uri_escapes_what_would_end_a_part_of_it() {
        let secret = Secret::from_bytes(&[0; SECRET_BYTES]).unwrap();
        assert_eq!(
            *enrolment_uri("A&B Ltd", "x:é@y?z", &secret),
            "otpauth://totp/A%26B%20Ltd:x%3A%C3%A9%40y%3Fz?algorithm=SHA1&digits=6&issuer=A%26B%20Ltd\
             &period=30&secret=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        );
    }
}
