//! Backups: copying the whole database at one moment, and preparing such a copy for a restore (SECURITY.md 32).
//!
//! Knows files and tables, not directories, locks or keys.

use std::path::Path;

use rusqlite::Connection;

use super::floors::floor;
use super::reapply::ReapplyCounts;
use super::{Event, EventKind, EventSource, ReadTx, Store, WriteTx, file, unavailable};
use crate::error::{Error, Result};
use crate::model::{LONGEST_EVENT_GAP, Timestamp};
use crate::totp::LONGEST_WAIT;

/// What is known of the database that a restore replaces.
pub(crate) struct ReplacedDatabase {
    /// Whether it has recorded everything that happened since the backup.
    pub(crate) is_complete: bool,
    /// Whether its records can be applied: it can be read and is of the same instance.
    is_readable: bool,
    /// The time of its newest event, if it can be read.
    newest_event_at: Option<Timestamp>,
}

impl ReplacedDatabase {
    /// The time of the newest event, if it is so far ahead of the clock that one of the two is wrong.
    pub(crate) fn newest_event_ahead_of(&self, now: Timestamp) -> Option<Timestamp> {
        self.newest_event_at
            .filter(|it| *it > now.after(LONGEST_WAIT))
    }

    /// The present time for the restored database. If the clock went back a little, this is the time of the newest event,
    /// so that nothing recorded before that becomes valid again. If the two differ by more, the clock is taken.
    pub(crate) fn time_of_restore(&self, now: Timestamp) -> Timestamp {
        match (self.newest_event_at, self.newest_event_ahead_of(now)) {
            (Some(it), None) => it.max(now),
            (None, _) | (_, Some(_)) => now,
        }
    }
}

/// An event's number, time, kind, user and subject.
type EventMark = (i64, i64, String, Option<String>, Option<String>);

impl Store {
    /// Copies the whole database, as of one moment, into the empty file `into`. Does not block the writer.
    pub(crate) fn copy_into(&self, into: &Path) -> Result<()> {
        let connection = self
            .readers
            .get()
            .map_err(|error| Error::Unavailable(format!("no connection to read with: {error}")))?;
        let name = into.to_str().ok_or_else(|| {
            Error::invalid(into.display().to_string(), "expected a path in UTF-8")
        })?;
        // This is one read transaction. SQLite's backup API would start again at every commit and never end under load.
        connection
            .execute("VACUUM INTO ?1", (name,))
            .map(|_| ())
            .map_err(unavailable)
    }
}

/// A copy of a backup that a restore prepares. No other process opens the file.
pub(crate) struct Backup {
    connection: Connection,
}

