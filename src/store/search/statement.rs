//! The text of a search's statement and its bound values.

use rusqlite::types::Value;

use super::{IndexChoice, order};
use crate::model::{OrgId, Search, TextFilter, TextMethod, fold};

/// The text of a statement so far, and its bound values.
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<Value>,
    pub(super) index: IndexChoice,
    /// The one organization that is searched, or none where all are.
    pub(super) org: Option<OrgId>,
}

impl Statement {
    pub(super) fn push(&mut self, sql: &'static str) {
        self.sql.push_str(sql);
    }

    pub(super) fn push_order(&mut self, search: &Search) {
        let order = order(search.sort, search.descending);
        if self.index == IndexChoice::Names {
            // Few are found, as a rule, and sorted: the sign keeps SQLite from going through all users in this order.
            self.sql.push_str(&order.replace(" u.", " +u."));
        } else {
            self.sql.push_str(order);
        }
    }

    pub(super) fn bind(&mut self, value: impl Into<Value>) {
        self.params.push(value.into());
        self.sql.push('?');
        self.sql.push_str(&self.params.len().to_string());
    }

    /// What holds of all users or of none. Bound and not part of the text, so that it does not change the plan.
    pub(super) fn constant(&mut self, holds: bool) {
        self.bind(Value::Integer(holds.into()));
    }

    /// Compares a column with a text, or the folded column with the folded text.
    pub(super) fn text(&mut self, [column, folded]: [&'static str; 2], like: &TextFilter) {
        let text = like.text.as_str();
        match like.method {
            TextMethod::Equals => {
                // A range of one: with `=` SQLite would go by the index that makes ids unique over all organizations.
                self.push(column);
                self.push(" BETWEEN ");
                self.bind(text.to_owned());
                self.push(" AND ");
                self.bind(text.to_owned());
            }
            TextMethod::EqualsIgnoreCase => {
                self.push(folded);
                self.push(" = ");
                self.bind(fold(text));
            }
            TextMethod::StartsWith => self.prefix(column, text),
            TextMethod::StartsWithIgnoreCase => self.prefix(folded, &fold(text)),
            TextMethod::Contains => {
                self.push("instr(");
                self.push(column);
                self.push(", ");
                self.bind(text.to_owned());
                self.push(") > 0");
            }
        }
    }

    /// Compares a column with a prefix: the texts from `text` up to the first that does not begin with it.
    fn prefix(&mut self, column: &'static str, text: &str) {
        self.push("(");
        self.push(column);
        self.push(" >= ");
        self.bind(text.to_owned());
        if let Some(end) = end_of_prefix(text) {
            self.push(" AND ");
            self.push(column);
            self.push(" < ");
            self.bind(end);
        }
        self.push(")");
    }
}

/// The first text after all those that begin with `text`: the last character that has a successor is replaced by it.
/// UTF-8 sorts in the order of the characters.
fn end_of_prefix(text: &str) -> Option<String> {
    let mut end = text.to_owned();
    while let Some(last) = end.pop() {
        // A range of characters leaves out the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text() {
        for (text, end) in [
            ("a", Some("b")),
            ("az", Some("a{")),
            ("a\u{10ffff}", Some("b")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(end_of_prefix(text).as_deref(), end);
        }
    }
}
