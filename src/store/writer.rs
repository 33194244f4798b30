//! The one writer: every change of state runs here, one after another, and is on disk before anyone hears.
//!
//! There is one writing connection. Whoever finds it free takes it and runs, in one transaction, its own
//! closure and those of all who wait (each in a savepoint, so that one that fails leaves the others
//! whole), commits once, hands the connection to the first who came meanwhile, and only then are all
//! answered. A lone caller waits for no one; under load one sync serves a whole batch. Some work is about the
//! connection and not in a transaction (starting the log over): it has its turn alone, between two batches.
//! A thread that has many changes at hand runs them in one transaction of its own ([`Writer::run_batch`]), and
//! then nobody has to be woken for each. Knows nothing of what the closures do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::wal::{self, WalLength};
use super::{execute_cached, unavailable};
use crate::error::{Error, Result};

/// Changes that may wait for the writer. More than the server has workers: it bounds what an embedding
/// program with threads without number can pile up.
const MAX_WAITING: usize = 1024;
/// Changes after which the log is measured. The largest are a user's data, 17 pages: so it grows by 17 MiB at
/// most between two looks.
const MEASURE_AFTER: usize = 256;
pub(super) struct Writer {
    queue: Mutex<Queue>,
    /// Changes in one transaction, at most.
    max_batch: usize,
    /// Changes since the log was measured. Whoever leads has it for itself.
    unmeasured: AtomicUsize,
    log: Arc<WalLength>,
}

struct Queue {
    /// There while nobody writes.
    connection: Option<Connection>,
    waiting: VecDeque<Job>,
    /// Whether changes are refused because the program is about to end.
    is_stopping: bool,
}

struct Job {
    work: Work,
    ticket: Arc<Ticket>,
}

enum Work {
    /// Runs in a transaction with others.
    Change(Change),
    /// Runs between two transactions.
    Alone(Box<dyn FnOnce(&Connection) + Send>),
    /// Takes the connection for a transaction of its own.
    Turn,
}

/// Runs the change and says whether to keep what it did.
type Change = Box<dyn FnOnce(&Connection) -> bool + Send>;

/// Where a caller waits for its turn or its answer.
struct Ticket {
    news: Mutex<Option<News>>,
    arrived: Condvar,
}

enum News {
    /// The caller is next: the connection is its own now, for one batch.
    Lead(Connection),
    /// The batch is on disk, or it failed and none of it happened.
    Settled(Result<(), String>),
}

impl Writer {
    pub(super) fn new(connection: Connection, max_batch: usize, log: Arc<WalLength>) -> Self {
        let queue = Queue {
            connection: Some(connection),
            waiting: VecDeque::new(),
            is_stopping: false,
        };
        Self {
            queue: Mutex::new(queue),
            max_batch,
            unmeasured: AtomicUsize::new(0),
            log,
        }
    }

