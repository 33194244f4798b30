//! The words everything else speaks: ids, names, codes, steps, times. No I/O, no clock, no SQL.
//!
//! Each type has one way in (`FromStr`, or a constructor that cannot be given nonsense) and one way out
//! (`Display`), so that what has been parsed once is never doubted again.

mod code;
mod text;
mod time;

pub use code::{Code, Step, Window};
pub use text::{Name, OrgId, TokenId, TotpId, UserId};
pub use time::{Clock, Timestamp};
