//! tiny_http behind the front end: a private socket, a fixed number of connections, and the threads that work.
//!
//! tiny_http has a thread of its own for each connection, which parses requests and puts them into one queue. Worker
//! threads take them from there and write the answers.
//!
//! tiny_http accepts exactly these connections and no others. It starves a burst of new connections, so each is opened
//! after a first request was answered on the one before; and one failed accept would end it, so it never accepts again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::answer::head_of;
use super::pipeline::{Pipeline, length_prefix};
use super::relay::{PEER, SHORT_BODY_BYTES};
use super::{FatalError, Handler};
use crate::api::http::{CODE, REQUEST_ID, Request, Via};
use crate::api::status::TransportError;

/// Enough for SQLite and the JSON of 64 KiB; measured use is under 100 KiB.
const STACK_BYTES: usize = 512 * 1024;
const CONTENT_TYPE: &str = "Content-Type";
const ORIGIN: &str = "Origin";
/// The target of the first request on each connection. No client can send it, because it is no path.
const FIRST_TARGET: &str = "first";
/// What `sun_path` holds, less its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// How many workers there are for one kind of request.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerSettings {
    /// The name of the threads, to which a number is added.
    pub(super) name: &'static str,
    pub(super) threads: usize,
    /// Connections from the front end.
    pub(super) connections: usize,
    /// The most requests that a thread carries out in one batch.
    pub(super) batch: usize,
}

/// tiny_http and its workers.
pub(super) struct Workers {
    server: Arc<tiny_http::Server>,
    threads: usize,
}

impl Workers {
    /// Starts the threads, and opens the connections to them.
    pub(super) fn start(
        dir: &Path,
        settings: WorkerSettings,
        handler: &Arc<Handler>,
        fatal: &Arc<FatalError>,
    ) -> io::Result<(Self, Vec<Pipeline>)> {
        let socket = PrivateSocket::in_dir(dir)?;
        let server = tiny_http::Server::from_listener(UnixListener::bind(&socket.path)?, None)
            .map_err(io::Error::other)?;
        let server = Arc::new(server);
        for n in 0..settings.threads {
            let (server, handler, fatal) =
                (Arc::clone(&server), Arc::clone(handler), Arc::clone(fatal));
            thread::Builder::new()
                .name(format!("{}-{n}", settings.name))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    run_worker(&fatal, || {
                        work(&server, settings.batch, |it| answer(it, &handler))
                    });
                })?;
        }
        let mut connections = Vec::with_capacity(settings.connections);
        let first = format!("GET {FIRST_TARGET} HTTP/1.1\r\nHost: totpd\r\n\r\n");
        for _ in 0..settings.connections {
            let connection = Pipeline::open(&socket.path)?;
            connection.exchange(first.as_bytes())?;
            connections.push(connection);
        }
        let threads = settings.threads;
        Ok((Self { server, threads }, connections))
    }

    /// Tells the workers to end.
    pub(super) fn stop(&self) {
        for _ in 0..self.threads {
            self.server.unblock();
        }
    }
}

/// The whole of a worker's thread, `change-0` or one of `read-0` to `read-7`. Where it ends by itself, that is reported.
fn run_worker(fatal: &FatalError, work: impl FnOnce() -> io::Error) {
    let ended = catch_unwind(AssertUnwindSafe(work));
    let why = ended.map_or_else(|_| "a panic".to_owned(), |it| it.to_string());
    fatal.report(&format!("a worker has ended: {why}"));
}

/// Takes requests from tiny_http and answers them, one batch after another, until tiny_http stops. Runs on a worker's
/// thread, as all below.
fn work(
    server: &tiny_http::Server,
    batch: usize,
    answer: impl Fn(Vec<tiny_http::Request>),
) -> io::Error {
    loop {
        // `recv` fails when it is unblocked, and when tiny_http's accepting thread is gone.
        match server.recv() {
            Ok(first) if first.url() == FIRST_TARGET => {
                write(first.into_writer(), &[&length_prefix(0)]);
            }
            Ok(first) => {
                let mut requests = vec![first];
                while requests.len() < batch
                    && let Ok(Some(next)) = server.try_recv()
                {
                    requests.push(next);
                }
                answer(requests);
            }
            Err(error) => return error,
        }
    }
}

