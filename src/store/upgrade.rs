//! Upgrades an older database file to the present version, step by step. Knows the tables of each version.
//!
//! A step is never changed after a release. After the last one an upgraded file has the same structure as a new one.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{file, unavailable};
use crate::error::{Error, Result};
use crate::model::fold;

/// Upgrades a file from one version to the next, inside a transaction.
pub(super) type UpgradeStep = fn(&Connection) -> Result<()>;

/// The step at index `n` upgrades version `n + 1` to version `n + 2`. `user_version` in the schema is one more than the
/// number of steps.
pub(super) const STEPS: [UpgradeStep; 2] = [version_2, version_3];

/// Upgrades an older file to the newest version in one transaction. Changes nothing if the result does not pass `check`.
/// Refuses a file that is not totpd's, or newer.
pub(super) fn upgrade(
    connection: &Connection,
    path: &Path,
    steps: &[UpgradeStep],
    check: fn(&Connection, &Path) -> Result<()>,
) -> Result<()> {
    let newest = newest_version(steps.len());
    if file::version_of(connection, path, newest)? == newest {
        return Ok(());
    }
    let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate);
    let tx = tx.map_err(unavailable)?;
    // Read again inside the transaction: another process may have upgraded the file meanwhile.
    let version = file::version_of(connection, path, newest)?;
    let done = usize::try_from(version.saturating_sub(1)).unwrap_or(0);
    for step in steps.get(done..).unwrap_or_default() {
        step(&tx)?;
    }
    tx.pragma_update(None, "user_version", newest)
        .map_err(unavailable)?;
    check(&tx, path)?;
    tx.commit().map_err(unavailable)
}

pub(super) fn newest_version(steps: usize) -> i64 {
    i64::try_from(steps).unwrap_or(i64::MAX).saturating_add(1)
}

fn version_2(connection: &Connection) -> Result<()> {
    const RESTRICTION: &str = "CREATE TABLE restriction (
    user_id   TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    state     TEXT    NOT NULL CHECK (state IN ('active', 'inactive', 'locked')),
    in_a_row  INTEGER NOT NULL CHECK (in_a_row >= 0),
    judged_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, created)
) STRICT, WITHOUT ROWID;";
    const SELF_CHANGES: &str = "
CREATE TABLE self_change (
    user_id TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT, WITHOUT ROWID;";
    connection.execute_batch(RESTRICTION).map_err(unavailable)?;
    connection
        .execute_batch(SELF_CHANGES)
        .map_err(unavailable)?;
    fold_names(connection)?;
    add_clock_columns(connection)?;
    index_by_organization(connection)?;
    move_secrets_to_slots(connection)
}

/// Adds the columns for a clock that was ahead. Those of authenticators come with their new table.
fn add_clock_columns(connection: &Connection) -> Result<()> {
    const COLUMNS: &str = "
ALTER TABLE instance ADD COLUMN clock_doubted_from INTEGER;
ALTER TABLE instance ADD COLUMN clock_confirmed_at INTEGER;
ALTER TABLE event ADD COLUMN original_at INTEGER;";
    connection.execute_batch(COLUMNS).map_err(unavailable)
}

/// Computes the folded ids and usernames anew, which SQL cannot do. Usernames that are equal when folded stay as they are.
fn fold_names(connection: &Connection) -> Result<()> {
    let columns = [
        (
            "SELECT rowid, id, id_folded FROM user",
            "UPDATE user SET id_folded = ?2 WHERE rowid = ?1",
        ),
        (
            "SELECT rowid, username, folded FROM username",
            "UPDATE username SET folded = ?2 WHERE rowid = ?1",
        ),
    ];
    for (read, write) in columns {
        let prepare = |sql| connection.prepare(sql).map_err(unavailable);
        let (mut old, mut new) = (prepare(read)?, prepare(write)?);
        let mut rows = old.query(()).map_err(unavailable)?;
        while let Some(row) = rows.next().map_err(unavailable)? {
            let number: i64 = row.get(0).map_err(unavailable)?;
            let text: String = row.get(1).map_err(unavailable)?;
            let before: String = row.get(2).map_err(unavailable)?;
            let folded = fold(&text);
            if folded != before {
                new.execute((number, folded)).map_err(unavailable)?;
            }
        }
    }
    Ok(())
}

