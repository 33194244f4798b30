//! `health`, and the file in which a server leaves its addresses for it.
//!
//! Opens neither the database nor the key, so that it tells of the server what a client would see.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde::{Deserialize, Serialize};
use totpd::error::{Error, Result};
use totpd::serve::reachable;
use totpd::service::DataDir;

use super::output::Output;
use super::{DataLocation, args};

/// How long to wait for a connection, and for each part of the answer. A probe of readiness takes a second at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read. The right one has two bytes, and its head a few hundred.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

#[derive(Serialize)]
struct HealthDocument {
    status: &'static str,
    address: String,
}

/// Asks a server for its health. Fails unless it is healthy.
pub(super) fn run(location: &DataLocation, out: &Output, args: &args::Health) -> Result<()> {
    let address = match &args.address {
        Some(address) => address.clone(),
        None => address_of_server(&location.path)?,
    };
    let (path, status) = if args.ready {
        ("/debug/ready", "ready")
    } else {
        ("/debug/healthz", "healthy")
    };
    let unhealthy = |problem: String| Error::invalid(address.clone(), problem);
    let answer = ask(&address, path).map_err(|error| unhealthy(format!("no answer: {error}")))?;
    let head = answer.lines().next().unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200 ") || !answer.ends_with("\r\n\r\nok") {
        return Err(unhealthy(format!(
            "this is not a totpd that is {status}: it answered {head:?}"
        )));
    }
    let document = HealthDocument {
        status,
        address: address.clone(),
    };
    out.answer(&document, || format!("{address} is {status}"))
}

/// The addresses of a running server, in a private file that is removed when this value is dropped.
pub(super) struct RunFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct RunDocument {
    addresses: Vec<String>,
}

impl RunFile {
    pub(super) fn create(data_dir: &Path, addresses: Vec<String>) -> Result<Self> {
        let path = DataDir::run_file(data_dir);
        let text = serde_json::to_vec(&RunDocument { addresses });
        let text = text.map_err(|error| Error::Bug(error.to_string()))?;
        let cannot = |error: io::Error| {
            Error::invalid(path.display().to_string(), format!("cannot write: {error}"))
        };
        // A new file: a server that was killed has left one, of whatever mode.
        remove(&path).map_err(cannot)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut it| it.write_all(&text));
        written.map_err(cannot)?;
        Ok(Self { path })
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _gone = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The address at which the server of this directory is asked: one in plaintext, if it has one.
fn address_of_server(data_dir: &Path) -> Result<String> {
    let file = DataDir::run_file(data_dir);
    let no_server = || {
        let problem = "no server runs on this data directory";
        Error::invalid(data_dir.display().to_string(), problem)
    };
    // A server that was killed has left its file, and its port may be another's now.
    if !DataDir::is_served(data_dir) {
        return Err(no_server());
    }
    let text = fs::read(&file).map_err(|_| no_server())?;
    let found: Option<RunDocument> = serde_json::from_slice(&text).ok();
    let mut addresses = found.map(|it| it.addresses).unwrap_or_default();
    addresses.sort_by_key(|it| it.starts_with("https://"));
    addresses.into_iter().next().ok_or_else(no_server)
}

/// Sends one request to `host:port`, with or without a scheme, or to `unix:/path`. Returns the answer.
fn ask(address: &str, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        return exchange(stream, &request);
    }
    let is_tls = address.starts_with("https://");
    let host = ["https://", "http://"]
        .iter()
        .find_map(|it| address.strip_prefix(it))
        .unwrap_or(address);
    let stream = connect(host)?;
    if is_tls {
        exchange(tls(stream)?, &request)
    } else {
        exchange(stream, &request)
    }
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(
        io::ErrorKind::InvalidInput,
        "expected HOST:PORT or unix:/path",
    );
    for address in host.to_socket_addrs().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("expected HOST:PORT or unix:/path ({error})"),
        )
    })? {
        match TcpStream::connect_timeout(&reachable(address), PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer) {
        // A TLS connection that is closed without a word.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A TLS connection to a server of any name, with any certificate: it is asked on an address of this machine, which no
/// certificate names, and nothing secret is sent.
fn tls(stream: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = AnyCertificate(Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
