//! Who is connected, what each is doing, and who makes room when there is none.
//!
//! Knows sockets only to shut them down.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Limits;
use super::stream::Stream;
use crate::api::status::AtTheDoor;

/// Between requests: may be shut down.
const IDLE: u8 = 0;
/// A request is not yet whole, or the client has its last answer and lingers: may make room.
const SENDING: u8 = 1;
/// A whole request is with a worker: never cut.
const WORKING: u8 = 2;
/// Its answer is on the way: may make room once `TAKING_GRACE` has passed.
const TAKING: u8 = 3;
/// Somebody else took the place.
const CUT: u8 = 4;

/// An answer fits into the socket's buffer, and is out at once. Only who asks on and on and takes nothing
/// fills it, and would hold a place for all of its limit with that.
const TAKING_GRACE: Duration = Duration::from_secs(1);

/// Whoever has taken more than this part of the time that a request may take dawdles: half a second, as it is.
const SLOW_PART: u32 = 20;

/// Where nobody has been silent for longer than this, that is a flood, and tells nothing of who is honest.
const RECENT: Duration = Duration::from_secs(1);

/// A connection of HTTP/2 counts as so many: its buffers and the requests that may be under way on it take that much
/// more of memory than a client of HTTP/1.1 does.
const PLACES_OF_HTTP2: usize = 4;

/// One connection as others see it.
pub(super) struct Connection {
    id: u64,
    peer: Option<IpAddr>,
    stream: Stream,
    phase: AtomicU8,
    /// Whether it speaks HTTP/2, and is told by others to go.
    handed_over: AtomicBool,
    /// Microseconds from the registry's start to when it came, or its last whole request was worked on.
    since_us: AtomicU64,
    /// The same to when its present request began.
    begun_us: AtomicU64,
}

impl Connection {
    /// Moves from one phase to the next, unless the connection was cut meanwhile.
    fn go(&self, from: u8, to: u8) -> bool {
        self.phase
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub(super) fn rests(&self) -> bool {
        self.go(SENDING, IDLE)
    }

    pub(super) fn request_is_whole(&self) -> bool {
        self.go(SENDING, WORKING)
    }

    /// The client has its last answer; what else it may send concerns nobody.
    pub(super) fn lingers(&self) {
        let _or_cut = [WORKING, TAKING, IDLE]
            .into_iter()
            .any(|it| self.go(it, SENDING));
    }

    /// Whom it counts for: nobody, if a proxy whose word counts is at the other end, or a Unix socket.
    fn block(&self) -> Option<IpAddr> {
        self.peer.map(block)
    }

    /// How many places it takes.
    fn places(&self) -> usize {
        let is_http2 = self.handed_over.load(Ordering::SeqCst);
        if is_http2 { PLACES_OF_HTTP2 } else { 1 }
    }

    /// Moves to a phase from whichever it was in, unless the connection was cut meanwhile.
    #[cfg(feature = "grpc")]
    fn is_now(&self, phase: u8) {
        let unless_cut = |was| (was != CUT).then_some(phase);
        let _cut = self
            .phase
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, unless_cut);
    }

    fn cut(&self, now_us: u64) -> bool {
        let since_us = self.since_us.load(Ordering::Acquire);
        let grace_is_over = u128::from(now_us.saturating_sub(since_us)) >= TAKING_GRACE.as_micros();
        let cut =
            self.go(IDLE, CUT) || self.go(SENDING, CUT) || (grace_is_over && self.go(TAKING, CUT));
        if cut {
            self.stream.shutdown(Shutdown::Both);
        }
        cut
    }
}

pub(super) struct Registry {
    start: Instant,
    open: Mutex<Open>,
    /// Beside the lock and not under it: every request looks at it.
    stopping: AtomicBool,
    left: Condvar,
}

struct Open {
    next_id: u64,
    connections: HashMap<u64, Arc<Connection>>,
    /// Requests in progress of each client that a trusted proxy names.
    in_progress: HashMap<IpAddr, usize>,
}

impl Open {
    /// How many places those take.
    fn places(&self, of: impl Fn(&Connection) -> bool) -> usize {
        let them = self.connections.values().filter(|it| of(it));
        them.map(|it| it.places()).sum()
    }
}

