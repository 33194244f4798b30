//! The changes of one thread in one transaction of its own.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

use super::{Writer, catch_panic, transaction};
use crate::error::{Error, Result};
use crate::store::counts::note_error;
use crate::store::unavailable;

impl Writer {
    /// Runs `calls`; all changes that it makes on this thread share one transaction. When this returns, they are on
    /// disk. An error means that none of them was kept, whatever result each one had.
    pub(in crate::store) fn run_batch(&self, calls: impl FnOnce()) -> Result<()> {
        if self.is_in_batch() {
            // A nested batch is part of the outer one.
            calls();
            return Ok(());
        }
        let outer = THREAD_BATCH.replace(Some(ThreadBatch::of(self)));
        let called = catch_unwind(AssertUnwindSafe(calls));
        let Some(ThreadBatch {
            connection: Some(connection),
            failure,
            changes,
            has_changed,
            ..
        }) = THREAD_BATCH.replace(outer)
        else {
            // No change was made, or the queue refused the first one.
            return called.map_err(|_| Error::Bug("a call panicked".to_owned()));
        };
        let result = match (called, failure) {
            (Ok(()), None) => {
                let ended = transaction::end(&connection, has_changed, changes, &self.counts);
                ended.map_err(unavailable)
            }
            (Ok(()), Some(why)) => Err(Error::Unavailable(why)),
            (Err(_), _) => Err(Error::Bug("a call panicked".to_owned())),
        };
        let result = result.map_err(|error| {
            self.counts.note_failed_commit();
            if let Error::Unavailable(why) = error {
                Error::Unavailable(transaction::roll_back(&connection, why))
            } else {
                Error::Bug(transaction::roll_back(&connection, error.to_string()))
            }
        });
        self.measure_wal(&connection, changes);
        self.pass_connection_on(connection);
        result
    }

    /// Whether this thread is in [`Self::run_batch`] of this writer.
    pub(super) fn is_in_batch(&self) -> bool {
        THREAD_BATCH.with_borrow(|it| it.as_ref().is_some_and(|it| it.writer == address(self)))
    }

    /// Runs a change in the transaction of this thread's batch. The first change begins the transaction.
    pub(super) fn write_in_batch<T>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        THREAD_BATCH.with_borrow_mut(|batch| {
            let batch = batch.get_or_insert_with(|| ThreadBatch::of(self));
            if let Some(why) = &batch.failure {
                return Err(Error::Unavailable(why.clone()));
            }
            let connection = match batch.connection.take() {
                Some(it) => it,
                None => self.take_connection()?,
            };
            let connection = batch.connection.insert(connection);
            let begin = if connection.is_autocommit() {
                transaction::begin(connection)
            } else {
                Ok(())
            };
            let mut result = Err(Error::Bug("a change did not run".to_owned()));
            let kept = begin.and_then(|()| {
                transaction::in_savepoint(connection, |connection| {
                    result = catch_panic(|| change(connection));
                    result.is_ok()
                })
            });
            batch.changes = batch.changes.saturating_add(1);
            let has_changed = kept.map_err(|error| {
                note_error(&error);
                let why = format!("the database: {error}");
                batch.failure = Some(why.clone());
                Error::Unavailable(why)
            })?;
            batch.has_changed |= has_changed;
            result
        })
    }
}

/// The transaction of a thread that is in [`Writer::run_batch`].
struct ThreadBatch {
    /// The address of the writer. A program may open several databases.
    writer: usize,
    /// `None` until the first change.
    connection: Option<Connection>,
    /// Why the transaction cannot be committed any more.
    failure: Option<String>,
    changes: usize,
    /// Whether the transaction wrote a row, so that it must be committed.
    has_changed: bool,
}

impl ThreadBatch {
    fn of(writer: &Writer) -> Self {
        Self {
            writer: address(writer),
            connection: None,
            failure: None,
            changes: 0,
            has_changed: false,
        }
    }
}

fn address(writer: &Writer) -> usize {
    std::ptr::from_ref(writer).addr()
}

thread_local! {
    /// `Some` while this thread is in [`Writer::run_batch`]. A thread local, so that the calls in between need no
    /// extra argument that only batches have.
    static THREAD_BATCH: RefCell<Option<ThreadBatch>> = const { RefCell::new(None) };
}
