//! The keys and digests of recovery codes (SECURITY.md 38).
//!
//! Each set of codes has a random key of its own, and of each code only its HMAC-SHA-256 under that key is kept. The key is
//! sealed as a secret is, so a rotation of the master key seals it anew. Without the key the digests tell nothing: it has
//! more bits than they can be searched for. So zeroing the sealed key ends the digests too, wherever copies of them lie.

use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::{KeyRing, Sealed, Sealer, key_id_of, random};
use crate::error::{Error, Result};
use crate::model::{RECOVERY_CODE_SYMBOLS, RecoveryCode, RecoverySetId, UserId};

/// The length of a digest: that of SHA-256.
pub(crate) const RECOVERY_MAC_BYTES: usize = 32;
/// The length of a key: as the digest's (RFC 2104 §3).
const KEY_BYTES: usize = 32;

/// The key of one set of recovery codes. It has no `Debug`, and is overwritten when dropped.
pub(crate) struct RecoveryKey(Zeroizing<[u8; KEY_BYTES]>);

/// Generates a code of 80 bits with the operating system's generator.
pub(crate) fn new_recovery_code() -> Result<RecoveryCode> {
    let random = random::<RECOVERY_CODE_SYMBOLS>()?;
    Ok(RecoveryCode::from_random(&random))
}

impl RecoveryKey {
    /// Generates a key.
    pub(crate) fn new() -> Result<Self> {
        random::<KEY_BYTES>().map(Self)
    }

    /// The digest of a code.
    pub(crate) fn mac(&self, code: &RecoveryCode) -> Result<[u8; RECOVERY_MAC_BYTES]> {
        let mac = hmac::sign(&self.hmac_key(), code.symbols());
        let bytes = mac.as_ref().try_into();
        bytes.map_err(|_| Error::Bug("a digest has the wrong length".to_owned()))
    }

    /// Which of `macs` is the digest of `code`. Compares with all of them, each in constant time, so the time tells neither
    /// whether one matches nor which.
    pub(crate) fn position(&self, code: &RecoveryCode, macs: &[u8]) -> Option<u8> {
        let key = self.hmac_key();
        let mut found = None;
        for (nth, mac) in (0..=u8::MAX).zip(macs.chunks(RECOVERY_MAC_BYTES)) {
            if hmac::verify(&key, code.symbols(), mac).is_ok() {
                found = Some(nth);
            }
        }
        found
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(HMAC_SHA256, self.0.as_slice())
    }
}

impl Sealer {
    /// Seals the key of one set of recovery codes of one user.
    pub(crate) fn seal_recovery_key(
        &self,
        key: &RecoveryKey,
        user: &UserId,
        set: &RecoverySetId,
    ) -> Result<Sealed> {
        self.seal_bytes(key.0.as_slice(), associated_data(user, set))
    }
}

impl KeyRing {
    /// Decrypts the sealed key of a set of recovery codes. Fails unless one of these master keys has sealed it for this
    /// user and this set.
    pub(crate) fn open_recovery_key(
        &self,
        sealed: &[u8],
        user: &UserId,
        set: &RecoverySetId,
    ) -> Result<RecoveryKey> {
        let by = key_id_of(sealed).and_then(|it| self.sealer(it));
        let opened = by.and_then(|it| it.open_bytes(sealed, associated_data(user, set)));
        let key =
            opened.and_then(|it| Some(Zeroizing::new(<[u8; KEY_BYTES]>::try_from(&**it).ok()?)));
        key.map(RecoveryKey).ok_or_else(|| {
            Error::Unavailable(format!(
                "the key of the recovery codes of user {user} does not open"
            ))
        })
    }
}

/// The associated data of the AEAD. It begins otherwise than that of an authenticator's secret, so neither opens in the
/// place of the other.
fn associated_data(user: &UserId, set: &RecoverySetId) -> Vec<u8> {
    super::associated_data(b"totpd recovery key 1", user.as_str(), set.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::{MasterKey, new_secret};
    use super::*;
    use crate::model::TotpId;

    fn master_key(byte: u8) -> MasterKey {
        MasterKey(Zeroizing::new([byte; 32]))
    }

    /// SECURITY.md 25, 38, 43
    #[test]
    fn the_key_of_recovery_codes_opens_only_for_its_user_and_its_set() {
        let (ours, other) = (master_key(1), master_key(2));
        let under_ours = Sealer::new(&ours).unwrap();
        let (user, set): (UserId, RecoverySetId) = ("ab".parse().unwrap(), "c".parse().unwrap());
        let key = RecoveryKey::new().unwrap();
        let sealed = under_ours.seal_recovery_key(&key, &user, &set).unwrap();
        let ring = KeyRing::new([&other, &ours]).unwrap();
        let opened = ring.open_recovery_key(&sealed, &user, &set).unwrap();
        assert_eq!(*opened.0, *key.0);
        for (user, set) in [("ab", "d"), ("x", "c"), ("a", "bc")] {
            let (user, set) = (user.parse().unwrap(), set.parse().unwrap());
            assert!(ring.open_recovery_key(&sealed, &user, &set).is_err());
        }
        let others = KeyRing::new([&other]).unwrap();
        assert!(others.open_recovery_key(&sealed, &user, &set).is_err());

        // Neither opens in the place of the other, under the same ids.
        let totp: TotpId = "c".parse().unwrap();
        assert!(ring.open(&sealed, &user, &totp).is_err());
        let secret = under_ours
            .seal(&new_secret().unwrap(), &user, &totp)
            .unwrap();
        assert!(ring.open_recovery_key(&secret, &user, &set).is_err());
    }

    /// SECURITY.md 38
    #[test]
    fn a_code_is_found_by_its_digest_under_its_own_key() {
        let key = RecoveryKey::new().unwrap();
        let codes: Vec<_> = (0..10).map(|_| new_recovery_code().unwrap()).collect();
        let macs: Vec<u8> = codes.iter().flat_map(|it| key.mac(it).unwrap()).collect();
        for (nth, code) in (0..).zip(&codes) {
            assert_eq!(key.position(code, &macs), Some(nth));
            assert_eq!(RecoveryKey::new().unwrap().position(code, &macs), None);
        }
        assert_eq!(key.position(&new_recovery_code().unwrap(), &macs), None);
        assert_eq!(key.position(&codes[0], &macs[..31]), None);
        assert_eq!(key.position(&codes[0], &[]), None);
    }
}
