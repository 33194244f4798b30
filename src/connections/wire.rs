//! Reading and writing a client's socket from the client's own thread, in the clear or under TLS.
//!
//! Each operation has one deadline for the whole of it, so sending one byte at a time gains nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{ServerConfig, ServerConnection};

use super::stream::Stream;

/// The server's side of a connection, owned by the client's thread.
pub(crate) struct Wire {
    socket: Socket,
    tls: Option<Box<ServerConnection>>,
}

/// The socket, and the timeouts that are set on it, so that they are set only when they change.
struct Socket {
    stream: Stream,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Wire {
    pub(crate) const fn plain(stream: Stream) -> Self {
        Self {
            socket: Socket {
                stream,
                read_timeout: None,
                write_timeout: None,
            },
            tls: None,
        }
    }

    /// Completes a handshake.
    pub(crate) fn tls(
        mut handshake: PendingHandshake,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let mut tls = match accepted.into_connection(config) {
            Ok(tls) => tls,
            Err((error, alert)) => return Err(handshake.refuse(error, alert)),
        };
        let PendingHandshake {
            mut socket,
            deadline,
        } = handshake;
        while tls.is_handshaking() {
            if tls.wants_write() {
                tls.write_tls(&mut socket.until(&deadline))?;
            } else if let Err(error) = receive(&mut tls, &mut socket, &deadline) {
                // The alert tells the client why; what matters here is the error.
                let _alert = tls.write_tls(&mut socket.until(&deadline));
                return Err(error);
            }
        }
        Ok(Self {
            socket,
            tls: Some(Box::new(tls)),
        })
    }

    /// Reads at least one byte, waiting no longer than `time`. Returns 0 at the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8], time: Duration) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            // One read has one timeout: no clock needs to be read.
            self.socket.set_read_timeout(time)?;
            return uninterrupted(|| self.socket.stream.read(buffer));
        };
        let deadline = Deadline::after(time);
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A client that closes without a close_notify has sent complete requests or none.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            while tls.wants_write() {
                tls.write_tls(&mut self.socket.until(&deadline))?;
            }
            receive(tls, &mut self.socket, &deadline)?;
        }
    }

    /// Writes all of `bytes` within `time`.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8], time: Duration) -> io::Result<()> {
        let deadline = Deadline::after(time);
        let mut socket = self.socket.until(&deadline);
        let Some(tls) = &mut self.tls else {
            return socket.write_all(bytes);
        };
        loop {
            // rustls buffers only so much at a time.
            let taken = tls.writer().write(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// The socket, where there is no TLS.
    #[cfg(feature = "grpc")]
    pub(crate) fn plain_stream(&self) -> Option<Stream> {
        self.tls.is_none().then(|| self.socket.stream.clone())
    }

    /// Tells the client that nothing more will be sent.
    pub(crate) fn finish(&mut self, time: Duration) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let deadline = Deadline::after(time);
            while tls.wants_write() && tls.write_tls(&mut self.socket.until(&deadline)).is_ok() {}
        }
        self.socket.stream.shutdown(std::net::Shutdown::Write);
    }
}

/// A TLS handshake whose ClientHello has not been read yet.
pub(crate) struct PendingHandshake {
    socket: Socket,
    deadline: Deadline,
}

impl PendingHandshake {
    /// Begins a handshake that may take `time`.
    pub(crate) fn on(stream: Stream, time: Duration) -> Self {
        Self {
            socket: Wire::plain(stream).socket,
            deadline: Deadline::after(time),
        }
    }

    /// Reads the ClientHello.
    pub(crate) fn read(&mut self) -> io::Result<Accepted> {
        let mut acceptor = Acceptor::default();
        loop {
            if acceptor.read_tls(&mut self.socket.until(&self.deadline))? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(accepted),
                Ok(None) => {}
                Err((error, alert)) => return Err(self.refuse(error, alert)),
            }
        }
    }

    fn refuse(&mut self, error: rustls::Error, mut alert: AcceptedAlert) -> io::Error {
        let _told = alert.write_all(&mut self.socket.until(&self.deadline));
        io::Error::new(ErrorKind::InvalidData, error)
    }

    /// The socket, to complete the handshake elsewhere.
    #[cfg(feature = "grpc")]
    pub(crate) fn into_stream(self) -> Stream {
        self.socket.stream
    }
}

/// Reads TLS records, with one read of the socket.
fn receive(tls: &mut ServerConnection, socket: &mut Socket, deadline: &Deadline) -> io::Result<()> {
    if tls.read_tls(&mut socket.until(deadline))? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let state = tls
        .process_new_packets()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    if state.peer_has_closed() && state.plaintext_bytes_to_read() == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// When an operation ends, whether or not it is done.
struct Deadline {
    start: Instant,
    time: Duration,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        Self {
            start: Instant::now(),
            time,
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.time.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            Err(ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }
}

impl Socket {
    const fn until<'a>(&'a mut self, deadline: &'a Deadline) -> DeadlineSocket<'a> {
        DeadlineSocket {
            socket: self,
            deadline,
            waited: false,
        }
    }

    fn set_read_timeout(&mut self, time: Duration) -> io::Result<()> {
        if self.read_timeout != Some(time) {
            self.stream.set_read_timeout(time)?;
            self.read_timeout = Some(time);
        }
        Ok(())
    }

    fn set_write_timeout(&mut self, time: Duration) -> io::Result<()> {
        if self.write_timeout != Some(time) {
            self.stream.set_write_timeout(time)?;
            self.write_timeout = Some(time);
        }
        Ok(())
    }
}

/// The socket, whose operations end at a deadline.
struct DeadlineSocket<'a> {
    socket: &'a mut Socket,
    deadline: &'a Deadline,
    /// Until the first write the whole time is left, and that timeout is usually set already.
    waited: bool,
}

impl Read for DeadlineSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.deadline.left()?)?;
        uninterrupted(|| self.socket.stream.read(buffer))
    }
}

impl Write for DeadlineSocket<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let time = if self.waited {
            self.deadline.left()?
        } else {
            self.deadline.time
        };
        self.waited = true;
        self.socket.set_write_timeout(time)?;
        uninterrupted(|| self.socket.stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uninterrupted(mut act: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
