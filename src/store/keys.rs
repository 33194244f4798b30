//! Which keys the secrets are sealed under, and sealing them anew (SECURITY.md 43).
//!
//! Knows keys by their ids only. The caller opens and seals.

use super::clock_fix::change_slice;
use super::instance::no_instance;
use super::{Backup, ReadTx, Slot, Store, WriteTx, wal};
use crate::error::Result;
use crate::model::{OrgId, Timestamp, UserId};
use crate::seal::{KeyId, Sealed};

/// The most secrets that one transaction seals anew.
const SLICE: u32 = 1_000;

/// The ids of the keys that a database names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyIds {
    /// The key that every secret is sealed under, unless there is a next one.
    pub(crate) current: KeyId,
    /// While the key is rotated: the key that new secrets are sealed under.
    pub(crate) next: Option<KeyId>,
}

impl KeyIds {
    /// The key that new secrets are sealed under.
    pub(crate) fn to_seal_under(self) -> KeyId {
        self.next.unwrap_or(self.current)
    }

    /// The ids, one or two.
    pub(crate) fn all(self) -> Vec<KeyId> {
        [Some(self.current), self.next]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// The tables whose rows name a slot. All of them are sealed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealedTable {
    Totps,
    RecoverySets,
}

impl SealedTable {
    pub(crate) const ALL: [Self; 2] = [Self::Totps, Self::RecoverySets];

    /// Selects the rows after the key (?1, ?2, ?3) whose secret is not sealed under ?4, at most ?5.
    const fn select(self) -> &'static str {
        match self {
            Self::Totps => {
                "SELECT user_id, org_id, id, slot, secret FROM totp JOIN slot ON number = slot
                WHERE (user_id, org_id, id) > (?1, ?2, ?3) AND substr(secret, 1, 8) <> ?4
                ORDER BY user_id, org_id, id LIMIT ?5"
            }
            Self::RecoverySets => {
                "SELECT user_id, org_id, id, slot, secret FROM recovery_set JOIN slot ON number = slot
                WHERE (user_id, org_id, id) > (?1, ?2, ?3) AND substr(secret, 1, 8) <> ?4
                ORDER BY user_id, org_id, id LIMIT ?5"
            }
        }
    }
}

/// A sealed secret and what it is bound to.
pub(crate) struct SealedRow {
    pub(crate) table: SealedTable,
    pub(crate) user: UserId,
    org: OrgId,
    /// The id of the authenticator or of the set of recovery codes.
    pub(crate) id: String,
    slot: Slot,
    pub(crate) sealed: Vec<u8>,
}

/// A secret that was sealed anew.
pub(crate) struct ResealedSecret {
    slot: Slot,
    before: Vec<u8>,
    after: Sealed,
}

impl SealedRow {
    pub(crate) fn resealed(self, after: Sealed) -> ResealedSecret {
        ResealedSecret {
            slot: self.slot,
            before: self.sealed,
            after,
        }
    }
}

/// A place in a table: the key of a row.
pub(crate) struct SealedPosition(UserId, OrgId, String);

impl SealedPosition {
    /// Before the first row.
    pub(crate) fn start() -> Self {
        let empty = String::new;
        Self(
            UserId::from_trusted(empty()),
            OrgId::from_trusted(empty()),
            empty(),
        )
    }

    /// After this row.
    pub(crate) fn after(row: &SealedRow) -> Self {
        Self(row.user.clone(), row.org.clone(), row.id.clone())
    }
}

impl Store {
    /// Lets the checkpoints follow after a transaction that wrote many pages. Blocks where the WAL is too long.
    pub(crate) fn limit_wal(&self) -> Result<()> {
        let position = self.writer.run_exclusive(wal::wal_position)?;
        self.wal_length.report_and_throttle(position.frames);
        Ok(())
    }
}

