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

/// Rows that are sorted for a page rather than found in order: beyond, a page is nearer than the end of sorting.
const SORTED_AT_MOST: u64 = 2_000;
/// Filters that are counted apart from the others at most: each takes a statement with all the others in it.
const COUNTED_APART: usize = 4;
/// Organizations that a filter by organization is held against: one node serves a handful.
const MAX_ORGANIZATIONS: u32 = 10_000;

impl ReadTx<'_> {
    /// What a search finds, within one organization or over all: the numbers of the rows on a page, and how many there
    /// are on all. The rows themselves are read one by one ([`Self::user_numbered`]): a page may be cut before its end.
    pub(crate) fn search_users(
        &self,
        search: &Search,
        org: Option<&OrgId>,
    ) -> Result<(Vec<i64>, u64)> {
        let filters: Vec<&Filter> = search.filters.iter().collect();
        let (page, total) = if filters.iter().any(|it| is_narrow(it)) {
            let mut numbers = self.numbers(&filters, org, Lead::Filters)?;
            numbers.push_order(search);
            self.page_of_all(&numbers, search).map_err(unavailable)?
        } else {
            let total = self.total(&filters, org, COUNTED_APART)?;
            let end = search.offset.saturating_add(search.limit.into());
            let lead = match (total > SORTED_AT_MOST, end > SORTED_AT_MOST) {
                (true, true) => Lead::Order,
                (true, false) => Lead::Near,
                (false, _) => Lead::States,
            };
            let page = self.ordered(&filters, org, lead, search)?;
            let page = self.page(page, search).map_err(unavailable)?;
            (page, total)
        };
        Ok((page, total))
    }

    /// For how many users all of `filters` hold. Those whom a narrow one or a state excludes have an index to be
    /// found by: they are counted and taken off, and not everybody held against it.
    fn total(&self, filters: &[&Filter], org: Option<&OrgId>, apart: usize) -> Result<u64> {
        let mut candidates = filters.iter().enumerate().filter(|_| apart > 0);
        let excluded = candidates.find_map(|(at, it)| {
            let Filter::Not(excluded) = it else {
                return None;
            };
            let lead = if matches!(excluded.as_ref(), Filter::State(_)) {
                Lead::States
            } else if is_narrow(excluded) {
                Lead::Filters
            } else {
                return None;
            };
            Some((at, excluded.as_ref(), lead))
        });
        let Some((at, excluded, lead)) = excluded else {
            let counted = self.numbers(filters, org, Lead::States)?;
            return self.count(&counted).map_err(unavailable);
        };
        let mut rest = filters.to_vec();
        rest.remove(at);
        let all = self.total(&rest, org, apart.saturating_sub(1))?;
        rest.push(excluded);
        let few = self.numbers(&rest, org, lead)?;
        let few = self.count(&few).map_err(unavailable)?;
        Ok(all.saturating_sub(few))
    }

    /// The same in the search's order, to be read up to the end of the page.
    fn ordered(
        &self,
        filters: &[&Filter],
        org: Option<&OrgId>,
        lead: Lead,
        search: &Search,
    ) -> Result<Statement> {
        let mut numbers = self.numbers(filters, org, lead)?;
        if org.is_some() && matches!(lead, Lead::Order | Lead::Near) {
            // Several indexes begin with the organization, and SQLite would rather read all of one that covers the
            // search and sort than stop after a page.
            numbers.sql = numbers.sql.replacen(" WHERE ", in_order_by(search.sort), 1);
        }
        numbers.push_order(search);
        Ok(numbers)
    }

    /// A statement for the numbers of the rows that a search finds, in no order yet.
    fn numbers(&self, filters: &[&Filter], org: Option<&OrgId>, lead: Lead) -> Result<Statement> {
        let mut numbers = Statement {
            sql: String::new(),
            params: Vec::new(),
            lead,
            org: org.cloned(),
        };
        numbers.push("SELECT u.rowid FROM user u WHERE 1");
        if let Some(org) = org {
            // Every index that is meant for a search within one organization begins with it.
            numbers.push(" AND u.org_id = ");
            numbers.bind(org.to_string());
        }
        for filter in filters {
            numbers.push(" AND ");
            self.filter(&mut numbers, filter)?;
        }
        Ok(numbers)
    }

    /// The statements that a search may lead to, whichever way it takes.
    #[cfg(test)]
    pub(super) fn statements_of(
        &self,
        search: &Search,
        org: Option<&OrgId>,
    ) -> Result<Vec<String>> {
        let filters: Vec<&Filter> = search.filters.iter().collect();
        let mut statements = Vec::new();
        for lead in [Lead::Filters, Lead::States, Lead::Order, Lead::Near] {
            let numbers = self.numbers(&filters, org, lead)?;
            statements.push(numbers.sql.replacen("u.rowid", "count(*)", 1));
            statements.push(self.ordered(&filters, org, lead, search)?.sql);
        }
        Ok(statements)
    }

    /// The numbers of the rows on a page, and how many rows there are on all: found in one pass.
    fn page_of_all(
        &self,
        numbers: &Statement,
        search: &Search,
    ) -> rusqlite::Result<(Vec<i64>, u64)> {
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

    fn count(&self, numbers: &Statement) -> rusqlite::Result<u64> {
        let sql = numbers.sql.replacen("u.rowid", "count(*)", 1);
        let mut statement = self.connection.prepare(&sql)?;
        let count: i64 =
            statement.query_row(params_from_iter(&numbers.params), |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The numbers of the rows on a page, and not a row more.
    fn page(&self, mut numbers: Statement, search: &Search) -> rusqlite::Result<Vec<i64>> {
        numbers.push(" LIMIT ");
        numbers.bind(Value::Integer(search.limit.into()));
        numbers.push(" OFFSET ");
        let offset = i64::try_from(search.offset).unwrap_or(i64::MAX);
        numbers.bind(Value::Integer(offset));
        let mut statement = self.connection.prepare(&numbers.sql)?;
        let rows = statement.query_map(params_from_iter(&numbers.params), |row| row.get(0))?;
        rows.collect()
    }

    /// The user in the row of that number.
    pub(crate) fn user_numbered(&self, number: i64) -> Result<UserRow> {
        const SQL: &str = "SELECT id, org_id, state, created, changed FROM user WHERE rowid = ?1";
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
                // Within one organization every user is of that one, and no other is looked at.
                if let Some(own) = &to.org {
                    to.constant(like.holds(own.as_str()));
                    return Ok(());
                }
                // Organizations are few: they are compared here, and there as a list.
                let all = self.organizations(MAX_ORGANIZATIONS)?.into_iter();
                let ids = all.map(|it| it.id.to_string());
                let ids: Vec<String> = ids.filter(|it| like.holds(it)).collect();
                to.push(to.lead.column("u.org_id", "+u.org_id"));
                to.push(" IN (SELECT value FROM json_each(");
                to.bind(serde_json::Value::from(ids).to_string());
                to.push("))");
            }
            Filter::Username {
                like,
                specific_only,
            } => {
                match (to.lead, to.org.clone()) {
                    (Lead::Near, _) => to.push(
                        "EXISTS (SELECT 1 FROM username n INDEXED BY username_of_user
                        WHERE n.user_id = u.id AND n.org_id = u.org_id AND ",
                    ),
                    (Lead::Filters | Lead::States | Lead::Order, Some(org)) => {
                        to.push("u.id IN (SELECT n.user_id FROM username n WHERE n.org_id = ");
                        to.bind(org.to_string());
                        to.push(" AND ");
                    }
                    (Lead::Filters | Lead::States | Lead::Order, None) => to.push(
                        "u.id IN (SELECT n.user_id FROM username n
                        WHERE n.org_id IN (SELECT id FROM organization) AND ",
                    ),
                }
                to.text(["n.username", "n.folded"], like);
                if *specific_only {
                    to.push(" AND n.org_specific = 1");
                }
                to.push(")");
            }
            Filter::State(state) => {
                to.push(to.lead.column("u.state", "+u.state"));
                to.push(" = ");
                to.bind(state_name(*state).to_owned());
            }
            Filter::Nothing => to.constant(false),
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

/// What stands in the place of ` WHERE ` so that a search within one organization goes by the index of its order. There
/// is none for schema ids.
const fn in_order_by(sort: SortBy) -> &'static str {
    match sort {
        SortBy::Creation => " INDEXED BY user_org_created WHERE ",
        SortBy::Id => " INDEXED BY user_in_org WHERE ",
        SortBy::Change => " INDEXED BY user_org_changed WHERE ",
        SortBy::State => " INDEXED BY user_org_state WHERE ",
        SortBy::SchemaId => " WHERE ",
    }
}

/// Whether a filter says so much that few users are left, as a rule, and has an index to find them by.
fn is_narrow(filter: &Filter) -> bool {
    match filter {
        Filter::Id(_) | Filter::Username { .. } | Filter::Nothing => true,
        Filter::And(all) => all.iter().any(is_narrow),
        Filter::Or(any) => any.iter().all(is_narrow),
        Filter::Not(_) | Filter::Organization(_) | Filter::State(_) => false,
    }
}

/// By which index a search is to go: SQLite does not know how many rows stand behind each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// By ids and usernames.
    Filters,
    /// By organization and state.
    States,
    /// By the order, so that a page is found before all is looked at.
    Order,
    /// The same where the page is among the first: so few are looked at that each is asked for its usernames, and
    /// not all usernames for whom they belong to.
    Near,
}

impl Lead {
    /// The column, or the same behind a sign that keeps SQLite from going by it.
    const fn column(self, plain: &'static str, signed: &'static str) -> &'static str {
        match self {
            Self::States => plain,
            Self::Filters | Self::Order | Self::Near => signed,
        }
    }
}

