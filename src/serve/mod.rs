//! The front door: public sockets, limits of bytes and time, and a pool of workers behind them.
//!
//! tiny_http must not face a network bare: it has no timeouts and no limits, and it starves a burst of
//! clients. So the door owns the public sockets. A thread for each client reads one whole request, refuses
//! what is malformed, ambiguous or too much, hands it to a worker over one of a fixed number of private
//! connections, and writes the answer back. This room knows HTTP framing, and nothing of users, codes or
//! JSON; signals, environment and clock are the command line's.

mod client;
mod head;
mod incoming;
mod upstream;
mod workers;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

pub use crate::api::handler::Handler;
pub use crate::connections::listen::{Bound, Inherited, Listen};
use crate::connections::listen::{Listener, Terms};
use crate::connections::stream::Stream;
use crate::connections::tls::Tls;
pub use crate::connections::tls::TlsFiles;
pub use crate::connections::{Cidr, Limits};
use crate::connections::{Connections, MEMORY_BYTES, MemoryBudget, Peer, Registry, descriptors};
#[cfg(feature = "grpc")]
use crate::grpc::{self, GrpcServer};
use head::Head;
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
/// How long the accepting thread rests after an error that shedding a connection did not cure.
const ACCEPT_REST: Duration = Duration::from_millis(50);

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
struct FrontEnd {
    connections: Arc<Connections>,
    handler: Arc<Handler>,
    changes: Pool,
    reads: Pool,
    #[cfg(feature = "grpc")]
    grpc: GrpcServer,
    death: Arc<Death>,
}

impl FrontEnd {
    fn pool_for(&self, head: &Head) -> &Pool {
        if crate::api::is_change(&head.method, &head.target) {
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
    front: Arc<FrontEnd>,
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
    let connections = Arc::new(Connections {
        registry: Registry::new(&config.limits),
        limits: config.limits,
        trusted_proxies: config.trusted_proxies,
        tls,
        memory: MemoryBudget::new(MEMORY_BYTES),
    });
    #[cfg(feature = "grpc")]
    let grpc = {
        let settings = grpc::Settings {
            connections: Arc::clone(&connections),
            workers: config.changes,
            commit_batch: config.commit_batch,
        };
        let death = Arc::clone(&death);
        GrpcServer::start(Arc::clone(handler), settings, move |why| death.report(why))
            .map_err(|error| Error(format!("cannot start gRPC: {error}")))?
    };
    let front = Arc::new(FrontEnd {
        connections,
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
        let (front, stop) = (Arc::clone(&front), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, &stop, &front))
            .map_err(cannot_accept)?;
        accepting.push(thread);
    }
    Ok(Running {
        front,
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
        match &self.front.connections.tls {
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
        self.front
            .death
            .expected
            .store(true, std::sync::atomic::Ordering::Release);
        self.front.connections.registry.close();
        #[cfg(feature = "grpc")]
        self.front.grpc.close();
        drop(self.accepts);
        for thread in self.accepting {
            let _ended = thread.join();
        }
        for path in &self.paths {
            let _gone = std::fs::remove_file(path);
        }
        let answered = self.front.connections.registry.wait(within);
        #[cfg(feature = "grpc")]
        self.front.grpc.end();
        self.workers.iter().for_each(Workers::stop);
        answered
    }
}

/// Accepts until the server stops, whatever goes wrong.
fn accept(listener: &Listener, stop: &UnixStream, front: &Arc<FrontEnd>) {
    let mut told = false;
    loop {
        let accepted = listener.accept(stop);
        if front.connections.registry.is_stopping() {
            return;
        }
        match accepted {
            Ok(None) => return,
            Ok(Some((stream, address))) => {
                told = false;
                let is_proxy = address.is_some_and(|it| front.connections.is_proxy(it));
                let peer = Peer {
                    address,
                    is_trusted: is_proxy || listener.is_private_unix(),
                };
                serve_client(front, stream, peer, listener.speaks_tls());
            }
            Err(error) => {
                if !told {
                    log::warn!("cannot accept: {error}");
                }
                told = true;
                if is_shortage(&error) {
                    front.connections.registry.shed();
                }
                thread::sleep(ACCEPT_REST);
            }
        }
    }
}

/// Whether descriptors or memory have run out.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|it| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&it))
}

/// Gives a new client a thread of its own, if the limits admit it.
fn serve_client(front: &Arc<FrontEnd>, stream: Stream, peer: Peer, speaks_tls: bool) {
    let Some(connection) = front.connections.registry.admit(stream.clone(), peer) else {
        return;
    };
    let front = Arc::clone(front);
    let started = thread::Builder::new()
        .name("client".to_owned())
        .stack_size(CLIENT_STACK_BYTES)
        .spawn(move || {
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                client::serve(&front, connection, stream, speaks_tls);
            }));
            if served.is_err() {
                log::error!("a client's thread panicked; that client alone is gone");
            }
        });
    if let Err(error) = started {
        // The connection is no longer counted: its guard was dropped with the closure.
        log::warn!("no thread for a client: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::api::Api;
    use crate::model::{Timestamp, Window};
    use crate::service::{DataDir, KeyFile, Settings};

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
        let data = dir.path().join("data");
        let now = Timestamp::from_seconds(1_800_000_000);
        let settings = Settings {
            issuer: "Test".parse().unwrap(),
            window: Window::OneEitherSide,
        };
        let made = DataDir::create(&data, KeyFile::InDataDir, &settings, now);
        let (service, _org) = made.unwrap();
        let handler = Handler::of(Api::new(service, Arc::new(move || now)));
        let running = start(config, &handler).unwrap();
        assert!(told.try_recv().is_err());
        running.workers.iter().for_each(Workers::stop);
        let why = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(why.contains("tiny_http has stopped"), "{why}");
        running.stop(Duration::from_secs(1));
    }
}