impl ReadTx<'_> {
    /// The keys that the secrets are sealed under.
    pub(crate) fn key_ids(&self) -> Result<KeyIds> {
        const SQL: &str = "SELECT key_id, next_key_id FROM instance WHERE one = 1";
        let row = self.one(SQL, (), |row| {
            Ok(KeyIds {
                current: row.get(0)?,
                next: row.get(1)?,
            })
        })?;
        row.ok_or_else(no_instance)
    }

    /// The next rows of a table whose secrets are sealed under another key than `key`, as many as one transaction seals
    /// anew.
    pub(crate) fn sealed_under_others(
        &self,
        table: SealedTable,
        after: &SealedPosition,
        key: KeyId,
    ) -> Result<Vec<SealedRow>> {
        let SealedPosition(user, org, id) = after;
        let from = (user.as_str(), org.as_str(), id, key, SLICE);
        self.all(table.select(), from, |row| {
            Ok(SealedRow {
                table,
                user: UserId::from_trusted(row.get(0)?),
                org: OrgId::from_trusted(row.get(1)?),
                id: row.get(2)?,
                slot: Slot::from_number(row.get(3)?),
                sealed: row.get(4)?,
            })
        })
    }

    /// Whether any slot holds what is sealed under another key than `key`.
    pub(crate) fn has_sealed_under_others(&self, key: KeyId) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM slot
            WHERE substr(secret, 1, 8) <> ?1 AND secret <> zeroblob(165) LIMIT 1";
        Ok(self.one(SQL, (key,), |_| Ok(()))?.is_some())
    }
}

impl WriteTx<'_> {
    /// From now on new secrets are sealed under `key`. Returns false if another rotation has begun.
    pub(crate) fn begin_rotation(&self, key: KeyId) -> Result<bool> {
        const SQL: &str = "UPDATE instance SET next_key_id = ?1
            WHERE one = 1 AND next_key_id IS NULL AND key_id <> ?1";
        Ok(self.execute(SQL, (key,))? == 1)
    }

    /// Overwrites secrets with what was sealed anew, as many as one transaction may. Returns how many were overwritten and
    /// how many were handled: what was removed meanwhile is left out.
    pub(crate) fn replace_some_sealed(&self, secrets: &[ResealedSecret]) -> Result<(usize, usize)> {
        change_slice(secrets, |it| self.replace_sealed(it))
    }

    fn replace_sealed(&self, it: &ResealedSecret) -> Result<bool> {
        const SQL: &str = "UPDATE slot SET secret = ?3 WHERE number = ?1 AND secret = ?2";
        let row = (it.slot.number(), &it.before, it.after.as_slice());
        Ok(self.execute(SQL, row)? == 1)
    }

    /// Ends the rotation to `key`, which every secret is sealed under. Returns false if it was ended already.
    pub(crate) fn end_rotation(&self, key: KeyId) -> Result<bool> {
        const SQL: &str = "UPDATE instance SET key_id = next_key_id, next_key_id = NULL
            WHERE one = 1 AND next_key_id = ?1";
        Ok(self.execute(SQL, (key,))? == 1)
    }
}

impl Backup {
    /// Seals the secrets of the copy under `key`. Leaves as it is what `reseal` returns `None` for.
    pub(crate) fn seal_under(
        &self,
        key: KeyId,
        reseal: impl Fn(&SealedRow) -> Option<Sealed>,
    ) -> Result<()> {
        const KEY: &str = "UPDATE instance SET key_id = ?1, next_key_id = NULL WHERE one = 1";
        for table in SealedTable::ALL {
            let mut after = SealedPosition::start();
            loop {
                let rows = self.read().sealed_under_others(table, &after, key)?;
                let Some(last) = rows.last() else { break };
                after = SealedPosition::after(last);
                let resealed = |it: SealedRow| reseal(&it).map(|sealed| it.resealed(sealed));
                let secrets: Vec<_> = rows.into_iter().filter_map(resealed).collect();
                self.change(Timestamp::NEVER, |tx| {
                    secrets
                        .iter()
                        .try_for_each(|it| tx.replace_sealed(it).map(|_| ()))
                })?;
            }
        }
        self.change(Timestamp::NEVER, |tx| tx.execute(KEY, (key,)).map(|_| ()))
    }
}
