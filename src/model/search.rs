//! A search for users: a tree of filters, a sort order and a page.

use super::{UserState, fold};

/// A search for users.
#[derive(Debug, Clone)]
pub struct Search {
    /// A user must match all of these.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: SortBy,
    /// Whether the order is reversed.
    pub descending: bool,
    /// The number of users to skip.
    pub offset: u64,
    /// The most users to return.
    pub limit: u32,
}

/// A condition on a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// At least one of these matches.
    Or(Vec<Filter>),
    /// All of these match.
    And(Vec<Filter>),
    /// This does not match.
    Not(Box<Filter>),
    /// The user's id matches.
    Id(TextFilter),
    /// The id of the user's organization matches.
    Organization(TextFilter),
    /// One of the user's usernames matches.
    Username {
        /// The condition on the username.
        like: TextFilter,
        /// Whether only organization-specific usernames are compared.
        specific_only: bool,
    },
    /// The user is in this state.
    State(UserState),
    /// No user matches.
    Nothing,
}

/// A condition on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFilter {
    /// The text to compare with: 1 to 200 characters.
    pub text: super::Name,
    /// The method of comparison.
    pub method: TextMethod,
}

/// The method of comparing texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextMethod {
    /// Equal, character by character.
    Equals,
    /// Equal after case folding and normalization.
    EqualsIgnoreCase,
    /// Begins with the given text.
    StartsWith,
    /// Begins with the given text after case folding and normalization.
    StartsWithIgnoreCase,
    /// Contains the given text, character by character.
    Contains,
}

impl TextFilter {
    /// Whether `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        let expected = self.text.as_str();
        match self.method {
            TextMethod::Equals => text == expected,
            TextMethod::EqualsIgnoreCase => fold(text) == fold(expected),
            TextMethod::StartsWith => text.starts_with(expected),
            TextMethod::StartsWithIgnoreCase => fold(text).starts_with(&fold(expected)),
            TextMethod::Contains => text.contains(expected),
        }
    }
}

/// The sort order of a search. Users that compare equal are in the order of creation, so every order is total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// By creation. New users come last, so they do not shift earlier pages.
    Creation,
    /// By id, byte by byte.
    Id,
    /// By the time of the last change.
    Change,
    /// By state: active, inactive, locked.
    State,
    /// By schema id, byte by byte. Users without one come first.
    SchemaId,
}
