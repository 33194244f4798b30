//! A rotation of the master key can be killed at any point, and no check fails while it runs. SECURITY.md 43.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;
use rusqlite::Connection;
use rusqlite::types::ToSql;
use tempfile::TempDir;
use totpd::error::Error;
use totpd::model::{Clock, Timestamp};
use totpd::service::{Caller, DataDir, KeyFile, Role, Service};

use crate::binary::{Home, Server, now};
use crate::faults::enrolled;
use crate::forensics::{Sought, sealed_secrets, search};
use crate::harness::{Client, Phone, TestServer, even};

type Key = [u8; 32];

fn key_of(home: &Home) -> Key {
    read_key(&home.data().join("master.key"))
}

fn read_key(path: &Path) -> Key {
    fs::read(path).unwrap().try_into().unwrap()
}

/// The id of a key, as the database stores it.
fn id_of(key: &Key) -> Vec<u8> {
    let text = [b"totpd master key id", key.as_slice()].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    digest.as_ref()[..8].to_vec()
}

fn database(home: &Home) -> Connection {
    Connection::open(home.data().join("totpd.db")).unwrap()
}

fn count(home: &Home, sql: &str) -> i64 {
    database(home).query_row(sql, (), |row| row.get(0)).unwrap()
}

/// Users with one authenticator each.
struct Users {
    names: Vec<String>,
    phones: Vec<Phone>,
}

impl Users {
    fn enrol(home: &Home, count: usize) -> Self {
        let names: Vec<_> = (0..count).map(|it| format!("u{it}")).collect();
        let phones = enrolled(home, &names);
        Self { names, phones }
    }

    /// Their secrets, as the files hold them now.
    fn sought(&self, dir: &Path) -> Vec<Sought> {
        let mut sealed = sealed_secrets(&dir.join("totpd.db"));
        let mut of = |(user, phone): (&String, &Phone)| Sought {
            user: user.clone(),
            totp: phone.id.clone(),
            secret: BASE32_NOPAD
                .decode(phone.secret.base32().as_bytes())
                .unwrap(),
            sealed: sealed.remove(&phone.id).unwrap(),
        };
        self.names.iter().zip(&self.phones).map(&mut of).collect()
    }

    /// Asserts that each secret opens: its code is accepted, or was used earlier.
    fn expect_good(&self, address: &str, token: &str, offset: i64) {
        let mut client = Client::connect(address);
        for (user, phone) in self.names.iter().zip(&self.phones) {
            let code = phone.code_of(now(), offset);
            expect_good_or_used(&mut client, token, user, &code);
        }
    }
}

fn expect_good_or_used(client: &mut Client, token: &str, user: &str, code: &str) {
    let target = format!("/resources/v3alpha/users/{user}/totp/_check");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let answer = client.ask("POST", &target, &bearer, format!("\"{code}\"").as_bytes());
    if answer.status != 200 {
        answer.expect_error(400, 3, Some("TOTPD-Used1"));
    }
}

/// Asserts that `old` opens nothing in any file, and that the new key opens each secret.
fn expect_sealed_anew(home: &Home, old: &Key, before: &[Sought], users: &Users) {
    let found = search(&home.data(), old, before);
    assert!(found.is_nothing(), "under the old key: {found:?}");
    let found = search(&home.data(), &key_of(home), &users.sought(&home.data()));
    // There may be more copies, because the WAL holds copies of pages.
    assert!(found.vouched_for >= users.names.len(), "{found:?}");
}

#[test]
fn a_rotation_beside_a_server_seals_every_secret_anew() {
    let (home, token) = Home::init();
    let users = Users::enrol(&home, 40);
    let (old, before) = (key_of(&home), users.sought(&home.data()));
    let found = search(&home.data(), &old, &before);
    assert_eq!(found.vouched_for, 40, "the search finds what is there");
    let server = home.serve(&[]);
    users.expect_good(&server.address, &token, -1);

    let rotated = home.json(&["key", "rotate"]);
    assert_eq!(rotated["secrets"], 40, "{rotated}");
    assert_eq!(rotated["wasUnfinished"], false);
    assert_ne!(key_of(&home), old);
    assert!(!home.data().join("master.key.next").exists());
    expect_sealed_anew(&home, &old, &before, &users);
    for kind in ["started", "rotated"] {
        let name = if kind == "started" {
            "key_rotation_started"
        } else {
            "key_rotated"
        };
        let sql = format!("SELECT count(*) FROM event WHERE kind = 'instance.{name}'");
        assert_eq!(count(&home, &sql), 1, "{kind}");
    }

    users.expect_good(&server.address, &token, 0);
    let started = server.ask(&token, "POST", "/users/u0/totp", "");
    started.expect_status(200);
    let told = home.json(&["doctor"]);
    let is_ok = |it: &serde_json::Value| it["level"] == "ok" || it["check"] == "space";
    assert!(told.as_array().unwrap().iter().all(is_ok), "{told}");
    assert_eq!(server.terminate().0, 0);
    let server = home.serve(&[]);
    users.expect_good(&server.address, &token, 1);
    server.kill();
}

