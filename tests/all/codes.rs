//! Each code works once, in one spelling, at its own time. SECURITY.md 1 to 7, 10, 29 and 30.

use std::sync::Barrier;
use std::thread;

use totpd::model::Window;

use crate::harness::{Client, TestServer, tidy};

const WRONG: Option<&str> = Some("EVENT-8isk2");
const USED: Option<&str> = Some("TOTPD-Used1");
const NONE: Option<&str> = Some("COMMAND-3Mif9s");

/// SECURITY.md 1
#[test]
fn a_code_is_good_once_also_one_period_later() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let code = phone.code_at(server.now());
    let good = server.check(&alice, &code).expect_status(200);
    assert_eq!(good.text("/totpId"), phone.id);
    assert_eq!(good.text("/details/id"), phone.id);
    server.check(&alice, &code).expect_error(400, 3, USED);
    server.pass_seconds(30);
    server.check(&alice, &code).expect_error(400, 3, USED);
}

/// SECURITY.md 2
#[test]
fn of_64_threads_with_one_code_one_is_told_yes_200_times_over() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let (threads, rounds) = (64, 200);
    let codes: Vec<String> = (0..rounds)
        .map(|it| phone.code_of(server.now(), it))
        .collect();
    let target = format!("/resources/v3alpha/users/{alice}/totp/_check");
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let barrier = Barrier::new(threads);
    let (server, codes, target, bearer) = (&server, &codes, &target, &bearer);
    let barrier = &barrier;
    let told: Vec<Vec<String>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::connect(&server.address());
                    let round = |code: &String| {
                        barrier.wait();
                        let body = format!("\"{code}\"");
                        let answer = client.try_ask("POST", target, bearer, body.as_bytes());
                        if barrier.wait().is_leader() {
                            server.pass_seconds(30);
                        }
                        match answer {
                            Some(it) if it.status == 200 => "yes".to_owned(),
                            Some(it) => it.text("/details/0/id"),
                            None => "no answer".to_owned(),
                        }
                    };
                    codes.iter().map(round).collect()
                })
            })
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let mut fresh = 0;
    for round in 0..codes.len() {
        // Two neighbouring steps may have the same code by chance. Then the second one was already used.
        let is_fresh = round == 0 || codes[round] != codes[round - 1];
        fresh += i64::from(is_fresh);
        let told: Vec<&str> = told.iter().map(|it| it[round].as_str()).collect();
        let count = |what: &str| told.iter().filter(|it| **it == what).count();
        let expected = usize::from(is_fresh);
        assert_eq!(
            (count("yes"), count("TOTPD-Used1")),
            (expected, threads - expected),
            "round {round}, {} after {}: {told:?}",
            codes[round],
            codes[round.saturating_sub(1)],
        );
    }
    let events = server.count("SELECT count(*) FROM event WHERE kind = 'totp.checked'");
    assert_eq!(events, fresh);
}

/// SECURITY.md 4: a malformed code is refused before any comparison and does not count as a guess.
#[test]
fn a_code_has_one_spelling_and_no_other_is_even_compared() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let code = phone.code_at(server.now());
    let flood = "1".repeat(64 * 1024 - 2);
    let wide: String = code
        .chars()
        .map(|it| char::from_u32(it as u32 - 0x30 + 0xFF10).unwrap())
        .collect();
    let (head, tail) = code.split_at(3);
    for spelling in [
        format!(" {code}"),
        format!("{code} "),
        format!("{head} {tail}"),
        format!("{head}\u{a0}{tail}"),
        format!("+{}", &code[1..]),
        wide,
        code[1..].to_owned(),
        format!("{code}0000"),
        format!("{code}\\u0000"),
        format!("\\n{code}"),
        String::new(),
        flood,
    ] {
        server
            .check(&alice, &spelling)
            .expect_error(400, 3, Some("TOTPD-Field"));
    }
    assert_eq!(
        server.count("SELECT count(*) FROM failure"),
        0,
        "none of them was a guess"
    );
    server
        .check(&alice, &format!("{code}00"))
        .expect_error(400, 3, WRONG);
    server.check(&alice, &code).expect_status(200);
}

/// SECURITY.md 5
#[test]
fn the_code_that_confirms_is_used_up() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.start_enrolment(&alice);
    let code = phone.code_at(server.now());
    server.confirm(&alice, &phone, &code).expect_status(200);
    let refused = server.check(&alice, &code).expect_error(400, 3, USED);
    assert!(refused.text("/message").contains("wait for the next code"));
    server
        .confirm(&alice, &phone, &code)
        .expect_error(400, 9, Some("COMMAND-qx4ls"));
}

