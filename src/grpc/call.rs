//! One request of HTTP/2: is it gRPC, what does it ask for, is it whole in time, and what came of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::http::{Method, Request, Response};
use prost::bytes::{Buf, Bytes};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};

use super::body::{CountedBody, read_whole};
use super::queue::{Call, Queue};
use super::{BUSY, codec};
use crate::api;
use crate::api::http::EVERY_REPLY;
use crate::api::status::{AtTheDoor, Refusal};
use crate::connections::{Connection, InFlight, Lease, MEMORY_BYTES, Share};

/// A frame's flag and length.
const PREFIX_BYTES: usize = 5;
/// What a request holds before any of its message is here: its stream, its buffers and what waits for it. Measured.
const REQUEST_BYTES: usize = 4 * 1024;
/// What each connection may hold whatever the others do: some short requests at once.
const OWN_BYTES: usize = 8 * REQUEST_BYTES;
/// What a conversation with reflection holds: questions go on for as long as the client likes, and an answer of
/// several KiB may wait at each step of its way.
const CONVERSATION_BYTES: usize = 64 * 1024;
/// What of a request's head is measured with the request: a token, a path, and a few hops.
const USUAL_HEAD_BYTES: usize = 512;
const NOT_ONE_MESSAGE: AtTheDoor = AtTheDoor::BadFraming("expected one message of gRPC");

/// What the calls of one connection share.
pub(super) struct CallContext {
    queue: Arc<Queue>,
    connection: Arc<Connection>,
    share: Arc<Share>,
    conversations: Arc<Share>,
}

impl CallContext {
    pub(super) fn new(queue: Arc<Queue>, connection: Arc<Connection>) -> Self {
        let share = queue.memory.share(OWN_BYTES);
        let conversations = queue.conversations.share(OWN_BYTES);
        Self {
            queue,
            connection,
            share,
            conversations,
        }
    }

    /// Answers one request. What is not gRPC is sent to HTTP/1.1 (RFC 9113 §7, `HTTP_1_1_REQUIRED`).
    ///
    /// Of the request's head only what is needed is kept, and the rest is dropped before anything is waited for: a head
    /// may be a hundred times as large in memory as on the wire.
    pub(super) fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Answer>, h2::Error>> {
        let (parts, body) = request.into_parts();
        let admitted = Head::of(&parts).map(|head| {
            let head = head?;
            let (share, bytes) = if self.queue.reflection.of(&head.path).is_some() {
                (&self.conversations, CONVERSATION_BYTES)
            } else {
                (&self.share, REQUEST_BYTES)
            };
            let bytes = bytes.saturating_add(head.bytes_beyond_usual());
            let lease = share.lease(bytes).map(Arc::new).ok_or(BUSY)?;
            // Boxed, so that the future's memory is allocated only after the request was admitted.
            Ok(Box::pin(self.answer_to(head, body, lease)))
        });
        drop(parts);
        async move {
            let mut answer = match admitted.ok_or(h2::Reason::HTTP_1_1_REQUIRED)? {
                Ok(answer) => answer.await,
                Err(refusal) => refused(refusal).map(|it| Answer::new(it, None, None)),
            };
            for (name, value) in EVERY_REPLY {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let Ok(name) = name {
                    answer
                        .headers_mut()
                        .insert(name, HeaderValue::from_static(value));
                }
            }
            Ok(answer)
        }
    }

    async fn answer_to(
        self: Arc<Self>,
        head: Head,
        body: Incoming,
        lease: Arc<Lease>,
    ) -> Response<Answer> {
        if let Some(reflect) = self.queue.reflection.of(&head.path) {
            let counted = CountedBody {
                body,
                lease: Arc::clone(&lease),
            };
            let response = reflect(head.onto(counted)).await;
            return response.map(|it| Answer::new(it, None, Some(lease)));
        }
        let Some(mut in_flight) = self.connection.begin() else {
            return refused(AtTheDoor::Stopping).map(|it| Answer::new(it, None, None));
        };
        let response = self.unary(head, body, &lease, &mut in_flight).await;
        in_flight.responded();
        response.map(|it| Answer::new(it, Some(in_flight), Some(lease)))
    }

