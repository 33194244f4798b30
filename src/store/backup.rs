//! A copy of the whole database as of one moment, and what must hold before a copy is put back into service.
//!
//! Knows files and tables, not directories, locks or keys.

use std::path::Path;

use rusqlite::Connection;

use super::reapply::ReapplyCounts;
use super::{Event, EventKind, EventSource, ReadTx, Store, WriteTx, file, unavailable};
use crate::error::{Error, Result};
use crate::model::{LONGEST_EVENT_GAP, Step, Timestamp};
use crate::totp::LONGEST_WAIT;

/// What a database that is about to be replaced says about itself.
pub(crate) struct ReplacedDatabase {
    /// Whether all that happened since the backup is known to it.
    pub(crate) is_complete: bool,
    /// Whether what it knows can be applied at all.
    is_readable: bool,
    /// When the newest of its events happened, if it can be read.
    newest_event_at: Option<Timestamp>,
}

impl ReplacedDatabase {
    /// The newest event, if it lies so far ahead of the clock that one of the two is wrong.
    pub(crate) fn newest_event_ahead_of(&self, now: Timestamp) -> Option<Timestamp> {
        self.newest_event_at
            .filter(|it| *it > now.after(LONGEST_WAIT))
    }

    /// The present moment for whatever takes its place. A clock that went back a little must not reopen what
    /// happened since; one that went back far is believed as little as one that was once ahead.
    pub(crate) fn time_of_restore(&self, now: Timestamp) -> Timestamp {
        match (self.newest_event_at, self.newest_event_ahead_of(now)) {
            (Some(it), None) => it.max(now),
            (None, _) | (_, Some(_)) => now,
        }
    }
}

/// An event's number, moment, kind, and whom and what it is about.
type EventMark = (i64, i64, String, Option<String>, Option<String>);

impl Store {
    /// Writes everything, as of one moment, into the empty file `into`. Goes on beside the writer.
    pub(crate) fn copy_into(&self, into: &Path) -> Result<()> {
        let connection = self
            .readers
            .get()
            .map_err(|error| Error::Unavailable(format!("no connection to read with: {error}")))?;
        let name = into.to_str().ok_or_else(|| {
            Error::invalid(into.display().to_string(), "expected a path in UTF-8")
        })?;
        // A stepwise backup starts over at every commit and never ends under load; this is one read.
        connection
            .execute("VACUUM INTO ?1", (name,))
            .map(|_| ())
            .map_err(unavailable)
    }
}

/// A backup on its way into service: a copy of the file that nobody else knows of yet.
pub(crate) struct Backup {
    connection: Connection,
}

