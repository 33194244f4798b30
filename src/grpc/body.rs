//! A request's message as it comes, counted against the memory budget.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;

use crate::api::status::TransportError;
use crate::connections::Lease;

/// By how much the buffer of a message grows at least.
const GROWTH_BYTES: usize = 1024;
const CUT_SHORT: TransportError = TransportError::BadFraming("the request was cut short");

/// Reads all of a body, if that is no more than `at_most` bytes.
///
/// It is copied, because a `Bytes` slice would keep the whole read buffer alive.
pub(super) async fn read_whole(
    mut body: Incoming,
    lease: &Lease,
    at_most: usize,
) -> Result<Vec<u8>, TransportError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| CUT_SHORT)?.into_data() else {
            continue;
        };
        if part.len() > at_most.saturating_sub(whole.len()) {
            return Err(TransportError::BodyTooLarge);
        }
        if !lease.grow(part.len()) {
            return Err(TransportError::Busy);
        }
        if part.len() > whole.capacity().saturating_sub(whole.len()) {
            // Not twice as much each time: what is counted is what came.
            whole.reserve_exact(part.len().max(GROWTH_BYTES));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// The body of a conversation with reflection, counted as it comes.
pub(super) struct CountedBody {
    pub(super) body: Incoming,
    pub(super) lease: Arc<Lease>,
}

impl Body for CountedBody {
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
        let has_room = bytes.is_none_or(|it| self.lease.grow(it.len()));
        Poll::Ready(Some(if has_room {
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
