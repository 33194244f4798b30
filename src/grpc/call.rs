//! One request of HTTP/2, on the `grpc` thread: whether it is gRPC, what it asks for, whether it is complete in time, and its answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::http::{Method, Request, Response};
use tokio::time::{Instant, timeout_at};

use super::answer::{AnswerBody, Kept, answer, of_reflection, refused};
use super::calls::{Calls, UnaryCall};
use crate::api::http::Reply;
use crate::api::status::TransportError;
use crate::connections::{Connection, InFlight, Lease, Limits, Share};
use crate::model::RequestId;

/// A frame's flag and length.
const PREFIX_BYTES: usize = 5;
/// What a request holds before any of its message is here: its stream, its buffers and what waits for it. Measured.
const REQUEST_BYTES: usize = 4 * 1024;
/// What each connection may hold whatever the others do: some short requests at once.
const OWN_BYTES: usize = 8 * REQUEST_BYTES;
/// h2 refuses a head of more than this many times our limit with an answer of its own. A shorter one over the limit is
/// refused here, with an answer that a client of gRPC understands.
const LONGEST_HEAD: usize = 4;
/// The memory of a conversation with reflection. It lasts for as long as the client likes, and an answer of several KiB
/// may wait at each step of its way.
const CONVERSATION_BYTES: usize = 64 * 1024;
/// By how much the buffer of a message grows at least.
const GROWTH_BYTES: usize = 1024;
/// What of a request's head is measured with the request: a token, a path, and a few hops.
const USUAL_HEAD_BYTES: usize = 512;
/// What a field counts beyond its name and value (RFC 9113 §6.5.2).
const FIELD_BYTES: usize = 32;

/// How long a head h2 reads.
pub(super) const fn h2_head_bytes(limits: &Limits) -> usize {
    limits.head_bytes.saturating_mul(LONGEST_HEAD)
}

/// What the calls of one connection share.
pub(super) struct CallContext {
    calls: Arc<Calls>,
    connection: Arc<Connection>,
    share: Arc<Share>,
    answers: Arc<Share>,
    conversations: Arc<Share>,
}

