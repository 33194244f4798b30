//! One client's connection, on a `client` thread of its own: reads a whole request, has a worker answer it, writes the
//! answer, and begins anew.

use std::sync::Arc;
use std::thread;

use super::FrontEnd;
use super::answer::Answer;
use super::head::{Form, Head};
use super::incoming::{Ended, Incoming};
use super::relay::Outgoing;
use crate::api::http::{Request, Via};
use crate::api::status::TransportError;
use crate::api::{self, Kind};
use crate::connections::stream::Stream;
use crate::connections::wire::{PendingHandshake, Wire};
use crate::connections::{ConnectionGuard, InFlight, Share};
#[cfg(feature = "grpc")]
use crate::grpc::Handover;
use crate::model::RequestId;

/// What a request may hold of memory whatever the others hold: nearly every one is shorter.
const OWN_BYTES: usize = 8 * 1024;

/// Serves one client until it leaves, is refused, is closed in favour of another, or turns out to speak HTTP/2. The whole
/// of a `client` thread.
pub(super) fn serve(
    front: &Arc<FrontEnd>,
    connection: ConnectionGuard,
    stream: Stream,
    speaks_tls: bool,
) {
    let Some((connection, wire)) = handshake(front, connection, stream, speaks_tls) else {
        return;
    };
    let share = front.connections.requests.share(OWN_BYTES);
    let answers = front.connections.answers.share(OWN_BYTES);
    let mut incoming = Incoming::new(wire, share);
    #[cfg(feature = "grpc")]
    let Some((connection, mut begun)) = hand_over_http2(front, connection, &mut incoming) else {
        return;
    };
    #[cfg(not(feature = "grpc"))]
    let mut begun = None;
    loop {
        if begun.is_none()
            && incoming
                .first_byte(front.connections.limits.idle_time)
                .is_err()
        {
            return;
        }
        let Some(mut request) = begun.take().or_else(|| connection.begin()) else {
            return;
        };
        let mut form = Form::default();
        let outcome = one_request(
            front,
            &connection,
            &answers,
            &mut incoming,
            &mut request,
            &mut form,
        );
        match outcome {
            Ok(true) if request.finish() => {}
            Ok(_) => return leave(front, request, &mut incoming),
            Err(Ended::Closed) => return,
            Err(Ended::Refused(refusal)) => {
                let (content_type, origin) = (form.content_type.as_deref(), form.origin.as_deref());
                let reply = front.handler.refuse(refusal, content_type, origin);
                let mut answer = Answer::of(reply, front.handler.now(), form.is_head);
                let ids = &front.connections.request_ids;
                answer.add_request_id(&form.request_id.unwrap_or_else(|| ids.make()));
                // A refused client may be closed in favour of others like one that has not asked yet.
                request.linger();
                if send(front, &mut incoming, &answer.into_bytes(false)).is_ok() {
                    leave(front, request, &mut incoming);
                }
                return;
            }
        }
    }
}

/// Does the TLS handshake, where there is TLS. A slow client keeps only its own thread waiting.
fn handshake(
    front: &FrontEnd,
    connection: ConnectionGuard,
    stream: Stream,
    speaks_tls: bool,
) -> Option<(ConnectionGuard, Wire)> {
    let Some(tls) = front.connections.tls.as_ref().filter(|_| speaks_tls) else {
        return Some((connection, Wire::plain(stream)));
    };
    let mut in_flight = connection.begin()?;
    let failed = |error| log::debug!("a TLS handshake failed: {error}");
    let mut handshake = PendingHandshake::on(stream, front.connections.limits.request_time);
    let accepted = handshake.read().map_err(failed).ok()?;
    let config = tls.config();
    #[cfg(feature = "grpc")]
    if crate::connections::tls::wants_http2(&accepted.client_hello()) {
        drop(in_flight);
        hand_over(
            front,
            Handover {
                connection,
                stream: handshake.into_stream(),
                first: Vec::new(),
                tls: Some((accepted, config)),
            },
        );
        return None;
    }
    let wire = Wire::tls(handshake, accepted, config)
        .map_err(failed)
        .ok()?;
    in_flight.received().then_some((connection, wire))
}

