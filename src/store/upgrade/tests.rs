//! An upgrade is complete or changes nothing, and leaves no removed secret in the file.

use std::collections::HashSet;
use std::path::PathBuf;

use super::*;
use crate::store::structure;

const VERSION_1: &str = include_str!("version_1.sql");
const FRESH: &str = include_str!("../../../schema.sql");

fn file_of(schema: &str) -> (tempfile::TempDir, PathBuf, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totpd.db");
    let connection = Connection::open(&path).unwrap();
    let prepare = "PRAGMA foreign_keys = 1; PRAGMA secure_delete = 1; PRAGMA synchronous = 0;
        PRAGMA temp_store = 2;";
    connection.execute_batch(prepare).unwrap();
    connection.execute_batch(schema).unwrap();
    (dir, path, connection)
}

fn version(connection: &Connection) -> i64 {
    let row = |row: &rusqlite::Row<'_>| row.get(0);
    connection
        .pragma_query_value(None, "user_version", row)
        .unwrap()
}

#[test]
fn an_older_file_is_taken_up_step_by_step_or_left_as_it_was() {
    let one: UpgradeStep = |it| {
        it.execute_batch("CREATE TABLE one (n)")
            .map_err(unavailable)
    };
    let two: UpgradeStep = |it| {
        let sql = "ALTER TABLE one ADD COLUMN m";
        it.execute_batch(sql).map_err(unavailable)
    };
    let broken: UpgradeStep = |_| Err(Error::Unavailable("on purpose".to_owned()));
    let (_dir, path, connection) = file_of(VERSION_1);
    assert!(upgrade(&connection, &path, &[one, broken], |_, _| Ok(())).is_err());
    assert_eq!(version(&connection), 1);
    let half = connection.execute_batch("SELECT * FROM one");
    assert!(half.is_err(), "not half of it");
    for _ in 0..2 {
        upgrade(&connection, &path, &[one, two], |_, _| Ok(())).unwrap();
        assert_eq!(version(&connection), 3);
    }
    connection.execute_batch("SELECT n, m FROM one").unwrap();
}

/// SECURITY.md 46
#[test]
fn an_upgraded_file_has_the_structure_of_a_new_one() {
    let (_old_dir, path, old) = file_of(VERSION_1);
    let (_new_dir, _, new) = file_of(FRESH);
    upgrade(&old, &path, &STEPS, structure::require).unwrap();
    structure::require(&new, &path).unwrap();
    assert_eq!(version(&old), version(&new));
}

#[test]
fn an_upgrade_folds_names_anew_and_keeps_those_that_clash() {
    const FILL: &str = "
        INSERT INTO organization VALUES ('o', 'o', 1);
        INSERT INTO user (id, id_folded, org_id, created, changed)
            VALUES ('Rene' || char(769), 'rene' || char(769), 'o', 1, 1), ('u', 'u', 'o', 1, 1);
        INSERT INTO username VALUES ('1', 'u', 'o', 'Rene' || char(769), 'rene' || char(769), 0),
            ('2', 'u', 'o', 'RENÉ', 'rené', 0), ('3', 'u', 'o', 'bob', 'bob', 0);";
    let (_dir, path, connection) = file_of(VERSION_1);
    connection.execute_batch(FILL).unwrap();
    upgrade(&connection, &path, &STEPS, |_, _| Ok(())).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map((), |row| row.get(0)).unwrap();
        rows.map(|it| it.unwrap()).collect()
    };
    assert_eq!(
        texts("SELECT id_folded FROM user ORDER BY id"),
        ["ren\u{e9}", "u"]
    );
    let folded = texts("SELECT folded FROM username ORDER BY id");
    assert_eq!(folded, ["ren\u{e9}", "ren\u{e9}", "bob"]);
    let kept = texts("SELECT username FROM username ORDER BY id");
    assert_eq!(kept, ["Rene\u{301}", "RENÉ", "bob"]);
}

/// SECURITY.md 21: each sealed secret is in the upgraded file once, and nothing of a removed one.
#[test]
fn an_upgrade_leaves_no_copy_of_a_secret() {
    const FILL: &str = "
        INSERT INTO instance VALUES (1, '1', 'T', 1, zeroblob(8), 1, 0);
        INSERT INTO organization VALUES ('o', 'o', 1);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
        INSERT INTO user (id, id_folded, org_id, created, changed) SELECT i, i, 'o', 1, 1 FROM n;";
    // In random order, so that pages split.
    const TOTPS: &str = "INSERT INTO totp
        SELECT CAST(1000 + k AS TEXT), id, 'o', NULL, 'confirmed', randomblob(36 + 16 + abs(random()) % 113),
            'SHA1', 6, -1, 1, 1
        FROM user, (SELECT 1 AS k UNION SELECT 2) ORDER BY random()";
    const REMOVED: &str = "DELETE FROM totp WHERE (user_id, id) IN (
            SELECT user_id, id FROM totp ORDER BY random() LIMIT 100)
        RETURNING secret";
    let (_dir, path, connection) = file_of(VERSION_1);
    connection.execute_batch(FILL).unwrap();
    connection.execute(TOTPS, ()).unwrap();
    let secrets = |sql: &str| -> Vec<Vec<u8>> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map((), |row| row.get(0)).unwrap();
        rows.map(|it| it.unwrap()).collect()
    };
    let mut removed = Vec::new();
    for _ in 0..20 {
        removed.extend(secrets(REMOVED));
    }
    assert_eq!(removed.len(), 2_000);
    let kept = secrets("SELECT secret FROM totp ORDER BY user_id, id");
    upgrade(&connection, &path, &STEPS, |_, _| Ok(())).unwrap();

    let padded = secrets("SELECT secret FROM slot JOIN totp ON number = slot ORDER BY user_id, id");
    assert_eq!(padded.len(), kept.len());
    for (now, then) in padded.iter().zip(&kept) {
        assert_eq!(now.len(), crate::seal::SEALED_BYTES);
        assert!(now.starts_with(then));
        assert_eq!(usize::from(*now.last().unwrap()) + 36, then.len());
    }
    let bytes = std::fs::read(&path).unwrap();
    let pieces = |of: &[Vec<u8>]| -> HashSet<[u8; 16]> {
        let pieces = of.iter().flat_map(|it| it.chunks_exact(16));
        pieces.map(|it| it.try_into().unwrap()).collect()
    };
    let found = |pieces: &HashSet<[u8; 16]>| {
        let windows = bytes.windows(16);
        windows.filter(|it| pieces.contains(*it)).count()
    };
    assert_eq!(found(&pieces(&removed)), 0, "removed");
    let kept = pieces(&kept);
    assert_eq!(found(&kept), kept.len(), "each once");
}

