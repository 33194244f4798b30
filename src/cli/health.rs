//! `health`: asks a server whether it is healthy.
//!
//! Opens neither the database nor the key, so that it tells of the server what a client would see.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::serve::reachable;

use super::output::Output;
use super::{DataLocation, args, run_file};

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

/// The address at which the server of this directory is asked: one in plaintext, if it has one.
fn address_of_server(data_dir: &Path) -> Result<String> {
    let run = run_file::read(data_dir);
    let mut addresses = run.map(|it| it.addresses).unwrap_or_default();
    addresses.sort_by_key(|it| it.starts_with("https://"));
    addresses.into_iter().next().ok_or_else(|| {
        let problem = "no server runs on this data directory";
        Error::invalid(data_dir.display().to_string(), problem)
    })
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
