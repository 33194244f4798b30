//! Reads requests from a client's socket, each within a limit of time and of length. Runs on `client` threads, and knows
//! requests, not calls.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Limits;
use super::head::{self, BodyLength, Head};
use crate::api::status::TransportError;
use crate::connections::wire::Wire;
use crate::connections::{Lease, Share};

/// How much is read at once. Nearly every request fits.
const READ_BYTES: usize = 4096;
/// What chunked framing may add to a body before it is no longer a body but a nuisance.
const MAX_FRAMING_BYTES: usize = 64 * 1024;
/// How much of a refused request is still read, and for how long, so that the refusal reaches a client
/// that is still sending: closing at once would reset the connection under the answer.
const DRAIN_BYTES: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why there is no whole request.
pub(super) enum Ended {
    /// The client is gone, or was silent for too long between requests.
    Closed,
    /// The client gets this refusal, and the connection is closed.
    Refused(TransportError),
}

/// A client's bytes: read, and not yet understood.
pub(super) struct Incoming {
    wire: Wire,
    buffer: Vec<u8>,
    share: Arc<Share>,
}

impl Incoming {
    pub(super) const fn new(wire: Wire, share: Arc<Share>) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
            share,
        }
    }

    /// The socket, to write answers to.
    pub(super) const fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Waits until a request begins.
    pub(super) fn first_byte(&mut self, idle: Duration) -> Result<(), Ended> {
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
            self.read(idle).map_err(|_| Ended::Closed)?;
        }
    }

    /// Whether the client begins as one that speaks HTTP/2: then what was read of it. Nothing else begins so.
    #[cfg(feature = "grpc")]
    pub(super) fn http2(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Ended> {
        let preface = crate::grpc::PREFACE;
        while preface.starts_with(&self.buffer) && self.buffer.len() < preface.len() {
            self.more(deadline)?;
        }
        let speaks = self.buffer.starts_with(preface);
        Ok(speaks.then(|| std::mem::take(&mut self.buffer)))
    }

    /// What this request may hold of memory; what has been read of it counts already.
    pub(super) fn lease(&self) -> Result<Arc<Lease>, Ended> {
        let lease = self.share.lease(self.buffer.len());
        lease
            .map(Arc::new)
            .ok_or(Ended::Refused(TransportError::Busy))
    }

    /// What was read and not understood yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads the head of a request.
    ///
    /// It is parsed where it may be complete, and else only when it has doubled: the cost is linear however it drips.
    pub(super) fn head(
        &mut self,
        lease: &Lease,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Head, Ended> {
        let mut parse_at = 0;
        let mut searched = 0_usize;
        loop {
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.drain(..2);
                searched = 0;
            }
            let within = self.buffer.get(..limits.head_bytes).unwrap_or(&self.buffer);
            let unsearched = within.get(searched..).unwrap_or_default();
            let has_end = unsearched.windows(4).any(|it| it == b"\r\n\r\n");
            searched = within.len().saturating_sub(3);
            let is_too_long = self.buffer.len() >= limits.head_bytes;
            if has_end || is_too_long || within.len() >= parse_at {
                parse_at = within.len().saturating_mul(2);
                if let Some(head) = head::parse(within).map_err(Ended::Refused)? {
                    self.buffer.drain(..head.length);
                    return Ok(head);
                }
            }
            if is_too_long {
                return Err(Ended::Refused(TransportError::HeadTooLarge));
            }
            self.more_within(lease, deadline)?;
        }
    }

    /// Reads the body that belongs to `length`.
    pub(super) fn body(
        &mut self,
        length: BodyLength,
        lease: &Lease,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Vec<u8>, Ended> {
        match length {
            BodyLength::Bytes(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > limits.body_bytes {
                    return Err(Ended::Refused(TransportError::BodyTooLarge));
                }
                while self.buffer.len() < length {
                    self.more_within(lease, deadline)?;
                }
                Ok(self.buffer.drain(..length).collect())
            }
            BodyLength::Chunked => self.chunks(lease, limits, deadline),
        }
    }

    /// Whether a body of that length is yet to come, and may: its client waits to be told to go on.
    pub(super) fn awaits(&self, length: BodyLength, limits: &Limits) -> bool {
        match length {
            BodyLength::Bytes(length) => usize::try_from(length)
                .is_ok_and(|it| self.buffer.len() < it && it <= limits.body_bytes),
            BodyLength::Chunked => self.buffer.is_empty(),
        }
    }

    fn chunks(
        &mut self,
        lease: &Lease,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Vec<u8>, Ended> {
        let refused = |why| Ended::Refused(TransportError::BadFraming(why));
        let mut body = Vec::new();
        let mut framing = 0_usize;
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.buffer.len() < READ_BYTES => {
                        self.more(deadline)?;
                    }
                    _ => return Err(refused("a chunk's size is malformed")),
                }
            };
            only_visible(self.buffer.get(..line).unwrap_or_default())?;
            self.buffer.drain(..line);
            framing = framing.saturating_add(line).saturating_add(2);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > limits.body_bytes.saturating_sub(body.len()) {
                return Err(Ended::Refused(TransportError::BodyTooLarge));
            }
            if framing > MAX_FRAMING_BYTES {
                return Err(refused("too much framing for so little body"));
            }
            while self.buffer.len() < size.saturating_add(2) {
                self.more_within(lease, deadline)?;
            }
            body.extend(self.buffer.drain(..size));
            // After the last chunk trailers could stand; totpd knows none, and takes none.
            if !self.buffer.starts_with(b"\r\n") {
                return Err(refused(
                    "a chunk does not end where it says, or has trailers",
                ));
            }
            self.buffer.drain(..2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads more of a request, if the memory budget has enough left.
    fn more_within(&mut self, lease: &Lease, deadline: Instant) -> Result<(), Ended> {
        let before = self.buffer.len();
        self.more(deadline)?;
        let grown = lease.grow(self.buffer.len().saturating_sub(before));
        grown
            .then_some(())
            .ok_or(Ended::Refused(TransportError::Busy))
    }

    /// Reads more of a request that has begun.
    fn more(&mut self, deadline: Instant) -> Result<(), Ended> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ended::Refused(TransportError::TooSlow));
        }
        self.read(left).map_err(|error| {
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                Ended::Refused(TransportError::TooSlow)
            } else {
                Ended::Closed
            }
        })
    }

    fn read(&mut self, time: Duration) -> io::Result<()> {
        let old = self.buffer.len();
        self.buffer.resize(old.saturating_add(READ_BYTES), 0);
        let read = self
            .wire
            .read(self.buffer.get_mut(old..).unwrap_or_default(), time);
        self.buffer
            .truncate(old.saturating_add(*read.as_ref().unwrap_or(&0)));
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads on for a short time and drops what comes.
    pub(super) fn drain(&mut self) {
        let deadline = Instant::now().checked_add(DRAIN_TIME);
        let mut drained = self.buffer.len();
        self.buffer = Vec::new();
        while drained < DRAIN_BYTES {
            self.buffer.clear();
            let left = deadline.map_or(Duration::ZERO, |it| {
                it.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || self.read(left).is_err() {
                return;
            }
            drained = drained.saturating_add(self.buffer.len());
        }
    }
}

/// A chunk's size line begins with a digit, and its extension, which is ignored, is text: a parser before us that ends the
/// line at a bare LF would see other chunks.
fn only_visible(line: &[u8]) -> Result<(), Ended> {
    let text = line.strip_suffix(b"\r\n").unwrap_or_default();
    let is_text = text
        .iter()
        .all(|it| *it == b'\t' || (b' '..=b'~').contains(it));
    if is_text && text.first().is_some_and(u8::is_ascii_hexdigit) {
        Ok(())
    } else {
        Err(Ended::Refused(TransportError::BadFraming(
            "a chunk's size is malformed",
        )))
    }
}
