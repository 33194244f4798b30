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
mod listen;
mod registry;
mod stream;
mod upstream;
mod workers;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use crate::api::http::{Reply, Request};
use listen::Listener;
pub use listen::{Bound, Listen};
use registry::Registry;
use upstream::Pool;
use workers::Workers;

/// What answers requests.
pub type Handler = dyn Fn(&Request<'_>) -> Reply + Send + Sync;

/// A client's thread only parses and copies; its buffers are on the heap.
const CLIENT_STACK_BYTES: usize = 128 * 1024;
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
    registry: Registry,
    pool: Pool,
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
}

/// Opens the door. When this returns, clients are accepted.
pub fn start(config: Config, handler: &Arc<Handler>) -> Result<Running, Error> {
    let expected = std::sync::atomic::AtomicBool::new(false);
    let death = Arc::new(Death {
        once: Once::new(),
        tell: config.on_death,
        expected,
    });
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let bound = Listener::bind(listen, config.insecure_plaintext);
        listeners.push(bound.map_err(|error| match listen {
            Listen::Tcp(address) => Error(format!("cannot listen on {address}: {error}")),
            Listen::Unix(path) => {
                Error(format!("cannot listen on unix:{}: {error}", path.display()))
            }
        })?);
    }
    let (workers, upstreams) = Workers::start(&config.private_dir, config.workers, handler, &death)
        .map_err(|error| Error(format!("cannot start the workers: {error}")))?;
    let pool = Pool::new(upstreams, &config.limits);
    let door = Arc::new(Door {
        limits: config.limits,
        registry: Registry::new(),
        pool,
        death,
    });
    let mut running = Running {
        door,
        workers,
        addresses: Vec::new(),
        accepting: Vec::new(),
    };
    for (listener, bound) in listeners {
        running.addresses.push(bound);
        let door = Arc::clone(&running.door);
        let thread = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, &door))
            .map_err(|error| Error(format!("cannot start accepting: {error}")))?;
        running.accepting.push(thread);
    }
    Ok(running)
}

impl Running {
    /// Where clients are accepted.
    pub fn addresses(&self) -> &[Bound] {
        &self.addresses
    }

    /// Closes the door: nobody is let in any more, those who wait silently are sent away, and every
    /// request whose first byte was taken is answered, if that takes no longer than `within`. Says whether
    /// all were.
    pub fn stop(self, within: Duration) -> bool {
        self.door
            .death
            .expected
            .store(true, std::sync::atomic::Ordering::Release);
        let answered = self.door.registry.stop(within);
        self.addresses.iter().for_each(Listener::wake);
        for thread in self.accepting {
            let _ended = thread.join();
        }
        for bound in &self.addresses {
            if let Bound::Unix(path) = bound {
                let _gone = std::fs::remove_file(path);
            }
        }
        self.workers.stop();
        answered
    }
}

/// Accepts until the door is closed, whatever goes wrong.
fn accept(listener: &Listener, door: &Arc<Door>) {
    loop {
        let accepted = listener.accept();
        if door.registry.is_stopping() {
            return;
        }
        match accepted {
            Ok((stream, peer)) => welcome(door, stream, peer),
            Err(error) => {
                // Out of descriptors, most likely: whoever has been longest without a request makes room.
                log::warn!("cannot accept: {error}");
                door.registry.shed();
                thread::sleep(ACCEPT_REST);
            }
        }
    }
}

/// Gives a new client a thread of its own, if there is room for it.
fn welcome(door: &Arc<Door>, stream: stream::Stream, peer: Option<std::net::IpAddr>) {
    let Some(connection) = door.registry.admit(stream.clone(), peer, &door.limits) else {
        return;
    };
    let (own, of_thread) = (Arc::clone(door), Arc::clone(&connection));
    let started = thread::Builder::new()
        .name("client".to_owned())
        .stack_size(CLIENT_STACK_BYTES)
        .spawn(move || {
            let peer = peer.map_or_else(String::new, |it| it.to_string());
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                client::serve(&own, &of_thread, stream, &peer);
            }));
            if served.is_err() {
                log::error!("a client's thread panicked; that client alone is gone");
            }
            own.registry.leave(&of_thread);
        });
    if let Err(error) = started {
        log::warn!("no thread for a client: {error}");
        door.registry.leave(&connection);
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
