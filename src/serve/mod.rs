//! The front door: public sockets, limits of bytes and time, and a pool of workers behind them.
//!
//! tiny_http must not face a network bare: it has no timeouts and no limits, and it starves a burst of
//! clients. So the door owns the public sockets. A thread for each client reads one whole request, refuses
//! what is malformed, ambiguous or too much, hands it to a worker over one of a fixed number of private
//! connections, and writes the answer back. This room knows HTTP framing, and nothing of users, codes or
//! JSON; signals, environment and clock are the command line's.

mod client;
mod descriptors;
mod forwarded;
#[cfg(feature = "grpc")]
mod handover;
mod head;
mod incoming;
mod listen;
mod registry;
mod seat;
mod stream;
mod tls;
mod upstream;
mod wire;
mod workers;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

pub use crate::api::handler::Handler;
#[cfg(feature = "grpc")]
use crate::grpc;
use crate::memory::Pool as Memory;
pub use forwarded::Cidr;
use head::Head;
pub use listen::{Bound, Inherited, Listen};
use listen::{Listener, Terms};
use registry::Registry;
use seat::{Peer, Seat};
use stream::Stream;
use tls::Tls;
pub use tls::TlsFiles;
use upstream::Pool;
use workers::{Lane, Workers};

/// A client's thread only parses and copies, its buffers are on the heap; a TLS handshake needs most of this.
const CLIENT_STACK_BYTES: usize = 256 * 1024;
/// Reads that are worked on at once, at most.
const READS: Lane = Lane {
    name: "read",
    connections: 32,
    // More than there are connections of the database to read with would wait for one.
    threads: 8,
    batch: 1,
};
/// What each body may hold by itself: nearly every one is shorter.
const OWN_BODY_BYTES: usize = 8 * 1024;
/// What all bodies may hold beyond that: as much as messages of gRPC may. A thousand that are never finished would be
/// eight times as much.
const SHARED_BODY_BYTES: usize = 8 * 1024 * 1024;
/// How long the accepting thread rests after an error that shedding a connection did not cure.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What one client, and all of them, may take.
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
    /// How long a whole request waits for a worker.
    pub answer_time: Duration,
    /// How long a client may be silent between requests.
    pub idle_time: Duration,
    /// How long a client has to take an answer, in all.
    pub take_time: Duration,
    /// Requests that wait for a worker: the next is told to come back.
    pub waiting: usize,
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
        }
    }
}

/// How to serve.
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Sockets that listen already.
    pub inherited: Vec<Inherited>,
    /// Certificate and key, where TCP clients are to speak TLS.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Cidr>,
    /// The mode of Unix sockets. Where it lets others in, `X-Forwarded-For` does not count there.
    pub unix_mode: u32,
    /// A directory that only this user can look into: for the moment of starting a socket stands there.
    pub private_dir: PathBuf,
    /// Changes that are worked on at once, at most.
    pub changes: usize,
    /// Changes that share a commit, at most.
    pub commit_batch: usize,
    /// What clients may take.
    pub limits: Limits,
    /// Plain HTTP on an address that is not loopback needs this to be said.
    pub insecure_plaintext: bool,
    /// Called once if the side behind the door has died: the process cannot serve any more.
    pub on_death: Box<dyn Fn(&str) + Send + Sync>,
}

/// Why serving could not begin.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// What all clients' threads share.
struct Door {
    limits: Limits,
    trusted_proxies: Vec<Cidr>,
    tls: Option<Tls>,
    registry: Arc<Registry>,
    bodies: Memory,
    handler: Arc<Handler>,
    changes: Pool,
    reads: Pool,
    #[cfg(feature = "grpc")]
    grpc: grpc::Room<Stream>,
    death: Arc<Death>,
}

impl Door {
    fn pool_for(&self, head: &Head) -> &Pool {
        if (self.handler.is_change)(&head.method, &head.target) {
            &self.changes
        } else {
            &self.reads
        }
    }
}

/// Says once that the side behind the door has died.
struct Death {
    once: Once,
    tell: Box<dyn Fn(&str) + Send + Sync>,
    /// While stopping, workers end because they are told to.
    expected: std::sync::atomic::AtomicBool,
}

