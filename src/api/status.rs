//! The one place that knows statuses: every refusal gets its code, HTTP status, id and message here.
//!
//! No match in this file has a `_` arm: a new error does not compile until it has a status.

mod json;

use std::time::Instant;

use crate::error::{Error, Missing, ProofRefusal, WrongState};
use crate::log_limit::LogLimit;

/// A canonical code of `google.rpc.Code`, limited to those that totpd uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 3
    InvalidArgument,
    /// 4
    DeadlineExceeded,
    /// 5
    NotFound,
    /// 6
    AlreadyExists,
    /// 7
    PermissionDenied,
    /// 8
    ResourceExhausted,
    /// 9
    FailedPrecondition,
    /// 12
    Unimplemented,
    /// 13
    Internal,
    /// 14
    Unavailable,
    /// 16
    Unauthenticated,
}

impl Code {
    /// The number of the code on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}

/// A refusal, independent of the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The canonical code.
    pub code: Code,
    /// The HTTP status on REST.
    pub http: u16,
    /// The id that clients match on, where the case has one.
    pub id: Option<&'static str>,
    /// The message for a person.
    pub message: String,
    /// How long to wait before trying again, in seconds.
    pub retry_after_s: Option<u64>,
    /// The methods that the path accepts, if the method was wrong.
    pub allow: Option<&'static str>,
    /// The length of the wait that a wrong code began, in seconds, for the log alone.
    pub(super) begins_wait_s: Option<u64>,
    /// The cause, for the log alone.
    cause: Option<String>,
}

/// Why a transport refuses a request itself, without an answer of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportError {
    /// The bytes are not one unambiguous HTTP request; the text says why.
    BadFraming(&'static str),
    /// The body is longer than its limit.
    BodyTooLarge,
    /// The head is longer than its limit.
    HeadTooLarge,
    /// The answer is longer than the whole memory budget of answers.
    AnswerTooLarge,
    /// A message is compressed, which totpd does not offer.
    Compressed,
    /// The request was not complete in time.
    TooSlow,
    /// The caller's own deadline has passed.
    DeadlinePassed,
    /// No permit, connection or memory was free in time.
    Busy,
    /// The process is stopping.
    Stopping,
    /// The commit failed, so nothing was changed.
    CommitFailed,
    /// The request panicked, or its worker ended.
    Bug,
}

impl TransportError {
    /// The refusal for an answer for which there is no memory: `AnswerTooLarge` if there never can be, else `Busy`.
    pub(crate) const fn no_answer_memory(answer: usize, budget: usize) -> Self {
        if answer > budget {
            Self::AnswerTooLarge
        } else {
            Self::Busy
        }
    }
}

const FIELD: Option<&str> = Some("TOTPD-Field");
const LARGE: Option<&str> = Some("TOTPD-Large");
const STORE: Option<&str> = Some("TOTPD-Store");
const AUTH: Option<&str> = Some("AUTH-7fs1e");
const WRONG: Option<&str> = Some("EVENT-8isk2");
const WRONG_RECOVERY: Option<&str> = Some("TOTPD-Recov1");
const USED: Option<&str> = Some("TOTPD-Used1");
const WAIT: Option<&str> = Some("TOTPD-Wait1");

