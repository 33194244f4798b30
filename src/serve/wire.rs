//! The bytes that a client and the door exchange: plain, or under TLS.
//!
//! Every wait has one deadline for the whole of it: whoever doles bytes out one at a time gains nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{ServerConfig, ServerConnection};

use super::stream::Stream;

/// One side of the exchange, owned by the client's thread.
pub(super) struct Wire {
    socket: Socket,
    tls: Option<Box<ServerConnection>>,
}

/// The socket with the time limits set on it, so that they are set only when they change.
struct Socket {
    stream: Stream,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Wire {
    pub(super) const fn plain(stream: Stream) -> Self {
        Self {
            socket: Socket {
                stream,
                read_timeout: None,
                write_timeout: None,
            },
            tls: None,
        }
    }

    /// Goes on with a handshake that has begun, as the server.
    pub(super) fn tls(
        mut hello: Hello,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let mut tls = match accepted.into_connection(config) {
            Ok(tls) => tls,
            Err((error, alert)) => return Err(hello.refuse(error, alert)),
        };
        let Hello {
            mut socket,
            deadline,
        } = hello;
        while tls.is_handshaking() {
            if tls.wants_write() {
                tls.write_tls(&mut socket.until(&deadline))?;
            } else if let Err(error) = receive(&mut tls, &mut socket, &deadline) {
                // The alert that says why, if it can be had; what matters is the error.
                let _alert = tls.write_tls(&mut socket.until(&deadline));
                return Err(error);
            }
        }
        Ok(Self {
            socket,
            tls: Some(Box::new(tls)),
        })
    }

    /// Reads what is there, waiting for the first of it no longer than `time`. Nothing means the end.
    pub(super) fn read(&mut self, buffer: &mut [u8], time: Duration) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            // One read, one limit: no clock needs to be looked at.
            self.socket.set_read_timeout(time)?;
            return uninterrupted(|| self.socket.stream.read(buffer));
        };
        let deadline = Deadline::after(time);
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A client that closes without a word has sent whole requests or none.
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
    pub(super) fn write_all(&mut self, mut bytes: &[u8], time: Duration) -> io::Result<()> {
        let deadline = Deadline::after(time);
        let mut socket = self.socket.until(&deadline);
        let Some(tls) = &mut self.tls else {
            return socket.write_all(bytes);
        };
        loop {
            // rustls takes in so much at a time, and the socket takes it out again.
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

    /// The socket, where nothing but it is between us and the client.
    #[cfg(feature = "grpc")]
    pub(super) fn plain_stream(&self) -> Option<Stream> {
        self.tls.is_none().then(|| self.socket.stream.clone())
    }

    /// Says that nothing more will be sent.
    pub(super) fn finish(&mut self, time: Duration) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let deadline = Deadline::after(time);
            while tls.wants_write() && tls.write_tls(&mut self.socket.until(&deadline)).is_ok() {}
        }
        self.socket.stream.shutdown(std::net::Shutdown::Write);
    }
}

/// A handshake of which only the client's first word is awaited.
pub(super) struct Hello {
    socket: Socket,
    deadline: Deadline,
}

impl Hello {
    /// The whole handshake has so much time.
    pub(super) fn on(stream: Stream, time: Duration) -> Self {
        Self {
            socket: Wire::plain(stream).socket,
            deadline: Deadline::after(time),
        }
    }

    /// Waits for what the client says of itself.
    pub(super) fn read(&mut self) -> io::Result<Accepted> {
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

    /// The socket, for whoever goes on with it.
    #[cfg(feature = "grpc")]
    pub(super) fn into_stream(self) -> Stream {
        self.socket.stream
    }
}

/// Takes TLS records in, one read of the socket.
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

/// A moment after which nothing is waited for.
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
    const fn until<'a>(&'a mut self, deadline: &'a Deadline) -> Until<'a> {
        Until {
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

/// The socket, each of whose operations ends with the deadline.
struct Until<'a> {
    socket: &'a mut Socket,
    deadline: &'a Deadline,
    /// The first write of many has the whole time before it, which is set already as a rule.
    waited: bool,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.deadline.left()?)?;
        uninterrupted(|| self.socket.stream.read(buffer))
    }
}

impl Write for Until<'_> {
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
