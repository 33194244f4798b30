//! The life of one connection, of either protocol: which requests are in progress on it, and since when.
//!
//! HTTP/1.1 has one request in progress at a time, HTTP/2 many. HTTP/2 also lets a client keep a connection busy without
//! ever asking for anything, so it is not frames that keep one alive here but complete requests, and answers that are
//! taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Stream, block};

/// An answer fits into the socket's buffer, and is sent at once. Only a client that asks again and again and takes no
/// answer fills that buffer, and would hold a connection for all of `take_time` with it.
const SEND_GRACE: Duration = Duration::from_secs(1);
/// What a client may send without a complete request in it. All streams that it may open, each with the longest message
/// allowed, are less; a flood of frames ends here.
#[cfg(feature = "grpc")]
const BYTES_WITHOUT_REQUEST: usize = 4 * 1024 * 1024;
/// The weight of a connection of HTTP/2, where one of HTTP/1.1 has 1: its buffers and its many requests take that much
/// more memory.
pub(super) const HTTP2_WEIGHT: usize = 4;

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The socket's address; a Unix socket has none.
    pub(crate) address: Option<IpAddr>,
    /// Whether it is a proxy that is trusted to name its own clients.
    pub(crate) is_trusted: bool,
}

/// One connection.
pub(crate) struct Connection {
    pub(super) id: u64,
    pub(crate) peer: Peer,
    /// The addresses that it counts for. A trusted proxy's connections and those of Unix sockets count for none.
    pub(super) block: Option<IpAddr>,
    pub(crate) stream: Stream,
    is_http2: AtomicBool,
    state: Mutex<State>,
}

/// What one request does. While a request is [`Phase::Working`], its connection is not closed in favour of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client sends it, or stays after its last answer.
    Receiving,
    /// It is complete, and is carried out.
    Working,
    /// The client takes its answer.
    Sending { since: Instant },
}

struct State {
    /// It was shut down in favour of another, or because the server stops.
    is_closed: bool,
    /// No further request is taken: the server stops.
    is_last: bool,
    /// The requests in progress, each under a number of its own.
    requests: BTreeMap<u64, Phase>,
    next_request: u64,
    /// Since when requests are being received. Only a complete request resets the time, so cancelling and starting anew
    /// does not make a slow client look fast.
    receiving_since: Option<Instant>,
    /// When the client connected, or a request was last complete or answered.
    last_request: Instant,
    /// Since when the client has taken none of the bytes that wait to be written.
    #[cfg(feature = "grpc")]
    stalled_since: Option<Instant>,
    #[cfg(feature = "grpc")]
    bytes_left: usize,
}

impl State {
    fn has(&self, phase: Phase) -> bool {
        self.requests.values().any(|it| *it == phase)
    }

    /// Whether there is a complete request whose answer is not taken yet.
    fn is_at_work(&self) -> bool {
        self.requests.values().any(|it| *it != Phase::Receiving)
    }

    /// Since when the client has not taken the oldest of its answers.
    fn sending_since(&self) -> Option<Instant> {
        let sending = self.requests.values().filter_map(|it| match it {
            Phase::Sending { since } => Some(*since),
            Phase::Receiving | Phase::Working => None,
        });
        sending.min()
    }
}

