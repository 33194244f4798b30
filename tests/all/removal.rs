//! The central promise of totpd: a removed authenticator stays removed. SECURITY.md 17, 19, 21, 22, 33.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, TestServer, tidy};
use crate::wait::SetOnDrop;

const NOT_FOUND: Option<&str> = Some("COMMAND-Hd9sd");
const NONE: Option<&str> = Some("COMMAND-3Mif9s");

/// SECURITY.md 17
#[test]
fn a_removed_authenticator_checks_nothing() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let removed = server.remove(&alice, &phone).expect_status(200);
    assert_eq!(removed.text("/details/id"), phone.id);
    assert_eq!(removed.text("/details/owner/id"), server.org);
    assert_eq!(removed.text("/details/owner/type"), "OWNER_TYPE_ORG");
    assert_eq!(removed.text("/details/changed"), server.now().to_string());
    assert!(removed.text("/details/created") < removed.text("/details/changed"));
    for _ in 0..3 {
        let code = phone.code_at(server.now());
        server.check(&alice, &code).expect_error(400, 9, NONE);
        let named = format!("/users/{alice}/totp/{}/_check", phone.id);
        server
            .ask("POST", &named, &format!("\"{code}\""))
            .expect_error(404, 5, NONE);
        server
            .confirm(&alice, &phone, &code)
            .expect_error(404, 5, NONE);
        server.pass_seconds(30);
    }
    server
        .remove(&alice, &phone)
        .expect_error(404, 5, NOT_FOUND);
}

/// SECURITY.md 17: every accepted check comes before the removal, and no later check is accepted.
#[test]
fn no_check_in_flight_outlives_a_removal() {
    removals_race_checks(150);
}

#[test]
#[ignore = "ten thousand rounds"]
fn no_check_in_flight_outlives_a_removal_in_10_000_rounds() {
    removals_race_checks(10_000);
}

fn removals_race_checks(rounds: i64) {
    let server = TestServer::start();
    let alice = server.user("alice");
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let check = format!("/resources/v3alpha/users/{alice}/totp/_check");
    for round in 0..rounds {
        let phone = server.enrol(&alice);
        let body = format!("\"{}\"", phone.code_at(server.now()));
        let remove = format!("/resources/v3alpha/users/{alice}/totp/{}", phone.id);
        let (removed, barrier) = (AtomicBool::new(false), Barrier::new(3));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::connect(&server.address());
                barrier.wait();
                let _removed = SetOnDrop(&removed);
                client
                    .ask("DELETE", &remove, &bearer, b"")
                    .expect_status(200);
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut client = Client::connect(&server.address());
                    barrier.wait();
                    loop {
                        let was_removed = removed.load(Ordering::SeqCst);
                        let answer = client.ask("POST", &check, &bearer, body.as_bytes());
                        assert!(
                            !was_removed || answer.status != 200,
                            "round {round}: after the 200"
                        );
                        if was_removed {
                            break;
                        }
                    }
                });
            }
        });
        assert_eq!(
            server.count("SELECT count(*) FROM totp"),
            0,
            "round {round}"
        );
        let guesses = "SELECT count(*) FROM failure";
        assert_eq!(server.count(guesses), 0, "a used code is no guess");
    }
    let late = "SELECT count(*) FROM event checked JOIN event removed USING (about_id)
        WHERE checked.kind = 'totp.checked' AND removed.kind = 'totp.removed'
        AND checked.id > removed.id";
    assert_eq!(server.count(late), 0, "no acceptance after its removal");
    let removals = "SELECT count(*) FROM event WHERE kind = 'totp.removed'";
    assert_eq!(server.count(removals), rounds);
}

/// SECURITY.md 19
#[test]
fn of_50_parallel_removals_one_is_told_200() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let target = format!("/resources/v3alpha/users/{alice}/totp/{}", phone.id);
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let barrier = Barrier::new(50);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(&server.address());
                    barrier.wait();
                    client.ask("DELETE", &target, &bearer, b"").status
                })
            })
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((of(200), of(404)), (1, 49));
    let events = "SELECT count(*) FROM event WHERE kind = 'totp.removed'";
    assert_eq!(server.count(events), 1);
}