impl Death {
    fn report(&self, why: &str) {
        if !self.expected.load(std::sync::atomic::Ordering::Acquire) {
            self.once.call_once(|| (self.tell)(why));
        }
    }
}

/// A front door that is open. Dropped without `stop`, it lets nobody new in.
pub struct Running {
    door: Arc<Door>,
    workers: [Workers; 2],
    addresses: Vec<Bound>,
    accepting: Vec<thread::JoinHandle<()>>,
    /// While this is open they accept.
    accepts: UnixStream,
    /// Paths of sockets that are ours to remove.
    paths: Vec<PathBuf>,
}

/// Opens the door. When this returns, clients are accepted.
pub fn start(mut config: Config, handler: &Arc<Handler>) -> Result<Running, Error> {
    let connections = config.changes.saturating_add(READS.connections);
    descriptors::fit(&mut config.limits, connections).map_err(Error)?;
    let tls = config
        .tls
        .map(Tls::load)
        .transpose()
        .map_err(|why| Error(format!("TLS: {why}")))?;
    let terms = Terms {
        tls: tls.is_some(),
        insecure_plaintext: config.insecure_plaintext,
        unix_mode: config.unix_mode,
    };
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let bound = Listener::bind(listen, &terms);
        listeners
            .push(bound.map_err(|error| Error(format!("cannot listen on {listen}: {error}")))?);
    }
    let paths = listeners
        .iter()
        .filter_map(|(_, bound)| bound.path())
        .collect();
    for inherited in config.inherited {
        let bound = Listener::inherit(inherited, &terms);
        listeners
            .push(bound.map_err(|error| Error(format!("cannot take a socket over: {error}")))?);
    }

    let expected = std::sync::atomic::AtomicBool::new(false);
    let death = Arc::new(Death {
        once: Once::new(),
        tell: config.on_death,
        expected,
    });
    // One thread makes all changes that come through here: while a commit is on its way to the disk the next
    // ones gather, and it takes them all at once. More threads would only have to be woken for each.
    let changes = Lane {
        name: "change",
        connections: config.changes,
        threads: 1,
        batch: config.commit_batch,
    };
    let start = |lane| {
        Workers::start(&config.private_dir, lane, handler, &death)
            .map_err(|error| Error(format!("cannot start the workers: {error}")))
    };
    let (making, changes) = start(changes)?;
    let (reading, reads) = start(READS)?;
    let (changes, reads) = (
        Pool::new(changes, &config.limits),
        Pool::new(reads, &config.limits),
    );
    let (limits, registry) = (config.limits, Arc::new(Registry::new()));
    #[cfg(feature = "grpc")]
    let grpc = {
        let (limits, death) = (
            handover::limits(&limits, config.changes, config.commit_batch),
            Arc::clone(&death),
        );
        grpc::Room::open(Arc::clone(handler), limits, move |why| death.report(why))
            .map_err(|error| Error(format!("cannot start gRPC: {error}")))?
    };
    let trusted_proxies = config.trusted_proxies;
    let door = Arc::new(Door {
        limits,
        trusted_proxies,
        tls,
        registry,
        bodies: Memory::new(OWN_BODY_BYTES, SHARED_BODY_BYTES),
        handler: Arc::clone(handler),
        changes,
        reads,
        #[cfg(feature = "grpc")]
        grpc,
        death,
    });

    let cannot_accept = |error: io::Error| Error(format!("cannot start accepting: {error}"));
    let (accepts, stop) = UnixStream::pair().map_err(cannot_accept)?;
    let stop = Arc::new(stop);
    let (mut addresses, mut accepting) = (Vec::new(), Vec::new());
    for (listener, bound) in listeners {
        addresses.push(bound);
        let (door, stop) = (Arc::clone(&door), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, &stop, &door))
            .map_err(cannot_accept)?;
        accepting.push(thread);
    }
    Ok(Running {
        door,
        workers: [making, reading],
        addresses,
        accepting,
        accepts,
        paths,
    })
}

impl Running {
    /// Where clients are accepted.
    pub fn addresses(&self) -> &[Bound] {
        &self.addresses
    }