/// The files before and after a rotation. The intermediate states are made from these.
struct Rotated {
    _dirs: [TempDir; 2],
    before: PathBuf,
    after: PathBuf,
    old: Key,
    new: Key,
    slots: HashMap<i64, Vec<u8>>,
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    set_mode(to, 0o700);
    for name in ["totpd.db", "master.key"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn slots(database: &Connection) -> HashMap<i64, Vec<u8>> {
    let mut statement = database.prepare("SELECT number, secret FROM slot").unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// A moment at which a rotation can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    PartOfKey,
    Key,
    Named,
    HalfSealed,
    AllSealed,
    Ended,
}

impl Rotated {
    fn of(home: &Home) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (before, after) = (dirs[0].path().join("d"), dirs[1].path().join("d"));
        copy_dir(&home.data(), &before);
        let (old, slots) = (key_of(home), slots(&database(home)));
        home.json(&["key", "rotate"]);
        copy_dir(&home.data(), &after);
        Self {
            _dirs: dirs,
            before,
            after,
            old,
            new: key_of(home),
            slots,
        }
    }

    fn make(&self, state: State) -> Home {
        let home = Home {
            dir: tempfile::tempdir().unwrap(),
        };
        let is_sealed = !matches!(state, State::PartOfKey | State::Key | State::Named);
        copy_dir(
            if is_sealed { &self.after } else { &self.before },
            &home.data(),
        );
        let write = |name: &str, bytes: &[u8]| {
            let path = home.data().join(name);
            fs::write(&path, bytes).unwrap();
            set_mode(&path, 0o600);
        };
        write("master.key", &self.old);
        if state == State::PartOfKey {
            write("master.key.next.unfinished", &self.new[..7]);
            return home;
        }
        write("master.key.next", &self.new);
        let database = database(&home);
        let run = |sql: &str, row: &[&dyn ToSql]| assert_eq!(database.execute(sql, row), Ok(1));
        if matches!(state, State::Named | State::HalfSealed | State::AllSealed) {
            let sql = "UPDATE instance SET key_id = ?1, next_key_id = ?2";
            run(sql, &[&id_of(&self.old), &id_of(&self.new)]);
        }
        if state == State::HalfSealed {
            for (number, secret) in self.slots.iter().filter(|(it, _)| **it % 2 == 0) {
                run(
                    "UPDATE slot SET secret = ?2 WHERE number = ?1",
                    &[number, secret],
                );
            }
        }
        home
    }
}

#[test]
fn every_state_that_a_kill_leaves_is_served_and_can_be_completed() {
    let (home, token) = Home::init();
    let users = Users::enrol(&home, 8);
    let before = users.sought(&home.data());
    let rotated = Rotated::of(&home);
    for state in [
        State::PartOfKey,
        State::Key,
        State::Named,
        State::HalfSealed,
        State::AllSealed,
        State::Ended,
    ] {
        println!("{state:?}");
        let home = rotated.make(state);
        let is_unfinished = state != State::PartOfKey;
        let told = home.json(&["doctor"]).to_string();
        assert_eq!(
            told.contains("rotation is unfinished"),
            is_unfinished,
            "{told}"
        );
        let backup = home.dir.path().join("backup");
        if is_unfinished {
            let backup = ["backup", backup.to_str().unwrap()];
            home.refuses(&backup, 1, "its rotation is unfinished");
        }
        assert!(!backup.exists());

        let server = home.serve(&[]);
        users.expect_good(&server.address, &token, 0);
        let path = "/users/u1/totp";
        let id = server
            .ask(&token, "POST", path, "")
            .expect_status(200)
            .text("/totpId");
        let sealed = &sealed_secrets(&home.data().join("totpd.db"))[&id];
        let is_new = !matches!(state, State::PartOfKey | State::Key);
        let key = if is_new { &rotated.new } else { &rotated.old };
        assert_eq!(
            sealed[..8],
            id_of(key),
            "new secrets are sealed under this key"
        );

        let completed = home.json(&["key", "rotate"]);
        assert_eq!(completed["wasUnfinished"], is_new, "{completed}");
        assert_eq!(key_of(&home) == rotated.new, is_unfinished);
        assert!(!home.data().join("master.key.next").exists());
        assert!(!home.data().join("master.key.next.unfinished").exists());
        expect_sealed_anew(&home, &rotated.old, &before, &users);
        users.expect_good(&server.address, &token, 1);
        assert_eq!(server.terminate().0, 0);
        home.json(&["backup", backup.to_str().unwrap()]);
        let told = home.json(&["doctor"]).to_string();
        assert!(!told.contains("rotation"), "{told}");
    }
}

/// Checks, enrols and removes until `stop` is set. Asserts that every call is answered as without a rotation.
fn load(address: &str, token: &str, users: &Users, part: usize, parts: usize, stop: &AtomicBool) {
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let mut client = Client::connect(address);
    for at in (part..users.names.len()).step_by(parts).cycle() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let user = &users.names[at];
        expect_good_or_used(&mut client, token, user, &users.phones[at].code_at(now()));
        let base = format!("/resources/v3alpha/users/{user}/totp");
        let begun = client.ask("POST", &base, &bearer, b"").expect_status(200);
        let phone = Phone {
            id: begun.text("/totpId"),
            secret: totpd::totp::Secret::from_base32(&begun.text("/secret")).unwrap(),
        };
        let (verify, code) = (format!("{base}/{}/_verify", phone.id), phone.code_at(now()));
        let body = format!("\"{code}\"");
        client
            .ask("POST", &verify, &bearer, body.as_bytes())
            .expect_status(200);
        client
            .ask("DELETE", &format!("{base}/{}", phone.id), &bearer, b"")
            .expect_status(200);
    }
}

