//! All open connections, and which of them is closed when a new one would exceed a limit.
//!
//! An `accept` thread admits a connection, its `client` thread has it counted as HTTP/2, and the guard takes it out where it
//! ends: on its `client` thread or in its task on `grpc`. The main thread stops all. They share one lock, and take the lock
//! of a single connection only inside it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[cfg(feature = "grpc")]
use super::connection::HTTP2_WEIGHT;
use super::connection::{Connection, Peer};
use super::{Limits, RefusalCounts, RefusalReason, Stream, block};

/// A client is slow if it has taken more than this part of the time that a request may take: half a second, by default.
const SLOW_PART: u32 = 20;

/// Where no connection has been without a request for longer than this, that is a flood, and its order does not tell
/// which client is honest.
const RECENT: Duration = Duration::from_secs(1);

/// How long requests that are not complete may take once the server stops.
const STOP_UNFINISHED: Duration = Duration::from_secs(2);

/// All open connections.
pub(crate) struct Registry {
    connections: usize,
    connections_per_peer: usize,
    slow: Duration,
    table: Mutex<Table>,
    left: Condvar,
    /// Of connections, and of requests on them.
    pub(crate) refusals: RefusalCounts,
}

/// How many connections there are.
pub(crate) struct ConnectionTotals {
    pub(crate) http1: usize,
    pub(crate) http2: usize,
    /// The most that there can be; each of HTTP/2 counts as four.
    pub(crate) limit: usize,
}

struct Table {
    is_stopping: bool,
    next_id: u64,
    connections: HashMap<u64, Arc<Connection>>,
    /// Requests in progress of each client that a trusted proxy names.
    named: HashMap<IpAddr, usize>,
}

impl Table {
    fn weight(&self, of: impl Fn(&Connection) -> bool) -> usize {
        let counted = self.connections.values().filter(|it| of(it));
        counted.map(|it| it.weight()).sum()
    }
}

/// A connection that is counted until this is dropped. The thread or task that serves the connection holds it.
pub(crate) struct ConnectionGuard {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl Deref for ConnectionGuard {
    type Target = Arc<Connection>;

