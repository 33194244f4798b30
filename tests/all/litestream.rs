//! A database that Litestream copies: `settings set checkpoints=litestream`. SECURITY.md 21, 43 and 46.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rusqlite::Connection;

use crate::binary::{Home, enrolled, now};

/// The tables that Litestream creates in a database.
const TABLES: &str =
    "CREATE TABLE IF NOT EXISTS _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
    CREATE TABLE IF NOT EXISTS _litestream_lock (id INTEGER)";

const SET: [&str; 3] = ["settings", "set", "checkpoints=litestream"];

fn sql(home: &Home, sql: &str) {
    let connection = Connection::open(home.data().join("totpd.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// The WAL and its inode.
fn wal(home: &Home) -> (Vec<u8>, u64) {
    let path = home.data().join("totpd.db-wal");
    let inode = fs::metadata(&path).unwrap().ino();
    (fs::read(path).unwrap(), inode)
}

/// SECURITY.md 21: totpd neither checkpoints, restarts, truncates nor deletes the WAL, at any start, stop or end of a
/// command.
#[test]
fn nothing_of_totpd_touches_a_wal_that_litestream_copies() {
    let (home, token) = Home::init();
    home.json(&SET);
    let database = fs::read(home.data().join("totpd.db")).unwrap();
    let (mut before, inode) = wal(&home);
    assert!(!before.is_empty(), "the end of a command leaves it");
    for round in 0..2 {
        let server = home.serve(&[]);
        server
            .ask(&token, "POST", "/users", "{}")
            .expect_status(201);
        home.json(&["org", "create", "more"]);
        let (status, said) = server.terminate();
        assert_eq!(status, 0, "round {round}: {said}");
        home.json(&["doctor"]);
        home.json(&["user", "list"]);
        let (after, now) = wal(&home);
        assert_eq!(now, inode, "round {round}: it is the same file");
        assert!(after.starts_with(&before), "round {round}: it only grows");
        assert!(after.len() > before.len());
        before = after;
    }
    let unchanged = fs::read(home.data().join("totpd.db")).unwrap();
    assert!(
        unchanged == database,
        "nothing was copied into the database"
    );

    home.json(&["settings", "set", "checkpoints=own"]);
    let left = fs::metadata(home.data().join("totpd.db-wal")).map_or(0, |it| it.len());
    assert_eq!(left, 0, "it is totpd's again");
}

/// A running server applies the setting: it leaves its WAL when it stops, even if the setting was made after it
/// started.
#[test]
fn a_running_server_leaves_the_wal_to_litestream_from_the_setting_on() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    home.json(&SET);
    let (before, _) = wal(&home);
    assert_eq!(server.terminate().0, 0);
    assert!(wal(&home).0.starts_with(&before));
}

/// SECURITY.md 46: Litestream's two tables are accepted in its own form if the settings name Litestream.
#[test]
fn litestreams_tables_are_accepted_where_the_settings_name_it() {
    let (home, _) = Home::init();
    sql(&home, TABLES);
    let way_out = "totpd settings set checkpoints=litestream";
    home.refuses(&["user", "list"], 1, way_out);
    home.refuses(&["settings", "set", "window=0"], 1, way_out);
    assert!(!home.run(&["doctor"]).status.success());
    home.json(&SET);
    home.json(&["doctor"]);
    home.json(&["user", "list"]);
    let backup = home.dir.path().join("backup");
    home.json(&["backup", backup.to_str().unwrap()]);

    for (change, back) in [
        (
            "CREATE TABLE _litestream_more (id)",
            "DROP TABLE _litestream_more",
        ),
        (
            "ALTER TABLE _litestream_lock ADD COLUMN more",
            "ALTER TABLE _litestream_lock DROP COLUMN more",
        ),
        (
            "CREATE INDEX more ON _litestream_seq (seq)",
            "DROP INDEX more",
        ),
    ] {
        sql(&home, change);
        home.refuses(&["user", "list"], 1, "not a database as totpd makes it");
        sql(&home, back);
    }
    home.json(&["settings", "set", "checkpoints=own"]);
    home.json(&["doctor"]);
    sql(&home, TABLES);
    home.refuses(&["user", "list"], 1, way_out);

    // A backup contains the tables and the setting.
    home.json(&[
        "restore",
        "--force",
        "--accept-loss",
        backup.to_str().unwrap(),
    ]);
    assert_eq!(
        home.json(&["settings", "show"])["checkpoints"],
        "litestream"
    );
    let kinds = home.json(&["event", "list"]).to_string();
    assert!(kinds.contains("checkpoints_changed"), "{kinds}");
}

/// SECURITY.md 43: a rotation warns about what a replica keeps.
#[test]
fn a_rotation_says_what_a_replica_keeps() {
    let (home, _) = Home::init();
    let (_, phone) = enrolled(&home);
    let said = |home: &Home| {
        let output = home.run(&["key", "rotate"]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!said(&home).contains("replica"));
    home.json(&SET);
    let told = said(&home);
    assert!(
        told.contains("replica keep what the old key opens"),
        "{told}"
    );
    assert_eq!(home.json(&["key", "rotate"])["replicated"], true);
    home.json(&["totp", "check", "alice", &phone.code_at(now())]);
}
