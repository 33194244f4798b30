//! The single writer: every change of state runs on one connection, one after another, and is on disk before its
//! caller gets the result.
//!
//! A caller that finds the connection free takes it and runs, in one transaction, its own change and all that wait.
//! Each change has a savepoint, so one that fails does not undo the others. After the one commit the caller passes the
//! connection to the first that has queued meanwhile, and then wakes all callers of the batch. A lone caller waits for
//! no other; under load one sync serves a whole batch.
//!
//! Work that concerns the connection itself, such as restarting the WAL, runs exclusively between two batches. A thread
//! that has many changes at hand runs them in one transaction of its own ([`Writer::run_batch`]), so that no thread
//! has to be woken for each. This module knows nothing of what the changes do.

mod thread_batch;
mod transaction;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::counts::StoreCounts;
use super::wal::{self, WalLength};
use crate::error::{Error, Result};

/// Whether this thread is in a write transaction.
pub(crate) fn is_in_transaction() -> bool {
    transaction::is_open()
}

/// The most changes that may wait. A server has fewer workers; this bounds an embedding program that starts any
/// number of threads.
const MAX_WAITING: usize = 1024;
/// Changes after which the WAL is measured. The largest change writes a user's data, 17 pages, so the WAL grows by at
/// most 17 MiB between two measurements.
const MEASURE_WAL_AFTER: usize = 256;

/// The queue of changes and the connection that runs them.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    /// The most changes in one transaction.
    max_batch: usize,
    /// Changes since the WAL was measured. Only the thread that has the connection uses it.
    unmeasured_changes: AtomicUsize,
    wal_length: Arc<WalLength>,
    counts: Arc<StoreCounts>,
}

struct Queue {
    /// `None` while a thread has it.
    connection: Option<Connection>,
    waiting: VecDeque<Job>,
    /// Whether changes are refused because the program is about to end.
    is_stopping: bool,
}

struct Job {
    work: Work,
    waiter: Arc<Waiter>,
}

enum Work {
    /// Runs in a transaction with others.
    Change(Change),
    /// Runs between two transactions.
    Exclusive(Box<dyn FnOnce(&Connection) + Send>),
    /// Takes the connection, for a transaction of the caller's own.
    TakeConnection,
}

/// Makes a change, and returns whether to keep it.
type Change = Box<dyn FnOnce(&Connection) -> bool + Send>;

/// A caller whose work is in the queue or in a batch.
struct Waiter {
    notice: Mutex<Option<Notice>>,
    arrived: Condvar,
}

