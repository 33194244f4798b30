//! One client's connection, on a thread of its own: a whole request in, through a worker, the answer out, and again.

use std::sync::Arc;

use super::FrontEnd;
use super::incoming::{Ended, Incoming};
use super::upstream::Answer;
use crate::api::http::{EVERY_REPLY, Reply};
use crate::api::status::AtTheDoor;
use crate::connections::stream::Stream;
use crate::connections::wire::{PendingHandshake, Wire};
use crate::connections::{ConnectionGuard, InFlight};
#[cfg(feature = "grpc")]
use crate::grpc::Handover;

/// What a request may hold of memory whatever the others hold: nearly every one is shorter.
const OWN_BYTES: usize = 8 * 1024;

/// Serves one client until it leaves, is refused, has to make room, or turns out to speak HTTP/2.
pub(super) fn serve(
    front: &Arc<FrontEnd>,
    connection: ConnectionGuard,
    stream: Stream,
    speaks_tls: bool,
) {
    let Some((connection, wire)) = handshake(front, connection, stream, speaks_tls) else {
        return;
    };
    let share = front.connections.memory.share(OWN_BYTES);
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
        let mut asked = Asked::default();
        match one_request(front, &connection, &mut incoming, &mut request, &mut asked) {
            Ok(true) if request.finish() => {}
            Ok(_) => return leave(front, request, &mut incoming),
            Err(Ended::Closed) => return,
            Err(Ended::Refused(refusal)) => {
                let (content_type, origin) = (asked.content_type, asked.origin);
                let (content_type, origin) = (content_type.as_deref(), origin.as_deref());
                let reply = front.handler.refuse(refusal, content_type, origin);
                let reply = own_answer(&reply);
                // A refused client makes room for others as one that has said nothing.
                request.linger();
                if send(front, &mut incoming, &reply).is_ok() {
                    leave(front, request, &mut incoming);
                }
                return;
            }
        }
    }
}

/// Does the TLS handshake, where there is TLS. A client that is slow at it keeps nobody waiting but its own thread.
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
        // A client that is slow even at this is told so where requests are read.
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

/// What decides the form of a refusal.
#[derive(Default)]
struct Asked {
    content_type: Option<String>,
    origin: Option<String>,
}

/// Reads and answers one request. Returns whether the connection stays open.
fn one_request(
    front: &FrontEnd,
    connection: &ConnectionGuard,
    incoming: &mut Incoming,
    request: &mut InFlight,
    asked: &mut Asked,
) -> Result<bool, Ended> {
    let limits = &front.connections.limits;
    let deadline = request.begun().checked_add(limits.request_time);
    let deadline = deadline.ok_or(Ended::Closed)?;
    let head = incoming.head(limits, deadline)?;
    asked.content_type.clone_from(&head.content_type);
    asked.origin.clone_from(&head.origin);
    // What will be refused for its length is not asked for.
    if head.expects_continue && incoming.awaits(head.body, limits) {
        send(front, incoming, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let (body, _lease) = incoming.body(head.body, limits, deadline)?;
    if !request.received() {
        return Err(Ended::Closed);
    }
    let client = front
        .connections
        .client(connection.peer, &head.forwarded_for);
    let busy = AtTheDoor::Busy { retry_after_s: 1 };
    let client = client.ok_or(Ended::Refused(busy))?;
    let address = client.address.map_or_else(String::new, |it| it.to_string());

    let pool = front.pool_for(&head);
    let mut upstream = pool.take().map_err(Ended::Refused)?;
    let answer = upstream.exchange(&head, &address, &body).map_err(|error| {
        front
            .death
            .report(&format!("a worker's connection broke: {error}"));
        Ended::Refused(AtTheDoor::Bug)
    })?;
    pool.give(upstream);
    request.responded();
    let goes_on = head.keep_alive && !request.is_last();
    send(front, incoming, &bytes_of(&answer, goes_on))?;
    Ok(goes_on)
}

/// Writes an answer within the time that a client has to take it.
fn send(front: &FrontEnd, incoming: &mut Incoming, bytes: &[u8]) -> Result<(), Ended> {
    incoming
        .wire()
        .write_all(bytes, front.connections.limits.take_time)
        .map_err(|_| Ended::Closed)
}

fn bytes_of(answer: &Answer, goes_on: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(
        answer
            .fields
            .len()
            .saturating_add(answer.body.len())
            .saturating_add(128),
    );
    bytes.extend_from_slice(answer.status_line.as_bytes());
    bytes.extend_from_slice(&answer.fields);
    bytes.extend_from_slice(format!("Content-Length: {}\r\n", answer.content_length).as_bytes());
    bytes.extend_from_slice(if goes_on {
        b"\r\n"
    } else {
        b"Connection: close\r\n\r\n"
    });
    bytes.extend_from_slice(&answer.body);
    bytes
}

/// An answer that the door gives by itself; the connection ends with it.
fn own_answer(reply: &Reply) -> Vec<u8> {
    let reason = match reply.status {
        200 => "OK",
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let mut text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\n",
        reply.status, reply.content_type
    );
    let own = reply
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    for (name, value) in own.chain(EVERY_REPLY) {
        text.extend([name, ": ", value, "\r\n"]);
    }
    let length = reply.body.len().to_string();
    text.extend(["Content-Length: ", &length, "\r\nConnection: close\r\n\r\n"]);
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&reply.body);
    bytes
}
