//! tiny_http behind the front end: a private socket, a fixed number of connections, and the threads that work.
//!
//! tiny_http accepts exactly these connections, one after another, each primed by an answered request, and never again:
//! it starves a burst of new connections, and one failed accept would end it for good.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::pipeline::Pipeline;
use super::relay::PEER;
use super::{FatalError, Handler};
use crate::api::http::{COMMON_HEADERS, REQUEST_ID, Reply, Request, Via};
use crate::api::status::TransportError;

/// Enough for SQLite and the JSON of 64 KiB; measured use is under 100 KiB.
const STACK_BYTES: usize = 512 * 1024;
const CONTENT_TYPE: &str = "Content-Type";
const ORIGIN: &str = "Origin";
/// The request that primes a connection. No client can send it: its target is no path.
const PRIMING: &str = "primed";
/// What `sun_path` holds, less its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// How many work on what, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    /// Requests that are under way at once.
    pub(super) connections: usize,
    pub(super) threads: usize,
    /// Requests that one thread takes at a time, as far as there are any.
    pub(super) batch: usize,
}

/// tiny_http and its workers.
pub(super) struct Workers {
    server: Arc<tiny_http::Server>,
    threads: usize,
}

impl Workers {
    /// Starts the workers of a lane, and opens the connections to them.
    pub(super) fn start(
        dir: &Path,
        lane: Lane,
        handler: &Arc<Handler>,
        fatal: &Arc<FatalError>,
    ) -> io::Result<(Self, Vec<Pipeline>)> {
        let socket = Socket::in_dir(dir)?;
        let server = tiny_http::Server::from_listener(UnixListener::bind(&socket.path)?, None)
            .map_err(io::Error::other)?;
        let server = Arc::new(server);
        for n in 0..lane.threads {
            let (server, handler, fatal) =
                (Arc::clone(&server), Arc::clone(handler), Arc::clone(fatal));
            thread::Builder::new()
                .name(format!("{}-{n}", lane.name))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&server, lane.batch, &handler, &fatal))?;
        }
        let mut connections = Vec::with_capacity(lane.connections);
        let priming = format!("GET {PRIMING} HTTP/1.1\r\nHost: totpd\r\n\r\n");
        for _ in 0..lane.connections {
            let connection = Pipeline::open(&socket.path)?;
            connection.exchange(priming.as_bytes(), false)?;
            connections.push(connection);
        }
        // From here on nobody can connect to it.
        drop(socket);
        let threads = lane.threads;
        Ok((Self { server, threads }, connections))
    }

    /// Tells the workers to end.
    pub(super) fn stop(&self) {
        for _ in 0..self.threads {
            self.server.unblock();
        }
    }
}

fn work(server: &tiny_http::Server, batch: usize, handler: &Handler, fatal: &FatalError) {
    loop {
        // `recv` fails when it is unblocked, and when tiny_http's accepting thread is gone.
        match server.recv() {
            Ok(first) if first.url() == PRIMING => {
                let _primed = first.respond(tiny_http::Response::empty(204));
            }
            Ok(first) => {
                let mut requests = vec![first];
                while requests.len() < batch
                    && let Ok(Some(next)) = server.try_recv()
                {
                    requests.push(next);
                }
                let answered = catch_unwind(AssertUnwindSafe(|| answer(requests, handler)));
                if answered.is_err() {
                    // tiny_http has answered 500 to each that was dropped.
                    log::error!("a worker panicked; it goes on");
                }
            }
            Err(error) => return fatal.report(&format!("tiny_http has stopped: {error}")),
        }
    }
}

/// Answers what has gathered.
fn answer(requests: Vec<tiny_http::Request>, handler: &Handler) {
    let is_priming = |it: &tiny_http::Request| field(it, PEER) == Some(PRIMING);
    let (priming, mut requests): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_priming);
    for request in priming {
        // Nobody asked: it reaches no handler and no log.
        let reply = Reply {
            status: 200,
            content_type: "text/plain",
            headers: Vec::new(),
            body: Vec::new(),
        };
        respond(request, reply);
    }
    if requests.is_empty() {
        return;
    }
    let read: Vec<_> = requests.iter_mut().map(read).collect();
    let whole = requests.iter().zip(&read).map(|(request, read)| {
        let (method, body) = read.as_ref().map_err(|it| *it)?;
        Ok(whole(request, method, body))
    });
    let replies = handler.reply_to_batch(&whole.collect::<Vec<_>>());
    for (request, reply) in requests.into_iter().zip(replies) {
        let reply = reply.unwrap_or_else(|it| refused(&request, it, handler));
        respond(request, reply);
    }
}

/// Reads what tiny_http keeps elsewhere: the method as text, and the body.
fn read(request: &mut tiny_http::Request) -> Result<(String, Vec<u8>), TransportError> {
    let mut body = Vec::new();
    let read = request.as_reader().read_to_end(&mut body);
    read.map_err(|_| TransportError::Bug)?;
    Ok((request.method().to_string(), body))
}

fn respond(request: tiny_http::Request, reply: Reply) {
    let mut response = tiny_http::Response::from_data(reply.body)
        .with_status_code(reply.status)
        .with_chunked_threshold(usize::MAX);
    let content_type = ("Content-Type", reply.content_type.to_owned());
    let every = COMMON_HEADERS
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    for (name, value) in reply.headers.into_iter().chain(every).chain([content_type]) {
        if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    if let Err(error) = request.respond(response) {
        log::debug!("an answer of a worker was not taken: {error}");
    }
}

fn whole<'a>(from: &'a tiny_http::Request, method: &'a str, body: &'a [u8]) -> Request<'a> {
    Request {
        via: Via::Http,
        method,
        target: from.url(),
        authorization: field(from, "Authorization"),
        content_type: field(from, CONTENT_TYPE),
        origin: field(from, ORIGIN),
        body,
        peer: field(from, PEER).and_then(|it| it.parse::<IpAddr>().ok()),
        request_id: field(from, REQUEST_ID),
    }
}

fn refused(request: &tiny_http::Request, refusal: TransportError, handler: &Handler) -> Reply {
    let (content_type, origin) = (field(request, CONTENT_TYPE), field(request, ORIGIN));
    handler.refuse(refusal, content_type, origin)
}

fn field<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    let found = request.headers().iter().find(|it| it.field.equiv(name));
    found.map(|it| it.value.as_str())
}

/// The private socket's name, there only while the pool is being opened.
struct Socket {
    path: PathBuf,
    /// Keeps the short way to a long directory open.
    _dir: Option<File>,
}

impl Socket {
    fn in_dir(dir: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "serve-{}-{}.sock",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let direct = dir.join(&name);
        let (path, handle) = if direct.as_os_str().len() <= MAX_SOCKET_PATH {
            (direct, None)
        } else {
            let handle = File::open(dir)?;
            (
                PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd())),
                Some(handle),
            )
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self { path, _dir: handle }),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}
