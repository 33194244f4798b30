//! Searching for users: a page of those that a token may see, and how many there are in all.

use super::access::Act;
use super::users::whole;
use super::{Caller, Expect, Service, User};
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
    pub fn search_users(
        &self,
        caller: &Caller,
        expect: &Expect,
        search: &Search,
        now: Timestamp,
    ) -> Result<Found> {
        caller.require(Act::Search, None)?;
        if !expect.instance_is(&self.inner.instance.id) {
            return Err(Error::NotFound(Missing::User));
        }
        let org = caller.power.organization();
        self.inner.store.read_for_request(ReadKind::Search, |tx| {
            let (rows, total) = tx.search_users(search, org)?;
            let users = rows.into_iter().map(|it| whole(tx, it, now));
            Ok(Found {
                users: users.collect::<Result<_>>()?,
                total,
                at: now,
            })
        })
    }
}
