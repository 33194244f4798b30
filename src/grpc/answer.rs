//! Answers on their way: a message and trailers, or a refusal, and what is kept until the client has taken them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::Response;
use prost::bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::Status;

use crate::api;
use crate::api::http::{COMMON_HEADERS, Reply};
use crate::api::status::{Refusal, TransportError};
use crate::connections::{InFlight, Lease};

/// A message of this length is copied behind its frame's prefix; a longer one is a part of its own.
const COPIED_BYTES: usize = 512;

/// What is kept until an answer is taken: the request in flight, its memory, and the answer's.
type InUse = (Option<InFlight>, Arc<Lease>, Option<Lease>);

#[derive(Clone, Default)]
pub(super) struct Kept(
    #[expect(dead_code, reason = "it is kept for what happens when it is dropped")]
    Option<Arc<InUse>>,
);

impl Kept {
    pub(super) fn new(
        in_flight: Option<InFlight>,
        lease: Arc<Lease>,
        of_answer: Option<Lease>,
    ) -> Self {
        Self(Some(Arc::new((in_flight, lease, of_answer))))
    }
}

/// An answer on its way. The request ends when all of it is taken or given up.
pub(super) struct Answer {
    payload: Payload,
    kept: Kept,
}

enum Payload {
    /// One message, then the trailers.
    Message(std::vec::IntoIter<Bytes>, Option<HeaderMap>),
    /// A refusal: all of it stands in the headers.
    Nothing,
    /// A conversation with reflection, which tonic frames.
    Reflection(tonic::body::Body),
}

/// The answer to a call that was carried out.
pub(super) fn answer(reply: Reply, kept: Kept) -> Response<Answer> {
    let trailers = fields(reply.headers);
    if reply.status != 200 {
        return response(trailers, Payload::Nothing, kept);
    }
    let mut framed = BytesMut::with_capacity(COPIED_BYTES);
    framed.put_u8(0);
    // A page has 4 MiB at most.
    framed.put_u32(u32::try_from(reply.body.len()).unwrap_or(u32::MAX));
    let parts = if reply.body.len() <= COPIED_BYTES {
        framed.put_slice(&reply.body);
        vec![framed.freeze()]
    } else {
        vec![framed.freeze(), reply.body.into()]
    };
    let payload = Payload::Message(parts.into_iter(), Some(trailers));
    response(HeaderMap::new(), payload, kept)
}

/// The answer to a request that is refused before it is carried out.
pub(super) fn refused(refusal: TransportError, kept: Kept) -> Response<Answer> {
    let trailers = fields(api::refusal_trailers(&Refusal::from(refusal)));
    response(trailers, Payload::Nothing, kept)
}

fn response(mut headers: HeaderMap, payload: Payload, kept: Kept) -> Response<Answer> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut response = Response::new(Answer { payload, kept });
    *response.headers_mut() = headers;
    insert_every(response.headers_mut());
    response
}

fn insert_every(headers: &mut HeaderMap) {
    for (name, value) in COMMON_HEADERS {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

fn fields(pairs: Vec<(&'static str, String)>) -> HeaderMap {
    let pairs = pairs.into_iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::try_from(value).ok()?))
    });
    pairs.collect()
}

impl Answer {
    pub(super) fn of_reflection(
        response: Response<tonic::body::Body>,
        kept: Kept,
    ) -> Response<Self> {
        let mut response = response.map(|body| Self {
            payload: Payload::Reflection(body),
            kept,
        });
        insert_every(response.headers_mut());
        response
    }

    fn part(&self, bytes: Bytes) -> Part {
        Part {
            bytes,
            _kept: self.kept.clone(),
        }
    }
}

/// A part of an answer. hyper is done with a body as soon as h2 has all of it, whatever the client's window; h2 drops
/// this only when it was sent.
pub(super) struct Part {
    bytes: Bytes,
    _kept: Kept,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }
}

impl Body for Answer {
    type Data = Part;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, Status>>> {
        let frame = match &mut self.payload {
            Payload::Nothing => None,
            Payload::Message(parts, trailers) => match parts.next() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|it| Ok(Frame::trailers(it))),
            },
            Payload::Reflection(body) => ready!(Pin::new(body).poll_frame(context)),
        };
        Poll::Ready(frame.map(|it| it.map(|it| it.map_data(|bytes| self.part(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Nothing => true,
            Payload::Message(parts, trailers) => parts.len() == 0 && trailers.is_none(),
            Payload::Reflection(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