/// SECURITY.md 43: rotations under load are killed at any moment, and run again.
fn killed_at_any_moment(rounds: u32, count: usize, connections: usize) {
    let (home, token) = Home::init();
    let users = Users::enrol(&home, count);
    let begun = Instant::now();
    home.json(&["key", "rotate"]);
    let takes = begun.elapsed();
    for round in 0..rounds {
        let (old, before) = (key_of(&home), users.sought(&home.data()));
        let server = home.serve(&[]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for part in 0..connections {
                let (server, token, users, stop) = (&server, &token, &users, &stop);
                scope.spawn(move || load(&server.address, token, users, part, connections, stop));
            }
            let mut rotation = home.command(&["key", "rotate"]);
            let mut rotation = rotation.stdout(Stdio::null()).spawn().unwrap();
            // Each round kills at another moment, within twice the time that a rotation takes without load.
            thread::sleep(takes * (round * 7 % 20) / 10);
            rotation.kill().unwrap();
            rotation.wait().unwrap();
            home.json(&["key", "rotate"]);
            stop.store(true, Ordering::SeqCst);
        });
        expect_sealed_anew(&home, &old, &before, &users);
        users.expect_good(&server.address, &token, 0);
        home.json(&["doctor"]);
        server.kill();
    }
}

#[test]
fn no_kill_of_a_rotation_loses_a_secret_or_fails_a_check() {
    killed_at_any_moment(4, 60, 4);
}

#[test]
#[ignore = "twenty rounds"]
fn no_kill_of_a_rotation_loses_a_secret_or_fails_a_check_in_20_rounds() {
    killed_at_any_moment(20, 3_000, 16);
}

