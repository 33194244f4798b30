//! A client's socket, TCP or Unix.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(feature = "grpc")]
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A shared socket: the client's thread or the runtime reads and writes, the registry may shut it down.
#[derive(Clone)]
pub(crate) enum Stream {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
}

impl Stream {
    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(it) => it.set_read_timeout(Some(timeout)),
            Self::Unix(it) => it.set_read_timeout(Some(timeout)),
        }
    }

    pub(crate) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(it) => it.set_write_timeout(Some(timeout)),
            Self::Unix(it) => it.set_write_timeout(Some(timeout)),
        }
    }

    /// Makes reads and writes return at once, for the runtime.
    #[cfg(feature = "grpc")]
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(it) => it.set_nonblocking(true),
            Self::Unix(it) => it.set_nonblocking(true),
        }
    }

    /// Shuts the socket down; a client that is gone already is gone.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _gone = match self {
            Self::Tcp(it) => it.shutdown(how),
            Self::Unix(it) => it.shutdown(how),
        };
    }
}

#[cfg(feature = "grpc")]
impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(it) => it.as_raw_fd(),
            Self::Unix(it) => it.as_raw_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(it) => it.as_ref().read(buffer),
            Self::Unix(it) => it.as_ref().read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(it) => it.as_ref().write(buffer),
            Self::Unix(it) => it.as_ref().write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
