//! What the file is about: the instance, its organizations, and the ids it makes.

use super::{ReadTx, WriteTx};
use crate::error::{Error, Result};
use crate::model::{Name, OrgId, Timestamp, Window};
use crate::seal::KEY_ID_BYTES;

/// The instance's row.
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) issuer: Name,
    pub(crate) window: Window,
    pub(crate) key_id: [u8; KEY_ID_BYTES],
    /// The newest id made so far.
    pub(crate) last_id: i64,
}

/// An organization's row.
pub(crate) struct Organization {
    pub(crate) id: OrgId,
    pub(crate) name: Name,
}

/// Ids are sonyflakes, like ZITADEL's: 39 bits of 10 ms since 2014-09-01, 8 bits to count, 16 bits of
/// machine; in decimal they have 18 digits.
const ID_EPOCH_S: i64 = 1_409_529_600;
const ID_TIME_SHIFT: u32 = 24;
/// One up in the counting bits; beyond their end it carries into the time, so that ids only rise.
const ID_NEXT: i64 = 1 << 16;

/// The id that belongs to a moment on this machine, if it is newer than `last`; else the one after `last`.
pub(crate) fn next_id(last: i64, now: Timestamp) -> i64 {
    let ticks = now
        .micros()
        .div_euclid(10_000)
        .saturating_sub(ID_EPOCH_S.saturating_mul(100));
    let machine = last & (ID_NEXT.saturating_sub(1));
    let fresh = ticks.clamp(0, (1 << 39) - 1) << ID_TIME_SHIFT | machine;
    fresh.max(last.saturating_add(ID_NEXT))
}

impl ReadTx<'_> {
    pub(crate) fn instance(&self) -> Result<Instance> {
        const SQL: &str =
            "SELECT id, issuer, window_steps, key_id, last_id FROM instance WHERE one = 1";
        let row = self.one(SQL, (), |row| {
            Ok(Instance {
                id: row.get(0)?,
                issuer: Name::known(row.get(1)?),
                window: if row.get(2)? {
                    Window::OneEitherSide
                } else {
                    Window::Present
                },
                key_id: row.get(3)?,
                last_id: row.get(4)?,
            })
        })?;
        row.ok_or_else(|| Error::Unavailable("the database holds no instance".to_owned()))
    }

    pub(crate) fn organization_exists(&self, id: &OrgId) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM organization WHERE id = ?1";
        Ok(self.one(SQL, (id.as_str(),), |_| Ok(()))?.is_some())
    }

    /// The first organization: where a user goes whom nobody put anywhere.
    pub(crate) fn first_organization(&self) -> Result<Option<OrgId>> {
        const SQL: &str = "SELECT id FROM organization ORDER BY created, rowid LIMIT 1";
        self.one(SQL, (), |row| row.get(0).map(OrgId::known))
    }

    /// Organizations in the order of their making, at most `limit`.
    pub(crate) fn organizations(&self, limit: u32) -> Result<Vec<Organization>> {
        const SQL: &str = "SELECT id, name FROM organization ORDER BY created, rowid LIMIT ?1";
        self.all(SQL, (limit,), |row| {
            Ok(Organization {
                id: OrgId::known(row.get(0)?),
                name: Name::known(row.get(1)?),
            })
        })
    }
}

impl WriteTx<'_> {
    pub(crate) fn insert_instance(&self, it: &Instance) -> Result<()> {
        const SQL: &str =
            "INSERT INTO instance (one, id, issuer, window_steps, key_id, last_id, probed_at)
            VALUES (1, ?1, ?2, ?3, ?4, ?5, 0)";
        let window = it.window.steps();
        let row = (
            &it.id,
            it.issuer.as_str(),
            window,
            it.key_id.as_slice(),
            it.last_id,
        );
        self.execute(SQL, row).map(|_| ())
    }

    pub(crate) fn insert_organization(&self, it: &Organization) -> Result<()> {
        const SQL: &str = "INSERT INTO organization (id, name, created) VALUES (?1, ?2, ?3)";
        let row = (it.id.as_str(), it.name.as_str(), self.event_at().micros());
        self.execute(SQL, row).map(|_| ())
    }

    /// Makes an id that was never made before, whichever process asks: the newest one is kept in the
    /// database and read inside the write transaction.
    pub(crate) fn new_id(&self) -> Result<String> {
        const READ: &str = "SELECT last_id FROM instance WHERE one = 1";
        const KEEP: &str = "UPDATE instance SET last_id = ?1 WHERE one = 1 AND last_id < ?1";
        let last: Option<i64> = self.one(READ, (), |row| row.get(0))?;
        let last = last.ok_or_else(|| Error::Bug("the instance's row is gone".to_owned()))?;
        let id = next_id(last, self.now());
        if self.execute(KEEP, (id,))? == 1 {
            Ok(id.to_string())
        } else {
            Err(Error::Bug("an id did not rise".to_owned()))
        }
    }

    /// Changes something that nobody depends on, to see that a write commits.
    pub(crate) fn probe(&self) -> Result<()> {
        const SQL: &str = "UPDATE instance SET probed_at = ?1 WHERE one = 1";
        self.execute(SQL, (self.now().micros(),)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_eighteen_digits_and_only_rise() {
        let now = Timestamp::from_seconds(1_795_453_579);
        let machine = 4711;
        let first = next_id(machine, now);
        assert_eq!(first.to_string().len(), 18);
        assert_eq!(first & 0xFFFF, machine, "the machine's bits stay");
        let mut last = first;
        for _ in 0..1_000 {
            let next = next_id(last, now);
            assert!(next > last && next & 0xFFFF == machine);
            last = next;
        }
        assert!(
            next_id(last, Timestamp::from_seconds(0)) > last,
            "not even with the clock set back"
        );
    }
}
