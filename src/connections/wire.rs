//! Reading and writing a client's socket from the client's own thread, in the clear or under TLS.
//!
//! Each operation has one deadline for the whole of it, so sending one byte at a time gains nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Stream;

/// The server's side of a connection, owned by the client's thread.
pub(crate) enum Wire {
    Plain(DeadlineSocket),
    Tls(Box<StreamOwned<ServerConnection, DeadlineSocket>>),
}

impl Wire {
    pub(crate) fn plain(stream: Stream) -> Self {
        Self::Plain(DeadlineSocket::new(stream, Duration::ZERO))
    }

    /// Completes a handshake, by the deadline of `socket`.
    pub(crate) fn tls(
        mut socket: DeadlineSocket,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let mut tls = accepted
            .into_connection(config)
            .map_err(|(error, alert)| socket.refuse(error, alert))?;
        tls.complete_io(&mut socket)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, socket))))
    }

    pub(crate) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Reads at least one byte, waiting no longer than `time`. Returns 0 at the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8], time: Duration) -> io::Result<usize> {
        self.socket().set_deadline(time);
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => match tls.read(buffer) {
                // A client that closes without a close_notify has sent complete requests or none.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        }
    }

    /// Writes all of `bytes` within `time`.
    pub(crate) fn write_all(&mut self, bytes: &[u8], time: Duration) -> io::Result<()> {
        self.socket().set_deadline(time);
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Tells the client that nothing more will be sent.
    pub(crate) fn finish(&mut self, time: Duration) {
        self.socket().set_deadline(time);
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _gone = tls.flush();
        }
        let _gone = self.socket().stream.shutdown(Shutdown::Write);
    }

    const fn socket(&mut self) -> &mut DeadlineSocket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.sock,
        }
    }
}

/// A socket whose operations end at a deadline.
pub(crate) struct DeadlineSocket {
    stream: Stream,
    deadline: Instant,
    /// The timeouts that are set on the socket, so that they are set only when they change.
    read_timeout: Duration,
    write_timeout: Duration,
}

impl DeadlineSocket {
    /// A socket whose deadline is `time` from now.
    pub(crate) fn new(stream: Stream, time: Duration) -> Self {
        let mut socket = Self {
            stream,
            deadline: Instant::now(),
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        };
        socket.set_deadline(time);
        socket
    }

    /// Reads the ClientHello, with which a TLS handshake begins.
    pub(crate) fn client_hello(&mut self) -> io::Result<Accepted> {
        let mut acceptor = Acceptor::default();
        loop {
            if acceptor.read_tls(self)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(accepted),
                Ok(None) => {}
                Err((error, alert)) => return Err(self.refuse(error, alert)),
            }
        }
    }

    /// Tells the client why its handshake failed.
    fn refuse(&mut self, error: rustls::Error, mut alert: AcceptedAlert) -> io::Error {
        let _told = alert.write_all(self);
        io::Error::new(ErrorKind::InvalidData, error)
    }

    fn set_deadline(&mut self, time: Duration) {
        let now = Instant::now();
        self.deadline = now.checked_add(time).unwrap_or(now);
    }

    /// The time that is left, rounded up to hundredths of a second. Most operations begin when the deadline was just set,
    /// and so need no other timeout than the one before.
    fn time_left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let hundredths = u64::try_from(left.as_millis()).unwrap_or(u64::MAX) / 10;
        Ok(Duration::from_millis(
            hundredths.saturating_add(1).saturating_mul(10),
        ))
    }
}

impl Read for DeadlineSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.time_left()?;
        if self.read_timeout != left {
            self.stream.set_read_timeout(Some(left))?;
            self.read_timeout = left;
        }
        in_time(|| self.stream.as_ref().read(buffer))
    }
}

impl Write for DeadlineSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.time_left()?;
        if self.write_timeout != left {
            self.stream.set_write_timeout(Some(left))?;
            self.write_timeout = left;
        }
        in_time(|| self.stream.as_ref().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does one operation of the socket, also after a signal. `WouldBlock` is how a socket says that its timeout has passed.
fn in_time(mut operation: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            other => return other,
        }
    }
}
