//! Recovery codes: each one works once, guesses are counted, and the codes are removed with the last authenticator.
//! SECURITY.md 38.

use std::sync::Barrier;
use std::thread;

use totpd::service::{Context, Role};
use totpd::totp::Secret;

use crate::harness::{Answer, Client, Phone, TestServer};

const REFUSED: Option<&str> = Some("TOTPD-Recov1");
const NONE: Option<&str> = Some("TOTPD-Recov2");
const WAIT: Option<&str> = Some("TOTPD-Wait1");
const EVENTS: &str = "SELECT count(*) FROM event";

fn path(user: &str) -> String {
    format!("/users/{user}/recovery_codes")
}

/// Generates codes as the admin.
fn generate(server: &TestServer, user: &str) -> Vec<String> {
    let answer = server.ask("POST", &path(user), "").expect_status(200);
    let json = answer.json();
    let codes = json["codes"].as_array().unwrap().iter();
    codes.map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn check(server: &TestServer, user: &str, code: &str) -> Answer {
    let path = format!("{}/_check", path(user));
    server.ask("POST", &path, &format!("\"{code}\""))
}

fn remaining(server: &TestServer, user: &str) -> u64 {
    let answer = server.ask("GET", &path(user), "").expect_status(200);
    answer.json()["remaining"].as_u64().unwrap()
}

fn unlock(server: &TestServer, user: &str) {
    let context = Context::command_line(server.now());
    let user = user.parse().unwrap();
    server.service.unlock_user(&context, user).unwrap();
}

/// SECURITY.md 1, 38
#[test]
fn ten_codes_are_ten_logins_and_the_eleventh_is_told_that_there_are_none() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    assert_eq!(remaining(&server, &alice), 0);
    let generated = server.now().to_string();
    let codes = generate(&server, &alice);
    assert_eq!(codes.len(), 10);
    for code in &codes {
        let groups: Vec<&str> = code.split('-').collect();
        assert!(
            groups.len() == 4 && groups.iter().all(|it| it.len() == 4),
            "{code}"
        );
    }
    let mut distinct = codes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 10);
    server.pass_seconds(60);
    for (nth, code) in codes.iter().enumerate() {
        assert_eq!(remaining(&server, &alice), 10 - nth as u64);
        // People type them in different ways.
        let typed = match nth % 4 {
            0 => code.clone(),
            1 => code.to_uppercase().replace('-', " "),
            2 => code.replace('-', "").replace('0', "O").replace('1', "l"),
            _ => format!(" {} ", code.replace('1', "I")),
        };
        let answer = check(&server, &alice, &typed).expect_status(200);
        assert_eq!(answer.json()["remaining"], 9 - nth as u64);
        assert_eq!(answer.text("/details/id"), alice);
        assert_eq!(answer.text("/details/created"), generated);
        assert_eq!(answer.text("/details/changed"), server.now().to_string());
    }
    for code in [&codes[0], "0000-0000-0000-0000"] {
        check(&server, &alice, code).expect_error(400, 9, NONE);
    }
    assert_eq!(remaining(&server, &alice), 0);
    assert_eq!(server.count("SELECT count(*) FROM failure"), 0, "no guess");
}

