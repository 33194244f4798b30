//! The life of one client's connection: a whole request in, through a worker, the answer out, and again.

use std::time::Instant;

use super::Door;
use super::forwarded::last_untrusted_hop;
use super::incoming::{Ended, Incoming};
use super::registry::Connection;
use super::seat::{Peer, Seat};
use super::stream::Stream;
use super::upstream::Answer;
use super::wire::{Hello, Wire};
use crate::api::http::{EVERY_REPLY, Reply};
use crate::api::status::AtTheDoor;

/// Serves one client until it leaves, falters, has to make room, or turns out to speak HTTP/2.
pub(super) fn serve(seat: Seat, stream: Stream, peer: Peer, speaks_tls: bool) {
    let Some((seat, wire)) = greet(seat, stream, peer, speaks_tls) else {
        return;
    };
    let mut incoming = Incoming::new(wire);
    #[cfg(feature = "grpc")]
    let Some((seat, mut begun)) = hand_over_http2(seat, &mut incoming, peer) else {
        return;
    };
    #[cfg(not(feature = "grpc"))]
    let mut begun = None;
    let (door, connection) = (seat.door.as_ref(), seat.connection.as_ref());
    loop {
        let mut asked = Asked::default();
        let begun = begun.take();
        match one_request(door, connection, &mut incoming, peer, begun, &mut asked) {
            Ok(true) if door.registry.answered(connection) => {}
            Ok(_) => return leave(door, connection, &mut incoming),
            Err(Ended::Closed) => return,
            Err(Ended::Refused(refusal)) => {
                let (content_type, origin) = (asked.content_type, asked.origin);
                let refuse = &door.handler.refuse;
                let reply = refuse(refusal, content_type.as_deref(), origin.as_deref());
                let reply = own_answer(&reply);
                // To be refused is no work, and holds no place against others.
                connection.lingers();
                if send(door, &mut incoming, &reply).is_ok() {
                    leave(door, connection, &mut incoming);
                }
                return;
            }
        }
    }
}

/// Shakes hands where there is TLS. Nobody waits for a client that is slow at it but its own thread.
#[cfg_attr(
    not(feature = "grpc"),
    expect(unused_variables, reason = "nobody is handed over, whoever it is")
)]
fn greet(seat: Seat, stream: Stream, peer: Peer, speaks_tls: bool) -> Option<(Seat, Wire)> {
    let Some(tls) = seat.door.tls.as_ref().filter(|_| speaks_tls) else {
        return Some((seat, Wire::plain(stream)));
    };
    if !seat.door.registry.begins_request(&seat.connection) {
        return None;
    }
    let failed = |error| log::debug!("a TLS handshake failed: {error}");
    let mut hello = Hello::on(stream, seat.door.limits.request_time);
    let accepted = hello.read().map_err(failed).ok()?;
    let config = tls.config();
    #[cfg(feature = "grpc")]
    if super::tls::wants_http2(&accepted.client_hello()) {
        let tls = Some((accepted, config));
        super::handover::hand_over(seat, peer, hello.into_stream(), Vec::new(), tls);
        return None;
    }
    let wire = Wire::tls(hello, accepted, config).map_err(failed).ok()?;
    seat.connection.rests().then_some((seat, wire))
}

/// Waits for the client's first word, and hands it over if that is HTTP/2's. If not, says when what was begun is to be
/// whole.
#[cfg(feature = "grpc")]
fn hand_over_http2(
    seat: Seat,
    incoming: &mut Incoming,
    peer: Peer,
) -> Option<(Seat, Option<Instant>)> {
    let Some(stream) = incoming.wire().plain_stream() else {
        return Some((seat, None));
    };
    let limits = &seat.door.limits;
    incoming.first_byte(limits.idle_time).ok()?;
    if !seat.door.registry.begins_request(&seat.connection) {
        return None;
    }
    let deadline = Instant::now().checked_add(limits.request_time)?;
    match incoming.http2(deadline) {
        // Whoever is slow even at this is told so where requests are read.
        Ok(None) | Err(Ended::Refused(_)) => Some((seat, Some(deadline))),
        Ok(Some(first)) => {
            super::handover::hand_over(seat, peer, stream, first, None);
            None
        }
        Err(Ended::Closed) => None,
    }
}

/// A client that has the answer closes; until then nothing of the answer may be lost.
fn leave(door: &Door, connection: &Connection, incoming: &mut Incoming) {
    connection.lingers();
    incoming.wire().finish(door.limits.take_time);
    incoming.drain();
}

/// What says in which form a request is to be refused.
#[derive(Default)]
struct Asked {
    content_type: Option<String>,
    origin: Option<String>,
}

/// Answers one request, which is to be whole in time or when that is said already; says whether another may follow. In
/// which form it is to be refused is told as soon as its head is known.
fn one_request(
    door: &Door,
    connection: &Connection,
    incoming: &mut Incoming,
    peer: Peer,
    begun: Option<Instant>,
    asked: &mut Asked,
) -> Result<bool, Ended> {
    incoming.first_byte(door.limits.idle_time)?;
    if !door.registry.begins_request(connection) {
        return Err(Ended::Closed);
    }
    let in_time = || Instant::now().checked_add(door.limits.request_time);
    let deadline = begun.or_else(in_time).ok_or(Ended::Closed)?;
    let head = incoming.head(&door.limits, deadline)?;
    asked.content_type.clone_from(&head.content_type);
    asked.origin.clone_from(&head.origin);
    // What will be refused for its length is not asked for.
    if head.expects_continue && incoming.awaits(head.body, &door.limits) {
        send(door, incoming, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let account = door.bodies.account();
    let body = incoming.body(head.body, &account, &door.limits, deadline)?;
    if !connection.request_is_whole() {
        return Err(Ended::Closed);
    }
    let named = peer
        .is_trusted
        .then(|| last_untrusted_hop(&head.forwarded_for, &door.trusted_proxies))
        .flatten();
    // Behind a proxy connections say nothing about whose they are; requests in progress do.
    let place = named.map(|it| door.registry.progress(it, &door.limits));
    let _place = place.transpose().map_err(Ended::Refused)?;
    let address = named
        .or(peer.address)
        .map_or_else(String::new, |it| it.to_string());

    let pool = door.pool_for(&head);
    let mut upstream = pool.take().map_err(Ended::Refused)?;
    let answer = upstream.exchange(&head, &address, &body).map_err(|error| {
        door.death
            .report(&format!("a worker's connection broke: {error}"));
        Ended::Refused(AtTheDoor::Bug)
    })?;
    pool.give(upstream);
    door.registry.answers(connection);
    let goes_on = head.keep_alive && !door.registry.is_stopping();
    send(door, incoming, &bytes_of(&answer, goes_on))?;
    Ok(goes_on)
}

/// Writes an answer within the time that a client has to take it.
fn send(door: &Door, incoming: &mut Incoming, bytes: &[u8]) -> Result<(), Ended> {
    incoming
        .wire()
        .write_all(bytes, door.limits.take_time)
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
