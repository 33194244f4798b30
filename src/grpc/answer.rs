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
pub(super) type Kept = Option<Arc<(Option<InFlight>, Lease, Option<Lease>)>>;

/// An answer on its way. The request ends when all of it is taken or given up.
pub(super) struct AnswerBody {
    payload: Payload,
    kept: Kept,
}

enum Payload {
    /// The parts of one message, then the trailers. A refusal has neither: all of it stands in the headers.
    Message(std::vec::IntoIter<Bytes>, Option<HeaderMap>),
    /// A conversation with reflection, which tonic frames.
    Reflection(tonic::body::Body),
}

/// The answer to a call that was carried out.
pub(super) fn answer(reply: Reply, kept: Kept) -> Response<AnswerBody> {
    let trailers = fields(reply.headers);
    if reply.status != 200 {
        return response(trailers, Vec::new(), None, kept);
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
    response(HeaderMap::new(), parts, Some(trailers), kept)
}

/// The answer to a request that is refused before it is carried out.
pub(super) fn refused(refusal: TransportError, kept: Kept) -> Response<AnswerBody> {
    let trailers = fields(api::refusal_trailers(&Refusal::from(refusal)));
    response(trailers, Vec::new(), None, kept)
}

/// An answer of reflection.
pub(super) fn of_reflection(
    response: Response<tonic::body::Body>,
    kept: Kept,
) -> Response<AnswerBody> {
    let mut response = response.map(|body| AnswerBody {
        payload: Payload::Reflection(body),
        kept,
    });
    response.headers_mut().extend(common_headers());
    response
}

fn response(
    mut headers: HeaderMap,
    parts: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    kept: Kept,
) -> Response<AnswerBody> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.extend(common_headers());
    let payload = Payload::Message(parts.into_iter(), trailers);
    let mut response = Response::new(AnswerBody { payload, kept });
    *response.headers_mut() = headers;
    response
}

fn common_headers() -> HeaderMap {
    fields(COMMON_HEADERS.map(|(name, value)| (name, value.to_owned())))
}

fn fields(pairs: impl IntoIterator<Item = (&'static str, String)>) -> HeaderMap {
    let pairs = pairs.into_iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::try_from(value).ok()?))
    });
    pairs.collect()
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

impl Body for AnswerBody {
    type Data = Part;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, Status>>> {
        let frame = match &mut self.payload {
            Payload::Message(parts, trailers) => match parts.next() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|it| Ok(Frame::trailers(it))),
            },
            Payload::Reflection(body) => ready!(Pin::new(body).poll_frame(context)),
        };
        let part = |bytes| Part {
            bytes,
            _kept: self.kept.clone(),
        };
        Poll::Ready(frame.map(|it| it.map(|it| it.map_data(part))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Message(parts, trailers) => parts.len() == 0 && trailers.is_none(),
            Payload::Reflection(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
