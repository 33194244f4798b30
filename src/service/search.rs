//! Searching for users: one page of the users that the caller may see, and their total number.

use super::users::read_user;
use super::{Context, Permission, Service, User};
use crate::error::{Error, Missing, Result};
use crate::model::{Search, Timestamp};
use crate::store::ReadKind;

/// The result of a search, without the users of its page.
pub struct SearchSummary {
    /// The number of users on all pages.
    pub total: u64,
    /// The time of the search.
    pub at: Timestamp,
}

impl Service {
    /// Searches the users that the caller may see, and calls `each` for every user of the page until it returns `false`.
    /// Page and total come from one snapshot of the database.
    pub fn search_users(
        &self,
        context: &Context,
        search: &Search,
        mut each: impl FnMut(User) -> bool,
    ) -> Result<SearchSummary> {
        self.read(
            context,
            ReadKind::Search,
            Permission::Search,
            None,
            |call, tx| {
                if !call.is_for_this_instance() {
                    return Err(Error::NotFound(Missing::User));
                }
                let org = call.principal.role.organization();
                let (page, total) = tx.search_users(search, org)?;
                for number in page {
                    if !each(read_user(tx, &tx.user_numbered(number)?, call.now)?) {
                        break;
                    }
                }
                Ok(SearchSummary {
                    total,
                    at: call.now,
                })
            },
        )
    }
}
