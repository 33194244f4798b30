//! The types that all modules share: ids, names, codes, steps, times. No I/O, no clock, no SQL.
//!
//! Each type is created in one way (`FromStr`, or a constructor that accepts only valid values) and written in one way
//! (`Display`). So a value that was parsed needs no further check.

mod checkpoints;
mod clock;
mod code;
mod event_search;
mod fold;
mod period;
mod proof;
mod recovery_code;
mod request_id;
mod search;
mod self_removal;
mod text;
mod time;

pub use checkpoints::Checkpointer;
pub use clock::{ClockReading, VERSION_DATE};
pub(crate) use clock::{LATEST_PLAUSIBLE_TIME, LONGEST_EVENT_GAP, require_plausible};
pub use code::{Code, Step, Window};
pub use event_search::{EventSearch, SubjectKind};
pub use fold::fold;
pub use period::{Drift, Period};
pub use proof::Proof;
pub use recovery_code::RecoveryCode;
pub(crate) use recovery_code::SYMBOLS as RECOVERY_CODE_SYMBOLS;
pub use request_id::RequestId;
pub use search::{Filter, Search, SortBy, TextFilter, TextMethod};
pub use self_removal::SelfRemoval;
pub use text::{Name, OrgId, RecoverySetId, TokenId, TotpId, UserId};
pub use time::{Clock, Timestamp, parse_span};

/// The state of a user. Only an active user can check codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    /// The user may check codes.
    Active,
    /// The user was deactivated.
    Inactive,
    /// The user was locked.
    Locked,
}
