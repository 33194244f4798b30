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
mod scrape;
mod workers;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

pub use crate::api::handler::Handler;
use crate::connections::listen::{BindSettings, Listener};
pub use crate::connections::listen::{Bound, Listen, reachable};
use crate::connections::tls::Tls;
pub use crate::connections::tls::TlsFiles;
pub use crate::connections::{Cidr, Limits};
use crate::connections::{ConnectionGuard, Connections, Peer, descriptors};
#[cfg(feature = "grpc")]
use crate::grpc::GrpcServer;
use relay::Relay;
use scrape::MetricsServer;

/// A client's thread only parses and copies, its buffers are on the heap; a TLS handshake needs most of this.
const CLIENT_STACK_BYTES: usize = 256 * 1024;
/// How long the accepting thread rests after an error that shedding a connection did not cure.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How to serve.
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Sockets that listen already, TCP or Unix, as systemd opens them.
    pub inherited: Vec<OwnedFd>,
    /// The URL at which people reach the server, for links: a scheme, a host, maybe a port and a path. Without it links
    /// begin with the first address that has a URL.
    pub public_url: Option<String>,
    /// Where metrics are, if anywhere: never on an address of clients. Plain HTTP.
    pub metrics_listen: Option<Listen>,
    /// Certificate and key, if TCP clients must speak TLS.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Cidr>,
    /// The mode of Unix sockets. Where it lets others in, `X-Forwarded-For` does not count there.
    pub unix_mode: u32,
    /// A directory that only this user can read: while the server starts, it holds a socket.
    pub private_dir: PathBuf,
    /// Changes that are in progress at once, at most, over all transports. The next ones wait.
    pub changes_at_once: usize,
    /// Changes that share a commit, at most.
    pub commit_batch: usize,
    /// The limits for clients.
    pub limits: Limits,
    /// Whether plain HTTP is allowed on addresses that are not loopback.
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
}

impl FatalError {
    fn new(report: Box<dyn Fn(&str) + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            once: Once::new(),
            report,
        })
    }

    fn report(&self, why: &str) {
        self.once.call_once(|| (self.report)(why));
    }

    /// Reports nothing from now on: the server stops, so workers end, and that is no fault.
    fn disarm(&self) {
        self.once.call_once(|| ());
    }
}

/// A server that runs. Dropped without `stop`, it accepts no more connections.
pub struct Running {
    front: Arc<FrontEnd>,
    addresses: Vec<Bound>,
    metrics: Option<(Bound, Arc<MetricsServer>)>,
    accepting: Vec<thread::JoinHandle<()>>,
    /// While this is open they accept.
    accepts: UnixStream,
    /// Paths of the sockets that this server has made and removes when it stops.
    paths: Vec<PathBuf>,
}

/// Starts serving. When this returns, clients are accepted.
pub fn start(mut config: Config, handler: &Arc<Handler>) -> Result<Running, Error> {
    descriptors::fit(&mut config.limits, relay::CONNECTIONS).map_err(Error)?;
    let tls = config.tls.take().map(Tls::load).transpose();
    let tls = tls.map_err(|why| Error(format!("TLS: {why}")))?;
    let listeners = listen(&mut config, tls.is_some())?;
    let metrics_listener = listen_for_metrics(&config)?;
    let served = || listeners.iter().find_map(|it| it.bound.url());
    if let Some(url) = config.public_url.take().or_else(served) {
        handler.api().set_base_url(url);
    }
    let unix_path = |it: &Listen| match it {
        Listen::Unix(path) => Some(path.clone()),
        Listen::Tcp(_) => None,
    };
    let listened = config.listen.iter().chain(&config.metrics_listen);
    let paths = listened.filter_map(unix_path).collect();

    let fatal = FatalError::new(config.on_fatal_error);
    let (limits, proxies) = (config.limits, config.trusted_proxies);
    let connections = Connections::new(limits, proxies, tls, config.changes_at_once);
    #[cfg(feature = "grpc")]
    let grpc = {
        let (handler, connections) = (Arc::clone(handler), Arc::clone(&connections));
        let fatal = Arc::clone(&fatal);
        let on_fatal_error = move |why: &str| fatal.report(why);
        GrpcServer::start(handler, connections, config.commit_batch, on_fatal_error)
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
    start_accepting(front, listeners, metrics_listener, paths)
        .map_err(|error| Error(format!("cannot start accepting: {error}")))
}

/// Opens the socket for metrics.
fn listen_for_metrics(config: &Config) -> Result<Option<Listener>, Error> {
    let settings = BindSettings {
        tls: false,
        insecure_plaintext: config.insecure_plaintext,
        unix_mode: config.unix_mode,
    };
    let listener = config.metrics_listen.as_ref().map(|it| {
        let bound = Listener::bind(it, &settings);
        bound.map_err(|error| Error(format!("cannot listen for metrics on {it}: {error}")))
    });
    listener.transpose()
}

/// Opens the sockets to listen on, and takes over those that are open already.
fn listen(config: &mut Config, tls: bool) -> Result<Vec<Listener>, Error> {
    let settings = BindSettings {
        tls,
        insecure_plaintext: config.insecure_plaintext,
        unix_mode: config.unix_mode,
    };
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let listener = Listener::bind(listen, &settings);
        listeners
            .push(listener.map_err(|error| Error(format!("cannot listen on {listen}: {error}")))?);
    }
    for inherited in config.inherited.drain(..) {
        let listener = Listener::listen(inherited.into(), &settings);
        listeners
            .push(listener.map_err(|error| Error(format!("cannot take a socket over: {error}")))?);
    }
    Ok(listeners)
}

