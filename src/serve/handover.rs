//! Connections that speak HTTP/2: from the door's hands into the room of gRPC, and still counted here.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Accepted;

use super::forwarded::last_untrusted_hop;
use super::seat::{Peer, Seat};
use super::stream::Stream;
use super::{Door, Limits};
use crate::api::status::AtTheDoor;
use crate::grpc::{self, Client, Guest, Phase, Place};

/// Hands a connection over, with what was read of it or with the handshake that was begun.
pub(super) fn hand_over(
    seat: Seat,
    peer: Peer,
    stream: Stream,
    first: Vec<u8>,
    tls: Option<(Accepted, Arc<ServerConfig>)>,
) {
    if let Err(error) = stream.set_nonblocking() {
        log::warn!("a connection cannot be handed over: {error}");
        return;
    }
    let door = Arc::clone(&seat.door);
    if !door.registry.hands_over(&seat.connection, &door.limits) {
        return;
    }
    let place = Box::new(Counted { seat, peer });
    place.is_now(Phase::Idle);
    door.grpc.welcome(Guest {
        socket: stream,
        first,
        tls,
        place,
    });
}

/// What of the door's limits concerns the room.
pub(super) fn limits(limits: &Limits, workers: usize, commit_batch: usize) -> grpc::Limits {
    grpc::Limits {
        message_bytes: limits.body_bytes,
        head_bytes: limits.head_bytes,
        request_time: limits.request_time,
        answer_time: limits.answer_time,
        idle_time: limits.idle_time,
        take_time: limits.take_time,
        waiting: limits.waiting,
        workers,
        commit_batch,
    }
}

/// A seat at the door of one who is in another room.
struct Counted {
    seat: Seat,
    peer: Peer,
}

impl Place for Counted {
    fn is_now(&self, phase: Phase) {
        let Seat { door, connection } = &self.seat;
        door.registry.is_now(connection, phase);
    }

    fn client(&self, forwarded_for: &str) -> Result<Client, AtTheDoor> {
        let door: &Door = &self.seat.door;
        let named = self
            .peer
            .is_trusted
            .then(|| last_untrusted_hop(forwarded_for, &door.trusted_proxies))
            .flatten();
        let count = |it: IpAddr| door.registry.progress(it, &door.limits);
        let counted = named.map(count).transpose()?;
        let counted = counted.map(|it| -> Box<dyn Send> { Box::new(it) });
        Ok(Client::new(named.or(self.peer.address), counted))
    }
}
