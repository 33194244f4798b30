//! Backups, restoring them, and the doctor. SECURITY.md 32.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use totpd::model::{Timestamp, UserId};
use totpd::service::{Context, DataDir, KeyFile, NewToken, RestoreOptions, Role, Verdict};

use crate::binary::Home;
use crate::harness::{Phone, tidy};
use crate::node::{FORCE, Node, START_S};

const LOSS: RestoreOptions = RestoreOptions {
    replace: false,
    accept_loss: true,
};

/// SECURITY.md 32
#[test]
fn no_code_that_was_good_before_a_restore_is_good_after_it() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    let pending = node.begin(&alice);
    let backup = node.back_up("backup");
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let next = phone.code_of(node.now, 1);
    assert!(matches!(
        node.check(&alice, &next),
        Ok(Verdict::Accepted(_))
    ));

    let mut other = node.elsewhere();
    let refused = other
        .restore(&backup, RestoreOptions::default())
        .unwrap_err();
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
    assert!(!other.file("totpd.db").exists(), "nothing was changed");
    let restored = other.restore(&backup, LOSS).unwrap();
    assert!(restored.has_loss);
    for offset in -1..=1 {
        let code = phone.code_of(other.now, offset);
        assert_eq!(
            other.check(&alice, &code).unwrap(),
            Verdict::Used,
            "{offset}"
        );
        let code = pending.code_of(other.now, offset);
        let confirmed = other.confirm(&alice, &pending, &code).unwrap();
        assert_eq!(confirmed, Verdict::Used, "{offset}");
    }
    other.pass_seconds(30);
    let code = phone.code_of(other.now, 1);
    assert!(matches!(
        other.check(&alice, &code),
        Ok(Verdict::Accepted(_))
    ));
    assert!(other.is_content());
}