/// Starts an `accept` thread for each address of clients, and a `metrics` thread.
fn start_accepting(
    front: Arc<FrontEnd>,
    listeners: Vec<Listener>,
    metrics_listener: Option<Listener>,
    paths: Vec<PathBuf>,
) -> io::Result<Running> {
    let (accepts, stop) = UnixStream::pair()?;
    let stop = Arc::new(stop);
    let (mut addresses, mut accepting) = (Vec::new(), Vec::new());
    for listener in listeners {
        addresses.push(listener.bound.clone());
        let (front, stop) = (Arc::clone(&front), Arc::clone(&stop));
        let thread = thread::Builder::new().name("accept".to_owned());
        accepting.push(thread.spawn(move || {
            let speaks_tls = matches!(listener.bound, Bound::Tls(_));
            accept(&listener, &stop, &front.connections, |connection| {
                let front = Arc::clone(&front);
                start_client("client", move || {
                    client::serve(&front, connection, speaks_tls);
                });
            });
        })?);
    }
    let mut metrics = None;
    if let Some(listener) = metrics_listener {
        let server = MetricsServer::new(&front.handler, &front.connections);
        metrics = Some((listener.bound.clone(), Arc::clone(&server)));
        let stop = Arc::clone(&stop);
        let thread = thread::Builder::new().name("metrics".to_owned());
        accepting.push(thread.spawn(move || {
            accept(&listener, &stop, &server.connections, |connection| {
                let server = Arc::clone(&server);
                start_client("metrics-client", move || server.serve(&connection));
            });
        })?);
    }
    Ok(Running {
        front,
        addresses,
        metrics,
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

    /// What links begin with, if that is known.
    pub fn base_url(&self) -> Option<&str> {
        self.front.handler.api().base_url()
    }

    /// Where metrics are.
    pub fn metrics_address(&self) -> Option<&Bound> {
        self.metrics.as_ref().map(|(bound, _)| bound)
    }

    /// Reads certificate and key again, for new connections; open ones keep the old ones.
    /// Returns whether there are any: without TLS nothing is read.
    pub fn reload_tls(&self) -> Result<bool, Error> {
        let Some(tls) = &self.front.connections.tls else {
            return Ok(false);
        };
        let failed = |why| Error(format!("TLS: {why}; the old one stays in force"));
        tls.reload().map(|()| true).map_err(failed)
    }

    /// Stops: no connection is accepted any more, idle ones are closed, and requests in progress are answered, if that
    /// takes no longer than `within`. Returns whether all clients have left by then.
    pub fn stop(self, within: Duration) -> bool {
        self.front.fatal.disarm();
        self.front.connections.registry.close();
        if let Some((_, metrics)) = &self.metrics {
            metrics.connections.registry.close();
        }
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

/// The thread of one address: accepts connections until the server stops, whatever goes wrong.
fn accept(
    listener: &Listener,
    stop: &UnixStream,
    connections: &Connections,
    serve: impl Fn(ConnectionGuard),
) {
    let mut is_reported = false;
    loop {
        let accepted = listener.accept(stop);
        if connections.registry.is_stopping() {
            return;
        }
        match accepted {
            Ok(None) => return,
            Ok(Some((stream, address))) => {
                is_reported = false;
                let is_proxy = address.is_some_and(|it| connections.is_proxy(it));
                let peer = Peer {
                    address,
                    is_trusted: is_proxy || listener.is_private,
                };
                if let Some(connection) = connections.registry.admit(stream, peer) {
                    serve(connection);
                }
            }
            Err(error) => {
                if !is_reported {
                    log::warn!("cannot accept: {error}");
                }
                is_reported = true;
                if is_shortage(&error) {
                    connections.registry.shed();
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

/// Gives a new client a thread of its own. Runs on the thread that accepted it.
fn start_client(name: &str, serve: impl FnOnce() + Send + 'static) {
    let started = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(CLIENT_STACK_BYTES)
        .spawn(move || {
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(serve));
            if served.is_err() {
                log::error!("a client's thread panicked; that client alone is gone");
            }
        });
    if let Err(error) = started {
        // The connection is no longer counted: its guard was dropped with the closure.
        log::warn!("no thread for a client: {error}");
    }
}
