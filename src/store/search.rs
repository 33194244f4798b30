//! A search for users as SQL.
//!
//! The one place where a statement is put together at run time: out of constants alone, and what a caller wrote
//! is bound and never part of the text. No pattern language is used, so nothing needs to be escaped: a beginning
//! is a range, and what a text holds is asked of `instr`.

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::users::{UserRow, state_name, user};
use super::{ReadTx, unavailable};
use crate::error::{Error, Result};
use crate::model::{Filter, OrgId, Search, SortBy, TextFilter, TextMethod, fold};

/// Organizations that a filter by organization is held against: one node serves a handful.
const MAX_ORGANIZATIONS: u32 = 10_000;

impl ReadTx<'_> {
    /// The users that a search finds, within one organization or over all: a page of them, and their number.
    pub(crate) fn search_users(
        &self,
        search: &Search,
        org: Option<&OrgId>,
    ) -> Result<(Vec<UserRow>, u64)> {
        let mut numbers = Statement::default();
        numbers.push("SELECT u.rowid FROM user u WHERE 1");
        if let Some(org) = org {
            // Nearly everyone is of one organization: as soon as anything else is said, that tells more.
            let says_more = |it: &Filter| !matches!(it, Filter::State(_));
            let by_index = !search.filters.iter().any(says_more);
            numbers.push(if by_index {
                " AND u.org_id = "
            } else {
                " AND +u.org_id = "
            });
            numbers.bind(org.as_str());
        }
        for filter in &search.filters {
            numbers.push(" AND ");
            self.filter(&mut numbers, filter)?;
        }
        numbers.push(order(search.sort, search.descending));
        let (page, total) = self.page(&numbers, search).map_err(unavailable)?;
        let rows = page.into_iter().map(|it| self.user_numbered(it));
        Ok((rows.collect::<Result<_>>()?, total))
    }

    /// The numbers of the rows on a page, and how many rows there are on all: found in one pass.
    fn page(&self, numbers: &Statement, search: &Search) -> rusqlite::Result<(Vec<i64>, u64)> {
        let end = search.offset.saturating_add(search.limit.into());
        let mut statement = self.connection.prepare(&numbers.sql)?;
        let mut rows = statement.query(params_from_iter(&numbers.params))?;
        let (mut page, mut total) = (Vec::new(), 0_u64);
        while let Some(row) = rows.next()? {
            if (search.offset..end).contains(&total) {
                page.push(row.get(0)?);
            }
            total = total.saturating_add(1);
        }
        Ok((page, total))
    }

    fn user_numbered(&self, number: i64) -> Result<UserRow> {
        const SQL: &str = "SELECT id, org_id, state, schema_id, data, created, changed
            FROM user WHERE rowid = ?1";
        let found = self.one(SQL, (number,), user)?;
        found.ok_or_else(|| Error::Bug("a row is gone from its own snapshot".to_owned()))
    }

    fn filter(&self, to: &mut Statement, filter: &Filter) -> Result<()> {
        match filter {
            Filter::Or(any) => self.joined(to, any, "0", " OR ")?,
            Filter::And(all) => self.joined(to, all, "1", " AND ")?,
            Filter::Not(it) => {
                to.push("NOT ");
                self.filter(to, it)?;
            }
            Filter::Id(like) => to.text(["u.id", "u.id_folded"], like),
            Filter::Organization(like) => {
                // Organizations are few: they are compared here, and there as a list.
                let all = self.organizations(MAX_ORGANIZATIONS)?.into_iter();
                let ids = all.map(|it| it.id.to_string());
                let ids: Vec<String> = ids.filter(|it| like.holds(it)).collect();
                to.push("u.org_id IN (SELECT value FROM json_each(");
                to.bind(serde_json::Value::from(ids).to_string());
                to.push("))");
            }
            Filter::Username {
                like,
                specific_only,
            } => {
                to.push("u.id IN (SELECT n.user_id FROM username n WHERE ");
                to.text(["n.username", "n.folded"], like);
                if *specific_only {
                    to.push(" AND n.org_specific = 1");
                }
                to.push(")");
            }
            Filter::State(state) => {
                to.push("u.state = ");
                to.bind(state_name(*state));
            }
            Filter::Nothing => to.push("0"),
        }
        Ok(())
    }

    fn joined(
        &self,
        to: &mut Statement,
        filters: &[Filter],
        none: &'static str,
        by: &'static str,
    ) -> Result<()> {
        to.push("(");
        for (n, filter) in filters.iter().enumerate() {
            to.push(if n == 0 { "" } else { by });
            self.filter(to, filter)?;
        }
        to.push(if filters.is_empty() { none } else { "" });
        to.push(")");
        Ok(())
    }
}

