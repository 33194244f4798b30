//! The SQLite database: schema, transactions, and all SQL statements of totpd.
//!
//! Only this module contains SQL. It knows rows and transactions, not who may do what. It sees secrets only sealed.
//! Read and write transactions are separate types, so that writing in a read transaction does not compile.

mod backup;
mod checkpoint;
mod clock;
mod clock_fix;
mod counts;
mod event_list;
mod event_sweep;
mod events;
mod file;
mod floors;
mod inspect;
mod instance;
mod invitations;
mod keys;
mod readers;
mod reapply;
mod recovery;
mod search;
mod self_changes;
mod slots;
mod structure;
#[cfg(test)]
mod tests;
mod tokens;
#[cfg(feature = "server")]
mod totals;
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
#[cfg(feature = "server")]
pub(crate) use counts::{CheckpointMode, CheckpointOutcome, StoreCounts, StoreErrorKind};
pub(crate) use event_list::EventRow;
pub(crate) use events::{Event, EventKind, EventSource};
pub(crate) use inspect::{Inspection, wal_bytes};
pub use instance::Settings;
pub(crate) use instance::{Instance, Organization, next_id};
pub(crate) use invitations::Invited;
pub(crate) use keys::{KeyIds, ResealedSecret, SealedPosition, SealedRow, SealedTable};
pub(crate) use readers::ReadKind;
pub use reapply::ReapplyCounts;
pub(crate) use recovery::{RECOVERY_CODES, RECOVERY_SET_BYTES, RecoverySetRow};
pub(crate) use slots::Slot;
pub(crate) use tokens::TokenRow;
#[cfg(feature = "server")]
pub(crate) use totals::Totals;
pub(crate) use totps::{RemovedTotp, TotpRow, TotpState};
pub use users::FoundUser;
pub(crate) use users::{UserContent, UserRow, UsernameRow};

use crate::error::{Error, Result};
use crate::model::{LATEST_PLAUSIBLE_TIME, Name, OrgId, Timestamp};
use crate::totp::LONGEST_WAIT;
use checkpoint::Checkpoints;
use counts::EventTally;
use readers::Readers;
use wal::WalLength;
use writer::Writer;
pub(crate) use writer::is_in_transaction;

/// The capacity of each connection's statement cache: more statements than this module has.
const STATEMENTS: usize = 96;

/// How a database is opened.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    /// The most changes that share a commit.
    pub(crate) commit_batch: usize,
    /// How long a read of a request may take.
    pub(crate) read_timeout: Duration,
    /// Whether Litestream's tables are accepted before the settings name it.
    pub(crate) expects_litestream: bool,
}

/// The database of one data directory.
///
/// Fields are dropped in this order, so the writer's connection closes last. SQLite copies the WAL into the database when
/// the last connection closes, and a reader's connection cannot do that.
pub(crate) struct Store {
    checkpoints: Arc<Checkpoints>,
    wal_length: Arc<WalLength>,
    checkpoint_thread: Option<thread::JoinHandle<()>>,
    readers: Readers,
    writer: Arc<Writer>,
}

