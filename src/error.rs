//! What can go wrong, told apart by what a caller can do about it.
//!
//! Knows nothing of HTTP or gRPC: the `api` room gives each of these its status. A "no" to a code is
//! not here, it is a [`crate::service::Verdict`]: an error rolls its transaction back, and a wrong
//! guess must be remembered.

use std::borrow::Cow;
use std::fmt;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was not carried out. Nothing has changed when one of these is returned.
#[derive(Debug)]
pub enum Error {
    /// A field is malformed, too short or too long.
    Invalid {
        /// The field as the caller spells it.
        field: Cow<'static, str>,
        /// What would be right.
        problem: Cow<'static, str>,
    },
    /// The call came without a token.
    NoToken,
    /// The token is not one of ours, has expired or was revoked, or what was sent is no bearer token.
    BadToken,
    /// The token has expired. A client is told the same as of a token that is not one of ours; the text is for the log.
    ExpiredToken(String),
    /// The token can never do this, whatever exists.
    Forbidden,
    /// Within what the token can see there is no such thing.
    NotFound(Missing),
    /// The thing is there, and its state forbids the call.
    WrongState(WrongState),
    /// An id or a username that the caller chose is taken.
    AlreadyExists(&'static str),
    /// A search or list took longer than a read may; a narrower one may not.
    SearchTooLong,
    /// The user's `self` tokens have begun too much within the last hour.
    TooOften {
        /// When they may begin something again, in seconds.
        retry_after_s: u64,
    },
    /// The database is busy, full, read-only or unreadable, or the clock cannot be trusted. The text is for
    /// the log, never for a client.
    Unavailable(String),
    /// A fault of ours. The text is for the log, never for a client.
    Bug(String),
}

/// What was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The user of a call.
    User,
    /// The user of a removal of users.
    UserToRemove,
    /// The user to lock, who is not locked yet.
    UserToLock,
    /// The user to unlock.
    UserToUnlock,
    /// The user to deactivate, who is active.
    UserToDeactivate,
    /// The user to activate, who is inactive.
    UserToActivate,
    /// The authenticator to remove.
    Totp,
    /// The authenticator to confirm or to check.
    TotpToCheck,
    /// The organization to put a user or a token into.
    Organization,
    /// The token to revoke.
    Token,
}

/// Which state forbids a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongState {
    /// The authenticator to confirm is confirmed.
    AlreadyConfirmed,
    /// There is no confirmed authenticator to check against.
    NoneConfirmed,
    /// The user is locked or deactivated.
    UserNotActive,
    /// The user has as many authenticators as one may have.
    TooManyTotps,
}

impl Error {
    /// A malformed field; `problem` says what would be right.
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

/// The sentence a person reads; it names no inner cause.
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
            }),
            Self::AlreadyExists(what) => write!(f, "{what} is taken"),
            Self::TooOften { retry_after_s } => write!(
                f,
                "too many enrolments begun within an hour; try again in {retry_after_s} s"
            ),
            Self::SearchTooLong => f.write_str(
                "the search took longer than a read may take; narrow it, or try again when fewer searches run",
            ),
            Self::Unavailable(_) => {
                f.write_str("the database is not available right now; nothing was changed")
            }
            Self::Bug(_) => f.write_str("an internal error; nothing was changed"),
        }
    }
}

impl std::error::Error for Error {}