impl Connection {
    pub(super) fn new(id: u64, peer: Peer, stream: Stream) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            block: peer.address.filter(|_| !peer.is_trusted).map(block),
            stream,
            is_http2: AtomicBool::new(false),
            state: Mutex::new(State {
                is_closed: false,
                is_last: false,
                requests: BTreeMap::new(),
                next_request: 0,
                receiving_since: None,
                last_request: Instant::now(),
                #[cfg(feature = "grpc")]
                stalled_since: None,
                #[cfg(feature = "grpc")]
                bytes_left: BYTES_WITHOUT_REQUEST,
            }),
        })
    }

    /// A request begins; `None` if the connection is closed.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<InFlight> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        let (begun, number) = (Instant::now(), state.next_request);
        state.next_request = number.wrapping_add(1);
        state.receiving_since.get_or_insert(begun);
        state.requests.insert(number, Phase::Receiving);
        drop(state);
        Some(InFlight {
            connection: Arc::clone(self),
            number,
            begun,
        })
    }

    pub(super) fn weight(&self) -> usize {
        if self.is_http2() { HTTP2_WEIGHT } else { 1 }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    #[cfg(feature = "grpc")]
    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// Closes the connection in favour of another if what it is doing allows that.
    pub(super) fn close(&self, now: Instant) -> bool {
        self.close_if(|state| {
            // On HTTP/2 it costs a client nothing to take no answer on one stream after another.
            let is_taking = !self.is_http2()
                && state
                    .sending_since()
                    .is_some_and(|it| now.saturating_duration_since(it) < SEND_GRACE);
            !is_taking && !state.has(Phase::Working)
        })
    }

    /// Takes no further request, and closes a connection of HTTP/1.1 that is idle. One of HTTP/2 is told by a GOAWAY.
    pub(super) fn stop(&self) {
        self.lock().is_last = true;
        self.close_if(|it| !self.is_http2() && it.requests.is_empty());
    }

    /// Closes a connection on which nothing is in progress but requests that are not complete.
    pub(super) fn close_unfinished(&self) {
        self.close_if(|it| it.has(Phase::Receiving) && !it.is_at_work());
    }

    fn close_if(&self, may: impl FnOnce(&State) -> bool) -> bool {
        let mut state = self.lock();
        let closes = !state.is_closed && may(&state);
        if closes {
            state.is_closed = true;
            let _gone = self.stream.shutdown(Shutdown::Both);
        }
        closes
    }

    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        !state.is_closed && state.requests.is_empty()
    }

    /// Whether the client has kept a request, or on HTTP/2 an answer, waiting for so long.
    pub(super) fn is_slow(&self, now: Instant, slow: Duration) -> bool {
        let state = self.lock();
        if state.is_closed || state.has(Phase::Working) {
            return false;
        }
        let receiving = state
            .receiving_since
            .filter(|_| state.has(Phase::Receiving));
        let sending = state.sending_since().filter(|_| self.is_http2());
        let since = receiving.into_iter().chain(sending).min();
        since.is_some_and(|it| now.saturating_duration_since(it) >= slow)
    }

    pub(super) fn last_request(&self) -> Instant {
        self.lock().last_request
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection of HTTP/2 may stay open.
#[cfg(feature = "grpc")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// No request came for too long: the client gets a GOAWAY.
    Idle,
    /// The client takes no answers: the connection is closed.
    Stalled,
}

#[cfg(feature = "grpc")]
impl Connection {
    /// Counts bytes that were read. Returns whether that is not too much without a complete request.
    pub(crate) fn count_read(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        let left = state.bytes_left.checked_sub(bytes);
        state.bytes_left = left.unwrap_or(0);
        left.is_some()
    }

    /// Notes whether the client took bytes that were to be written.
    pub(crate) fn note_write(&self, taken: bool) {
        let mut state = self.lock();
        if taken {
            state.stalled_since = None;
        } else {
            state.stalled_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether a request has begun and its answer is not taken yet.
    pub(crate) fn is_busy(&self) -> bool {
        !self.lock().requests.is_empty()
    }

    /// Whether there is a complete request whose answer is not taken yet.
    pub(crate) fn is_at_work(&self) -> bool {
        self.lock().is_at_work()
    }

    pub(crate) fn health(&self, idle_time: Duration, take_time: Duration) -> Health {
        let state = self.lock();
        let untaken = state.sending_since().or(state.stalled_since);
        if untaken.is_some_and(|it| it.elapsed() > take_time) {
            return Health::Stalled;
        }
        if !state.is_at_work() && state.last_request.elapsed() > idle_time {
            return Health::Idle;
        }
        Health::Well
    }
}

/// One request, from its first byte until its answer is taken or it is given up: then this is dropped.
pub(crate) struct InFlight {
    connection: Arc<Connection>,
    number: u64,
    begun: Instant,
}

impl InFlight {
    /// When its first byte was here.
    pub(crate) const fn begun(&self) -> Instant {
        self.begun
    }

    /// The request is complete. Returns `false` if the connection was closed meanwhile.
    pub(crate) fn received(&mut self) -> bool {
        let (mut state, now) = (self.connection.lock(), Instant::now());
        state.requests.insert(self.number, Phase::Working);
        state.last_request = now;
        state.receiving_since = state.has(Phase::Receiving).then_some(now);
        #[cfg(feature = "grpc")]
        {
            state.bytes_left = BYTES_WITHOUT_REQUEST;
        }
        !state.is_closed
    }

    /// The answer is ready to be sent.
    pub(crate) fn responded(&mut self) {
        let (mut state, since) = (self.connection.lock(), Instant::now());
        let before = state.requests.insert(self.number, Phase::Sending { since });
        if before == Some(Phase::Working) {
            state.last_request = since;
        }
    }

    /// The client has its last answer. Until it leaves, it counts as if its request was never complete.
    pub(crate) fn linger(&mut self) {
        let mut state = self.connection.lock();
        state.requests.insert(self.number, Phase::Receiving);
        state.receiving_since = Some(self.begun);
    }

    /// Whether the connection takes no further request.
    pub(crate) fn is_last(&self) -> bool {
        self.connection.lock().is_last
    }

    /// The answer is sent. Returns whether the connection takes another request.
    pub(crate) fn finish(&mut self) -> bool {
        let mut state = self.connection.lock();
        state.requests.remove(&self.number);
        !state.is_closed && !state.is_last
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.lock().requests.remove(&self.number);
    }
}
