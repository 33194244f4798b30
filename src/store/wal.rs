//! The length of the WAL, and how the writer and the checkpoint thread tell each other about it.
//!
//! Knows nothing of what is in the WAL.

use std::fs;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::unavailable;
use crate::error::Result;

/// A WAL of this length is copied into the database and restarted: 16 MiB of pages.
const LONG_FRAMES: i64 = 4_000;
/// At this length, 24 MiB of pages, the writer waits for the checkpoint. A memory card writes fast in sequence and slowly
/// at random: there the WAL would otherwise grow faster than it is copied.
pub(super) const TOO_LONG_FRAMES: i64 = 6_000;
/// The longest that the writer waits. If checkpoints fail, a long WAL is better than no service.
const THROTTLE: Duration = Duration::from_secs(2);

/// How far the WAL reaches, and how much of it is in the database.
pub(super) struct WalPosition {
    /// Frames in the WAL; each holds a page.
    pub(super) frames: i64,
    /// Frames of these that a checkpoint has copied into the database.
    pub(super) copied: i64,
}

/// Reads the WAL's position and copies nothing.
pub(super) fn wal_position(connection: &Connection) -> Result<WalPosition> {
    checkpoint(connection, "NOOP")
}

/// Runs a checkpoint in one of SQLite's modes, and returns the WAL's position.
pub(super) fn checkpoint(connection: &Connection, mode: &'static str) -> Result<WalPosition> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let row = connection.query_row(&sql, (), |row| {
        Ok(WalPosition {
            frames: row.get(1)?,
            copied: row.get(2)?,
        })
    });
    row.map_err(unavailable)
}

/// The state that the writer and the checkpoint thread share.
pub(super) struct WalLength {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Whether the WAL must be restarted.
    is_long: bool,
    /// Counts the copying done, so that a writer that waits sees progress.
    progress: u64,
    /// Whether the checkpoint thread waits for the writer's connection. A writer that waited for progress then would keep
    /// it from making any.
    needs_writer: bool,
    /// Whether the database is being closed.
    is_closing: bool,
}

/// Why [`WalLength::wait`] returned.
pub(super) enum WakeReason {
    /// The WAL is long.
    Long,
    /// The time is over, and the WAL is not long.
    Timeout,
    /// The database is being closed.
    Closing,
}

impl WalLength {
    pub(super) const fn new() -> Self {
        let state = State {
            is_long: false,
            progress: 0,
            needs_writer: false,
            is_closing: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Reports the length that the writer has measured. Wakes the checkpoint thread if the WAL is long. If the WAL is
    /// too long, blocks until that thread has made progress or needs the writer's connection, at most [`THROTTLE`].
    pub(super) fn report_and_throttle(&self, frames: i64) {
        if frames < LONG_FRAMES {
            return;
        }
        let mut state = self.lock();
        state.is_long = true;
        self.changed.notify_all();
        if frames >= TOO_LONG_FRAMES {
            let before = state.progress;
            let is_unchanged =
                |it: &mut State| it.progress == before && !it.needs_writer && !it.is_closing;
            let _state = self
                .changed
                .wait_timeout_while(state, THROTTLE, is_unchanged);
        }
    }

    /// Waits until the WAL is long or the database is being closed, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> WakeReason {
        let is_short = |it: &mut State| !it.is_long && !it.is_closing;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, is_short)
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_closing {
            WakeReason::Closing
        } else if std::mem::take(&mut state.is_long) {
            WakeReason::Long
        } else {
            WakeReason::Timeout
        }
    }

    /// Records that the checkpoint thread has copied pages, and wakes the writer.
    pub(super) fn note_progress(&self) {
        let mut state = self.lock();
        state.progress = state.progress.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Runs `work`, which waits for the writer's connection. No writer is held up meanwhile.
    pub(super) fn while_writer_is_needed<T>(&self, work: impl FnOnce() -> T) -> T {
        let set = |needs_writer| {
            self.lock().needs_writer = needs_writer;
            self.changed.notify_all();
        };
        set(true);
        let done = work();
        set(false);
        done
    }

    /// Ends the checkpoint thread, because the database is being closed.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of a database's WAL in bytes; 0 where it has none.
pub(super) fn wal_bytes(database: &Path) -> u64 {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    fs::metadata(wal).map_or(0, |it| it.len())
}
