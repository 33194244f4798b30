//! The keys that one database names: one, or two while its secrets are sealed anew (SECURITY.md 43).
//!
//! Knows neither the files of the keys nor the tables.

use super::{KEY_ID_BYTES, KeyId, MasterKey, Sealer, does_not_open};
use crate::error::Result;
use crate::model::{TotpId, UserId};
use crate::totp::Secret;

/// Sealers of several keys. The id in front of a sealed secret tells which of them opens it.
pub(crate) struct KeyRing(Vec<Sealer>);

impl KeyRing {
    /// The sealers of these keys.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = &'a MasterKey>) -> Result<Self> {
        let sealers = keys.into_iter().map(Sealer::new);
        sealers.collect::<Result<_>>().map(Self)
    }

    /// The sealer of the key with this id.
    pub(crate) fn sealer(&self, id: KeyId) -> Option<&Sealer> {
        self.0.iter().find(|it| it.id == id)
    }

    /// Decrypts a sealed secret. Fails unless one of these keys has sealed it for this authenticator.
    pub(crate) fn open(&self, sealed: &[u8], user: &UserId, totp: &TotpId) -> Result<Secret> {
        let by = key_id_of(sealed).and_then(|it| self.sealer(it));
        by.ok_or_else(|| does_not_open(totp))?
            .open(sealed, user, totp)
    }

    /// Whether these are the keys with `ids`, and no other.
    pub(crate) fn has_exactly(&self, ids: &[KeyId]) -> bool {
        self.0.len() == ids.len() && ids.iter().all(|it| self.sealer(*it).is_some())
    }
}

/// The id of the key that a secret was sealed under.
pub(crate) fn key_id_of(sealed: &[u8]) -> Option<KeyId> {
    sealed.first_chunk::<KEY_ID_BYTES>().copied()
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::{KEY_BYTES, new_secret};
    use super::*;

    /// SECURITY.md 43
    #[test]
    fn each_secret_is_opened_by_the_key_that_sealed_it_and_by_no_other() {
        let key = |byte| MasterKey(Zeroizing::new([byte; KEY_BYTES]));
        let (old, new, other) = (key(1), key(2), key(3));
        let (user, totp): (UserId, TotpId) = ("u".parse().unwrap(), "t".parse().unwrap());
        let secret = new_secret().unwrap();
        let ring = KeyRing::new([&old, &new]).unwrap();
        for (by, opens) in [(&old, true), (&new, true), (&other, false)] {
            let by = Sealer::new(by).unwrap();
            let sealed = by.seal(&secret, &user, &totp).unwrap();
            assert_eq!(key_id_of(&sealed), Some(by.id));
            let opened = ring.open(&sealed, &user, &totp);
            assert_eq!(opened.is_ok_and(|it| it.bytes() == secret.bytes()), opens);
        }
        assert!(ring.has_exactly(&[new.id(), old.id()]));
        assert!(!ring.has_exactly(&[new.id()]) && !ring.has_exactly(&[new.id(), other.id()]));
    }
}
