//! Certificate and key for TLS: read from files, and read again on request, without closing a connection.
//!
//! rustls does the protocol; nothing of it is decided here but versions and ALPN.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::ownership::{self, Reach};

/// Whether a client asks for HTTP/2 and takes nothing else.
#[cfg(feature = "grpc")]
pub(crate) fn wants_http2(hello: &rustls::server::ClientHello<'_>) -> bool {
    let offered: Vec<_> = hello.alpn().into_iter().flatten().collect();
    offered.contains(&&b"h2"[..]) && !offered.contains(&&b"http/1.1"[..])
}

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate and those that vouch for it, in PEM.
    pub cert: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
    /// Whether the key's group may read it, as systemd makes credentials.
    pub group_may_read: bool,
}

/// What new connections are greeted with.
pub(crate) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, String> {
        let config = RwLock::new(read(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again. Where they cannot be used the old ones stay in force.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let config = read(&self.files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What a new connection is greeted with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let bytes = |path: &Path| -> io::Result<Vec<u8>> {
        let (mut file, _) = ownership::open_regular(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    let cert = bytes(&files.cert).map_err(|error| wrong(&files.cert, &error))?;
    let certificates = CertificateDer::pem_slice_iter(&cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&files.cert, &error))?;
    if certificates.is_empty() {
        return Err(wrong(&files.cert, &"expected a certificate in PEM"));
    }
    let key = private_key(files).map_err(|error| wrong(&files.key, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| wrong(&files.key, &"expected a private key in PEM"))?;
    // The provider is named: with two in the tree rustls would refuse to choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| {
            wrong(
                &files.cert,
                &format!("certificate and key do not go together: {error}"),
            )
        })?;
    // Who offers both gets REST; clients of gRPC offer h2 alone.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    #[cfg(feature = "grpc")]
    config.alpn_protocols.push(b"h2".to_vec());
    Ok(Arc::new(config))
}

/// The bytes of the private key's file. It is judged as the master key is (SECURITY.md 26).
fn private_key(files: &TlsFiles) -> io::Result<Zeroizing<Vec<u8>>> {
    let (mut file, reach) = ownership::open_private(&files.key, files.group_may_read)?;
    if let Reach::Group(group) = reach {
        ownership::warn_of_groups(&[(files.key.clone(), group)]);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes).map(|_| bytes)
}