/// SECURITY.md 2, 38
#[test]
fn of_64_threads_with_one_recovery_code_one_is_told_yes() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    for (round, code) in generate(&server, &alice).into_iter().enumerate() {
        let barrier = Barrier::new(64);
        let target = format!("/resources/v3alpha{}/_check", path(&alice));
        let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
        let body = format!("\"{code}\"");
        let statuses: Vec<u16> = thread::scope(|scope| {
            let ask = || {
                let mut client = Client::connect(&server.address());
                barrier.wait();
                client.ask("POST", &target, &bearer, body.as_bytes()).status
            };
            let clients: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
            clients.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let of = |status: u16| statuses.iter().filter(|it| **it == status).count();
        // The code is already used when the others are judged, so they are guesses.
        let expected = if round < 9 { (1, 5, 58) } else { (1, 63, 0) };
        assert_eq!((of(200), of(400), of(429)), expected);
        unlock(&server, &alice);
    }
    let checked = "SELECT count(*) FROM event WHERE kind = 'recovery.checked'";
    assert_eq!(server.count(checked), 10);
}

/// SECURITY.md 13, 15, 38
#[test]
fn of_200_guesses_of_both_kinds_at_once_at_most_five_are_judged() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let codes = generate(&server, &alice);
    let base = format!("/resources/v3alpha/users/{alice}");
    let guesses = [
        (
            format!("{base}/totp/_check"),
            format!("\"{}\"", phone.wrong_at(server.now())),
        ),
        (
            format!("{base}/recovery_codes/_check"),
            "\"0000-0000-0000-0000\"".to_owned(),
        ),
    ];
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let barrier = Barrier::new(50);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |first: usize| {
            let mut client = Client::connect(&server.address());
            barrier.wait();
            let guesses = guesses.iter().cycle().skip(first).take(4);
            let answers = guesses
                .map(|(target, body)| client.ask("POST", target, &bearer, body.as_bytes()).status);
            answers.collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..50).map(|it| scope.spawn(move || ask(it % 2))).collect();
        let clients = clients.into_iter();
        clients.flat_map(|it| it.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((of(400), of(429)), (5, 195), "judged and told to wait");
    assert_eq!(server.count("SELECT in_a_row FROM failure"), 5);
    // A wait uses up no code, and a good code of either kind resets the count.
    check(&server, &alice, &codes[0]).expect_error(429, 8, WAIT);
    server.pass_seconds(30);
    check(&server, &alice, &codes[0]).expect_status(200);
    assert_eq!(server.count("SELECT count(*) FROM failure"), 0);
    check(&server, &alice, &codes[0]).expect_error(400, 3, REFUSED);
    let code = phone.code_at(server.now());
    server.check(&alice, &code).expect_status(200);
    assert_eq!(server.count("SELECT count(*) FROM failure"), 0);
}

/// SECURITY.md 38
#[test]
fn a_wrong_code_and_a_used_one_look_alike_and_both_count() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    let codes = generate(&server, &alice);
    check(&server, &alice, &codes[3]).expect_status(200);
    let wrong = check(&server, &alice, "zzzz-zzzz-zzzz-zzzz").expect_error(400, 3, REFUSED);
    let used = check(&server, &alice, &codes[3]).expect_error(400, 3, REFUSED);
    assert_eq!(wrong.body, used.body);
    assert_eq!(server.count("SELECT in_a_row FROM failure"), 2);
    // A malformed code does not count as a guess and leaves no event.
    let before = server.count(EVENTS);
    for malformed in ["", "123456", "zzzz-zzzz-zzzz-zzzu", "zzzz-zzzz-zzzz-zzzzz"] {
        let field = Some("TOTPD-Field");
        check(&server, &alice, malformed).expect_error(400, 3, field);
    }
    assert_eq!(server.count("SELECT in_a_row FROM failure"), 2);
    assert_eq!(server.count(EVENTS), before);
    assert_eq!(remaining(&server, &alice), 9);
    // Another user's code counts as a wrong one.
    let bob = server.user("bob");
    server.enrol(&bob);
    let bobs = generate(&server, &bob);
    check(&server, &alice, &bobs[0]).expect_error(400, 3, REFUSED);
    check(&server, &bob, &bobs[0]).expect_status(200);
}

#[test]
fn new_codes_replace_all_earlier_ones() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    let (first, second) = (generate(&server, &alice), generate(&server, &alice));
    check(&server, &alice, &first[0]).expect_error(400, 3, REFUSED);
    check(&server, &alice, &second[0]).expect_status(200);
    assert_eq!(remaining(&server, &alice), 9);
    // After the removal there are no codes, and a second removal removes none.
    let removed = server.ask("DELETE", &path(&alice), "").expect_status(200);
    assert_eq!(removed.text("/details/id"), alice);
    server
        .ask("DELETE", &path(&alice), "")
        .expect_error(400, 9, NONE);
    check(&server, &alice, &second[1]).expect_error(400, 9, NONE);
    assert_eq!(server.count("SELECT count(*) FROM recovery_set"), 0);
    let third = generate(&server, &alice);
    check(&server, &alice, &third[9]).expect_status(200);
}

