//! How long the log is, and what the writer and whoever moves it into the database tell each other about it.

use std::fs;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::unavailable;
use crate::error::Result;

/// Pages in the log from which on it starts over: 16 MiB.
const LONG_FRAMES: i64 = 4_000;
/// Pages in the log from which on the writer waits for the copying: 24 MiB. On a card that writes slowly at
/// random and fast in a row the log would otherwise grow faster than it is copied.
pub(super) const TOO_LONG_FRAMES: i64 = 6_000;
/// How long the writer waits at most: should the copying fail, a long log is better than none.
const HOLD: Duration = Duration::from_secs(2);

/// Where the log stands, in pages.
pub(super) struct Standing {
    pub(super) logged: i64,
    pub(super) copied: i64,
}

/// Where the log stands, as a connection sees it.
pub(super) fn standing(connection: &Connection) -> Result<Standing> {
    checkpoint(connection, "NOOP")
}

/// Copies what the mode says from the log into the database, and says where the log stood.
pub(super) fn checkpoint(connection: &Connection, mode: &'static str) -> Result<Standing> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let row = connection.query_row(&sql, (), |row| {
        Ok(Standing {
            logged: row.get(1)?,
            copied: row.get(2)?,
        })
    });
    row.map_err(unavailable)
}

/// What the writer and whoever looks after the log tell each other.
pub(super) struct WalLength {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    is_long: bool,
    /// Times that a piece of the log was copied.
    passes: u64,
    /// The database is being closed.
    is_over: bool,
}

/// Why a wait ended.
pub(super) enum Wake {
    /// The WAL is long.
    Long,
    /// The WAL was not long for the whole time.
    Quiet,
    /// The database is being closed.
    Over,
}

impl WalLength {
    pub(super) const fn new() -> Self {
        let state = State {
            is_long: false,
            passes: 0,
            is_over: false,
        };
        Self {
            state: Mutex::new(state),
            news: Condvar::new(),
        }
    }

    /// The writer says how long the log is, and is held up if that is too long.
    pub(super) fn is(&self, frames: i64) {
        if frames < LONG_FRAMES {
            return;
        }
        let mut state = self.lock();
        state.is_long = true;
        self.news.notify_all();
        if frames >= TOO_LONG_FRAMES {
            let seen = state.passes;
            let nothing_new = |it: &mut State| it.passes == seen && !it.is_over;
            let _held = self.news.wait_timeout_while(state, HOLD, nothing_new);
        }
    }

    /// Waits until the WAL is long, but no longer than `quiet`.
    pub(super) fn wait(&self, quiet: Duration) -> Wake {
        let is_short = |it: &mut State| !it.is_long && !it.is_over;
        let (mut state, _) = self
            .news
            .wait_timeout_while(self.lock(), quiet, is_short)
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            Wake::Over
        } else if std::mem::take(&mut state.is_long) {
            Wake::Long
        } else {
            Wake::Quiet
        }
    }

    pub(super) fn note_progress(&self) {
        let mut state = self.lock();
        state.passes = state.passes.wrapping_add(1);
        self.news.notify_all();
    }

    /// Nothing more will be logged.
    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.news.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of a database's log.
pub(super) fn wal_bytes(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).map_or(0, |it| it.len())
}
