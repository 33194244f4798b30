//! Deletes old events, and keeps the record of the authenticators that were confirmed (SECURITY.md 33).
//!
//! Kept events stay at the front, so the sweep goes on from a stored number. Once a day it begins with the first event
//! again, because a user that is removed takes its part of the record along.

use std::time::Duration;

use super::{ReadTx, WriteTx};
use crate::error::Result;
use crate::model::Timestamp;

/// How often the sweep begins with the first event.
const PASS_INTERVAL: Duration = Duration::from_hours(24);

/// What the instance knows of the sweep.
struct Sweep {
    /// The event up to which it has come.
    event: i64,
    /// When it began with the first one.
    began: Timestamp,
}

impl ReadTx<'_> {
    /// The time of the newest event that was deleted. All later events are on record.
    pub(crate) fn newest_deleted_event_at(&self) -> Result<Timestamp> {
        const SQL: &str = "SELECT newest_deleted_event FROM instance WHERE one = 1";
        let at = self.one(SQL, (), |row| row.get(0).map(Timestamp::from_micros))?;
        Ok(at.unwrap_or(Timestamp::NEVER))
    }

    fn sweep(&self) -> Result<Option<Sweep>> {
        const SQL: &str = "SELECT swept_event, sweep_began FROM instance WHERE one = 1";
        self.one(SQL, (), |row| {
            Ok(Sweep {
                event: row.get(0)?,
                began: Timestamp::from_micros(row.get(1)?),
            })
        })
    }
}

impl WriteTx<'_> {
    /// Deletes events older than `before`, of the next `slice` events at most.
    ///
    /// Keeps what is on record of the life of an authenticator that was confirmed, while its user is there, and the newest
    /// event, which the clock is compared with.
    pub(crate) fn delete_old_events(&self, before: Timestamp, slice: u32) -> Result<()> {
        // Times never decrease, so the old events of a slice are its first ones.
        const LAST_OLD: &str = "SELECT max(id) FROM (
            SELECT id, at FROM event WHERE id > ?1 AND id < (SELECT max(id) FROM event) ORDER BY id LIMIT ?3
        ) WHERE at < ?2";
        const DELETE: &str = "DELETE FROM event WHERE id > ?1 AND id <= ?2 AND NOT (
            kind GLOB 'totp.*' AND kind NOT IN ('totp.checked', 'totp.code_refused', 'totp.renamed', 'totp.resynced') AND EXISTS (
                SELECT 1 FROM confirmed_totp
                WHERE confirmed_totp.user_id = event.user_id AND confirmed_totp.totp_id = event.about_id))
            RETURNING at";
        const ADVANCE: &str = "UPDATE instance SET swept_event = ?1,
            newest_deleted_event = max(newest_deleted_event, ?2),
            sweep_began = CASE swept_event WHEN 0 THEN ?3 ELSE sweep_began END WHERE one = 1";
        const RESTART: &str = "UPDATE instance SET swept_event = 0 WHERE one = 1";

        let Some(sweep) = self.sweep()? else {
            return Ok(());
        };
        let old = (sweep.event, before.micros(), slice);
        let last: Option<i64> = self.one(LAST_OLD, old, |row| row.get(0))?.flatten();
        let Some(last) = last else {
            let is_due = sweep.began > self.now() || self.now().since(sweep.began) >= PASS_INTERVAL;
            if is_due && sweep.event > 0 {
                self.execute(RESTART, ())?;
            }
            return Ok(());
        };
        let deleted: Vec<i64> = self.all(DELETE, (sweep.event, last), |row| row.get(0))?;
        let newest = deleted.into_iter().max().unwrap_or(0);
        let now = self.now().micros();
        self.execute(ADVANCE, (last, newest, now)).map(|_| ())
    }
}