/// SECURITY.md 32: restoring a backup undoes nothing that the replaced database knows, even through another backup.
#[test]
fn what_ended_after_the_backup_stays_ended_when_it_replaces_the_database() {
    let mut node = Node::new();
    let (alice, bob, carol) = (node.user("alice"), node.user("bob"), node.user("carol"));
    let (phone, kept) = (node.enrol(&alice), node.enrol(&alice));
    let context = Context::command_line(node.now);
    let new = || NewToken {
        role: Role::Admin,
        name: None,
        lifetime: None,
    };
    let (ends, ended) = node.service().create_token(&context, new()).unwrap();
    let (_, stays) = node.service().create_token(&context, new()).unwrap();
    let first = node.back_up("first");
    let late = node.enrol(&alice);
    let second = node.back_up("second");

    node.remove(&alice, &phone);
    node.remove(&alice, &late);
    node.service().revoke_token(&context, ends).unwrap();
    node.remove_user(&bob);
    node.remove_user(&carol);
    node.pass_seconds(1);
    node.user("carol");
    for _ in 0..7 {
        let _refused = node.check(&alice, &kept.wrong_at(node.now)).unwrap();
    }

    let refused = node.restore(&first, RestoreOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    for (backup, totps) in [(&first, 1), (&second, 1), (&first, 0)] {
        let restored = node.restore(backup, FORCE).unwrap();
        assert!(!restored.has_loss);
        // The first restore applied these removals. The later restores find them in its database.
        assert_eq!(restored.applied_again.users, 2, "{restored:?}");
        assert_eq!(restored.applied_again.tokens, 1, "{restored:?}");
        assert!(restored.applied_again.totps >= totps, "{restored:?}");
        assert_eq!(node.totps(&alice), [kept.id.as_str()]);
        assert!(!node.has_user(&bob));
        assert!(
            node.service()
                .authenticate(ended.reveal(), node.now)
                .is_err()
        );
        assert!(
            node.service()
                .authenticate(stays.reveal(), node.now)
                .is_ok()
        );
        let waits = node.check(&alice, &kept.code_of(node.now, 1)).unwrap();
        assert!(matches!(waits, Verdict::Wait { .. }), "the wait goes on");
        assert!(node.is_content());
    }
    let left_behind = fs::metadata(node.file("totpd.db.unfinished"));
    assert!(left_behind.is_err());
}

/// If a user's id was reused after the removal, the new user is a different one and stays.
#[test]
fn a_user_who_came_after_a_removal_is_not_removed_by_it() {
    let mut node = Node::new();
    let bob = node.user("bob");
    let before = node.back_up("before");
    node.pass_seconds(1);
    node.remove_user(&bob);
    node.pass_seconds(1);
    node.user("bob");
    let after = node.back_up("after");
    node.restore(&before, FORCE).unwrap();
    assert!(!node.has_user(&bob), "removed after this backup");
    node.restore(&after, FORCE).unwrap();
    assert!(node.has_user(&bob), "made after the removal");

    // The same, if the backup's record of the removal has expired and the database still has one.
    node.remove_user(&bob);
    let between = node.back_up("between");
    node.pass_seconds(86_400);
    node.user("bob");
    let keep = Duration::from_hours(1);
    tidy(node.service(), keep, node.now);
    let forgotten = node.back_up("forgotten");
    let both = RestoreOptions {
        replace: true,
        accept_loss: true,
    };
    node.restore(&between, both).unwrap();
    assert!(!node.has_user(&bob));
    node.restore(&forgotten, both).unwrap();
    assert!(node.has_user(&bob), "made after the removal");
}

#[test]
fn a_database_that_cannot_vouch_for_what_happened_since_needs_a_word() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    let backup = node.back_up("backup");
    node.remove(&alice, &phone);
    let garble = |node: &mut Node| {
        node.service = None;
        fs::write(node.file("totpd.db"), "x".repeat(9_000)).unwrap();
    };
    let forget = |node: &mut Node| {
        node.pass_seconds(86_400);
        node.user("late");
        let keep = Duration::from_hours(1);
        tidy(node.service(), keep, node.now);
    };
    let kept = node.user("kept");
    node.enrol(&kept);
    for spoil in [&forget as &dyn Fn(&mut Node), &garble] {
        spoil(&mut node);
        let refused = node.restore(&backup, FORCE).unwrap_err();
        assert!(refused.to_string().contains("--accept-loss"), "{refused}");
    }
    let both = RestoreOptions {
        replace: true,
        accept_loss: true,
    };
    assert!(node.restore(&backup, both).unwrap().has_loss);
    assert_eq!(node.totps(&alice), [phone.id.as_str()]);

    // No other backup contains the records that were lost by then. All later records are complete.
    let refused = node.restore(&backup, FORCE).unwrap_err();
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
    node.pass_seconds(1);
    let later = node.user("later");
    let whole = node.back_up("whole");
    node.remove_user(&later);
    assert!(!node.restore(&whole, FORCE).unwrap().has_loss);
    assert!(!node.has_user(&later));

    // Removals recorded in another instance do not count for this one.
    let mut other = Node::new();
    fs::copy(node.file("master.key"), other.file("master.key")).unwrap();
    let refused = other.restore(&backup, FORCE).unwrap_err();
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
}

#[test]
fn what_is_no_backup_of_ours_is_refused_and_nothing_is_changed() {
    let mut node = Node::new();
    let alice = node.user("alice");
    node.enrol(&alice);
    let backup = node.back_up("backup");
    let refused = node.service().back_up(&backup).unwrap_err();
    assert!(refused.to_string().contains("already"), "{refused}");
    let bytes = fs::read(&backup).unwrap();
    let with = |sql: &str| {
        let file = node.dir.path().join("changed");
        fs::write(&file, &bytes).unwrap();
        rusqlite::Connection::open(&file)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        fs::read(&file).unwrap()
    };
    let damaged = with(
        "PRAGMA writable_schema = 1; PRAGMA foreign_keys = 0;
         UPDATE totp SET user_id = 'nobody'",
    );
    let mut torn = bytes.clone();
    let middle = torn.len() / 2 / 4096 * 4096;
    torn[middle..].fill(0xA5);
    let mut other = node.elsewhere();
    for (content, told) in [
        (with("PRAGMA application_id = 7"), "not totpd's"),
        (with("PRAGMA user_version = 99"), "newer totpd"),
        (
            with("UPDATE instance SET key_id = zeroblob(8)"),
            "not the master key",
        ),
        (damaged, "refers to nothing"),
        (torn, ""),
        (bytes[..bytes.len() / 2].to_vec(), ""),
        (b"a letter to the landlord".repeat(500), "not a database"),
        (Vec::new(), "not totpd's"),
    ] {
        let file = other.file("file");
        fs::write(&file, content).unwrap();
        let refused = other.restore(&file, LOSS).unwrap_err().to_string();
        assert!(refused.contains(told), "{told}: {refused}");
        assert!(!refused.contains("unfinished"), "{told}: {refused}");
        assert!(!other.file("totpd.db").exists(), "{told}");
        assert!(!other.file("totpd.db.unfinished").exists(), "{told}");
    }
    let missing = other.restore(Path::new("/nowhere/at/all"), LOSS);
    assert!(missing.is_err());
    fs::remove_file(other.file("master.key")).unwrap();
    let refused = other.restore(&backup, LOSS).unwrap_err().to_string();
    assert!(refused.contains("master key is missing"), "{refused}");
    let held = DataDir::open_exclusive(node.dir.path(), KeyFile::InDataDir).err();
    assert!(held.unwrap().to_string().contains("stop it first"));
}