/// A value that cannot be a secret stops the upgrade, and the file is not changed.
#[test]
fn a_secret_of_an_impossible_length_stops_an_upgrade() {
    let (_dir, path, connection) = file_of(VERSION_1);
    let row = "PRAGMA foreign_keys = 0;
        INSERT INTO totp VALUES ('1', 'u', 'o', NULL, 'confirmed', zeroblob(165), 'SHA1', 6, -1, 1, 1)";
    connection.execute_batch(row).unwrap();
    assert!(upgrade(&connection, &path, &STEPS, |_, _| Ok(())).is_err());
    assert_eq!(version(&connection), 1);
    connection.execute_batch("SELECT secret FROM totp").unwrap();
}

/// SECURITY.md 33: what was confirmed before the upgrade is known after it, but not of an earlier user of the same id.
#[test]
fn an_upgrade_lists_what_was_confirmed_and_gives_events_of_users_their_organization() {
    const FILL: &str = "
        INSERT INTO instance (one, id, issuer, window_steps, key_id, last_id, probed_at)
            VALUES (1, '1', 'T', 1, zeroblob(8), 1, 0);
        INSERT INTO organization VALUES ('o', 'o', 1);
        INSERT INTO user (id, id_folded, org_id, created, changed) VALUES ('u', 'u', 'o', 10, 10);
        INSERT INTO slot VALUES (1, zeroblob(165));
        INSERT INTO totp (id, user_id, org_id, state, slot, algorithm, digits, last_step, created, changed)
            VALUES ('4', 'u', 'o', 'confirmed', 1, 'SHA1', 6, -1, 12, 12);
        INSERT INTO event (at, kind, actor, user_id, about_id) VALUES
            (9, 'totp.confirmed', 'totpd', 'u', '1'), (10, 'totp.confirmed', 'totpd', 'u', '2'),
            (11, 'totp.expired', 'totpd', 'u', '3'), (12, 'totp.confirmed', 'totpd', 'u', '4'),
            (13, 'totp.confirmed', 'totpd', 'v', '5');";
    let (_dir, path, connection) = file_of(VERSION_1);
    upgrade(&connection, &path, &STEPS[..1], |_, _| Ok(())).unwrap();
    connection.execute_batch(FILL).unwrap();
    upgrade(&connection, &path, &STEPS, structure::require).unwrap();
    let texts = |sql: &str| -> String { connection.query_row(sql, (), |row| row.get(0)).unwrap() };
    let confirmed = texts("SELECT group_concat(user_id || totp_id) FROM confirmed_totp");
    assert_eq!(confirmed, "u2,u4");
    let organizations = texts(
        "SELECT group_concat(coalesce(org_id, '-'), '') FROM (SELECT org_id FROM event ORDER BY id)",
    );
    assert_eq!(organizations, "-ooo-");
    let mark = texts("SELECT newest_deleted_event || ',' || swept_event FROM instance");
    assert_eq!(mark, "8,0");
}

/// An authenticator of an older version has the period that every one had, and no drift.
#[test]
fn an_upgrade_gives_authenticators_the_period_that_they_had() {
    const FILL_1: &str = "
        INSERT INTO organization VALUES ('o', 'o', 1);
        INSERT INTO user (id, id_folded, org_id, created, changed) VALUES ('u', 'u', 'o', 1, 1);
        INSERT INTO totp VALUES ('1', 'u', 'o', NULL, 'confirmed', zeroblob(56), 'SHA256', 8, 7, 1, 1);";
    const FILL_2: &str = "
        INSERT INTO slot VALUES (2, zeroblob(165));
        INSERT INTO totp (id, user_id, org_id, state, slot, algorithm, digits, last_step, created, changed)
            VALUES ('2', 'u', 'o', 'confirmed', 2, 'SHA1', 6, 9, 1, 1);";
    let (_dir, path, connection) = file_of(VERSION_1);
    connection.execute_batch(FILL_1).unwrap();
    upgrade(&connection, &path, &STEPS[..1], |_, _| Ok(())).unwrap();
    connection.execute_batch(FILL_2).unwrap();
    upgrade(&connection, &path, &STEPS, structure::require).unwrap();
    let sql = "SELECT group_concat(concat_ws(' ', id, algorithm, digits, last_step, period_s, drift_steps))
        FROM (SELECT * FROM totp ORDER BY id)";
    let rows: String = connection.query_row(sql, (), |row| row.get(0)).unwrap();
    assert_eq!(rows, "1 SHA256 8 7 30 0,2 SHA1 6 9 30 0");
    for (column, values) in [("period_s", [9, 301]), ("drift_steps", [-21, 21])] {
        for value in values {
            let refused = connection.execute_batch(&format!("UPDATE totp SET {column} = {value}"));
            assert!(refused.is_err(), "{column} {value}");
        }
    }
}
