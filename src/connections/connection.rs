//! The life of one connection, of either protocol: which requests are in progress on it, and since when.
//!
//! HTTP/1.1 has one request in progress at a time, HTTP/2 many. HTTP/2 also lets a client keep a connection busy without
//! ever asking for anything, so it is not frames that keep one alive here but complete requests, and answers that are
//! taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Stream;

/// An answer fits into the socket's buffer, and is sent at once. Only a client that asks again and again and takes no
/// answer fills that buffer, and would hold a connection for all of `take_time` with it.
const SEND_GRACE: Duration = Duration::from_secs(1);
/// What a client may send without a complete request in it. All streams that it may open, each with the longest message
/// allowed, are less; a flood of frames ends here.
#[cfg(feature = "grpc")]
const BYTES_WITHOUT_REQUEST: usize = 4 * 1024 * 1024;

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The socket's address; a Unix socket has none.
    pub(crate) address: Option<IpAddr>,
    /// Whether it is a proxy whose word about its own clients counts.
    pub(crate) is_trusted: bool,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request is in progress.
    Idle,
    /// The client sends a request, or stays after its last answer.
    Receiving { since: Instant },
    /// A complete request is carried out.
    Working,
    /// The client takes an answer.
    Sending { since: Instant },
    /// It was shut down to make room.
    Closed,
}

/// One connection.
pub(crate) struct Connection {
    pub(super) id: u64,
    pub(crate) peer: Peer,
    stream: Stream,
    state: Mutex<State>,
}

struct State {
    is_closed: bool,
    /// No further request is taken: the server stops.
    is_last: bool,
    is_http2: bool,
    /// Requests that are being received, and since when. Only a complete request resets the time, so cancelling and
    /// starting anew does not make a slow client look fast.
    receiving: usize,
    receiving_since: Option<Instant>,
    /// Complete requests that are not answered yet.
    working: usize,
    /// Answers that the client has not taken yet, and since when.
    sending: BTreeMap<u64, Instant>,
    next_answer: u64,
    /// When the client connected, or a request was last complete or answered.
    last_request: Instant,
    /// Since when the client takes none of the bytes that are to be written.
    #[cfg(feature = "grpc")]
    stalled_since: Option<Instant>,
    #[cfg(feature = "grpc")]
    bytes_left: usize,
}

impl State {
    fn phase(&self) -> Phase {
        if self.is_closed {
            return Phase::Closed;
        }
        if self.working > 0 {
            return Phase::Working;
        }
        let receiving = self.receiving_since.filter(|_| self.receiving > 0);
        let sending = self.sending.values().next().copied();
        match (receiving, sending) {
            (None, None) => Phase::Idle,
            (Some(since), None) => Phase::Receiving { since },
            (Some(since), Some(taking_since)) if since <= taking_since => {
                Phase::Receiving { since }
            }
            (_, Some(since)) => Phase::Sending { since },
        }
    }

    fn may_close(&self, now: Instant) -> bool {
        match self.phase() {
            Phase::Idle | Phase::Receiving { .. } => true,
            // On HTTP/2 it costs a client nothing to take no answer on one stream after another.
            Phase::Sending { since } => {
                self.is_http2 || now.saturating_duration_since(since) >= SEND_GRACE
            }
            Phase::Working | Phase::Closed => false,
        }
    }

    fn end(&mut self, step: Step) {
        match step {
            Step::Receiving => self.receiving = self.receiving.saturating_sub(1),
            Step::Working => self.working = self.working.saturating_sub(1),
            Step::Sending(answer) => {
                self.sending.remove(&answer);
            }
            Step::Ended => {}
        }
    }
}

