//! The life of one client's connection: a whole request in, through a worker, the answer out, and again.

use std::io::{self, Write};
use std::net::Shutdown;
use std::time::Instant;

use super::Door;
use super::incoming::{Ended, Incoming};
use super::registry::Connection;
use super::stream::Stream;
use super::upstream::Answer;
use crate::api::http::{EVERY_REPLY, Reply};
use crate::api::status::{AtTheDoor, Refusal};

/// Serves one client until it leaves, falters or has to make room.
pub(super) fn serve(door: &Door, connection: &Connection, mut stream: Stream, peer: &str) {
    if stream.set_write_timeout(door.limits.take_time).is_err() {
        return;
    }
    let mut incoming = Incoming::new(stream.clone());
    loop {
        match one_request(door, connection, &mut incoming, &mut stream, peer) {
            Ok(true) if door.registry.answered(connection) => {}
            Ok(_) => {
                // A client that has the answer closes; until then nothing of it may be lost.
                stream.shutdown(Shutdown::Write);
                incoming.drain();
                return;
            }
            Err(Ended::Closed) => return,
            Err(Ended::Refused(refusal)) => {
                let reply = Refusal::from(refusal).into_reply();
                if send_whole(&mut stream, &own_answer(&reply), door).is_ok() {
                    stream.shutdown(Shutdown::Write);
                    incoming.drain();
                }
                return;
            }
        }
    }
}

/// Answers one request; says whether another may follow.
fn one_request(
    door: &Door,
    connection: &Connection,
    incoming: &mut Incoming,
    stream: &mut Stream,
    peer: &str,
) -> Result<bool, Ended> {
    incoming.first_byte(door.limits.idle_time)?;
    if !connection.begins_request() {
        return Err(Ended::Closed);
    }
    let deadline = Instant::now()
        .checked_add(door.limits.request_time)
        .ok_or(Ended::Closed)?;
    let head = incoming.head(&door.limits, deadline)?;
    if head.expects_continue && !incoming.has(head.body) {
        send_whole(stream, b"HTTP/1.1 100 Continue\r\n\r\n", door).map_err(|_| Ended::Closed)?;
    }
    let body = incoming.body(head.body, &door.limits, deadline)?;
    if !connection.request_is_whole() {
        return Err(Ended::Closed);
    }
    let writes = !matches!(head.method.as_str(), "GET" | "HEAD");
    let mut upstream = match door.pool.take(writes) {
        Ok(upstream) => upstream,
        Err(refusal) => {
            let reply = Refusal::from(refusal).into_reply();
            send_whole(stream, &own_answer(&reply), door).map_err(|_| Ended::Closed)?;
            return Ok(false);
        }
    };
    let answer = match upstream.exchange(&head, peer, &body) {
        Ok(answer) => answer,
        Err(error) => {
            door.death
                .report(&format!("a worker's connection broke: {error}"));
            return Err(Ended::Refused(AtTheDoor::Bug));
        }
    };
    door.pool.give(upstream, writes);
    let goes_on = head.keep_alive && !door.registry.is_stopping();
    send_whole(stream, &bytes_of(&answer, goes_on), door).map_err(|_| Ended::Closed)?;
    Ok(goes_on)
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

/// Writes all of `bytes` within the time that a client has to take an answer, however it doles it out.
fn send_whole(stream: &mut Stream, mut bytes: &[u8], door: &Door) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let written = stream.write(bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let left = door.limits.take_time.saturating_sub(begun.elapsed());
        if written == 0 || left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(left)?;
    }
}
