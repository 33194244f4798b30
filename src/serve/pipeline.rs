//! One connection to tiny_http that many `client` threads share. Requests are written one after another without waiting,
//! and their answers come in the same order. All of this runs on `client` threads: there is no thread of its own.
//!
//! The thread whose answer is next reads the connection. When it has its answer it sends the others what else has come,
//! and passes the reading on to the thread whose answer is next then. So a client that is alone reads its own answer, and
//! of many each is woken once.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use super::answer::Http1Answer;

/// Header fields in an answer of tiny_http's: about ten.
const MAX_FIELDS: usize = 32;
const READ_BYTES: usize = 4096;

/// A connection to tiny_http.
pub(super) struct Pipeline {
    stream: UnixStream,
    /// Held while a request is queued and written, so that both have one order.
    writing: Mutex<()>,
    queue: Mutex<Queue>,
}

struct Queue {
    /// Requests whose answers have not come yet.
    waiting: VecDeque<Waiting>,
    /// What was read of the next answers. It is here while no thread reads, which is while no request waits.
    unread: Option<Vec<u8>>,
    is_broken: bool,
}

/// A request whose thread waits. Where this is dropped without a word to it, the connection is broken.
#[derive(Clone)]
struct Waiting {
    is_head: bool,
    tell: SyncSender<Wake>,
}

/// Why a waiting thread is woken.
enum Wake {
    Answer(Http1Answer),
    /// Its answer is next: it reads the connection from here on, after these bytes.
    Read(Vec<u8>),
}

impl Waiting {
    fn wake(&self, why: Wake) {
        // There is room: each is woken once.
        let _waits = self.tell.try_send(why);
    }
}

