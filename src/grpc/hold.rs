//! What requests hold of memory, counted: a little for each connection, and a rest that all of them share.
//!
//! A connection of REST holds one request at a time, one of HTTP/2 as many as it has streams. With each of them bounded
//! and nothing else, one host that finishes none could fill the memory of the machine.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;

/// What a request holds before any of its message is here: its stream, its buffers and what waits for it.
pub(super) const REQUEST_BYTES: usize = 8 * 1024;
/// What all connections may hold beyond what each may by itself: some two thousand short requests at once.
pub(super) const SHARED_BYTES: usize = 16 * 1024 * 1024;

/// What one connection holds.
pub(super) struct Account {
    /// What is left of what all share.
    shared: Arc<AtomicUsize>,
    own_bytes: usize,
    held: Mutex<usize>,
}

impl Account {
    /// An account for one more connection: a message as long as allowed always has its place.
    pub(super) fn open(shared: &Arc<AtomicUsize>, message_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            own_bytes: REQUEST_BYTES
                .saturating_mul(2)
                .saturating_add(message_bytes),
            held: Mutex::new(0),
        })
    }

    /// A place for a request that holds so much from its beginning, if there is one.
    pub(super) fn begin(self: &Arc<Self>, bytes: usize) -> Option<Arc<Hold>> {
        self.take(bytes).then(|| {
            let account = Arc::clone(self);
            Arc::new(Hold {
                account,
                begun_with: bytes,
                sent: AtomicUsize::new(0),
                is_full: AtomicBool::new(false),
            })
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let will_hold = held.saturating_add(bytes);
        let more = self.beyond(will_hold).saturating_sub(self.beyond(*held));
        let taken = self
            .shared
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| {
                it.checked_sub(more)
            });
        if taken.is_ok() {
            *held = will_hold;
        }
        taken.is_ok()
    }

    fn give(&self, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let still_held = held.saturating_sub(bytes);
        let less = self.beyond(*held).saturating_sub(self.beyond(still_held));
        self.shared.fetch_add(less, Ordering::Relaxed);
        *held = still_held;
    }

    /// How much of what is held comes out of what all share.
    const fn beyond(&self, held: usize) -> usize {
        held.saturating_sub(self.own_bytes)
    }
}

/// What one request holds, until this is dropped.
pub(super) struct Hold {
    account: Arc<Account>,
    begun_with: usize,
    sent: AtomicUsize,
    is_full: AtomicBool,
}

impl Hold {
    /// How many bytes of its body were sent.
    pub(super) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    fn more(&self, bytes: usize) -> bool {
        let taken = self.account.take(bytes);
        if taken {
            self.sent.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.is_full.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Whether there was no place for more.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.account
            .give(self.begun_with.saturating_add(self.sent()));
    }
}

/// A request's body, counted as it comes.
pub(super) struct Counted {
    body: Incoming,
    hold: Arc<Hold>,
}

impl Counted {
    pub(super) const fn new(body: Incoming, hold: Arc<Hold>) -> Self {
        Self { body, hold }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| Status::from_error(Box::new(error)));
        let bytes = frame.as_ref().ok().and_then(Frame::data_ref);
        let has_place = bytes.is_none_or(|it| self.hold.more(it.len()));
        Poll::Ready(Some(if has_place {
            frame
        } else {
            Err(Status::unavailable("too busy right now"))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_all_share_the_rest() {
        let shared = Arc::new(AtomicUsize::new(3 * REQUEST_BYTES));
        let greedy = Account::open(&shared, 0);
        let held: Vec<_> = std::iter::from_fn(|| greedy.begin(REQUEST_BYTES)).collect();
        assert_eq!(held.len(), 2 + 3);
        // Whoever comes now still has its own, and no more than that.
        let modest = Account::open(&shared, 100);
        let first = modest.begin(REQUEST_BYTES).unwrap();
        assert!(first.more(REQUEST_BYTES + 100));
        assert!(!first.more(1) && modest.begin(REQUEST_BYTES).is_none());
        assert_eq!(first.sent(), REQUEST_BYTES + 100);
        drop(held);
        assert_eq!(shared.load(Ordering::Relaxed), 3 * REQUEST_BYTES);
        assert!(first.more(1));
        drop(first);
        assert_eq!(shared.load(Ordering::Relaxed), 3 * REQUEST_BYTES);
        assert!(modest.begin(2 * REQUEST_BYTES + 100).is_some());
    }
}
