//! What one may ask of the users there are, as a tree of filters, and in which order they come.

use super::{UserState, fold};

/// A search for users.
#[derive(Debug, Clone)]
pub struct Search {
    /// All of these must hold.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: SortBy,
    /// The other way round.
    pub descending: bool,
    /// How many to pass over.
    pub offset: u64,
    /// How many to return at most.
    pub limit: u32,
}

/// What holds of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// At least one of these holds.
    Or(Vec<Filter>),
    /// All of these hold.
    And(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// Its id is like this.
    Id(TextFilter),
    /// The id of its organization is like this.
    Organization(TextFilter),
    /// One of its usernames is like this.
    Username {
        /// What it is like.
        like: TextFilter,
        /// Only usernames count that were given as specific to the organization.
        specific_only: bool,
    },
    /// It is in this state.
    State(UserState),
    /// Nothing is like this.
    Nothing,
}

/// What a text is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFilter {
    /// What it is compared with: 1 to 200 characters.
    pub text: super::Name,
    /// How.
    pub method: TextMethod,
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextMethod {
    /// The same, character by character.
    Equals,
    /// The same without regard to case and normalization.
    EqualsIgnoreCase,
    /// It begins so.
    StartsWith,
    /// It begins so without regard to case and normalization.
    StartsWithIgnoreCase,
    /// It stands somewhere in it, character by character.
    Contains,
}

impl TextFilter {
    /// Whether `text` is like this.
    pub fn holds(&self, text: &str) -> bool {
        let like = self.text.as_str();
        match self.method {
            TextMethod::Equals => text == like,
            TextMethod::EqualsIgnoreCase => fold(text) == fold(like),
            TextMethod::StartsWith => text.starts_with(like),
            TextMethod::StartsWithIgnoreCase => fold(text).starts_with(&fold(like)),
            TextMethod::Contains => text.contains(like),
        }
    }
}

/// The order of a search. What is equal in it comes in the order of its making, so that every order is total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// As they were made: whoever comes later stands at the end, and shifts no page.
    Creation,
    /// By id, byte by byte.
    Id,
    /// By their last change.
    Change,
    /// By state: active, inactive, locked.
    State,
    /// By schema id, byte by byte; those without one first.
    SchemaId,
}
