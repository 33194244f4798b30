//! The fixed pool of connections to tiny_http: who gets one, who waits, and one exchange over one.
//!
//! Handing out is fair: whoever has waited longest is next. There is a pool for changes and one for reads, so
//! that reads and health always find a connection, whatever the changes wait for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Limits;
use super::head::Head;
use crate::api::status::AtTheDoor;

/// When to come back if nobody was free.
const RETRY_AFTER_S: u64 = 1;
/// Header fields in an answer of ours: about ten.
const MAX_FIELDS: usize = 32;
const READ_BYTES: usize = 4096;
/// The header that carries the peer's address to the worker. From outside nothing of that name passes.
pub(super) const PEER: &str = "X-Totpd-Peer";

/// A connection to tiny_http, kept for good.
pub(super) struct Upstream {
    stream: UnixStream,
}

/// An answer as tiny_http wrote it, its framing taken off.
pub(super) struct Answer {
    pub(super) status_line: String,
    pub(super) fields: Vec<u8>,
    /// The length of the body of a GET; a HEAD has it without the body.
    pub(super) content_length: usize,
    pub(super) body: Vec<u8>,
}

impl Upstream {
    /// Opens one connection.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            stream: UnixStream::connect(path)?,
        })
    }

    /// Sends one request and reads its answer. An error means that tiny_http's side is broken.
    pub(super) fn exchange(&mut self, head: &Head, peer: &str, body: &[u8]) -> io::Result<Answer> {
        let mut request = Vec::with_capacity(body.len().saturating_add(512));
        write!(
            request,
            "{} {} HTTP/1.1\r\nHost: totpd\r\n",
            head.method, head.target
        )?;
        write!(
            request,
            "Content-Length: {}\r\n{PEER}: {peer}\r\n",
            body.len()
        )?;
        // Of what the client sent in its head, only this goes on.
        for (name, value) in [
            ("Authorization", &head.authorization),
            ("Content-Type", &head.content_type),
            ("Origin", &head.origin),
        ] {
            if let Some(value) = value {
                write!(request, "{name}: {value}\r\n")?;
            }
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;

        let mut buffer = Vec::with_capacity(READ_BYTES);
        let (mut answer, length) = loop {
            if let Some(found) = read_head(&buffer)? {
                break found;
            }
            self.more(&mut buffer)?;
        };
        if head.method != "HEAD" {
            let end = length.saturating_add(answer.content_length);
            while buffer.len() < end {
                self.more(&mut buffer)?;
            }
            answer.body = buffer.split_off(length);
        }
        Ok(answer)
    }

    fn more(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let old = buffer.len();
        buffer.resize(old.saturating_add(READ_BYTES), 0);
        let read = self
            .stream
            .read(buffer.get_mut(old..).unwrap_or_default())?;
        buffer.truncate(old.saturating_add(read));
        if read == 0 {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }
}

/// Reads an answer's head, dropping what concerns this connection alone and what names the software.
fn read_head(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes).map_err(broken)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let (code, reason) = (
        response.code.unwrap_or_default(),
        response.reason.unwrap_or_default(),
    );
    let mut answer = Answer {
        status_line: format!("HTTP/1.1 {code} {reason}\r\n"),
        fields: Vec::with_capacity(256),
        content_length: 0,
        body: Vec::new(),
    };
    for field in response.headers.iter() {
        match field.name.to_ascii_lowercase().as_str() {
            "server" | "connection" => {}
            "content-length" => {
                let text = str::from_utf8(field.value).ok();
                answer.content_length = text
                    .and_then(|it| it.parse().ok())
                    .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            }
            _ => {
                answer.fields.extend_from_slice(field.name.as_bytes());
                answer.fields.extend_from_slice(b": ");
                answer.fields.extend_from_slice(field.value);
                answer.fields.extend_from_slice(b"\r\n");
            }
        }
    }
    Ok(Some((answer, length)))
}

/// The pool.
pub(super) struct Pool {
    state: Mutex<State>,
    max_waiting: usize,
    patience: Duration,
}

struct State {
    idle: Vec<Upstream>,
    waiting: VecDeque<Arc<Place>>,
}

/// A place in the queue.
struct Place {
    given: Mutex<Option<Upstream>>,
    arrived: Condvar,
}

impl Pool {
    pub(super) fn new(idle: Vec<Upstream>, limits: &Limits) -> Self {
        let waiting = VecDeque::new();
        Self {
            state: Mutex::new(State { idle, waiting }),
            max_waiting: limits.waiting,
            patience: limits.answer_time,
        }
    }

    /// Takes a connection, waiting for one if it must, but not for long and not with too many others.
    pub(super) fn take(&self) -> Result<Upstream, AtTheDoor> {
        let busy = AtTheDoor::Busy {
            retry_after_s: RETRY_AFTER_S,
        };
        let place = {
            let mut state = self.lock();
            // Where somebody waits nothing is idle: whoever waits was here first.
            if let Some(upstream) = state.idle.pop() {
                return Ok(upstream);
            }
            if state.waiting.len() >= self.max_waiting {
                return Err(busy);
            }
            let place = Arc::new(Place {
                given: Mutex::new(None),
                arrived: Condvar::new(),
            });
            state.waiting.push_back(Arc::clone(&place));
            place
        };
        let given = place.given.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut given, _) = place
            .arrived
            .wait_timeout_while(given, self.patience, |it| it.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = given.take() {
            return Ok(upstream);
        }
        drop(given);
        // Leave the queue; a connection may have been given in this very moment.
        self.lock().waiting.retain(|it| !Arc::ptr_eq(it, &place));
        place
            .given
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or(busy)
    }

    /// Gives a connection back, or on to whoever has waited longest.
    pub(super) fn give(&self, upstream: Upstream) {
        let mut state = self.lock();
        match state.waiting.pop_front() {
            Some(place) => {
                *place.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
                place.arrived.notify_one();
            }
            None => state.idle.push(upstream),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn pool(size: usize) -> Pool {
        let upstream = || Upstream {
            stream: UnixStream::pair().unwrap().0,
        };
        let idle = (0..size).map(|_| upstream()).collect();
        Pool::new(idle, &Limits::default())
    }

    #[test]
    fn whoever_has_waited_longest_is_next() {
        let pool = pool(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            for nth in 0..3 {
                let (pool, tell) = (&pool, tell.clone());
                scope.spawn(move || {
                    let taken = pool.take().unwrap();
                    tell.send(nth).unwrap();
                    pool.give(taken);
                });
                while pool.lock().waiting.len() <= nth {
                    thread::yield_now();
                }
            }
            pool.give(first);
            let order: Vec<_> = (0..3).map(|_| told.recv().unwrap()).collect();
            assert_eq!(order, [0, 1, 2]);
        });
        pool.give(second);
    }
}