/// Equal ones come in the order of their making, which is that of the rows' numbers; every index ends in it.
const fn order(sort: SortBy, descending: bool) -> &'static str {
    match (sort, descending) {
        (SortBy::Creation, false) => " ORDER BY u.created, u.rowid",
        (SortBy::Creation, true) => " ORDER BY u.created DESC, u.rowid DESC",
        (SortBy::Id, false) => " ORDER BY u.id",
        (SortBy::Id, true) => " ORDER BY u.id DESC",
        (SortBy::Change, false) => " ORDER BY u.changed, u.rowid",
        (SortBy::Change, true) => " ORDER BY u.changed DESC, u.rowid DESC",
        (SortBy::State, false) => " ORDER BY u.state, u.created, u.rowid",
        (SortBy::State, true) => " ORDER BY u.state DESC, u.created DESC, u.rowid DESC",
        (SortBy::SchemaId, false) => " ORDER BY u.schema_id, u.rowid",
        (SortBy::SchemaId, true) => " ORDER BY u.schema_id DESC, u.rowid DESC",
    }
}

/// A statement in the making, and what is bound in it.
#[derive(Default)]
struct Statement {
    sql: String,
    params: Vec<Value>,
}

impl Statement {
    fn push(&mut self, sql: &'static str) {
        self.sql.push_str(sql);
    }

    fn bind(&mut self, value: impl Into<Bound>) {
        self.params.push(value.into().0);
        self.sql.push('?');
        self.sql.push_str(&self.params.len().to_string());
    }

    /// Compares a column, or the same column with case taken out.
    fn text(&mut self, [column, folded]: [&'static str; 2], like: &TextFilter) {
        let text = like.text.as_str();
        match like.method {
            TextMethod::Equals => {
                self.push(column);
                self.push(" = ");
                self.bind(text);
            }
            TextMethod::EqualsIgnoreCase => {
                self.push(folded);
                self.push(" = ");
                self.bind(fold(text));
            }
            TextMethod::StartsWith => self.begins(column, text),
            TextMethod::StartsWithIgnoreCase => self.begins(folded, &fold(text)),
            TextMethod::Contains => {
                self.push("instr(");
                self.push(column);
                self.push(", ");
                self.bind(text);
                self.push(") > 0");
            }
        }
    }

    /// What begins with `text` lies from it up to the first text that does not, byte by byte.
    fn begins(&mut self, column: &'static str, text: &str) {
        self.push("(");
        self.push(column);
        self.push(" >= ");
        self.bind(text);
        if let Some(end) = end_of_beginning(text) {
            self.push(" AND ");
            self.push(column);
            self.push(" < ");
            self.bind(end);
        }
        self.push(")");
    }
}

/// What may be bound.
struct Bound(Value);

impl From<&str> for Bound {
    fn from(text: &str) -> Self {
        Self(Value::Text(text.to_owned()))
    }
}

impl From<String> for Bound {
    fn from(text: String) -> Self {
        Self(Value::Text(text))
    }
}

/// The first text after all that begin with `text`: its last character that has a next one, moved on. UTF-8
/// sorts as the characters do.
fn end_of_beginning(text: &str) -> Option<String> {
    let mut end = text.to_owned();
    while let Some(last) = end.pop() {
        // The range of characters steps over the surrogates by itself.
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
    fn the_end_of_a_beginning_is_the_next_text() {
        for (text, end) in [
            ("a", Some("b")),
            ("az", Some("a{")),
            ("a\u{10ffff}", Some("b")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(end_of_beginning(text).as_deref(), end);
        }
    }
}
