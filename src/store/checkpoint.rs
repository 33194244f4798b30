//! Moves what the log holds into the database, off the writer's path, and lets the log start over.
//!
//! At SQLite's default every so many pages the writer itself copies the log into the database and syncs it,
//! and everyone waits. Here another connection copies while the writer goes on (a passive checkpoint), the
//! database is synced beside it, and only what was written meanwhile is left for the moment between two
//! batches in which the log starts over. So the log stays bounded under endless load, and a log that is
//! overwritten syncs faster than one that grows. Knows nothing of what is in the pages.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::wal::{self, TOO_LONG_FRAMES, Wake, WalLength};
use super::writer::Writer;
use super::{file, unavailable};
use crate::error::{Error, Result};

/// Pages that may be left for the writer's pause: copied and synced in about the time of a commit.
const FEW_FRAMES: i64 = 256;
/// Passes after which the log starts over in spite of a writer that is faster than the copying.
const MAX_PASSES: usize = 4;
/// A log that was longer than this once (a backup kept it from starting over) is cut short when it can be.
const MAX_LOG_BYTES: u64 = 32 * 1024 * 1024;
/// How long the log's new start may wait for reads of older snapshots: they take microseconds.
const RESTART_BUSY: Duration = Duration::from_millis(20);
/// How long emptying the log may hold up the writer.
const TRUNCATE_BUSY: Duration = Duration::from_millis(250);
/// How often a WAL that is not long is looked at. Passed over once, it is still empty within the minute that
/// SECURITY.md 21 allows.
pub(super) const EMPTY_EVERY: Duration = Duration::from_secs(15);
/// How long to wait until somebody who reads an old snapshot is asked again.
const EMPTY_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The thread calls SQLite and nothing deep.
const STACK_BYTES: usize = 256 * 1024;

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The next commit overwrites the log from its start.
    Restart,
    /// The log's file has no length any more.
    Truncate,
}

/// Looks after the log of one database.
pub(super) struct Checkpoints {
    path: PathBuf,
    writer: Arc<Writer>,
    log: Arc<WalLength>,
    own: Mutex<Own>,
}

/// What a round works with, opened when it is first needed: a command that makes one change never does.
struct Own {
    connection: Option<Connection>,
    /// Never closed: closing any handle of a file drops every lock that this process has on it (fcntl(2)),
    /// and SQLite's locks keep other processes from taking the log away under us.
    database: Option<ManuallyDrop<File>>,
    /// Whether the log has started over by itself since somebody last wanted it emptied.
    has_restarted: bool,
}

impl Checkpoints {
    pub(super) fn new(path: &Path, writer: Arc<Writer>, log: Arc<WalLength>) -> Arc<Self> {
        let own = Own {
            connection: None,
            database: None,
            has_restarted: false,
        };
        Arc::new(Self {
            path: path.to_owned(),
            writer,
            log,
            own: Mutex::new(own),
        })
    }

    /// Starts the thread that looks after the WAL until the database is closed: it lets a long one start over, and
    /// empties one that is quiet.
    pub(super) fn look_after(self: &Arc<Self>, every: Duration) -> Result<thread::JoinHandle<()>> {
        let own = Arc::clone(self);
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                loop {
                    let done = match own.log.wait(every) {
                        Wake::Long => own.restart(),
                        Wake::Quiet => own.empty(),
                        Wake::Over => break,
                    };
                    if let Err(error) = done {
                        log::warn!("moving the WAL into the database: {error:?}");
                    }
                    own.log.note_progress();
                }
            })
            .map_err(|error| Error::Unavailable(format!("no thread: {error}")))
    }

    fn restart(&self) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.has_restarted = self.round(&mut own, End::Restart)?;
        Ok(())
    }

    /// Empties the WAL where it is quiet. Leaves it alone where load has let it start over since this was last asked:
    /// there it is overwritten anyway, and the next time it is emptied.
    fn empty(&self) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let has_restarted = std::mem::take(&mut own.has_restarted);
        if has_restarted && wal::wal_bytes(&self.path) <= MAX_LOG_BYTES {
            return Ok(());
        }
        self.truncate(&mut own, Duration::ZERO)
    }

    /// Empties the WAL, whatever the load. Waits up to `wait` for those who read an old snapshot.
    pub(super) fn empty_now(&self, wait: Duration) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.truncate(&mut own, wait)
    }

    fn truncate(&self, own: &mut Own, wait: Duration) -> Result<()> {
        let begun = Instant::now();
        while wal::wal_bytes(&self.path) > 0 {
            if self.round(own, End::Truncate)? {
                break;
            }
            if begun.elapsed() >= wait {
                return Err(Error::Unavailable(
                    "the WAL cannot be emptied while somebody reads an older state of the database"
                        .to_owned(),
                ));
            }
            thread::sleep(EMPTY_AGAIN_AFTER);
        }
        Ok(())
    }

    /// Copies beside the writer until little is left, and the rest between two batches of the writer. Says
    /// whether the log has come to its end; a read of an old snapshot may be in the way.
    fn round(&self, own: &mut Own, end: End) -> Result<bool> {
        for _ in 0..MAX_PASSES {
            let standing = wal::standing(own.connection(&self.path)?)?;
            if standing.logged.saturating_sub(standing.copied) <= FEW_FRAMES {
                break;
            }
            let copied = wal::checkpoint(own.connection(&self.path)?, "PASSIVE")?;
            if copied.copied < copied.logged {
                // Somebody reads an old snapshot: until that ends the log cannot start over.
                return Ok(false);
            }
            own.sync_database(&self.path)?;
            self.log.note_progress();
            if copied.logged >= TOO_LONG_FRAMES {
                // The writer is faster than this; it has to pause, or there will be no end.
                break;
            }
        }
        self.writer.alone(move |connection| {
            let (mode, busy) = match end {
                End::Restart => ("RESTART", RESTART_BUSY),
                End::Truncate => ("TRUNCATE", TRUNCATE_BUSY),
            };
            connection.busy_timeout(busy).map_err(unavailable)?;
            let done = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| {
                row.get::<_, i64>(0)
            });
            connection.busy_timeout(file::BUSY).map_err(unavailable)?;
            Ok(done.map_err(unavailable)? == 0)
        })
    }
}

