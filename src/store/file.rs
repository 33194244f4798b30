//! The database file: creating and opening it, its version, and the settings of its connections.
//!
//! Knows nothing of its tables.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::upgrade::{STEPS, newest_version, upgrade};
use super::{STATEMENTS, structure, unavailable};
use crate::error::{Error, Result};

/// The schema of a new file.
pub(super) const SCHEMA: &str = include_str!("../../schema.sql");
/// `application_id` in the schema: `totp` in ASCII.
const APPLICATION_ID: i64 = 0x746F_7470;
/// How long to wait for another process that writes: the command line beside a server. Its transactions take
/// milliseconds.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// The writer's page cache in KiB. The inner pages of a million authenticators and their users fit in; the operating
/// system caches the leaf pages.
const WRITER_CACHE_KIB: i64 = 12 * 1024;

/// Creates a private file with the schema, and lets `fill` insert the first rows.
pub(super) fn create<T>(path: &Path, fill: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        // SQLite gives the WAL the mode of the database.
        .mode(0o600)
        .open(path)
        .map_err(|error| refused(path, &format!("cannot create the database: {error}")))?;
    let connection = connect(path)?;
    let tx = connection.unchecked_transaction().map_err(unavailable)?;
    tx.execute_batch(SCHEMA).map_err(unavailable)?;
    let filled = fill(&tx)?;
    tx.commit().map_err(unavailable)?;
    connection
        .close()
        .map_err(|(_, error)| unavailable(error))?;
    Ok(filled)
}

/// Opens an existing file for the writer and upgrades it. Fails if the file is not totpd's. With `expects_litestream`
/// Litestream's tables are accepted before the settings name it.
pub(super) fn open_for_writing(path: &Path, expects_litestream: bool) -> Result<Connection> {
    let connection = connect(path)?;
    require_present_version(&connection, path, expects_litestream)?;
    Ok(connection)
}

/// Whether the file has an older version. Changes nothing.
pub(super) fn needs_upgrade(path: &Path) -> Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| open_error(path, &error))?;
    restrict(&connection).map_err(unavailable)?;
    connection.busy_timeout(BUSY).map_err(unavailable)?;
    Ok(require_ours(&connection, path)? < present_version())
}

/// Opens a connection for checkpoints only.
pub(super) fn connect_for_checkpoints(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags()).map_err(unavailable)?;
    restrict(&connection).map_err(unavailable)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(unavailable)?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags())
        .map_err(|error| refused(path, &format!("cannot open the database: {error}")))?;
    let prepare = || -> rusqlite::Result<()> {
        restrict(&connection)?;
        let _mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
        // `checkpoint` runs them beside the writer.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "cache_size", WRITER_CACHE_KIB.saturating_neg())?;
        prepare_to_write(&connection)
    };
    prepare().map_err(|error| open_error(path, &error))?;
    Ok(connection)
}

/// Opens a file that no other process uses, without a WAL. So the file can be renamed after the changes.
pub(super) fn open_exclusive(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags())
        .map_err(|error| refused(path, &format!("cannot open the database: {error}")))?;
    let prepare = || -> rusqlite::Result<()> {
        restrict(&connection)?;
        let _mode: String =
            connection.query_row("PRAGMA journal_mode = MEMORY", (), |row| row.get(0))?;
        prepare_to_write(&connection)
    };
    prepare().map_err(|error| open_error(path, &error))?;
    require_present_version(&connection, path, false)?;
    Ok(connection)
}

/// Upgrades an older file. Fails, and changes nothing, if the file would not have the structure of the present version.
fn require_present_version(
    connection: &Connection,
    path: &Path,
    expects_litestream: bool,
) -> Result<()> {
    require_ours(connection, path)?;
    structure::require_tables_and_indexes(connection, path)?;
    upgrade(connection, path, &STEPS, structure::require)?;
    if expects_litestream {
        structure::require_beside_litestream(connection, path)
    } else {
        structure::require(connection, path)
    }
}

/// Makes SQLite safe for a file from elsewhere: triggers, views and unsafe functions in its schema do not run, and no
/// statement can change the schema's own table.
pub(super) fn restrict(connection: &Connection) -> rusqlite::Result<()> {
    for (setting, is_on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        connection.set_db_config(setting, is_on)?;
    }
    Ok(())
}

