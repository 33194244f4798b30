//! A socket for the runtime: what was read of it before comes first, and what goes through it is noticed.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::{Connection, Stream};

/// A socket that does not block.
pub(super) struct Socket {
    inner: AsyncFd<Stream>,
    /// What was read already.
    first: Vec<u8>,
    connection: Arc<Connection>,
}

impl Socket {
    #[expect(
        deprecated,
        reason = "what takes its place is unsafe code, which is forbidden here; what is handed over keeps its \
                  descriptor open as long as it lives, and that is all that is asked"
    )]
    pub(super) fn new(connection: Arc<Connection>, first: Vec<u8>) -> io::Result<Self> {
        Ok(Self {
            inner: AsyncFd::new(Arc::clone(&connection.stream))?,
            first,
            connection,
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let bytes = self.first.len().min(buffer.remaining());
            buffer.put_slice(self.first.drain(..bytes).as_slice());
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|it| it.get_ref().as_ref().read(unfilled)) {
                Ok(Ok(read)) => {
                    if !self.connection.count_read(read) {
                        let why = "too many bytes without a request";
                        return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, why)));
                    }
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_ready) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(guard) = self.inner.poll_write_ready(context) else {
                self.connection.note_write(false);
                return Poll::Pending;
            };
            match guard?.try_io(|it| it.get_ref().as_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(result) => {
                    self.connection.note_write(true);
                    return Poll::Ready(result);
                }
                Err(_not_ready) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The socket is closed with the connection.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
