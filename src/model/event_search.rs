//! A list of events: which ones, and in which order.

use super::Timestamp;

/// A list of events. What is `None` or zero leaves nothing out.
#[derive(Debug, Clone, Default)]
pub struct EventSearch {
    /// Only events with a higher number, in either order.
    pub after: u64,
    /// Only events after this time.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
    /// Whether the oldest event comes first.
    pub ascending: bool,
    /// The most events to return.
    pub limit: u32,
    /// Who made the change: a token's id, `command-line` or `totpd`.
    pub actor: Option<String>,
    /// The kinds, such as `totp.removed`.
    pub kinds: Option<Vec<String>>,
    /// The id of what changed.
    pub subject: Option<String>,
    /// What kinds of thing changed.
    pub subject_kinds: Option<Vec<SubjectKind>>,
    /// The id of the organization that it belongs to, or of the instance.
    pub owner: Option<String>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// A user, with its authenticators and `self` tokens.
    User,
    /// An organization.
    Organization,
    /// A token that is bound to no user.
    Token,
    /// The instance and its settings.
    Instance,
}
