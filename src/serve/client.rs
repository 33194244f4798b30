//! One client of HTTP/1.1, on a `client` thread of its own: reads a whole request, has a worker answer it, writes the
//! answer, and begins anew.

use std::thread;

use super::FrontEnd;
use super::answer::{close_after, head_of};
use super::head::RequestHead;
use super::incoming::{Ended, Incoming};
use crate::api::http::{Reply, Request, Via};
use crate::api::status::TransportError;
use crate::api::{self, Kind};
use crate::connections::wire::{DeadlineSocket, Wire};
use crate::connections::{ConnectionGuard, InFlight, Lease, RefusalReason};
#[cfg(feature = "grpc")]
use crate::grpc::Handover;
use crate::model::RequestId;
use crate::web::TLS_HEADER;

/// What a request may hold of memory whatever the others hold: nearly every one is shorter.
const OWN_BYTES: usize = 8 * 1024;

/// Serves one client until it leaves, is refused, is closed in favour of another, or turns out to speak HTTP/2. The whole
/// of a `client` thread.
pub(super) fn serve(front: &FrontEnd, connection: ConnectionGuard, speaks_tls: bool) {
    let Some((connection, wire)) = handshake(front, connection, speaks_tls) else {
        return;
    };
    let shared = &front.connections;
    let lease = shared.requests.single(OWN_BYTES);
    let client = Client {
        front,
        incoming: Incoming::new(wire, &shared.limits, lease),
        answer_lease: shared.answers.single(OWN_BYTES),
        connection,
    };
    #[cfg(feature = "grpc")]
    let Some((mut client, mut begun)) = hand_over_http2(client) else {
        return;
    };
    #[cfg(not(feature = "grpc"))]
    let (mut client, mut begun) = (client, None);
    loop {
        if begun.is_none() && client.incoming.first_byte().is_err() {
            return;
        }
        let request = begun.take().or_else(|| client.connection.begin());
        if !request.is_some_and(|it| client.serve_request(it)) {
            return;
        }
    }
}

/// Does the TLS handshake, where there is TLS. A slow client keeps only its own thread waiting.
fn handshake(
    front: &FrontEnd,
    connection: ConnectionGuard,
    speaks_tls: bool,
) -> Option<(ConnectionGuard, Wire)> {
    let stream = connection.stream.clone();
    let Some(tls) = front.connections.tls.as_ref().filter(|_| speaks_tls) else {
        return Some((connection, Wire::plain(stream)));
    };
    let mut in_flight = connection.begin()?;
    let failed = |error| {
        front.connections.registry.refusals.note(RefusalReason::Tls);
        log::debug!("a TLS handshake failed: {error}");
    };
    let mut socket = DeadlineSocket::new(stream, front.connections.limits.request_time);
    let accepted = socket.client_hello().map_err(failed).ok()?;
    let config = tls.config();
    #[cfg(feature = "grpc")]
    if crate::connections::tls::wants_http2(&accepted.client_hello()) {
        drop(in_flight);
        hand_over(front, connection, Handover::Tls(Box::new(accepted), config));
        return None;
    }
    let wire = Wire::tls(socket, accepted, config).map_err(failed).ok()?;
    in_flight.received().then_some((connection, wire))
}

/// Waits for the client's first bytes, and hands the connection over if they are HTTP/2's. If not, returns the request
/// that began with them.
#[cfg(feature = "grpc")]
fn hand_over_http2(mut client: Client<'_>) -> Option<(Client<'_>, Option<InFlight>)> {
    if client.incoming.wire.is_tls() {
        return Some((client, None));
    }
    client.incoming.first_byte().ok()?;
    let request = client.connection.begin()?;
    match client.incoming.http2(request.begun()) {
        // A client that is too slow here is refused where requests are read.
        Ok(None) | Err(Ended::Refused(_)) => Some((client, Some(request))),
        Ok(Some(first)) => {
            drop(request);
            hand_over(client.front, client.connection, Handover::Plain(first));
            None
        }
        Err(Ended::Closed) => None,
    }
}

/// Passes a connection on to the `grpc` thread, which reads and writes it from here on.
#[cfg(feature = "grpc")]
fn hand_over(front: &FrontEnd, connection: ConnectionGuard, begun: Handover) {
    if let Err(error) = connection.stream.set_nonblocking(true) {
        log::warn!("a connection cannot be handed over: {error}");
        return;
    }
    if front.connections.registry.count_as_http2(&connection) {
        front.grpc.take_over(connection, begun);
    }
}

/// What a `client` thread has of its client.
struct Client<'a> {
    front: &'a FrontEnd,
    incoming: Incoming<'a>,
    /// The memory of the answer.
    answer_lease: Lease,
    connection: ConnectionGuard,
}