impl Refusal {
    fn new(code: Code, http: u16, id: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            code,
            http,
            id,
            message: message.into(),
            retry_after_s: None,
            allow: None,
            begins_wait_s: None,
            cause: None,
        }
    }

    /// Logs the cause, which the client does not see, at most ten times a second. Call it outside of transactions,
    /// because writing the log may be slow.
    pub(super) fn log(&self) {
        static LIMIT: LogLimit = LogLimit::new();
        let Some(cause) = &self.cause else {
            return;
        };
        let Some(left_out) = LIMIT.admit(Instant::now()) else {
            return;
        };
        if left_out > 0 {
            log::warn!("{left_out} more refusals like the next one were not logged");
        }
        if self.code == Code::Unavailable {
            log::error!("unavailable: {cause}");
        } else if self.code == Code::Unauthenticated {
            log::warn!("refused: {cause}");
        } else {
            log::error!("a fault of ours: {cause}");
        }
    }

    /// A path that totpd does not know.
    pub fn no_such_path() -> Self {
        Self::new(Code::NotFound, 404, None, "no such path")
    }

    /// The path that a browser asks for first.
    pub fn no_page() -> Self {
        let message =
            "this is the API of totpd and no page; its README, under \"The API\", lists the paths";
        Self::new(Code::NotFound, 404, None, message)
    }

    /// A known path with a method that it does not accept; `allow` lists those that it accepts.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(Code::Unimplemented, 405, None, message)
        }
    }

    /// A call that ZITADEL documents and totpd does not offer.
    pub fn not_offered() -> Self {
        Self::new(
            Code::Unimplemented,
            501,
            None,
            "totpd does not offer this call",
        )
    }

    /// A wrong code, and how long the wait is that it began. The client sees that wait when it comes back.
    pub fn wrong_code(begins_wait_s: Option<u64>) -> Self {
        let message = "the code is wrong";
        Self {
            begins_wait_s,
            ..Self::new(Code::InvalidArgument, 400, WRONG, message)
        }
    }

    /// A code that was used before.
    pub fn used_code() -> Self {
        let message = "this code or a later one was used already; wait for the next code";
        Self::new(Code::InvalidArgument, 400, USED, message)
    }

    /// A recovery code that is wrong or was used before: the two look alike. And how long the wait is that it began.
    pub fn wrong_recovery_code(begins_wait_s: Option<u64>) -> Self {
        let message = "the recovery code is wrong, or was used before";
        Self {
            begins_wait_s,
            ..Self::new(Code::InvalidArgument, 400, WRONG_RECOVERY, message)
        }
    }

    /// Too many wrong codes in a row.
    pub fn wait(retry_after_s: u64) -> Self {
        let message = format!("too many wrong codes; try again in {retry_after_s} s");
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(Code::ResourceExhausted, 429, WAIT, message)
        }
    }

    /// A service whose health `grpc.health.v1` is asked for and which totpd does not have.
    pub(super) fn unknown_service() -> Self {
        Self::new(Code::NotFound, 404, None, "no such service")
    }

    /// The message of the status: the message for a person, and the id if there is one.
    pub fn sentence(&self) -> String {
        match self.id {
            Some(id) => format!("{} ({id})", self.message),
            None => self.message.clone(),
        }
    }
}

/// The refusal for an error. The inner cause of the error only goes to the log, by `Refusal::log`.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let mut refusal = Self::of(&error);
        refusal.cause = match error {
            Error::Bug(inner) | Error::Unavailable(inner) | Error::ExpiredToken(inner) => {
                Some(inner)
            }
            Error::Invalid { .. }
            | Error::NoToken
            | Error::BadToken
            | Error::Forbidden
            | Error::NotFound(_)
            | Error::WrongState(_)
            | Error::AlreadyExists(_)
            | Error::TooOften { .. }
            | Error::ProofRefused(_)
            | Error::SearchTooLong => None,
        };
        refusal
    }
}

impl Refusal {
    fn of(error: &Error) -> Self {
        use Code as C;
        let (code, http, id) = match error {
            Error::Invalid { .. } => (C::InvalidArgument, 400, FIELD),
            Error::NoToken => (C::Unauthenticated, 401, None),
            Error::BadToken | Error::ExpiredToken(_) => (C::Unauthenticated, 401, AUTH),
            Error::Forbidden => (C::PermissionDenied, 403, Some("AUTH-AWfge")),
            Error::NotFound(missing) => (C::NotFound, 404, id_of_missing(*missing)),
            Error::WrongState(state) => (C::FailedPrecondition, 400, Some(id_of_state(*state))),
            Error::AlreadyExists(_) => (C::AlreadyExists, 409, Some("TOTPD-Taken")),
            Error::TooOften { .. } => (C::ResourceExhausted, 429, Some("TOTPD-Wait2")),
            Error::ProofRefused(refusal) => match refusal {
                ProofRefusal::WrongCode { .. } => (C::InvalidArgument, 400, WRONG),
                ProofRefusal::WrongRecoveryCode { .. } => (C::InvalidArgument, 400, WRONG_RECOVERY),
                ProofRefusal::Used => (C::InvalidArgument, 400, USED),
                ProofRefusal::Wait { .. } => (C::ResourceExhausted, 429, WAIT),
            },
            Error::SearchTooLong => (C::ResourceExhausted, 429, Some("TOTPD-Search")),
            Error::Unavailable(_) => (C::Unavailable, 503, STORE),
            Error::Bug(_) => (C::Internal, 500, None),
        };
        let retry_after_s = match error {
            Error::TooOften { retry_after_s }
            | Error::ProofRefused(ProofRefusal::Wait { retry_after_s }) => Some(*retry_after_s),
            Error::Invalid { .. }
            | Error::NoToken
            | Error::BadToken
            | Error::ExpiredToken(_)
            | Error::Forbidden
            | Error::NotFound(_)
            | Error::WrongState(_)
            | Error::AlreadyExists(_)
            | Error::ProofRefused(_)
            | Error::SearchTooLong
            | Error::Unavailable(_)
            | Error::Bug(_) => None,
        };
        let begins_wait_s = if let Error::ProofRefused(refusal) = error {
            refusal.begins_wait_s()
        } else {
            None
        };
        Self {
            retry_after_s,
            begins_wait_s,
            ..Self::new(code, http, id, error.to_string())
        }
    }
}