    /// A call with one message in and one out, within its deadlines.
    async fn unary(
        &self,
        mut head: Head,
        body: Incoming,
        lease: &Lease,
        in_flight: &mut InFlight,
    ) -> Response<Body> {
        let now = Instant::now();
        let limits = &self.queue.connections.limits;
        let client = self
            .queue
            .connections
            .client(self.connection.peer, &head.forwarded_for);
        let Some(client) = client else {
            return refused(BUSY);
        };
        // A deadline beyond what clocks can tell is none.
        let deadline = head.patience.and_then(|it| now.checked_add(it));
        let in_time = now.checked_add(limits.request_time).unwrap_or(now);
        let until = deadline.map_or(in_time, |it| it.min(in_time));
        let at_most = limits.body_bytes.saturating_add(PREFIX_BYTES);
        let whole = match timeout_at(until, read_whole(body, lease, at_most)).await {
            Ok(whole) => whole,
            Err(_) if until < in_time => Err(AtTheDoor::DeadlinePassed),
            Err(_) => Err(AtTheDoor::TooSlow),
        };
        let whole = match whole {
            Ok(whole) => whole,
            Err(refusal) => return refused(refusal),
        };
        in_flight.received();
        let framed_bytes = whole.len();
        let is_change = api::is_change("POST", &head.path);
        let request = head.onto(Full::new(Bytes::from(whole)));
        let mut is_message = false;
        let service = Unary(|message: Vec<u8>| {
            is_message = true;
            // tonic looks for no second one.
            let is_alone = message.len().checked_add(PREFIX_BYTES) == Some(framed_bytes);
            let call = Call {
                is_change,
                path: std::mem::take(&mut head.path),
                authorization: head.authorization.take(),
                peer: client.address,
                message,
            };
            async move {
                if !is_alone {
                    return Err(refused_status(NOT_ONE_MESSAGE));
                }
                // Nobody waits for it any more: it is not begun.
                if deadline.is_some_and(|it| it <= Instant::now()) {
                    return Err(refused_status(AtTheDoor::DeadlinePassed));
                }
                let carried = self.queue.carry_out(call);
                let reply = match deadline {
                    None => carried.await,
                    Some(at) => match timeout_at(at, carried).await {
                        Ok(reply) => reply,
                        Err(_) => Err(AtTheDoor::DeadlinePassed),
                    },
                };
                match reply {
                    Ok(reply) => match status(&reply.headers) {
                        Some(status) => Err(status),
                        // What was changed is told in any case; such answers are short.
                        None if is_change || has_room(lease, reply.body.len()) => Ok(reply.body),
                        None if reply.body.len() > MEMORY_BYTES => {
                            Err(refused_status(AtTheDoor::AnswerTooLarge))
                        }
                        None => Err(refused_status(BUSY)),
                    },
                    Err(refusal) => Err(refused_status(refusal)),
                }
            }
        });
        let mut grpc = Grpc::new(codec::Bytes).max_decoding_message_size(limits.body_bytes);
        let response = grpc.unary(service, request).await;
        if is_message {
            return response;
        }
        // tonic has refused by itself: told in our words, but for what it does not know how to read.
        match Status::from_header_map(response.headers()).map(|it| it.code()) {
            Some(tonic::Code::OutOfRange) => refused(AtTheDoor::BodyTooLarge),
            Some(tonic::Code::Internal | tonic::Code::Unknown) => refused(NOT_ONE_MESSAGE),
            _ => response,
        }
    }
}

/// Whether the budget has room for an answer of this length, until it is taken.
fn has_room(lease: &Lease, answer: usize) -> bool {
    answer <= REQUEST_BYTES || lease.grow(answer)
}

/// A function as a service of tonic's.
struct Unary<F>(F);

impl<F, A> UnaryService<Vec<u8>> for Unary<F>
where
    F: FnMut(Vec<u8>) -> A,
    A: Future<Output = Result<Vec<u8>, Status>>,
{
    type Response = Vec<u8>;
    type Future = Answered<A>;

    fn call(&mut self, request: tonic::Request<Vec<u8>>) -> Self::Future {
        Answered(Box::pin((self.0)(request.into_inner())))
    }
}

/// The message wrapped as tonic wants it.
struct Answered<A>(Pin<Box<A>>);

impl<A: Future<Output = Result<Vec<u8>, Status>>> Future for Answered<A> {
    type Output = Result<tonic::Response<Vec<u8>>, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = self.0.as_mut().poll(context);
        answered.map(|it| it.map(tonic::Response::new))
    }
}

/// What is kept of a request's head.
struct Head {
    /// With the query, if there is one: no path that is known has one.
    path: String,
    authorization: Option<String>,
    /// How long the caller waits.
    patience: Option<Duration>,
    /// How messages may be compressed.
    encoding: Option<HeaderValue>,
    /// What `X-Forwarded-For` says, all of it in order; whether it counts is for others to judge.
    forwarded_for: String,
}

impl Head {
    /// `None` if this is not gRPC.
    fn of(parts: &Parts) -> Option<Result<Self, AtTheDoor>> {
        let kind = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_grpc = ["application/grpc", "application/grpc+proto"]
            .iter()
            .any(|it| kind.eq_ignore_ascii_case(it));
        (is_grpc && parts.method == Method::POST).then(|| Self::read(parts))
    }

