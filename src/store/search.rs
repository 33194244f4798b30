//! A search for users as SQL.
//!
//! The only module that builds statements at run time. Their text consists of constants; values of the caller are
//! always bound. No pattern language is used, so nothing needs escaping: a prefix becomes a range, and `instr` finds a
//! substring.

mod statement;

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::users::{UserRow, state_name, user};
use super::{ReadTx, unavailable};
use crate::error::{Error, Result};
use crate::model::{Filter, OrgId, Search, SortBy};
use statement::Statement;

/// The most rows that are sorted for a page. With more rows, reading them in the order of an index is faster.
const MAX_SORTED: u64 = 2_000;
/// The most negated filters that are counted separately. Each takes a statement with all other filters in it.
const MAX_SEPARATE_COUNTS: usize = 4;
/// The most organizations that a filter by organization is compared with. An instance has a few.
const MAX_ORGANIZATIONS: u32 = 10_000;

impl ReadTx<'_> {
    /// Searches one organization or all. Returns the row numbers of one page, and the total number of rows found. The
    /// caller reads the rows one by one ([`Self::user_numbered`]), because it may end the page early.
    pub(crate) fn search_users(
        &self,
        search: &Search,
        org: Option<&OrgId>,
    ) -> Result<(Vec<i64>, u64)> {
        let filters: Vec<&Filter> = search.filters.iter().collect();
        let (page, total) = if filters.iter().any(|it| is_narrow(it)) {
            let mut numbers = self.numbers(&filters, org, IndexChoice::Names)?;
            numbers.push_order(search);
            self.page_of_all(&numbers, search).map_err(unavailable)?
        } else {
            let total = self.total(&filters, org, MAX_SEPARATE_COUNTS)?;
            let end = search.offset.saturating_add(search.limit.into());
            let index = match (total > MAX_SORTED, end > MAX_SORTED) {
                (true, true) => IndexChoice::SortOrder,
                (true, false) => IndexChoice::SortOrderFirstPages,
                (false, _) => IndexChoice::State,
            };
            let page = self.ordered(&filters, org, index, search)?;
            let page = self.page(page, search).map_err(unavailable)?;
            (page, total)
        };
        Ok((page, total))
    }

    /// Counts the users for whom all of `filters` hold. A negated filter that has an index is counted separately and
    /// subtracted, so that it is not compared with every user.
    fn total(&self, filters: &[&Filter], org: Option<&OrgId>, apart: usize) -> Result<u64> {
        let mut candidates = filters.iter().enumerate().filter(|_| apart > 0);
        let excluded = candidates.find_map(|(at, it)| {
            let Filter::Not(excluded) = it else {
                return None;
            };
            let index = if matches!(excluded.as_ref(), Filter::State(_)) {
                IndexChoice::State
            } else if is_narrow(excluded) {
                IndexChoice::Names
            } else {
                return None;
            };
            Some((at, excluded.as_ref(), index))
        });
        let Some((at, excluded, index)) = excluded else {
            let counted = self.numbers(filters, org, IndexChoice::State)?;
            return self.count(&counted).map_err(unavailable);
        };
        let mut rest = filters.to_vec();
        rest.remove(at);
        let all = self.total(&rest, org, apart.saturating_sub(1))?;
        rest.push(excluded);
        let few = self.numbers(&rest, org, index)?;
        let few = self.count(&few).map_err(unavailable)?;
        Ok(all.saturating_sub(few))
    }

    /// As [`Self::numbers`], in the search's order.
    fn ordered(
        &self,
        filters: &[&Filter],
        org: Option<&OrgId>,
        index: IndexChoice,
        search: &Search,
    ) -> Result<Statement> {
        let mut numbers = self.numbers(filters, org, index)?;
        if org.is_some()
            && matches!(
                index,
                IndexChoice::SortOrder | IndexChoice::SortOrderFirstPages
            )
        {
            // Several indexes begin with the organization. SQLite would read all of one that covers the search and sort,
            // instead of stopping after a page.
            numbers.sql = numbers
                .sql
                .replacen(" WHERE ", index_of_order(search.sort), 1);
        }
        numbers.push_order(search);
        Ok(numbers)
    }

    /// Builds the statement for the row numbers that a search finds, without an order.
    fn numbers(
        &self,
        filters: &[&Filter],
        org: Option<&OrgId>,
        index: IndexChoice,
    ) -> Result<Statement> {
        let mut numbers = Statement {
            sql: String::new(),
            params: Vec::new(),
            index,
            org: org.cloned(),
        };
        numbers.push("SELECT u.rowid FROM user u WHERE 1");
        if let Some(org) = org {
            // Every index for a search within one organization begins with the organization.
            numbers.push(" AND u.org_id = ");
            numbers.bind(org.to_string());
        }
        for filter in filters {
            numbers.push(" AND ");
            self.filter(&mut numbers, filter)?;
        }
        Ok(numbers)
    }

    /// All statements that a search may use.
    #[cfg(test)]
    pub(super) fn statements_of(
        &self,
        search: &Search,
        org: Option<&OrgId>,
    ) -> Result<Vec<String>> {
        let filters: Vec<&Filter> = search.filters.iter().collect();
        let mut statements = Vec::new();
        for index in [
            IndexChoice::Names,
            IndexChoice::State,
            IndexChoice::SortOrder,
            IndexChoice::SortOrderFirstPages,
        ] {
            let numbers = self.numbers(&filters, org, index)?;
            statements.push(numbers.sql.replacen("u.rowid", "count(*)", 1));
            statements.push(self.ordered(&filters, org, index, search)?.sql);
        }
        Ok(statements)
    }

    /// Finds in one pass the row numbers of a page, and the total.
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

    /// Finds the row numbers of a page, and no more rows.
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

    /// Reads the user with this row number.
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
                // All users of this search are of this organization, so the filter is a constant.
                if let Some(own) = &to.org {
                    to.constant(like.is_match(own.as_str()));
                    return Ok(());
                }
                // Organizations are few. They are compared here, and the statement gets the list of those that match.
                let all = self.organizations(MAX_ORGANIZATIONS)?.into_iter();
                let ids = all.map(|it| it.id.to_string());
                let ids: Vec<String> = ids.filter(|it| like.is_match(it)).collect();
                to.push(to.index.column("u.org_id", "+u.org_id"));
                to.push(" IN (SELECT value FROM json_each(");
                to.bind(serde_json::Value::from(ids).to_string());
                to.push("))");
            }
            Filter::Username {
                like,
                specific_only,
            } => {
                match (to.index, to.org.clone()) {
                    (IndexChoice::SortOrderFirstPages, _) => to.push(
                        "EXISTS (SELECT 1 FROM username n INDEXED BY username_of_user
                        WHERE n.user_id = u.id AND n.org_id = u.org_id AND ",
                    ),
                    (
                        IndexChoice::Names | IndexChoice::State | IndexChoice::SortOrder,
                        Some(org),
                    ) => {
                        to.push("u.id IN (SELECT n.user_id FROM username n WHERE n.org_id = ");
                        to.bind(org.to_string());
                        to.push(" AND ");
                    }
                    (IndexChoice::Names | IndexChoice::State | IndexChoice::SortOrder, None) => to
                        .push(
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
                to.push(to.index.column("u.state", "+u.state"));
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

/// Rows that compare equal are sorted by row number, which is the order of creation. Every index ends in it.
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

/// Replaces ` WHERE ` in a search within one organization, so that it uses the index of its order. There is none for
/// schema ids.
const fn index_of_order(sort: SortBy) -> &'static str {
    match sort {
        SortBy::Creation => " INDEXED BY user_org_created WHERE ",
        SortBy::Id => " INDEXED BY user_in_org WHERE ",
        SortBy::Change => " INDEXED BY user_org_changed WHERE ",
        SortBy::State => " INDEXED BY user_org_state WHERE ",
        SortBy::SchemaId => " WHERE ",
    }
}

/// Whether a filter usually matches few users and has an index.
fn is_narrow(filter: &Filter) -> bool {
    match filter {
        Filter::Id(_) | Filter::Username { .. } | Filter::Nothing => true,
        Filter::And(all) => all.iter().any(is_narrow),
        Filter::Or(any) => any.iter().all(is_narrow),
        Filter::Not(_) | Filter::Organization(_) | Filter::State(_) => false,
    }
}

/// The index that a search uses, chosen here and not by SQLite, which does not know how many rows each would read.
///
/// Measured over the 32 searches of `search::a_page_of_100_among_100_000_users_is_right_and_takes_so_long` (a debug build with
/// SQLite at `-O1`; median in ms, here and by SQLite's own plan after `ANALYZE`): active users by id 13 and 72, locked users
/// by id 9 and 25, two negated filters 22 and 83, a nested filter 23 and 42, no filter 9 and 15. In no case is SQLite's plan
/// faster by more than a millisecond or two. Without
/// `ANALYZE` a search for ten users takes 35 instead of 4. And the statistics of `ANALYZE` hold usernames (24 of 340
/// samples did), which have to go with their user (SECURITY.md 46).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IndexChoice {
    /// Those of ids and usernames.
    Names,
    /// The one of organization and state.
    State,
    /// The one of the sort order, so that a page is found before all rows are read.
    SortOrder,
    /// As `SortOrder`, for one of the first pages. Few users are read, so the usernames of each are looked up, instead of
    /// the users of all usernames that match.
    SortOrderFirstPages,
}

impl IndexChoice {
    /// The column, or the column with a sign in front that keeps SQLite from using its index.
    const fn column(self, plain: &'static str, signed: &'static str) -> &'static str {
        match self {
            Self::State => plain,
            Self::Names | Self::SortOrder | Self::SortOrderFirstPages => signed,
        }
    }
}
