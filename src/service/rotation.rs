//! Rotation of the master key: a new one seals every secret anew, beside other calls (SECURITY.md 43).
//!
//! The steps, each on disk before the next:
//!
//! 1. The new key is in its file.
//! 2. The database names it: from now on new secrets are sealed under it.
//! 3. The older secrets are sealed anew, in small transactions with pauses.
//! 4. Where none is left, the database names the new key alone.
//! 5. The WAL is truncated. What is sealed under the old key was in it.
//! 6. The file of the new key takes the place of the old one's.
//!
//! A rotation that was killed goes on where the database and the files say that it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Caller, Context, Service};
use crate::error::{Error, Result};
use crate::model::{Checkpointer, Clock, RecoverySetId, Timestamp, TotpId};
use crate::seal::{KeyId, KeyRing, MasterKey, Sealed, Sealer};
use crate::store::{
    Event, EventKind, KeyIds, ResealedSecret, SealedPosition, SealedRow, SealedTable, WriteTx,
};

/// How long the end of a rotation waits for readers that keep the WAL from being truncated.
const WAL_WAIT: Duration = Duration::from_secs(30);
/// How often a transaction is tried again that did not get the database's lock.
const TRIES: u32 = 10;
/// The most secrets that a message lists when they cannot be opened.
const NAMED_SECRETS: usize = 3;

/// What a rotation did.
#[derive(Debug, Clone)]
pub struct KeyRotation {
    /// The secrets that this call has sealed anew.
    pub secrets: usize,
    /// Whether it completed a rotation that another call had begun.
    pub was_unfinished: bool,
    /// If the keys are outside the data directory: the file of the old key, and the file of the new key that has to
    /// replace it.
    pub to_replace: Option<(PathBuf, PathBuf)>,
    /// Whether the WAL is Litestream's to empty. It and the replica keep what the old key opens.
    pub is_replicated: bool,
}

impl Service {
    /// Changes the master key: seals every secret under a new one, beside other calls and other processes.
    ///
    /// Only an administrator may do that. In a data directory with its own key this makes the new key, and the old one is
    /// gone afterwards. Else [`KeyFile::Given`](super::KeyFile::Given) needs the next key, in this process and in the
    /// directory's server. Backups made before need the old key ([`DataDir::with_old_key`](super::DataDir::with_old_key)).
    ///
    /// It may be killed at any moment. Until it has completed, both keys are needed and [`Self::back_up`] refuses; call it
    /// again to complete it. `clock` is asked several times, because a large database takes minutes.
    pub fn rotate_key(&self, caller: Caller, clock: &Clock) -> Result<KeyRotation> {
        let dir = &self.inner.dir;
        let rotation = Rotation {
            service: self,
            caller,
            clock,
        };
        let _lock = dir.lock_for_rotation()?;
        let ids = self.read_as_admin(&rotation.context(), |tx| tx.key_ids())?;
        let (key, was_unfinished) = match ids.next {
            Some(key) => (key, true),
            None if self.is_to_be_put_in_place(ids)? => (ids.current, true),
            None => (rotation.begin(ids)?, false),
        };
        let mut secrets = 0;
        if ids.current != key {
            dir.require_server_finds(key)?;
            secrets = rotation.seal_all(key)?;
            rotation.end(key)?;
        }
        self.inner.forget_old_keys()?;
        self.inner.store.truncate_wal(WAL_WAIT).map_err(|error| {
            if let Error::Unavailable(why) = error {
                let problem = format!(
                    "every secret is sealed under the new key, but what the old key opens is still in the WAL: {why}; stop \
                     the program that reads the database for long, and run this again"
                );
                Error::invalid("key rotate", problem)
            } else {
                error
            }
        })?;
        dir.put_next_key_in_place(key)?;
        let settings = self.settings(&rotation.context())?;
        Ok(KeyRotation {
            secrets,
            is_replicated: settings.checkpoints == Checkpointer::Litestream,
            was_unfinished,
            to_replace: dir
                .given_paths()
                .map(|(old, new)| (old.to_owned(), new.to_owned())),
        })
    }

    /// Whether every secret is sealed under the next key already, and only its file is not yet in its place.
    fn is_to_be_put_in_place(&self, ids: KeyIds) -> Result<bool> {
        let dir = &self.inner.dir;
        let keys = dir.read_keys()?;
        let is_named = |it: &MasterKey| it.id() == ids.current;
        let is_next = keys.next.as_ref().is_some_and(is_named);
        Ok(is_next && (dir.has_next_key_file() || !keys.current.as_ref().is_ok_and(is_named)))
    }

    /// Fails while a rotation is unfinished.
    pub(super) fn require_no_rotation(&self) -> Result<()> {
        let ids = self.inner.store.read(|tx| tx.key_ids())?;
        if ids.next.is_some() || self.inner.dir.has_next_key_file() {
            return Err(unfinished());
        }
        Ok(())
    }
}

/// The error for a backup while its secrets may be sealed under two keys.
pub(super) fn unfinished() -> Error {
    Error::invalid(
        "the master key",
        "its rotation is unfinished, and a backup would need two keys; wait for `totpd key rotate`, or run it again, which \
         completes it",
    )
}

/// The arguments of a rotation in progress.
struct Rotation<'a> {
    service: &'a Service,
    caller: Caller,
    clock: &'a Clock,
}