    fn read(parts: &Parts) -> Result<Self, AtTheDoor> {
        let headers = &parts.headers;
        once(headers, CONTENT_TYPE.as_str())?;
        let patience = once(headers, "grpc-timeout")?.map(timeout_of).transpose();
        let forwarded_for = headers.get_all("x-forwarded-for").iter().map(ascii);
        let forwarded_for: Vec<&str> = forwarded_for.collect::<Result<_, _>>()?;
        let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        Ok(Self {
            path: path.to_owned(),
            authorization: once(headers, "authorization")?.map(str::to_owned),
            patience: patience.map_err(|()| {
                let why = "grpc-timeout: expected up to eight digits and one of H, M, S, m, u, n";
                AtTheDoor::BadFraming(why)
            })?,
            // A copy: as it came it is a part of all that was read with it.
            encoding: once(headers, "grpc-encoding")?.and_then(|it| HeaderValue::from_str(it).ok()),
            forwarded_for: forwarded_for.join(","),
        })
    }

    /// What it holds beyond what a request does anyway. HPACK lets a client say a long field with one byte, again and
    /// again.
    fn bytes_beyond_usual(&self) -> usize {
        let texts = [Some(&self.path), self.authorization.as_ref()];
        let texts = texts.into_iter().flatten().chain([&self.forwarded_for]);
        let encoding = self.encoding.as_ref().map_or(0, HeaderValue::len);
        let bytes = texts.map(String::len).fold(encoding, usize::saturating_add);
        bytes.saturating_sub(USUAL_HEAD_BYTES)
    }

    /// A request with all that tonic needs to know, and this body.
    fn onto<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        if let Some(encoding) = &self.encoding {
            request
                .headers_mut()
                .insert("grpc-encoding", encoding.clone());
        }
        request
    }
}

/// A header that may stand once.
fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, AtTheDoor> {
    let mut all = headers.get_all(name).iter();
    let value = all.next().map(ascii).transpose()?;
    if all.next().is_some() {
        let why = "a header that may stand once stands twice";
        return Err(AtTheDoor::BadFraming(why));
    }
    Ok(value)
}

fn ascii(value: &HeaderValue) -> Result<&str, AtTheDoor> {
    let text = value.to_str();
    text.map_err(|_| AtTheDoor::BadFraming("expected visible ASCII in headers"))
}

/// `grpc-timeout`: how long the caller waits.
fn timeout_of(text: &str) -> Result<Duration, ()> {
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or(())?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return Err(());
    }
    let number: u64 = digits.parse().map_err(|_| ())?;
    match unit {
        "H" => Ok(Duration::from_secs(number.saturating_mul(3_600))),
        "M" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "S" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_millis(number)),
        "u" => Ok(Duration::from_micros(number)),
        "n" => Ok(Duration::from_nanos(number)),
        _ => Err(()),
    }
}

/// The status that trailers tell, unless they tell that all went well.
fn status(trailers: &[(&'static str, String)]) -> Option<Status> {
    let mut headers = HeaderMap::new();
    for (name, value) in trailers {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    Status::from_header_map(&headers).filter(|it| it.code() != tonic::Code::Ok)
}

fn refused_status(refusal: AtTheDoor) -> Status {
    let trailers = api::refused_trailers(&Refusal::from(refusal));
    status(&trailers).unwrap_or_else(|| Status::internal("an internal error"))
}

fn refused(refusal: AtTheDoor) -> Response<Body> {
    refused_status(refusal).into_http()
}

/// What is kept until an answer is taken: the request in flight, and its memory.
type Kept = Arc<(Option<InFlight>, Option<Arc<Lease>>)>;

/// An answer on its way. The request ends when all of it is taken or given up.
pub(super) struct Answer {
    body: Body,
    kept: Kept,
}

impl Answer {
    fn new(body: Body, in_flight: Option<InFlight>, lease: Option<Arc<Lease>>) -> Self {
        let kept = Arc::new((in_flight, lease));
        Self { body, kept }
    }
}

/// A part of an answer. hyper is done with a body as soon as h2 has all of it, whatever the client's window; only
/// with this, h2 lets go of what was sent.
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

impl hyper::body::Body for Answer {
    type Data = Part;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let part = |bytes| Part {
            bytes,
            _kept: Arc::clone(&self.kept),
        };
        Poll::Ready(frame.map(|it| it.map(|it| it.map_data(part))))
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
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(timeout_of("1S"), Ok(Duration::from_secs(1)));
        assert_eq!(
            timeout_of("99999999H"),
            Ok(Duration::from_hours(99_999_999))
        );
        assert_eq!(timeout_of("250m"), Ok(Duration::from_millis(250)));
        for bad in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "1 S",
            "١S",
            "1ü",
        ] {
            assert_eq!(timeout_of(bad), Err(()), "{bad}");
        }
    }
}
