//! What requests hold of memory, counted: a little for each connection, and a rest that all of them share.
//!
//! A connection of REST holds one request at a time, one of HTTP/2 as many as it has streams. With each of them bounded
//! and nothing else, one host that finishes none could fill the memory of the machine.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;

use super::queue::BUSY;
use crate::api::status::AtTheDoor;

/// What a request holds before any of its message is here: its stream, its buffers and what waits for it. Measured.
pub(super) const REQUEST_BYTES: usize = 4 * 1024;
/// What each connection may hold whatever the others do: some short requests at once.
const OWN_BYTES: usize = 8 * REQUEST_BYTES;
/// What all connections may hold beyond that: some two thousand short requests, or a hundred of the longest.
pub(super) const SHARED_BYTES: usize = 8 * 1024 * 1024;
/// The same for conversations with reflection, which stay open for nothing and cost a client nothing: whoever holds on
/// to all that there may be keeps others from reflection, and from nothing else.
pub(super) const CONVERSATIONS_BYTES: usize = 2 * 1024 * 1024;
/// By how much a message's place grows at least.
const GROWTH_BYTES: usize = 1024;
const CUT_SHORT: AtTheDoor = AtTheDoor::BadFraming("the request was cut short");

/// What one connection holds.
pub(super) struct Account {
    /// What is left of what all share.
    shared: Arc<AtomicUsize>,
    held: Mutex<usize>,
}

impl Account {
    /// An account for one more connection.
    pub(super) fn open(shared: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
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
                more: AtomicUsize::new(0),
                is_full: AtomicBool::new(false),
            })
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let will_hold = held.saturating_add(bytes);
        let more = beyond(will_hold).saturating_sub(beyond(*held));
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
        let less = beyond(*held).saturating_sub(beyond(still_held));
        self.shared.fetch_add(less, Ordering::Relaxed);
        *held = still_held;
    }
}

/// How much of what is held comes out of what all share.
const fn beyond(held: usize) -> usize {
    held.saturating_sub(OWN_BYTES)
}

/// What one request holds, until this is dropped.
pub(super) struct Hold {
    account: Arc<Account>,
    begun_with: usize,
    /// What came on top: of the message, and of a long answer.
    more: AtomicUsize,
    is_full: AtomicBool,
}

impl Hold {
    /// Whether there is a place for an answer of this length, until it is taken.
    pub(super) fn has_place_for(&self, answer: usize) -> bool {
        answer <= REQUEST_BYTES || self.more(answer)
    }

    fn more(&self, bytes: usize) -> bool {
        let taken = self.account.take(bytes);
        if taken {
            self.more.fetch_add(bytes, Ordering::Relaxed);
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
            .give(self.begun_with.saturating_add(*self.more.get_mut()));
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

impl Counted {
    /// All of it, if that is no more than so many bytes.
    ///
    /// It is copied: as it came it is a part of all that was read with it.
    pub(super) async fn whole(mut self, at_most: usize) -> Result<Vec<u8>, AtTheDoor> {
        let mut whole = Vec::new();
        while let Some(frame) = self.frame().await {
            let Ok(frame) = frame else {
                return Err(if self.hold.is_full() { BUSY } else { CUT_SHORT });
            };
            let Ok(part) = frame.into_data() else {
                continue;
            };
            if part.len() > at_most.saturating_sub(whole.len()) {
                return Err(AtTheDoor::BodyTooLarge);
            }
            if part.len() > whole.capacity().saturating_sub(whole.len()) {
                // Not twice as much each time: what is counted is what came.
                whole.reserve_exact(part.len().max(GROWTH_BYTES));
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole)
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
        let greedy = Account::open(&shared);
        let held: Vec<_> = std::iter::from_fn(|| greedy.begin(REQUEST_BYTES)).collect();
        assert_eq!(held.len(), 8 + 3);
        // Whoever comes now still has its own, and no more than that.
        let modest = Account::open(&shared);
        let first = modest.begin(REQUEST_BYTES).unwrap();
        assert!(first.more(7 * REQUEST_BYTES));
        assert!(!first.more(1) && modest.begin(REQUEST_BYTES).is_none());
        // A short answer has its place in what the request holds.
        assert!(first.has_place_for(REQUEST_BYTES) && !first.has_place_for(REQUEST_BYTES + 1));
        drop(held);
        assert_eq!(shared.load(Ordering::Relaxed), 3 * REQUEST_BYTES);
        assert!(first.more(1));
        drop(first);
        assert_eq!(shared.load(Ordering::Relaxed), 3 * REQUEST_BYTES);
        assert!(modest.begin(9 * REQUEST_BYTES).is_some());
    }
}
