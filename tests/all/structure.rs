//! totpd opens only databases with its own schema, even if the file was written by another program. SECURITY.md 46.

use std::fs;
use std::path::Path;

use crate::binary::{Home, enrolled};
use crate::harness::Client;

/// Changes that an attacker with write access to the file could make, and the message for each.
const CHANGES: [(&str, &str); 14] = [
    ("DROP TABLE failure", "the table failure is missing"),
    (
        "DROP TABLE username; DROP TABLE failure",
        "the table username is missing",
    ),
    ("DROP INDEX user_state", "the index user_state is missing"),
    (
        "CREATE TRIGGER again AFTER DELETE ON totp BEGIN
            INSERT INTO totp SELECT * FROM kept; END",
        "trigger \"again\"",
    ),
    (
        "CREATE TRIGGER deaf BEFORE UPDATE ON totp BEGIN SELECT RAISE(IGNORE); END",
        "trigger \"deaf\"",
    ),
    (
        "CREATE VIEW seen AS SELECT secret FROM totp",
        "view \"seen\"",
    ),
    ("CREATE TABLE kept (n)", "table \"kept\""),
    // Written into the schema directly, because SQLite may be built without this module here.
    (
        "PRAGMA writable_schema = 1; INSERT INTO sqlite_schema
            VALUES ('table', 'searched', 'searched', 0, 'CREATE VIRTUAL TABLE searched USING fts5(n)')",
        "\"searched",
    ),
    ("ALTER TABLE totp ADD COLUMN more TEXT", "table totp"),
    ("ALTER TABLE user DROP COLUMN schema_id", "table user"),
    (
        "PRAGMA writable_schema = 1;
         UPDATE sqlite_schema SET sql = replace(sql, 'ON DELETE CASCADE', '') WHERE name = 'failure'",
        "table failure",
    ),
    ("PRAGMA user_version = -1", "version -1"),
    (
        "UPDATE instance SET last_id = 9223372036854775807",
        "end of their range",
    ),
    (
        "INSERT INTO event (id, at, kind, actor) VALUES (9223372036854775807, 1, 'x', 'x')",
        "numbers that totpd never gives",
    ),
];

fn change(file: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn a_backup_that_is_not_as_totpd_makes_it_is_not_restored() {
    let (home, _) = Home::init();
    let (alice, _) = enrolled(&home);
    let backup = home.dir.path().join("backup");
    home.json(&["backup", backup.to_str().unwrap()]);
    home.json(&["totp", "remove", &alice, "--all"]);
    let database = fs::read(home.data().join("totpd.db")).unwrap();
    let changed = home.dir.path().join("changed");
    let name = changed.to_str().unwrap();
    let restore = ["restore", name, "--force", "--accept-loss"];
    for (sql, told) in CHANGES {
        fs::copy(&backup, &changed).unwrap();
        change(&changed, sql);
        home.refuses(&restore, 1, told);
        home.refuses(&restore, 1, name);
    }
    assert_eq!(fs::read(home.data().join("totpd.db")).unwrap(), database);
    home.json(&["doctor"]);
    fs::copy(&backup, &changed).unwrap();
    home.json(&restore);
}

#[test]
fn a_database_that_is_not_as_totpd_makes_it_is_not_opened() {
    let (home, _) = Home::init();
    enrolled(&home);
    let database = home.data().join("totpd.db");
    let good = fs::read(&database).unwrap();
    for (sql, told) in CHANGES {
        fs::write(&database, &good).unwrap();
        change(&database, sql);
        home.refuses(&["user", "list"], 1, told);
        home.refuses(&["serve", "--listen", "127.0.0.1:0"], 1, told);
        let examined = home.run(&["doctor"]);
        assert_eq!(examined.status.code(), Some(1), "{sql}");
        let examined = String::from_utf8(examined.stdout).unwrap();
        let is_told = |it: &str| it.starts_with("wrong database") && it.contains(told);
        assert!(examined.lines().any(is_told), "{sql}: {examined}");
    }
    fs::write(&database, &good).unwrap();
    home.json(&["user", "list"]);
}

/// A trigger added while the database is open does not run either.
#[test]
fn a_trigger_that_comes_later_does_not_run() {
    let (home, token) = Home::init();
    let (alice, phone) = enrolled(&home);
    let server = home.serve(&[]);
    change(
        &home.data().join("totpd.db"),
        "CREATE TRIGGER deaf BEFORE DELETE ON totp BEGIN SELECT RAISE(IGNORE); END",
    );
    let removal = format!("/users/{alice}/totp/{}", phone.id);
    server
        .ask(&token, "DELETE", &removal, "")
        .expect_status(200);
    let user = server.ask(&token, "GET", &format!("/users/{alice}"), "");
    let user = user.expect_status(200).json();
    assert_eq!(user.pointer("/user/authenticators/totps"), None, "{user}");
    server.kill();
}

/// Contract §5: a server that cannot answer any call is not ready.
#[test]
fn a_server_whose_table_goes_is_not_ready() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let ready = || {
        let answer = Client::connect(&server.address).ask("GET", "/debug/ready", "", b"");
        answer.status
    };
    assert_eq!(ready(), 200);
    let database = home.data().join("totpd.db");
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'failure'";
    let connection = rusqlite::Connection::open(&database).unwrap();
    let table: String = connection.query_row(sql, (), |row| row.get(0)).unwrap();
    connection.execute_batch("DROP TABLE failure").unwrap();
    // The result of a probe is shared for a fifth of a second.
    let until = |status: u16| {
        crate::wait::until("another answer", || ready() == status);
    };
    until(503);
    let examined = home.run(&["doctor"]);
    assert_eq!(examined.status.code(), Some(1));
    connection.execute_batch(&table).unwrap();
    until(200);
}
