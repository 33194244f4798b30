//! What the files contain of recovery codes, also after kills, rotations and removals. SECURITY.md 3, 21, 27, 38, 43.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rusqlite::Connection;
use totpd::model::UserId;

use crate::binary::{Home, Server, enrolled, now};
use crate::node::{FORCE, Node};
use crate::recovery_restores::accept_loss;
use crate::wait;

/// Key id, nonce, ciphertext and tag of a sealed key, as they are stored in a slot.
const KEY_ID: usize = 8;
const NONCE: usize = 12;
const KEY: usize = 32;
const TAG: usize = 16;
const PIECE: usize = 16;

/// The key of a set of codes.
struct SetKey {
    sealed: Vec<u8>,
    key: Vec<u8>,
}

/// The keys of all sets in a data directory, by user.
fn set_keys(dir: &Path) -> HashMap<String, SetKey> {
    let master = fs::read(dir.join("master.key")).unwrap();
    let connection = Connection::open(dir.join("totpd.db")).unwrap();
    let sql = "SELECT user_id, id, secret FROM recovery_set JOIN slot ON number = slot";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let rows = rows.unwrap().map(Result::unwrap);
    let of = |(user, set, sealed): (String, String, Vec<u8>)| {
        let key = open(&master, &sealed, &user, &set);
        (user, SetKey { sealed, key })
    };
    rows.map(of).collect()
}

fn open(master: &[u8], sealed: &[u8], user: &str, set: &str) -> Vec<u8> {
    let mut bound = b"totpd recovery key 1".to_vec();
    for id in [user, set] {
        bound.extend_from_slice(&(id.len() as u64).to_be_bytes());
        bound.extend_from_slice(id.as_bytes());
    }
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, master).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&sealed[KEY_ID..KEY_ID + NONCE]).unwrap();
    let mut text = sealed[KEY_ID + NONCE..KEY_ID + NONCE + KEY + TAG].to_vec();
    let opened = key.open_in_place(nonce, Aad::from(bound), &mut text);
    opened.unwrap().to_vec()
}

/// Places in the files of a directory with 16 bytes of a sealed key or of the key itself.
fn places(dir: &Path, keys: &[SetKey]) -> usize {
    let pieces: Vec<&[u8]> = keys
        .iter()
        .flat_map(|it| {
            let sealed = &it.sealed[KEY_ID..KEY_ID + NONCE + KEY + TAG];
            sealed.windows(PIECE).chain(it.key.windows(PIECE))
        })
        .collect();
    let pieces: std::collections::HashSet<&[u8]> = pieces.into_iter().collect();
    let files = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path());
    let count = |path: std::path::PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes
            .windows(PIECE)
            .filter(|it| pieces.contains(it))
            .count()
    };
    files.filter(|it| it.is_file()).map(count).sum()
}