impl Connection {
    pub(super) fn new(id: u64, peer: Peer, stream: Stream) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            stream,
            state: Mutex::new(State {
                is_closed: false,
                is_last: false,
                is_http2: false,
                receiving: 0,
                receiving_since: None,
                working: 0,
                sending: BTreeMap::new(),
                next_answer: 0,
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
        let begun = Instant::now();
        state.receiving_since.get_or_insert(begun);
        state.receiving = state.receiving.saturating_add(1);
        drop(state);
        Some(InFlight {
            connection: Arc::clone(self),
            step: Step::Receiving,
            begun,
        })
    }

    /// Closes the connection if what it is doing allows that.
    pub(super) fn close(&self, now: Instant) -> bool {
        self.close_if(|it| it.may_close(now))
    }

    /// Takes no further request, and closes a connection of HTTP/1.1 that is idle. One of HTTP/2 is told by a GOAWAY.
    pub(super) fn stop(&self) {
        self.lock().is_last = true;
        self.close_if(|it| !it.is_http2 && it.phase() == Phase::Idle);
    }

    /// Closes a connection on which nothing is in progress but requests that are not complete.
    pub(super) fn close_unfinished(&self) {
        self.close_if(|it| matches!(it.phase(), Phase::Receiving { .. }));
    }

    fn close_if(&self, may: impl FnOnce(&State) -> bool) -> bool {
        let mut state = self.lock();
        let closes = may(&state);
        if closes {
            state.is_closed = true;
            self.stream.shutdown(Shutdown::Both);
        }
        closes
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().phase() == Phase::Idle
    }

    /// Whether the client has kept a request, or on HTTP/2 an answer, waiting for so long.
    pub(super) fn is_slow(&self, now: Instant, slow: Duration) -> bool {
        let state = self.lock();
        let since = match state.phase() {
            Phase::Receiving { since } => since,
            Phase::Sending { since } if state.is_http2 => since,
            Phase::Sending { .. } | Phase::Idle | Phase::Working | Phase::Closed => return false,
        };
        now.saturating_duration_since(since) >= slow
    }

    pub(super) fn last_request(&self) -> Instant {
        self.lock().last_request
    }

    #[cfg(feature = "grpc")]
    pub(super) fn set_http2(&self) {
        self.lock().is_http2 = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a connection of HTTP/2 is doing.
#[cfg(feature = "grpc")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// Nothing has been asked for too long: the client is told to go.
    Idle,
    /// The client takes no answers: it is cut off.
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
        let state = self.lock();
        state.receiving > 0 || state.working > 0 || !state.sending.is_empty()
    }

    /// Whether there is a complete request whose answer is not taken yet.
    pub(crate) fn is_at_work(&self) -> bool {
        let state = self.lock();
        state.working > 0 || !state.sending.is_empty()
    }

    pub(crate) fn health(&self, idle_time: Duration, take_time: Duration) -> Health {
        let state = self.lock();
        let oldest = state.sending.values().next();
        let untaken = oldest.or(state.stalled_since.as_ref());
        if untaken.is_some_and(|it| it.elapsed() > take_time) {
            return Health::Stalled;
        }
        let is_at_work = state.working > 0 || !state.sending.is_empty();
        if !is_at_work && state.last_request.elapsed() > idle_time {
            return Health::Idle;
        }
        Health::Well
    }
}

/// One request, from its first byte until its answer is taken or it is given up: then this is dropped.
pub(crate) struct InFlight {
    connection: Arc<Connection>,
    step: Step,
    begun: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Receiving,
    Working,
    Sending(u64),
    Ended,
}

impl InFlight {
    /// When its first byte was here.
    pub(crate) const fn begun(&self) -> Instant {
        self.begun
    }

    /// The request is complete. Returns `false` if the connection was closed meanwhile.
    pub(crate) fn received(&mut self) -> bool {
        self.go(Step::Working, |state| {
            let now = Instant::now();
            state.working = state.working.saturating_add(1);
            state.last_request = now;
            state.receiving_since = (state.receiving > 0).then_some(now);
            #[cfg(feature = "grpc")]
            {
                state.bytes_left = BYTES_WITHOUT_REQUEST;
            }
        })
    }

    /// The answer is ready to be sent.
    pub(crate) fn responded(&mut self) {
        let mut state = self.connection.lock();
        let (now, answer) = (Instant::now(), state.next_answer);
        if self.step == Step::Working {
            state.last_request = now;
        }
        state.end(self.step);
        state.next_answer = answer.wrapping_add(1);
        state.sending.insert(answer, now);
        self.step = Step::Sending(answer);
    }

    /// The client has its last answer. Until it leaves, it counts as if its request was never complete.
    pub(crate) fn linger(&mut self) {
        let begun = self.begun;
        self.go(Step::Receiving, |state| {
            state.receiving = state.receiving.saturating_add(1);
            state.receiving_since = Some(begun);
        });
    }

    /// Whether the connection takes no further request.
    pub(crate) fn is_last(&self) -> bool {
        self.connection.lock().is_last
    }

    /// The answer is sent. Returns whether the connection takes another request.
    pub(crate) fn finish(&mut self) -> bool {
        let is_open = self.go(Step::Ended, |_| ());
        is_open && !self.is_last()
    }

    fn go(&mut self, to: Step, change: impl FnOnce(&mut State)) -> bool {
        let step = std::mem::replace(&mut self.step, to);
        let mut state = self.connection.lock();
        state.end(step);
        change(&mut state);
        !state.is_closed
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.lock().end(self.step);
    }
}
