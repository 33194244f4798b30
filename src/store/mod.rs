//! The file: schema, transactions, and every statement of SQL there is.
//!
//! Only this room contains SQL. It knows rows and transactions, not who may do what; secrets pass
//! through it sealed. A read transaction and a write transaction are types of their own, so that
//! writing inside a read does not compile.

mod backup;
mod checkpoint;
mod clock;
mod clock_fix;
mod events;
mod file;
mod inspect;
mod instance;
mod readers;
mod reapply;
mod search;
mod self_changes;
mod slots;
mod structure;
#[cfg(test)]
mod tests;
mod tokens;
mod totps;
mod upgrade;
mod users;
mod wal;
mod writer;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Params, Row};

pub(crate) use backup::Backup;
pub(crate) use clock_fix::DatedTable;
pub(crate) use events::{Event, EventKind, EventSource};
pub(crate) use inspect::{Inspection, wal_bytes};
pub use instance::Settings;
pub(crate) use instance::{Instance, Organization, next_id};
pub(crate) use readers::ReadKind;
pub use reapply::ReapplyCounts;
pub(crate) use slots::Slot;
pub(crate) use tokens::TokenRow;
pub(crate) use totps::{RemovedTotp, TotpRow, TotpState};
pub use users::FoundUser;
pub(crate) use users::{UserContent, UserRow, UsernameRow};

use crate::error::{Error, Result};
use crate::model::{LATEST_PLAUSIBLE_TIME, Name, OrgId, Timestamp};
use crate::totp::LONGEST_WAIT;
use checkpoint::Checkpoints;
use readers::Readers;
use wal::WalLength;
use writer::Writer;

/// Statements kept prepared on each connection: more than there are in this room.
const STATEMENTS: usize = 64;

/// How a database is opened.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    /// Changes that share a commit, at most.
    pub(crate) commit_batch: usize,
    /// How long a read of a request may take.
    pub(crate) read_timeout: Duration,
}

/// The database of one data directory.
///
/// Whoever closes it last moves the log into the database: SQLite does that with the last connection, and the
/// writer's is the last of these.
pub(crate) struct Store {
    checkpoints: Arc<Checkpoints>,
    log: Arc<WalLength>,
    looks_after_log: Option<thread::JoinHandle<()>>,
    readers: Readers,
    writer: Arc<Writer>,
}

impl Store {
    /// Makes a new database file holding the schema, this one instance and its first organization, whose id is
    /// returned.
    pub(crate) fn create(
        path: &Path,
        instance: &Instance,
        settings: &Settings,
        first: Name,
        now: Timestamp,
    ) -> Result<OrgId> {
        file::create(path, |connection| {
            let tx = WriteTx::new(connection, now)?;
            tx.insert_instance(instance, settings)?;
            let organization = Organization {
                id: OrgId::from_trusted(tx.new_id()?),
                name: first,
            };
            tx.insert_organization(&organization)?;
            let source = &EventSource::command_line();
            let of_instance = (EventKind::InstanceCreated, None, instance.id.as_str());
            let id = &organization.id;
            let of_organization = (EventKind::OrganizationCreated, Some(id), id.as_str());
            for (kind, org, about) in [of_instance, of_organization] {
                tx.append(&Event {
                    kind,
                    source,
                    org,
                    user: None,
                    about: Some(about),
                })?;
            }
            Ok(organization.id)
        })
    }

    /// Opens an existing database, bringing an older schema up to date.
    pub(crate) fn open(path: &Path, options: &StoreOptions) -> Result<Self> {
        let writer = file::open_for_writing(path)?;
        let readers = Readers::open(path, options.read_timeout)?;
        let log = Arc::new(WalLength::new());
        let writer = Arc::new(Writer::new(writer, options.commit_batch, Arc::clone(&log)));
        let checkpoints = Checkpoints::new(path, Arc::clone(&writer), Arc::clone(&log));
        let looks_after_log = Some(checkpoints.look_after(checkpoint::EMPTY_EVERY)?);
        Ok(Self {
            checkpoints,
            log,
            looks_after_log,
            readers,
            writer,
        })
    }

    /// Runs `read` in one snapshot of the database, however long that takes: for what no client asks for.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&ReadTx<'_>) -> Result<T>) -> Result<T> {
        self.readers.read(read)
    }

    /// Runs `read` in one snapshot of the database, within the limits of time and number that hold for requests.
    pub(crate) fn read_for_request<T>(
        &self,
        kind: ReadKind,
        read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.readers.read_for_request(kind, read)
    }

    /// Runs `write` in a write transaction, after every one that came before it and before every one
    /// that comes after. What it returns has been committed to disk; where it fails, nothing happened.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        now: Timestamp,
        write: impl FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer
            .write(move |connection| write(&WriteTx::new(connection, now)?))
    }

    /// Lets all that `calls` writes on this thread share one transaction. When this returns it is on disk; an
    /// error means that nothing of it happened, whatever each call was told.
    pub(crate) fn run_batch(&self, calls: impl FnOnce()) -> Result<()> {
        self.writer.run_batch(calls)
    }

    /// Whether the file is of an older version, which [`Self::open`] would upgrade.
    pub(crate) fn needs_upgrade(path: &Path) -> Result<bool> {
        file::needs_upgrade(path)
    }

    /// Moves the WAL into the database and truncates it, so that nothing of a removed secret is left in it. Waits up
    /// to `wait` for those who read an older snapshot, and fails where they go on.
    pub(crate) fn truncate_wal(&self, wait: Duration) -> Result<()> {
        self.checkpoints.empty_now(wait)
    }

    /// Refuses every change that has not begun yet.
    pub(crate) fn refuse_changes(&self) {
        self.writer.refuse_changes();
    }
}