fn codes_of(json: &serde_json::Value) -> Vec<String> {
    let codes = json["codes"].as_array().unwrap().iter();
    codes.map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn check(server: &Server, token: &str, user: &str, code: &str) -> crate::harness::Answer {
    let path = format!("/users/{user}/recovery_codes/_check");
    server.ask(token, "POST", &path, &format!("\"{code}\""))
}

/// SECURITY.md 3, 27, 38: a used code stays used after SIGKILL, and no file and no line of the log contains a code or
/// the key.
#[test]
fn a_used_recovery_code_stays_used_after_sigkill_and_none_is_stored_or_logged() {
    let (home, token) = Home::init();
    let (alice, _) = enrolled(&home);
    let codes = codes_of(&home.json(&["recovery", "generate", "alice"]));
    let log = home.dir.path().join("log");
    let serve = || {
        let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        serve
            .env("RUST_LOG", "trace")
            .stderr(file.unwrap())
            .stdout(Stdio::piped());
        let mut child = serve.spawn().unwrap();
        let (address, _) = wait::listening(&mut child).unwrap();
        Server::new(child, &address)
    };
    let refused = Some("TOTPD-Recov1");
    let server = serve();
    check(&server, &token, &alice, &codes[0]).expect_status(200);
    server.kill();
    let server = serve();
    check(&server, &token, &alice, &codes[0]).expect_error(400, 3, refused);
    check(&server, &token, &alice, &codes[1].to_uppercase()).expect_status(200);
    let path = format!("/users/{alice}/recovery_codes");
    let new = server.ask(&token, "POST", &path, "").expect_status(200);
    let new = codes_of(&new.json());
    check(&server, &token, &alice, &codes[2]).expect_error(400, 3, refused);
    check(&server, &token, &alice, &format!("{}x", codes[3])).expect_status(400);
    check(&server, &token, &alice, &new[0]).expect_status(200);
    let checked = home.json(&["recovery", "check", "alice", &new[1]]);
    assert_eq!(checked["remaining"], 8);
    let key = set_keys(&home.data()).remove(&alice).unwrap().key;
    // The files of a running server, including its WAL, and those of a stopped one.
    let look = || {
        let files = fs::read_dir(home.data()).unwrap();
        let files = files.map(|it| it.unwrap().path());
        for file in files.filter(|it| it.is_file()).chain([log.clone()]) {
            let content = fs::read(&file).unwrap();
            let holds = |needle: &[u8]| content.windows(needle.len()).any(|it| it == needle);
            assert!(!holds(&key), "{} holds the key", file.display());
            for code in codes.iter().chain(&new) {
                for it in [code.clone(), code.replace('-', "")] {
                    let (lower, upper) = (it.as_bytes(), it.to_uppercase());
                    let is_there = holds(lower) || holds(upper.as_bytes());
                    assert!(!is_there, "{} holds {it}", file.display());
                }
            }
        }
    };
    look();
    assert_eq!(server.terminate().0, 0);
    look();
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains("CheckRecoveryCode"), "the log is on");
}

/// SECURITY.md 38, 43
#[test]
fn after_a_rotation_the_unused_recovery_codes_are_good_and_the_used_are_not() {
    let (home, token) = Home::init();
    let (alice, _) = enrolled(&home);
    let codes = codes_of(&home.json(&["recovery", "generate", "alice"]));
    let server = home.serve(&[]);
    check(&server, &token, &alice, &codes[0]).expect_status(200);
    let (backup, old_key) = (
        home.dir.path().join("backup").display().to_string(),
        home.dir.path().join("old.key"),
    );
    home.json(&["backup", &backup]);
    fs::copy(home.data().join("master.key"), &old_key).unwrap();
    let before = set_keys(&home.data()).remove(&alice).unwrap();
    assert_eq!(
        home.json(&["key", "rotate"])["secrets"],
        2,
        "authenticator and codes"
    );
    let after = set_keys(&home.data()).remove(&alice).unwrap();
    assert_ne!(after.sealed, before.sealed);
    assert_eq!(after.key, before.key);
    let sealed = SetKey {
        key: Vec::new(),
        ..before
    };
    assert_eq!(places(&home.data(), &[sealed]), 0, "under the old key");
    check(&server, &token, &alice, &codes[1]).expect_status(200);
    check(&server, &token, &alice, &codes[0]).expect_error(400, 3, Some("TOTPD-Recov1"));
    assert_eq!(server.terminate().0, 0);
    home.json(&["doctor"]);

    // A backup from before the rotation, with the key of that time.
    home.json(&[
        "restore",
        &backup,
        "--force",
        "--old-key",
        old_key.to_str().unwrap(),
    ]);
    let is_good = |code: &str| {
        home.run(&["recovery", "check", "alice", code])
            .status
            .success()
    };
    assert!(!is_good(&codes[0]) && !is_good(&codes[1]) && is_good(&codes[2]));
    home.json(&["doctor"]);
}

impl Node {
    fn key_of(&self, user: &UserId) -> SetKey {
        set_keys(self.dir.path()).remove(user.as_str()).unwrap()
    }

    /// Asserts that no file contains any part of these keys.
    fn expect_gone(&self, keys: &[SetKey]) {
        self.service().truncate_wal().unwrap();
        assert_eq!(places(self.dir.path(), keys), 0);
    }
}

