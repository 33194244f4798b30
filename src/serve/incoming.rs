//! Reads requests from a client's socket, each within a limit of time and of length. Runs on `client` threads, and knows
//! requests, not calls.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::Limits;
use super::head::{BodyLength, RequestHead};
use crate::api::status::TransportError;
use crate::connections::Lease;
use crate::connections::wire::Wire;

/// How much is read at once. Nearly every request fits.
const READ_BYTES: usize = 4096;
/// How many bytes of chunked framing a body may have before it is refused.
const MAX_FRAMING_BYTES: usize = 64 * 1024;
/// How much of a refused request is still read, and for how long, so that the refusal reaches a client
/// that is still sending: closing at once would reset the connection under the answer.
const DRAIN_BYTES: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why there is no complete request.
pub(super) enum Ended {
    /// The client is gone, or was silent for too long between requests.
    Closed,
    /// The client gets this refusal, and the connection is closed.
    Refused(TransportError),
}

impl From<TransportError> for Ended {
    fn from(refusal: TransportError) -> Self {
        Self::Refused(refusal)
    }
}

const BAD_CHUNK: TransportError = TransportError::BadFraming("a chunk's size is malformed");

/// A client's bytes: read, and not yet understood.
pub(super) struct Incoming<'a> {
    pub(super) wire: Wire,
    buffer: Vec<u8>,
    limits: &'a Limits,
    /// The memory of the request that is being read or carried out.
    lease: Lease,
    /// When that request must be complete.
    deadline: Instant,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(wire: Wire, limits: &'a Limits, lease: Lease) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
            limits,
            lease,
            deadline: Instant::now(),
        }
    }

    /// Waits until a request begins.
    pub(super) fn first_byte(&mut self) -> Result<(), Ended> {
        loop {
            // A CRLF too many between requests is overlooked (RFC 9112 §2.2), and begins none.
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.drain(..2);
            }
            if !self.buffer.is_empty() {
                return Ok(());
            }
            // An idle client holds no buffer.
            self.buffer = Vec::new();
            let read = self.read(self.limits.idle_time);
            read.map_err(|_| Ended::Closed)?;
        }
    }

    /// Begins to read a request whose first byte arrived at `begun`. Reserves memory for the bytes of it that were read.
    pub(super) fn begin(&mut self, begun: Instant) -> Result<(), Ended> {
        self.set_deadline(begun)?;
        self.hold(self.buffer.len())
    }

    fn set_deadline(&mut self, begun: Instant) -> Result<(), Ended> {
        let deadline = begun.checked_add(self.limits.request_time);
        self.deadline = deadline.ok_or(Ended::Closed)?;
        Ok(())
    }

    /// The request was answered or refused. Releases its memory.
    pub(super) fn end(&mut self) {
        self.lease.resize(0);
    }

    /// The bytes that were read, if they begin as every connection of HTTP/2 does and no request of HTTP/1.1 can.
    #[cfg(feature = "grpc")]
    pub(super) fn http2(&mut self, begun: Instant) -> Result<Option<Vec<u8>>, Ended> {
        self.set_deadline(begun)?;
        let preface = crate::grpc::PREFACE;
        while preface.starts_with(&self.buffer) && self.buffer.len() < preface.len() {
            self.more()?;
        }
        let speaks = self.buffer.starts_with(preface);
        Ok(speaks.then(|| std::mem::take(&mut self.buffer)))
    }

    /// Reads the head of a request. Also where that fails, `head` is then what could be read.
    pub(super) fn head(&mut self, head: &mut RequestHead) -> Result<(), Ended> {
        let read = self.complete_head(head);
        if read.is_err() {
            let _incomplete = head.parse(&self.buffer);
        }
        read
    }

    /// A head is parsed where it may be complete, and else only when it has doubled: the cost is linear however slowly it comes.
    fn complete_head(&mut self, head: &mut RequestHead) -> Result<(), Ended> {
        let max = self.limits.head_bytes;
        let mut parse_at = 0;
        let mut searched = 0_usize;
        loop {
            let within = self.buffer.get(..max).unwrap_or(&self.buffer);
            let unsearched = within.get(searched..).unwrap_or_default();
            let has_end = unsearched.windows(4).any(|it| it == b"\r\n\r\n");
            searched = within.len().saturating_sub(3);
            let is_too_long = self.buffer.len() >= max;
            if has_end || is_too_long || within.len() >= parse_at {
                parse_at = within.len().saturating_mul(2);
                if let Some(length) = head.parse(within)? {
                    self.buffer.drain(..length);
                    return Ok(());
                }
            }
            if is_too_long {
                return Err(TransportError::HeadTooLarge.into());
            }
            self.more_held()?;
        }
    }

    /// Reads a body of that length.
    pub(super) fn body(&mut self, length: BodyLength) -> Result<Vec<u8>, Ended> {
        match length {
            BodyLength::Bytes(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > self.limits.body_bytes {
                    return Err(TransportError::BodyTooLarge.into());
                }
                while self.buffer.len() < length {
                    self.more_held()?;
                }
                Ok(self.buffer.drain(..length).collect())
            }
            BodyLength::Chunked => self.chunks(),
        }
    }

    /// Whether a body of that length is still missing and allowed, so that its client may wait for `100 Continue`.
    pub(super) fn awaits(&self, length: BodyLength) -> bool {
        match length {
            BodyLength::Bytes(length) => usize::try_from(length)
                .is_ok_and(|it| self.buffer.len() < it && it <= self.limits.body_bytes),
            BodyLength::Chunked => self.buffer.is_empty(),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Ended> {
        let mut body = Vec::new();
        let mut framing = 0_usize;
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.buffer.len() < READ_BYTES => {
                        self.more()?;
                    }
                    _ => return Err(BAD_CHUNK.into()),
                }
            };
            only_visible(self.buffer.get(..line).unwrap_or_default())?;
            self.buffer.drain(..line);
            framing = framing.saturating_add(line).saturating_add(2);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > self.limits.body_bytes.saturating_sub(body.len()) {
                return Err(TransportError::BodyTooLarge.into());
            }
            if framing > MAX_FRAMING_BYTES {
                let why = "too much framing for so little body";
                return Err(TransportError::BadFraming(why).into());
            }
            while self.buffer.len() < size.saturating_add(2) {
                self.more_held()?;
            }
            body.extend(self.buffer.drain(..size));
            // After the last chunk trailers could stand; totpd knows none, and takes none.
            if !self.buffer.starts_with(b"\r\n") {
                let why = "a chunk does not end where it says, or has trailers";
                return Err(TransportError::BadFraming(why).into());
            }
            self.buffer.drain(..2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads more of a request, if the memory budget has enough left.
    fn more_held(&mut self) -> Result<(), Ended> {
        let before = self.buffer.len();
        self.more()?;
        self.hold(self.buffer.len().saturating_sub(before))
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Ended> {
        let has_memory = self.lease.grow(bytes);
        has_memory.then_some(()).ok_or(TransportError::Busy.into())
    }

    /// Reads more of a request that has begun.
    fn more(&mut self) -> Result<(), Ended> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.read(left).map_err(|error| {
            if error.kind() == ErrorKind::TimedOut {
                TransportError::TooSlow.into()
            } else {
                Ended::Closed
            }
        })
    }

    fn read(&mut self, time: Duration) -> io::Result<()> {
        let old = self.buffer.len();
        self.buffer.resize(old.saturating_add(READ_BYTES), 0);
        let unfilled = self.buffer.get_mut(old..).unwrap_or_default();
        let read = self.wire.read(unfilled, time);
        let length = old.saturating_add(*read.as_ref().unwrap_or(&0));
        self.buffer.truncate(length);
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads on for a short time and drops what comes.
    pub(super) fn drain(&mut self) {
        let begun = Instant::now();
        let mut drained = self.buffer.len();
        self.buffer = Vec::new();
        while drained < DRAIN_BYTES {
            self.buffer.clear();
            if self
                .read(DRAIN_TIME.saturating_sub(begun.elapsed()))
                .is_err()
            {
                return;
            }
            drained = drained.saturating_add(self.buffer.len());
        }
    }
}

/// A chunk's size line begins with a digit, and its extension, which is ignored, is text: a parser before us that ends the
/// line at a bare LF would see other chunks.
fn only_visible(line: &[u8]) -> Result<(), TransportError> {
    let text = line.strip_suffix(b"\r\n").unwrap_or_default();
    let is_text = text
        .iter()
        .all(|it| *it == b'\t' || (b' '..=b'~').contains(it));
    let begins_with_digit = text.first().is_some_and(u8::is_ascii_hexdigit);
    (is_text && begins_with_digit)
        .then_some(())
        .ok_or(BAD_CHUNK)
}
