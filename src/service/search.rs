//! Searching for users: a page of those that a token may see, and how many there are in all.

use super::users::read_user;
use super::{Context, Permission, Service, User};
use crate::error::{Error, Missing, Result};
use crate::model::{Search, Timestamp};
use crate::store::ReadKind;

/// What is known of a search beside the users of its page.
pub struct SearchSummary {
    /// How many users there are on all pages.
    pub total: u64,
    /// When that was so.
    pub at: Timestamp,
}

impl Service {
    /// Searches among the users in sight, and hands those of the page to `each` one by one until that says `false`.
    /// Page and count are of one moment.
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
