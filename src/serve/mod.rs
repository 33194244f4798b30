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
mod stream;
mod tls;
mod upstream;
mod wire;
mod workers;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use crate::api::http::{Reply, Request};
#[cfg(feature = "grpc")]
use crate::grpc;
use client::{Peer, Seat};
pub use forwarded::Cidr;
pub use listen::{Bound, Inherited, Listen};
use listen::{Listener, Terms};
use registry::Registry;
use stream::Stream;
use tls::Tls;
pub use tls::TlsFiles;
use upstream::Pool;
use workers::Workers;

/// What answers requests.
pub type Handler = dyn Fn(&Request<'_>) -> Reply + Send + Sync;

/// A client's thread only parses and copies, its buffers are on the heap; a TLS handshake needs most of this.
const CLIENT_STACK_BYTES: usize = 256 * 1024;
/// How long the accepting thread rests after an error that shedding a connection did not cure.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What one client, and all of them, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all: each costs a thread.
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
    /// Threads that work, and connections to them.
    pub workers: usize,
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
    pool: Pool,
    #[cfg(feature = "grpc")]
    grpc: grpc::Room<Stream>,
    death: Arc<Death>,
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

/// A front door that is open.
pub struct Running {
    door: Arc<Door>,
    workers: Workers,
    addresses: Vec<Bound>,
    accepting: Vec<thread::JoinHandle<()>>,
    /// Paths of sockets that are ours to remove.
    paths: Vec<PathBuf>,
}

/// Opens the door. When this returns, clients are accepted.
pub fn start(mut config: Config, handler: &Arc<Handler>) -> Result<Running, Error> {
    descriptors::fit(&mut config.limits, config.workers).map_err(Error)?;
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
    let (workers, upstreams) = Workers::start(&config.private_dir, config.workers, handler, &death)
        .map_err(|error| Error(format!("cannot start the workers: {error}")))?;
    let pool = Pool::new(upstreams, &config.limits);
    let (limits, registry) = (config.limits, Arc::new(Registry::new()));
    #[cfg(feature = "grpc")]
    let grpc = {
        let (limits, death) = (
            handover::limits(&limits, config.workers),
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
        pool,
        #[cfg(feature = "grpc")]
        grpc,
        death,
    });

    let (mut addresses, mut accepting) = (Vec::new(), Vec::new());
    for (listener, bound) in listeners {
        addresses.push(bound);
        let door = Arc::clone(&door);
        let thread = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, &door))
            .map_err(|error| Error(format!("cannot start accepting: {error}")))?;
        accepting.push(thread);
    }
    Ok(Running {
        door,
        workers,
        addresses,
        accepting,
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
        self.addresses.iter().for_each(Listener::wake);
        for thread in self.accepting {
            let _ended = thread.join();
        }
        for path in &self.paths {
            let _gone = std::fs::remove_file(path);
        }
        let answered = self.door.registry.wait(within);
        #[cfg(feature = "grpc")]
        self.door.grpc.end();
        self.workers.stop();
        answered
    }
}

/// Accepts until the door is closed, whatever goes wrong.
fn accept(listener: &Listener, door: &Arc<Door>) {
    let mut told = false;
    loop {
        let accepted = listener.accept();
        if door.registry.is_stopping() {
            return;
        }
        match accepted {
            Ok((stream, address)) => {
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
                // Out of descriptors, most likely: whoever has been longest without a request makes room.
                if !told {
                    log::warn!("cannot accept: {error}");
                }
                told = true;
                door.registry.shed();
                thread::sleep(ACCEPT_REST);
            }
        }
    }
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
            workers: 3,
            limits: Limits::default(),
            insecure_plaintext: false,
            on_death: Box::new(move |why| tell.send(why.to_owned()).unwrap()),
        };
        let handler: Arc<Handler> = Arc::new(|_| Reply {
            status: 200,
            content_type: "text/plain",
            headers: Vec::new(),
            body: Vec::new(),
        });
        let running = start(config, &handler).unwrap();
        assert!(told.try_recv().is_err());
        running.workers.stop();
        let why = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(why.contains("tiny_http has stopped"), "{why}");
        running.stop(Duration::from_secs(1));
    }
}
