//! The reading connections, the gate that limits how many reads of requests run, and their time limit.
//!
//! Reads of all transports pass one gate. It admits fewer reads than there are connections, so that readiness and the
//! command line always find a free one. Searches and lists get at most half of the gate, so that slow ones do not delay
//! reads by id. This module knows nothing of what is read.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags};

use super::{ReadTx, STATEMENTS, execute_cached, file, unavailable};
use crate::error::{Error, Result};

/// Reading connections: enough for all cores, and few enough for the memory of a small machine.
const CONNECTIONS: u32 = 8;
/// The most reads of requests that run at once. Two connections are left for other reads.
const GATE: usize = 6;
/// The most searches and lists among them.
const GATE_FOR_SEARCHES: usize = GATE / 2;
/// How long a read waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// The page cache of a reading connection in KiB. It is small because the operating system caches the file as well.
const CACHE_KIB: i64 = 256;
/// Instructions of SQLite's virtual machine between two checks of the time limit: a small part of a millisecond.
const INSTRUCTIONS_PER_CHECK: i32 = 2_000;

/// The kind of a request's read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadKind {
    /// One row by its id, which is fast.
    ById,
    /// A search or a list, which may take long.
    Search,
}

/// The reading connections of one database.
pub(super) struct Readers {
    pool: r2d2::Pool<SqliteConnectionManager>,
    gate: Gate,
    /// How long a read of a request may take, its wait at the gate included.
    time_limit: Duration,
}

impl Readers {
    pub(super) fn open(path: &Path, time_limit: Duration) -> Result<Self> {
        let manager = SqliteConnectionManager::file(path)
            .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_init(|connection| {
                file::restrict(connection)?;
                connection.set_prepared_statement_cache_capacity(STATEMENTS);
                connection.pragma_update(None, "cache_size", CACHE_KIB.saturating_neg())?;
                // For backups (`VACUUM INTO`): deleted content is overwritten in the copy too.
                connection.pragma_update(None, "secure_delete", true)
            });
        let pool = r2d2::Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(1))
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connection_timeout(CONNECTION_WAIT)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build(manager)
            .map_err(|error| Error::Unavailable(format!("opening {}: {error}", path.display())))?;
        Ok(Self {
            pool,
            gate: Gate::new(),
            time_limit,
        })
    }

    /// Takes a connection without passing the gate.
    pub(super) fn get(
        &self,
    ) -> Result<r2d2::PooledConnection<SqliteConnectionManager>, r2d2::Error> {
        self.pool.get()
    }

    /// Runs `read` in one snapshot, without passing the gate and without a time limit.
    pub(super) fn read<T>(&self, read: impl FnOnce(&ReadTx<'_>) -> Result<T>) -> Result<T> {
        let connection = self.pool.get().map_err(no_connection)?;
        in_snapshot(&connection, None, read)
    }

    /// Runs `read` in one snapshot, through the gate and within the time limit of requests.
    pub(super) fn read_for_request<T>(
        &self,
        kind: ReadKind,
        read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.read_within(self.time_limit, kind, read)
    }

    /// Runs `read` in one snapshot, through the gate and within a time limit.
    pub(super) fn read_within<T>(
        &self,
        time_limit: Duration,
        kind: ReadKind,
        read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now().checked_add(time_limit);
        let outcome = self.gate.enter(kind, time_limit).and_then(|_permit| {
            let connection = self.pool.get().map_err(no_connection)?;
            let _time_limit = deadline
                .map(|it| TimeLimit::set(&connection, it))
                .transpose()?;
            in_snapshot(&connection, deadline, read)
        });
        match (outcome, kind) {
            (Err(Error::SearchTooLong), ReadKind::ById) => {
                Err(Error::Unavailable("a read took too long".to_owned()))
            }
            (outcome, _) => outcome,
        }
    }
}

fn in_snapshot<T>(
    connection: &Connection,
    deadline: Option<Instant>,
    read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
) -> Result<T> {
    let snapshot = Snapshot::begin(connection)?;
    read(&ReadTx {
        connection: snapshot.connection,
        deadline,
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "`map_err` passes the error by value"
)]
fn no_connection(error: r2d2::Error) -> Error {
    Error::Unavailable(format!("no connection to read with: {error}"))
}

/// While this exists, statements of the connection are stopped after a deadline.
///
/// A progress handler, not an interrupt: a late interrupt would stop the next read on the connection, and SQLite ignores
/// an interrupt between two statements.
struct TimeLimit<'a> {
    connection: &'a Connection,
}

