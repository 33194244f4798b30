//! How a connection is doing: what is under way on it, since when, and what it has sent for it.
//!
//! HTTP/2 lets a client keep a connection busy without ever asking for anything. So it is not frames that keep
//! one alive here but whole requests, and answers that are taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Limits, Phase, Place};

/// What a client may send without a whole request in it. All the streams that it may open, each with a message as
/// long as allowed, are less; a flood of frames is at its end here.
const BYTES_WITHOUT_REQUEST: usize = 4 * 1024 * 1024;

pub(super) struct Pulse {
    place: Box<dyn Place>,
    state: Mutex<State>,
}

struct State {
    next: u64,
    /// Requests that have begun, and when the first of them did since one was whole: to give one up and begin another
    /// is not to be quick.
    sending: usize,
    sending_since: Option<Instant>,
    /// Requests that are whole and not yet answered.
    working: usize,
    /// Answers that are on their way, and since when.
    answering: BTreeMap<u64, Instant>,
    /// When a request was whole for the last time, or the connection came.
    last_whole: Instant,
    /// Since when the client takes nothing of what is to be written.
    stalled: Option<Instant>,
    bytes_left: usize,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// Nothing has been asked for too long: it is told to go.
    Idle,
    /// It takes no answers: it is cut.
    Stalled,
}

impl Pulse {
    pub(super) fn new(place: Box<dyn Place>) -> Arc<Self> {
        Arc::new(Self {
            place,
            state: Mutex::new(State {
                next: 0,
                sending: 0,
                sending_since: None,
                working: 0,
                answering: BTreeMap::new(),
                last_whole: Instant::now(),
                stalled: None,
                bytes_left: BYTES_WITHOUT_REQUEST,
            }),
        })
    }

    pub(super) fn place(&self) -> &dyn Place {
        self.place.as_ref()
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Turn {
        self.change(|it| {
            it.sending_since.get_or_insert_with(Instant::now);
            it.sending = it.sending.saturating_add(1);
        });
        Turn {
            pulse: Arc::clone(self),
            step: Step::Sending,
        }
    }

    /// So much was read; says whether that is not too much for nothing.
    pub(super) fn has_read(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        match state.bytes_left.checked_sub(bytes) {
            Some(left) => {
                state.bytes_left = left;
                true
            }
            None => false,
        }
    }

    /// Whether the client took what was to be written.
    pub(super) fn wrote(&self, took: bool) {
        let mut state = self.lock();
        if took {
            state.stalled = None;
        } else if state.stalled.is_none() {
            state.stalled = Some(Instant::now());
        }
    }

    /// Whether something was begun that is to be answered.
    pub(super) fn is_busy(&self) -> bool {
        phase(&self.lock()) != Phase::Idle
    }

    /// Whether there is a whole request whose answer is not yet taken.
    pub(super) fn is_at_work(&self) -> bool {
        is_at_work(&self.lock())
    }

    pub(super) fn health(&self, limits: &Limits) -> Health {
        let state = self.lock();
        let too_long = |since: &Instant, limit: Duration| since.elapsed() > limit;
        let oldest = state.answering.values().next();
        if oldest
            .or(state.stalled.as_ref())
            .is_some_and(|it| too_long(it, limits.take_time))
        {
            return Health::Stalled;
        }
        if !is_at_work(&state) && too_long(&state.last_whole, limits.idle_time) {
            return Health::Idle;
        }
        Health::Well
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        // Under the lock, so that the door hears of changes in their order.
        self.place.is_now(phase(&state));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_at_work(state: &State) -> bool {
    state.working > 0 || !state.answering.is_empty()
}

fn phase(state: &State) -> Phase {
    if state.working > 0 {
        Phase::Working
    } else {
        let sending = state.sending_since.filter(|_| state.sending > 0);
        let oldest = state.answering.values().next().copied();
        sending
            .into_iter()
            .chain(oldest)
            .min()
            .map_or(Phase::Idle, Phase::Waiting)
    }
}

/// One request, from its first byte until its answer is taken or it is given up, when this is dropped.
pub(super) struct Turn {
    pulse: Arc<Pulse>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Sending,
    Working,
    Answering(u64),
}

impl Turn {
    /// The request is whole.
    pub(super) fn is_whole(&mut self) {
        self.go(Step::Working, |it| {
            let now = Instant::now();
            it.working = it.working.saturating_add(1);
            it.last_whole = now;
            it.sending_since = (it.sending > 0).then_some(now);
            it.bytes_left = BYTES_WITHOUT_REQUEST;
        });
    }

    /// The answer is there to be taken.
    pub(super) fn is_answered(&mut self) {
        let mut id = 0;
        let step = self.step;
        self.pulse.change(|it| {
            end(it, step);
            id = it.next;
            it.next = id.wrapping_add(1);
            it.answering.insert(id, Instant::now());
        });
        self.step = Step::Answering(id);
    }

    fn go(&mut self, to: Step, change: impl FnOnce(&mut State)) {
        let step = std::mem::replace(&mut self.step, to);
        self.pulse.change(|it| {
            end(it, step);
            change(it);
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let step = self.step;
        self.pulse.change(|it| end(it, step));
    }
}

fn end(state: &mut State, step: Step) {
    match step {
        Step::Sending => state.sending = state.sending.saturating_sub(1),
        Step::Working => state.working = state.working.saturating_sub(1),
        Step::Answering(id) => {
            state.answering.remove(&id);
        }
    }
}
