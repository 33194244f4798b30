//! Secrets are sealed, shown once, and never written or printed otherwise. SECURITY.md 24 to 27.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};

use crate::harness::TestServer;

/// SECURITY.md 25 and 26
#[test]
fn a_secret_is_in_no_file_and_every_file_is_private() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let base32 = phone.secret.base32().to_string();
    let bytes = BASE32_NOPAD.decode(base32.as_bytes()).unwrap();
    assert_eq!(bytes.len(), 20);
    let needles = [
        bytes.clone(),
        base32.into_bytes(),
        HEXLOWER.encode(&bytes).into_bytes(),
    ];
    let token = server.admin.clone().into_bytes();
    for entry in fs::read_dir(server.path()).unwrap() {
        let entry = entry.unwrap();
        let content = fs::read(entry.path()).unwrap();
        for needle in needles.iter().chain([&token]) {
            let found = content
                .windows(needle.len())
                .any(|it| it == needle.as_slice());
            assert!(!found, "{:?} holds a secret", entry.file_name());
        }
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        let name = entry.file_name().into_string().unwrap();
        let known = [
            "totpd.db",
            "totpd.db-wal",
            "totpd.db-shm",
            "master.key",
            "lock",
        ];
        assert!(known.contains(&name.as_str()), "{name}");
    }
    assert_eq!(
        fs::metadata(server.path()).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

/// SECURITY.md 25: a ciphertext that was moved to another row does not open, and the check is not accepted.
#[test]
fn a_sealed_secret_moved_to_another_row_is_a_fault() {
    let server = TestServer::start();
    let (alice, eve) = (server.user("alice"), server.user("eve"));
    let (phone, own) = (server.enrol(&alice), server.enrol(&eve));
    let database = rusqlite::Connection::open(server.path().join("totpd.db")).unwrap();
    let moved =
        "UPDATE slot SET secret = (SELECT secret FROM slot, totp WHERE number = slot AND id = ?1)
        WHERE number = (SELECT slot FROM totp WHERE id = ?2)";
    database.execute(moved, [&own.id, &phone.id]).unwrap();
    let answer = server.check(&alice, &own.code_at(server.now()));
    answer.expect_error(503, 14, Some("TOTPD-Store"));
    assert_eq!(
        server.count("SELECT count(*) FROM failure"),
        0,
        "a fault is no guess"
    );
    server
        .check(&eve, &own.code_at(server.now()))
        .expect_status(200);
}

/// SECURITY.md 27
#[test]
fn a_secret_is_shown_by_start_and_by_nothing_else() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.start_enrolment(&alice);
    let secret = phone.secret.base32().to_string();
    let right = phone.code_at(server.now());
    let answers = [
        server.ask("GET", &format!("/users/{alice}"), ""),
        server.confirm(&alice, &phone, &right),
        server.check(&alice, &right),
        server.check(&alice, "000"),
        server.remove(&alice, &phone),
    ];
    for answer in answers {
        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert!(!body.contains(&secret) && !body.contains(&right), "{body}");
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..9 {
        assert!(
            seen.insert(server.start_enrolment(&alice).secret.base32().to_string()),
            "never the same twice"
        );
    }
}