impl<'a> TimeLimit<'a> {
    fn set(connection: &'a Connection, deadline: Instant) -> Result<Self> {
        let is_over = move || Instant::now() >= deadline;
        connection
            .progress_handler(INSTRUCTIONS_PER_CHECK, Some(is_over))
            .map_err(unavailable)?;
        Ok(Self { connection })
    }
}

impl Drop for TimeLimit<'_> {
    fn drop(&mut self) {
        let removed = self.connection.progress_handler(0, None::<fn() -> bool>);
        if let Err(error) = removed {
            log::error!("removing a time limit from a connection: {error}");
        }
    }
}

/// An open read transaction, which ends when this is dropped. Its two statements are cached.
struct Snapshot<'a> {
    connection: &'a Connection,
}

impl<'a> Snapshot<'a> {
    fn begin(connection: &'a Connection) -> Result<Self> {
        execute_cached(connection, "BEGIN").map_err(unavailable)?;
        Ok(Self { connection })
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if let Err(error) = execute_cached(self.connection, "COMMIT") {
            log::warn!("ending a read: {error}");
        }
    }
}

/// Limits how many reads of requests run at once.
struct Gate {
    running: Mutex<Running>,
    /// One condition for each kind, so that a permit that only one kind can use does not wake the other.
    by_id: Condvar,
    searches: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    all: usize,
    searches: usize,
}

impl Running {
    const fn has_permit_for(&self, kind: ReadKind) -> bool {
        match kind {
            ReadKind::ById => self.all < GATE,
            ReadKind::Search => self.all < GATE && self.searches < GATE_FOR_SEARCHES,
        }
    }

    const fn add(&mut self, kind: ReadKind) {
        self.all = self.all.saturating_add(1);
        if matches!(kind, ReadKind::Search) {
            self.searches = self.searches.saturating_add(1);
        }
    }

    const fn subtract(&mut self, kind: ReadKind) {
        self.all = self.all.saturating_sub(1);
        if matches!(kind, ReadKind::Search) {
            self.searches = self.searches.saturating_sub(1);
        }
    }
}

/// The permission to read. Returned to the gate when dropped.
struct Permit<'a> {
    gate: &'a Gate,
    kind: ReadKind,
}

impl Gate {
    fn new() -> Self {
        Self {
            running: Mutex::new(Running::default()),
            by_id: Condvar::new(),
            searches: Condvar::new(),
        }
    }

    /// Waits for a permit, at most half of the time limit. So an admitted read has the other half to run.
    fn enter(&self, kind: ReadKind, time_limit: Duration) -> Result<Permit<'_>> {
        let freed = match kind {
            ReadKind::ById => &self.by_id,
            ReadKind::Search => &self.searches,
        };
        let wait = time_limit.checked_div(2).unwrap_or(time_limit);
        let (mut running, _) = freed
            .wait_timeout_while(self.lock(), wait, |it| !it.has_permit_for(kind))
            .unwrap_or_else(PoisonError::into_inner);
        if !running.has_permit_for(kind) {
            return Err(Error::SearchTooLong);
        }
        running.add(kind);
        drop(running);
        Ok(Permit { gate: self, kind })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.gate.lock().subtract(self.kind);
        // A waiter of either kind may be able to use the permit. One that cannot waits again.
        self.gate.by_id.notify_one();
        self.gate.searches.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// A statement that no machine ends in the time of a test.
    const ENDLESS: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n";
    const QUICK: &str = "SELECT 1";
    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(50);

