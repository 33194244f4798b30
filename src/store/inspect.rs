//! Inspects a database file without changing it, for the doctor and for backups.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{ReadTx, file, structure, unavailable};
use crate::error::Result;
use crate::model::{RecoverySetId, TotpId, UserId};

/// A database that is open for reading only.
pub(crate) struct Inspection {
    connection: Connection,
    is_older: bool,
}

impl Inspection {
    /// Opens the file for reading only.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(unavailable)?;
        file::restrict(&connection).map_err(unavailable)?;
        connection.busy_timeout(file::BUSY).map_err(unavailable)?;
        let version = file::require_ours(&connection, path)?;
        let is_older = version < file::present_version();
        if !is_older {
            structure::require(&connection, path)?;
        }
        Ok(Self {
            connection,
            is_older,
        })
    }

    /// Whether the file has an older version. Opening it for writing upgrades it; until then only its events can be read.
    pub(crate) const fn is_older(&self) -> bool {
        self.is_older
    }

    /// Reads from the file.
    pub(crate) const fn read(&self) -> ReadTx<'_> {
        ReadTx {
            connection: &self.connection,
            deadline: None,
        }
    }

    /// What is wrong with the file or its rows. Empty if it is intact.
    pub(crate) fn problems(&self) -> Result<Vec<String>> {
        file::problems(&self.connection)
    }

    /// Calls `each` with every sealed secret.
    pub(crate) fn each_secret(&self, mut each: impl FnMut(UserId, TotpId, &[u8])) -> Result<()> {
        const SQL: &str = "SELECT totp.user_id, totp.id, slot.secret
            FROM totp LEFT JOIN slot ON slot.number = totp.slot";
        self.each_sealed(SQL, |user, id, sealed| {
            each(user, TotpId::from_trusted(id), sealed);
        })
    }

    /// Calls `each` with the sealed key of every set of recovery codes.
    pub(crate) fn each_recovery_key(
        &self,
        mut each: impl FnMut(UserId, RecoverySetId, &[u8]),
    ) -> Result<()> {
        const SQL: &str = "SELECT recovery_set.user_id, recovery_set.id, slot.secret
            FROM recovery_set LEFT JOIN slot ON slot.number = recovery_set.slot";
        self.each_sealed(SQL, |user, id, sealed| {
            each(user, RecoverySetId::from_trusted(id), sealed);
        })
    }

    fn each_sealed(&self, sql: &str, mut each: impl FnMut(UserId, String, &[u8])) -> Result<()> {
        let mut statement = self.connection.prepare(sql).map_err(unavailable)?;
        let mut rows = statement.query(()).map_err(unavailable)?;
        while let Some(row) = rows.next().map_err(unavailable)? {
            let (user, id) = (row.get(0), row.get(1));
            let sealed = row.get_ref(2).map_err(unavailable)?;
            each(
                UserId::from_trusted(user.map_err(unavailable)?),
                id.map_err(unavailable)?,
                sealed.as_blob().unwrap_or_default(),
            );
        }
        Ok(())
    }
}

/// The length of a database's WAL in bytes.
pub(crate) fn wal_bytes(database: &Path) -> u64 {
    super::wal::wal_bytes(database)
}