/// A backup contains every change that was acknowledged before it began, whatever else is running.
#[test]
fn a_backup_under_load_is_one_whole_moment() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let before = node.enrol(&alice);
    node.remove(&alice, &before);
    let users: Vec<_> = (0..200).map(|it| node.user(&format!("u{it}"))).collect();
    let (removed, rest) = users.split_at(100);
    thread::scope(|scope| {
        for part in removed.chunks(25) {
            let node = &node;
            scope.spawn(move || part.iter().for_each(|it| node.remove_user(it)));
        }
        node.back_up("backup");
    });
    let mut other = node.elsewhere();
    other.restore(&node.file("backup"), LOSS).unwrap();
    assert!(other.is_content());
    assert!(other.totps(&alice).is_empty());
    assert!(rest.iter().all(|it| other.has_user(it)));
    let database = rusqlite::Connection::open(other.file("totpd.db")).unwrap();
    let count = |sql: &str| -> i64 { database.query_row(sql, (), |row| row.get(0)).unwrap() };
    assert_eq!(
        count("SELECT count(*) FROM user"),
        201 - count("SELECT count(*) FROM event WHERE kind = 'user.removed'"),
        "row and event are of one moment"
    );
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let mut node = Node::new();
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    node.enrol(&alice);
    node.enrol(&bob);
    assert!(node.is_content());
    let sql = |node: &Node, sql: &str| {
        rusqlite::Connection::open(node.file("totpd.db"))
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    };
    sql(
        &node,
        "UPDATE slot SET secret = (
            SELECT secret FROM slot WHERE number = (SELECT slot FROM totp WHERE user_id = 'bob'))",
    );
    assert!(
        node.complaint("secrets")
            .starts_with("the database: 1 of 2 secrets do not open")
    );
    let later = node.now;
    node.now = Timestamp::from_seconds(START_S - 2_000);
    assert!(node.complaint("clock").contains("set it"));
    node.now = later;
    node.service = None;
    fs::set_permissions(node.file("totpd.db"), Permissions::from_mode(0o644)).unwrap();
    assert!(node.complaint("files").contains("chmod 600"));
    fs::set_permissions(node.dir.path(), Permissions::from_mode(0o755)).unwrap();
    assert!(node.complaint("files").contains("chmod 700"));
    assert!(node.complaint("database").contains("not opened"));
    fs::set_permissions(node.file("totpd.db"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(node.dir.path(), Permissions::from_mode(0o700)).unwrap();
    let key = fs::read(node.file("master.key")).unwrap();
    fs::write(node.file("master.key"), [7; 32]).unwrap();
    assert!(node.complaint("master key").contains("not the master key"));
    fs::remove_file(node.file("master.key")).unwrap();
    assert!(node.complaint("master key").contains("put the file back"));
    fs::write(node.file("master.key"), key).unwrap();
    fs::set_permissions(node.file("master.key"), Permissions::from_mode(0o600)).unwrap();
    sql(
        &node,
        "PRAGMA foreign_keys = 0; DELETE FROM user WHERE id = 'bob'",
    );
    assert!(node.complaint("database").contains("restore a backup"));
    fs::File::options()
        .write(true)
        .open(node.file("totpd.db"))
        .unwrap()
        .set_len(5_000)
        .unwrap();
    assert!(!node.complaint("database").is_empty());
    fs::File::create(node.file("totpd.db-wal"))
        .unwrap()
        .set_len(65 << 20)
        .unwrap();
    assert!(node.complaint("log").contains("65 MiB"));
}

/// The commands themselves, while a server is running.
#[test]
fn backup_restore_and_doctor_are_commands() {
    let (home, token) = Home::init();
    let (alice, phone) = crate::binary::enrolled(&home);
    let server = home.serve(&[]);
    let file = home.dir.path().join("backup");
    let name = file.to_str().unwrap();
    let backup = home.json(&["backup", name]);
    assert_eq!(backup["bytes"], fs::metadata(&file).unwrap().len());
    home.refuses(&["backup", name], 1, "already");
    let path = format!("/users/{alice}/totp/{}", phone.id);
    server.ask(&token, "DELETE", &path, "").expect_status(200);
    home.refuses(&["restore", name, "--force"], 1, "stop it first");
    assert_eq!(server.terminate().0, 0);
    home.refuses(&["restore", name], 1, "--force");
    let restored = home.json(&["restore", name, "--force"]);
    assert_eq!(restored["appliedAgain"]["totps"], 1);
    assert_eq!(restored["asOf"], backup["asOf"]);
    assert!(restored.get("undoneSince").is_none());
    let found = home.json(&["doctor"]);
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 9);
    for it in found {
        assert_eq!(it.as_object().unwrap().len(), 3, "{it}");
        let level = it["level"].as_str().unwrap();
        assert!(["ok", "warn"].contains(&level), "{it}");
    }

    fs::set_permissions(home.data(), Permissions::from_mode(0o755)).unwrap();
    let output = home.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("wrong files"), "{told}");
}