impl Backup {
    /// Opens the copy and insists that it is whole, and a database of ours that this totpd can serve.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = file::open_alone(path)?;
        let mut problems = file::problems(&connection)?;
        let backup = Self { connection };
        if problems.is_empty() && backup.read().shared_slots()? > 0 {
            problems.push("two authenticators share a slot".to_owned());
        }
        match problems.first() {
            None => Ok(backup),
            Some(problem) => Err(Error::invalid(
                "the backup",
                format!("it is damaged ({problem}); take another one"),
            )),
        }
    }

    /// A view of what is in it.
    pub(crate) const fn read(&self) -> ReadTx<'_> {
        ReadTx {
            connection: &self.connection,
            deadline: None,
        }
    }

    /// To which moment the database that this copy is to replace has dated the newest event of the copy, where a
    /// clock that was ahead has been put right there since. It is found by what it was dated first.
    pub(crate) fn dated_in(&self, replaced: &Path, now: Timestamp) -> Result<Option<Timestamp>> {
        const NEWEST: &str = "SELECT id, at, kind, user_id, about_id, coalesce(original_at, at)
            FROM event ORDER BY id DESC LIMIT 1";
        const SAME: &str = "SELECT at FROM event WHERE id = ?1 AND at < ?2 AND kind = ?3
            AND user_id IS ?4 AND about_id IS ?5 AND coalesce(original_at, at) = ?6";
        type Mark = (i64, i64, String, Option<String>, Option<String>, i64);
        let newest: Option<Mark> = self.read().one(NEWEST, (), |row| row.try_into())?;
        let (Some(newest), instance) = (newest, self.read().instance()?.id) else {
            return Ok(None);
        };
        // What cannot be read is told where it is met.
        let Ok(connection) = file::open_for_writing(replaced) else {
            return Ok(None);
        };
        let read = ReadTx {
            connection: &connection,
            deadline: None,
        };
        if read.instance()?.id != instance {
            return Ok(None);
        }
        let dated = read.one(SAME, newest, |row| row.get(0).map(Timestamp::from_micros))?;
        Ok(dated.filter(|it| *it <= now.after(LONGEST_WAIT)))
    }

    /// Dates everything that is dated later than `to` to that moment, and puts authenticators back to `floor`.
    pub(crate) fn date(&self, to: Timestamp, floor: Step) -> Result<()> {
        let transaction = self
            .connection
            .unchecked_transaction()
            .map_err(unavailable)?;
        WriteTx::with_confirmed_clock(&transaction, to).date_all(floor)?;
        transaction.commit().map_err(unavailable)
    }

    /// Looks at the database that this copy is to replace.
    pub(crate) fn compare_with(&self, replaced: &Path, now: Timestamp) -> Result<ReplacedDatabase> {
        let of_instance = self.read().instance()?.id;
        let as_of = self.read().newest_event_at()?;
        let newest = self.read().newest_event()?;
        let met = file::open_for_writing(replaced).and_then(|connection| {
            let is_sound = file::problems(&connection)?.is_empty();
            let read = ReadTx {
                connection: &connection,
                deadline: None,
            };
            let is_same = read.instance()?.id == of_instance;
            // Events are kept for a time only; what happened before the oldest is forgotten. So is what happened
            // before a restore that nobody could vouch for.
            let reaches_back = read.oldest_event_at()? <= as_of && !read.has_loss_since(as_of)?;
            // Of one instance there may be several copies, and each goes its own way. The backup is of this one's
            // past if its newest event happened here, or before a restore that took over all that ended here.
            let is_past = read.has_event(newest.as_ref())? || read.has_restored_since(as_of)?;
            // Whether all that it knows has happened yet nobody can say with a clock far behind it.
            let newest_event_at = read.newest_event_at()?;
            let is_over = newest_event_at <= now.after(LONGEST_WAIT);
            Ok(ReplacedDatabase {
                is_complete: is_sound && is_same && reaches_back && is_past && is_over,
                is_readable: is_same,
                newest_event_at: is_same.then_some(newest_event_at),
            })
        });
        Ok(met.unwrap_or_else(|error| {
            let told = error.to_string();
            let why = if let Error::Unavailable(inner) | Error::Bug(inner) = error {
                inner
            } else {
                told
            };
            log::warn!("the database to replace cannot be read: {why}");
            ReplacedDatabase {
                is_complete: false,
                is_readable: false,
                newest_event_at: None,
            }
        }))
    }

    /// Makes the copy fit for service: no code up to `floor` is good in it, and what the replaced database
    /// knows to be removed, revoked, deleted, locked or made to wait is so here.
    pub(crate) fn finish(
        self,
        replaced: Option<(&Path, &ReplacedDatabase)>,
        floor: Step,
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
        tx.raise_floors(floor)?;
        if from.is_some() {
            applied = tx.apply_again()?;
        }
        // Whatever went with its user or by itself, and whatever a damaged backup may hold beside.
        tx.zero_unnamed_slots()?;
        let instance = tx.instance()?.id;
        tx.append(&Event {
            kind,
            source: &EventSource::command_line(),
            org: None,
            user: None,
            about: Some(&instance),
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
    /// When the oldest event that is still on record happened.
    pub(crate) fn oldest_event_at(&self) -> Result<Timestamp> {
        const SQL: &str = "SELECT at FROM event ORDER BY id LIMIT 1";
        let at = self.one(SQL, (), |row| row.get(0).map(Timestamp::from_micros))?;
        Ok(at.unwrap_or(Timestamp::from_micros(i64::MAX)))
    }

    /// The newest event, as far as it tells one history from another.
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

    /// Whether this came out of a restore after that moment that undid nothing.
    fn has_restored_since(&self, moment: Timestamp) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM event WHERE kind = 'instance.restored' AND at >= ?1
            ORDER BY id DESC LIMIT 1";
        Ok(self.one(SQL, (moment.micros(),), |_| Ok(()))?.is_some())
    }

    /// Whether this came out of a restore after that moment that may have undone what happened before it.
    fn has_loss_since(&self, moment: Timestamp) -> Result<bool> {
        const SQL: &str =
            "SELECT 1 FROM event WHERE kind = 'instance.restored_with_loss' AND at > ?1
            ORDER BY id DESC LIMIT 1";
        Ok(self.one(SQL, (moment.micros(),), |_| Ok(()))?.is_some())
    }
}

impl WriteTx<'_> {
    /// Lets every step up to `floor` count as used.
    fn raise_floors(&self, floor: Step) -> Result<()> {
        const SQL: &str = "UPDATE totp SET last_step = ?1 WHERE last_step < ?1";
        self.execute(SQL, (floor.number(),)).map(|_| ())
    }
}
