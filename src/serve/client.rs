//! The life of one client's connection: a whole request in, through a worker, the answer out, and again.

use std::net::IpAddr;
use std::time::Instant;

use super::forwarded::last_untrusted_hop;
use super::incoming::{Ended, Incoming};
use super::registry::Connection;
use super::stream::Stream;
use super::upstream::Answer;
use super::wire::Wire;
use super::{Door, tls::Tls};
use crate::api::http::{EVERY_REPLY, Reply};
use crate::api::status::{AtTheDoor, Refusal};

/// Who is at the other end.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    /// The socket's address; a Unix socket has none.
    pub(super) address: Option<IpAddr>,
    /// Whether it is a proxy whose word about its own clients counts.
    pub(super) is_trusted: bool,
}

/// Serves one client until it leaves, falters or has to make room.
pub(super) fn serve(
    door: &Door,
    connection: &Connection,
    stream: Stream,
    peer: Peer,
    tls: Option<&Tls>,
) {
    let Some(wire) = greet(door, connection, stream, tls) else {
        return;
    };
    let mut incoming = Incoming::new(wire);
    loop {
        match one_request(door, connection, &mut incoming, peer) {
            Ok(true) if door.registry.answered(connection) => {}
            Ok(_) => return leave(door, connection, &mut incoming),
            Err(Ended::Closed) => return,
            Err(Ended::Refused(refusal)) => {
                let reply = own_answer(&Refusal::from(refusal).into_reply());
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
fn greet(door: &Door, connection: &Connection, stream: Stream, tls: Option<&Tls>) -> Option<Wire> {
    let Some(tls) = tls else {
        return Some(Wire::plain(stream));
    };
    if !door.registry.begins_request(connection) {
        return None;
    }
    let wire = tls
        .accept()
        .map_err(std::io::Error::other)
        .and_then(|it| Wire::tls(stream, it, door.limits.request_time))
        .map_err(|error| log::debug!("a TLS handshake failed: {error}"))
        .ok()?;
    connection.rests().then_some(wire)
}

/// A client that has the answer closes; until then nothing of the answer may be lost.
fn leave(door: &Door, connection: &Connection, incoming: &mut Incoming) {
    connection.lingers();
    incoming.wire().finish(door.limits.take_time);
    incoming.drain();
}

/// Answers one request; says whether another may follow.
fn one_request(
    door: &Door,
    connection: &Connection,
    incoming: &mut Incoming,
    peer: Peer,
) -> Result<bool, Ended> {
    incoming.first_byte(door.limits.idle_time)?;
    if !door.registry.begins_request(connection) {
        return Err(Ended::Closed);
    }
    let deadline = Instant::now()
        .checked_add(door.limits.request_time)
        .ok_or(Ended::Closed)?;
    let head = incoming.head(&door.limits, deadline)?;
    // What will be refused for its length is not asked for.
    if head.expects_continue && incoming.awaits(head.body, &door.limits) {
        send(door, incoming, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = incoming.body(head.body, &door.limits, deadline)?;
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