/// A statement in the making, and what is bound in it.
struct Statement {
    sql: String,
    params: Vec<Value>,
    lead: Lead,
    /// The one organization that is searched, or none where all are.
    org: Option<OrgId>,
}

impl Statement {
    fn push(&mut self, sql: &'static str) {
        self.sql.push_str(sql);
    }

    fn push_order(&mut self, search: &Search) {
        let order = order(search.sort, search.descending);
        if self.lead == Lead::Filters {
            // Few are found, as a rule, and sorted: the sign keeps SQLite from going through all users in this order.
            self.sql.push_str(&order.replace(" u.", " +u."));
        } else {
            self.sql.push_str(order);
        }
    }

    fn bind(&mut self, value: impl Into<Value>) {
        self.params.push(value.into());
        self.sql.push('?');
        self.sql.push_str(&self.params.len().to_string());
    }

    /// What holds of all users or of none. Bound and not part of the text, so that it does not change the plan.
    fn constant(&mut self, holds: bool) {
        self.bind(Value::Integer(holds.into()));
    }

    /// Compares a column, or the same column without case and normalization.
    fn text(&mut self, [column, folded]: [&'static str; 2], like: &TextFilter) {
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
            TextMethod::StartsWith => self.begins(column, text),
            TextMethod::StartsWithIgnoreCase => self.begins(folded, &fold(text)),
            TextMethod::Contains => {
                self.push("instr(");
                self.push(column);
                self.push(", ");
                self.bind(text.to_owned());
                self.push(") > 0");
            }
        }
    }

    /// What begins with `text` lies from it up to the first text that does not, byte by byte.
    fn begins(&mut self, column: &'static str, text: &str) {
        self.push("(");
        self.push(column);
        self.push(" >= ");
        self.bind(text.to_owned());
        if let Some(end) = end_of_beginning(text) {
            self.push(" AND ");
            self.push(column);
            self.push(" < ");
            self.bind(end);
        }
        self.push(")");
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
