//! Corrects what was recorded while the clock was ahead (SECURITY.md 35), in small transactions between which other
//! changes run.
//!
//! Knows which columns hold times, and what becomes of a time that is later than now. The caller decides the order of the
//! transactions.

use std::time::{Duration, Instant};

use super::floors::floor;
use super::{Event, EventKind, EventSource, ReadTx, Store, WriteTx};
use crate::error::Result;
use crate::model::{Timestamp, TotpId, UserId};
use crate::totp::LONGEST_WAIT;

/// The most rows that one transaction changes.
const SLICE: u32 = 1_000;
/// The time after which a transaction ends with the row it is at.
const SLICE_TIME: Duration = Duration::from_millis(50);
/// An accepted code: its authenticator, and when.
pub(crate) struct CodeUse {
    pub(crate) user: UserId,
    pub(crate) totp: TotpId,
    pub(crate) at: Timestamp,
}

/// The tables whose rows are corrected in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatedTable {
    Failures,
    Tokens,
    Users,
    RecoverySets,
    Organizations,
    Invitations,
}

impl DatedTable {
    const ALL: [Self; 6] = [
        Self::Failures,
        Self::Tokens,
        Self::Users,
        Self::RecoverySets,
        Self::Organizations,
        Self::Invitations,
    ];

    /// Selects the keys after ?1 of rows with a time later than ?2, at most ?3.
    const fn select(self) -> &'static str {
        match self {
            Self::Failures => {
                "SELECT user_id FROM failure WHERE user_id > ?1 AND judged_at > ?2
                ORDER BY user_id LIMIT ?3"
            }
            Self::Tokens => {
                "SELECT id FROM token WHERE id > ?1 AND created > ?2 ORDER BY id LIMIT ?3"
            }
            Self::Users => {
                "SELECT id FROM user WHERE id > ?1 AND (created > ?2 OR changed > ?2)
                ORDER BY id LIMIT ?3"
            }
            Self::RecoverySets => {
                "SELECT user_id FROM recovery_set WHERE user_id > ?1 AND (created > ?2 OR changed > ?2)
                ORDER BY user_id LIMIT ?3"
            }
            Self::Organizations => {
                "SELECT id FROM organization WHERE id > ?1 AND created > ?2 ORDER BY id LIMIT ?3"
            }
            Self::Invitations => {
                "SELECT hex(digest) FROM invitation WHERE digest > unhex(?1) AND created > ?2
                ORDER BY digest LIMIT ?3"
            }
        }
    }

    /// Sets the times later than ?2 of the row with the key ?1 to ?2.
    const fn update(self) -> &'static str {
        match self {
            // The wait begins anew.
            Self::Failures => {
                "UPDATE failure SET judged_at = ?2 WHERE user_id = ?1 AND judged_at > ?2"
            }
            // The token keeps its lifetime.
            Self::Tokens => {
                "UPDATE token SET expires = ?2 + max(expires - created, 0), created = ?2
                WHERE id = ?1 AND created > ?2"
            }
            Self::Users => {
                "UPDATE user SET created = min(created, ?2), changed = min(changed, ?2)
                WHERE id = ?1"
            }
            Self::RecoverySets => {
                "UPDATE recovery_set SET created = min(created, ?2), changed = min(changed, ?2)
                WHERE user_id = ?1"
            }
            Self::Organizations => {
                "UPDATE organization SET created = ?2 WHERE id = ?1 AND created > ?2"
            }
            // As tokens.
            Self::Invitations => {
                "UPDATE invitation SET expires = ?2 + max(expires - created, 1), created = ?2
                WHERE digest = unhex(?1) AND created > ?2"
            }
        }
    }
}

impl Store {
    /// Runs `write` as [`Self::write`] does, but accepts a clock that is earlier than the newest event.
    pub(crate) fn write_with_confirmed_clock<T: Send + 'static>(
        &self,
        now: Timestamp,
        write: impl FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer
            .write(move |connection| write(&WriteTx::with_confirmed_clock(connection, now)))
    }
}