/// SECURITY.md 43: a backup from before a rotation needs the key of its time, and is restored under the current key.
#[test]
fn a_backup_from_before_a_rotation_opens_with_the_old_key() {
    let (home, token) = Home::init();
    let users = Users::enrol(&home, 5);
    let file = |name: &str| home.dir.path().join(name).to_str().unwrap().to_owned();
    let (early, late, kept, other) = (file("early"), file("late"), file("old.key"), file("other"));
    home.json(&["backup", &early]);
    fs::copy(home.data().join("master.key"), &kept).unwrap();
    let (old, before) = (key_of(&home), users.sought(&home.data()));
    home.json(&["key", "rotate"]);
    home.json(&["backup", &late]);
    fs::write(&other, [7; 32]).unwrap();
    set_mode(Path::new(&other), 0o600);

    let restore = ["restore", &early, "--force"];
    home.refuses(&restore, 1, "give the older one with --old-key FILE");
    let with = |key| [&restore[..], &["--old-key", key]].concat();
    home.refuses(
        &with(&other),
        1,
        "not the key that the backup was sealed under",
    );
    set_mode(Path::new(&kept), 0o644);
    home.refuses(&with(&kept), 1, "others can reach it");
    set_mode(Path::new(&kept), 0o600);
    home.json(&with(&kept));
    expect_sealed_anew(&home, &old, &before, &users);
    home.json(&["doctor"]);
    let server = home.serve(&[]);
    users.expect_good(&server.address, &token, 1);
    server.kill();
    home.json(&["restore", &late, "--force"]);
    home.json(&["doctor"]);
}

/// A copy of the file made during a rotation may be sealed under two keys. It is restored if both are available.
#[test]
fn a_copy_from_the_middle_of_a_rotation_is_restored_with_both_keys() {
    let (home, token) = Home::init();
    let users = Users::enrol(&home, 6);
    let before = users.sought(&home.data());
    let rotated = Rotated::of(&home);
    let middle = rotated.make(State::HalfSealed);
    let copy = middle.data().join("totpd.db");
    let copy = copy.to_str().unwrap();
    let kept = home.dir.path().join("old.key");
    fs::write(&kept, rotated.old).unwrap();
    set_mode(&kept, 0o600);
    home.refuses(&["restore", copy, "--force"], 1, "--old-key FILE");
    home.json(&[
        "restore",
        copy,
        "--force",
        "--old-key",
        kept.to_str().unwrap(),
    ]);
    expect_sealed_anew(&home, &rotated.old, &before, &users);
    assert_eq!(count(&home, "SELECT next_key_id IS NULL FROM instance"), 1);
    // If both keys are in the data directory, the rotation continues after the restore.
    let other = rotated.make(State::HalfSealed);
    other.json(&["restore", copy, "--force"]);
    assert_eq!(other.json(&["key", "rotate"])["wasUnfinished"], true);
    expect_sealed_anew(&other, &rotated.old, &before, &users);
    for it in [&home, &other] {
        let server = it.serve(&[]);
        users.expect_good(&server.address, &token, 1);
        server.kill();
    }
}

/// A data directory whose key is a credential, as systemd provides it.
struct Credentials {
    home: Home,
    token: String,
    dir: PathBuf,
}

impl Credentials {
    fn init() -> Self {
        let home = Home {
            dir: tempfile::tempdir().unwrap(),
        };
        let dir = home.dir.path().join("credentials");
        fs::create_dir(&dir).unwrap();
        let mut it = Self {
            home,
            token: String::new(),
            dir,
        };
        it.put("master.key", [1; 32]);
        let made = it.command(&["init", "--json"]).output().unwrap();
        let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        let token = made["token"]["token"].as_str().unwrap();
        token.clone_into(&mut it.token);
        it
    }

    fn put(&self, name: &str, key: Key) {
        let path = self.dir.join(name);
        fs::write(&path, key).unwrap();
        set_mode(&path, 0o400);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command.env("CREDENTIALS_DIRECTORY", &self.dir);
        command
    }

    #[track_caller]
    fn refuses(&self, args: &[&str], told: &str) {
        crate::binary::refused(&self.command(args).output().unwrap(), 1, told);
        let unchanged = "SELECT next_key_id IS NULL FROM instance";
        assert_eq!(count(&self.home, unchanged), 1, "nothing was begun");
    }

    fn serve(&self) -> Server {
        Server::start(self.command(&["serve", "--listen", "127.0.0.1:0"]))
    }

