//! Moves what the log holds into the database, off the writer's path, and lets the log start over.
//!
//! At SQLite's default every so many pages the writer itself copies the log into the database and syncs it,
//! and everyone waits. Here another connection copies while the writer goes on (a passive checkpoint), the
//! database is synced beside it, and only what was written meanwhile is left for the moment between two
//! batches in which the log starts over. So the log stays bounded under endless load, and a log that is
//! overwritten syncs faster than one that grows. Knows nothing of what is in the pages.

use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use super::writer::{Logged, Writer};
use super::{file, unavailable};
use crate::error::{Error, Result};

/// Pages in the log from which on it starts over: 16 MiB.
const LONG_FRAMES: i64 = 4_000;
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

/// Where the log stands, in pages.
struct Standing {
    logged: i64,
    copied: i64,
}

impl Checkpoints {
    pub(super) fn new(path: &Path, writer: Arc<Writer>) -> Arc<Self> {
        let own = Own {
            connection: None,
            database: None,
            has_restarted: false,
        };
        Arc::new(Self {
            path: path.to_owned(),
            writer,
            own: Mutex::new(own),
        })
    }

    /// Starts the thread that looks after the log for as long as anything is logged.
    pub(super) fn look_after(
        self: &Arc<Self>,
        logged: Arc<Logged>,
    ) -> Result<thread::JoinHandle<()>> {
        let own = Arc::clone(self);
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while logged.wait() {
                    if let Err(error) = own.restart_if_long() {
                        log::warn!("moving the log into the database: {error:?}");
                    }
                }
            })
            .map_err(|error| Error::Unavailable(format!("no thread: {error}")))
    }

    fn restart_if_long(&self) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.standing(&self.path)?.logged < LONG_FRAMES {
            return Ok(());
        }
        own.has_restarted = self.round(&mut own, End::Restart)?;
        Ok(())
    }

    /// Empties the log, so that no ciphertext of a removed authenticator lingers there. Leaves it alone where
    /// it is empty, or where load lets it start over again and again: there it is overwritten anyway.
    pub(super) fn empty(&self) -> Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let has_restarted = std::mem::take(&mut own.has_restarted);
        let length = log_bytes(&self.path);
        if length == 0 || (has_restarted && length <= MAX_LOG_BYTES) {
            return Ok(());
        }
        if self.round(&mut own, End::Truncate)? {
            Ok(())
        } else {
            Err(Error::Unavailable("the log is in use".to_owned()))
        }
    }

    /// Copies beside the writer until little is left, and the rest between two batches of the writer. Says
    /// whether the log has come to its end; a read of an old snapshot may be in the way.
    fn round(&self, own: &mut Own, end: End) -> Result<bool> {
        for _ in 0..MAX_PASSES {
            let standing = own.standing(&self.path)?;
            if standing.logged.saturating_sub(standing.copied) <= FEW_FRAMES {
                break;
            }
            let copied = pragma(own.connection(&self.path)?, "PASSIVE")?;
            if copied.copied < copied.logged {
                // Somebody reads an old snapshot: until that ends the log cannot start over.
                return Ok(false);
            }
            own.sync_database(&self.path)?;
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

    fn standing(&mut self, path: &Path) -> Result<Standing> {
        pragma(self.connection(path)?, "NOOP")
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

fn pragma(connection: &Connection, mode: &'static str) -> Result<Standing> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let row = connection.query_row(&sql, (), |row| {
        Ok(Standing {
            logged: row.get(1)?,
            copied: row.get(2)?,
        })
    });
    row.map_err(unavailable)
}

/// The length of a database's log.
pub(super) fn log_bytes(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).map_or(0, |it| it.len())
}
