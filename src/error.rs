//! The errors of all modules, distinguished by what a caller can do about them.
//!
//! Knows nothing of HTTP or gRPC: the module `api` maps each error to a status. A refused code is not an error but a
//! [`crate::service::Verdict`], because an error rolls back its transaction, and a wrong guess must be counted.

use std::borrow::Cow;
use std::fmt;

/// The result of a call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. It has changed nothing, but for the count of wrong codes in [`Error::ProofRefused`].
#[derive(Debug)]
pub enum Error {
    /// A field is malformed, too short or too long.
    Invalid {
        /// The name of the field, as the caller writes it.
        field: Cow<'static, str>,
        /// What is expected.
        problem: Cow<'static, str>,
    },
    /// The call came without a token.
    NoToken,
    /// The token is unknown, expired or revoked, or the header is not a bearer token.
    BadToken,
    /// The token has expired. A client gets the same answer as for an unknown token; the text is for the log.
    ExpiredToken(String),
    /// The token's role does not permit this call.
    Forbidden,
    /// The token can see no such object.
    NotFound(Missing),
    /// The object is in a state that does not permit the call.
    WrongState(WrongState),
    /// The id or username that the caller chose exists already.
    AlreadyExists(&'static str),
    /// A search or list exceeded the time limit of reads. A narrower one may succeed.
    SearchTooLong,
    /// The user's `self` tokens have begun too much within the last hour.
    TooOften {
        /// When they may begin something again, in seconds.
        retry_after_s: u64,
    },
    /// The code that a `self` token needs for this change was refused. If it was wrong, that is counted.
    ProofRefused(ProofRefusal),
    /// The database is busy, full, read-only or unreadable, or the clock is wrong. The text is for the log, not for
    /// clients.
    Unavailable(String),
    /// A fault in totpd. The text is for the log, not for clients.
    Bug(String),
}

/// What was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The user of a call.
    User,
    /// The user of a removal of users.
    UserToRemove,
    /// The user to lock: unknown, or locked already.
    UserToLock,
    /// The user to unlock.
    UserToUnlock,
    /// The user to deactivate: unknown, or not active.
    UserToDeactivate,
    /// The user to activate: unknown, or not inactive.
    UserToActivate,
    /// The authenticator to remove.
    Totp,
    /// The authenticator to confirm or to check.
    TotpToCheck,
    /// The organization of a new user or token.
    Organization,
    /// The token to revoke.
    Token,
}

/// The state that does not permit a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongState {
    /// The authenticator to confirm is confirmed.
    AlreadyConfirmed,
    /// There is no confirmed authenticator to check against.
    NoneConfirmed,
    /// The user is locked or deactivated.
    UserNotActive,
    /// The user has the maximum number of authenticators.
    TooManyTotps,
    /// There is no confirmed authenticator that recovery codes could stand in for.
    NoTotpToRecover,
    /// The user has no recovery codes, or has used all.
    NoRecoveryCodes,
    /// A `self` token needs a code for this change, and none came with it.
    ProofNeeded,
}

/// Why the code that came with a change was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofRefusal {
    /// The one-time code was wrong, and counted.
    WrongCode {
        /// The length of the wait that this code began, in seconds.
        begins_wait_s: Option<u64>,
    },
    /// The recovery code was wrong or was used before, and counted.
    WrongRecoveryCode {
        /// The length of the wait that this code began, in seconds.
        begins_wait_s: Option<u64>,
    },
    /// The one-time code was right, but it or a later one was used before.
    Used,
    /// The user has to wait after too many wrong codes. The code was not compared.
    Wait {
        /// The seconds until codes are compared again.
        retry_after_s: u64,
    },
}

impl ProofRefusal {
    /// The length of the wait that this code began, in seconds.
    pub const fn begins_wait_s(&self) -> Option<u64> {
        match self {
            Self::WrongCode { begins_wait_s } | Self::WrongRecoveryCode { begins_wait_s } => {
                *begins_wait_s
            }
            Self::Used | Self::Wait { .. } => None,
        }
    }
}

impl Error {
    /// Creates the error for a malformed field. `problem` says what is expected.
    pub fn invalid(
        field: impl Into<Cow<'static, str>>,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// The sentence for people. It does not contain the inner cause.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, problem } => write!(f, "{field}: {problem}"),
            Self::NoToken => {
                f.write_str("a bearer token is required: send `Authorization: Bearer TOKEN`")
            }
            Self::BadToken | Self::ExpiredToken(_) => f.write_str(
                "the token is unknown, expired or revoked, or not sent as `Authorization: Bearer TOKEN`",
            ),
            Self::Forbidden => f.write_str("this token may not do that"),
            Self::NotFound(missing) => f.write_str(match missing {
                Missing::User | Missing::UserToRemove | Missing::UserToUnlock => "user not found",
                Missing::UserToLock => "user not found, or locked already",
                Missing::UserToDeactivate => "user not found, or not active",
                Missing::UserToActivate => "user not found, or not inactive",
                Missing::Totp | Missing::TotpToCheck => "TOTP authenticator not found",
                Missing::Organization => "organization not found",
                Missing::Token => "token not found",
            }),
            Self::WrongState(state) => f.write_str(match state {
                WrongState::AlreadyConfirmed => "the TOTP authenticator is already confirmed",
                WrongState::NoneConfirmed => "there is no confirmed TOTP authenticator to check against",
                WrongState::UserNotActive => "the user is locked or deactivated",
                WrongState::TooManyTotps => {
                    "the user has ten confirmed TOTP authenticators already; remove one first"
                }
                WrongState::NoTotpToRecover => {
                    "recovery codes need a confirmed TOTP authenticator; confirm one first"
                }
                WrongState::NoRecoveryCodes => "the user has no recovery codes left",
                WrongState::ProofNeeded => {
                    "this needs a current code of one of the user's authenticators, or a recovery code, in `Totpd-Code`"
                }
            }),
            Self::AlreadyExists(what) => write!(f, "{what} is taken"),
            Self::TooOften { retry_after_s } => write!(
                f,
                "too many enrolments, renames and new recovery codes within an hour; try again in {retry_after_s} s"
            ),
            Self::ProofRefused(refusal) => match refusal {
                ProofRefusal::WrongCode { .. } => f.write_str("the code in `Totpd-Code` is wrong"),
                ProofRefusal::WrongRecoveryCode { .. } => {
                    f.write_str("the recovery code in `Totpd-Code` is wrong, or was used before")
                }
                ProofRefusal::Used => f.write_str(
                    "the code in `Totpd-Code` or a later one was used already; wait for the next code",
                ),
                ProofRefusal::Wait { retry_after_s } => {
                    write!(f, "too many wrong codes; try again in {retry_after_s} s")
                }
            },
            Self::SearchTooLong => f.write_str(
                "the search took longer than a read may take; narrow it, or try again when fewer searches run",
            ),
            Self::Unavailable(_) => {
                f.write_str("the database is not available right now; nothing was changed")
            }
            Self::Bug(_) => f.write_str("an internal error"),
        }
    }
}

impl std::error::Error for Error {}