impl Client<'_> {
    /// Reads and answers one request. Returns whether another may follow.
    fn serve_request(&mut self, mut request: InFlight) -> bool {
        let mut head = RequestHead::default();
        let outcome = self.exchange(&mut request, &mut head);
        self.incoming.end();
        self.answer_lease.resize(0);
        match outcome {
            Ok(true) if request.finish() => return true,
            Ok(_) => self.leave(request),
            Err(Ended::Closed) => {}
            Err(Ended::Refused(refusal)) => self.refuse(refusal, request, &head),
        }
        false
    }

    /// Reads one request, and answers it unless it is refused. Returns whether the connection stays open. `head` is then
    /// what could be read of the head.
    fn exchange(&mut self, request: &mut InFlight, head: &mut RequestHead) -> Result<bool, Ended> {
        self.incoming.begin(request.begun())?;
        let read = self.incoming.head(head);
        let sent_id = head.request_id.take();
        let ids = &self.front.connections.request_ids;
        let request_id = ids.choose(self.connection.peer, sent_id);
        head.request_id = Some(request_id.clone());
        read?;
        // What will be refused for its length is not asked for.
        if head.expects_continue && self.incoming.awaits(head.body) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = self.incoming.body(head.body)?;
        if !request.received() {
            return Err(Ended::Closed);
        }
        let mut answer = self.answer(head, &body, &request_id)?;
        request.responded();
        let keep_alive = head.keep_alive && !request.is_last();
        if !keep_alive {
            close_after(&mut answer);
        }
        self.send(&answer)?;
        Ok(keep_alive)
    }

    /// Has a complete request answered: by a worker, or `/debug/healthz` and the pages on this thread, where no worker, lock
    /// or disk can delay it.
    fn answer(
        &mut self,
        head: &RequestHead,
        body: &[u8],
        request_id: &RequestId,
    ) -> Result<Vec<u8>, TransportError> {
        let mut request = Request {
            via: Via::Http,
            method: &head.method,
            target: &head.target,
            authorization: head.authorization.as_deref(),
            content_type: head.content_type.as_deref(),
            origin: head.origin.as_deref(),
            code: head.code.as_deref(),
            body,
            peer: None,
            request_id: Some(request_id.as_str()),
        };
        let kind = api::kind(request.method, request.target, request.content_type);
        if matches!(kind, Kind::Liveness | Kind::Page) {
            // Clients that ask for nothing else, again and again, give way to those who have just come.
            thread::yield_now();
            let mut reply = self.front.handler.reply_to(&request)?;
            if kind == Kind::Page && self.incoming.wire.is_tls() {
                let (name, value) = TLS_HEADER;
                reply.headers.push((name, value.to_owned()));
            }
            self.reserve(reply.body.len())?;
            return Ok(self.own_answer(&reply, head, request_id));
        }
        let shared = &self.front.connections;
        let client = shared.client(self.connection.peer, &head.forwarded_for);
        let client = client.ok_or(TransportError::Busy)?;
        request.peer = client.address;
        let relay = &self.front.relay;
        relay.exchange(kind, &request, &mut self.answer_lease)
    }

    /// Reserves the memory of an answer.
    fn reserve(&mut self, bytes: usize) -> Result<(), TransportError> {
        let budget = self.front.connections.limits.answer_memory_bytes;
        let no_memory = TransportError::no_answer_memory(bytes, budget);
        let is_reserved = self.answer_lease.resize(bytes);
        is_reserved.then_some(()).ok_or(no_memory)
    }

    /// Tells the client why its request is refused, in the form that it asked for as far as that was read.
    fn refuse(&mut self, refusal: TransportError, mut request: InFlight, head: &RequestHead) {
        let (content_type, origin) = (head.content_type.as_deref(), head.origin.as_deref());
        self.front
            .connections
            .registry
            .refusals
            .note_refusal(refusal);
        let reply = self.front.handler.refuse(refusal, content_type, origin);
        let ids = &self.front.connections.request_ids;
        let request_id = head.request_id.clone().unwrap_or_else(|| ids.make());
        let mut answer = self.own_answer(&reply, head, &request_id);
        close_after(&mut answer);
        // A refused client may be closed in favour of others like one that has not asked yet.
        request.linger();
        if self.send(&answer).is_ok() {
            self.leave(request);
        }
    }

    /// An answer that no worker gives.
    fn own_answer(&self, reply: &Reply, head: &RequestHead, request_id: &RequestId) -> Vec<u8> {
        let mut answer = head_of(reply, request_id.as_str(), self.front.handler.now()).into_bytes();
        if head.method != "HEAD" {
            answer.extend_from_slice(&reply.body);
        }
        answer
    }

    /// Writes an answer within the time that a client has to take it.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let take_time = self.front.connections.limits.take_time;
        let sent = self.incoming.wire.write_all(bytes, take_time);
        sent.map_err(|_| Ended::Closed)
    }

    /// Waits for a client that has its last answer to close: closing first could lose the end of the answer.
    fn leave(&mut self, mut request: InFlight) {
        request.linger();
        let take_time = self.front.connections.limits.take_time;
        self.incoming.wire.finish(take_time);
        self.incoming.drain();
    }
}