/// Creates the indexes for searches within one organization, and removes the UNIQUE constraint on usernames.
fn index_by_organization(connection: &Connection) -> Result<()> {
    const SQL: &str = "
DROP INDEX user_of_org;
DROP INDEX user_searched;
CREATE INDEX user_in_org ON user (org_id, id, state, created, changed);
CREATE INDEX user_org_created ON user (org_id, created);
CREATE INDEX user_org_changed ON user (org_id, changed);
CREATE INDEX user_org_state ON user (org_id, state, created);
CREATE INDEX user_org_folded ON user (org_id, id_folded);
ALTER TABLE username RENAME TO username_1;
CREATE TABLE username (
    id           TEXT    PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    org_id       TEXT    NOT NULL REFERENCES organization (id),
    username     TEXT    NOT NULL CHECK (length(username) BETWEEN 1 AND 200),
    -- The folded username, unique within an organization. Older usernames may clash, so no index enforces that: the
    -- statement that inserts a row does.
    folded       TEXT    NOT NULL,
    org_specific INTEGER NOT NULL CHECK (org_specific IN (0, 1))
) STRICT;
INSERT INTO username SELECT id, user_id, org_id, username, folded, org_specific FROM username_1 ORDER BY rowid;
DROP TABLE username_1;
CREATE INDEX username_of_user ON username (user_id, org_id);
CREATE INDEX username_exact ON username (org_id, username, user_id);
CREATE INDEX username_folded ON username (org_id, folded, user_id);";
    connection.execute_batch(SQL).map_err(unavailable)
}

/// Moves the sealed secrets from the authenticators' rows to slots.
///
/// The old table is dropped, not altered: its pages may hold copies of removed secrets between the rows, and
/// `secure_delete` overwrites every page of a dropped table.
fn move_secrets_to_slots(connection: &Connection) -> Result<()> {
    const TABLES: &str = "
ALTER TABLE totp RENAME TO totp_1;
CREATE TABLE slot (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    -- Sealed under the master key, bound to the ids of the user and the authenticator, and padded.
    secret BLOB    NOT NULL CHECK (length(secret) = 165)
) STRICT;
CREATE TABLE totp (
    id        TEXT    NOT NULL,
    user_id   TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    -- The organization of the user. It never changes.
    org_id    TEXT    NOT NULL REFERENCES organization (id),
    name      TEXT    CHECK (length(name) BETWEEN 1 AND 200),
    state     TEXT    NOT NULL CHECK (state IN ('pending', 'confirmed')),
    -- The slot of its secret. No two authenticators share one. A UNIQUE index would cost each removal one more page, and
    -- is not needed: only a zeroed slot is used, and the secret in it opens for one authenticator only.
    slot      INTEGER NOT NULL REFERENCES slot (number),
    algorithm TEXT    NOT NULL CHECK (algorithm IN ('SHA1', 'SHA256', 'SHA512')),
    digits    INTEGER NOT NULL CHECK (digits BETWEEN 6 AND 9),
    -- The newest step that was used, or -1. Only the correction of a clock that was ahead lowers it.
    last_step INTEGER NOT NULL CHECK (last_step >= -1),
    -- The first and the last step used while the clock was ahead. No step between them is accepted again. NULL: the
    -- clock was not ahead.
    void_from INTEGER,
    void_to   INTEGER CHECK (void_to >= void_from),
    created   INTEGER NOT NULL,
    changed   INTEGER NOT NULL,
    -- The organization is in the key, so that a removal in another organization reads as little as for an unknown user.
    PRIMARY KEY (user_id, org_id, id)
) STRICT, WITHOUT ROWID;";
    const OLD: &str = "SELECT user_id, id, secret FROM totp_1 ORDER BY user_id, id";
    const SLOT: &str = "INSERT INTO slot (number, secret) VALUES (?1, ?2)";
    const TOTP: &str = "INSERT INTO totp
        (id, user_id, org_id, name, state, slot, algorithm, digits, last_step, created, changed)
        SELECT id, user_id, org_id, name, state, ?3, algorithm, digits, last_step, created, changed
        FROM totp_1 WHERE user_id = ?1 AND id = ?2";
    const OLD_TABLE: &str = "
DROP TABLE totp_1;
CREATE INDEX totp_pending ON totp (created) WHERE state = 'pending';";

    connection.execute_batch(TABLES).map_err(unavailable)?;
    {
        let prepare = |sql| connection.prepare(sql).map_err(unavailable);
        let (mut old, mut slot, mut totp) = (prepare(OLD)?, prepare(SLOT)?, prepare(TOTP)?);
        let mut rows = old.query(()).map_err(unavailable)?;
        let mut number: i64 = 0;
        while let Some(row) = rows.next().map_err(unavailable)? {
            let text = |column| row.get_ref(column).map_err(unavailable);
            let (user, id) = (text(0)?, text(1)?);
            let sealed: Vec<u8> = row.get(2).map_err(unavailable)?;
            number = number.saturating_add(1);
            slot.execute((number, pad(sealed)?)).map_err(unavailable)?;
            let copied = totp.execute(rusqlite::params![
                rusqlite::types::ToSqlOutput::Borrowed(user),
                rusqlite::types::ToSqlOutput::Borrowed(id),
                number
            ]);
            copied.map_err(unavailable)?;
        }
    }
    connection.execute_batch(OLD_TABLE).map_err(unavailable)
}

