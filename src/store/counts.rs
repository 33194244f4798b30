//! What one database counts since it was opened: commits, changes and checkpoints. And what the process counts: errors
//! of SQLite, which are told apart where no database is known.

#![cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "what reads the counts is a part of the server")
)]

use std::cell::Cell;
use std::time::Duration;

use rusqlite::ErrorCode;

use super::events::EventKind;
use crate::counters::{Counter, Histogram};

/// From 0.1 ms, a fast disk, to 5 s, where SQLite's lock is given up.
const COMMIT_BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000,
];
const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128];

/// What a database has counted.
#[derive(Debug)]
pub(crate) struct StoreCounts {
    pub(crate) commits: Counter,
    pub(crate) failed_commits: Counter,
    /// From `COMMIT` until it was on disk, in microseconds.
    pub(crate) commit_time: Histogram,
    /// Changes that shared a commit.
    pub(crate) batch_size: Histogram,
    /// Events of each kind in transactions that were committed.
    events: [Counter; EventKind::ALL.len()],
    /// Those of the transaction that is open. Only the thread that has the writing connection uses them.
    uncommitted: [Counter; EventKind::ALL.len()],
    /// Each mode with each outcome, in the order of [`CheckpointMode::ALL`] and [`CheckpointOutcome::ALL`].
    checkpoints: [[Counter; 3]; 3],
    /// How long checkpoints took, in microseconds.
    pub(crate) checkpoint_time: Histogram,
}

/// How far a checkpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointMode {
    /// Copies beside the writer.
    Passive,
    /// The next commit overwrites the WAL from its start.
    Restart,
    /// As `Restart`, and the WAL file has length zero.
    Truncate,
}

/// How a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointOutcome {
    /// It did all that its mode does.
    Done,
    /// A reader of an older snapshot kept it from its end.
    Busy,
    /// SQLite reported an error.
    Failed,
}

impl CheckpointOutcome {
    pub(crate) const ALL: [Self; 3] = [Self::Done, Self::Busy, Self::Failed];

    /// The value of the label in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

impl CheckpointMode {
    pub(crate) const ALL: [Self; 3] = [Self::Passive, Self::Restart, Self::Truncate];

    /// The value of the label in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Passive => "passive",
            Self::Restart => "restart",
            Self::Truncate => "truncate",
        }
    }

    pub(super) const fn as_sql(self) -> &'static str {
        match self {
            Self::Passive => "PASSIVE",
            Self::Restart => "RESTART",
            Self::Truncate => "TRUNCATE",
        }
    }
}

impl StoreCounts {
    pub(super) const fn new() -> Self {
        Self {
            commits: Counter::new(),
            failed_commits: Counter::new(),
            commit_time: Histogram::new(COMMIT_BOUNDS_US),
            batch_size: Histogram::new(BATCH_BOUNDS),
            events: [const { Counter::new() }; EventKind::ALL.len()],
            uncommitted: [const { Counter::new() }; EventKind::ALL.len()],
            checkpoints: [const { [const { Counter::new() }; 3] }; 3],
            checkpoint_time: Histogram::new(COMMIT_BOUNDS_US),
        }
    }
}

impl StoreCounts {
    /// Counts the events of a change, once its transaction is committed.
    pub(super) fn note_events(&self, events: &EventTally) {
        for (counter, more) in self.uncommitted.iter().zip(&events.0) {
            if more.get() > 0 {
                counter.add(more.get());
            }
        }
    }

    /// A transaction of that many changes was committed.
    pub(super) fn note_commit(&self, changes: usize, time: Duration) {
        self.commits.add_one();
        self.commit_time.observe_time(time);
        self.batch_size
            .observe(u64::try_from(changes).unwrap_or(u64::MAX));
        for (committed, uncommitted) in self.events.iter().zip(&self.uncommitted) {
            committed.add(uncommitted.take());
        }
    }

