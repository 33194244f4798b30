//! Checkpoints: copies the WAL into the database beside the writer, then restarts or truncates it.
//!
//! By default SQLite's writer runs a checkpoint itself after every 1000 pages, and all changes wait for it. Here a
//! thread with its own connection copies while the writer goes on (a passive checkpoint) and syncs the database. Only
//! what was written meanwhile is left for the pause between two batches in which the WAL is restarted. So the WAL
//! stays bounded under endless load. A WAL that is overwritten also syncs faster than one that grows. This module knows
//! nothing of what is in the pages. Where the settings leave the WAL to Litestream, no round runs.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::counts::{CheckpointMode, CheckpointOutcome, StoreCounts};
use super::wal::{self, TOO_LONG_FRAMES, WakeReason, WalLength, WalPosition};
use super::writer::Writer;
use super::{file, unavailable};
use crate::error::{Error, Result};

/// Pages that may be left for the writer's pause. Copying and syncing them takes about as long as a commit.
const FEW_FRAMES: i64 = 256;
/// Passive checkpoints in one round. After these the WAL is restarted even if the writer is faster than the copying.
const MAX_PASSES: usize = 4;
/// A WAL file longer than this is truncated when possible, also under load. It grows so long when a backup's read keeps
/// it from being restarted.
const MAX_WAL_BYTES: u64 = 32 * 1024 * 1024;
/// How long a restart waits for readers of older snapshots; their reads take microseconds.
const RESTART_BUSY: Duration = Duration::from_millis(20);
/// How long a truncation waits for readers, and the writer with it.
const TRUNCATE_BUSY: Duration = Duration::from_millis(250);
/// How often a WAL that is not long is truncated. Even if one time is left out, the WAL is empty within the minute that
/// SECURITY.md 21 allows.
pub(super) const TRUNCATE_INTERVAL: Duration = Duration::from_secs(15);
/// The pause before the next attempt, while a reader of an older snapshot prevents a truncation.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Enough for SQLite, the only thing that the thread calls.
const STACK_BYTES: usize = 256 * 1024;

/// The checkpoints of one database.
pub(super) struct Checkpoints {
    path: PathBuf,
    writer: Arc<Writer>,
    wal_length: Arc<WalLength>,
    /// Whether the WAL is another program's to checkpoint. Asked before each round, because a command may change the
    /// setting beside a server.
    is_anothers: fn(&Connection) -> rusqlite::Result<bool>,
    /// One round at a time.
    state: Mutex<State>,
}

/// What a round needs. Opened by the first round: a command that makes one change runs none.
struct State {
    connection: Option<Connection>,
    /// Never closed. Closing any handle of a file releases all locks that this process has on the file (fcntl(2)), and
    /// SQLite's locks keep other processes from deleting the WAL.
    database: Option<ManuallyDrop<File>>,
    /// Whether load has restarted the WAL since the last [`Checkpoints::truncate_if_quiet`].
    has_restarted: bool,
}

impl Checkpoints {
    pub(super) fn new(
        path: &Path,
        writer: Arc<Writer>,
        wal_length: Arc<WalLength>,
        is_anothers: fn(&Connection) -> rusqlite::Result<bool>,
    ) -> Arc<Self> {
        let state = State {
            connection: None,
            database: None,
            has_restarted: false,
        };
        Arc::new(Self {
            path: path.to_owned(),
            writer,
            wal_length,
            is_anothers,
            state: Mutex::new(state),
        })
    }