/// The message to a waiting caller.
enum Notice {
    /// The caller is first in the queue. It gets the connection and must run the next batch.
    Connection(Connection),
    /// The caller's work has run: the batch is on disk, or it failed and nothing of it was kept.
    Done(Result<(), String>),
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        max_batch: usize,
        wal_length: Arc<WalLength>,
    ) -> Self {
        let queue = Queue {
            connection: Some(connection),
            waiting: VecDeque::new(),
            is_stopping: false,
        };
        Self {
            queue: Mutex::new(queue),
            max_batch,
            unmeasured_changes: AtomicUsize::new(0),
            wal_length,
            counts: Arc::new(StoreCounts::new()),
        }
    }

    pub(super) const fn counts(&self) -> &Arc<StoreCounts> {
        &self.counts
    }

    /// Runs `change` in a transaction. When this returns, the change is on disk or was undone.
    pub(super) fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_in_batch() {
            return self.write_in_batch(change);
        }
        let outcome = Arc::new(Mutex::new(None));
        let result_slot = Arc::clone(&outcome);
        let run = Box::new(move |connection: &Connection| {
            let result = catch_panic(|| change(connection));
            let keep = result.is_ok();
            *lock(&result_slot) = Some(result);
            keep
        });
        self.submit_and_wait(Work::Change(run))?;
        take_result(&outcome)
    }

    /// Runs `work` on the connection, between two transactions.
    pub(super) fn run_exclusive<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let outcome = Arc::new(Mutex::new(None));
        let result_slot = Arc::clone(&outcome);
        let run = Box::new(move |connection: &Connection| {
            *lock(&result_slot) = Some(catch_panic(|| work(connection)));
        });
        self.submit_and_wait(Work::Exclusive(run))?;
        take_result(&outcome)
    }

    /// Refuses every change that is not in the queue yet.
    pub(super) fn refuse_changes(&self) {
        lock(&self.queue).is_stopping = true;
    }

    /// The length of the queue.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.queue).waiting.len()
    }

    /// Waits in the queue until it is this caller's turn, and takes the connection.
    fn take_connection(&self) -> Result<Connection> {
        let (waiter, mut notice) = self.submit(Work::TakeConnection)?;
        loop {
            match notice {
                Notice::Connection(connection) => {
                    let mut queue = lock(&self.queue);
                    let next = queue.waiting.front();
                    if next.is_some_and(|it| Arc::ptr_eq(&it.waiter, &waiter)) {
                        queue.waiting.pop_front();
                        return Ok(connection);
                    }
                    drop(queue);
                    self.run_next_batch(connection);
                    notice = waiter.wait();
                }
                Notice::Done(_) => {
                    return Err(Error::Bug(
                        "a caller that waits for the connection was told that it is done"
                            .to_owned(),
                    ));
                }
            }
        }
    }

    /// Queues the work and returns when it has run. Runs a batch itself when it is first in the queue.
    fn submit_and_wait(&self, work: Work) -> Result<()> {
        let (waiter, mut notice) = self.submit(work)?;
        loop {
            match notice {
                Notice::Done(result) => return result.map_err(Error::Unavailable),
                // This happens twice where exclusive work was put in front of this caller's.
                Notice::Connection(connection) => {
                    self.run_next_batch(connection);
                    notice = waiter.wait();
                }
            }
        }
    }

    /// Queues the work and waits for the first notice. A caller that finds the connection free gets it at once.
    fn submit(&self, work: Work) -> Result<(Arc<Waiter>, Notice)> {
        let waiter = Arc::new(Waiter {
            notice: Mutex::new(None),
            arrived: Condvar::new(),
        });
        let free = {
            let mut queue = lock(&self.queue);
            if queue.is_stopping && !matches!(work, Work::Exclusive(_)) {
                return Err(Error::Unavailable("totpd is stopping".to_owned()));
            }
            if queue.waiting.len() >= MAX_WAITING {
                return Err(Error::Unavailable(
                    "too many changes wait for the writer".to_owned(),
                ));
            }
            let waiter = Arc::clone(&waiter);
            match &work {
                Work::Change(_) | Work::TakeConnection => {
                    queue.waiting.push_back(Job { work, waiter });
                }
                // While stopping, exclusive work comes last, so that nothing is written after it.
                Work::Exclusive(_) if queue.is_stopping => {
                    queue.waiting.push_back(Job { work, waiter });
                }
                // Exclusive work changes no data, so it may overtake changes.
                Work::Exclusive(_) => queue.waiting.push_front(Job { work, waiter }),
            }
            queue.connection.take()
        };
        let notice = free.map_or_else(|| waiter.wait(), Notice::Connection);
        Ok((waiter, notice))
    }

    /// Runs one batch, passes the connection on, and notifies all callers of the batch.
    fn run_next_batch(&self, connection: Connection) {
        let (work, waiters) = self.next_batch();
        let result = match work {
            Batch::Exclusive(run) => {
                run(&connection);
                Ok(())
            }
            Batch::Changes(changes) => transaction::commit(&connection, changes, &self.counts),
        };
        // Before the callers are notified, so that they wait for it too: otherwise they would queue more changes
        // meanwhile.
        self.measure_wal(&connection, waiters.len());
        self.pass_connection_on(connection);
        for waiter in waiters {
            waiter.notify(Notice::Done(result.clone()));
        }
    }

    /// Gives the connection to the first caller in the queue, or puts it back.
    fn pass_connection_on(&self, connection: Connection) {
        // Under the lock. Otherwise a caller that queues now could wait although no thread has the connection.
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(next) => next.waiter.notify(Notice::Connection(connection)),
            None => queue.connection = Some(connection),
        }
    }

    /// Measures the WAL after every [`MEASURE_WAL_AFTER`] changes. Blocks where it is too long.
    fn measure_wal(&self, connection: &Connection, changes: usize) {
        let unmeasured = self.unmeasured_changes.load(Ordering::Relaxed);
        let unmeasured = unmeasured.saturating_add(changes);
        let is_due = unmeasured >= MEASURE_WAL_AFTER;
        let left = if is_due { 0 } else { unmeasured };
        self.unmeasured_changes.store(left, Ordering::Relaxed);
        if is_due {
            match wal::wal_position(connection) {
                Ok(it) => self.wal_length.report_and_throttle(it.frames),
                Err(error) => log::warn!("measuring the WAL: {error:?}"),
            }
        }
    }

    /// Takes the next batch from the queue: changes up to the limit, or one piece of exclusive work.
    fn next_batch(&self) -> (Batch, Vec<Arc<Waiter>>) {
        let mut queue = lock(&self.queue);
        let (mut changes, mut waiters) = (Vec::new(), Vec::new());
        while changes.len() < self.max_batch {
            match queue.waiting.pop_front() {
                Some(Job { work, waiter }) => match work {
                    Work::Change(change) => {
                        changes.push(change);
                        waiters.push(waiter);
                    }
                    Work::Exclusive(run) if changes.is_empty() => {
                        return (Batch::Exclusive(run), vec![waiter]);
                    }
                    work @ (Work::Exclusive(_) | Work::TakeConnection) => {
                        queue.waiting.push_front(Job { work, waiter });
                        break;
                    }
                },
                None => break,
            }
        }
        (Batch::Changes(changes), waiters)
    }
}

enum Batch {
    Changes(Vec<Change>),
    Exclusive(Box<dyn FnOnce(&Connection) + Send>),
}

/// Turns a panic into an error, so that it ends one change only.
fn catch_panic<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(Error::Bug("a change panicked".to_owned())))
}

fn take_result<T>(outcome: &Mutex<Option<Result<T>>>) -> Result<T> {
    lock(outcome)
        .take()
        .unwrap_or_else(|| Err(Error::Bug("a change is done but has no result".to_owned())))
}

impl Waiter {
    fn wait(&self) -> Notice {
        let mut notice = lock(&self.notice);
        loop {
            if let Some(notice) = notice.take() {
                return notice;
            }
            notice = self
                .arrived
                .wait(notice)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn notify(&self, notice: Notice) {
        *lock(&self.notice) = Some(notice);
        self.arrived.notify_one();
    }
}

/// Locks also after a panic: no code panics while it holds one of these locks, so the value is consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