    /// Reads certificate and key again, for new connections; those there are go on with the old ones.
    pub fn reload_tls(&self) -> Result<(), Error> {
        match &self.door.tls {
            Some(tls) => tls
                .reload()
                .map_err(|why| Error(format!("TLS: {why}; the old one stays in force"))),
            None => Ok(()),
        }
    }

    /// Closes the door: nobody is let in any more, those who wait silently are sent away, and every
    /// request whose first byte was taken is answered, if that takes no longer than `within`. Says whether
    /// all were.
    pub fn stop(self, within: Duration) -> bool {
        self.door
            .death
            .expected
            .store(true, std::sync::atomic::Ordering::Release);
        self.door.registry.close();
        #[cfg(feature = "grpc")]
        self.door.grpc.close();
        drop(self.accepts);
        for thread in self.accepting {
            let _ended = thread.join();
        }
        for path in &self.paths {
            let _gone = std::fs::remove_file(path);
        }
        let answered = self.door.registry.wait(within);
        #[cfg(feature = "grpc")]
        self.door.grpc.end();
        self.workers.iter().for_each(Workers::stop);
        answered
    }
}

/// Accepts until the door is closed, whatever goes wrong.
fn accept(listener: &Listener, stop: &UnixStream, door: &Arc<Door>) {
    let mut told = false;
    loop {
        let accepted = listener.accept(stop);
        if door.registry.is_stopping() {
            return;
        }
        match accepted {
            Ok(None) => return,
            Ok(Some((stream, address))) => {
                told = false;
                let by_address =
                    address.is_some_and(|it| door.trusted_proxies.iter().any(|of| of.holds(it)));
                let is_trusted = by_address || listener.is_private_unix();
                welcome(
                    door,
                    stream,
                    Peer {
                        address,
                        is_trusted,
                    },
                    listener.speaks_tls(),
                );
            }
            Err(error) => {
                if !told {
                    log::warn!("cannot accept: {error}");
                }
                told = true;
                // Whoever has been longest without a request makes room, where room is what is missing.
                if is_shortage(&error) {
                    door.registry.shed();
                }
                thread::sleep(ACCEPT_REST);
            }
        }
    }
}

/// Whether descriptors or memory have run out.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of = Errno::from_io_error(error);
    of.is_some_and(|it| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&it))
}

/// Gives a new client a thread of its own, if there is room for it.
fn welcome(door: &Arc<Door>, stream: Stream, peer: Peer, speaks_tls: bool) {
    // A proxy's connections are not one client's.
    let counted = peer.address.filter(|_| !peer.is_trusted);
    let Some(connection) = door.registry.admit(stream.clone(), counted, &door.limits) else {
        return;
    };
    let door = Arc::clone(door);
    let seat = Seat { door, connection };
    let started = thread::Builder::new()
        .name("client".to_owned())
        .stack_size(CLIENT_STACK_BYTES)
        .spawn(move || {
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                client::serve(seat, stream, peer, speaks_tls);
            }));
            if served.is_err() {
                log::error!("a client's thread panicked; that client alone is gone");
            }
        });
    if let Err(error) = started {
        // The seat is free again with the closure that held it.
        log::warn!("no thread for a client: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::api::http::Reply;
    use crate::api::status::Refusal;

    #[test]
    fn if_the_side_behind_the_door_dies_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = mpsc::channel();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            inherited: Vec::new(),
            tls: None,
            trusted_proxies: Vec::new(),
            unix_mode: 0o600,
            private_dir: dir.path().to_owned(),
            changes: 3,
            commit_batch: 128,
            limits: Limits::default(),
            insecure_plaintext: false,
            on_death: Box::new(move |why| tell.send(why.to_owned()).unwrap()),
        };
        let handler = Arc::new(Handler {
            is_change: |_, _| false,
            answer: Box::new(|_| Reply {
                status: 200,
                content_type: "text/plain",
                headers: Vec::new(),
                body: Vec::new(),
            }),
            together: Box::new(|_| false),
            refuse: Box::new(|why, _, _| Refusal::from(why).into_reply()),
        });
        let running = start(config, &handler).unwrap();
        assert!(told.try_recv().is_err());
        running.workers.iter().for_each(Workers::stop);
        let why = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(why.contains("tiny_http has stopped"), "{why}");
        running.stop(Duration::from_secs(1));
    }
}