    /// Starts the thread that restarts a long WAL and truncates a quiet one, until the database is closed.
    pub(super) fn start_thread(
        self: &Arc<Self>,
        interval: Duration,
    ) -> Result<thread::JoinHandle<()>> {
        let checkpoints = Arc::clone(self);
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                loop {
                    let result = match checkpoints.wal_length.wait(interval) {
                        WakeReason::Long => checkpoints.restart(),
                        WakeReason::Timeout => checkpoints.truncate_if_quiet(),
                        WakeReason::Closing => break,
                    };
                    if let Err(error) = result {
                        log::warn!("checkpoint: {error:?}");
                    }
                    checkpoints.wal_length.note_progress();
                }
            })
            .map_err(|error| {
                Error::Unavailable(format!("cannot start the checkpoint thread: {error}"))
            })
    }

    fn restart(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_restarted = !self.is_anothers(&mut state)?
            && self.run_round(&mut state, CheckpointMode::Restart)?;
        Ok(())
    }

    fn is_anothers(&self, state: &mut State) -> Result<bool> {
        (self.is_anothers)(state.connection(&self.path)?).map_err(unavailable)
    }

    /// Prepares the end of the writer's connection: SQLite empties the WAL when the last connection closes, unless it is
    /// told not to.
    pub(super) fn prepare_to_close(&self) -> Result<()> {
        let is_anothers = self.is_anothers;
        self.writer.run_exclusive(move |connection| {
            let keep = is_anothers(connection).map_err(unavailable)?;
            connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
                .map(|_| ())
                .map_err(unavailable)
        })
    }

    /// Truncates the WAL, unless load has restarted it since the last call. In that case new commits overwrite the WAL,
    /// and the next call truncates it.
    fn truncate_if_quiet(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_restarted = std::mem::take(&mut state.has_restarted);
        if has_restarted && wal::wal_bytes(&self.path) <= MAX_WAL_BYTES {
            return Ok(());
        }
        self.truncate_within(&mut state, Duration::ZERO)
    }

    /// Truncates the WAL under any load, unless it is another program's. Waits up to `wait` for readers of older snapshots.
    pub(super) fn truncate(&self, wait: Duration) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.truncate_within(&mut state, wait)
    }

    fn truncate_within(&self, state: &mut State, wait: Duration) -> Result<()> {
        let begun = Instant::now();
        while wal::wal_bytes(&self.path) > 0 {
            if self.is_anothers(state)? || self.run_round(state, CheckpointMode::Truncate)? {
                break;
            }
            if begun.elapsed() >= wait {
                return Err(Error::Unavailable(
                    "the WAL cannot be emptied while a reader uses an older state of the database"
                        .to_owned(),
                ));
            }
            thread::sleep(RETRY_PAUSE);
        }
        Ok(())
    }

    /// Copies beside the writer until little is left, and the rest between two batches of the writer. Returns whether
    /// the WAL was restarted or truncated; a reader of an older snapshot prevents both.
    fn run_round(&self, state: &mut State, mode: CheckpointMode) -> Result<bool> {
        for _ in 0..MAX_PASSES {
            let position = wal::wal_position(state.connection(&self.path)?)?;
            if position.frames.saturating_sub(position.copied) <= FEW_FRAMES {
                break;
            }
            let position = run_passive(state.connection(&self.path)?, self.writer.counts())?;
            if position.copied < position.frames {
                // A reader uses an older snapshot. Until it ends the WAL cannot be restarted.
                return Ok(false);
            }
            state.sync_database(&self.path)?;
            self.wal_length.note_progress();
            if position.frames >= TOO_LONG_FRAMES {
                // The writer is faster than the copying, so the rest is copied while it pauses.
                break;
            }
        }
        let counts = Arc::clone(self.writer.counts());
        let last = move |connection: &Connection| run_last(connection, mode, &counts);
        self.wal_length
            .while_writer_is_needed(|| self.writer.run_exclusive(last))
    }
}

/// Copies beside the writer.
fn run_passive(connection: &Connection, counts: &StoreCounts) -> Result<WalPosition> {
    let begun = Instant::now();
    let position = wal::checkpoint(connection, CheckpointMode::Passive.as_sql());
    let outcome = match &position {
        Ok(it) if it.copied < it.frames => CheckpointOutcome::Busy,
        Ok(_) => CheckpointOutcome::Done,
        Err(_) => CheckpointOutcome::Failed,
    };
    counts.note_checkpoint(CheckpointMode::Passive, outcome, begun.elapsed());
    position
}

/// The last checkpoint of a round, on the writing connection. Returns whether it did all that its mode does.
fn run_last(connection: &Connection, mode: CheckpointMode, counts: &StoreCounts) -> Result<bool> {
    let begun = Instant::now();
    let busy = if mode == CheckpointMode::Truncate {
        TRUNCATE_BUSY
    } else {
        RESTART_BUSY
    };
    connection.busy_timeout(busy).map_err(unavailable)?;
    let sql = format!("PRAGMA wal_checkpoint({})", mode.as_sql());
    let is_busy = connection.query_row(&sql, (), |row| row.get::<_, i64>(0));
    connection.busy_timeout(file::BUSY).map_err(unavailable)?;
    let outcome = match &is_busy {
        Ok(0) => CheckpointOutcome::Done,
        Ok(_) => CheckpointOutcome::Busy,
        Err(_) => CheckpointOutcome::Failed,
    };
    counts.note_checkpoint(mode, outcome, begun.elapsed());
    Ok(is_busy.map_err(unavailable)? == 0)
}