    /// Runs `change` in a transaction. When this returns what it did is on disk, or it never happened.
    pub(super) fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_shared() {
            return self.write_shared(change);
        }
        let outcome = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&outcome);
        let run = Box::new(move |connection: &Connection| {
            let result = caught(|| change(connection));
            let keep = result.is_ok();
            *lock(&slot) = Some(result);
            keep
        });
        self.have_done(Work::Change(run))?;
        result_of(&outcome)
    }

    /// Runs `act` on the connection while nobody is in a transaction on it.
    pub(super) fn alone<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let outcome = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&outcome);
        let run = Box::new(move |connection: &Connection| {
            *lock(&slot) = Some(caught(|| act(connection)));
        });
        self.have_done(Work::Alone(run))?;
        result_of(&outcome)
    }

    /// Lets all changes that `calls` makes on this thread share one transaction. When this returns they are on
    /// disk; an error means that none of them happened, whatever each was told.
    pub(super) fn run_batch(&self, calls: impl FnOnce()) -> Result<()> {
        if self.is_shared() {
            // Already together with what came before.
            calls();
            return Ok(());
        }
        let outer = SHARED.replace(Some(Shared::of(self)));
        let called = catch_unwind(AssertUnwindSafe(calls));
        let Some(Shared {
            connection: Some(connection),
            failure,
            changes,
            has_changed,
            ..
        }) = SHARED.replace(outer)
        else {
            // Nobody wanted to change anything, or nobody could.
            return called.map_err(|_| Error::Bug("a call panicked".to_owned()));
        };
        let settled = match (called, failure) {
            (Ok(()), None) => end(&connection, has_changed).map_err(unavailable),
            (Ok(()), Some(why)) => Err(Error::Unavailable(why)),
            (Err(_), _) => Err(Error::Bug("a call panicked".to_owned())),
        };
        if settled.is_err() {
            roll_back(&connection);
        }
        self.measure(&connection, changes);
        self.hand_on(connection);
        settled
    }

    /// Refuses every change that is not queued yet.
    pub(super) fn refuse_changes(&self) {
        lock(&self.queue).is_stopping = true;
    }

    /// Changes that wait for the connection.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.queue).waiting.len()
    }

    /// Whether this thread's changes share a transaction of this very writer.
    fn is_shared(&self) -> bool {
        SHARED.with_borrow(|it| it.as_ref().is_some_and(|it| it.writer == address(self)))
    }

    /// Runs a change in the transaction that this thread's changes share, beginning it with the first.
    fn write_shared<T>(&self, change: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        SHARED.with_borrow_mut(|shared| {
            let shared = shared.get_or_insert_with(|| Shared::of(self));
            if let Some(why) = &shared.failure {
                return Err(Error::Unavailable(why.clone()));
            }
            let connection = match shared.connection.take() {
                Some(it) => it,
                None => self.take_turn()?,
            };
            let connection = shared.connection.insert(connection);
            let begun = if connection.is_autocommit() {
                execute_cached(connection, "BEGIN IMMEDIATE")
            } else {
                Ok(())
            };
            let mut result = Err(Error::Bug("a change did not run".to_owned()));
            let kept = begun.and_then(|()| {
                in_savepoint(connection, |connection| {
                    result = caught(|| change(connection));
                    result.is_ok()
                })
            });
            shared.changes = shared.changes.saturating_add(1);
            let has_changed = kept.map_err(|error| {
                let why = format!("the database: {error}");
                shared.failure = Some(why.clone());
                Error::Unavailable(why)
            })?;
            shared.has_changed |= has_changed;
            result
        })
    }

    /// Waits until the connection is this caller's.
    fn take_turn(&self) -> Result<Connection> {
        let (ticket, mut news) = self.queue_up(Work::Turn)?;
        loop {
            match news {
                News::Lead(connection) => {
                    let mut queue = lock(&self.queue);
                    let next = queue.waiting.front();
                    if next.is_some_and(|it| Arc::ptr_eq(&it.ticket, &ticket)) {
                        queue.waiting.pop_front();
                        return Ok(connection);
                    }
                    drop(queue);
                    self.lead(connection);
                    news = ticket.wait();
                }
                News::Settled(_) => return Err(Error::Bug("a turn was settled".to_owned())),
            }
        }
    }

    /// Queues the work and returns when it is settled, having led a batch if it was this caller's turn.
    fn have_done(&self, work: Work) -> Result<()> {
        let (ticket, mut news) = self.queue_up(work)?;
        loop {
            match news {
                News::Settled(settled) => return settled.map_err(Error::Unavailable),
                // Twice, where work that runs alone went first.
                News::Lead(connection) => {
                    self.lead(connection);
                    news = ticket.wait();
                }
            }
        }
    }

    /// Queues the work, and waits for the first news of it.
    fn queue_up(&self, work: Work) -> Result<(Arc<Ticket>, News)> {
        let ticket = Arc::new(Ticket {
            news: Mutex::new(None),
            arrived: Condvar::new(),
        });
        let free = {
            let mut queue = lock(&self.queue);
            if queue.is_stopping && !matches!(work, Work::Alone(_)) {
                return Err(Error::Unavailable("totpd is stopping".to_owned()));
            }
            if queue.waiting.len() >= MAX_WAITING {
                return Err(Error::Unavailable(
                    "too many changes wait for the writer".to_owned(),
                ));
            }
            let ticket = Arc::clone(&ticket);
            match &work {
                Work::Change(_) | Work::Turn => queue.waiting.push_back(Job { work, ticket }),
                // The last that is done: after it nothing is written.
                Work::Alone(_) if queue.is_stopping => {
                    queue.waiting.push_back(Job { work, ticket });
                }
                // It is about the connection and not about anybody's data: no order is hurt.
                Work::Alone(_) => queue.waiting.push_front(Job { work, ticket }),
            }
            queue.connection.take()
        };
        let news = free.map_or_else(|| ticket.wait(), News::Lead);
        Ok((ticket, news))
    }

    /// Runs one batch, passes the connection on, and tells everyone in the batch.
    fn lead(&self, connection: Connection) {
        let (work, tickets) = self.next_batch();
        let settled = match work {
            Batch::Alone(run) => {
                run(&connection);
                Ok(())
            }
            Batch::Changes(changes) => {
                let settled = commit_batch(&connection, changes);
                settled.map_err(|error| format!("the database: {error}"))
            }
        };
        // Those of this batch wait for it too: otherwise they would be back with more before it is over.
        self.measure(&connection, tickets.len());
        self.hand_on(connection);
        for ticket in tickets {
            ticket.tell(News::Settled(settled.clone()));
        }
    }

    fn hand_on(&self, connection: Connection) {
        // Under the lock, or a caller that comes now would find neither a connection nor a leader.
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(next) => next.ticket.tell(News::Lead(connection)),
            None => queue.connection = Some(connection),
        }
    }

    /// Measures the log now and then, and is held up where it has become too long.
    fn measure(&self, connection: &Connection, changes: usize) {
        let unmeasured = self.unmeasured.load(Ordering::Relaxed);
        let unmeasured = unmeasured.saturating_add(changes);
        let is_due = unmeasured >= MEASURE_AFTER;
        let kept = if is_due { 0 } else { unmeasured };
        self.unmeasured.store(kept, Ordering::Relaxed);
        if is_due {
            match wal::standing(connection) {
                Ok(it) => self.log.is(it.logged),
                Err(error) => log::warn!("measuring the log: {error:?}"),
            }
        }
    }

    /// Takes the next batch from the queue: changes up to the limit, or one piece of work that runs alone.
    fn next_batch(&self) -> (Batch, Vec<Arc<Ticket>>) {
        let mut queue = lock(&self.queue);
        let (mut changes, mut tickets) = (Vec::new(), Vec::new());
        while changes.len() < self.max_batch {
            match queue.waiting.pop_front() {
                Some(Job { work, ticket }) => match work {
                    Work::Change(change) => {
                        changes.push(change);
                        tickets.push(ticket);
                    }
                    Work::Alone(run) if changes.is_empty() => {
                        return (Batch::Alone(run), vec![ticket]);
                    }
                    work @ (Work::Alone(_) | Work::Turn) => {
                        queue.waiting.push_front(Job { work, ticket });
                        break;
                    }
                },
                None => break,
            }
        }
        (Batch::Changes(changes), tickets)
    }
}

