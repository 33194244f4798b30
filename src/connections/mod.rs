//! Accepted sockets, for both front ends: TLS, limits, which connection is closed for a new one, how much memory
//! requests may hold, and whose request it is. Knows neither HTTP nor users.

mod connection;
mod counts;
pub(crate) mod descriptors;
mod forwarded;
pub(crate) mod listen;
mod memory;
mod permits;
mod registry;
mod request_ids;
pub(crate) mod tls;
pub(crate) mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "grpc")]
pub(crate) use connection::{Connection, Health};
pub(crate) use connection::{InFlight, Peer};
pub(crate) use counts::{RefusalCounts, RefusalReason};
pub use forwarded::Cidr;
use forwarded::last_untrusted_hop;
#[cfg(feature = "grpc")]
pub(crate) use memory::Share;
pub(crate) use memory::{Lease, MemoryBudget};
#[cfg(feature = "grpc")]
pub(crate) use permits::Permit;
pub(crate) use permits::{Gates, PROBES, Permits, READS, SEARCHES};
pub(crate) use registry::{ConnectionGuard, Registry};
pub(crate) use request_ids::RequestIds;
use socket2::Socket;
use tls::Tls;

/// A client's socket, TCP or Unix. The client's thread or the runtime reads and writes, and the registry may shut it down.
///
/// Writing to a client that is gone raises SIGPIPE, which Rust's runtime ignores.
pub(crate) type Stream = Arc<Socket>;

/// Limits of one client, and of all together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all: each costs a thread. One of HTTP/2 counts as four.
    pub connections: usize,
    /// Connections of one address (IPv6: of one /64), so that no one host takes them all.
    pub connections_per_peer: usize,
    /// A request's line and headers: tokens and ids are short.
    pub head_bytes: usize,
    /// A request's body: the largest is a user's data.
    pub body_bytes: usize,
    /// From the first byte of a request to its last, however slowly it drips.
    pub request_time: Duration,
    /// How long a whole request waits for its turn.
    pub answer_time: Duration,
    /// How long a client may be silent between requests.
    pub idle_time: Duration,
    /// How long a client has to take an answer, in all.
    pub take_time: Duration,
    /// Requests of a kind (changes, reads, searches, readiness) that wait for their turn. The next one is refused with 503.
    /// A quarter of them may be of one address.
    pub waiting: usize,
    /// Memory of all requests together, beyond a share that each connection has for itself.
    pub request_memory_bytes: usize,
    /// The same for all answers, from before they are built until they are taken. It is a budget of its own, so that
    /// unfinished requests keep no answer from others.
    pub answer_memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 128,
            head_bytes: 16 * 1024,
            body_bytes: 64 * 1024,
            request_time: Duration::from_secs(10),
            answer_time: Duration::from_secs(10),
            idle_time: Duration::from_mins(1),
            take_time: Duration::from_secs(10),
            waiting: 512,
            request_memory_bytes: 8 * 1024 * 1024,
            answer_memory_bytes: 24 * 1024 * 1024,
        }
    }
}

/// What all connections share.
pub(crate) struct Connections {
    pub(crate) limits: Limits,
    pub(crate) trusted_proxies: Vec<Cidr>,
    pub(crate) tls: Option<Tls>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) requests: MemoryBudget,
    pub(crate) answers: MemoryBudget,
    pub(crate) gates: Gates,
    pub(crate) request_ids: RequestIds,
}

/// Whose request it is. Where a trusted proxy named the client, the request is counted as its own until this is dropped.
pub(crate) struct RequestClient {
    pub(crate) address: Option<IpAddr>,
    counted_by: Option<Arc<Registry>>,
}

impl Drop for RequestClient {
    fn drop(&mut self) {
        if let (Some(registry), Some(address)) = (&self.counted_by, self.address) {
            registry.uncount_named(address);
        }
    }
}

impl Connections {
    pub(crate) fn new(
        limits: Limits,
        trusted_proxies: Vec<Cidr>,
        tls: Option<Tls>,
        changes_at_once: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry: Registry::new(&limits),
            requests: MemoryBudget::new(limits.request_memory_bytes),
            answers: MemoryBudget::new(limits.answer_memory_bytes),
            gates: Gates::new(changes_at_once, limits.waiting),
            request_ids: RequestIds::default(),
            limits,
            trusted_proxies,
            tls,
        })
    }

    /// Finds the client of a request that came from `peer` with this `X-Forwarded-For`; `None` if that client has too many
    /// requests in progress. Clients behind a proxy share its connections, so their requests are counted instead.
    pub(crate) fn client(&self, peer: Peer, forwarded_for: &str) -> Option<RequestClient> {
        let named = peer
            .is_trusted
            .then(|| last_untrusted_hop(forwarded_for, &self.trusted_proxies))
            .flatten();
        let may_begin = named.is_none_or(|it| self.registry.count_named(it));
        may_begin.then(|| RequestClient {
            address: named.or(peer.address),
            counted_by: named.map(|_| Arc::clone(&self.registry)),
        })
    }

    /// Whether a peer at this address is a trusted proxy.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|it| it.holds(address))
    }
}

/// What an address stands for: an IPv6 host has a whole /64 to itself, and an IPv4-mapped address is IPv4.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(it) => {
            let host_bits = u128::from(u64::MAX);
            IpAddr::V6((it.to_bits() & !host_bits).into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