/// A copy restored from a backup does not know the later history of the original.
#[test]
fn a_database_vouches_for_its_own_history_alone() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    let mut standby = node.elsewhere();
    standby.restore(&node.back_up("first"), LOSS).unwrap();

    node.pass_seconds(60);
    node.user("bob");
    let second = node.back_up("second");
    node.remove(&alice, &phone);
    standby.now = node.now;
    let refused = standby.restore(&second, FORCE).unwrap_err();
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
}

/// SECURITY.md 6, 31, 32: the clock went back, and then something was restored.
#[test]
fn a_restore_with_a_clock_set_back_reopens_nothing() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let (phone, other) = (node.enrol(&alice), node.enrol(&alice));
    let backup = node.back_up("backup");
    node.pass_seconds(800);
    let (code, later) = (phone.code_at(node.now), node.now);
    assert!(matches!(
        node.check(&alice, &code),
        Ok(Verdict::Accepted(_))
    ));
    node.remove(&alice, &other);

    node.now = Timestamp::from_seconds(START_S + 90);
    node.restore(&backup, FORCE).unwrap();
    node.now = later;
    assert_eq!(node.check(&alice, &code).unwrap(), Verdict::Used);

    node.pass_seconds(86_400);
    let other = node.enrol(&alice);
    node.remove(&alice, &other);
    node.now = later;
    let refused = node.restore(&backup, FORCE).unwrap_err();
    assert!(refused.to_string().contains("the clock"), "{refused}");
    let both = RestoreOptions {
        replace: true,
        accept_loss: true,
    };
    assert!(node.restore(&backup, both).unwrap().has_loss);
}

/// The WAL that a crash during `init` left beside the unfinished database is not applied to a backup.
#[test]
fn a_log_that_a_crash_left_does_not_meet_a_backup() {
    let node = Node::new();
    let alice = node.user("alice");
    let backup = node.back_up("backup");
    let mut other = node.elsewhere();
    let path = other.file("totpd.db.unfinished");
    let crashed = rusqlite::Connection::open(&path).unwrap();
    let write = "PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (7);";
    crashed.execute_batch(write).unwrap();
    let log = other.file("totpd.db.unfinished-wal");
    let bytes = fs::read(&log).unwrap();
    drop(crashed);
    fs::write(&log, bytes).unwrap();

    other.restore(&backup, LOSS).unwrap();
    assert!(other.has_user(&alice) && other.is_content());
    assert!(!log.exists());
}

const AHEAD: Duration = Duration::from_hours(30 * 24);
const BOTH: RestoreOptions = RestoreOptions {
    replace: true,
    accept_loss: true,
};