/// Pads a sealed secret as version 2 stores it: zeros after the tag, and the secret's length in the last byte.
fn pad(mut sealed: Vec<u8>) -> Result<Vec<u8>> {
    const BYTES: usize = 165;
    /// Key id, nonce and tag.
    const AROUND: usize = 36;
    let length = sealed.len();
    let secret = length
        .checked_sub(AROUND)
        .and_then(|it| u8::try_from(it).ok());
    match secret {
        Some(secret) if length < BYTES => {
            sealed.resize(BYTES.saturating_sub(1), 0);
            sealed.push(secret);
            Ok(sealed)
        }
        _ => Err(Error::Unavailable(format!(
            "a sealed secret has {length} bytes; expected 37 to 164"
        ))),
    }
}

fn version_3(connection: &Connection) -> Result<()> {
    const INVITATIONS: &str = "
CREATE TABLE invitation (
    -- The SHA-256 of the code that the link carries, never the code.
    digest  BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    -- NULL: to the administrator's page.
    user_id TEXT    REFERENCES user (id) ON DELETE CASCADE,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_of_user ON invitation (user_id);
CREATE INDEX invitation_expires ON invitation (expires);";
    const COLUMNS: &str = "
ALTER TABLE instance ADD COLUMN next_key_id BLOB CHECK (length(next_key_id) = 8);
ALTER TABLE instance ADD COLUMN checkpoints TEXT NOT NULL DEFAULT 'own' CHECK (checkpoints IN ('own', 'litestream'));
ALTER TABLE instance ADD COLUMN backed_up_at INTEGER;
ALTER TABLE instance ADD COLUMN self_removal TEXT NOT NULL DEFAULT 'allow' CHECK (self_removal IN ('allow', 'code'));
ALTER TABLE totp ADD COLUMN last_used INTEGER;
ALTER TABLE totp ADD COLUMN replaces TEXT CHECK (replaces IS NULL OR state = 'pending');
ALTER TABLE totp ADD COLUMN period_s INTEGER NOT NULL DEFAULT 30 CHECK (period_s BETWEEN 10 AND 300);
ALTER TABLE totp ADD COLUMN drift_steps INTEGER NOT NULL DEFAULT 0 CHECK (drift_steps BETWEEN -20 AND 20);
ALTER TABLE totp ADD COLUMN proven INTEGER NOT NULL DEFAULT 0 CHECK (proven IN (0, 1));";
    connection.execute_batch(COLUMNS).map_err(unavailable)?;
    connection.execute_batch(INVITATIONS).map_err(unavailable)?;
    add_recovery_codes(connection)?;
    add_event_columns(connection)?;
    keep_confirmed_totps(connection)
}

fn add_recovery_codes(connection: &Connection) -> Result<()> {
    const SQL: &str = "
ALTER TABLE totp ADD COLUMN has_recovery INTEGER NOT NULL DEFAULT 0 CHECK (has_recovery IN (0, 1));
CREATE TABLE recovery_set (
    user_id TEXT    NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    org_id  TEXT    NOT NULL REFERENCES organization (id),
    id      TEXT    NOT NULL,
    slot    INTEGER NOT NULL REFERENCES slot (number),
    macs    BLOB    NOT NULL CHECK (length(macs) = 320),
    used    INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND 1023),
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (user_id, org_id)
) STRICT, WITHOUT ROWID;";
    connection.execute_batch(SQL).map_err(unavailable)
}

/// Adds what a list of events shows and goes by. Events of users had no organization where totpd itself or a `self`
/// token's creation was on record; those whose user is there still get it.
fn add_event_columns(connection: &Connection) -> Result<()> {
    const SQL: &str = "
ALTER TABLE event ADD COLUMN request_id TEXT;
ALTER TABLE event ADD COLUMN about_name TEXT;
UPDATE event SET org_id = user.org_id FROM user
    WHERE event.org_id IS NULL AND user.id = event.user_id AND user.created <= event.at;
CREATE INDEX event_in_org ON event (org_id);";
    connection.execute_batch(SQL).map_err(unavailable)
}

/// Lists the authenticators that were confirmed, whose events are kept, and adds what the sweep of events goes by. Until
/// now every event from the oldest one on was on record.
fn keep_confirmed_totps(connection: &Connection) -> Result<()> {
    const SQL: &str = "
CREATE TABLE confirmed_totp (
    user_id TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    totp_id TEXT NOT NULL,
    PRIMARY KEY (user_id, totp_id)
) STRICT, WITHOUT ROWID;
INSERT INTO confirmed_totp SELECT user_id, id FROM totp WHERE state = 'confirmed';
INSERT OR IGNORE INTO confirmed_totp SELECT event.user_id, event.about_id FROM event
    JOIN user ON user.id = event.user_id AND user.created <= event.at
    WHERE event.kind = 'totp.confirmed' AND event.about_id IS NOT NULL;
ALTER TABLE instance ADD COLUMN swept_event INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN sweep_began INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN newest_deleted_event INTEGER NOT NULL DEFAULT 0;
UPDATE instance SET newest_deleted_event = coalesce((SELECT at - 1 FROM event ORDER BY id LIMIT 1), 0);";
    connection.execute_batch(SQL).map_err(unavailable)
}

#[cfg(test)]
mod tests;
