//! What requests hold of memory, counted on their connection's account. A connection of HTTP/2 holds as many at a time
//! as it has streams.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;

use super::queue::BUSY;
use crate::api::status::AtTheDoor;
use crate::memory::Account;

/// What a request holds before any of its message is here: its stream, its buffers and what waits for it. Measured.
pub(super) const REQUEST_BYTES: usize = 4 * 1024;
/// What each connection may hold whatever the others do: some short requests at once.
pub(super) const OWN_BYTES: usize = 8 * REQUEST_BYTES;
/// What all connections may hold beyond that: some two thousand short requests, or a hundred of the longest.
pub(super) const SHARED_BYTES: usize = 8 * 1024 * 1024;
/// The same for conversations with reflection, which stay open for nothing and cost a client nothing: whoever holds on
/// to all that there may be keeps others from reflection, and from nothing else.
pub(super) const CONVERSATIONS_BYTES: usize = 2 * 1024 * 1024;
/// By how much a message's place grows at least.
const GROWTH_BYTES: usize = 1024;
const CUT_SHORT: AtTheDoor = AtTheDoor::BadFraming("the request was cut short");

/// What one request holds, until this is dropped.
pub(super) struct Hold {
    account: Arc<Account>,
    begun_with: usize,
    /// What came on top: of the message, and of a long answer.
    more: AtomicUsize,
    is_full: AtomicBool,
}

impl Hold {
    /// A place for a request that holds so much from its beginning, if there is one.
    pub(super) fn begin(account: &Arc<Account>, bytes: usize) -> Option<Arc<Self>> {
        account.take(bytes).then(|| {
            Arc::new(Self {
                account: Arc::clone(account),
                begun_with: bytes,
                more: AtomicUsize::new(0),
                is_full: AtomicBool::new(false),
            })
        })
    }

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