/// A node with one backup from before its clock was ahead and one from that time, corrected since. Returns the
/// backups, the user, the phone, and the moment ahead at which its code was accepted.
fn put_right() -> (Node, [PathBuf; 2], UserId, Phone, Timestamp) {
    let mut node = Node::new();
    let alice = node.user("alice");
    let (phone, gone) = (node.enrol(&alice), node.enrol(&alice));
    let before = node.back_up("before");
    let right = node.now;
    node.now = right.after(AHEAD);
    let then = node.now;
    let used = node.check(&alice, &phone.code_at(then)).unwrap();
    assert!(matches!(used, Verdict::Accepted(_)));
    let dave = node.user("dave");
    let ahead = node.back_up("ahead");
    node.now = right.after(Duration::from_hours(1));
    let fixed = node.service().fix_clock(&node.context());
    assert_eq!(fixed.unwrap().totps, 1);
    node.pass_seconds(3_600);
    node.remove(&alice, &gone);
    node.remove_user(&dave);
    (node, [before, ahead], alice, phone, then)
}

/// Asserts that no used code is accepted, now or when its time comes again, and that all others are.
fn expect_used(node: &mut Node, alice: &UserId, phone: &Phone, then: Timestamp) {
    assert!(node.is_content());
    for offset in -1..=1 {
        let code = phone.code_of(node.now, offset);
        assert_eq!(node.check(alice, &code).unwrap(), Verdict::Used, "{offset}");
    }
    node.pass_seconds(60);
    let good = node.check(alice, &phone.code_at(node.now)).unwrap();
    assert!(matches!(good, Verdict::Accepted(_)), "{good:?}");
    let right = node.now;
    node.now = then;
    assert_eq!(
        node.check(alice, &phone.code_at(then)).unwrap(),
        Verdict::Used
    );
    node.now = right;
}

/// SECURITY.md 32, 35
#[test]
fn a_backup_that_is_dated_ahead_is_put_right_while_it_is_restored() {
    let (mut node, [before, ahead], alice, phone, then) = put_right();
    for backup in [&ahead, &ahead, &before] {
        let restored = node.restore(backup, FORCE).unwrap();
        assert!(!restored.has_loss, "{restored:?}");
        assert!(!node.has_user(&"dave".parse().unwrap()), "removed since");
        assert_eq!(node.totps(&alice), [phone.id.as_str()]);
        expect_used(&mut node, &alice, &phone, then);
    }
    // The database restored from the other backup has no record of the time ahead.
    let refused = node.restore(&ahead, FORCE).unwrap_err();
    assert!(refused.to_string().contains("the clock"), "{refused}");
}

/// SECURITY.md 35: the dates of the backup are no longer in the future, and they are still wrong.
#[test]
fn a_backup_that_was_dated_ahead_is_put_right_when_its_time_has_come() {
    let (mut node, [_, ahead], alice, phone, then) = put_right();
    node.now = then.after(AHEAD);
    let restored = node.restore(&ahead, FORCE).unwrap();
    assert!(!restored.has_loss, "{restored:?}");
    assert!(!node.has_user(&"dave".parse().unwrap()), "removed since");
    assert_eq!(node.totps(&alice), [phone.id.as_str()]);
}

/// SECURITY.md 35: without a record that the clock was ahead, the present clock may as well be the wrong one.
#[test]
fn a_backup_that_is_ahead_of_all_that_is_known_needs_a_word() {
    let (mut node, [before, ahead], alice, phone, then) = put_right();
    let mut other = node.elsewhere();
    let refused = other
        .restore(&ahead, RestoreOptions::default())
        .unwrap_err();
    assert!(refused.to_string().contains("the clock"), "{refused}");
    assert!(refused.to_string().contains("--accept-loss"), "{refused}");
    assert!(!other.file("totpd.db").exists(), "nothing was changed");
    other.restore(&ahead, LOSS).unwrap();
    expect_used(&mut other, &alice, &phone, then);

    // The newest recorded time is ahead and was not corrected.
    node.now = then;
    node.user("erin");
    node.now = then.before(AHEAD).after(Duration::from_hours(2));
    let refused = node.restore(&before, FORCE).unwrap_err().to_string();
    assert!(refused.contains("totpd doctor --fix clock"), "{refused}");
    assert!(node.restore(&before, BOTH).unwrap().has_loss);
}
