//! The instance, its settings, its organizations, and the ids that it generates.

use rusqlite::{Connection, Row};

use super::{ReadTx, WriteTx};
use crate::error::{Error, Result};
use crate::model::{
    Checkpointer, LATEST_PLAUSIBLE_TIME, Name, OrgId, SelfRemoval, Timestamp, Window,
};
use crate::seal::KeyId;

/// The settings of an instance, which can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The issuer of new enrolments. Authenticator apps show it beside the account.
    pub issuer: Name,
    /// The steps around the present one whose codes are accepted.
    pub window: Window,
    /// Who checkpoints the WAL.
    pub checkpoints: Checkpointer,
    /// Whether `self` tokens need a code to change what their user logs in with.
    pub self_removal: SelfRemoval,
}

/// The instance's row without its settings.
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) key_id: KeyId,
    /// The newest id generated so far.
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
/// Adds one to the counting bits. An overflow carries into the time bits, so ids always rise.
const ID_INCREMENT: i64 = 1 << 16;

/// Generates the id for `now` if that is higher than `last`, else the next id after `last`.
///
/// The time is limited to the latest plausible one, so a clock that is far ahead uses up no ids that are needed later.
/// They run out only if the file was given an id near the end of the range.
pub(crate) fn next_id(last: i64, now: Timestamp) -> Result<i64> {
    let ticks = now
        .min(LATEST_PLAUSIBLE_TIME)
        .micros()
        .div_euclid(10_000)
        .saturating_sub(ID_EPOCH_S.saturating_mul(100));
    let machine = last & (ID_INCREMENT.saturating_sub(1));
    let fresh = ticks.clamp(0, (1 << 39) - 1) << ID_TIME_SHIFT | machine;
    let next = last.checked_add(ID_INCREMENT).ok_or_else(|| {
        let problem = format!("no id is left after {last}, so nothing new can be made");
        Error::Unavailable(problem)
    })?;
    Ok(fresh.max(next))
}

/// An organization out of the columns id, name.
fn organization(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: OrgId::from_trusted(row.get(0)?),
        name: Name::from_trusted(row.get(1)?),
    })
}

/// Whether the database says that Litestream checkpoints the WAL.
pub(super) fn is_litestreams(connection: &Connection) -> rusqlite::Result<bool> {
    const SQL: &str = "SELECT checkpoints = 'litestream' FROM main.instance WHERE one = 1";
    connection
        .prepare_cached(SQL)?
        .query_row((), |row| row.get(0))
}

pub(super) fn no_instance() -> Error {
    Error::Unavailable("the database holds no instance".to_owned())
}

impl ReadTx<'_> {
    pub(crate) fn instance(&self) -> Result<Instance> {
        const SQL: &str = "SELECT id, key_id, last_id FROM instance WHERE one = 1";
        let row = self.one(SQL, (), |row| {
            Ok(Instance {
                id: row.get(0)?,
                key_id: row.get(1)?,
                last_id: row.get(2)?,
            })
        })?;
        row.ok_or_else(no_instance)
    }

    /// The settings, read in each transaction because the command line may change them beside a server.
    pub(crate) fn settings(&self) -> Result<Settings> {
        const SQL: &str =
            "SELECT issuer, window_steps, checkpoints = 'litestream', self_removal = 'code'
            FROM instance WHERE one = 1";
        let row = self.one(SQL, (), |row| {
            Ok(Settings {
                issuer: Name::from_trusted(row.get(0)?),
                window: if row.get(1)? {
                    Window::OneEitherSide
                } else {
                    Window::Present
                },
                checkpoints: if row.get(2)? {
                    Checkpointer::Litestream
                } else {
                    Checkpointer::Own
                },
                self_removal: if row.get(3)? {
                    SelfRemoval::Code
                } else {
                    SelfRemoval::Allow
                },
            })
        })?;
        row.ok_or_else(no_instance)
    }

    pub(crate) fn organization_exists(&self, id: &OrgId) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM organization WHERE id = ?1";
        Ok(self.one(SQL, (id.as_str(),), |_| Ok(()))?.is_some())
    }

    /// The first organization, to which a user belongs by default.
    pub(crate) fn first_organization(&self) -> Result<Option<OrgId>> {
        const SQL: &str = "SELECT id FROM organization ORDER BY created, rowid LIMIT 1";
        self.one(SQL, (), |row| row.get(0).map(OrgId::from_trusted))
    }

    /// Organizations in the order of creation, at most `limit`.
    pub(crate) fn organizations(&self, limit: u32) -> Result<Vec<Organization>> {
        const SQL: &str = "SELECT id, name FROM organization ORDER BY created, rowid LIMIT ?1";
        self.all(SQL, (limit,), organization)
    }

    /// The numbers of users and of tokens that belong to an organization.
    pub(crate) fn organization_counts(&self, id: &OrgId) -> Result<(i64, i64)> {
        const SQL: &str = "SELECT (SELECT count(*) FROM user WHERE org_id = ?1),
            (SELECT count(*) FROM token WHERE org_id = ?1)";
        let counts = self.one(SQL, (id.as_str(),), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(counts.unwrap_or_default())
    }
}