/// Waits for the client's first bytes, and hands the connection over if they are HTTP/2's. If not, returns the request
/// that began with them.
#[cfg(feature = "grpc")]
fn hand_over_http2(
    front: &FrontEnd,
    connection: ConnectionGuard,
    incoming: &mut Incoming,
) -> Option<(ConnectionGuard, Option<InFlight>)> {
    let Some(stream) = incoming.wire().plain_stream() else {
        return Some((connection, None));
    };
    let limits = &front.connections.limits;
    incoming.first_byte(limits.idle_time).ok()?;
    let request = connection.begin()?;
    let deadline = request.begun().checked_add(limits.request_time)?;
    match incoming.http2(deadline) {
        // A client that is too slow here is refused where requests are read.
        Ok(None) | Err(Ended::Refused(_)) => Some((connection, Some(request))),
        Ok(Some(first)) => {
            drop(request);
            hand_over(
                front,
                Handover {
                    connection,
                    stream,
                    first,
                    tls: None,
                },
            );
            None
        }
        Err(Ended::Closed) => None,
    }
}

#[cfg(feature = "grpc")]
fn hand_over(front: &FrontEnd, handover: Handover) {
    if let Err(error) = handover.stream.set_nonblocking() {
        log::warn!("a connection cannot be handed over: {error}");
        return;
    }
    let registry = &front.connections.registry;
    if registry.count_as_http2(&handover.connection) {
        front.grpc.take_over(handover);
    }
}

/// Waits for a client that has its last answer to close: closing first could lose the end of the answer.
fn leave(front: &FrontEnd, mut request: InFlight, incoming: &mut Incoming) {
    request.linger();
    incoming.wire().finish(front.connections.limits.take_time);
    incoming.drain();
}

/// Reads and answers one request. Returns whether the connection stays open. `form` is that of a refusal, as far as the
/// head was read.
fn one_request(
    front: &FrontEnd,
    connection: &ConnectionGuard,
    answers: &Arc<Share>,
    incoming: &mut Incoming,
    request: &mut InFlight,
    form: &mut Form,
) -> Result<bool, Ended> {
    let limits = &front.connections.limits;
    let deadline = request.begun().checked_add(limits.request_time);
    let deadline = deadline.ok_or(Ended::Closed)?;
    let lease = incoming.lease()?;
    let head = incoming.head(&lease, limits, deadline);
    *form = match &head {
        Ok(head) => head.form(),
        Err(_) => Form::of_part(incoming.unread()),
    };
    let sent = form.request_id.take();
    let request_id = front.connections.request_ids.choose(connection.peer, sent);
    form.request_id = Some(request_id.clone());
    let head = head?;
    // What will be refused for its length is not asked for.
    if head.expects_continue && incoming.awaits(head.body, limits) {
        send(front, incoming, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = incoming.body(head.body, &lease, limits, deadline)?;
    if !request.received() {
        return Err(Ended::Closed);
    }
    let kind = api::kind(&head.method, &head.target, head.content_type.as_deref());
    let (mut answer, _lease) = if kind == Kind::Liveness {
        (
            health(front, &head, &body, &request_id).map_err(Ended::Refused)?,
            None,
        )
    } else {
        let client = front
            .connections
            .client(connection.peer, &head.forwarded_for);
        let client = client.ok_or(Ended::Refused(TransportError::Busy))?;
        let outgoing = Outgoing {
            kind,
            head: &head,
            body: &body,
            client: client.address,
            request_id: &request_id,
            answers,
        };
        front.relay.exchange(&outgoing).map_err(Ended::Refused)?
    };
    request.responded();
    answer.add_request_id(&request_id);
    let keep_alive = head.keep_alive && !request.is_last();
    send(front, incoming, &answer.into_bytes(keep_alive))?;
    Ok(keep_alive)
}

/// Answers `/debug/healthz` on the client's own thread: no worker, lock or disk can delay it.
fn health(
    front: &FrontEnd,
    head: &Head,
    body: &[u8],
    request_id: &RequestId,
) -> Result<Answer, TransportError> {
    // Clients that ask for nothing else, again and again, give way to those who have just come.
    thread::yield_now();
    let reply = front.handler.reply_to(&Request {
        via: Via::Http,
        method: &head.method,
        target: &head.target,
        authorization: None,
        content_type: head.content_type.as_deref(),
        origin: head.origin.as_deref(),
        body,
        peer: None,
        request_id: Some(request_id.as_str()),
    })?;
    let is_head = head.method == "HEAD";
    Ok(Answer::of(reply, front.handler.now(), is_head))
}

/// Writes an answer within the time that a client has to take it.
fn send(front: &FrontEnd, incoming: &mut Incoming, bytes: &[u8]) -> Result<(), Ended> {
    incoming
        .wire()
        .write_all(bytes, front.connections.limits.take_time)
        .map_err(|_| Ended::Closed)
}
