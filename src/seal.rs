//! Encrypts secrets under the master key, and generates random values and digests.
//!
//! Only this module sees a master key. It knows nothing of tables or calls.

mod key_ring;
mod recovery;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

pub(crate) use key_ring::{KeyRing, key_id_of};
pub(crate) use recovery::{RECOVERY_MAC_BYTES, RecoveryKey, new_recovery_code};

use crate::error::{Error, Result};
use crate::model::{TotpId, UserId};
use crate::ownership;
use crate::totp::{SECRET_BYTES, SECRET_BYTES_MAX, Secret};

/// 256 bits, the key length of ChaCha20-Poly1305 (RFC 8439).
const KEY_BYTES: usize = 32;
/// The length of a key's id. The id is in front of every sealed secret, so that keys can be rotated.
pub(crate) const KEY_ID_BYTES: usize = 8;
/// The id of a master key, which reveals nothing of the key.
pub(crate) type KeyId = [u8; KEY_ID_BYTES];

/// The length of ChaCha20-Poly1305's tag (RFC 8439 §2.8).
const TAG_BYTES: usize = 16;
/// The length of every sealed secret, regardless of the secret's length, so that all fit in the same slots.
pub(crate) const SEALED_BYTES: usize = KEY_ID_BYTES + NONCE_LEN + SECRET_BYTES_MAX + TAG_BYTES + 1;

/// A sealed secret: key id, nonce, ciphertext, tag, zeros up to the constant length, and in the last byte the
/// length of the secret.
///
/// The zeros are after the tag, so that an older sealed secret can be padded without the key. The last byte is not
/// authenticated and need not be: with another length the tag does not match.
pub(crate) type Sealed = [u8; SEALED_BYTES];

/// Generates random bytes with the operating system's generator.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| Error::Unavailable("the operating system gave no random bytes".to_owned()))?;
    Ok(bytes)
}

/// The master key. It has no `Debug`, and is overwritten when dropped.
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

impl MasterKey {
    /// Generates a key and writes it to a new private file. Fails if the file exists.
    pub fn create(path: &Path) -> Result<Self> {
        let key = random::<KEY_BYTES>()?;
        let io = |error: std::io::Error| file_error("write", path, &error);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        file.write_all(key.as_slice()).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(Self(key))
    }

    /// Reads the key. Refuses a file that does not belong to this user or root, or that others can open.
    ///
    /// systemd passes a credential with an access control list, so with `group_may_read` its group may read the file.
    pub fn read(path: &Path, group_may_read: bool) -> Result<Self> {
        let io = |error: std::io::Error| {
            if error.kind() == ErrorKind::NotFound {
                Error::invalid(
                    path.display().to_string(),
                    "the master key is missing; without it no secret opens: put the file back",
                )
            } else {
                file_error("read", path, &error)
            }
        };
        let (mut file, _) = ownership::open_private(path, group_may_read).map_err(io)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let mut rest = [0; 1];
        let is_complete = file.read_exact(key.as_mut_slice()).is_ok();
        if !is_complete || file.read(&mut rest).map_err(io)? != 0 {
            return Err(Error::invalid(
                path.display().to_string(),
                "this is no master key: expected exactly 32 bytes; put the right file back",
            ));
        }
        Ok(Self(key))
    }

    /// The id of the key.
    pub(crate) fn id(&self) -> KeyId {
        let mut text = Zeroizing::new(b"totpd master key id".to_vec());
        text.extend_from_slice(self.0.as_slice());
        let mut id = [0; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, &text).as_ref()) {
            *to = *from;
        }
        id
    }
}

fn file_error(action: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(
        path.display().to_string(),
        format!("cannot {action} the master key: {error}"),
    )
}

/// Encrypts (seals) secrets and decrypts (opens) them under one key.
pub struct Sealer {
    key: LessSafeKey,
    id: KeyId,
}

