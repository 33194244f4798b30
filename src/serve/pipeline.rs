//! One connection to tiny_http that many `client` threads share. Requests are written one after another without waiting,
//! and their answers come in the same order, each after its length. All of this runs on `client` threads: there is no
//! thread of its own.
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

/// How much is read at once, unless an answer is longer. The answers of a batch come in one piece, and each further read
/// wakes one more thread.
const READ_BYTES: usize = 32 * 1024;
/// No worker gives a longer answer: a page of a search has 4 MiB. What claims to be longer has no length before it.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

const PREFIX_BYTES: usize = 4;

/// What stands before an answer of `bytes` bytes on this connection.
pub(super) fn length_prefix(bytes: usize) -> [u8; PREFIX_BYTES] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

/// A connection to tiny_http.
pub(super) struct Pipeline {
    stream: UnixStream,
    /// Held while a request is queued and written, so that both have one order.
    writing: Mutex<()>,
    queue: Mutex<Queue>,
}

struct Queue {
    /// Requests whose answers have not come yet.
    waiting: VecDeque<SyncSender<Wake>>,
    /// What was read of the next answers. It is here while no thread reads, which is while no request waits.
    unread: Option<Vec<u8>>,
    is_broken: bool,
}

/// Why a waiting `client` thread is woken. It is woken once; where its sender is dropped instead, the connection is broken.
enum Wake {
    Answer(Vec<u8>),
    /// Its answer is next: it reads the connection from here on, after these bytes.
    Read(Vec<u8>),
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
    pub(super) fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let (wake, woken) = sync_channel(1);
        let sent = self.send(request, wake);
        let answer = sent.and_then(|()| match woken.recv().map_err(|_| broken())? {
            Wake::Answer(answer) => Ok(answer),
            Wake::Read(unread) => self.read(unread),
        });
        answer.inspect_err(|_| self.fail())
    }

    /// Queues a request and writes it. If no request waits, its own thread is to read.
    fn send(&self, request: &[u8], wake: SyncSender<Wake>) -> io::Result<()> {
        let _writing = lock(&self.writing);
        let mut queue = lock(&self.queue);
        if queue.is_broken {
            return Err(broken());
        }
        if let Some(unread) = queue.unread.take() {
            let _waits = wake.try_send(Wake::Read(unread));
        }
        queue.waiting.push_back(wake);
        drop(queue);
        (&self.stream).write_all(request)
    }

    /// Reads until the first answer is complete, which is the caller's, and sends the others what came with it.
    fn read(&self, mut own: Vec<u8>) -> io::Result<Vec<u8>> {
        let length = loop {
            match first_answer(&own)? {
                Ok(answer) => break answer.len(),
                Err(missing) => self.fill(&mut own, missing)?,
            }
        };
        let mut unread = own.split_off(length.saturating_add(PREFIX_BYTES));
        own.drain(..PREFIX_BYTES);
        let mut used = 0_usize;
        let mut queue = lock(&self.queue);
        queue.waiting.pop_front();
        while let Ok(answer) = first_answer(unread.get(used..).unwrap_or_default())?
            && let Some(next) = queue.waiting.pop_front()
        {
            used = used
                .saturating_add(answer.len())
                .saturating_add(PREFIX_BYTES);
            let _waits = next.try_send(Wake::Answer(answer.to_vec()));
        }
        unread.drain(..used);
        if unread.is_empty() {
            // Emptying a buffer leaves its bytes in memory, and an answer may have shown a secret.
            unread.zeroize();
        }
        match queue.waiting.front() {
            Some(next) => drop(next.try_send(Wake::Read(unread))),
            None => queue.unread = Some(unread),
        }
        Ok(own)
    }

    /// Reads more, and no less than `missing` bytes.
    fn fill(&self, buffer: &mut Vec<u8>, missing: usize) -> io::Result<()> {
        let mut at = buffer.len();
        let end = at.saturating_add(missing);
        buffer.resize(end.max(at.saturating_add(READ_BYTES)), 0);
        while at < end {
            let read = (&self.stream).read(buffer.get_mut(at..).unwrap_or_default())?;
            if read == 0 {
                return Err(broken());
            }
            at = at.saturating_add(read);
        }
        buffer.truncate(at);
        Ok(())
    }

    /// No request on this connection gets an answer any more.
    fn fail(&self) {
        let mut queue = lock(&self.queue);
        queue.is_broken = true;
        // This wakes the waiting threads, because it drops their senders.
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

/// The answer at the start of `bytes`, or how many bytes are missing, at least.
fn first_answer(bytes: &[u8]) -> io::Result<Result<&[u8], usize>> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Err(PREFIX_BYTES.saturating_sub(bytes.len())));
    };
    let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > MAX_ANSWER_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let answer = rest.get(..length);
    Ok(answer.ok_or(length.saturating_sub(rest.len())))
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

    fn framed(answer: &str) -> Vec<u8> {
        [&length_prefix(answer.len()), answer.as_bytes()].concat()
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
                        let told = pipeline.exchange(format!("{sent}\n").as_bytes());
                        assert_eq!(told.unwrap(), sent.as_bytes());
                    }
                });
            }
            let mut lines = io::BufReader::new(theirs.try_clone().unwrap());
            for nth in 0..clients * rounds {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                for part in framed(line.trim_end()).chunks(1 + nth % 17) {
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
                .map(|_| scope.spawn(|| pipeline.exchange(b"x\n").is_err()))
                .collect();
            while lock(&pipeline.queue).waiting.len() < 4 {
                thread::yield_now();
            }
            drop(theirs);
            assert!(waiting.into_iter().all(|it| it.join().unwrap()));
        });
        assert!(pipeline.exchange(b"x\n").is_err());
    }

    #[test]
    fn what_has_no_length_before_it_is_no_answer() {
        let (pipeline, mut theirs) = pipeline();
        theirs.write_all(b"HTTP/1.1 500 ...").unwrap();
        assert!(pipeline.exchange(b"x\n").is_err());
    }
}