impl Pipeline {
    /// Opens a connection.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::on(UnixStream::connect(path)?))
    }

    fn on(stream: UnixStream) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            unread: Some(Vec::new()),
            is_broken: false,
        };
        Self {
            stream,
            writing: Mutex::new(()),
            queue: Mutex::new(queue),
        }
    }

    /// Sends a request and waits for its answer. An error means that the connection, or tiny_http's side, is broken.
    pub(super) fn exchange(&self, request: &[u8], is_head: bool) -> io::Result<Http1Answer> {
        let (tell, woken) = sync_channel(1);
        let exchanged = self
            .send(request, Waiting { is_head, tell })
            .and_then(|()| match woken.recv().map_err(|_| broken())? {
                Wake::Answer(answer) => Ok(answer),
                Wake::Read(unread) => self.read(unread),
            });
        exchanged.inspect_err(|_| self.fail())
    }

    /// Queues a request and writes it. If no request waits, its own thread is to read.
    fn send(&self, request: &[u8], waiting: Waiting) -> io::Result<()> {
        let _writing = lock(&self.writing);
        let mut queue = lock(&self.queue);
        if queue.is_broken {
            return Err(broken());
        }
        if let Some(unread) = queue.unread.take() {
            waiting.wake(Wake::Read(unread));
        }
        queue.waiting.push_back(waiting);
        drop(queue);
        (&self.stream).write_all(request)
    }

    /// Reads until the first answer is complete, which is the caller's, and sends the others what came with it.
    fn read(&self, mut unread: Vec<u8>) -> io::Result<Http1Answer> {
        let mut own = None;
        let mut used = 0_usize;
        loop {
            let Some(next) = lock(&self.queue).waiting.front().cloned() else {
                break;
            };
            let rest = unread.get(used..).unwrap_or_default();
            if let Some((mut answer, head, end)) = parse(rest, next.is_head)? {
                if used == 0 && rest.len() == end {
                    // A long answer is not copied.
                    answer.body = unread.split_off(head);
                    unread.clear();
                } else {
                    answer.body = rest.get(head..end).unwrap_or_default().to_vec();
                    used = used.saturating_add(end);
                }
                lock(&self.queue).waiting.pop_front();
                if own.is_none() {
                    own = Some(answer);
                } else {
                    next.wake(Wake::Answer(answer));
                }
            } else if own.is_some() {
                break;
            } else {
                self.fill(&mut unread)?;
            }
        }
        unread.drain(..used);
        if unread.is_empty() {
            // Emptying a buffer leaves its bytes in memory, and an answer may have shown a secret.
            unread.zeroize();
        }
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(next) => next.wake(Wake::Read(unread)),
            None => queue.unread = Some(unread),
        }
        own.ok_or_else(broken)
    }

    fn fill(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let old = buffer.len();
        buffer.resize(old.saturating_add(READ_BYTES), 0);
        let read = (&self.stream).read(buffer.get_mut(old..).unwrap_or_default())?;
        buffer.truncate(old.saturating_add(read));
        if read == 0 { Err(broken()) } else { Ok(()) }
    }

    /// No request on this connection gets an answer any more.
    fn fail(&self) {
        let mut queue = lock(&self.queue);
        queue.is_broken = true;
        // Their threads are told by that.
        queue.waiting.clear();
        drop(queue);
        let _gone = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// Reads the head of the answer at the start of `bytes`, if all of the answer is there, and returns where its body begins
/// and ends. What concerns this connection alone is dropped, and what names the software.
fn parse(bytes: &[u8], is_head: bool) -> io::Result<Option<(Http1Answer, usize, usize)>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes).map_err(|_| invalid())? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let mut answer = Http1Answer {
        status: response.code.unwrap_or_default(),
        fields: Vec::with_capacity(256),
        content_length: 0,
        body: Vec::new(),
    };
    for field in response.headers.iter() {
        match field.name.to_ascii_lowercase().as_str() {
            "server" | "connection" => {}
            "content-length" => {
                let text = str::from_utf8(field.value).ok();
                let length = text.and_then(|it| it.parse().ok());
                answer.content_length = length.ok_or_else(invalid)?;
            }
            _ => {
                for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                    answer.fields.extend_from_slice(part);
                }
            }
        }
    }
    let body = if is_head { 0 } else { answer.content_length };
    let end = head.saturating_add(body);
    Ok((bytes.len() >= end).then_some((answer, head, end)))
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::thread;

    use super::*;

    /// A pipeline, and the end that answers.
    fn pipeline() -> (Pipeline, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Pipeline::on(ours), theirs)
    }

    fn answer(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nServer: x\r\nX-Kept: y\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn each_request_gets_its_own_answer_however_the_answers_are_cut_up() {
        let (pipeline, mut theirs) = pipeline();
        let (clients, rounds) = (16, 50);
        thread::scope(|scope| {
            for client in 0..clients {
                let pipeline = &pipeline;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let sent = format!("{client}-{round}");
                        let told = pipeline.exchange(format!("{sent}\n").as_bytes(), false);
                        let told = told.unwrap();
                        assert_eq!(told.body, sent.as_bytes());
                        assert_eq!(told.fields, b"X-Kept: y\r\n");
                    }
                });
            }
            let mut lines = io::BufReader::new(theirs.try_clone().unwrap());
            for nth in 0..clients * rounds {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                let bytes = answer(line.trim_end()).into_bytes();
                for part in bytes.chunks(1 + nth % 97) {
                    theirs.write_all(part).unwrap();
                }
            }
        });
    }

    #[test]
    fn when_the_other_end_is_gone_everybody_is_told_and_nobody_waits() {
        let (pipeline, theirs) = pipeline();
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| pipeline.exchange(b"x\n", false).is_err()))
                .collect();
            while lock(&pipeline.queue).waiting.len() < 4 {
                thread::yield_now();
            }
            drop(theirs);
            assert!(waiting.into_iter().all(|it| it.join().unwrap()));
        });
        assert!(pipeline.exchange(b"x\n", false).is_err());
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let (pipeline, mut theirs) = pipeline();
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        theirs
            .write_all(format!("{text}{}", answer("ok")).as_bytes())
            .unwrap();
        let head = pipeline.exchange(b"x\n", true).unwrap();
        assert_eq!((head.content_length, head.body.len()), (2, 0));
        assert_eq!(pipeline.exchange(b"x\n", false).unwrap().body, b"ok");
    }
}
