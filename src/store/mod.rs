//! The file: schema, transactions, and every statement of SQL there is.
//!
//! Only this room contains SQL. It knows rows and transactions, not who may do what; secrets pass
//! through it sealed. A read transaction and a write transaction are types of their own, so that
//! writing inside a read does not compile.

mod events;
mod file;
mod instance;
mod search;
mod tokens;
mod totps;
mod users;
mod writer;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags, Params, Row};

pub(crate) use events::{Event, Kind, Source};
pub(crate) use instance::{Instance, Organization, next_id};
pub(crate) use tokens::TokenRow;
pub(crate) use totps::{TotpRow, TotpState};
pub(crate) use users::{UserRow, UsernameRow};

use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::totp::LONGEST_WAIT;
use writer::Writer;

/// Reads run beside the writer on so many connections: more than there are cores to run them, fewer than
/// would cost memory that an edge box misses.
const READERS: u32 = 8;
/// How long a read waits for one of them before it is told that the store is busy.
const READER_WAIT: Duration = Duration::from_secs(5);
/// A reader's page cache in KiB; the operating system caches the file as well.
const READER_CACHE_KIB: i64 = 256;
/// Statements kept prepared on each connection: more than there are in this room.
const STATEMENTS: usize = 64;

/// The database of one data directory.
pub(crate) struct Store {
    readers: r2d2::Pool<SqliteConnectionManager>,
    writer: Writer,
    path: PathBuf,
}

impl Store {
    /// Makes a new database file holding the schema and this one instance.
    pub(crate) fn create(path: &Path, instance: &Instance, now: Timestamp) -> Result<()> {
        file::create(path, |connection| {
            let tx = WriteTx::new(connection, now)?;
            tx.insert_instance(instance)?;
            let source = Source {
                actor: "command-line".to_owned(),
                peer: None,
            };
            let about = Some(instance.id.as_str());
            let kind = Kind::InstanceCreated;
            tx.append(&Event {
                kind,
                source: &source,
                org: None,
                user: None,
                about,
            })
        })
    }

    /// Opens an existing database, bringing an older schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let writer = file::open_for_writing(path)?;
        let manager = SqliteConnectionManager::file(path)
            .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_init(|connection| {
                connection.set_prepared_statement_cache_capacity(STATEMENTS);
                connection.pragma_update(None, "cache_size", READER_CACHE_KIB.saturating_neg())
            });
        let readers = r2d2::Pool::builder()
            .max_size(READERS)
            .min_idle(Some(1))
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connection_timeout(READER_WAIT)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build(manager)
            .map_err(|error| Error::Unavailable(format!("opening {}: {error}", path.display())))?;
        Ok(Self {
            readers,
            writer: Writer::new(writer),
            path: path.to_owned(),
        })
    }

    /// Runs `read` in one snapshot of the database.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&ReadTx<'_>) -> Result<T>) -> Result<T> {
        let connection = self
            .readers
            .get()
            .map_err(|error| Error::Unavailable(format!("no connection to read with: {error}")))?;
        let snapshot = connection.unchecked_transaction().map_err(unavailable)?;
        read(&ReadTx {
            connection: &snapshot,
        })
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

    /// Moves what the log holds into the database and empties the log, so that no ciphertext of a removed
    /// authenticator lingers there. Does nothing if the log is empty; a busy database is left for later.
    pub(crate) fn truncate_log(&self) -> Result<()> {
        file::truncate_log(&self.path)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.truncate_log() {
            log::debug!("leaving the log for the next start: {error:?}");
        }
    }
}

/// A read of one snapshot.
pub(crate) struct ReadTx<'a> {
    connection: &'a Connection,
}

impl ReadTx<'_> {
    /// The one row that `sql` finds, if it finds one.
    fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
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
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        let rows = statement.query_map(params, row).map_err(unavailable)?;
        rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
    }

    /// Refuses to go on with a clock that cannot be right: one that is earlier than the newest event by
    /// more than the longest wait would bring expired tokens and ended waits back.
    pub(crate) fn require_sane_clock(&self, now: Timestamp) -> Result<()> {
        let newest = self.newest_event_at()?;
        if now.after(LONGEST_WAIT) < newest {
            return Err(Error::Unavailable(format!(
                "the clock says {now}, but an event of {newest} is on record: set the clock right"
            )));
        }
        Ok(())
    }
}

/// A write transaction; it reads as well.
pub(crate) struct WriteTx<'a> {
    read: ReadTx<'a>,
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
        let read = ReadTx { connection };
        read.require_sane_clock(now)?;
        let event_at = now.max(read.newest_event_at()?);
        Ok(Self {
            read,
            now,
            event_at,
        })
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

/// A fault of the database: the caller can only try again.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed to `map_err`, which hands it a value"
)]
fn unavailable(error: rusqlite::Error) -> Error {
    Error::Unavailable(format!("the database: {error}"))
}

/// Whether a statement failed because a UNIQUE or PRIMARY KEY constraint forbids it.
fn is_conflict(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    error.sqlite_error().is_some_and(|it| {
        [SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE].contains(&it.extended_code)
    })
}
