//! The front end of HTTP/1.1: one whole request in, one answer out, and tiny_http with its workers behind it.
//!
//! tiny_http must not face a network directly: it has no timeouts and no limits, and it starves a burst of clients. So a
//! thread for each client reads one whole request, refuses what is malformed, ambiguous or too large, sends it to a
//! worker over one of a fixed number of private connections, and writes the answer to the client. This module knows HTTP
//! framing, and nothing of users, codes or JSON.

mod answer;
mod client;
mod head;
mod incoming;
mod pipeline;
mod relay;
mod workers;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

pub use crate::api::handler::Handler;
use crate::connections::listen::{BindSettings, Listener};
pub use crate::connections::listen::{Bound, Inherited, Listen};
use crate::connections::stream::Stream;
use crate::connections::tls::Tls;
pub use crate::connections::tls::TlsFiles;
pub use crate::connections::{Cidr, Limits};
use crate::connections::{
    Connections, Gates, MemoryBudget, Peer, Registry, RequestIds, descriptors,
};
#[cfg(feature = "grpc")]
use crate::grpc::{self, GrpcServer};
use relay::Relay;

/// A client's thread only parses and copies, its buffers are on the heap; a TLS handshake needs most of this.
const CLIENT_STACK_BYTES: usize = 256 * 1024;
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
    /// Changes that are in progress at once, at most, over all transports. The next ones wait.
    pub changes_at_once: usize,
    /// Changes that share a commit, at most.
    pub commit_batch: usize,
    /// What clients may take.
    pub limits: Limits,
    /// Plain HTTP on an address that is not loopback needs this to be said.
    pub insecure_plaintext: bool,
    /// Called once if requests cannot be carried out any more.
    pub on_fatal_error: Box<dyn Fn(&str) + Send + Sync>,
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

/// What all `client` threads share.
struct FrontEnd {
    connections: Arc<Connections>,
    handler: Arc<Handler>,
    relay: Relay,
    #[cfg(feature = "grpc")]
    grpc: GrpcServer,
    fatal: Arc<FatalError>,
}

/// Reports, once, that requests cannot be carried out any more.
struct FatalError {
    once: Once,
    report: Box<dyn Fn(&str) + Send + Sync>,
    /// While the server stops, workers end, and that is no fault.
    is_stopping: AtomicBool,
}

impl FatalError {
    fn report(&self, why: &str) {
        if !self.is_stopping.load(Ordering::Acquire) {
            self.once.call_once(|| (self.report)(why));
        }
    }
}

/// A server that runs. Dropped without `stop`, it accepts no more connections.
pub struct Running {
    front: Arc<FrontEnd>,
    addresses: Vec<Bound>,
    accepting: Vec<thread::JoinHandle<()>>,
    /// While this is open they accept.
    accepts: UnixStream,
    /// Paths of sockets that are ours to remove.
    paths: Vec<PathBuf>,
}

/// Starts serving. When this returns, clients are accepted.
pub fn start(mut config: Config, handler: &Arc<Handler>) -> Result<Running, Error> {
    descriptors::fit(&mut config.limits, relay::CONNECTIONS).map_err(Error)?;
    let tls = config
        .tls
        .map(Tls::load)
        .transpose()
        .map_err(|why| Error(format!("TLS: {why}")))?;
    let settings = BindSettings {
        tls: tls.is_some(),
        insecure_plaintext: config.insecure_plaintext,
        unix_mode: config.unix_mode,
    };
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let bound = Listener::bind(listen, &settings);
        listeners
            .push(bound.map_err(|error| Error(format!("cannot listen on {listen}: {error}")))?);
    }
    let paths = listeners
        .iter()
        .filter_map(|(_, bound)| bound.path())
        .collect();
    for inherited in config.inherited {
        let bound = Listener::inherit(inherited, &settings);
        listeners
            .push(bound.map_err(|error| Error(format!("cannot take a socket over: {error}")))?);
    }

    let fatal = Arc::new(FatalError {
        once: Once::new(),
        report: config.on_fatal_error,
        is_stopping: AtomicBool::new(false),
    });
    let connections = Arc::new(Connections {
        registry: Registry::new(&config.limits),
        requests: MemoryBudget::new(config.limits.request_memory_bytes),
        answers: MemoryBudget::new(config.limits.answer_memory_bytes),
        gates: Gates::new(config.changes_at_once, config.limits.waiting),
        request_ids: RequestIds::default(),
        limits: config.limits,
        trusted_proxies: config.trusted_proxies,
        tls,
    });
    #[cfg(feature = "grpc")]
    let grpc = {
        let settings = grpc::Settings {
            connections: Arc::clone(&connections),
            commit_batch: config.commit_batch,
        };
        let fatal = Arc::clone(&fatal);
        GrpcServer::start(Arc::clone(handler), settings, move |why| fatal.report(why))
            .map_err(|error| Error(format!("cannot start gRPC: {error}")))?
    };
    let relay = Relay::start(
        &config.private_dir,
        config.commit_batch,
        handler,
        &connections,
        &fatal,
    )
    .map_err(|error| Error(format!("cannot start the workers: {error}")))?;
    let front = Arc::new(FrontEnd {
        connections,
        handler: Arc::clone(handler),
        relay,
        #[cfg(feature = "grpc")]
        grpc,
        fatal,
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

    /// Stops: no connection is accepted any more, idle ones are closed, and requests in progress are answered, if that
    /// takes no longer than `within`. Returns whether all clients have left by then.
    pub fn stop(self, within: Duration) -> bool {
        self.front.fatal.is_stopping.store(true, Ordering::Release);
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
        self.front.relay.stop();
        answered
    }
}

/// The `accept` thread of one address: accepts connections until the server stops, whatever goes wrong.
fn accept(listener: &Listener, stop: &UnixStream, front: &Arc<FrontEnd>) {
    let mut is_reported = false;
    loop {
        let accepted = listener.accept(stop);
        if front.connections.registry.is_stopping() {
            return;
        }
        match accepted {
            Ok(None) => return,
            Ok(Some((stream, address))) => {
                is_reported = false;
                let is_proxy = address.is_some_and(|it| front.connections.is_proxy(it));
                let peer = Peer {
                    address,
                    is_trusted: is_proxy || listener.is_private_unix(),
                };
                serve_client(front, stream, peer, listener.speaks_tls());
            }
            Err(error) => {
                if !is_reported {
                    log::warn!("cannot accept: {error}");
                }
                is_reported = true;
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

/// Gives a new client a `client` thread of its own, if the limits admit it. Runs on the `accept` thread.
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
    fn a_worker_that_ends_by_itself_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = mpsc::channel();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            inherited: Vec::new(),
            tls: None,
            trusted_proxies: Vec::new(),
            unix_mode: 0o600,
            private_dir: dir.path().to_owned(),
            changes_at_once: 3,
            commit_batch: 128,
            limits: Limits::default(),
            insecure_plaintext: false,
            on_fatal_error: Box::new(move |why| tell.send(why.to_owned()).unwrap()),
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
        running.front.relay.stop();
        let why = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(why.contains("tiny_http has stopped"), "{why}");
        running.stop(Duration::from_secs(1));
    }
}