    fn readers(time_limit: Duration) -> (tempfile::TempDir, Readers) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)")
            .unwrap();
        (dir, Readers::open(&path, time_limit).unwrap())
    }

    fn number(tx: &ReadTx<'_>, sql: &'static str) -> Result<Option<i64>> {
        tx.one(sql, (), |row| row.get(0))
    }

    /// SECURITY.md 37
    #[test]
    fn a_read_beyond_its_time_is_stopped_and_told_by_its_kind() {
        let (_dir, readers) = readers(SHORT);
        let begun = Instant::now();
        let search = readers.read_for_request(ReadKind::Search, |tx| number(tx, ENDLESS));
        assert!(matches!(search, Err(Error::SearchTooLong)), "{search:?}");
        let by_id = readers.read_for_request(ReadKind::ById, |tx| number(tx, ENDLESS));
        assert!(matches!(by_id, Err(Error::Unavailable(_))), "{by_id:?}");
        assert!(begun.elapsed() < LONG);
    }

    /// SECURITY.md 37: no statement of such a read is long enough for a progress handler to stop it.
    #[test]
    fn a_read_of_many_short_statements_is_stopped_too() {
        let (_dir, readers) = readers(SHORT);
        let read = readers.read_for_request(ReadKind::Search, |tx| {
            number(tx, QUICK)?;
            thread::sleep(SHORT);
            number(tx, QUICK)
        });
        assert!(matches!(read, Err(Error::SearchTooLong)), "{read:?}");
    }

    /// SECURITY.md 37: the limit belongs to the read, not to the connection.
    #[test]
    fn a_connection_carries_no_limit_to_its_next_user() {
        const LONG_ENOUGH: &str =
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)
            SELECT count(*) FROM n";
        let (_dir, readers) = readers(SHORT);
        let connection = readers.get().unwrap();
        let read = || in_snapshot(&connection, None, |tx| number(tx, LONG_ENOUGH));
        let limit = TimeLimit::set(&connection, Instant::now()).unwrap();
        assert!(read().is_err());
        drop(limit);
        assert_eq!(read().unwrap(), Some(100_000));
    }

    /// SECURITY.md 37
    #[test]
    fn searches_take_half_of_the_gate_and_leave_the_pool_to_others() {
        let (_dir, readers) = readers(LONG);
        let readers = &readers;
        let (entered, entries) = mpsc::channel();
        let (end, ended) = (Mutex::new(false), Condvar::new());
        let (end, ended) = (&end, &ended);
        thread::scope(|scope| {
            let run = |kind| {
                let entered = entered.clone();
                scope.spawn(move || {
                    readers
                        .read_for_request(kind, |_| {
                            entered.send(kind).unwrap();
                            let end = end.lock().unwrap();
                            let _end = ended.wait_timeout_while(end, LONG / 2, |it| !*it).unwrap();
                            Ok(())
                        })
                        .unwrap();
                });
            };
            (0..GATE / 2 * 3).for_each(|_| run(ReadKind::Search));
            for _ in 0..GATE / 2 {
                assert_eq!(entries.recv_timeout(LONG).unwrap(), ReadKind::Search);
            }
            // Each of these gets in although more searches wait than there are permits in all.
            for _ in GATE / 2..GATE {
                run(ReadKind::ById);
                assert_eq!(entries.recv_timeout(LONG).unwrap(), ReadKind::ById);
            }
            run(ReadKind::ById);
            let more = entries.recv_timeout(SHORT);
            assert!(more.is_err(), "the gate is full: {more:?}");
            // Beside a full gate there is a connection for everything else.
            assert_eq!(readers.read(|tx| number(tx, QUICK)).unwrap(), Some(1));
            *end.lock().unwrap() = true;
            ended.notify_all();
        });
        let left = readers.gate.lock();
        assert_eq!((left.all, left.searches), (0, 0));
        drop(left);
        assert_eq!(
            entries.try_iter().count(),
            GATE_FOR_SEARCHES * 2 + 1,
            "those that waited were let in"
        );
    }

    /// SECURITY.md 37
    #[test]
    fn the_wait_at_the_gate_is_bounded() {
        let (_dir, readers) = readers(SHORT);
        let permits: Vec<_> = (0..GATE_FOR_SEARCHES)
            .map(|_| readers.gate.enter(ReadKind::Search, LONG).unwrap())
            .collect();
        let begun = Instant::now();
        let search = readers.read_for_request(ReadKind::Search, |tx| number(tx, QUICK));
        assert!(matches!(search, Err(Error::SearchTooLong)), "{search:?}");
        assert!(begun.elapsed() < LONG / 2);
        drop(permits);
        let search = readers.read_for_request(ReadKind::Search, |tx| number(tx, QUICK));
        assert_eq!(search.unwrap(), Some(1));
    }
}
