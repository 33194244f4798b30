//! The words everything else speaks: ids, names, codes, steps, times. No I/O, no clock, no SQL.
//!
//! Each type has one way in (`FromStr`, or a constructor that cannot be given nonsense) and one way out
//! (`Display`), so that what has been parsed once is never doubted again.

mod clock;
mod code;
mod fold;
mod search;
mod text;
mod time;

pub use clock::{ClockReading, VERSION_DATE};
pub(crate) use clock::{LATEST_PLAUSIBLE_TIME, LONGEST_EVENT_GAP, require_plausible};
pub use code::{Code, Step, Window};
pub use fold::fold;
pub use search::{Filter, Search, SortBy, TextFilter, TextMethod};
pub use text::{Name, OrgId, TokenId, TotpId, UserId};
pub use time::{Clock, Timestamp};

/// Whether a user may check codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    /// It may.
    Active,
    /// It was deactivated.
    Inactive,
    /// It was locked.
    Locked,
}
