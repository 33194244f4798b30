//! Recovery codes: at most one set for each user, of which only digests are stored (SECURITY.md 38).
//!
//! The key of the digests lies in a slot, which is zeroed before the row goes. Each authenticator of the user has a flag
//! that says that there are recovery codes, so that a removal looks for them only where there are some.

use rusqlite::Row;

use super::{ReadTx, Slot, UserRow, WriteTx};
use crate::error::Result;
use crate::model::{OrgId, RecoverySetId, Timestamp, UserId};
use crate::seal::RECOVERY_MAC_BYTES;

/// Codes in a set. The schema has a bit and a digest for each.
pub(crate) const RECOVERY_CODES: usize = 10;
/// The digests of a set, one after another.
pub(crate) const RECOVERY_SET_BYTES: usize = RECOVERY_CODES * RECOVERY_MAC_BYTES;

/// A set of recovery codes.
pub(crate) struct RecoverySetRow {
    pub(crate) id: RecoverySetId,
    /// The slot of the sealed key of the digests.
    pub(crate) slot: Slot,
    pub(crate) macs: Vec<u8>,
    /// A bit for each code that was used.
    used: u16,
    pub(crate) created: Timestamp,
    pub(crate) changed: Timestamp,
}

impl RecoverySetRow {
    /// A set of which no code was used.
    pub(crate) const fn unused(
        id: RecoverySetId,
        slot: Slot,
        macs: Vec<u8>,
        at: Timestamp,
    ) -> Self {
        Self {
            id,
            slot,
            macs,
            used: 0,
            created: at,
            changed: at,
        }
    }

    /// How many codes are left.
    pub(crate) fn remaining(&self) -> u32 {
        let all = u32::try_from(RECOVERY_CODES).unwrap_or(u32::MAX);
        all.saturating_sub(self.used.count_ones())
    }
}

fn set(row: &Row<'_>) -> rusqlite::Result<RecoverySetRow> {
    Ok(RecoverySetRow {
        id: RecoverySetId::from_trusted(row.get(0)?),
        slot: Slot::from_number(row.get(1)?),
        macs: row.get(2)?,
        used: row.get(3)?,
        created: Timestamp::from_micros(row.get(4)?),
        changed: Timestamp::from_micros(row.get(5)?),
    })
}

/// The statements that a caller bound to one organization can reach. `super::tests` holds their query plans against
/// SECURITY.md 23.
pub(super) const RECOVERY_SET: &str = "SELECT id, slot, macs, used, created, changed
    FROM recovery_set WHERE user_id = ?2 AND org_id = ?1";
pub(super) const USE_RECOVERY_CODE: &str =
    "UPDATE recovery_set SET used = used | (1 << ?4), changed = ?5
    WHERE user_id = ?2 AND org_id = ?1 AND id = ?3 AND used & (1 << ?4) = 0";
pub(super) const ZERO_RECOVERY_SLOT: &str = "UPDATE slot SET secret = zeroblob(165)
    WHERE number IN (SELECT slot FROM recovery_set WHERE user_id = ?2 AND org_id = ?1)";
pub(super) const DELETE_RECOVERY_SET: &str = "DELETE FROM recovery_set
    WHERE user_id = ?2 AND org_id = ?1 RETURNING id, created";
pub(super) const NOTE_RECOVERY: &str = "UPDATE totp SET has_recovery = ?3
    WHERE user_id = ?2 AND org_id = ?1 AND has_recovery <> ?3";
pub(super) const CONFIRMED_TOTP: &str = "SELECT 1 FROM totp
    WHERE user_id = ?2 AND org_id = ?1 AND state = 'confirmed' LIMIT 1";

impl ReadTx<'_> {
    /// The recovery codes of a user.
    pub(crate) fn recovery_set(&self, of: &UserRow) -> Result<Option<RecoverySetRow>> {
        self.one(RECOVERY_SET, (of.org.as_str(), of.id.as_str()), set)
    }

    /// Whether the user has a confirmed authenticator.
    pub(crate) fn has_confirmed_totp(&self, org: &OrgId, user: &UserId) -> Result<bool> {
        let found = self.one(CONFIRMED_TOTP, (org.as_str(), user.as_str()), |_| Ok(()))?;
        Ok(found.is_some())
    }

    /// The number of users who have recovery codes and no confirmed authenticator, and of authenticators whose flag is
    /// wrong. Zero unless the file is damaged or was changed by another program.
    pub(crate) fn misplaced_recovery_sets(&self) -> Result<i64> {
        const SQL: &str = "SELECT (SELECT count(*) FROM recovery_set AS codes WHERE NOT EXISTS (
                SELECT 1 FROM totp WHERE totp.user_id = codes.user_id AND totp.org_id = codes.org_id
                AND totp.state = 'confirmed'))
            + (SELECT count(*) FROM totp WHERE has_recovery <> EXISTS (
                SELECT 1 FROM recovery_set AS codes
                WHERE codes.user_id = totp.user_id AND codes.org_id = totp.org_id))";
        Ok(self.one(SQL, (), |row| row.get(0))?.unwrap_or_default())
    }
}

impl WriteTx<'_> {
    /// Stores a set of recovery codes for a user who has none.
    pub(crate) fn insert_recovery_set(&self, user: &UserRow, it: &RecoverySetRow) -> Result<()> {
        const SQL: &str = "INSERT INTO recovery_set
            (user_id, org_id, id, slot, macs, used, created, changed)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let row = (
            user.id.as_str(),
            user.org.as_str(),
            it.id.as_str(),
            it.slot.number(),
            &it.macs,
            it.used,
            it.created.micros(),
            it.changed.micros(),
        );
        self.execute(SQL, row)?;
        self.note_recovery(&user.org, &user.id, true)
    }

    /// Marks the code at `position` as used and returns whether it was unused. Of two concurrent requests with the same code
    /// only one gets `true`. Does the same work for a code that has no position, because it is none of the set, so that the
    /// time does not tell it from a used one.
    pub(crate) fn use_recovery_code(
        &self,
        user: &UserRow,
        set: &RecoverySetId,
        position: Option<u8>,
    ) -> Result<bool> {
        let at = self.event_at().micros();
        let (org, user) = (user.org.as_str(), user.id.as_str());
        let row = (org, user, set.as_str(), position, at);
        Ok(self.execute(USE_RECOVERY_CODE, row)? == 1)
    }

    /// Deletes the recovery codes of a user, and zeroes their key before. Returns the id of the set, and when it was
    /// generated.
    pub(crate) fn delete_recovery_set(
        &self,
        org: &OrgId,
        user: &UserId,
    ) -> Result<Option<(RecoverySetId, Timestamp)>> {
        let key = (org.as_str(), user.as_str());
        self.execute(ZERO_RECOVERY_SLOT, key)?;
        let deleted = self.one(DELETE_RECOVERY_SET, key, |row| {
            let id = RecoverySetId::from_trusted(row.get(0)?);
            Ok((id, Timestamp::from_micros(row.get(1)?)))
        })?;
        if deleted.is_some() {
            self.note_recovery(org, user, false)?;
        }
        Ok(deleted)
    }

    /// Notes at each authenticator of a user whether the user has recovery codes.
    fn note_recovery(&self, org: &OrgId, user: &UserId, has_recovery: bool) -> Result<()> {
        let row = (org.as_str(), user.as_str(), has_recovery);
        self.execute(NOTE_RECOVERY, row).map(|_| ())
    }
}