impl WriteTx<'_> {
    pub(crate) fn insert_instance(&self, it: &Instance, settings: &Settings) -> Result<()> {
        const SQL: &str =
            "INSERT INTO instance (one, id, issuer, window_steps, key_id, last_id, probed_at, checkpoints, self_removal)
            VALUES (1, ?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)";
        let row = (
            &it.id,
            settings.issuer.as_str(),
            settings.window.steps(),
            it.key_id.as_slice(),
            it.last_id,
            settings.checkpoints.as_str(),
            settings.self_removal.as_str(),
        );
        self.execute(SQL, row).map(|_| ())
    }

    pub(crate) fn insert_organization(&self, it: &Organization) -> Result<()> {
        const SQL: &str = "INSERT INTO organization (id, name, created) VALUES (?1, ?2, ?3)";
        let row = (it.id.as_str(), it.name.as_str(), self.event_at().micros());
        self.execute(SQL, row).map(|_| ())
    }

    /// Replaces the settings.
    pub(crate) fn change_settings(&self, it: &Settings) -> Result<()> {
        const SQL: &str = "UPDATE instance SET issuer = ?1, window_steps = ?2, checkpoints = ?3,
            self_removal = ?4 WHERE one = 1";
        let row = (
            it.issuer.as_str(),
            it.window.steps(),
            it.checkpoints.as_str(),
            it.self_removal.as_str(),
        );
        self.execute(SQL, row).map(|_| ())
    }

    /// Notes that a backup was made now.
    pub(crate) fn note_backup(&self) -> Result<()> {
        const SQL: &str = "UPDATE instance SET backed_up_at = ?1 WHERE one = 1";
        self.execute(SQL, (self.event_at().micros(),)).map(|_| ())
    }

    /// Drops the tables that Litestream keeps in the database. They belong there only while it checkpoints the WAL.
    pub(crate) fn drop_litestream_tables(&self) -> Result<()> {
        for sql in [
            "DROP TABLE IF EXISTS main._litestream_seq",
            "DROP TABLE IF EXISTS main._litestream_lock",
        ] {
            self.execute(sql, ())?;
        }
        Ok(())
    }

    /// Renames an organization. Returns whether it exists.
    pub(crate) fn rename_organization(&self, id: &OrgId, name: &Name) -> Result<bool> {
        const SQL: &str = "UPDATE organization SET name = ?2 WHERE id = ?1";
        Ok(self.execute(SQL, (id.as_str(), name.as_str()))? == 1)
    }

    /// Deletes an organization. Its users and tokens must have been deleted.
    pub(crate) fn delete_organization(&self, id: &OrgId) -> Result<Option<Organization>> {
        const SQL: &str = "DELETE FROM organization WHERE id = ?1 RETURNING id, name";
        self.one(SQL, (id.as_str(),), organization)
    }

    /// Generates an id that is unique across processes: the newest id is stored in the database, and read and changed in
    /// this transaction.
    pub(crate) fn new_id(&self) -> Result<String> {
        const READ: &str = "SELECT last_id FROM instance WHERE one = 1";
        const STORE: &str = "UPDATE instance SET last_id = ?1 WHERE one = 1 AND last_id < ?1";
        let last: Option<i64> = self.one(READ, (), |row| row.get(0))?;
        let last = last.ok_or_else(|| Error::Bug("the instance's row is gone".to_owned()))?;
        let id = next_id(last, self.now())?;
        if self.execute(STORE, (id,))? == 1 {
            Ok(id.to_string())
        } else {
            Err(Error::Bug("an id did not rise".to_owned()))
        }
    }

    /// Writes a value that nothing depends on, to test whether a write commits.
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
        let first = next_id(machine, now).unwrap();
        assert_eq!(first.to_string().len(), 18);
        assert_eq!(first & 0xFFFF, machine, "the machine's bits stay");
        let mut last = first;
        for _ in 0..1_000 {
            let next = next_id(last, now).unwrap();
            assert!(next > last && next & 0xFFFF == machine);
            last = next;
        }
        let set_back = next_id(last, Timestamp::from_seconds(0)).unwrap();
        assert!(set_back > last, "not even with the clock set back");
    }

    /// SECURITY.md 36
    #[test]
    fn a_clock_that_was_far_ahead_uses_up_no_ids() {
        let right = Timestamp::from_seconds(1_795_453_579);
        let mut last = next_id(4711, right).unwrap();
        // The years 2188 and 9999, and the highest number of seconds.
        for ahead_s in [6_900_000_000, 253_402_300_799, i64::MAX] {
            last = next_id(last, Timestamp::from_seconds(ahead_s)).unwrap();
        }
        assert!(
            last < i64::MAX / 2,
            "half of the ids are left for what comes after"
        );
        assert!(next_id(last, right).unwrap() > last);
        let end = next_id(i64::MAX - 1, right).unwrap_err();
        assert!(matches!(&end, Error::Unavailable(why) if why.contains("no id is left")));
    }
}