enum Batch {
    Changes(Vec<Change>),
    Alone(Box<dyn FnOnce(&Connection) + Send>),
}

/// The transaction that the changes of one thread share.
struct Shared {
    /// Whose: a program may have several databases.
    writer: usize,
    /// There from the first change on.
    connection: Option<Connection>,
    /// Why nothing of it can be kept any more.
    failure: Option<String>,
    changes: usize,
    /// Whether a row was written that is to be kept.
    has_changed: bool,
}

impl Shared {
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
    /// There while this thread is in [`Writer::run_batch`]. It spares every call between there and here a handle
    /// that only one kind of caller has.
    static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// A panic is the end of one change and of nothing else.
fn caught<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(Error::Bug("a change panicked".to_owned())))
}

fn result_of<T>(outcome: &Mutex<Option<Result<T>>>) -> Result<T> {
    lock(outcome).take().unwrap_or_else(|| {
        Err(Error::Bug(
            "a change was settled without a result".to_owned(),
        ))
    })
}

/// Runs `changes` in one transaction. An error means that none of them happened.
fn commit_batch(connection: &Connection, changes: Vec<Change>) -> rusqlite::Result<()> {
    let outcome = run_in_transaction(connection, changes);
    if outcome.is_err() {
        roll_back(connection);
    }
    outcome
}

fn run_in_transaction(connection: &Connection, changes: Vec<Change>) -> rusqlite::Result<()> {
    execute_cached(connection, "BEGIN IMMEDIATE")?;
    // One change alone is the whole transaction: a savepoint would keep nothing apart from it.
    let is_alone = changes.len() == 1;
    let mut has_changed = false;
    for change in changes {
        has_changed |= if is_alone {
            let before = connection.total_changes();
            change(connection) && connection.total_changes() != before
        } else {
            in_savepoint(connection, change)?
        };
    }
    require_transaction(connection)?;
    end(connection, has_changed)
}

/// Commits, or rolls back where nothing was changed: of calls that were all refused nothing goes to the disk, and nobody
/// waits for a sync.
fn end(connection: &Connection, has_changed: bool) -> rusqlite::Result<()> {
    execute_cached(connection, if has_changed { "COMMIT" } else { "ROLLBACK" })
}

/// Runs `change` so that it alone is undone if it says so. Returns whether it changed a row and is kept.
fn in_savepoint(
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

/// A full disk or a failed read rolls the whole transaction back by itself; whatever ran afterwards would be
/// committed on its own.
fn require_transaction(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
            Some("the transaction was rolled back under a change".to_owned()),
        ));
    }
    Ok(())
}

fn roll_back(connection: &Connection) {
    // Should even this fail, the next BEGIN fails too, and everyone is told: never a half batch.
    if !connection.is_autocommit()
        && let Err(error) = execute_cached(connection, "ROLLBACK")
    {
        log::error!("rolling back: {error}");
    }
}

impl Ticket {
    fn wait(&self) -> News {
        let mut news = lock(&self.news);
        loop {
            if let Some(news) = news.take() {
                return news;
            }
            news = self
                .arrived
                .wait(news)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tell(&self, it: News) {
        *lock(&self.news) = Some(it);
        self.arrived.notify_one();
    }
}

/// A panic never happens while one of these locks is held; what it guards is whole either way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
