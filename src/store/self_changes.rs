//! What `self` tokens may still begin for their user: thirty within any hour (SECURITY.md 45).
//!
//! Each leaves an event that is kept for a year, and without a bound one token would fill the disk. A row for each of the
//! last hour's changes stands in the database, so the bound survives restarts, and whatever was begun may be removed
//! again without effect on it.

use std::time::Duration;

use super::WriteTx;
use crate::error::Result;
use crate::model::{Timestamp, UserId};

/// Changes that `self` tokens may begin for one user within [`WITHIN`]. A person begins one or two.
const MOST: i64 = 30;
const WITHIN: Duration = Duration::from_hours(1);

impl WriteTx<'_> {
    /// How long the user's `self` tokens have to wait before they may begin one more change, if they have to.
    pub(crate) fn self_change_wait(&self, user: &UserId) -> Result<Option<Duration>> {
        // The clock went back. Such a change counts as one of now, or its hour would last longer than an hour.
        const DATE_NOW: &str = "UPDATE self_change SET at = ?2 WHERE user_id = ?1 AND at > ?2";
        const COUNT: &str =
            "SELECT count(*), min(at) FROM self_change WHERE user_id = ?1 AND at > ?2";
        let now = self.now();
        self.execute(DATE_NOW, (user.as_str(), now.micros()))?;
        let since = now.before(WITHIN);
        let counted = self.one(COUNT, (user.as_str(), since.micros()), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        Ok(match counted {
            Some((count, Some(oldest))) if count >= MOST => {
                Some(Timestamp::from_micros(oldest).since(since))
            }
            Some(_) | None => None,
        })
    }

    /// Records that a `self` token of this user begins a change.
    pub(crate) fn record_self_change(&self, user: &UserId) -> Result<()> {
        const FORGET: &str = "DELETE FROM self_change WHERE user_id = ?1 AND at <= ?2";
        const RECORD: &str = "INSERT INTO self_change (user_id, number, at)
            SELECT ?1, coalesce(max(number), 0) + 1, ?2 FROM self_change WHERE user_id = ?1";
        let now = self.now();
        self.execute(FORGET, (user.as_str(), now.before(WITHIN).micros()))?;
        self.execute(RECORD, (user.as_str(), now.micros()))
            .map(|_| ())
    }
}