/// Answers a batch, whose changes share a commit.
fn answer(mut requests: Vec<tiny_http::Request>, handler: &Handler) {
    let read: Vec<_> = requests.iter_mut().map(read).collect();
    let parsed = requests.iter().zip(&read).map(|(request, read)| {
        let (method, body) = read.as_ref().map_err(|it| *it)?;
        Ok(request_of(request, method, body))
    });
    let parsed: Vec<_> = parsed.collect();
    // A request that is dropped without an answer would be answered by tiny_http, and not in our framing.
    let replies = catch_unwind(AssertUnwindSafe(|| handler.reply_to_batch(&parsed)));
    let replies = replies.unwrap_or_else(|_| {
        log::error!("a batch panicked; it alone is lost");
        vec![Err(TransportError::Bug); parsed.len()]
    });
    drop(parsed);
    // The answers to short requests, which share a connection, leave in one write: that costs this thread one call and
    // wakes one client. A longer request has a connection to itself.
    let is_alone = requests.len() == 1;
    let mut shared = SharedAnswers::default();
    for (request, reply) in requests.into_iter().zip(replies) {
        let reply = reply.unwrap_or_else(|refusal| {
            let (content_type, origin) = (field(&request, CONTENT_TYPE), field(&request, ORIGIN));
            handler.refuse(refusal, content_type, origin)
        });
        let id = field(&request, REQUEST_ID).unwrap_or_default();
        let head = head_of(&reply, id, handler.now());
        let is_head = *request.method() == tiny_http::Method::Head;
        let body = if is_head { &[] } else { &reply.body[..] };
        let length = length_prefix(head.len().saturating_add(body.len()));
        let parts = [&length, head.as_bytes(), body];
        if is_alone
            || request
                .body_length()
                .is_some_and(|it| it > SHORT_BODY_BYTES)
        {
            write(request.into_writer(), &parts);
        } else {
            shared.add(request, &parts);
        }
    }
    shared.write();
}

/// Reads what tiny_http keeps elsewhere: the method as text, and the body.
fn read(request: &mut tiny_http::Request) -> Result<(String, Vec<u8>), TransportError> {
    let mut body = Vec::new();
    let read = request.as_reader().read_to_end(&mut body);
    read.map_err(|_| TransportError::Bug)?;
    Ok((request.method().to_string(), body))
}

/// Answers to requests that share a private connection, in the order of the requests.
#[derive(Default)]
struct SharedAnswers {
    bytes: Vec<u8>,
    /// That of the newest request. Those of earlier ones are dropped, and tiny_http waits for none of them.
    writer: Option<Box<dyn Write + Send>>,
}

impl SharedAnswers {
    fn add(&mut self, request: tiny_http::Request, parts: &[&[u8]]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.writer = Some(request.into_writer());
    }

    fn write(self) {
        if let Some(writer) = self.writer {
            write(writer, &[&self.bytes]);
        }
    }
}

/// Writes to a private connection. tiny_http keeps the order of the requests.
fn write(mut to: Box<dyn Write + Send>, parts: &[&[u8]]) {
    let mut written = parts.iter().try_for_each(|it| to.write_all(it));
    written = written.and_then(|()| to.flush());
    if let Err(error) = written {
        log::debug!("an answer of a worker was not taken: {error}");
    }
}

fn request_of<'a>(from: &'a tiny_http::Request, method: &'a str, body: &'a [u8]) -> Request<'a> {
    Request {
        via: Via::Http,
        method,
        target: from.url(),
        authorization: field(from, "Authorization"),
        content_type: field(from, CONTENT_TYPE),
        origin: field(from, ORIGIN),
        code: field(from, CODE),
        body,
        peer: field(from, PEER).and_then(|it| it.parse::<IpAddr>().ok()),
        request_id: field(from, REQUEST_ID),
    }
}

fn field<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    let found = request.headers().iter().find(|it| it.field.equiv(name));
    found.map(|it| it.value.as_str())
}

/// The name of the private socket. It is removed when all connections are open, so that no other process can connect.
struct PrivateSocket {
    path: PathBuf,
    /// The directory, where its name is too long for a socket's. The path leads through this handle then.
    _dir: Option<File>,
}

impl PrivateSocket {
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

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_worker_that_ends_by_itself_is_reported() {
        let (tell, told) = mpsc::channel();
        for panics in [false, true] {
            let tell = tell.clone();
            let fatal = FatalError::new(Box::new(move |why| tell.send(why.to_owned()).unwrap()));
            let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
            server.unblock();
            run_worker(&fatal, || {
                assert!(!panics, "on purpose");
                work(&server, 1, |_| ())
            });
            let why = told.try_recv().unwrap();
            assert!(why.contains("a worker has ended"), "{why}");
        }
    }
}