#[cfg(test)]
impl Store {
    /// Keeps everybody from writing until `count` changes wait for that, then runs `sql` before all of them. Tells
    /// `held` when it has begun.
    pub(crate) fn run_before_waiting(
        &self,
        count: usize,
        held: std::sync::mpsc::Sender<()>,
        sql: &'static str,
    ) {
        let writer = Arc::clone(&self.writer);
        let done = self.writer.alone(move |connection| {
            held.send(()).unwrap();
            while writer.waiting() < count {
                thread::yield_now();
            }
            connection.execute_batch(sql).map_err(unavailable)
        });
        done.unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.log.end();
        if let Some(thread) = self.looks_after_log.take() {
            let _ended = thread.join();
        }
    }
}

fn execute_cached(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(|_| ())
}

/// A read of one snapshot.
pub(crate) struct ReadTx<'a> {
    connection: &'a Connection,
    /// When the read has taken too long. None where nothing limits it.
    deadline: Option<Instant>,
}

impl ReadTx<'_> {
    /// The one row that `sql` finds, if it finds one.
    fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.require_time()?;
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        let mut rows = statement.query(params).map_err(unavailable)?;
        let found = rows.next().map_err(unavailable)?;
        found.map(row).transpose().map_err(unavailable)
    }

    /// All rows that `sql` finds. Every statement used with it bounds their number.
    fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.require_time()?;
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        let rows = statement.query_map(params, row).map_err(unavailable)?;
        rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
    }

    /// Refuses to go on past the deadline. A progress handler stops one long statement; this stops many short ones.
    fn require_time(&self) -> Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::SearchTooLong),
            _ => Ok(()),
        }
    }

    /// Refuses to go on with a clock that cannot be right: one that is earlier than the newest event by
    /// more than the longest wait would bring expired tokens and ended waits back.
    ///
    /// Returns when the newest event was.
    pub(crate) fn require_sane_clock(&self, now: Timestamp) -> Result<Timestamp> {
        let newest = self.newest_event_at()?;
        if now.after(LONGEST_WAIT) < newest {
            return Err(Error::Unavailable(format!(
                "the clock says {now}, but an event of {newest} is on record: set the clock right, or see `totpd doctor`"
            )));
        }
        if now > LATEST_PLAUSIBLE_TIME {
            return Err(Error::Unavailable(format!(
                "the clock says {now}, over 20 years after this version of totpd was made: set the clock right"
            )));
        }
        Ok(newest)
    }
}

/// A write transaction; it reads as well.
pub(crate) struct WriteTx<'a> {
    read: ReadTx<'a>,
    /// When the newest event was before this transaction.
    newest_event_at: Timestamp,
    /// The caller's clock.
    now: Timestamp,
    /// When events of this transaction happen: now, but never before the newest event there is.
    event_at: Timestamp,
}

impl<'a> Deref for WriteTx<'a> {
    type Target = ReadTx<'a>;

    fn deref(&self) -> &ReadTx<'a> {
        &self.read
    }
}

impl<'a> WriteTx<'a> {
    fn new(connection: &'a Connection, now: Timestamp) -> Result<Self> {
        let read = ReadTx {
            connection,
            deadline: None,
        };
        let newest_event_at = read.require_sane_clock(now)?;
        Ok(Self {
            read,
            newest_event_at,
            now,
            event_at: now.max(newest_event_at),
        })
    }

    /// A transaction of somebody who says that the clock is right, whatever is on record.
    fn by_confirmed_clock(connection: &'a Connection, now: Timestamp) -> Self {
        Self {
            read: ReadTx {
                connection,
                deadline: None,
            },
            newest_event_at: now,
            now,
            event_at: now,
        }
    }

    /// The caller's clock, for judging waits and windows.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The moment that changes of this transaction carry.
    pub(crate) const fn event_at(&self) -> Timestamp {
        self.event_at
    }

    /// Runs a statement that changes rows, and says how many.
    fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        statement.execute(params).map_err(unavailable)
    }
}

/// A fault of the database: the caller can only try again. Nothing but a read's time limit interrupts a statement.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed to `map_err`, which hands it a value"
)]
fn unavailable(error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
        return Error::SearchTooLong;
    }
    Error::Unavailable(format!("the database: {error}"))
}