const fn id_of_missing(missing: Missing) -> Option<&'static str> {
    Some(match missing {
        Missing::User => "COMMAND-6T2xrOHxTx",
        Missing::UserToRemove => "COMMAND-syHyCsGmvM",
        Missing::UserToLock => "COMMAND-G4LOrnjY7q",
        Missing::UserToUnlock => "COMMAND-gpBv46Lh9m",
        Missing::UserToDeactivate => "COMMAND-Ob6lR5iFTe",
        Missing::UserToActivate => "COMMAND-rQjbBr4J3j",
        Missing::Totp => "COMMAND-Hd9sd",
        Missing::TotpToCheck => "COMMAND-3Mif9s",
        Missing::Organization => "TOTPD-Org01",
        // No call on the wire names a token.
        Missing::Token => return None,
    })
}

const fn id_of_state(state: WrongState) -> &'static str {
    match state {
        WrongState::AlreadyConfirmed => "COMMAND-qx4ls",
        WrongState::NoneConfirmed | WrongState::NoTotpToRecover => "COMMAND-3Mif9s",
        WrongState::UserNotActive => "COMMAND-SF3fg",
        WrongState::TooManyTotps => "TOTPD-Limit",
        WrongState::ProofNeeded => "TOTPD-Code1",
        WrongState::NoRecoveryCodes => "TOTPD-Recov2",
    }
}

impl From<TransportError> for Refusal {
    fn from(refusal: TransportError) -> Self {
        match refusal {
            TransportError::BadFraming(why) => Self::new(Code::InvalidArgument, 400, FIELD, why),
            TransportError::BodyTooLarge => Self::new(
                Code::ResourceExhausted,
                413,
                LARGE,
                "the body is too large: 64 KiB unless set otherwise",
            ),
            TransportError::HeadTooLarge => Self::new(
                Code::ResourceExhausted,
                431,
                LARGE,
                "the request's head is too large: 16 KiB unless set otherwise",
            ),
            TransportError::AnswerTooLarge => Self::new(
                Code::ResourceExhausted,
                413,
                LARGE,
                "the answer is too large: ask for fewer at once",
            ),
            TransportError::Compressed => {
                let message = "messages may not be compressed";
                Self::new(Code::Unimplemented, 501, None, message)
            }
            TransportError::TooSlow => {
                let message = "the request was not complete in time";
                Self::new(Code::DeadlineExceeded, 408, Some("TOTPD-Slow"), message)
            }
            TransportError::DeadlinePassed => {
                let message = "the deadline has passed; whether anything was changed is unknown";
                Self::new(Code::DeadlineExceeded, 504, Some("TOTPD-Slow"), message)
            }
            TransportError::Busy => Self {
                retry_after_s: Some(1),
                ..Self::new(
                    Code::Unavailable,
                    503,
                    STORE,
                    "too busy right now; nothing was changed",
                )
            },
            TransportError::Stopping => Self::new(
                Code::Unavailable,
                503,
                STORE,
                "shutting down; nothing was changed",
            ),
            TransportError::CommitFailed => {
                // The cause was logged once for the whole batch.
                let message = Error::Unavailable(String::new()).to_string();
                Self::new(Code::Unavailable, 503, STORE, message)
            }
            TransportError::Bug => Self::new(Code::Internal, 500, None, "an internal error"),
        }
    }
}