fn expect_codes_gone(server: &TestServer, user: &str, code: &str) {
    check(server, user, code).expect_error(400, 9, NONE);
    assert_eq!(remaining(server, user), 0);
    let flags = "SELECT count(*) FROM totp WHERE has_recovery";
    assert_eq!(server.count(flags), 0);
    let removed = format!(
        "SELECT count(*) FROM event WHERE kind = 'recovery.removed' AND user_id = '{user}'
         AND org_id = '{}'",
        server.org
    );
    assert_eq!(server.count(&removed), 1);
}

/// SECURITY.md 38: for every way of removing the last one.
#[test]
fn recovery_codes_go_with_the_last_confirmed_authenticator() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let (early, code) = (server.start_enrolment(&alice), generate(&server, &alice));
    // One enrolment was started before the codes and one after them. Each can become the last authenticator.
    let late = server.start_enrolment(&alice);
    let pending = server.start_enrolment(&alice);
    for it in [&early, &late] {
        server
            .confirm(&alice, it, &it.code_at(server.now()))
            .expect_status(200);
    }
    for it in [&phone, &pending, &early] {
        server.remove(&alice, it).expect_status(200);
        assert_eq!(remaining(&server, &alice), 10);
    }
    // An authenticator that replaces the last one becomes the last one.
    let replace = format!("/users/{alice}/totp?replaces={}", late.id);
    let new = server.ask("POST", &replace, "").expect_status(200);
    let new = Phone {
        id: new.text("/totpId"),
        secret: Secret::from_base32(&new.text("/secret")).unwrap(),
    };
    server
        .confirm(&alice, &new, &new.code_at(server.now()))
        .expect_status(200);
    server.remove(&alice, &late).expect_status(404);
    assert_eq!(remaining(&server, &alice), 10);
    // A pending authenticator does not count yet.
    server.start_enrolment(&alice);
    server.remove(&alice, &new).expect_status(200);
    expect_codes_gone(&server, &alice, &code[0]);
    server
        .ask("POST", &path(&alice), "")
        .expect_error(400, 9, Some("COMMAND-3Mif9s"));

    // Removal by a manager, and by the user itself.
    let roles = [
        Role::Manager(server.org.parse().unwrap()),
        Role::Own("bob".parse().unwrap()),
    ];
    for role in roles {
        let body = r#"{"userId":"bob"}"#;
        server.ask("POST", "/users", body).expect_status(201);
        let (phone, codes) = (server.enrol("bob"), generate(&server, "bob"));
        let removal = format!("/users/bob/totp/{}", phone.id);
        let token = server.token(role);
        server
            .ask_as(&token, "DELETE", &removal, "")
            .expect_status(200);
        check(&server, "bob", &codes[0]).expect_error(400, 9, NONE);
        // Removing the user removes its codes, and a later user with the same id has none.
        server.enrol("bob");
        generate(&server, "bob");
        server.ask("DELETE", "/users/bob", "").expect_status(200);
        assert_eq!(server.count("SELECT count(*) FROM recovery_set"), 0);
    }
    let secrets = "SELECT count(*) FROM slot WHERE secret <> zeroblob(165)";
    assert_eq!(server.count(secrets), 1, "that of alice's enrolment");
}

