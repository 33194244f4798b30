//! One connection to tiny_http that many `client` threads share. Requests are written one after another without waiting,
//! and their answers come in the same order. All of this runs on `client` threads: there is no thread of its own.
//!
//! The thread whose answer is next reads the connection. When it has its answer it hands over what else has come, and
//! the reading to the thread whose answer is next then. So a client that is alone reads its own answer, and of many
//! each is woken once.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use super::answer::Answer;

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
    waiting: VecDeque<Arc<Slot>>,
    /// There while no thread reads, which is while no request waits.
    reader: Option<Reader>,
    is_broken: bool,
}

/// What was read of the next answers.
struct Reader {
    buffer: Vec<u8>,
}

/// Where a thread waits for its answer.
struct Slot {
    is_head: bool,
    wake: Mutex<Option<Wake>>,
    woken: Condvar,
}

/// Why a waiting thread is woken.
enum Wake {
    Answer(Answer),
    /// Its answer is next: it reads the connection from here on.
    Read(Reader),
    Broken,
}

impl Slot {
    fn wake(&self, why: Wake) {
        *lock(&self.wake) = Some(why);
        self.woken.notify_one();
    }

    fn wait(&self) -> Wake {
        let wake = lock(&self.wake);
        let woken = self.woken.wait_while(wake, |it| it.is_none());
        let why = woken.unwrap_or_else(PoisonError::into_inner).take();
        why.unwrap_or(Wake::Broken)
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
            reader: Some(Reader { buffer: Vec::new() }),
            is_broken: false,
        };
        Self {
            stream,
            writing: Mutex::new(()),
            queue: Mutex::new(queue),
        }
    }

    /// Sends a request and waits for its answer. An error means that the connection, or tiny_http's side, is broken.
    pub(super) fn exchange(&self, request: &[u8], is_head: bool) -> io::Result<Answer> {
        let slot = Arc::new(Slot {
            is_head,
            wake: Mutex::new(None),
            woken: Condvar::new(),
        });
        let written = {
            let _writing = lock(&self.writing);
            let mut queue = lock(&self.queue);
            if queue.is_broken {
                return Err(broken());
            }
            queue.waiting.push_back(Arc::clone(&slot));
            if let Some(reader) = queue.reader.take() {
                slot.wake(Wake::Read(reader));
            }
            drop(queue);
            (&self.stream).write_all(request)
        };
        if let Err(error) = written {
            self.fail();
            return Err(error);
        }
        match slot.wait() {
            Wake::Answer(answer) => Ok(answer),
            Wake::Broken => Err(broken()),
            Wake::Read(reader) => self.read(reader).inspect_err(|_| self.fail()),
        }
    }

    /// Reads until the first answer is complete, which is the caller's, and passes on what came with it.
    fn read(&self, mut reader: Reader) -> io::Result<Answer> {
        let mut own = None;
        let mut used = 0_usize;
        loop {
            let Some(slot) = lock(&self.queue).waiting.front().cloned() else {
                break;
            };
            let rest = reader.buffer.get(used..).unwrap_or_default();
            if let Some((mut answer, head, end)) = parse(rest, slot.is_head)? {
                if used == 0 && rest.len() == end {
                    // A long answer is not copied.
                    answer.body = reader.buffer.split_off(head);
                    reader.buffer.clear();
                } else {
                    answer.body = rest.get(head..end).unwrap_or_default().to_vec();
                    used = used.saturating_add(end);
                }
                lock(&self.queue).waiting.pop_front();
                if own.is_none() {
                    own = Some(answer);
                } else {
                    slot.wake(Wake::Answer(answer));
                }
            } else if own.is_some() {
                break;
            } else {
                reader.fill(&self.stream)?;
            }
        }
        reader.buffer.drain(..used);
        if reader.buffer.is_empty() {
            // Emptying a buffer leaves its bytes in memory, and an answer may have shown a secret.
            reader.buffer.zeroize();
        }
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(next) => next.wake(Wake::Read(reader)),
            None => queue.reader = Some(reader),
        }
        own.ok_or_else(broken)
    }

    /// No request on this connection gets an answer any more.
    fn fail(&self) {
        let mut queue = lock(&self.queue);
        queue.is_broken = true;
        for slot in queue.waiting.drain(..) {
            slot.wake(Wake::Broken);
        }
        drop(queue);
        let _gone = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Reader {
    fn fill(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        let old = self.buffer.len();
        self.buffer.resize(old.saturating_add(READ_BYTES), 0);
        let read = stream.read(self.buffer.get_mut(old..).unwrap_or_default())?;
        self.buffer.truncate(old.saturating_add(read));
        if read == 0 { Err(broken()) } else { Ok(()) }
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
fn parse(bytes: &[u8], is_head: bool) -> io::Result<Option<(Answer, usize, usize)>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes).map_err(|_| invalid())? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let mut answer = Answer {
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
