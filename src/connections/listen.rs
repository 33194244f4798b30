//! Addresses to listen on, and the sockets that do.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::stream::Stream;

/// Connections that the kernel holds while the accepting thread is busy; std's own figure is 128.
const BACKLOG: i32 = 1024;

/// Where to listen, as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`; port 0 picks a free one.
    Tcp(String),
    /// `unix:/path`
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("expected a path after unix:".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("expected HOST:PORT or unix:/path, such as 127.0.0.1:8080".to_owned()),
        }
    }
}

/// Where a server listens now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// An address, with the port that was picked.
    Tcp(SocketAddr),
    /// The same, under TLS.
    Tls(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl Bound {
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Unix(path) => Some(path.clone()),
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How to bind.
pub(crate) struct BindSettings {
    pub(crate) tls: bool,
    pub(crate) insecure_plaintext: bool,
    pub(crate) unix_mode: u32,
}

/// A socket that listens already: systemd opened it.
#[derive(Debug)]
pub enum Inherited {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket; systemd removes its path.
    Unix(UnixListener),
}

pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Whether only this user can connect. Then a client is our own proxy, and its `X-Forwarded-For` counts.
        is_private: bool,
    },
}

impl Listener {
    pub(crate) fn bind(listen: &Listen, settings: &BindSettings) -> io::Result<(Self, Bound)> {
        match listen {
            Listen::Tcp(text) => {
                let address = text
                    .to_socket_addrs()?
                    .next()
                    .ok_or(io::ErrorKind::NotFound)?;
                allow_plaintext(address, settings)?;
                let domain = Domain::for_address(address);
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                Self::tcp(TcpListener::from(socket), settings)
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(path)?)?;
                // Before anyone can connect, and not after.
                fs::set_permissions(path, Permissions::from_mode(settings.unix_mode))?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                let is_private = !lets_others_in(settings.unix_mode);
                let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
                Ok((
                    Self::Unix {
                        listener,
                        is_private,
                    },
                    Bound::Unix(path.clone()),
                ))
            }
        }
    }

    /// Takes over a socket that systemd opened.
    pub(crate) fn inherit(
        inherited: Inherited,
        settings: &BindSettings,
    ) -> io::Result<(Self, Bound)> {
        let socket = match &inherited {
            Inherited::Tcp(it) => SockRef::from(it),
            Inherited::Unix(it) => SockRef::from(it),
        };
        // A socket that listens already goes on listening. One that cannot is refused here, and not at every accept.
        socket
            .listen(BACKLOG)
            .map_err(|error| io::Error::other(format!("expected one that listens: {error}")))?;
        socket.set_nonblocking(true)?;
        match inherited {
            Inherited::Tcp(listener) => {
                allow_plaintext(listener.local_addr()?, settings)?;
                Self::tcp(listener, settings)
            }
            Inherited::Unix(listener) => {
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
                let path =
                    path.ok_or_else(|| io::Error::other("expected a Unix socket with a path"))?;
                let is_private = !lets_others_in(fs::metadata(&path)?.permissions().mode());
                Ok((
                    Self::Unix {
                        listener,
                        is_private,
                    },
                    Bound::Unix(path),
                ))
            }
        }
    }

    fn tcp(listener: TcpListener, settings: &BindSettings) -> io::Result<(Self, Bound)> {
        let address = listener.local_addr()?;
        let bound = if settings.tls {
            Bound::Tls(address)
        } else {
            Bound::Tcp(address)
        };
        Ok((Self::Tcp(listener), bound))
    }

    /// Whether clients of this socket shake hands for TLS; a Unix socket's are on this machine.
    pub(crate) const fn speaks_tls(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Whether `X-Forwarded-For` of each client counts.
    pub(crate) const fn is_private_unix(&self) -> bool {
        matches!(
            self,
            Self::Unix {
                is_private: true,
                ..
            }
        )
    }

    /// Waits for the next client; `None` once the other end of `stop` is closed. A connection to the listener itself could
    /// not end the wait reliably: its path or address may be gone by then, and its queue may be full.
    pub(crate) fn accept(&self, stop: &UnixStream) -> io::Result<Option<(Stream, Option<IpAddr>)>> {
        loop {
            match self.accept_now() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(Some),
            }
            let listener = match self {
                Self::Tcp(it) => PollFd::new(it, PollFlags::IN),
                Self::Unix { listener, .. } => PollFd::new(listener, PollFlags::IN),
            };
            let mut either = [listener, PollFd::new(stop, PollFlags::IN)];
            match poll(&mut either, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let [_, stop] = either;
                    if !stop.revents().is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Takes a client that is there. Its socket blocks; on some systems it would not, as the listener does not.
    fn accept_now(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(it) => {
                let (stream, peer) = it.accept()?;
                stream.set_nonblocking(false)?;
                // An answer is one write: waiting for more to send would only delay it.
                stream.set_nodelay(true)?;
                Ok((
                    Stream::Tcp(Arc::new(stream)),
                    Some(peer.ip().to_canonical()),
                ))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Stream::Unix(Arc::new(stream)), None))
            }
        }
    }
}

const fn lets_others_in(mode: u32) -> bool {
    mode & 0o077 != 0
}

/// Codes and tokens do not cross a network in the clear unless the operator asks for that.
fn allow_plaintext(address: SocketAddr, settings: &BindSettings) -> io::Result<()> {
    if settings.tls || settings.insecure_plaintext || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(io::Error::other(
        "codes and tokens would cross the network in the clear: give --tls-cert and --tls-key, or listen on \
         loopback behind a reverse proxy that speaks TLS, or say --insecure-plaintext",
    ))
}

/// Removes a socket on which no process listens any more; anything else at that path is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(it) if it.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => Err(io::Error::other("another process listens there already")),
        },
        Ok(_) => Err(io::Error::other(
            "there is a file of that name, and it is no socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SECURITY.md 34
    #[test]
    fn plain_http_is_spoken_on_loopback_alone_unless_more_is_said() {
        for (address, tls, insecure_plaintext, is_bound) in [
            ("127.0.0.1:0", false, false, true),
            ("0.0.0.0:0", false, false, false),
            ("0.0.0.0:0", true, false, true),
            ("0.0.0.0:0", false, true, true),
        ] {
            let settings = BindSettings {
                tls,
                insecure_plaintext,
                unix_mode: 0o600,
            };
            let bound = Listener::bind(&address.parse().unwrap(), &settings);
            assert_eq!(
                bound.is_ok(),
                is_bound,
                "{address} {tls} {insecure_plaintext}"
            );
        }
    }
}