    /// A transaction was rolled back where it should have been committed.
    pub(super) fn note_failed_commit(&self) {
        self.failed_commits.add_one();
        self.note_roll_back();
    }

    /// A transaction that changed nothing was rolled back.
    pub(super) fn note_roll_back(&self) {
        for uncommitted in &self.uncommitted {
            uncommitted.take();
        }
    }

    pub(super) fn note_checkpoint(
        &self,
        mode: CheckpointMode,
        outcome: CheckpointOutcome,
        time: Duration,
    ) {
        self.checkpoint(mode, outcome).add_one();
        self.checkpoint_time.observe_time(time);
    }

    /// How many checkpoints of that mode ended so.
    pub(crate) fn checkpoint(&self, mode: CheckpointMode, outcome: CheckpointOutcome) -> &Counter {
        let [passive, restart, truncate] = &self.checkpoints;
        let [done, busy, failed] = match mode {
            CheckpointMode::Passive => passive,
            CheckpointMode::Restart => restart,
            CheckpointMode::Truncate => truncate,
        };
        match outcome {
            CheckpointOutcome::Done => done,
            CheckpointOutcome::Busy => busy,
            CheckpointOutcome::Failed => failed,
        }
    }

    /// The number of events of each kind.
    pub(crate) fn events(&self) -> impl Iterator<Item = (EventKind, u64)> {
        let counted = self.events.iter().map(Counter::get);
        EventKind::ALL.into_iter().zip(counted)
    }
}

/// The events of one write transaction, or of one change in it.
#[derive(Debug)]
pub(super) struct EventTally([Cell<u64>; EventKind::ALL.len()]);

/// Written out, because arrays of more than 32 elements have no default.
impl Default for EventTally {
    fn default() -> Self {
        Self([const { Cell::new(0) }; EventKind::ALL.len()])
    }
}

impl EventTally {
    pub(super) fn note(&self, kind: EventKind) {
        let at = EventKind::ALL.iter().position(|it| *it == kind);
        if let Some(count) = at.and_then(|it| self.0.get(it)) {
            count.set(count.get().saturating_add(1));
        }
    }
}

/// The kind of an error of SQLite, as far as an operator would act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreErrorKind {
    /// Another process holds a lock.
    Busy,
    /// The disk, or the file's quota, is full.
    Full,
    /// Reading, writing or opening a file failed.
    Io,
    /// The file is damaged, or is no database.
    Corrupt,
    /// All others.
    Other,
}

impl StoreErrorKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Busy, Self::Full, Self::Io, Self::Corrupt, Self::Other];

    /// The value of the label in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Other => "other",
        }
    }

    /// How many errors of this kind the process has met.
    pub(crate) fn count(self) -> u64 {
        self.counter().get()
    }

    fn counter(self) -> &'static Counter {
        static COUNTERS: [Counter; 5] = [const { Counter::new() }; 5];
        let [busy, full, io, corrupt, other] = &COUNTERS;
        match self {
            Self::Busy => busy,
            Self::Full => full,
            Self::Io => io,
            Self::Corrupt => corrupt,
            Self::Other => other,
        }
    }
}

/// Counts an error of SQLite.
pub(super) fn note_error(error: &rusqlite::Error) {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Busy,
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied,
        ) => StoreErrorKind::Io,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        // What SQLite may add later is one of these too.
        _ => StoreErrorKind::Other,
    };
    kind.counter().add_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_commit_had_changed_is_not_counted() {
        let counts = StoreCounts::new();
        let events = EventTally::default();
        events.note(EventKind::UserCreated);
        let counted = || counts.events().map(|(_, count)| count).sum::<u64>();
        counts.note_events(&events);
        counts.note_failed_commit();
        counts.note_commit(1, Duration::ZERO);
        assert_eq!(counted(), 0);
        counts.note_events(&events);
        assert_eq!(counted(), 0, "not before its commit");
        counts.note_commit(1, Duration::ZERO);
        assert_eq!(counted(), 1);
    }
}
