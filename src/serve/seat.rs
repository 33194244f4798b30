//! A client's place at the door: who it is, and that it is counted.

use std::net::IpAddr;
use std::sync::Arc;

use super::Door;
use super::registry::Connection;

/// Who is at the other end.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    /// The socket's address; a Unix socket has none.
    pub(super) address: Option<IpAddr>,
    /// Whether it is a proxy whose word about its own clients counts.
    pub(super) is_trusted: bool,
}

/// A connection's seat among those that the registry counts, until this is dropped.
pub(super) struct Seat {
    pub(super) door: Arc<Door>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.door.registry.leave(&self.connection);
    }
}