impl Backup {
    /// Opens the copy. Fails unless it is intact and a database of this version of totpd or an older one.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = file::open_exclusive(path)?;
        let mut problems = file::problems(&connection)?;
        let backup = Self { connection };
        if problems.is_empty() && backup.read().shared_slots()? > 0 {
            problems.push("two secrets share a slot".to_owned());
        }
        match problems.first() {
            None => Ok(backup),
            Some(problem) => Err(Error::invalid(
                "the backup",
                format!("it is damaged ({problem}); take another one"),
            )),
        }
    }

    /// Reads from the copy.
    pub(crate) const fn read(&self) -> ReadTx<'_> {
        ReadTx {
            connection: &self.connection,
            deadline: None,
        }
    }

    /// The time that the copy's newest event has in the database to replace, if that database was corrected since for a
    /// clock that was ahead. The event is recognized by its original time.
    pub(crate) fn corrected_time_in(
        &self,
        replaced: &Path,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        const NEWEST: &str = "SELECT id, at, kind, user_id, about_id, coalesce(original_at, at)
            FROM event ORDER BY id DESC LIMIT 1";
        const SAME: &str = "SELECT at FROM event WHERE id = ?1 AND at < ?2 AND kind = ?3
            AND user_id IS ?4 AND about_id IS ?5 AND coalesce(original_at, at) = ?6";
        type Mark = (i64, i64, String, Option<String>, Option<String>, i64);
        let newest: Option<Mark> = self.read().one(NEWEST, (), |row| row.try_into())?;
        let (Some(newest), instance) = (newest, self.read().instance()?.id) else {
            return Ok(None);
        };
        // `compare_with` reports a database that cannot be read.
        let Ok(connection) = file::open_for_writing(replaced, false) else {
            return Ok(None);
        };
        let read = ReadTx {
            connection: &connection,
            deadline: None,
        };
        if read.instance()?.id != instance {
            return Ok(None);
        }
        let corrected = read.one(SAME, newest, |row| row.get(0).map(Timestamp::from_micros))?;
        Ok(corrected.filter(|it| *it <= now.after(LONGEST_WAIT)))
    }

    /// Sets every time later than `latest` to `latest`, and every floor above that of `present` to it.
    pub(crate) fn correct_times(&self, latest: Timestamp, present: Timestamp) -> Result<()> {
        self.change(latest, |tx| tx.redate_all(present))
    }

    /// Runs `change` in one transaction, whatever the clock says.
    pub(super) fn change(
        &self,
        now: Timestamp,
        change: impl FnOnce(&WriteTx<'_>) -> Result<()>,
    ) -> Result<()> {
        let transaction = self
            .connection
            .unchecked_transaction()
            .map_err(unavailable)?;
        change(&WriteTx::with_confirmed_clock(&transaction, now))?;
        transaction.commit().map_err(unavailable)
    }

    /// Reads the database that this copy replaces, and finds out whether its records go back to this backup.
    pub(crate) fn compare_with(&self, replaced: &Path, now: Timestamp) -> Result<ReplacedDatabase> {
        let of_instance = self.read().instance()?.id;
        let as_of = self.read().newest_event_at()?;
        let newest = self.read().newest_event()?;
        let compared = file::open_for_writing(replaced, false).and_then(|connection| {
            let is_sound = file::problems(&connection)?.is_empty();
            let read = ReadTx {
                connection: &connection,
                deadline: None,
            };
            let is_same = read.instance()?.id == of_instance;
            // Events are deleted after some time, so records are complete only after the newest one that was. A restore
            // with `--accept-loss` has lost records too.
            let reaches_back =
                read.newest_deleted_event_at()? < as_of && !read.has_loss_since(as_of)?;
            // There may be several copies of an instance with different histories. The backup is of this history if its
            // newest event is recorded here, or if a restore has applied all removals here since.
            let is_same_history =
                read.has_event(newest.as_ref())? || read.has_restored_since(as_of)?;
            // If the newest event is far ahead of the clock, the order of the events is in doubt.
            let newest_event_at = read.newest_event_at()?;
            let is_plausible = newest_event_at <= now.after(LONGEST_WAIT);
            Ok(ReplacedDatabase {
                is_complete: is_sound && is_same && reaches_back && is_same_history && is_plausible,
                is_readable: is_same,
                newest_event_at: is_same.then_some(newest_event_at),
            })
        });
        Ok(compared.unwrap_or_else(|error| {
            let text = error.to_string();
            let why = if let Error::Unavailable(inner) | Error::Bug(inner) = error {
                inner
            } else {
                text
            };
            log::warn!("the database to replace cannot be read: {why}");
            ReplacedDatabase {
                is_complete: false,
                is_readable: false,
                newest_event_at: None,
            }
        }))
    }

    /// Completes the restored copy: raises every floor to that of `now`, and applies the removals, revocations, locks and waits
    /// that the replaced database has recorded.
    pub(crate) fn finish(
        self,
        replaced: Option<(&Path, &ReplacedDatabase)>,
        now: Timestamp,
    ) -> Result<ReapplyCounts> {
        let kind = if replaced.is_some_and(|(_, it)| it.is_complete) {
            EventKind::InstanceRestored
        } else {
            EventKind::InstanceRestoredWithLoss
        };
        let mut applied = ReapplyCounts::default();
        let from = replaced.filter(|(_, it)| it.is_readable);
        if let Some((path, _)) = from {
            let name = path.to_str().unwrap_or_default();
            self.connection
                .execute("ATTACH ?1 AS replaced", (name,))
                .map_err(unavailable)?;
        }
        let transaction = self
            .connection
            .unchecked_transaction()
            .map_err(unavailable)?;
        let tx = WriteTx::new(&transaction, now)?;
        tx.raise_floors()?;
        if from.is_some() {
            applied = tx.apply_again()?;
        }
        let is_complete = replaced.is_some_and(|(_, it)| it.is_complete);
        applied.recovery_codes = tx.keep_recovery_codes(is_complete)?;
        tx.void_all_invitations()?;
        // Slots of what was deleted above, and those that a damaged backup has without an authenticator.
        tx.zero_unused_slots()?;
        let instance = tx.instance()?.id;
        tx.append(&Event {
            kind,
            source: &EventSource::command_line(),
            org: None,
            user: None,
            about: Some(&instance),
            name: None,
        })?;
        if from
            .and_then(|(_, it)| it.newest_event_at)
            .is_some_and(|it| now <= it.after(LONGEST_EVENT_GAP))
        {
            tx.take_over_clock_trust()?;
        }
        transaction.commit().map_err(unavailable)?;
        if from.is_some() {
            self.connection
                .execute("DETACH replaced", ())
                .map_err(unavailable)?;
        }
        self.connection
            .close()
            .map_err(|(_, error)| unavailable(error))?;
        Ok(applied)
    }
}

impl ReadTx<'_> {
    /// What identifies the newest event.
    fn newest_event(&self) -> Result<Option<EventMark>> {
        const SQL: &str = "SELECT id, at, kind, user_id, about_id FROM event
            ORDER BY id DESC LIMIT 1";
        self.one(SQL, (), |row| {
            let (user, about) = (row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, user, about))
        })
    }

    fn has_event(&self, mark: Option<&EventMark>) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM event
            WHERE id = ?1 AND at = ?2 AND kind = ?3 AND user_id IS ?4 AND about_id IS ?5";
        let Some((id, at, kind, user, about)) = mark else {
            return Ok(false);
        };
        let found = self.one(SQL, (id, at, kind, user, about), |_| Ok(()))?;
        Ok(found.is_some())
    }

    /// Whether a restore without loss is recorded at or after `moment`.
    fn has_restored_since(&self, moment: Timestamp) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM event WHERE kind = 'instance.restored' AND at >= ?1
            ORDER BY id DESC LIMIT 1";
        Ok(self.one(SQL, (moment.micros(),), |_| Ok(()))?.is_some())
    }

    /// Whether a restore with possible loss is recorded after `moment`.
    fn has_loss_since(&self, moment: Timestamp) -> Result<bool> {
        const SQL: &str =
            "SELECT 1 FROM event WHERE kind = 'instance.restored_with_loss' AND at > ?1
            ORDER BY id DESC LIMIT 1";
        Ok(self.one(SQL, (moment.micros(),), |_| Ok(()))?.is_some())
    }
}

impl WriteTx<'_> {
    /// Marks every step as used whose code could be good now, and every earlier one. SECURITY.md 39
    fn raise_floors(&self) -> Result<()> {
        const SQL: &str = concat!(
            "UPDATE totp SET last_step = max(last_step, ",
            floor!("?1"),
            ")"
        );
        self.execute(SQL, (self.now().seconds(),)).map(|_| ())
    }
}