impl Sealer {
    /// Creates a sealer with this key.
    pub fn new(key: &MasterKey) -> Result<Self> {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, key.0.as_slice())
            .map_err(|_| Error::Bug("the master key has the wrong length".to_owned()))?;
        Ok(Self {
            key: LessSafeKey::new(unbound),
            id: key.id(),
        })
    }

    /// The id of the key.
    pub(crate) const fn key_id(&self) -> &KeyId {
        &self.id
    }

    /// Seals a secret for this one authenticator.
    ///
    /// The nonce is random: at 96 bits that is sound for 2^32 secrets under one key (NIST SP 800-38D
    /// §8.3 draws the same line), far more than one node has users.
    pub(crate) fn seal(&self, secret: &Secret, user: &UserId, totp: &TotpId) -> Result<Sealed> {
        self.seal_bytes(secret.bytes(), secret_data(user, totp))
    }

    /// Decrypts a sealed secret. Fails unless it was sealed under this key for this authenticator.
    pub(crate) fn open(&self, sealed: &[u8], user: &UserId, totp: &TotpId) -> Result<Secret> {
        let opened = self.open_bytes(sealed, secret_data(user, totp));
        // An import may have taken a short one.
        Secret::from_bytes_or_short(&opened.ok_or_else(|| does_not_open(totp))?)
    }

    /// Seals bytes, bound to `associated_data`.
    fn seal_bytes(&self, bytes: &[u8], associated_data: Vec<u8>) -> Result<Sealed> {
        let nonce = random::<NONCE_LEN>()?;
        let mut text = bytes.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated_data),
                &mut text,
            )
            .map_err(|_| Error::Bug("sealing a secret failed".to_owned()))?;
        let length = u8::try_from(bytes.len());
        let length = length.map_err(|_| Error::Bug("a secret is too long".to_owned()))?;
        let parts = [self.id.as_slice(), nonce.as_slice(), &text].concat();
        let mut sealed = [0; SEALED_BYTES];
        for (to, from) in sealed.iter_mut().zip(parts) {
            *to = from;
        }
        if let Some(last) = sealed.last_mut() {
            *last = length;
        }
        Ok(sealed)
    }

    /// Decrypts sealed bytes. `None` unless they were sealed under this key, bound to `associated_data`.
    fn open_bytes(&self, sealed: &[u8], associated_data: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
        let (length, sealed) = sealed.split_last()?;
        let length = usize::from(*length).saturating_add(KEY_ID_BYTES + NONCE_LEN + TAG_BYTES);
        let (sealed, zeros) = sealed.split_at_checked(length)?;
        if zeros.iter().any(|it| *it != 0) {
            return None;
        }
        let (id, rest) = sealed.split_at_checked(KEY_ID_BYTES)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        if id != self.id {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let associated_data = Aad::from(associated_data);
        let opened = self.key.open_in_place(nonce, associated_data, &mut text);
        let length = opened.ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

fn does_not_open(totp: &TotpId) -> Error {
    Error::Unavailable(format!("the secret of authenticator {totp} does not open"))
}

/// The associated data of an authenticator's secret.
fn secret_data(user: &UserId, totp: &TotpId) -> Vec<u8> {
    associated_data(b"totpd secret 1", user.as_str(), totp.as_str())
}

/// The associated data of the AEAD: what is sealed, and both ids, each with its length in front. The ids are free strings,
/// so without lengths two pairs could give the same bytes.
fn associated_data(kind: &[u8], user: &str, id: &str) -> Vec<u8> {
    let mut bytes = kind.to_vec();
    for id in [user, id] {
        bytes.extend_from_slice(&u64::try_from(id.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

/// Generates a secret of 160 bits with the operating system's generator (RFC 4226 §4 R6).
pub(crate) fn new_secret() -> Result<Secret> {
    Secret::from_bytes(random::<SECRET_BYTES>()?.as_slice())
}

/// A bearer token in clear. It has no `Debug` and no `Display`; only [`Self::reveal`] returns the text.
pub struct BearerToken(Zeroizing<String>);

/// The prefix of every token, so that people and secret scanners recognize it.
const TOKEN_PREFIX: &str = "totpd_";

impl BearerToken {
    /// Generates a token of 256 random bits.
    pub(crate) fn new() -> Result<Self> {
        let random = Zeroizing::new(BASE64URL_NOPAD.encode(random::<32>()?.as_slice()));
        Ok(Self(Zeroizing::new(format!("{TOKEN_PREFIX}{}", *random))))
    }

    /// The text of the token, which is shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The code of an invitation. It has no `Debug` and no `Display`; only [`Self::reveal`] returns the text.
pub struct InvitationCode(Zeroizing<String>);

impl InvitationCode {
    /// Generates a code of 256 random bits. It has no prefix, so it is not taken for a bearer token.
    pub(crate) fn new() -> Result<Self> {
        let text = BASE64URL_NOPAD.encode(random::<32>()?.as_slice());
        Ok(Self(Zeroizing::new(text)))
    }

    /// The text of the code, which is shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The digest, which is stored instead of the code.
    pub(crate) fn digest(&self) -> [u8; 32] {
        token_hash(&self.0)
    }
}

/// The digest of a token, which is stored instead of the token. A plain digest suffices: 256 random bits cannot be
/// guessed.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash
        .iter_mut()
        .zip(digest(&SHA256, token.as_bytes()).as_ref())
    {
        *to = *from;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&MasterKey(Zeroizing::new([byte; KEY_BYTES]))).unwrap()
    }

    /// SECURITY.md 25
    #[test]
    fn a_sealed_secret_opens_only_where_it_belongs() {
        let (ours, secret) = (sealer(1), new_secret().unwrap());
        let id = |it: &str| (it.parse::<UserId>().unwrap(), it.parse::<TotpId>().unwrap());
        let (user, _) = id("ab");
        let (_, totp) = id("c");
        let sealed = ours.seal(&secret, &user, &totp).unwrap();
        assert_eq!(
            ours.open(&sealed, &user, &totp).unwrap().bytes(),
            secret.bytes()
        );

        for (other_user, other_totp) in [
            (id("ab").0, id("d").1),
            (id("x").0, id("c").1),
            (id("a").0, id("bc").1),
        ] {
            assert!(ours.open(&sealed, &other_user, &other_totp).is_err());
        }
        assert!(
            sealer(2).open(&sealed, &user, &totp).is_err(),
            "another key"
        );
        for at in 0..sealed.len() {
            let mut forged = sealed;
            forged[at] ^= 1;
            assert!(
                ours.open(&forged, &user, &totp).is_err(),
                "bit flipped in byte {at}"
            );
            assert!(
                ours.open(&sealed[..at], &user, &totp).is_err(),
                "cut at {at}"
            );
        }
    }

    /// SECURITY.md 24
    #[test]
    fn secrets_and_tokens_are_long_and_never_the_same() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert_eq!(one.bytes().len(), 20);
        assert_ne!(one.bytes(), other.bytes());
        let token = BearerToken::new().unwrap();
        assert_eq!(token.reveal().len(), TOKEN_PREFIX.len() + 43);
        assert_ne!(token.reveal(), BearerToken::new().unwrap().reveal());
    }
}
