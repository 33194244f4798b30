//! How many requests are in progress at once, and how many wait for that, over both transports.
//!
//! A `client` thread blocks in [`Acquire::wait`]; a task of gRPC awaits [`Acquire`]. Where a [`Permit`] is dropped, on
//! whichever thread, it passes to the next request and wakes it. No thread runs here by itself.
//!
//! Waiting is fair: the addresses take turns, and of one address the request that has waited longest is next. At most a
//! quarter of the requests that wait are of one address. So a client that floods turns away and delays its own requests
//! and not those of others (SECURITY.md 47).

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::num::NonZero;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::block;
use crate::api::Kind;
use crate::counters::Histogram;

/// Reads that are in progress at once, but for searches: no more find a connection of the database.
pub(crate) const READS: usize = 8;
/// The most searches that are in progress at once. A slow one keeps no read by id waiting.
pub(crate) const SEARCHES: usize = 3;
/// Requests for readiness that are in progress at once. All wait for the same probe, and while that hangs no read waits
/// behind them.
pub(crate) const PROBES: usize = 1;

/// How many searches are in progress at once: one fewer than there are processors, because a change passes several threads
/// and would wait for each behind a search.
fn searches_at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_sub(1).clamp(1, SEARCHES)
}

/// The permits of each kind of request, over all transports.
pub(crate) struct Gates {
    changes: Arc<Permits>,
    reads: Arc<Permits>,
    searches: Arc<Permits>,
    probes: Arc<Permits>,
}

impl Gates {
    pub(crate) fn new(changes: usize, max_waiting: usize) -> Self {
        Self {
            changes: Permits::new(changes, max_waiting),
            reads: Permits::new(READS, max_waiting),
            searches: Permits::new(searches_at_once(), max_waiting),
            probes: Permits::new(PROBES, max_waiting),
        }
    }