impl Rotation<'_> {
    fn context(&self) -> Context {
        Context::new(self.caller.clone(), (self.clock)())
    }

    /// Lets the database name the next key. Returns its id.
    fn begin(&self, ids: KeyIds) -> Result<KeyId> {
        let dir = &self.service.inner.dir;
        let key = dir.next_key(dir.read_keys()?)?.id();
        if key == ids.current {
            let problem = "it is the master key already; make another one, of 32 random bytes";
            return Err(Error::invalid("the next master key", problem));
        }
        dir.require_server_finds(key)?;
        let has_begun = move |tx: &WriteTx<'_>| tx.begin_rotation(key);
        self.record(EventKind::KeyRotationStarted, has_begun)?;
        Ok(key)
    }

    /// Seals every secret under `key`. Returns the number of those that were sealed under another one.
    fn seal_all(&self, key: KeyId) -> Result<usize> {
        let inner = &self.service.inner;
        let ids = inner.store.read(|tx| tx.key_ids())?;
        let ring = inner.keys.load(&inner.dir, ids)?;
        let missing = || Error::Bug("the next key is not there".to_owned());
        let new = ring.sealer(key).ok_or_else(missing)?;
        let (mut count, mut unopened) = (0_usize, Vec::new());
        for table in SealedTable::ALL {
            let mut after = SealedPosition::start();
            loop {
                let next =
                    |tx: &crate::store::ReadTx<'_>| tx.sealed_under_others(table, &after, key);
                let rows = inner.store.read(next)?;
                let Some(last) = rows.last() else { break };
                after = SealedPosition::after(last);
                let mut secrets = Vec::with_capacity(rows.len());
                for row in rows {
                    match seal_anew(&row, &ring, new) {
                        Ok(sealed) => secrets.push(row.resealed(sealed)),
                        Err(_) => unopened.push(name_of(&row)),
                    }
                }
                count = count.saturating_add(self.replace(secrets)?);
            }
        }
        self.require_all_sealed(key, &unopened)?;
        Ok(count)
    }

    /// Overwrites secrets in small transactions, and sleeps after each for as long as it took, so that other changes get
    /// half of the time: SQLite's lock is not fair.
    fn replace(&self, secrets: Vec<ResealedSecret>) -> Result<usize> {
        let (secrets, store) = (Arc::new(secrets), &self.service.inner.store);
        let (mut done, mut count, mut tries) = (0_usize, 0_usize, 0_u32);
        while done < secrets.len() {
            let (begun, some) = (Instant::now(), Arc::clone(&secrets));
            // Nothing here is dated, so no clock is asked.
            let replaced = store.write_with_confirmed_clock(Timestamp::NEVER, move |tx| {
                tx.replace_some_sealed(some.get(done..).unwrap_or_default())
            });
            match replaced {
                Ok((changed, handled)) => {
                    count = count.saturating_add(changed);
                    (done, tries) = (done.saturating_add(handled.max(1)), 0);
                    store.limit_wal()?;
                }
                // Beside a busy server the lock may be taken for longer than a statement waits.
                Err(Error::Unavailable(_)) if tries < TRIES => tries = tries.saturating_add(1),
                Err(error) => return Err(error),
            }
            thread::sleep(begun.elapsed());
        }
        Ok(count)
    }

    /// Fails if a secret is left that is sealed under another key. One that belongs to no authenticator is overwritten.
    fn require_all_sealed(&self, key: KeyId, unopened: &[String]) -> Result<()> {
        let store = &self.service.inner.store;
        let is_any_left = || store.read(|tx| tx.has_sealed_under_others(key));
        if !is_any_left()? {
            return Ok(());
        }
        store.write_with_confirmed_clock(Timestamp::NEVER, |tx| tx.zero_unused_slots())?;
        if !is_any_left()? {
            return Ok(());
        }
        let named = unopened.iter().take(NAMED_SECRETS).cloned();
        Err(Error::invalid(
            "the database",
            format!(
                "{} secrets do not open ({}), so both keys are kept; remove what they belong to, and run this again",
                unopened.len(),
                named.collect::<Vec<_>>().join(", ")
            ),
        ))
    }

    /// Lets the database name the new key alone. No secret under the old one can come after the last look: while the
    /// database names a next key, every new secret is sealed under it.
    fn end(&self, key: KeyId) -> Result<()> {
        self.record(EventKind::KeyRotated, move |tx| tx.end_rotation(key))
    }

    /// Runs one transaction that changes which keys the database names, with its event.
    fn record(
        &self,
        kind: EventKind,
        change: impl FnOnce(&WriteTx<'_>) -> Result<bool> + Send + 'static,
    ) -> Result<()> {
        self.service
            .change_as_admin(&self.context(), move |call, tx| {
                if !change(tx)? {
                    let problem = "another rotation of the key has changed the database meanwhile; run this again";
                    return Err(Error::invalid("the master key", problem));
                }
                let instance = tx.instance()?.id;
                tx.append(&Event {
                    kind,
                    source: &call.principal.source,
                    org: None,
                    user: None,
                    about: Some(&instance),
                    name: None,
                })
            })
    }
}

/// What a secret belongs to, for a person.
fn name_of(row: &SealedRow) -> String {
    match row.table {
        SealedTable::Totps => format!("{} of user {}", row.id, row.user),
        SealedTable::RecoverySets => format!("the recovery codes of user {}", row.user),
    }
}

/// Opens a secret under the key that sealed it, and seals it under another.
pub(super) fn seal_anew(row: &SealedRow, from: &KeyRing, under: &Sealer) -> Result<Sealed> {
    match row.table {
        SealedTable::Totps => {
            let totp = TotpId::from_trusted(row.id.clone());
            let secret = from.open(&row.sealed, &row.user, &totp)?;
            under.seal(&secret, &row.user, &totp)
        }
        SealedTable::RecoverySets => {
            let set = RecoverySetId::from_trusted(row.id.clone());
            let key = from.open_recovery_key(&row.sealed, &row.user, &set)?;
            under.seal_recovery_key(&key, &row.user, &set)
        }
    }
}