    fn deref(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.registry.lock().connections.remove(&self.connection.id);
        self.registry.left.notify_all();
    }
}

impl Registry {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            connections: limits.connections,
            connections_per_peer: limits.connections_per_peer,
            slow: limits
                .request_time
                .checked_div(SLOW_PART)
                .unwrap_or_default(),
            table: Mutex::new(Table {
                is_stopping: false,
                next_id: 0,
                connections: HashMap::new(),
                named: HashMap::new(),
            }),
            left: Condvar::new(),
            refusals: RefusalCounts::new(),
        })
    }

    /// Admits a new connection, closing others if it must; `None` where none can be closed.
    pub(crate) fn admit(self: &Arc<Self>, stream: Stream, peer: Peer) -> Option<ConnectionGuard> {
        let mut table = self.lock();
        if table.is_stopping {
            return None;
        }
        let connection = Connection::new(table.next_id, peer, stream);
        self.make_room(&mut table, &connection, 1)?;
        table.next_id = connection.id.wrapping_add(1);
        let counted = Arc::clone(&connection);
        table.connections.insert(connection.id, counted);
        Some(ConnectionGuard {
            registry: Arc::clone(self),
            connection,
        })
    }

    /// Counts a connection as one of HTTP/2, closing others if it must. Returns `false` where none can be closed.
    #[cfg(feature = "grpc")]
    pub(crate) fn count_as_http2(&self, connection: &Connection) -> bool {
        let mut table = self.lock();
        // One that was closed meanwhile takes nothing from others.
        let more = HTTP2_WEIGHT.saturating_sub(1);
        let has_room = table.connections.contains_key(&connection.id)
            && self.make_room(&mut table, connection, more).is_some();
        if has_room {
            connection.set_http2();
        }
        has_room
    }

    /// Counts a request of a client that a trusted proxy names. Returns `false` if it has too many in progress.
    pub(super) fn count_named(&self, client: IpAddr) -> bool {
        let mut table = self.lock();
        let count = table.named.entry(block(client)).or_insert(0);
        let may_begin = *count < self.connections_per_peer;
        *count = count.saturating_add(usize::from(may_begin));
        may_begin
    }

    /// A request that was counted so has ended.
    pub(super) fn uncount_named(&self, client: IpAddr) {
        let (mut table, block) = (self.lock(), block(client));
        let left = table.named.get(&block).map_or(0, |it| it.saturating_sub(1));
        if left == 0 {
            table.named.remove(&block);
        } else {
            table.named.insert(block, left);
        }
    }

    /// Closes connections until `more` weight for `connection` is within the limits: first those of its own address, then
    /// those of any address, but never itself. `None` where none can be closed.
    fn make_room(&self, table: &mut Table, connection: &Connection, more: usize) -> Option<()> {
        let is_other = |it: &Connection| it.id != connection.id;
        let is_own = |it: &Connection| it.block.is_some() && it.block == connection.block;
        while table.weight(is_own).saturating_add(more) > self.connections_per_peer {
            // Its idle connections, and then its slow ones. An honest request comes in milliseconds, and without this a
            // slow client would shut out all others of its address.
            let now = Instant::now();
            let may = |it: &Connection| is_own(it) && is_other(it);
            let idle = |it: &Connection| may(it) && it.is_idle();
            let slow = |it: &Connection| may(it) && it.is_slow(now, self.slow);
            close_first(table, idle, |_| ())
                .or_else(|| close_first(table, slow, |_| ()))
                .or_else(|| self.refuse(RefusalReason::PeerLimit))?;
        }
        while table.weight(|_| true).saturating_add(more) > self.connections {
            close_one_of_all(table, is_other).or_else(|| self.refuse(RefusalReason::Limit))?;
        }
        Some(())
    }

    /// Counts a connection that cannot be admitted.
    fn refuse(&self, reason: RefusalReason) -> Option<()> {
        self.refusals.note(reason);
        None
    }

    pub(crate) fn totals(&self) -> ConnectionTotals {
        let table = self.lock();
        let http2 = table.connections.values().filter(|it| it.is_http2());
        let http2 = http2.count();
        ConnectionTotals {
            http1: table.connections.len().saturating_sub(http2),
            http2,
            limit: self.connections,
        }
    }

    /// Closes one connection where the process has run out of descriptors or memory.
    pub(crate) fn shed(&self) {
        let _closed = close_one_of_all(&mut self.lock(), |_| true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Admits no more connections, and closes the idle ones. The server stops.
    pub(crate) fn close(&self) {
        let mut table = self.lock();
        table.is_stopping = true;
        for connection in table.connections.values() {
            connection.stop();
        }
    }

    /// Waits on the main thread until all clients have left, and returns whether they had. Requests that are not complete
    /// have a part of that time.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        let unfinished = within.min(STOP_UNFINISHED);
        if self.wait_until_empty(unfinished) {
            return true;
        }
        for connection in self.lock().connections.values() {
            connection.close_unfinished();
        }
        self.wait_until_empty(within.saturating_sub(unfinished))
    }

    fn wait_until_empty(&self, within: Duration) -> bool {
        let (table, _) = self
            .left
            .wait_timeout_while(self.lock(), within, |it| !it.connections.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        table.connections.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection that was longest without a request, but in a flood one of the address that holds most: where as
/// many connections as are allowed come within a moment, the oldest may well be one that sends request after request.
fn close_one_of_all(table: &mut Table, may: impl Fn(&Connection) -> bool) -> Option<()> {
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    for connection in table.connections.values() {
        if let Some(block) = connection.block {
            let weight = held.entry(block).or_insert(0);
            *weight = weight.saturating_add(connection.weight());
        }
    }
    close_first(table, may, |it| {
        let is_recent = it.last_request().elapsed() <= RECENT;
        let weight = it.block.and_then(|it| held.get(&it)).copied();
        is_recent.then_some(Reverse(weight.unwrap_or(0)))
    })
}

/// Closes the first connection in an order, and of equals the one that was longest without a request, that `may` be
/// closed and can be.
fn close_first<O: Ord>(
    table: &mut Table,
    may: impl Fn(&Connection) -> bool,
    order: impl Fn(&Connection) -> O,
) -> Option<()> {
    let may_close = table.connections.values().filter(|it| may(it));
    let mut candidates: Vec<_> = may_close
        .map(|it| (order(it), it.last_request(), it.id))
        .collect();
    candidates.sort_unstable();
    let now = Instant::now();
    let closed = candidates.into_iter().map(|(_, _, id)| id).find(|id| {
        let connection = table.connections.get(id);
        connection.is_some_and(|it| it.close(now))
    })?;
    table.connections.remove(&closed);
    Some(())
}

#[cfg(all(test, feature = "grpc"))]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_connection_that_was_closed_while_it_was_handed_over_takes_nothing_from_others() {
        let registry = Registry::new(&Limits {
            connections: 4,
            ..Limits::default()
        });
        let mut others = Vec::new();
        let mut admit = || {
            let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
            others.push(theirs);
            let peer = Peer {
                address: None,
                is_trusted: false,
            };
            registry.admit(Arc::new(ours), peer).unwrap()
        };
        let first = admit();
        let request = first.begin().unwrap();
        registry.shed();
        let rest: Vec<_> = (0..4).map(|_| admit()).collect();
        assert!(!registry.count_as_http2(&first));
        assert!(rest.iter().all(|it| it.is_idle()));
        // One that is still there does, at the expense of all others here.
        assert!(registry.count_as_http2(&rest[0]));
        assert_eq!(registry.lock().connections.len(), 1);
        drop(request);
    }
}
