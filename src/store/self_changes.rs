//! Limits the changes that `self` tokens begin for their user, enrolments and renames: thirty within an hour
//! (SECURITY.md 45).
//!
//! Each change appends an event that is kept for a year; without a limit one token could fill the disk. The database has
//! a row for each change of the last hour. So the limit survives restarts, and removing what was begun does not affect it.

use std::time::Duration;

use super::WriteTx;
use crate::error::Result;
use crate::model::{Timestamp, UserId};

/// The most changes that `self` tokens may begin for one user within [`PERIOD`]. A person begins one or two.
const MAX_CHANGES: i64 = 30;
const PERIOD: Duration = Duration::from_hours(1);

impl WriteTx<'_> {
    /// How long the user's `self` tokens must wait before they begin another change. `None`: they need not wait.
    pub(crate) fn self_change_wait(&self, user: &UserId) -> Result<Option<Duration>> {
        // After the clock went back, a later change counts as one of now. Otherwise its hour would last longer.
        const REDATE: &str = "UPDATE self_change SET at = ?2 WHERE user_id = ?1 AND at > ?2";
        const COUNT: &str =
            "SELECT count(*), min(at) FROM self_change WHERE user_id = ?1 AND at > ?2";
        let now = self.now();
        self.execute(REDATE, (user.as_str(), now.micros()))?;
        let since = now.before(PERIOD);
        let counted = self.one(COUNT, (user.as_str(), since.micros()), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        Ok(match counted {
            Some((count, Some(oldest))) if count >= MAX_CHANGES => {
                Some(Timestamp::from_micros(oldest).since(since))
            }
            Some(_) | None => None,
        })
    }

    /// Records that a `self` token of this user begins a change.
    pub(crate) fn record_self_change(&self, user: &UserId) -> Result<()> {
        const DELETE_OLD: &str = "DELETE FROM self_change WHERE user_id = ?1 AND at <= ?2";
        const RECORD: &str = "INSERT INTO self_change (user_id, number, at)
            SELECT ?1, coalesce(max(number), 0) + 1, ?2 FROM self_change WHERE user_id = ?1";
        let now = self.now();
        self.execute(DELETE_OLD, (user.as_str(), now.before(PERIOD).micros()))?;
        self.execute(RECORD, (user.as_str(), now.micros()))
            .map(|_| ())
    }
}
