//! Searching for users: a page of those that a token may see, and how many there are in all.

use super::users::whole;
use super::{Act, Context, Service, User};
use crate::error::{Error, Missing, Result};
use crate::model::{Search, Timestamp};
use crate::store::ReadKind;

/// A page of what a search found.
pub struct Found {
    /// The page.
    pub users: Vec<User>,
    /// How many there are on all pages.
    pub total: u64,
    /// When that was so.
    pub at: Timestamp,
}

impl Service {
    /// Searches among the users in sight. Page and count are of one moment.
    pub fn search_users(&self, context: &Context, search: &Search) -> Result<Found> {
        self.read(context, ReadKind::Search, Act::Search, None, |call, tx| {
            if !call.expects_instance() {
                return Err(Error::NotFound(Missing::User));
            }
            let org = call.identity.power.organization();
            let (rows, total) = tx.search_users(search, org)?;
            let users = rows.into_iter().map(|it| whole(tx, it, call.now));
            Ok(Found {
                users: users.collect::<Result<_>>()?,
                total,
                at: call.now,
            })
        })
    }
}
