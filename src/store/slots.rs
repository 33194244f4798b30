//! The slots that hold sealed secrets. A secret stays in its slot from enrolment to removal (SECURITY.md 21).
//!
//! `secure_delete` overwrites what a statement deletes. It does not overwrite the copies that remain when a b-tree is
//! balanced and cells move to another page. Rows of `slot` never move: new rows are appended, none is deleted, and all have
//! the same length, so SQLite writes an update over the same bytes. Other tables have only the number of a slot. Every
//! statement that deletes a row of `totp` or `recovery_set` must go with one that zeroes its slot in the same transaction; `ON DELETE
//! CASCADE` does not do that.

use super::recovery::ZERO_RECOVERY_SLOT;
use super::{ReadTx, UserRow, WriteTx};
use crate::error::{Error, Result};
use crate::seal::Sealed;

/// The number of the slot that holds an authenticator's secret or the key of a set of recovery codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(i64);

impl Slot {
    pub(super) const fn from_number(number: i64) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> i64 {
        self.0
    }
}

/// See the statements in `super::users`.
pub(super) const ZERO_SLOTS_OF_USER: &str = "UPDATE slot SET secret = zeroblob(165)
    WHERE number IN (SELECT slot FROM totp WHERE user_id = ?2 AND org_id = ?1)";

impl ReadTx<'_> {
    /// The sealed secret in a slot.
    pub(crate) fn sealed_secret(&self, slot: Slot) -> Result<Vec<u8>> {
        const SQL: &str = "SELECT secret FROM slot WHERE number = ?1";
        let secret = self.one(SQL, (slot.0,), |row| row.get(0))?;
        secret.ok_or_else(|| Error::Unavailable(format!("slot {} is missing", slot.0)))
    }

    /// The number of slots that hold a secret but belong to no authenticator and no recovery codes. Zero unless the file is
    /// damaged or was changed by another program.
    pub(crate) fn unused_secrets(&self) -> Result<i64> {
        const SQL: &str = "SELECT count(*) FROM slot
            WHERE secret <> zeroblob(165)
            AND number NOT IN (SELECT slot FROM totp UNION ALL SELECT slot FROM recovery_set)";
        let count = self.one(SQL, (), |row| row.get(0))?;
        Ok(count.unwrap_or_default())
    }

    /// The number of authenticators and sets of recovery codes that share a slot with another one. Zero, as above.
    pub(crate) fn shared_slots(&self) -> Result<i64> {
        const SQL: &str = "SELECT count(*) - count(DISTINCT slot)
            FROM (SELECT slot FROM totp UNION ALL SELECT slot FROM recovery_set)";
        let count = self.one(SQL, (), |row| row.get(0))?;
        Ok(count.unwrap_or_default())
    }
}

impl WriteTx<'_> {
    /// Puts a sealed secret into a free slot, or into a new one at the end.
    ///
    /// Searches 64 slots from a random one on, so that the cost does not depend on their number. A table of at most 64 slots
    /// is searched completely. In a larger one a free slot may be missed, and the table grows until about one slot in 64
    /// is free.
    pub(crate) fn fill_slot(&self, sealed: &Sealed) -> Result<Slot> {
        const FROM: &str =
            "SELECT 1 + (random() & 9223372036854775807) % max(1, coalesce(max(number), 0) - 63)
            FROM slot";
        const USE_AGAIN: &str = "UPDATE slot SET secret = ?2 WHERE number = (
            SELECT number FROM slot WHERE number BETWEEN ?1 AND ?1 + 63 AND secret = zeroblob(165) LIMIT 1
        ) RETURNING number";
        // The number is computed here: SQLite would choose a random one if the largest is in use.
        const APPEND: &str = "INSERT INTO slot (number, secret)
            SELECT coalesce(max(number), 0) + 1, ?1 FROM slot RETURNING number";
        let number = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let from = self.one(FROM, (), number)?;
        let bytes = sealed.as_slice();
        let filled = match self.one(USE_AGAIN, (from, bytes), number)? {
            None => self.one(APPEND, (bytes,), number)?,
            found => found,
        };
        filled
            .map(Slot)
            .ok_or_else(|| Error::Bug("a slot was not filled".to_owned()))
    }

    /// Overwrites the secret in a slot with zeros.
    pub(super) fn zero_slot(&self, slot: Slot) -> Result<()> {
        const SQL: &str = "UPDATE slot SET secret = zeroblob(165) WHERE number = ?1";
        self.execute(SQL, (slot.0,)).map(|_| ())
    }

    /// Zeroes the slots of all authenticators of a user, and of the recovery codes.
    pub(super) fn zero_slots_of_user(&self, of: &UserRow) -> Result<()> {
        for sql in [ZERO_SLOTS_OF_USER, ZERO_RECOVERY_SLOT] {
            self.execute(sql, (of.org.as_str(), of.id.as_str()))?;
        }
        Ok(())
    }

    /// Zeroes every slot that belongs to no authenticator and no recovery codes.
    pub(crate) fn zero_unused_slots(&self) -> Result<()> {
        const SQL: &str = "UPDATE slot SET secret = zeroblob(165)
            WHERE secret <> zeroblob(165)
            AND number NOT IN (SELECT slot FROM totp UNION ALL SELECT slot FROM recovery_set)";
        self.execute(SQL, ()).map(|_| ())
    }
}
