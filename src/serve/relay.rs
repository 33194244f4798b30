//! The way from a client's thread to tiny_http and back: which connection a request takes, and when.
//!
//! Changes share one connection, whose requests tiny_http hands to the change thread in the order in which they came.
//! A body that tiny_http does not read by itself would hold up those behind it, so such a change has a connection to
//! itself meanwhile, and so has each read: reads may be answered in another order than they came.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::pipeline::Pipeline;
use super::workers::{WorkerSettings, Workers};
use super::{FatalError, Handler};
use crate::api::Kind;
use crate::api::http::{CODE, REQUEST_ID, Request};
use crate::api::status::TransportError;
use crate::connections::{Connections, Lease, PROBES, Permits, READS, SEARCHES};

/// The header that carries the client's address to the worker. Of what a client sends no header of this name is passed
/// on.
pub(super) const PEER: &str = "X-Totpd-Peer";
/// Bodies that tiny_http reads with the head. Before it reads on, a longer one must have been read by a worker.
pub(super) const SHORT_BODY_BYTES: usize = 1024;
/// Changes with longer bodies that are in progress at once: few users are created with data of that size.
const LONG_CHANGES: usize = 4;

/// How many connections to tiny_http there are.
pub(super) const CONNECTIONS: usize = 1 + LONG_CHANGES + READ_CONNECTIONS;
/// One for each permit of reads, searches and readiness.
const READ_CONNECTIONS: usize = READS + SEARCHES + PROBES;

/// Connections of which each carries one request at a time.
type Pool = Mutex<Vec<Pipeline>>;

/// The connections to tiny_http.
pub(super) struct Relay {
    connections: Arc<Connections>,
    changes: Pipeline,
    long_changes: Pool,
    long_gate: Arc<Permits>,
    reads: Pool,
    workers: [Workers; 2],
    fatal: Arc<FatalError>,
}

impl Relay {
    /// Starts tiny_http and its workers twice, for changes and for reads, and opens the connections to them.
    pub(super) fn start(
        dir: &Path,
        commit_batch: usize,
        handler: &Arc<Handler>,
        shared: &Arc<Connections>,
        fatal: &Arc<FatalError>,
    ) -> io::Result<Self> {
        // One thread makes all changes that come over HTTP/1.1: while a commit is on its way to the disk the next ones
        // wait in the queue, and it takes them all at once. More threads would only have to be woken for each.
        let changes = WorkerSettings {
            name: "change",
            connections: LONG_CHANGES.saturating_add(1),
            threads: 1,
            batch: commit_batch,
        };
        let reads = WorkerSettings {
            name: "read",
            connections: READ_CONNECTIONS,
            threads: READS,
            batch: 1,
        };
        let start = |settings| Workers::start(dir, settings, handler, fatal);
        let (change_workers, mut changes) = start(changes)?;
        let (read_workers, reads) = start(reads)?;
        let first = changes.pop().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Self {
            connections: Arc::clone(shared),
            changes: first,
            long_changes: Mutex::new(changes),
            long_gate: Permits::new(LONG_CHANGES, shared.limits.waiting),
            reads: Mutex::new(reads),
            workers: [change_workers, read_workers],
            fatal: Arc::clone(fatal),
        })
    }

    /// Has a request answered by a worker. `lease` holds the memory of the answer. Runs on a `client` thread and blocks it
    /// meanwhile.
    pub(super) fn exchange(
        &self,
        kind: Kind,
        request: &Request<'_>,
        lease: &mut Lease,
    ) -> Result<Vec<u8>, TransportError> {
        let limits = &self.connections.limits;
        let wait = |gate: &Arc<Permits>| {
            let waiting = gate.acquire(request.peer).ok_or(TransportError::Busy)?;
            waiting.wait(limits.answer_time).ok_or(TransportError::Busy)
        };
        let gate = self.connections.gates.of(kind);
        if kind == Kind::Change {
            // Its answer is short.
            if request.body.len() <= SHORT_BODY_BYTES {
                let _permit = wait(gate)?;
                return self.over(&self.changes, request);
            }
            let _permits = (wait(&self.long_gate)?, wait(gate)?);
            return self.over_own(&self.long_changes, request);
        }
        let _permit = wait(gate)?;
        let mut reserve = |bytes: usize| {
            let no_memory = TransportError::no_answer_memory(bytes, limits.answer_memory_bytes);
            lease.resize(bytes).then_some(()).ok_or(no_memory)
        };
        reserve(kind.answer_bytes())?;
        let answer = self.over_own(&self.reads, request)?;
        reserve(answer.len())?;
        Ok(answer)
    }

    /// Sends a request over a connection that no other request uses meanwhile. There is one for each permit.
    fn over_own(&self, pool: &Pool, request: &Request<'_>) -> Result<Vec<u8>, TransportError> {
        let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = lock().pop().ok_or(TransportError::Bug)?;
        let answer = self.over(&connection, request);
        lock().push(connection);
        answer
    }

    fn over(&self, to: &Pipeline, request: &Request<'_>) -> Result<Vec<u8>, TransportError> {
        let answer = to.exchange(&bytes_of(request));
        answer.map_err(|error| {
            let why = format!("a worker's connection broke: {error}");
            self.fatal.report(&why);
            TransportError::Bug
        })
    }

    /// Tells the workers to end.
    pub(super) fn stop(&self) {
        self.workers.iter().for_each(Workers::stop);
    }
}

/// The request as tiny_http reads it. Of what the client sent in its head, only what stands here is passed on.
fn bytes_of(request: &Request<'_>) -> Vec<u8> {
    let client = request.peer.map(|it| it.to_string());
    let length = request.body.len().to_string();
    let mut bytes = Vec::with_capacity(request.body.len().saturating_add(512));
    let mut push = |parts: &[&str]| {
        for part in parts {
            bytes.extend_from_slice(part.as_bytes());
        }
    };
    push(&[request.method, " ", request.target, " HTTP/1.1\r\n"]);
    for (name, value) in [
        ("Host", Some("totpd")),
        ("Content-Length", Some(length.as_str())),
        (PEER, client.as_deref()),
        (REQUEST_ID, request.request_id),
        ("Authorization", request.authorization),
        ("Content-Type", request.content_type),
        ("Origin", request.origin),
        (CODE, request.code),
    ] {
        if let Some(value) = value {
            push(&[name, ": ", value, "\r\n"]);
        }
    }
    push(&["\r\n"]);
    bytes.extend_from_slice(request.body);
    bytes
}
