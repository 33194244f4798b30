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

use socket2::{Domain, Protocol, Socket, Type};

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

/// Where somebody listens now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// An address, with the port that was picked.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn bind(listen: &Listen, insecure_plaintext: bool) -> io::Result<(Self, Bound)> {
        match listen {
            Listen::Tcp(text) => {
                let address = text
                    .to_socket_addrs()?
                    .next()
                    .ok_or(io::ErrorKind::NotFound)?;
                if !insecure_plaintext && !address.ip().to_canonical().is_loopback() {
                    return Err(io::Error::other(
                        "codes and tokens would cross the network in the clear; listen on loopback \
                         behind a reverse proxy that speaks TLS, or say --insecure-plaintext",
                    ));
                }
                let socket = Socket::new(
                    Domain::for_address(address),
                    Type::STREAM,
                    Some(Protocol::TCP),
                )?;
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                let listener = TcpListener::from(socket);
                let bound = Bound::Tcp(listener.local_addr()?);
                Ok((Self::Tcp(listener), bound))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                Ok((Self::Unix(listener), Bound::Unix(path.clone())))
            }
        }
    }

    pub(super) fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(it) => {
                let (stream, peer) = it.accept()?;
                // An answer is one write: waiting for more to send would only delay it.
                stream.set_nodelay(true)?;
                Ok((
                    Stream::Tcp(Arc::new(stream)),
                    Some(peer.ip().to_canonical()),
                ))
            }
            Self::Unix(it) => Ok((Stream::Unix(Arc::new(it.accept()?.0)), None)),
        }
    }

    /// Makes `accept` return once more, so that the accepting thread sees that it is to stop.
    pub(super) fn wake(bound: &Bound) {
        let _woken = match bound {
            Bound::Tcp(address) => {
                let mut address = *address;
                if address.ip().is_unspecified() {
                    address.set_ip(match address.ip() {
                        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                std::net::TcpStream::connect(address).map(|_| ())
            }
            Bound::Unix(path) => UnixStream::connect(path).map(|_| ()),
        };
    }
}

/// Removes a socket that nobody answers on any more; anything else at that path is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(it) if it.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => Err(io::Error::other("somebody listens there already")),
        },
        Ok(_) => Err(io::Error::other(
            "there is a file of that name, and it is no socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
