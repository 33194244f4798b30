//! Sealing and opening secrets under the keys that the database names (SECURITY.md 43).
//!
//! A rotation may run in another process. So each transaction that seals reads which key to use, and a key that
//! is not known yet is read from its file when the first secret needs it. Knows nothing of how a rotation goes.

use std::sync::{Arc, PoisonError, RwLock};

use super::{DataDir, Inner};
use crate::error::{Error, Result};
use crate::model::{RecoverySetId, TotpId, UserId};
use crate::seal::{KeyRing, RecoveryKey, Sealed, Sealer, key_id_of};
use crate::store::{KeyIds, ReadTx, WriteTx};
use crate::totp::Secret;

/// The sealers of the keys that the database named when it was last asked.
pub(super) struct CurrentKeys(RwLock<Arc<KeyRing>>);

impl CurrentKeys {
    pub(super) fn new(ring: KeyRing) -> Self {
        Self(RwLock::new(Arc::new(ring)))
    }

    pub(super) fn get(&self) -> Arc<KeyRing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keys with these ids from their files. The sealers of others are dropped.
    pub(super) fn load(&self, dir: &DataDir, ids: KeyIds) -> Result<Arc<KeyRing>> {
        let ring = Arc::new(dir.key_ring(ids)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&ring);
        Ok(ring)
    }
}

impl Inner {
    /// Seals a secret under the key that the database names in this transaction.
    pub(super) fn seal(
        &self,
        tx: &WriteTx<'_>,
        secret: &Secret,
        user: &UserId,
        totp: &TotpId,
    ) -> Result<Sealed> {
        self.seal_with(tx, |it| it.seal(secret, user, totp))
    }

    /// Seals the key of a set of recovery codes, as [`Self::seal`] does.
    pub(super) fn seal_recovery_key(
        &self,
        tx: &WriteTx<'_>,
        key: &RecoveryKey,
        user: &UserId,
        set: &RecoverySetId,
    ) -> Result<Sealed> {
        self.seal_with(tx, |it| it.seal_recovery_key(key, user, set))
    }

    fn seal_with(
        &self,
        tx: &WriteTx<'_>,
        seal: impl FnOnce(&Sealer) -> Result<Sealed>,
    ) -> Result<Sealed> {
        let ids = tx.key_ids()?;
        let mut ring = self.keys.get();
        if ring.sealer(ids.to_seal_under()).is_none() {
            ring = self.keys.load(&self.dir, ids).map_err(fault)?;
        }
        let missing = || Error::Bug("a key was read and is not there".to_owned());
        seal(ring.sealer(ids.to_seal_under()).ok_or_else(missing)?)
    }

    /// Decrypts a sealed secret.
    pub(super) fn unseal(
        &self,
        tx: &ReadTx<'_>,
        sealed: &[u8],
        user: &UserId,
        totp: &TotpId,
    ) -> Result<Secret> {
        self.ring_for(tx, sealed)?.open(sealed, user, totp)
    }

    /// Decrypts the sealed key of a set of recovery codes.
    pub(super) fn unseal_recovery_key(
        &self,
        tx: &ReadTx<'_>,
        sealed: &[u8],
        user: &UserId,
        set: &RecoverySetId,
    ) -> Result<RecoveryKey> {
        self.ring_for(tx, sealed)?
            .open_recovery_key(sealed, user, set)
    }

    /// The keys, of which one opens `sealed`.
    fn ring_for(&self, tx: &ReadTx<'_>, sealed: &[u8]) -> Result<Arc<KeyRing>> {
        let ring = self.keys.get();
        if key_id_of(sealed).is_some_and(|it| ring.sealer(it).is_none()) {
            // A secret that is damaged reads no files.
            let ids = tx.key_ids()?;
            if !ring.has_exactly(&ids.all()) {
                return self.keys.load(&self.dir, ids).map_err(fault);
            }
        }
        Ok(ring)
    }

    /// Drops the sealer of a key that the database names no longer.
    pub(super) fn forget_old_keys(&self) -> Result<()> {
        let ids = self.store.read(|tx| tx.key_ids())?;
        if !self.keys.get().has_exactly(&ids.all()) {
            self.keys.load(&self.dir, ids)?;
        }
        Ok(())
    }
}

/// A key that cannot be read is a fault of the server's and not of a request.
fn fault(error: Error) -> Error {
    if matches!(error, Error::Invalid { .. }) {
        Error::Unavailable(error.to_string())
    } else {
        error
    }
}