/// SECURITY.md 6
#[test]
fn steps_only_rise_whatever_the_clock_does() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    server.pass_seconds(60);
    let before = phone.code_of(server.now(), -1);
    let present = phone.code_at(server.now());
    server.check(&alice, &present).expect_status(200);
    server.check(&alice, &before).expect_error(400, 3, USED);
    server.pass_seconds(-60);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_error(400, 3, USED);
    server.pass_seconds(30);
    server.check(&alice, &before).expect_error(400, 3, USED);
}

/// SECURITY.md 7
#[test]
fn the_window_is_one_step_either_side_or_none() {
    for (window, good) in [(Window::OneEitherSide, -1..=1), (Window::Present, 0..=0)] {
        let server = TestServer::builder().window(window).start();
        for offset in -2..=2 {
            let user = server.user(&format!("user{offset}"));
            let phone = server.enrol(&user);
            server.pass_seconds(300);
            let answer = server.check(&user, &phone.code_of(server.now(), offset));
            let status = if good.contains(&offset) { 200 } else { 400 };
            answer.expect_status(status);
        }
    }
}

/// SECURITY.md 10
#[test]
fn a_guess_made_too_early_burns_nothing() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let future = phone.code_of(server.now(), 10);
    server.check(&alice, &future).expect_error(400, 3, WRONG);
    let present = phone.code_at(server.now());
    server.check(&alice, &present).expect_status(200);
    server.pass_seconds(300);
    server.check(&alice, &future).expect_status(200);
}

/// SECURITY.md 29
#[test]
fn a_pending_authenticator_checks_nothing_and_expires() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let pending = server.start_enrolment(&alice);
    let code = pending.code_at(server.now());
    let one = format!("/users/{alice}/totp/{}/_check", pending.id);
    server.check(&alice, &code).expect_error(400, 9, NONE);
    server
        .ask("POST", &one, &format!("\"{code}\""))
        .expect_error(400, 9, NONE);
    let shown = server
        .ask("GET", &format!("/users/{alice}"), "")
        .expect_status(200)
        .json();
    assert_eq!(
        shown["user"]["authenticators"]["totps"][0]["totpId"],
        pending.id.as_str()
    );
    assert!(
        shown["user"]["authenticators"]["totps"][0]
            .get("isVerified")
            .is_none()
    );

    let confirmed = server.enrol(&alice);
    server.pass_seconds(9 * 60);
    let late = server.start_enrolment(&alice);
    server.pass_seconds(61);
    server
        .confirm(&alice, &pending, &pending.code_at(server.now()))
        .expect_error(404, 5, NONE);
    server
        .ask("POST", &one, &format!("\"{code}\""))
        .expect_error(404, 5, NONE);
    server
        .remove(&alice, &pending)
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    let shown = server.ask("GET", &format!("/users/{alice}"), "").json();
    let totps = shown["user"]["authenticators"]["totps"]
        .as_array()
        .unwrap()
        .clone();
    let ids: Vec<&str> = totps
        .iter()
        .map(|it| it["totpId"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [&confirmed.id, &late.id],
        "the expired one is not listed, the others are"
    );
    server
        .check(&alice, &confirmed.code_at(server.now()))
        .expect_status(200);

    tidy(
        &server.service,
        std::time::Duration::from_hours(24),
        server.now(),
    );
    let pending = "SELECT count(*) FROM totp WHERE state = 'pending'";
    assert_eq!(server.count(pending), 1, "swept, and the late one is not");
    assert_eq!(
        server.count("SELECT count(*) FROM event WHERE kind = 'totp.expired'"),
        1
    );
}

/// SECURITY.md 30
#[test]
fn the_eleventh_authenticator_is_refused_where_ten_are_confirmed() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let first = server.enrol(&alice);
    for _ in 1..10 {
        server.enrol(&alice);
    }
    let path = format!("/users/{alice}/totp");
    server
        .ask("POST", &path, "")
        .expect_error(400, 9, Some("TOTPD-Limit"));
    server.remove(&alice, &first).expect_status(200);
    server.start_enrolment(&alice);
}

/// Any of a user's authenticators is accepted. A check that names one considers only that one.
#[test]
fn any_authenticator_may_match_unless_one_is_named() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let (phone, tablet) = (server.enrol(&alice), server.enrol(&alice));
    let named = |id: &str, code: &str| {
        server.ask(
            "POST",
            &format!("/users/{alice}/totp/{id}/_check"),
            &format!("\"{code}\""),
        )
    };
    let code = tablet.code_at(server.now());
    named(&phone.id, &code).expect_error(400, 3, WRONG);
    assert_eq!(
        named(&tablet.id, &code).expect_status(200).text("/totpId"),
        tablet.id
    );
    let code = phone.code_at(server.now());
    assert_eq!(
        server
            .check(&alice, &code)
            .expect_status(200)
            .text("/totpId"),
        phone.id
    );
}