fn prepare_to_write(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A commit returns only when it is on disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Temporary files stay in memory, so that a full /tmp does no harm.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Deleted content is overwritten with zeros.
    connection.pragma_update(None, "secure_delete", true)
}

pub(super) fn open_error(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => refused(
            path,
            "this is not a database of totpd; put the right file or a backup there",
        ),
        _ => refused(path, &format!("cannot open the database: {error}")),
    }
}

/// What SQLite's checks of integrity and foreign keys find wrong with a file.
pub(super) fn problems(connection: &Connection) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for sql in [
        "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
        "SELECT 'a row of ' || \"table\" || ' refers to nothing' FROM pragma_foreign_key_check LIMIT 100",
    ] {
        let mut statement = connection.prepare(sql).map_err(unavailable)?;
        let rows = statement.query_map((), |row| row.get::<_, String>(0));
        for row in rows.map_err(unavailable)? {
            found.push(row.map_err(unavailable)?);
        }
    }
    Ok(found)
}

/// Returns the version of the file. Fails if the file is not totpd's, or newer than this totpd.
pub(super) fn require_ours(connection: &Connection, path: &Path) -> Result<i64> {
    version_of(connection, path, present_version())
}

/// Returns the version of the file. Fails if the file is not totpd's, or newer than `newest`.
pub(super) fn version_of(connection: &Connection, path: &Path, newest: i64) -> Result<i64> {
    let number = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| open_error(path, &error))
    };
    if number("application_id")? != APPLICATION_ID {
        return Err(refused(
            path,
            "this database is not totpd's; put the right file or a backup there",
        ));
    }
    let version = number("user_version")?;
    if version < 1 {
        return Err(refused(
            path,
            &format!(
                "the database has version {version}, which totpd never made; restore a backup"
            ),
        ));
    }
    if version > newest {
        return Err(refused(
            path,
            &format!(
                "the database has version {version}, this totpd knows up to {newest}: use a newer totpd"
            ),
        ));
    }
    Ok(version)
}

/// The version of the files that this totpd creates.
pub(super) fn present_version() -> i64 {
    newest_version(STEPS.len())
}

pub(super) fn refused(path: &Path, problem: &str) -> Error {
    Error::invalid(path.display().to_string(), problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("totpd.db");
        create(&path, |_| Ok(())).unwrap();
        (dir, path)
    }

    #[test]
    fn a_new_file_says_what_it_is() {
        let (_dir, path) = fresh();
        let connection = open_for_writing(&path, false).unwrap();
        let number = |name| {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(number("application_id"), APPLICATION_ID);
        assert_eq!(
            number("user_version"),
            1 + i64::try_from(STEPS.len()).unwrap()
        );
        assert_eq!(number("synchronous"), 2, "FULL");
        assert_eq!(number("secure_delete"), 1);
        assert_eq!(number("foreign_keys"), 1);
        assert_eq!(number("trusted_schema"), 0);
        let defensive = DbConfig::SQLITE_DBCONFIG_DEFENSIVE;
        assert!(connection.db_config(defensive).unwrap());
    }

    /// SECURITY.md 18: what was moved out of the WAL is on disk before the WAL is overwritten.
    #[test]
    fn what_a_checkpoint_moves_is_synced() {
        let (_dir, path) = fresh();
        let connection = connect_for_checkpoints(&path).unwrap();
        let synchronous = connection
            .pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))
            .unwrap();
        assert_eq!(synchronous, 2, "FULL");
    }

    #[test]
    fn a_foreign_and_a_newer_file_are_refused_by_name() {
        for (sql, expected) in [
            ("PRAGMA application_id = 7", "not totpd's"),
            ("PRAGMA user_version = 99", "use a newer totpd"),
            ("PRAGMA user_version = 0", "version 0"),
            ("PRAGMA user_version = -1", "version -1"),
        ] {
            let (_dir, path) = fresh();
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            let error = open_for_writing(&path, false).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("totpd.db");
        let text = "a letter to the landlord\n".repeat(500);
        std::fs::write(&path, &text).unwrap();
        let error = open_for_writing(&path, false).err().unwrap().to_string();
        assert!(error.contains("not a database of totpd"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