impl ReadTx<'_> {
    /// The id of the last event that is not later than `now`, and the time of the first later one.
    ///
    /// Times of events never decrease, so only the later events are read.
    pub(crate) fn events_ahead(&self, now: Timestamp) -> Result<(i64, Option<Timestamp>)> {
        const LAST: &str = "SELECT id FROM event WHERE at <= ?1 ORDER BY id DESC LIMIT 1";
        const FIRST: &str = "SELECT at FROM event WHERE id > ?1 ORDER BY id LIMIT 1";
        let last = self.one(LAST, (now.micros(),), |row| row.get(0))?;
        let last = last.unwrap_or(0);
        let first = self.one(FIRST, (last,), |row| row.get(0).map(Timestamp::from_micros))?;
        Ok((last, first))
    }

    /// The codes accepted after the event `after`, in the order of the events, and the id of the last event read. `None`
    /// if there is no later event.
    pub(crate) fn codes_used_after(&self, after: i64) -> Result<Option<(i64, Vec<CodeUse>)>> {
        const SQL: &str = "SELECT id, at, user_id, about_id,
            kind IN ('totp.checked', 'totp.confirmed', 'totp.resynced') AND user_id IS NOT NULL AND about_id IS NOT NULL
            FROM event WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut last = None;
        let uses = self.all(SQL, (after, SLICE), |row| {
            last = Some(row.get(0)?);
            if !row.get::<_, bool>(4)? {
                return Ok(None);
            }
            Ok(Some(CodeUse {
                at: Timestamp::from_micros(row.get(1)?),
                user: UserId::from_trusted(row.get(2)?),
                totp: TotpId::from_trusted(row.get(3)?),
            }))
        })?;
        Ok(last.map(|last| (last, uses.into_iter().flatten().collect())))
    }

    /// Authenticators after `after` whose floor is above that of `present`, or which have a time later than `now`.
    pub(crate) fn totps_ahead(
        &self,
        after: &(UserId, TotpId),
        present: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<(UserId, TotpId)>> {
        const SQL: &str = concat!(
            "SELECT user_id, id FROM totp WHERE (user_id, id) > (?1, ?2) AND (last_step > ",
            floor!("?3"),
            " OR created > ?4 OR changed > ?4 OR last_used > ?4)
            ORDER BY user_id, org_id, id LIMIT ?5"
        );
        let (user, totp) = after;
        let params = (
            user.as_str(),
            totp.as_str(),
            present.seconds(),
            now.micros(),
            SLICE,
        );
        self.all(SQL, params, |row| {
            Ok((
                UserId::from_trusted(row.get(0)?),
                TotpId::from_trusted(row.get(1)?),
            ))
        })
    }

    /// Keys after `after` of rows with a time later than `now`.
    pub(crate) fn keys_ahead(
        &self,
        table: DatedTable,
        after: &str,
        now: Timestamp,
    ) -> Result<Vec<String>> {
        self.all(table.select(), (after, now.micros(), SLICE), |row| {
            row.get(0)
        })
    }
}

