//! One transaction on the writing connection: begin, savepoints, commit and rollback.
//!
//! Knows nothing of the queue, and nothing of what the changes do.

use std::cell::Cell;
use std::time::Instant;

use rusqlite::Connection;

use super::Change;
use crate::store::counts::{StoreCounts, note_error};
use crate::store::execute_cached;

thread_local! {
    static IS_OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in a write transaction.
pub(in crate::store) fn is_open() -> bool {
    IS_OPEN.get()
}

/// Runs `changes` in one transaction and commits it. An error means that none of them was kept, and says why.
pub(super) fn commit(
    connection: &Connection,
    changes: Vec<Change>,
    counts: &StoreCounts,
) -> Result<(), String> {
    run_in_transaction(connection, changes, counts).map_err(|error| {
        note_error(&error);
        counts.note_failed_commit();
        let why = format!("the database: {error}");
        roll_back(connection, why)
    })
}

/// Begins a transaction.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    execute_cached(connection, "BEGIN IMMEDIATE")?;
    IS_OPEN.set(true);
    Ok(())
}

fn run_in_transaction(
    connection: &Connection,
    changes: Vec<Change>,
    counts: &StoreCounts,
) -> rusqlite::Result<()> {
    begin(connection)?;
    // A single change needs no savepoint: the transaction has nothing else to keep.
    let batch_size = changes.len();
    let is_single = batch_size == 1;
    let mut has_changed = false;
    for change in changes {
        has_changed |= if is_single {
            let before = connection.total_changes();
            change(connection) && connection.total_changes() != before
        } else {
            in_savepoint(connection, change)?
        };
    }
    require_transaction(connection)?;
    end(connection, has_changed, batch_size, counts)
}

/// Ends the transaction: commits it, or rolls back where no row was written. So a batch of refused calls neither
/// writes nor syncs.
pub(super) fn end(
    connection: &Connection,
    has_changed: bool,
    changes: usize,
    counts: &StoreCounts,
) -> rusqlite::Result<()> {
    if has_changed {
        let begun = Instant::now();
        execute_cached(connection, "COMMIT")?;
        counts.note_commit(changes, begun.elapsed());
    } else {
        execute_cached(connection, "ROLLBACK")?;
        counts.note_roll_back();
    }
    IS_OPEN.set(false);
    Ok(())
}

/// Runs `change` in a savepoint, and undoes it where `change` returns `false`. Returns whether rows were written and
/// kept.
pub(super) fn in_savepoint(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> bool,
) -> rusqlite::Result<bool> {
    execute_cached(connection, "SAVEPOINT change")?;
    let before = connection.total_changes();
    let keep = change(connection);
    require_transaction(connection)?;
    if !keep {
        execute_cached(connection, "ROLLBACK TO change")?;
    }
    execute_cached(connection, "RELEASE change")?;
    Ok(keep && connection.total_changes() != before)
}

/// Fails where SQLite has rolled back the transaction by itself, as it does on a full disk. Statements after that would
/// each be committed on their own.
fn require_transaction(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
            Some("the transaction was rolled back under a change".to_owned()),
        ));
    }
    Ok(())
}

/// Rolls the transaction back that failed. Returns `why` it did, and what went wrong with this: nothing is logged here,
/// because a log that blocks would hold up all other changes.
pub(super) fn roll_back(connection: &Connection, mut why: String) -> String {
    // If this fails too, the next BEGIN fails as well. So half a batch is never committed.
    if !connection.is_autocommit()
        && let Err(error) = execute_cached(connection, "ROLLBACK")
    {
        why.push_str("; rolling back: ");
        why.push_str(&error.to_string());
    }
    IS_OPEN.set(false);
    why
}
