//! gRPC over HTTP/2: connections that the front door hands over, on a runtime of one thread of its own.
//!
//! The only room with an async runtime, which carries bytes and waits, and nothing else: reads run on a bounded
//! number of blocking threads and all changes on one, through the same [`Handler`] as REST. This room knows framing,
//! deadlines and limits, and nothing of users or codes. Who is admitted, and who has to make room, is the front
//! door's to say; what it wants to know of a connection that it has handed over it is told through [`Place`].

mod call;
mod codec;
mod connection;
mod hold;
mod pulse;
mod queue;
mod reflection;
mod socket;

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::server::Accepted;
use tokio::sync::{mpsc, watch};

use crate::api::handler::Handler;
use crate::api::status::AtTheDoor;
use queue::Queue;
use reflection::Reflection;

/// What every HTTP/2 connection begins with, if its client knows beforehand that HTTP/2 is spoken (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the blocking threads need: as much as the workers of REST.
const STACK_BYTES: usize = 512 * 1024;
/// How long blocking threads may finish after everyone has left.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// What one connection, and all of them, may take.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// A message, as long as a body may be on REST.
    pub(crate) message_bytes: usize,
    /// The headers of one request.
    pub(crate) head_bytes: usize,
    /// From a request's first byte to its last.
    pub(crate) request_time: Duration,
    /// How long a whole request waits for a thread.
    pub(crate) answer_time: Duration,
    /// How long a connection may be there without a whole request.
    pub(crate) idle_time: Duration,
    /// How long a client has to take an answer.
    pub(crate) take_time: Duration,
    /// Changes that wait for their turn, and reads that wait for a thread.
    pub(crate) waiting: usize,
    /// Reads that are worked on at once, each on a thread; and as many changes, all on one.
    pub(crate) workers: usize,
    /// Changes that share a commit, at most.
    pub(crate) commit_batch: usize,
}

/// What a connection is about, as far as making room goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No request is under way.
    Idle,
    /// It is the client's turn, since then: to send the rest of a request, or to take an answer.
    Waiting(Instant),
    /// A whole request is worked on.
    Working,
}

/// A connection's place among those that the front door counts, until this is dropped.
///
/// A trait, and not the door's own type, since this room is below the door's.
pub(crate) trait Place: Send + Sync {
    /// Says what the connection is about now. It may have been cut; then the socket is shut down anyway.
    fn is_now(&self, phase: Phase);
    /// Whose request it is that came with this `X-Forwarded-For`, counted among that client's until what is
    /// returned is dropped.
    fn client(&self, forwarded_for: &str) -> Result<Client, AtTheDoor>;
}

/// Whose request it is.
pub(crate) struct Client {
    address: Option<IpAddr>,
    _counted: Option<Box<dyn Send>>,
}

impl Client {
    /// A client at that address; `counted` counts the request as long as it is there.
    pub(crate) fn new(address: Option<IpAddr>, counted: Option<Box<dyn Send>>) -> Self {
        Self {
            address,
            _counted: counted,
        }
    }
}

/// A connection that is handed over.
pub(crate) struct Guest<S> {
    pub(crate) socket: S,
    /// What was read of it already.
    pub(crate) first: Vec<u8>,
    /// The handshake that has begun, if there is TLS.
    pub(crate) tls: Option<(Accepted, Arc<ServerConfig>)>,
    pub(crate) place: Box<dyn Place>,
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Everyone is told to go, and what was begun is answered.
    Closing,
    Ended,
}

/// The room, while it is open.
pub(crate) struct Room<S> {
    handing: mpsc::UnboundedSender<Guest<S>>,
    stage: watch::Sender<Stage>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: AsRawFd + Read + Write + Send + Sync + Unpin + 'static> Room<S> {
    /// Opens the room. `on_death` is called if it ends without being told to.
    pub(crate) fn open(
        handler: Arc<Handler>,
        limits: Limits,
        on_death: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // One more for the changes.
            .max_blocking_threads(limits.workers.max(1).saturating_add(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("grpc-worker")
            .build()?;
        let reflection = Reflection::new().map_err(io::Error::other)?;
        // Without a bound, but the door hands over no more connections than it admits.
        let (handing, mut handed) = mpsc::unbounded_channel::<Guest<S>>();
        let (stage, mut staged) = watch::channel(Stage::Open);
        let run = move || {
            let (bringing, brought) = mpsc::unbounded_channel();
            let (batch, maker) = (limits.commit_batch.max(1), Arc::clone(&handler));
            let queue = Queue::new(handler, limits, reflection, bringing.downgrade());
            let queue = Arc::new(queue);
            let mut making = runtime.spawn_blocking(move || queue::make(brought, batch, &maker));
            runtime.block_on(async move {
                let of_guests = staged.clone();
                loop {
                    tokio::select! {
                        guest = handed.recv() => match guest {
                            Some(guest) => {
                                let (queue, stage) = (Arc::clone(&queue), of_guests.clone());
                                tokio::spawn(connection::serve(guest, queue, stage));
                            }
                            None => return,
                        },
                        _ = staged.wait_for(|it| *it == Stage::Ended) => return,
                        _ = &mut making => return,
                    }
                }
            });
            // Or whoever makes changes would wait for more.
            drop(bringing);
            runtime.shutdown_timeout(LAST_CALLS);
        };
        let expected = stage.subscribe();
        let thread = thread::Builder::new()
            .name("grpc".to_owned())
            .spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(run));
                if ended.is_err() || *expected.borrow() == Stage::Open {
                    on_death("the room of gRPC has ended");
                }
            })?;
        Ok(Self {
            handing,
            stage,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes a connection over.
    pub(crate) fn welcome(&self, guest: Guest<S>) {
        // Where the room is gone, so is the connection.
        let _taken = self.handing.send(guest);
    }

    /// Tells everyone to go. What was begun is answered.
    pub(crate) fn close(&self) {
        let _told = self.stage.send(Stage::Closing);
    }

    /// Ends the room, and whoever is still in it.
    pub(crate) fn end(&self) {
        let _told = self.stage.send(Stage::Ended);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ended = thread.join();
        }
    }
}
