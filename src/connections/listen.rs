//! Addresses to listen on, and the sockets that do.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Stream;

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

impl Bound {
    /// The URL of the address, if it has one. A server that listens on every address is named by loopback.
    pub fn url(&self) -> Option<String> {
        match self {
            Self::Tcp(address) => Some(format!("http://{}", reachable(*address))),
            Self::Tls(address) => Some(format!("https://{}", reachable(*address))),
            Self::Unix(_) => None,
        }
    }
}

/// The address at which a server of this address is reached from this machine: loopback for the unspecified one.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(it) if it.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(it) if it.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        it @ (IpAddr::V4(_) | IpAddr::V6(_)) => it,
    };
    SocketAddr::new(ip, address.port())
}

/// How to bind.
pub(crate) struct BindSettings {
    pub(crate) tls: bool,
    pub(crate) insecure_plaintext: bool,
    pub(crate) unix_mode: u32,
}

/// A socket that accepts clients, TCP or Unix.
pub(crate) struct Listener {
    socket: Socket,
    pub(crate) bound: Bound,
    /// Whether it is a Unix socket to which only this user can connect. Then a client is our own proxy, and its
    /// `X-Forwarded-For` counts.
    pub(crate) is_private: bool,
}

impl Listener {
    pub(crate) fn bind(listen: &Listen, settings: &BindSettings) -> io::Result<Self> {
        let socket = match listen {
            Listen::Tcp(text) => {
                let address = text.to_socket_addrs()?.next();
                let address = address.ok_or(io::ErrorKind::NotFound)?;
                let domain = Domain::for_address(address);
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(path)?)?;
                // Before anyone can connect, and not after.
                fs::set_permissions(path, Permissions::from_mode(settings.unix_mode))?;
                socket
            }
        };
        Self::listen(socket, settings)
    }

    /// Listens on a bound socket. One that systemd opened listens already, and goes on.
    pub(crate) fn listen(socket: Socket, settings: &BindSettings) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if let Some(address) = address.as_socket() {
            allow_plaintext(address, settings)?;
        }
        // A socket that cannot listen is refused here, and not at every accept.
        socket
            .listen(BACKLOG)
            .map_err(|error| io::Error::other(format!("expected one that listens: {error}")))?;
        socket.set_nonblocking(true)?;
        let (bound, is_private) = match address.as_socket() {
            Some(address) if settings.tls => (Bound::Tls(address), false),
            Some(address) => (Bound::Tcp(address), false),
            None => {
                let path = address.as_pathname();
                let path =
                    path.ok_or_else(|| io::Error::other("expected a Unix socket with a path"))?;
                let mode = fs::metadata(path)?.permissions().mode();
                let others = mode & 0o077;
                (Bound::Unix(path.to_owned()), others == 0)
            }
        };
        Ok(Self {
            socket,
            bound,
            is_private,
        })
    }

    /// Waits for the next client; `None` once the other end of `stop` is closed. A connection to the listener itself could
    /// not end the wait reliably: its path or address may be gone by then, and its queue may be full.
    pub(crate) fn accept(&self, stop: &UnixStream) -> io::Result<Option<(Stream, Option<IpAddr>)>> {
        loop {
            match self.accept_now() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(Some),
            }
            let mut either = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
            ];
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
        let (socket, address) = self.socket.accept()?;
        socket.set_nonblocking(false)?;
        let address = address.as_socket().map(|it| it.ip().to_canonical());
        if address.is_some() {
            // An answer is one write: waiting for more to send would only delay it.
            socket.set_tcp_nodelay(true)?;
        }
        Ok((Arc::new(socket), address))
    }
}

/// Codes, tokens and metrics do not cross a network in the clear unless the operator asks for that.
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