/// SECURITY.md 21, 38: without the key the remaining digests reveal nothing.
#[test]
fn nothing_of_the_key_of_removed_recovery_codes_is_in_any_file() {
    let mut node = Node::new();
    let users = ["ann", "bob", "cid", "dan", "eve"].map(|it| node.user(it));
    let phones = users.clone().map(|it| node.enrol(&it));
    for user in &users {
        node.generate(user);
    }
    let [ann, bob, cid, dan, eve] = &users;
    let keys = users.clone().map(|it| node.key_of(&it));
    node.service().truncate_wal().unwrap();
    assert_eq!(
        places(node.dir.path(), &keys),
        5 * (NONCE + KEY + TAG - PIECE + 1),
        "the search finds what is there"
    );
    let [of_ann, of_bob, of_cid, of_dan, of_eve] = keys;
    node.remove_codes(ann);
    node.expect_gone(&[of_ann]);
    node.generate(bob);
    node.expect_gone(&[of_bob]);
    node.remove(cid, &phones[2]);
    node.expect_gone(&[of_cid]);
    node.remove_user(dan);
    node.expect_gone(&[of_dan]);
    // Removal by a restore that applies a removal again, and by a restore without records of removals.
    let backup = node.back_up("backup");
    node.pass_seconds(1);
    node.remove_codes(eve);
    node.restore(&backup, FORCE).unwrap();
    fs::rename(&backup, node.dir.path().with_extension("backup")).unwrap();
    let backup = node.dir.path().with_extension("backup");
    node.expect_gone(&[of_eve]);
    let mut other = node.elsewhere();
    let (of_bob, loss) = (node.key_of(bob), accept_loss());
    other.restore(&backup, loss).unwrap();
    other.expect_gone(&[of_bob]);
    assert!(node.is_content() && other.is_content());
    fs::remove_file(&backup).unwrap();
}

#[test]
fn the_command_line_generates_counts_checks_and_removes_recovery_codes() {
    let (home, _) = Home::init();
    home.json(&["user", "create", "bob"]);
    let none = "recovery codes need a confirmed TOTP authenticator";
    home.refuses(&["recovery", "generate", "bob"], 1, none);
    let (alice, phone) = enrolled(&home);
    let printed = |args: &[&str]| {
        let output = home.run(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = printed(&["recovery", "generate", "alice"]);
    let codes: Vec<&str> = text
        .lines()
        .filter_map(|it| it.strip_prefix("  "))
        .collect();
    assert_eq!(codes.len(), 10, "{text}");
    assert!(printed(&["recovery", "show", "alice"]).contains(" has 10 recovery codes"));
    let shown = home.json(&["recovery", "show", "alice"]);
    assert_eq!(
        (&shown["remaining"], &shown["details"]["id"]),
        (&10.into(), &alice.as_str().into())
    );
    let told = printed(&["recovery", "check", "alice", codes[0]]);
    assert!(told.contains("9 are left"), "{told}");
    let again = ["recovery", "check", "alice", codes[0]];
    home.refuses(&again, 1, "wrong, or was used before");
    home.refuses(
        &["recovery", "check", "alice", "123456"],
        1,
        "expected a recovery code",
    );
    let checked = home.json(&["recovery", "check", "alice", &codes[1].replace('-', " ")]);
    assert_eq!(checked["remaining"], 8);
    assert!(printed(&["recovery", "remove", "alice"]).contains("removed the recovery codes"));
    let again = ["recovery", "remove", "alice"];
    home.refuses(&again, 1, "the user has no recovery codes left");
    assert!(printed(&["recovery", "show", "alice"]).contains("has no recovery codes"));
    let generated = home.json(&["recovery", "generate", "alice"]);
    assert_eq!(generated["codes"].as_array().unwrap().len(), 10);
    // Removal with the last authenticator, by the command that removes all of them.
    home.json(&["totp", "remove", "alice", "--all"]);
    assert_eq!(home.json(&["recovery", "show", "alice"])["remaining"], 0);
    let code = phone.code_of(now(), 1);
    home.refuses(&["totp", "check", "alice", &code], 1, "no confirmed");
}