impl Own {
    fn connection(&mut self, path: &Path) -> Result<&Connection> {
        let connection = match self.connection.take() {
            Some(it) => it,
            None => file::connect_for_checkpoints(path)?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Puts what was copied on disk, so that nobody has to wait for it when the log starts over.
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

    /// What a change puts into the database: four pages and a bit go into the log.
    const BYTES: i64 = 4 * 4096;

    struct Scene {
        dir: tempfile::TempDir,
        writer: Arc<Writer>,
        checkpoints: Arc<Checkpoints>,
        log: Arc<WalLength>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.db");
            let connection = Connection::open(&path).unwrap();
            // What is tried here is the log's length and not its safety.
            let prepare = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (blob BLOB)";
            connection.execute_batch(prepare).unwrap();
            let log = Arc::new(WalLength::new());
            let writer = Arc::new(Writer::new(connection, 128, Arc::clone(&log)));
            let checkpoints = Checkpoints::new(&path, Arc::clone(&writer), Arc::clone(&log));
            let thread = Some(checkpoints.look_after(EMPTY_EVERY).unwrap());
            Self {
                dir,
                writer,
                checkpoints,
                log,
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

    impl Drop for Scene {
        fn drop(&mut self) {
            self.log.end();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn under_endless_load_the_log_starts_over_again_and_again() {
        let scene = Scene::new();
        let mut longest = 0;
        // 160 MiB go through it.
        for _ in 0..80 {
            scene.changes(128);
            longest = longest.max(wal::wal_bytes(&scene.path()));
        }
        assert!(longest < 64 << 20, "{} MiB", longest >> 20);
    }

    #[test]
    fn a_quiet_log_is_emptied_and_a_busy_one_left_to_itself() {
        let scene = Scene::new();
        scene.changes(10);
        assert!(wal::wal_bytes(&scene.path()) > 0);
        scene.checkpoints.empty().unwrap();
        assert_eq!(wal::wal_bytes(&scene.path()), 0);
        scene.changes(10);
        scene.checkpoints.own.lock().unwrap().has_restarted = true;
        scene.checkpoints.empty().unwrap();
        assert!(
            wal::wal_bytes(&scene.path()) > 0,
            "it is overwritten by itself"
        );
        scene.checkpoints.empty().unwrap();
        assert_eq!(wal::wal_bytes(&scene.path()), 0, "but not for ever");
    }

    /// SECURITY.md 21: also where nobody asks for it.
    #[test]
    fn a_quiet_wal_is_emptied_by_itself() {
        assert!(EMPTY_EVERY * 3 < Duration::from_mins(1), "passed over once");
        let scene = Scene::new();
        scene.changes(10);
        scene.checkpoints.own.lock().unwrap().has_restarted = true;
        let every = Duration::from_millis(1);
        let thread = scene.checkpoints.look_after(every).unwrap();
        let begun = Instant::now();
        while wal::wal_bytes(&scene.path()) > 0 && begun.elapsed() < Duration::from_secs(20) {
            thread::yield_now();
        }
        assert_eq!(wal::wal_bytes(&scene.path()), 0);
        scene.log.end();
        thread.join().unwrap();
    }

    #[test]
    fn whoever_reads_an_old_snapshot_holds_nobody_up() {
        let scene = Scene::new();
        scene.changes(1);
        let reader = Connection::open(scene.path()).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        scene.changes(2_500);
        assert!(scene.checkpoints.empty().is_err(), "the log is in use");
        scene.changes(1);
        reader.execute_batch("COMMIT").unwrap();
        scene.checkpoints.empty().unwrap();
        assert_eq!(wal::wal_bytes(&scene.path()), 0);
    }
}
