//! Which structures are accepted and which are refused (SECURITY.md 46).

use super::*;

fn fresh() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection
}

fn check(connection: &Connection) -> Result<()> {
    require_tables_and_indexes(connection, Path::new("x"))?;
    require(connection, Path::new("x"))
}

/// Changes a statement in the schema table, as any program that writes the file can.
fn rewritten(table: &str, from: &str, to: &str) -> Connection {
    let connection = fresh();
    let sql: String = connection
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE name = ?1",
            (table,),
            |row| row.get(0),
        )
        .unwrap();
    assert!(sql.contains(from), "{sql}");
    connection
        .execute_batch("PRAGMA writable_schema = 1")
        .unwrap();
    let update = "UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1";
    let changed = connection.execute(update, (table, sql.replacen(from, to, 1)));
    assert_eq!(changed.unwrap(), 1);
    connection
}

/// SECURITY.md 46
#[test]
fn the_same_structure_is_accepted_however_it_is_written() {
    check(&fresh()).unwrap();
    for (table, from, to) in [
        ("user", "CREATE TABLE user", "CREATE TABLE \"user\""),
        (
            "username",
            "REFERENCES user (id)",
            "references \"user\"(id)",
        ),
        ("user_state", "ON user (", "ON \"user\"("),
        (
            "failure",
            "in_a_row  INTEGER",
            "/* how many */ in_a_row\tinteger -- so\n",
        ),
        (
            "organization",
            "created INTEGER NOT NULL",
            "created INTEGER NOT NULL--",
        ),
    ] {
        check(&rewritten(table, from, to)).unwrap();
    }
    let connection = rewritten(
        "organization",
        "    id      TEXT    PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),\n",
        "",
    );
    let sql = "UPDATE sqlite_schema SET sql = replace(sql, 'created INTEGER NOT NULL',
        'created INTEGER NOT NULL, id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200)')
        WHERE name = 'organization'";
    connection.execute(sql, ()).unwrap();
    check(&connection).unwrap();
}

/// SECURITY.md 46
#[test]
fn another_structure_is_refused() {
    for (table, from, to) in [
        ("failure", "ON DELETE CASCADE", ""),
        ("failure", "STRICT, WITHOUT ROWID", "WITHOUT ROWID"),
        (
            "failure",
            ") STRICT, WITHOUT ROWID",
            ", STRICT) WITHOUT ROWID",
        ),
        ("failure", "CHECK (in_a_row > 0)", "CHECK (in_a_row > 00)"),
        ("failure", "CHECK (in_a_row > 0)", "CHECK (in_a_row > '0')"),
        ("failure", "CHECK (in_a_row > 0)", ""),
        (
            "failure",
            "NOT NULL PRIMARY KEY",
            "NOT NULL PRIMARY KEY ON CONFLICT IGNORE",
        ),
        (
            "token",
            "NOT NULL UNIQUE",
            "NOT NULL UNIQUE ON CONFLICT REPLACE",
        ),
        ("user", "DEFAULT 'active'", "DEFAULT 'locked'"),
        ("user", "'active', 'inactive'", "\"active\", 'inactive'"),
        ("user", "'active', 'inactive'", "'Active', 'inactive'"),
        ("user", "data IS NULL", "data IS \"NULL\""),
        (
            "user",
            "REFERENCES organization (id)",
            "REFERENCES user (id)",
        ),
        ("user_state", "(state, created)", "(state, created DESC)"),
        ("user_state", "(state, created)", "(created, state)"),
        ("totp_pending", "WHERE state = 'pending'", ""),
        ("user", ") STRICT", ") -- \0\n STRICT"),
        ("user", "id        TEXT", "id        TEXT COLLATE NOCASE"),
    ] {
        let refused = check(&rewritten(table, from, to)).unwrap_err().to_string();
        assert!(refused.contains(table), "{from} -> {to}: {refused}");
    }
}

/// SECURITY.md 46
#[test]
fn what_is_added_or_missing_is_refused() {
    for (sql, told) in [
        ("CREATE TABLE more (n)", "table \"more\""),
        ("CREATE INDEX more ON user (data)", "index \"more\""),
        ("CREATE VIEW more AS SELECT 1", "view \"more\""),
        (
            "CREATE TRIGGER more AFTER DELETE ON totp BEGIN SELECT 1; END",
            "trigger \"more\"",
        ),
        (
            "PRAGMA writable_schema = 1; INSERT INTO sqlite_schema
                VALUES ('table', 'more', 'more', 0, 'CREATE VIRTUAL TABLE more USING fts5(n)')",
            "\"more\"",
        ),
        ("DROP TABLE failure", "the table failure is missing"),
        ("DROP INDEX user_state", "the index user_state is missing"),
        ("ANALYZE", "sqlite_stat1"),
        (
            "ALTER TABLE user ADD COLUMN more TEXT",
            "the table user is another one",
        ),
        (
            "ALTER TABLE user DROP COLUMN schema_id",
            "the table user is another one",
        ),
    ] {
        let connection = fresh();
        connection.execute_batch(sql).unwrap();
        let refused = check(&connection).unwrap_err().to_string();
        assert!(refused.contains(told), "{sql}: {refused}");
        let read = ReadTx {
            connection: &connection,
            deadline: None,
        };
        assert!(read.require_structure().is_err(), "{sql}");
    }
}

/// SECURITY.md 46
#[test]
fn ids_at_the_end_of_their_range_are_refused() {
    const EVENT: &str = "INSERT INTO event (id, at, kind, actor) VALUES";
    const INSTANCE: &str =
        "INSERT INTO instance (one, id, issuer, window_steps, key_id, last_id, probed_at)
        VALUES (1, '1', 'T', 1, zeroblob(8),";
    for (sql, is_accepted) in [
        (format!("{EVENT} (1, 1, 'x', 'x')"), true),
        (format!("{EVENT} ({HIGHEST_ID}, 1, 'x', 'x')"), true),
        (format!("{EVENT} ({}, 1, 'x', 'x')", HIGHEST_ID + 1), false),
        (format!("{EVENT} ({}, 1, 'x', 'x')", i64::MAX), false),
        (format!("{EVENT} (0, 1, 'x', 'x')"), false),
        (format!("{EVENT} (-1, 1, 'x', 'x')"), false),
        (format!("{INSTANCE} {HIGHEST_ID}, 0)"), true),
        (format!("{INSTANCE} {}, 0)", i64::MAX), false),
        (
            format!(
                "INSERT INTO organization (rowid, id, name, created) VALUES ({}, 'o', 'o', 1)",
                i64::MAX
            ),
            false,
        ),
    ] {
        let connection = fresh();
        connection.execute_batch(&sql).unwrap();
        assert_eq!(check(&connection).is_ok(), is_accepted, "{sql}");
    }
}