/// A request in progress of a named client, until this is dropped.
pub(super) struct Progress {
    registry: Arc<Registry>,
    block: IpAddr,
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut open = self.registry.lock();
        if let Some(count) = open.in_progress.get_mut(&self.block) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.in_progress.remove(&self.block);
            }
        }
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        let open = Open {
            next_id: 0,
            connections: HashMap::new(),
            in_progress: HashMap::new(),
        };
        Self {
            start: Instant::now(),
            open: Mutex::new(open),
            stopping: AtomicBool::new(false),
            left: Condvar::new(),
        }
    }

    /// Takes a new connection in, if need be at another's expense; `None` where nobody can make room.
    pub(super) fn admit(
        &self,
        stream: Stream,
        peer: Option<IpAddr>,
        limits: &Limits,
    ) -> Option<Arc<Connection>> {
        let mut open = self.lock();
        if self.is_stopping() {
            return None;
        }
        self.fit(&mut open, None, peer, 1, limits)?;
        let id = open.next_id;
        open.next_id = id.wrapping_add(1);
        let phase = AtomicU8::new(IDLE);
        let since_us = AtomicU64::new(self.now_us());
        let handed_over = AtomicBool::new(false);
        let connection = Arc::new(Connection {
            id,
            peer,
            stream,
            phase,
            handed_over,
            since_us,
            begun_us: AtomicU64::new(0),
        });
        open.connections.insert(id, Arc::clone(&connection));
        Some(connection)
    }

    /// A connection speaks HTTP/2: it takes more places from now on, if need be at others' expense, and is told
    /// by others to go. `false` where nobody can make room.
    #[cfg(feature = "grpc")]
    pub(super) fn hands_over(&self, connection: &Connection, limits: &Limits) -> bool {
        let mut open = self.lock();
        // Whoever was cut meanwhile takes nobody's place.
        if !open.connections.contains_key(&connection.id) {
            return false;
        }
        let more = PLACES_OF_HTTP2.saturating_sub(connection.places());
        let fits = self.fit(
            &mut open,
            Some(connection.id),
            connection.peer,
            more,
            limits,
        );
        if fits.is_some() {
            connection.handed_over.store(true, Ordering::SeqCst);
        }
        fits.is_some()
    }

    /// Counts a request of a client that a trusted proxy names, unless it has too many in progress.
    pub(super) fn progress(
        self: &Arc<Self>,
        named: IpAddr,
        limits: &Limits,
    ) -> Result<Progress, AtTheDoor> {
        let block = block(named);
        let mut open = self.lock();
        let count = open.in_progress.entry(block).or_insert(0);
        if *count >= limits.connections_per_peer {
            return Err(AtTheDoor::Busy { retry_after_s: 1 });
        }
        *count = count.saturating_add(1);
        Ok(Progress {
            registry: Arc::clone(self),
            block,
        })
    }

    /// Makes so much more room for a peer within the limits, at its own expense and then at anybody's, but not at
    /// that of the connection which the room is `for_one`.
    fn fit(
        &self,
        open: &mut Open,
        for_one: Option<u64>,
        peer: Option<IpAddr>,
        more: usize,
        limits: &Limits,
    ) -> Option<()> {
        let is_other = |it: &Connection| Some(it.id) != for_one;
        let block = peer.map(block);
        let of_peer = |it: &Connection| block.is_some() && it.block() == block;
        while open.places(of_peer).saturating_add(more) > limits.connections_per_peer {
            // Its own longest idle one; one that is sending is not idle, unless it dawdles: a request comes in
            // milliseconds, and a host that somebody floods from would be shut out by the slow ones.
            let may = |it: &Connection| of_peer(it) && is_other(it);
            let is_in = |it: &Connection, phase| it.phase.load(Ordering::Acquire) == phase;
            let slow_us = limits
                .request_time
                .checked_div(SLOW_PART)
                .unwrap_or_default()
                .as_micros();
            let now_us = self.now_us();
            let dawdles = |it: &Connection| {
                let begun_us = it.begun_us.load(Ordering::Relaxed);
                is_in(it, SENDING) && u128::from(now_us.saturating_sub(begun_us)) >= slow_us
            };
            self.make_room(open, |it| may(it) && is_in(it, IDLE))
                .or_else(|| self.make_room(open, |it| may(it) && dawdles(it)))?;
        }
        while open.places(|_| true).saturating_add(more) > limits.connections {
            self.make_room_for_all(open, is_other)?;
        }
        Some(())
    }

    /// Cuts the connection that has been longest without a whole request among those that `may` go.
    fn make_room(&self, open: &mut Open, may: impl Fn(&Connection) -> bool) -> Option<()> {
        self.cut_first(open, may, |_| 0_usize)
    }

    /// The same among all; but in a flood the longest silent of the address that holds most. With as many new ones a
    /// moment as there are places, the oldest may well be one that asks and asks.
    fn make_room_for_all(&self, open: &mut Open, may: impl Fn(&Connection) -> bool) -> Option<()> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for it in open.connections.values() {
            if let Some(block) = it.block() {
                let places = held.entry(block).or_insert(0);
                *places = places.saturating_add(it.places());
            }
        }
        let recently_us = u64::try_from(RECENT.as_micros()).unwrap_or(u64::MAX);
        let recently_us = self.now_us().saturating_sub(recently_us);
        self.cut_first(open, may, |it| {
            let is_recent = it.since_us.load(Ordering::Relaxed) >= recently_us;
            let places = it.block().and_then(|it| held.get(&it)).copied();
            is_recent.then_some(Reverse(places.unwrap_or(0)))
        })
    }

    /// Cuts the first in an order, and of equals the longest without a whole request, that `may` go and can.
    fn cut_first<O: Ord>(
        &self,
        open: &mut Open,
        may: impl Fn(&Connection) -> bool,
        order: impl Fn(&Connection) -> O,
    ) -> Option<()> {
        let all = open.connections.values();
        let mut candidates: Vec<_> = all.filter(|it| may(it)).cloned().collect();
        candidates.sort_by_cached_key(|it| (order(it), it.since_us.load(Ordering::Relaxed), it.id));
        let now_us = self.now_us();
        let cut = candidates.iter().find(|it| it.cut(now_us))?;
        open.connections.remove(&cut.id);
        Some(())
    }

    /// Sheds one connection where the process has run out of something.
    pub(super) fn shed(&self) {
        let mut open = self.lock();
        let _shed = self.make_room_for_all(&mut open, |_| true);
    }

    /// The first byte of a request is here, if that was not said already; `false` if the connection was cut.
    pub(super) fn begins_request(&self, connection: &Connection) -> bool {
        // Said once again it does not begin anew.
        if connection.phase.load(Ordering::SeqCst) == SENDING {
            return true;
        }
        connection.begun_us.store(self.now_us(), Ordering::Relaxed);
        connection.go(IDLE, SENDING)
    }

    /// The worker is done; the answer goes out.
    pub(super) fn answers(&self, connection: &Connection) {
        connection.since_us.store(self.now_us(), Ordering::Release);
        let _always = connection.go(WORKING, TAKING);
    }

    /// The answer is out; says whether the connection may go on.
    pub(super) fn answered(&self, connection: &Connection) -> bool {
        // Whoever closes the door either finds this connection idle, or is seen here: the order of these two
        // against the two in `close` is the same for everybody.
        connection.go(TAKING, IDLE) && !self.is_stopping()
    }

    /// Where a connection stands on which several requests may be under way.
    #[cfg(feature = "grpc")]
    pub(super) fn is_now(&self, connection: &Connection, phase: crate::grpc::Phase) {
        use crate::grpc::Phase;
        match phase {
            Phase::Idle => connection.is_now(IDLE),
            // Without the grace of `TAKING`: here it costs a client nothing to take no answers, and it may do so with
            // one connection after another.
            Phase::Waiting(since) => {
                let begun_us = self.us(since);
                connection.begun_us.store(begun_us, Ordering::Relaxed);
                connection.is_now(SENDING);
            }
            Phase::Working => {
                connection.since_us.store(self.now_us(), Ordering::Relaxed);
                connection.is_now(WORKING);
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn leave(&self, connection: &Connection) {
        self.lock().connections.remove(&connection.id);
        self.left.notify_all();
    }

    /// Lets nobody in any more, and shuts the idle down.
    pub(super) fn close(&self) {
        let open = self.lock();
        self.stopping.store(true, Ordering::SeqCst);
        for connection in open.connections.values() {
            if !connection.handed_over.load(Ordering::SeqCst) && connection.go(IDLE, CUT) {
                connection.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Waits until everyone has left, and says whether they had by then.
    pub(super) fn wait(&self, within: Duration) -> bool {
        let someone_is_there = |open: &mut Open| !open.connections.is_empty();
        let (open, _) = self
            .left
            .wait_timeout_while(self.lock(), within, someone_is_there)
            .unwrap_or_else(PoisonError::into_inner);
        open.connections.is_empty()
    }

    fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    fn us(&self, at: Instant) -> u64 {
        let since_start = at.saturating_duration_since(self.start);
        u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom an address stands for: an IPv6 host has a whole /64 to itself, and IPv4 in IPv6 clothes is IPv4.
fn block(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(it) => {
            let host_bits = u128::from(u64::MAX);
            IpAddr::V6((it.to_bits() & !host_bits).into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(all(test, feature = "grpc"))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn whoever_was_cut_while_it_was_handed_over_takes_nobodys_place() {
        let limits = Limits {
            connections: 4,
            ..Limits::default()
        };
        let registry = Registry::new();
        let mut others = Vec::new();
        let mut admit = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            others.push(theirs);
            registry
                .admit(Stream::Unix(Arc::new(ours)), None, &limits)
                .unwrap()
        };
        let first = admit();
        assert!(registry.begins_request(&first));
        registry.shed();
        let rest: Vec<_> = (0..4).map(|_| admit()).collect();
        assert!(!registry.hands_over(&first, &limits));
        assert!(
            rest.iter()
                .all(|it| it.phase.load(Ordering::SeqCst) == IDLE)
        );
        // Whoever is still there does, at the expense of all others here.
        assert!(registry.hands_over(&rest[0], &limits));
        assert_eq!(registry.lock().connections.len(), 1);
    }
}