impl CallContext {
    pub(super) fn new(calls: Arc<Calls>, connection: Arc<Connection>) -> Self {
        // h2 holds one head at a time that is not complete.
        let own = OWN_BYTES.saturating_add(h2_head_bytes(&calls.connections.limits));
        let share = calls.connections.requests.share(own);
        let answers = calls.connections.answers.share(OWN_BYTES);
        let conversations = calls.conversations.share(OWN_BYTES);
        Self {
            calls,
            connection,
            share,
            answers,
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
    ) -> impl Future<Output = Result<Response<AnswerBody>, h2::Error>> {
        let (parts, body) = request.into_parts();
        let request_ids = &self.calls.connections.request_ids;
        let request_id = request_ids.choose(self.connection.peer, sent_id(&parts.headers));
        let name = HeaderValue::try_from(request_id.as_str());
        let admitted = is_grpc(&parts).then(|| {
            let limit = self.calls.connections.limits.head_bytes;
            let head = CallHead::read(&parts, request_id, limit)?;
            let (share, bytes) = if self.calls.reflection.of(&head.path).is_some() {
                (&self.conversations, CONVERSATION_BYTES)
            } else {
                (&self.share, REQUEST_BYTES)
            };
            let bytes = bytes.saturating_add(head.bytes_beyond_usual());
            let lease = share.lease(bytes).ok_or(TransportError::Busy)?;
            // Boxed, so that the future's memory is allocated only after the request was admitted.
            Ok(Box::pin(Arc::clone(&self).answer_to(head, body, lease)))
        });
        drop(parts);
        async move {
            let mut response = match admitted.ok_or(h2::Reason::HTTP_1_1_REQUIRED)? {
                Ok(answer) => answer.await,
                Err(refusal) => self.refuse(refusal, None),
            };
            if let Ok(name) = name {
                response.headers_mut().insert(REQUEST_ID, name);
            }
            Ok(response)
        }
    }

    async fn answer_to(
        self: Arc<Self>,
        head: CallHead,
        body: Incoming,
        mut lease: Lease,
    ) -> Response<AnswerBody> {
        if let Some(reflect) = self.calls.reflection.of(&head.path) {
            let response = reflect(head.onto(body)).await;
            return of_reflection(response, Some(Arc::new((None, lease, None))));
        }
        let Some(mut in_flight) = self.connection.begin() else {
            return self.refuse(TransportError::Stopping, None);
        };
        let outcome = self.unary(head, body, &mut lease, &mut in_flight).await;
        in_flight.responded();
        let kept = |of_answer| Some(Arc::new((Some(in_flight), lease, of_answer)));
        match outcome {
            Ok((reply, of_answer)) => answer(reply, kept(Some(of_answer))),
            Err(refusal) => self.refuse(refusal, kept(None)),
        }
    }

    /// Counts a refusal, and returns the answer that says it.
    fn refuse(&self, refusal: TransportError, kept: Kept) -> Response<AnswerBody> {
        self.calls.note_refusal(refusal);
        refused(refusal, kept)
    }

    /// A call with one message in and one out, within its deadlines.
    async fn unary(
        &self,
        head: CallHead,
        body: Incoming,
        lease: &mut Lease,
        in_flight: &mut InFlight,
    ) -> Result<(Reply, Lease), TransportError> {
        let now = Instant::now();
        let connections = &self.calls.connections;
        let limits = &connections.limits;
        let client = connections.client(self.connection.peer, &head.forwarded_for);
        let client = client.ok_or(TransportError::Busy)?;
        // A deadline beyond what clocks can tell is none.
        let deadline = head.patience.and_then(|it| now.checked_add(it));
        let in_time = now.checked_add(limits.request_time).unwrap_or(now);
        let until = deadline.map_or(in_time, |it| it.min(in_time));
        let at_most = limits.body_bytes.saturating_add(PREFIX_BYTES);
        let framed = match timeout_at(until, read_whole(body, lease, at_most)).await {
            Ok(framed) => framed?,
            Err(_) if until < in_time => return Err(TransportError::DeadlinePassed),
            Err(_) => return Err(TransportError::TooSlow),
        };
        in_flight.received();
        let message = message_of(framed, head.is_compressible)?;
        // Its client has given up waiting: it is not begun.
        if deadline.is_some_and(|it| it <= Instant::now()) {
            return Err(TransportError::DeadlinePassed);
        }
        let carried = self.calls.carry_out(UnaryCall {
            path: head.path,
            authorization: head.authorization,
            code: head.code,
            peer: client.address,
            request_id: head.request_id,
            message,
            answers: Arc::clone(&self.answers),
        });
        match deadline {
            None => carried.await,
            Some(at) => match timeout_at(at, carried).await {
                Ok(reply) => reply,
                Err(_) => Err(TransportError::DeadlinePassed),
            },
        }
    }
}

/// Reads all of a body, if that is no more than `at_most` bytes and the memory budget has them.
///
/// It is copied, because a `Bytes` slice would keep the whole read buffer alive.
async fn read_whole(
    mut body: Incoming,
    lease: &mut Lease,
    at_most: usize,
) -> Result<Vec<u8>, TransportError> {
    const CUT_SHORT: TransportError = TransportError::BadFraming("the request was cut short");
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

/// The message of a unary call: one frame, and nothing after it.
fn message_of(mut framed: Vec<u8>, is_compressible: bool) -> Result<Vec<u8>, TransportError> {
    const NOT_ONE_MESSAGE: TransportError =
        TransportError::BadFraming("expected one message of gRPC");
    let Some((&[flag, a, b, c, d], rest)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(NOT_ONE_MESSAGE);
    };
    match flag {
        0 => {}
        1 if is_compressible => return Err(TransportError::Compressed),
        _ => return Err(NOT_ONE_MESSAGE),
    }
    if u32::try_from(rest.len()) != Ok(u32::from_be_bytes([a, b, c, d])) {
        return Err(NOT_ONE_MESSAGE);
    }
    framed.drain(..PREFIX_BYTES);
    Ok(framed)
}

fn is_grpc(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_grpc = ["application/grpc", "application/grpc+proto"]
        .iter()
        .any(|it| kind.eq_ignore_ascii_case(it));
    is_grpc && parts.method == Method::POST
}

/// What is kept of a request's head.
struct CallHead {
    /// With the query, if there is one: no path that is known has one.
    path: String,
    authorization: Option<String>,
    /// What `totpd-code` says.
    code: Option<String>,
    /// How long the caller waits.
    patience: Option<Duration>,
    /// Whether messages may be compressed. None is taken that is.
    is_compressible: bool,
    /// All of `X-Forwarded-For`, in order. Whether it counts is judged elsewhere.
    forwarded_for: String,
    request_id: RequestId,
}

impl CallHead {
    fn read(parts: &Parts, request_id: RequestId, at_most: usize) -> Result<Self, TransportError> {
        let headers = &parts.headers;
        let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let bytes = headers.iter().map(|(name, value)| {
            let text = name.as_str().len().saturating_add(value.len());
            text.saturating_add(FIELD_BYTES)
        });
        if bytes.fold(path.len(), usize::saturating_add) > at_most {
            return Err(TransportError::HeadTooLarge);
        }
        once(headers, CONTENT_TYPE.as_str())?;
        let patience = once(headers, "grpc-timeout")?.map(timeout_of).transpose();
        let forwarded_for = headers.get_all("x-forwarded-for").iter().map(ascii);
        let forwarded_for: Vec<&str> = forwarded_for.collect::<Result<_, _>>()?;
        Ok(Self {
            path: path.to_owned(),
            authorization: once(headers, "authorization")?.map(str::to_owned),
            code: once(headers, "totpd-code")?.map(str::to_owned),
            patience: patience.map_err(|()| {
                let why = "grpc-timeout: expected up to eight digits and one of H, M, S, m, u, n";
                TransportError::BadFraming(why)
            })?,
            is_compressible: once(headers, "grpc-encoding")?.is_some_and(|it| it != "identity"),
            forwarded_for: forwarded_for.join(","),
            request_id,
        })
    }

    /// The bytes of the head beyond those that every request is counted with. With HPACK a client can repeat a long field
    /// at the cost of one byte.
    fn bytes_beyond_usual(&self) -> usize {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let code = self.code.as_deref().unwrap_or_default();
        let texts = [&self.path, authorization, code, &self.forwarded_for];
        let bytes = texts
            .map(str::len)
            .into_iter()
            .fold(0, usize::saturating_add);
        bytes.saturating_sub(USUAL_HEAD_BYTES)
    }

    /// A request with what reflection needs to know, and this body.
    fn onto(&self, body: Incoming) -> Request<Incoming> {
        let mut request = Request::new(body);
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        request
    }
}

/// The name of the request's id in the library's spelling.
const REQUEST_ID: &str = "x-request-id";

/// The id in the request's head. One that is malformed or repeated is ignored.
fn sent_id(headers: &HeaderMap) -> Option<RequestId> {
    let sent = once(headers, REQUEST_ID).ok().flatten();
    sent.and_then(|it| it.parse().ok())
}

/// A header that may occur once.
fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, TransportError> {
    let mut all = headers.get_all(name).iter();
    let value = all.next().map(ascii).transpose()?;
    if all.next().is_some() {
        let why = "a header that may occur once occurs twice";
        return Err(TransportError::BadFraming(why));
    }
    Ok(value)
}

fn ascii(value: &HeaderValue) -> Result<&str, TransportError> {
    let text = value.to_str();
    text.map_err(|_| TransportError::BadFraming("expected visible ASCII in headers"))
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
