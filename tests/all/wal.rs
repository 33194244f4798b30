//! A stop, a start and a command leave no WAL behind, and an old database is upgraded. SECURITY.md 21.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use crate::binary::{Home, enrolled, now};
use crate::harness::TestServer;

fn wal_bytes(home: &Home) -> u64 {
    fs::metadata(home.data().join("totpd.db-wal")).map_or(0, |it| it.len())
}

/// Writes 36 MiB. By then SQLite has restarted the WAL by itself.
fn let_the_wal_start_over(server: &crate::binary::Server, token: &str) {
    let body = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(60_000));
    for _ in 0..600 {
        server
            .ask(token, "POST", "/users", &body)
            .expect_status(201);
    }
}

#[test]
fn a_stop_right_after_heavy_load_leaves_an_empty_wal() {
    let (home, token) = Home::init();
    let server = home.serve(&[]);
    let_the_wal_start_over(&server, &token);
    assert!(wal_bytes(&home) > 0);
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert_eq!(wal_bytes(&home), 0);
    home.json(&["doctor"]);
}

#[test]
fn what_a_killed_server_leaves_is_named_by_the_doctor_and_emptied_by_whoever_comes_next() {
    let (home, _) = Home::init();
    for with in [&["user", "list"][..], &["serve"]] {
        let server = home.serve(&[]);
        home.json(&["org", "create", "more"]);
        home.json(&["doctor"]);
        server.kill();
        assert!(wal_bytes(&home) > 0);
        let output = home.run(&["doctor"]);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("while no server runs"), "{told}");
        if with == ["serve"] {
            let server = home.serve(&[]);
            assert_eq!(wal_bytes(&home), 0);
            server.kill();
        } else {
            home.json(with);
            assert_eq!(wal_bytes(&home), 0);
        }
        home.json(&["doctor"]);
    }
}

/// A file that is not a WAL of this database, as a torn write leaves it, is removed as well.
#[test]
fn a_torn_wal_is_emptied_too() {
    let (home, _) = Home::init();
    let wal = home.data().join("totpd.db-wal");
    fs::write(&wal, vec![0xA5; 100_000]).unwrap();
    fs::set_permissions(&wal, fs::Permissions::from_mode(0o600)).unwrap();
    let server = home.serve(&[]);
    assert_eq!(wal_bytes(&home), 0);
    assert_eq!(server.terminate().0, 0);
}

#[test]
fn where_the_wal_cannot_be_emptied_a_stop_and_a_start_say_so_and_fail() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let reader = Connection::open(home.data().join("totpd.db")).unwrap();
    let begin = "BEGIN; SELECT count(*) FROM event";
    reader.execute_batch(begin).unwrap();
    home.json(&["org", "create", "more"]);
    let (status, said) = server.terminate();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("may still be in the WAL"), "{said}");
    assert!(wal_bytes(&home) > 0);
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    home.refuses(&serve, 1, "the WAL cannot be emptied");
    // The command does its own work as well.
    home.json(&["user", "list"]);
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    let server = home.serve(&[]);
    assert_eq!(wal_bytes(&home), 0);
    assert_eq!(server.terminate().0, 0);
}

#[test]
fn a_directory_has_one_server() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    home.refuses(&serve, 1, "another totpd serves this data directory");
    home.json(&["user", "list"]);
    server.kill();
    assert_eq!(home.serve(&[]).terminate().0, 0);
}

/// After a stop nothing is written, so the WAL stays empty.
#[test]
fn a_service_that_stopped_refuses_every_change() {
    let server = TestServer::start();
    server.service.stop().unwrap();
    server
        .ask("POST", "/users", "{}")
        .expect_error(503, 14, Some("TOTPD-Store"));
    let wal = fs::metadata(server.path().join("totpd.db-wal")).map_or(0, |it| it.len());
    assert_eq!(wal, 0);
}

/// A restore that was killed leaves a copy of the backup, which may contain secrets that were removed later.
#[test]
fn what_a_killed_restore_left_is_removed_by_whoever_comes_next() {
    let (home, _) = Home::init();
    let names = ["totpd.db.unfinished", "totpd.db.unfinished-journal"];
    for name in names {
        fs::write(home.data().join(name), "secrets").unwrap();
    }
    home.json(&["user", "list"]);
    for name in names {
        assert!(!home.data().join(name).exists(), "{name}");
    }
}

#[test]
fn an_old_database_is_upgraded_while_nobody_else_uses_it() {
    let (home, token) = Home::init();
    let (_, phone) = enrolled(&home);
    let present = version(&home.data());
    as_version_1(&home.data());
    let lock = File::open(home.data().join("lock")).unwrap();
    lock.lock_shared().unwrap();
    home.refuses(&["user", "list"], 1, "older version");
    assert_eq!(version(&home.data()), 1, "it was left alone");
    lock.unlock().unwrap();

    let server = home.serve(&[]);
    assert_eq!(version(&home.data()), present);
    assert_eq!(wal_bytes(&home), 0);
    home.json(&["doctor"]);
    let code = phone.code_at(now());
    home.json(&["totp", "check", "alice", &code]);
    home.refuses(&["totp", "check", "alice", &code], 1, "used");
    server
        .ask(&token, "GET", "/users/none", "")
        .expect_status(404);
    assert_eq!(server.terminate().0, 0);
}

fn version(data: &Path) -> i64 {
    let connection = Connection::open(data.join("totpd.db")).unwrap();
    let row = |row: &rusqlite::Row<'_>| row.get(0);
    connection
        .pragma_query_value(None, "user_version", row)
        .unwrap()
}

/// Changes a database into one that version 1 would have created.
fn as_version_1(data: &Path) {
    const SCHEMA: &str = include_str!("../../src/store/upgrade/version_1.sql");
    const TOTPS: &str = "INSERT INTO main.totp
        SELECT id, user_id, org_id, name, state, substr(secret, 1, 56), algorithm, digits, last_step, created, changed
        FROM new.totp JOIN new.slot ON number = slot";
    let (database, old) = (data.join("totpd.db"), data.join("old"));
    let connection = Connection::open(&old).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection
        .execute("ATTACH ?1 AS new", [database.to_str().unwrap()])
        .unwrap();
    for table in [
        "instance",
        "organization",
        "user",
        "username",
        "failure",
        "token",
        "event",
    ] {
        let columns =
            format!("SELECT group_concat(name) FROM pragma_table_info('{table}', 'main')");
        let columns: String = connection
            .query_row(&columns, (), |row| row.get(0))
            .unwrap();
        let copy =
            format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}");
        connection.execute_batch(&copy).unwrap();
    }
    connection.execute_batch(TOTPS).unwrap();
    connection.execute_batch("DETACH new").unwrap();
    drop(connection);
    for name in ["totpd.db", "totpd.db-wal", "totpd.db-shm"] {
        let _gone = fs::remove_file(data.join(name));
    }
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(old, database).unwrap();
}