    /// The permits of each kind, by the name that they have in metrics.
    pub(crate) const fn all(&self) -> [(&'static str, &Arc<Permits>); 4] {
        [
            ("change", &self.changes),
            ("read", &self.reads),
            ("search", &self.searches),
            ("readiness", &self.probes),
        ]
    }

    pub(crate) const fn of(&self, kind: Kind) -> &Arc<Permits> {
        match kind {
            Kind::Change => &self.changes,
            Kind::Search => &self.searches,
            Kind::Read => &self.reads,
            // Liveness and pages take no permit: the client's own thread answers them.
            Kind::Liveness | Kind::Page | Kind::Readiness => &self.probes,
        }
    }
}

/// Of the requests that may wait, one address has at most this part.
const ADDRESS_SHARE: usize = 4;

/// From no wait at all to ten seconds, after which a request is refused.
const WAIT_BOUNDS_US: &[u64] = &[
    0, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// Permits of one kind. While one is free no request waits.
pub(crate) struct Permits {
    count: usize,
    max_waiting: usize,
    state: Mutex<State>,
    /// How long requests waited for their permit, in microseconds.
    pub(crate) wait_time: Histogram,
}

/// How the permits of one kind are used now.
pub(crate) struct PermitTotals {
    pub(crate) used: usize,
    pub(crate) free: usize,
    /// Requests that wait.
    pub(crate) waiting: usize,
}

struct State {
    /// Permits that no request has.
    free: usize,
    next_number: u64,
    /// Requests that wait: the addresses in the order of their turns, each with its requests in the order in which they
    /// came. Where there is no address, that is one too.
    waiting: VecDeque<(Option<IpAddr>, VecDeque<Waiting>)>,
    /// Requests that have their permit and have not noticed yet.
    granted: BTreeSet<u64>,
}

struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

impl State {
    /// Adds a request to those that wait. Returns `false` if too many do, in all or of its address.
    fn queue(&mut self, number: u64, block: Option<IpAddr>, max_waiting: usize) -> bool {
        let all: usize = self.waiting.iter().map(|(_, it)| it.len()).sum();
        let share = block.map_or(1, |_| ADDRESS_SHARE);
        let of_address = self.waiting.iter_mut().find(|(it, _)| *it == block);
        let held = of_address.as_ref().map_or(0, |(_, it)| it.len());
        if all >= max_waiting || held >= max_waiting.div_ceil(share) {
            return false;
        }
        let waiting = Waiting {
            number,
            waker: None,
        };
        match of_address {
            Some((_, requests)) => requests.push_back(waiting),
            None => self.waiting.push_back((block, [waiting].into())),
        }
        true
    }

    /// Takes out the request whose turn it is. If its address has others, they have a turn after all other addresses.
    fn next(&mut self) -> Option<Waiting> {
        let (block, mut requests) = self.waiting.pop_front()?;
        let first = requests.pop_front();
        if !requests.is_empty() {
            self.waiting.push_back((block, requests));
        }
        first
    }

    /// Takes out a request that does not wait any more.
    fn leave(&mut self, number: u64) {
        for (_, requests) in &mut self.waiting {
            requests.retain(|it| it.number != number);
        }
        self.waiting.retain(|(_, it)| !it.is_empty());
    }
}

impl Permits {
    pub(crate) fn new(count: usize, max_waiting: usize) -> Arc<Self> {
        let count = count.max(1);
        Arc::new(Self {
            count,
            max_waiting,
            wait_time: Histogram::new(WAIT_BOUNDS_US),
            state: Mutex::new(State {
                free: count,
                next_number: 0,
                waiting: VecDeque::new(),
                granted: BTreeSet::new(),
            }),
        })
    }

    /// Begins to wait for a permit; `None` if too many requests wait, in all or of this address.
    pub(crate) fn acquire(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Acquire> {
        let mut state = self.lock();
        let number = state.next_number;
        let mut since = None;
        if let Some(left) = state.free.checked_sub(1) {
            state.free = left;
            state.granted.insert(number);
        } else if !state.queue(number, address.map(block), self.max_waiting) {
            return None;
        } else {
            since = Some(Instant::now());
        }
        state.next_number = number.wrapping_add(1);
        Some(Acquire {
            permits: Arc::clone(self),
            number,
            since,
        })
    }

    pub(crate) fn totals(&self) -> PermitTotals {
        let state = self.lock();
        PermitTotals {
            used: self.count.saturating_sub(state.free),
            free: state.free,
            waiting: state.waiting.iter().map(|(_, it)| it.len()).sum(),
        }
    }

    /// Gives a permit that is free now to the request whose turn it is.
    fn release(&self) {
        let mut state = self.lock();
        let Some(next) = state.next() else {
            state.free = state.free.saturating_add(1);
            return;
        };
        state.granted.insert(next.number);
        drop(state);
        if let Some(waker) = next.waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for its permit. Dropped, it waits no more.
pub(crate) struct Acquire {
    permits: Arc<Permits>,
    number: u64,
    /// When it began to wait. `None`: it got its permit at once.
    since: Option<Instant>,
}

impl Acquire {
    /// Waits on the calling thread; `None` if that takes longer than `patience`.
    pub(crate) fn wait(self, patience: Duration) -> Option<Permit> {
        let deadline = Instant::now().checked_add(patience)?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut acquire = pin!(self);
        loop {
            if let Poll::Ready(permit) = acquire.as_mut().poll(&mut context) {
                return Some(permit);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }
}

impl Future for Acquire {
    type Output = Permit;

    /// Takes the permit if it was granted, else leaves the waker that is called when it is.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let mut state = self.permits.lock();
        if state.granted.remove(&self.number) {
            drop(state);
            let waited = self.since.map(|it| it.elapsed());
            self.permits
                .wait_time
                .observe_time(waited.unwrap_or_default());
            return Poll::Ready(Permit(Arc::clone(&self.permits)));
        }
        let mut waiting = state.waiting.iter_mut().flat_map(|(_, it)| it);
        if let Some(own) = waiting.find(|it| it.number == self.number) {
            own.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// A request that gives up leaves the queue. If it was granted a permit that it has not taken, the next one gets that.
impl Drop for Acquire {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.leave(self.number);
        if state.granted.remove(&self.number) {
            drop(state);
            self.permits.release();
        }
    }
}

/// Wakes a thread that waits in [`Acquire::wait`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// One request may be in progress, until this is dropped.
pub(crate) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn one_address_has_a_quarter_of_the_places_and_who_has_none_has_all() {
        let permits = Permits::new(1, 8);
        let _held = permits.acquire(None).unwrap();
        let flood = Some("192.0.2.1".parse().unwrap());
        let waiting: Vec<_> = (0..3).filter_map(|_| permits.acquire(flood)).collect();
        assert_eq!(waiting.len(), 2);
        let honest = permits.acquire(Some("192.0.2.2".parse().unwrap()));
        assert!(honest.is_some());
        let without: Vec<_> = (0..8).filter_map(|_| permits.acquire(None)).collect();
        assert_eq!(without.len(), 5);
        // A request that gives up makes way for another.
        drop(waiting);
        assert!(permits.acquire(flood).is_some());
    }

    #[test]
    fn the_addresses_take_turns() {
        let permits = Permits::new(1, 64);
        let held = permits.acquire(None).unwrap().wait(PATIENCE).unwrap();
        let flood: Vec<_> = (0..9)
            .filter_map(|_| permits.acquire(Some("192.0.2.1".parse().unwrap())))
            .collect();
        let honest = permits.acquire(Some("192.0.2.2".parse().unwrap()));
        drop(held);
        let mut flood = flood.into_iter();
        drop(flood.next().unwrap().wait(PATIENCE).unwrap());
        assert!(honest.unwrap().wait(Duration::from_millis(1)).is_some());
        assert_eq!(flood.filter_map(|it| it.wait(PATIENCE)).count(), 8);
    }

    #[test]
    fn a_permit_that_came_too_late_goes_on_to_the_next() {
        let permits = Permits::new(1, 8);
        let held = permits.acquire(None).unwrap().wait(PATIENCE).unwrap();
        let impatient = permits.acquire(None).unwrap();
        let patient = permits.acquire(None).unwrap();
        drop(held);
        drop(impatient);
        assert!(patient.wait(PATIENCE).is_some());
    }
}
