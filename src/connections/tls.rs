//! Certificate and key for TLS: read from files, and read again on request, without closing a connection.
//!
//! rustls does the protocol; nothing of it is decided here but versions and ALPN.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::model::Timestamp;
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
    /// The certificate and its chain, in PEM.
    pub cert: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
    /// Whether the key's group may read it, as systemd makes credentials.
    pub group_may_read: bool,
}

/// Certificate and key of new connections.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Current>,
}

/// The files as they were read last.
struct Current {
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain expires, if any does.
    expires: Option<Timestamp>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, String> {
        let current = RwLock::new(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again. Where they cannot be used the old ones stay in force.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let current = read(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// The configuration of a new connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.config)
    }

    /// When the first certificate of the chain expires, if any does.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.expires
    }
}

fn read(files: &TlsFiles) -> Result<Current, String> {
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
    let expires = certificates.iter().filter_map(expiry).min();
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
    // A client that offers both gets REST; clients of gRPC offer h2 alone.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    #[cfg(feature = "grpc")]
    config.alpn_protocols.push(b"h2".to_vec());
    Ok(Current {
        config: Arc::new(config),
        expires,
    })
}

/// When a certificate expires.
///
/// rustls reads certificates only to judge them, and says in its refusal of one that has expired when that was. So it is
/// asked to judge as of the last second of the year 9999, which also stands for "never" (RFC 5280 §4.1.2.5).
fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let judged = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(YEAR_9999),
        &[],
    );
    match judged {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => i64::try_from(not_after.as_secs())
            .ok()
            .map(Timestamp::from_seconds),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_the_certificates_own() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let certificate = params.self_signed(&key).unwrap();
        let expected = Timestamp::from_seconds(1_927_843_200);
        assert_eq!(expiry(certificate.der()), Some(expected));
    }
}