impl Store {
    /// Creates a database file with the schema, the instance and its first organization. Returns the id of that
    /// organization.
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
                let name = org.map(|_| &organization.name);
                tx.append(&Event {
                    kind,
                    source,
                    org,
                    user: None,
                    about: Some(about),
                    name,
                })?;
            }
            Ok(organization.id)
        })
    }

    /// Opens an existing database and upgrades an older schema.
    pub(crate) fn open(path: &Path, options: &StoreOptions) -> Result<Self> {
        let writer = file::open_for_writing(path, options.expects_litestream)?;
        let readers = Readers::open(path, options.read_timeout)?;
        let wal_length = Arc::new(WalLength::new());
        let writer = Writer::new(writer, options.commit_batch, Arc::clone(&wal_length));
        let writer = Arc::new(writer);
        let checkpoints = Checkpoints::new(
            path,
            Arc::clone(&writer),
            Arc::clone(&wal_length),
            instance::is_litestreams,
        );
        let thread = checkpoints.start_thread(checkpoint::TRUNCATE_INTERVAL)?;
        Ok(Self {
            checkpoints,
            wal_length,
            checkpoint_thread: Some(thread),
            readers,
            writer,
        })
    }

    /// Runs `read` in one snapshot of the database, without a time limit. Not for requests.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&ReadTx<'_>) -> Result<T>) -> Result<T> {
        self.readers.read(read)
    }

    /// Runs `read` in one snapshot of the database, within the time limit of requests and the limit on their number.
    pub(crate) fn read_for_request<T>(
        &self,
        kind: ReadKind,
        read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.readers.read_for_request(kind, read)
    }

    /// Runs `read` in one snapshot of the database, within a time limit and the limit on the number of requests' reads.
    #[cfg(feature = "server")]
    pub(crate) fn read_within<T>(
        &self,
        time_limit: Duration,
        kind: ReadKind,
        read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.readers.read_within(time_limit, kind, read)
    }

    /// What was counted since the database was opened.
    #[cfg(feature = "server")]
    pub(crate) fn counts(&self) -> &StoreCounts {
        self.writer.counts()
    }

    /// Runs `write` in a write transaction; all write transactions run one after another. When this returns, the
    /// change is on disk. Where `write` or the commit fails, nothing was changed.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        now: Timestamp,
        write: impl FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let counts = Arc::clone(self.writer.counts());
        self.writer.write(move |connection| {
            let tx = WriteTx::new(connection, now)?;
            let written = write(&tx)?;
            counts.note_events(&tx.events);
            Ok(written)
        })
    }

    /// Runs `calls`; all writes that it makes on this thread share one transaction. When this returns, they are on disk.
    /// An error means that none of them was kept, whatever result each one had.
    pub(crate) fn run_batch(&self, calls: impl FnOnce()) -> Result<()> {
        self.writer.run_batch(calls)
    }

    /// Whether the file is of an older version, which [`Self::open`] would upgrade.
    pub(crate) fn needs_upgrade(path: &Path) -> Result<bool> {
        file::needs_upgrade(path)
    }

    /// Copies the WAL into the database and truncates it, so that it holds no removed secret. Leaves it alone where the
    /// settings name Litestream. Waits up to `wait` for
    /// readers of older snapshots, and fails if one remains.
    pub(crate) fn truncate_wal(&self, wait: Duration) -> Result<()> {
        self.checkpoints.truncate(wait)
    }

    /// Refuses every change that is not in the queue yet.
    pub(crate) fn refuse_changes(&self) {
        self.writer.refuse_changes();
    }
}

#[cfg(test)]
impl Store {
    /// Holds the writer until `count` changes wait, then runs `sql` before them. Sends to `held` once it holds the
    /// writer.
    pub(crate) fn run_before_waiting(
        &self,
        count: usize,
        held: std::sync::mpsc::Sender<()>,
        sql: &'static str,
    ) {
        let writer = Arc::clone(&self.writer);
        let done = self.writer.run_exclusive(move |connection| {
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
        self.wal_length.close();
        if let Some(thread) = self.checkpoint_thread.take() {
            let _result = thread.join();
        }
        if let Err(error) = self.checkpoints.prepare_to_close() {
            log::warn!("closing the database: {error:?}");
        }
    }
}

fn execute_cached(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(|_| ())
}

/// A read transaction: all its statements see one snapshot.
pub(crate) struct ReadTx<'a> {
    connection: &'a Connection,
    /// When the read must end. `None`: there is no limit.
    deadline: Option<Instant>,
}

impl ReadTx<'_> {
    /// The first row that `sql` returns, if any.
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

    /// All rows that `sql` returns. Each statement bounds their number by itself.
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

    /// Fails after the deadline. A progress handler stops one long statement; this stops a series of short ones.
    fn require_time(&self) -> Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::SearchTooLong),
            _ => Ok(()),
        }
    }

    /// Fails where the clock cannot be right. A clock that is earlier than the newest event by more than the longest wait
    /// would make expired tokens valid and start ended waits again.
    ///
    /// Returns the time of the newest event.
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

/// A write transaction. It can read too.
pub(crate) struct WriteTx<'a> {
    read: ReadTx<'a>,
    /// The time of the newest event before this transaction.
    newest_event_at: Timestamp,
    /// The caller's clock.
    now: Timestamp,
    /// The time of this transaction's events: `now`, but not before the newest event.
    event_at: Timestamp,
    /// How many events of each kind were appended, for metrics.
    events: EventTally,
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
            events: EventTally::default(),
        })
    }

    /// A transaction for a person who has confirmed the clock: `now` may be earlier than the newest event.
    fn with_confirmed_clock(connection: &'a Connection, now: Timestamp) -> Self {
        Self {
            read: ReadTx {
                connection,
                deadline: None,
            },
            newest_event_at: now,
            now,
            event_at: now,
            events: EventTally::default(),
        }
    }

    /// The caller's clock, for waits and windows.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The time that changes of this transaction are recorded with.
    pub(crate) const fn event_at(&self) -> Timestamp {
        self.event_at
    }

    /// Runs a statement that changes rows, and returns their number.
    fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        statement.execute(params).map_err(unavailable)
    }
}

/// The error for a fault of the database. Only a read's time limit interrupts a statement.
#[expect(
    clippy::needless_pass_by_value,
    reason = "`map_err` passes the error by value"
)]
fn unavailable(error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
        return Error::SearchTooLong;
    }
    counts::note_error(&error);
    Error::Unavailable(format!("the database: {error}"))
}