    fn prints(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A new, confirmed authenticator.
    fn enrol(&self, server: &Server) -> Phone {
        let begun = server.ask(&self.token, "POST", "/users/u/totp", "");
        let begun = begun.expect_status(200);
        let phone = Phone {
            id: begun.text("/totpId"),
            secret: totpd::totp::Secret::from_base32(&begun.text("/secret")).unwrap(),
        };
        let path = format!("/users/u/totp/{}/_verify", phone.id);
        let code = format!("\"{}\"", phone.code_of(now(), -1));
        server
            .ask(&self.token, "POST", &path, &code)
            .expect_status(200);
        phone
    }
}

/// SECURITY.md 43
#[test]
fn a_key_that_is_a_credential_is_rotated_where_the_server_has_both() {
    let it = Credentials::init();
    let rotate = ["key", "rotate"];
    it.refuses(
        &rotate,
        "--next-master-key, or as the credential master.key.next",
    );
    let server = it.serve();
    server
        .ask(&it.token, "POST", "/users", r#"{"userId":"u"}"#)
        .expect_status(201);
    let mut phones = vec![it.enrol(&server)];
    it.put("master.key.next", [1; 32]);
    it.refuses(&rotate, "it is the master key already");
    fs::remove_file(it.dir.join("master.key.next")).unwrap();
    it.put("master.key.next", [2; 32]);
    it.refuses(&rotate, "does not have the new key");
    assert_eq!(server.terminate().0, 0);

    let server = it.serve();
    phones.push(it.enrol(&server));
    let told = it.prints(&rotate);
    let names = |name: &str| it.dir.join(name).display().to_string();
    let (old, new) = (names("master.key"), names("master.key.next"));
    let advice = format!("Put the key of {new} in the place of {old}.");
    assert!(
        told.contains(&advice) && told.contains("2 secrets"),
        "{told}"
    );
    let told = it.prints(&rotate);
    assert!(
        told.contains(&advice) && told.contains("completed"),
        "{told}"
    );
    let told = it.prints(&["doctor"]);
    assert!(
        told.contains(&format!("put the key of {new} in the place of {old}")),
        "{told}"
    );
    phones.push(it.enrol(&server));
    assert_eq!(server.terminate().0, 0);

    // As after a reboot: first with both keys, then with only the new one.
    for offset in 0..2 {
        let server = it.serve();
        for phone in &phones {
            let path = format!("/users/u/totp/{}/_check", phone.id);
            let code = format!("\"{}\"", phone.code_of(now(), offset));
            server
                .ask(&it.token, "POST", &path, &code)
                .expect_status(200);
        }
        assert_eq!(server.terminate().0, 0);
        let _replaced = fs::rename(it.dir.join("master.key.next"), it.dir.join("master.key"));
    }
    assert!(!it.prints(&["doctor"]).contains("rotation"));
    let mut alone = it.command(&["user", "list", "--next-master-key", &new]);
    let alone = alone.env_remove("CREDENTIALS_DIRECTORY").output().unwrap();
    crate::binary::refused(&alone, 1, "leave this out");
}

/// SECURITY.md 31 and 43: half of the secrets would not open.
#[test]
fn nothing_starts_without_a_key_that_secrets_are_sealed_under() {
    let (home, _) = Home::init();
    Users::enrol(&home, 4);
    let rotated = Rotated::of(&home);
    let middle = rotated.make(State::HalfSealed);
    fs::remove_file(middle.data().join("master.key.next")).unwrap();
    let it = Credentials::init();
    let name = "UPDATE instance SET next_key_id = ?1";
    let named = database(&it.home).execute(name, (id_of(&[2; 32]),));
    assert_eq!(named, Ok(1));
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let in_dir = middle.command(&serve);
    let given = it.command(&serve);
    for (mut serve, told) in [
        (in_dir, "neither here nor in master.key.next; put it back"),
        (given, "give the new one with --next-master-key"),
    ] {
        crate::binary::refused(&serve.output().unwrap(), 1, told);
    }
    let told = middle.run(&["doctor"]);
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stdout).unwrap();
    let is_told = |it: &str| it.starts_with("wrong master key") && it.contains("put it back");
    assert!(told.lines().any(is_told), "{told}");
    // With that key the rotation continues.
    it.put("master.key.next", [2; 32]);
    assert!(it.prints(&["key", "rotate"]).contains("completed"));
}

#[test]
fn a_new_key_that_others_can_read_is_refused() {
    let (home, _) = Home::init();
    let next = home.data().join("master.key.next");
    fs::write(&next, [3; 32]).unwrap();
    set_mode(&next, 0o644);
    home.refuses(&["key", "rotate"], 1, "others can reach it");
    let (key, other) = (home.data().join("master.key"), home.dir.path().join("next"));
    fs::rename(&next, &other).unwrap();
    let given = [
        "--master-key",
        key.to_str().unwrap(),
        "--next-master-key",
        other.to_str().unwrap(),
    ];
    let rotate = [&["key", "rotate"], &given[..]].concat();
    home.refuses(&rotate, 1, "others can reach it");
    assert_eq!(count(&home, "SELECT next_key_id IS NULL FROM instance"), 1);
    // A server that was started with --master-key would not look for another key.
    let server = home.serve(&given[..2]);
    home.refuses(&["key", "rotate"], 1, "start it without --master-key");
    assert!(!next.exists() || read_key(&next) != key_of(&home));
    server.kill();
}

#[test]
fn a_rotation_beside_another_is_refused_in_one_line() {
    let (home, _) = Home::init();
    let old = key_of(&home);
    let other = File::open(home.data()).unwrap();
    other.lock().unwrap();
    home.refuses(&["key", "rotate"], 1, "is being rotated by another totpd");
    assert_eq!(key_of(&home), old);
    drop(other);
    home.json(&["key", "rotate"]);
    assert_ne!(key_of(&home), old);
}

/// A secret that neither key opens would be lost with the old key, so the old key is kept until an administrator
/// decides.
#[test]
fn a_secret_that_does_not_open_keeps_both_keys_until_it_is_removed() {
    let (home, token) = Home::init();
    let users = Users::enrol(&home, 3);
    let damage =
        "UPDATE slot SET secret = CAST(substr(secret, 1, 8) || randomblob(156) || x'14' AS BLOB)
        WHERE number = (SELECT slot FROM totp WHERE user_id = 'u1')";
    database(&home).execute(damage, ()).unwrap();
    // A slot without an authenticator is overwritten.
    let stray = "INSERT INTO slot SELECT number + 1, secret FROM slot ORDER BY number DESC LIMIT 1";
    database(&home).execute(stray, ()).unwrap();
    let server = home.serve(&[]);
    let told = format!("1 secrets do not open ({} of user u1)", users.phones[1].id);
    home.refuses(&["key", "rotate"], 1, &told);
    for (at, status) in [(0, 200), (1, 503), (2, 200)] {
        let body = format!("\"{}\"", users.phones[at].code_at(now()));
        let path = format!("/users/u{at}/totp/_check");
        server
            .ask(&token, "POST", &path, &body)
            .expect_status(status);
    }
    home.json(&["totp", "remove", "u1", &users.phones[1].id]);
    let completed = home.json(&["key", "rotate"]);
    assert_eq!(completed["wasUnfinished"], true, "{completed}");
    assert!(!home.data().join("master.key.next").exists());
    server.kill();
    home.json(&["doctor"]);
}

fn library(path: &Path) -> Service {
    Service::open(DataDir::open(path, KeyFile::InDataDir).unwrap()).unwrap()
}

/// A rotation by a program that embeds totpd, while a server runs.
#[test]
fn the_library_rotates_for_an_administrator_and_others_forget_the_old_key() {
    let server = TestServer::start();
    let user = server.user("alice");
    let phone = server.enrol(&user);
    let path = server.path().to_owned();
    let before = Connection::open(path.join("totpd.db")).unwrap();
    let sealed: Vec<u8> = before
        .query_row("SELECT secret FROM slot", (), |row| row.get(0))
        .unwrap();
    let manager = server.token(Role::Manager(server.org.parse().unwrap()));
    let clock: Clock = server.clock();
    let other = library(&path);
    let refused = other.rotate_key(Caller::of_token(&manager), &clock);
    assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
    let rotated = other.rotate_key(Caller::of_token(&server.admin), &clock);
    assert_eq!(rotated.unwrap().secrets, 1);

    // A secret sealed under the old key opens as long as the process remembers that key.
    let put_back = || {
        before
            .execute("UPDATE slot SET secret = ?1", (&sealed,))
            .unwrap()
    };
    put_back();
    server.pass_seconds(30);
    server
        .check(&user, &phone.code_at(server.now()))
        .expect_status(200);
    let early: Timestamp = server.now().before(Duration::from_hours(1));
    let _tidied = server.service.tidy(Duration::from_hours(24), even(early));
    server.pass_seconds(30);
    server
        .check(&user, &phone.code_at(server.now()))
        .expect_error(503, 14, Some("TOTPD-Store"));
}