impl WriteTx<'_> {
    /// Lowers an authenticator's floor to that of `present`, and sets its times that are later than now to now. Returns
    /// whether the floor was higher.
    ///
    /// The steps from `since` up to the old floor become void for good, because codes of some of them were used. Void
    /// steps from an earlier correction that are still to come are joined to these. A drift that was found by the wrong
    /// clock is forgotten.
    fn reset_totp(
        &self,
        user: &UserId,
        totp: &TotpId,
        since: Timestamp,
        present: Timestamp,
    ) -> Result<bool> {
        // A code's step may be behind the clock by the window and the drift.
        const FLOOR: &str = concat!(
            "UPDATE totp SET
            void_from = CASE WHEN void_to > new.floor THEN min(void_from, new.since) ELSE new.since END,
            void_to = CASE WHEN void_to > new.floor THEN max(void_to, last_step) ELSE last_step END,
            last_step = new.floor,
            drift_steps = 0
            FROM (SELECT floor, max(floor + 1, since - 1) AS since FROM (
                SELECT ",
            floor!("?3"),
            " AS floor, max(?4, 0) / period_s + min(drift_steps, 0) AS since FROM totp WHERE user_id = ?1 AND id = ?2)) AS new
            WHERE user_id = ?1 AND id = ?2 AND last_step > new.floor"
        );
        // The time of the last use stays NULL where there was none: `min` of NULL is NULL.
        const DATES: &str =
            "UPDATE totp SET created = min(created, ?3), changed = min(changed, ?3),
            drift_steps = CASE WHEN last_used > ?3 THEN 0 ELSE drift_steps END,
            last_used = min(last_used, ?3)
            WHERE user_id = ?1 AND id = ?2 AND (created > ?3 OR changed > ?3 OR last_used > ?3)";
        // An event's time may be ahead of the clock by up to the longest wait.
        let since = since.before(LONGEST_WAIT).seconds();
        let (user, totp) = (user.as_str(), totp.as_str());
        let was_higher = self.execute(FLOOR, (user, totp, present.seconds(), since))? == 1;
        self.execute(DATES, (user, totp, self.now().micros()))?;
        Ok(was_higher)
    }

    /// Resets the authenticators of `uses`, as many as one transaction may. Returns how many floors were lowered and how
    /// many uses were handled.
    pub(crate) fn reset_used_totps(
        &self,
        uses: &[CodeUse],
        present: Timestamp,
    ) -> Result<(usize, usize)> {
        change_slice(uses, |it| {
            self.reset_totp(&it.user, &it.totp, it.at, present)
        })
    }

    /// As [`Self::reset_used_totps`], for authenticators without such a use on record: codes may have been used since
    /// `since`.
    pub(crate) fn reset_other_totps(
        &self,
        totps: &[(UserId, TotpId)],
        since: Timestamp,
        present: Timestamp,
    ) -> Result<(usize, usize)> {
        change_slice(totps, |(user, totp)| {
            self.reset_totp(user, totp, since, present)
        })
    }

    /// Sets the later times of the rows with these keys to now, as many as one transaction may. Returns how many rows
    /// changed and how many were handled.
    pub(crate) fn redate_rows(&self, table: DatedTable, keys: &[String]) -> Result<(usize, usize)> {
        change_slice(keys, |key| {
            let changed = self.execute(table.update(), (key, self.now().micros()))?;
            Ok(changed == 1)
        })
    }

    /// Sets the time of events after `after` to now, as many as one transaction may; each keeps its original time in a
    /// column of its own. Returns their number and the id of the last one, or `None` after the newest event.
    pub(crate) fn redate_events(&self, after: i64) -> Result<(usize, Option<i64>)> {
        const NEXT: &str = "SELECT id FROM event WHERE id > ?1 ORDER BY id LIMIT 1";
        const SQL: &str = "UPDATE event SET original_at = coalesce(original_at, at), at = ?2
            WHERE id = ?1 AND at > ?2";
        let begun = Instant::now();
        let (mut last, mut count) = (after, 0_usize);
        for _ in 0..SLICE {
            let Some(id) = self.one(NEXT, (last,), |row| row.get::<_, i64>(0))? else {
                return Ok((count, None));
            };
            let changed = self.execute(SQL, (id, self.now().micros()))?;
            (last, count) = (id, count.saturating_add(changed));
            if begun.elapsed() >= SLICE_TIME {
                break;
            }
        }
        Ok((count, Some(last)))
    }

    /// Sets every time later than now to now, all in this transaction. For a copy that no other process uses.
    pub(super) fn redate_all(&self, present: Timestamp) -> Result<()> {
        let now = self.now();
        let (first, since) = self.events_ahead(now)?;
        let mut last = first;
        while let Some((until, uses)) = self.codes_used_after(last)? {
            for it in &uses {
                self.reset_totp(&it.user, &it.totp, it.at, present)?;
            }
            last = until;
        }
        let mut after = (
            UserId::from_trusted(String::new()),
            TotpId::from_trusted(String::new()),
        );
        loop {
            let totps = self.totps_ahead(&after, present, now)?;
            for (user, totp) in &totps {
                self.reset_totp(user, totp, since.unwrap_or(now), present)?;
            }
            match totps.into_iter().last() {
                Some(it) => after = it,
                None => break,
            }
        }
        for table in DatedTable::ALL {
            let mut after = String::new();
            loop {
                let keys = self.keys_ahead(table, &after, now)?;
                for key in &keys {
                    self.execute(table.update(), (key, now.micros()))?;
                }
                match keys.into_iter().last() {
                    Some(it) => after = it,
                    None => break,
                }
            }
        }
        let mut last = Some(first);
        while let Some(after) = last {
            (_, last) = self.redate_events(after)?;
        }
        self.redate_small_tables()
    }

    /// Sets the later times of the instance and of restrictions to now.
    fn redate_small_tables(&self) -> Result<()> {
        // Events that are dated anew to now are later than all that were deleted.
        const INSTANCE: &str = "UPDATE instance SET probed_at = min(probed_at, ?1),
            sweep_began = min(sweep_began, ?1), newest_deleted_event = min(newest_deleted_event, ?1 - 1)
            WHERE one = 1";
        // Restores insert these rows.
        const RESTRICTIONS: &str = "UPDATE OR REPLACE restriction
            SET created = min(created, ?1), judged_at = min(judged_at, ?1)
            WHERE created > ?1 OR judged_at > ?1";
        for sql in [INSTANCE, RESTRICTIONS] {
            self.execute(sql, (self.now().micros(),))?;
        }
        Ok(())
    }

    /// Records that a person has confirmed the clock. The last transaction of a correction.
    pub(crate) fn confirm_clock(&self, source: &EventSource) -> Result<()> {
        const SQL: &str = "UPDATE instance SET clock_doubted_from = NULL, clock_confirmed_at = ?1
            WHERE one = 1";
        self.redate_small_tables()?;
        self.execute(SQL, (self.now().micros(),))?;
        let instance = self.instance()?.id;
        self.append(&Event {
            kind: EventKind::ClockConfirmed,
            source,
            org: None,
            user: None,
            about: Some(&instance),
            name: None,
        })
    }
}

/// Calls `change` for items until the transaction has lasted [`SLICE_TIME`]. Returns for how many it was true, and how
/// many it was called for.
pub(super) fn change_slice<T>(
    items: &[T],
    change: impl Fn(&T) -> Result<bool>,
) -> Result<(usize, usize)> {
    let begun = Instant::now();
    let (mut changed, mut handled) = (0_usize, 0_usize);
    for item in items {
        changed = changed.saturating_add(usize::from(change(item)?));
        handled = handled.saturating_add(1);
        if begun.elapsed() >= SLICE_TIME {
            break;
        }
    }
    Ok((changed, handled))
}