/// A user who may not log in cannot use a code and gets no new ones.
#[test]
fn who_is_locked_or_has_no_authenticator_gets_and_uses_no_codes() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let none_confirmed = Some("COMMAND-3Mif9s");
    let generate_as = |token: &str| server.ask_as(token, "POST", &path(&alice), "");
    generate_as(&server.admin).expect_error(400, 9, none_confirmed);
    server.start_enrolment(&alice);
    generate_as(&server.admin).expect_error(400, 9, none_confirmed);
    server.enrol(&alice);
    let codes = generate(&server, &alice);
    let own = server.token(Role::Own(alice.parse().unwrap()));
    server
        .ask("POST", &format!("/users/{alice}/_lock"), "")
        .expect_status(200);
    for token in [&server.admin, &own] {
        generate_as(token).expect_error(400, 9, Some("COMMAND-SF3fg"));
    }
    check(&server, &alice, &codes[0]).expect_error(400, 9, Some("COMMAND-SF3fg"));
    unlock(&server, &alice);
    check(&server, &alice, &codes[0]).expect_status(200);
}

/// SECURITY.md 45: generating codes is one of the thirty changes that `self` tokens may start within an hour.
#[test]
fn self_tokens_generate_recovery_codes_thirty_times_within_any_hour() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    let own = server.token(Role::Own(alice.parse().unwrap()));
    let generate_as = |token: &str| server.ask_as(token, "POST", &path(&alice), "");
    for _ in 0..29 {
        generate_as(&own).expect_status(200);
    }
    server
        .ask_as(&own, "POST", &format!("/users/{alice}/totp"), "")
        .expect_status(200);
    let before = server.count(EVENTS);
    let id = "SELECT CAST(id AS INTEGER) FROM recovery_set";
    let set = server.count(id);
    let refused = generate_as(&own).expect_error(429, 8, Some("TOTPD-Wait2"));
    assert_eq!(refused.header("retry-after"), Some("3600"));
    assert_eq!((server.count(EVENTS), server.count(id)), (before, set));
    generate_as(&server.admin).expect_status(200);
    server.pass_seconds(3_600);
    generate_as(&own).expect_status(200);
}

/// SECURITY.md 33: each change has its event under ZITADEL's name, and no event contains a code.
#[test]
fn each_change_of_recovery_codes_leaves_an_event_without_a_code() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    let codes = generate(&server, &alice);
    check(&server, &alice, &codes[0]).expect_status(200);
    check(&server, &alice, &codes[0]).expect_error(400, 3, REFUSED);
    server.ask("DELETE", &path(&alice), "").expect_status(200);
    let request = r#"{"asc":true,"eventTypes":["user.human.mfa.recoverycode.added",
        "user.human.mfa.recoverycode.removed","user.human.mfa.recoverycode.check.succeeded",
        "user.human.mfa.recoverycode.check.failed"]}"#;
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let search = "/admin/v1/events/_search";
    let answer = server.raw("POST", search, &bearer, request.as_bytes());
    let json = answer.expect_status(200).json();
    let events = json["events"].as_array().unwrap();
    let types: Vec<&str> = events
        .iter()
        .map(|it| it["type"]["type"].as_str().unwrap())
        .map(|it| it.trim_start_matches("user.human.mfa.recoverycode."))
        .collect();
    assert_eq!(
        types,
        ["added", "check.succeeded", "check.failed", "removed"]
    );
    for event in events {
        assert_eq!(event["aggregate"]["id"], alice);
        assert_eq!(event["aggregate"]["resourceOwner"], server.org);
        assert_eq!(event["payload"]["peer"], "127.0.0.1");
    }
    let said = json.to_string();
    for code in codes {
        assert!(!said.contains(&code) && !said.contains(&code.replace('-', "")));
    }
}

/// Dropping the table shows that users without recovery codes cause no read of it.
#[test]
fn removals_and_checks_of_users_without_recovery_codes_do_not_look_for_them() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let database = rusqlite::Connection::open(server.path().join("totpd.db")).unwrap();
    database.execute_batch("DROP TABLE recovery_set").unwrap();
    let code = phone.code_at(server.now());
    server.check(&alice, &code).expect_status(200);
    server.remove(&alice, &phone).expect_status(200);
    server
        .ask("GET", &path(&alice), "")
        .expect_error(503, 14, Some("TOTPD-Store"));
}