impl State {
    fn connection(&mut self, path: &Path) -> Result<&Connection> {
        let connection = match self.connection.take() {
            Some(it) => it,
            None => file::connect_for_checkpoints(path)?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Syncs what was copied, so that the restart has little left to sync.
    fn sync_database(&mut self, path: &Path) -> Result<()> {
        let io = |error: std::io::Error| Error::Unavailable(format!("syncing: {error}"));
        let database = match self.database.take() {
            Some(it) => it,
            None => ManuallyDrop::new(File::open(path).map_err(io)?),
        };
        self.database.insert(database).sync_data().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a change writes: a little over four pages.
    const BYTES: i64 = 4 * 4096;

    struct Fixture {
        dir: tempfile::TempDir,
        writer: Arc<Writer>,
        checkpoints: Arc<Checkpoints>,
        wal_length: Arc<WalLength>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.db");
            let connection = Connection::open(&path).unwrap();
            // Without syncs: these tests are about the length of the WAL, not about durability.
            let prepare = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (blob BLOB)";
            connection.execute_batch(prepare).unwrap();
            let wal_length = Arc::new(WalLength::new());
            let writer = Arc::new(Writer::new(connection, 128, Arc::clone(&wal_length)));
            let checkpoints =
                Checkpoints::new(&path, Arc::clone(&writer), Arc::clone(&wal_length), |_| {
                    Ok(false)
                });
            let thread = Some(checkpoints.start_thread(TRUNCATE_INTERVAL).unwrap());
            Self {
                dir,
                writer,
                checkpoints,
                wal_length,
                thread,
            }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("t.db")
        }

        fn changes(&self, count: usize) {
            for _ in 0..count {
                let change = |connection: &Connection| {
                    let sql = "INSERT INTO t VALUES (zeroblob(?1))";
                    let mut statement = connection.prepare_cached(sql).unwrap();
                    statement.execute([BYTES]).map_err(unavailable)
                };
                self.writer.write(change).unwrap();
            }
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.wal_length.close();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn under_endless_load_the_wal_stays_bounded() {
        let fixture = Fixture::new();
        let mut longest = 0;
        // 160 MiB in all.
        for _ in 0..80 {
            fixture.changes(128);
            longest = longest.max(wal::wal_bytes(&fixture.path()));
        }
        assert!(longest < 64 << 20, "{} MiB", longest >> 20);
    }

    /// A checkpoint that waits for the writer's connection makes no progress until it has it.
    #[test]
    fn a_writer_does_not_wait_for_a_checkpoint_that_waits_for_it() {
        let wal_length = WalLength::new();
        wal_length.while_writer_is_needed(|| {
            let begun = Instant::now();
            wal_length.report_and_throttle(TOO_LONG_FRAMES);
            assert!(begun.elapsed() < Duration::from_secs(1));
        });
    }

    #[test]
    fn a_quiet_wal_is_truncated_and_a_busy_one_is_not() {
        let fixture = Fixture::new();
        fixture.changes(10);
        assert!(wal::wal_bytes(&fixture.path()) > 0);
        fixture.checkpoints.truncate_if_quiet().unwrap();
        assert_eq!(wal::wal_bytes(&fixture.path()), 0);
        fixture.changes(10);
        fixture.checkpoints.state.lock().unwrap().has_restarted = true;
        fixture.checkpoints.truncate_if_quiet().unwrap();
        assert!(
            wal::wal_bytes(&fixture.path()) > 0,
            "new commits overwrite it"
        );
        fixture.checkpoints.truncate_if_quiet().unwrap();
        assert_eq!(
            wal::wal_bytes(&fixture.path()),
            0,
            "truncated by the next call"
        );
    }

    /// SECURITY.md 21: also where the program never asks for it.
    #[test]
    fn a_quiet_wal_is_truncated_without_a_call() {
        assert!(
            TRUNCATE_INTERVAL * 3 < Duration::from_mins(1),
            "one time may be left out"
        );
        let fixture = Fixture::new();
        fixture.changes(10);
        fixture.checkpoints.state.lock().unwrap().has_restarted = true;
        let interval = Duration::from_millis(1);
        let thread = fixture.checkpoints.start_thread(interval).unwrap();
        let begun = Instant::now();
        while wal::wal_bytes(&fixture.path()) > 0 && begun.elapsed() < Duration::from_secs(20) {
            thread::yield_now();
        }
        assert_eq!(wal::wal_bytes(&fixture.path()), 0);
        fixture.wal_length.close();
        thread.join().unwrap();
    }

    #[test]
    fn a_reader_of_an_old_snapshot_does_not_block_the_writer() {
        let fixture = Fixture::new();
        fixture.changes(1);
        let reader = Connection::open(fixture.path()).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        fixture.changes(2_500);
        assert!(
            fixture.checkpoints.truncate_if_quiet().is_err(),
            "a reader uses it"
        );
        fixture.changes(1);
        reader.execute_batch("COMMIT").unwrap();
        fixture.checkpoints.truncate_if_quiet().unwrap();
        assert_eq!(wal::wal_bytes(&fixture.path()), 0);
    }
}