/// SECURITY.md 21
#[test]
fn gone_means_gone_from_the_file_and_from_its_log() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let (phone, kept) = (server.enrol(&alice), server.enrol(&alice));
    let sealed = |id: &str| -> Vec<u8> {
        let database = rusqlite::Connection::open(server.path().join("totpd.db")).unwrap();
        database
            .query_row(
                "SELECT secret FROM slot WHERE number = (SELECT slot FROM totp WHERE id = ?1)",
                [id],
                |row| row.get(0),
            )
            .unwrap()
    };
    let (gone, stays) = (sealed(&phone.id), sealed(&kept.id));
    let holds = |needle: &[u8]| {
        ["totpd.db", "totpd.db-wal"].iter().any(|it| {
            let bytes = fs::read(server.path().join(it)).unwrap_or_default();
            bytes.windows(needle.len()).any(|it| it == needle)
        })
    };
    assert!(
        holds(&gone) && holds(&stays),
        "the search finds what is there"
    );
    server.remove(&alice, &phone).expect_status(200);
    server.service.truncate_wal().unwrap();
    assert!(!holds(&gone), "the ciphertext is gone");
    assert!(holds(&stays));
    let log = fs::metadata(server.path().join("totpd.db-wal")).map_or(0, |it| it.len());
    assert_eq!(log, 0, "the log is empty");
}

/// SECURITY.md 22
#[test]
fn only_delete_removes() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let path = format!("/users/{alice}/totp/{}", phone.id);
    for method in ["GET", "POST", "PUT", "PATCH", "OPTIONS", "REMOVE"] {
        let refused = server.ask(method, &path, "").expect_error(405, 12, None);
        assert_eq!(refused.header("allow"), Some("DELETE"));
    }
    let target = format!("/resources/v3alpha{path}");
    for headers in [
        format!(
            "Authorization: Bearer {}\r\nX-HTTP-Method-Override: DELETE\r\n",
            server.admin
        ),
        format!(
            "Authorization: Bearer {}\r\nX-Method-Override: DELETE\r\n",
            server.admin
        ),
    ] {
        server
            .raw("POST", &target, &headers, b"")
            .expect_status(405);
    }
    let cookie = format!(
        "Cookie: authorization=Bearer {0}; token={0}\r\n",
        server.admin
    );
    server
        .raw("DELETE", &target, &cookie, b"")
        .expect_error(401, 16, None);
    server
        .raw(
            "DELETE",
            &format!("{target}?access_token={}", server.admin),
            "",
            b"",
        )
        .expect_status(401);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
}

/// The id of a removed authenticator is never used again, so a delayed DELETE cannot remove another one.
#[test]
fn ids_are_never_made_twice() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let mut ids = Vec::new();
    for _ in 0..20 {
        let phone = server.start_enrolment(&alice);
        server.remove(&alice, &phone).expect_status(200);
        ids.push(phone.id.parse::<u64>().unwrap());
        server.pass_seconds(-1);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

/// SECURITY.md 33
#[test]
fn every_change_leaves_an_event_that_says_who_what_when_for_whom() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    server
        .check(&alice, &phone.wrong_at(server.now()))
        .expect_status(400);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
    server.remove(&alice, &phone).expect_status(200);
    server
        .ask("DELETE", &format!("/users/{alice}"), "")
        .expect_status(200);
    let database = rusqlite::Connection::open(server.path().join("totpd.db")).unwrap();
    let mut statement = database
        .prepare(
            "SELECT kind FROM event WHERE user_id = ?1 AND org_id = ?2 AND peer = '127.0.0.1'
            AND actor IN (SELECT id FROM token) AND at > 0 ORDER BY id",
        )
        .unwrap();
    let kinds: Vec<String> = statement
        .query_map([&alice, &server.org], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        kinds,
        [
            "user.created",
            "totp.started",
            "totp.confirmed",
            "totp.code_refused",
            "totp.checked",
            "totp.removed",
            "user.removed"
        ]
    );
    let body = r#"{"authenticators":{"usernames":[{"username":"eve\nuser.removed"}]}}"#;
    server
        .ask("POST", "/users", body)
        .expect_error(400, 3, Some("TOTPD-Field"));

    let events = server.count("SELECT count(*) FROM event");
    let keep = Duration::from_hours(400 * 24);
    tidy(&server.service, keep, server.now());
    assert_eq!(
        server.count("SELECT count(*) FROM event"),
        events,
        "young events are kept"
    );
    server.pass_seconds(400 * 86_400 + 1_000);
    server.user("bob");
    tidy(&server.service, keep, server.now());
    assert_eq!(
        server.count("SELECT count(*) FROM event"),
        1,
        "old ones are swept"
    );
}
