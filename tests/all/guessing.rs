//! Guessing costs more and more time, and failures are counted per user. SECURITY.md 11 to 16.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;

use totpd::service::Context;

use crate::harness::{Client, Phone, TestServer};
use crate::wait;

const WRONG: Option<&str> = Some("EVENT-8isk2");
const WAIT: Option<&str> = Some("TOTPD-Wait1");

/// Guesses until a wait begins, and returns how many guesses were judged.
fn guess(server: &TestServer, user: &str, phone: &Phone) -> u64 {
    for judged in 0..100 {
        let answer = server.check(user, &phone.wrong_at(server.now()));
        if answer.status == 429 {
            return judged;
        }
        answer.expect_error(400, 3, WRONG);
    }
    panic!("a hundred guesses and no wait");
}

/// SECURITY.md 11
#[test]
fn a_day_of_guessing_gets_about_a_hundred_guesses() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let (mut judged, mut passed) = (0, 0);
    while passed < 86_400 {
        judged += guess(&server, &alice, &phone);
        let answer = server
            .check(&alice, &phone.code_at(server.now()))
            .expect_error(429, 8, WAIT);
        let wait: i64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=900).contains(&wait), "{wait}");
        server.pass_seconds(wait - 1);
        server
            .check(&alice, &phone.code_at(server.now()))
            .expect_error(429, 8, WAIT);
        server.pass_seconds(1);
        passed += wait;
    }
    assert!((100..=106).contains(&judged), "{judged} guesses");
    let code = phone.code_at(server.now());
    server.check(&alice, &code).expect_status(200);
    assert_eq!(
        guess(&server, &alice, &phone),
        5,
        "a good check resets the count"
    );
}

/// SECURITY.md 11: a wait does not use up the right code, and only guesses are counted.
#[test]
fn a_wait_consumes_nothing_and_only_guesses_count() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let used = phone.code_at(server.now());
    server.check(&alice, &used).expect_status(200);
    for _ in 0..20 {
        server
            .check(&alice, &used)
            .expect_error(400, 3, Some("TOTPD-Used1"));
        server
            .check(&alice, "12 456")
            .expect_error(400, 3, Some("TOTPD-Field"));
    }
    assert_eq!(guess(&server, &alice, &phone), 5);
    let next = phone.code_of(server.now(), 1);
    server.check(&alice, &next).expect_error(429, 8, WAIT);
    server.pass_seconds(30);
    server.check(&alice, &next).expect_status(200);
}

/// SECURITY.md 12
#[test]
fn no_wait_is_for_good_also_if_the_clock_went_back() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    for _ in 0..6 {
        guess(&server, &alice, &phone);
        server.pass_seconds(900);
    }
    guess(&server, &alice, &phone);
    server.pass_seconds(-600);
    let answer = server
        .check(&alice, &phone.wrong_at(server.now()))
        .expect_error(429, 8, WAIT);
    let wait: i64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 900, "{wait}");
    server.pass_seconds(wait);
    server
        .check(&alice, &phone.wrong_at(server.now()))
        .expect_error(400, 3, WRONG);

    server
        .check(&alice, &phone.wrong_at(server.now()))
        .expect_error(429, 8, WAIT);
    let id = alice.parse().unwrap();
    let context = Context::command_line(server.now());
    server.service.unlock_user(&context, id).unwrap();
    server.pass_seconds(900);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
}

/// SECURITY.md 13: confirmations count too, and do not reset the count.
#[test]
fn guesses_are_counted_per_user_and_not_per_authenticator() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phones: Vec<Phone> = (0..3).map(|_| server.enrol(&alice)).collect();
    let pending = server.start_enrolment(&alice);
    for phone in &phones {
        let path = format!("/users/{alice}/totp/{}/_check", phone.id);
        let wrong = format!("\"{}\"", phone.wrong_at(server.now()));
        server
            .ask("POST", &path, &wrong)
            .expect_error(400, 3, WRONG);
    }
    let wrong = pending.wrong_at(server.now());
    server
        .confirm(&alice, &pending, &wrong)
        .expect_error(400, 3, WRONG);
    server
        .confirm(&alice, &pending, &pending.code_at(server.now()))
        .expect_status(200);
    server
        .check(&alice, &phones[0].wrong_at(server.now()))
        .expect_error(400, 3, WRONG);
    server
        .check(&alice, &phones[1].code_at(server.now()))
        .expect_error(429, 8, WAIT);
    let another = server.start_enrolment(&alice);
    let right = another.code_at(server.now());
    server
        .confirm(&alice, &another, &right)
        .expect_error(429, 8, WAIT);

    let bob = server.user("bob");
    let other = server.enrol(&bob);
    server
        .check(&bob, &other.code_at(server.now()))
        .expect_status(200);
}

/// SECURITY.md 14
#[test]
fn a_guess_counts_even_if_nobody_waits_for_the_answer() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let wrong = phone.wrong_at(server.now());
    for _ in 0..5 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let request = format!(
            "POST /resources/v3alpha/users/{alice}/totp/_check HTTP/1.1\r\nHost: t\r\n\
             Authorization: Bearer {}\r\nContent-Length: 8\r\n\r\n\"{wrong}\"",
            server.admin
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let counted = "SELECT coalesce(max(in_a_row), 0) FROM failure";
    wait::until("all five are counted", || server.count(counted) >= 5);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_error(429, 8, WAIT);
}

/// SECURITY.md 15
#[test]
fn of_200_guesses_at_once_at_most_five_are_judged() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let body = format!("\"{}\"", phone.wrong_at(server.now()));
    let target = format!("/resources/v3alpha/users/{alice}/totp/_check");
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let barrier = Barrier::new(50);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(&server.address());
                    barrier.wait();
                    (0..4)
                        .map(|_| client.ask("POST", &target, &bearer, body.as_bytes()).status)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    let of = |status: u16| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((of(400), of(429)), (5, 195), "judged and told to wait");
    assert_eq!(server.count("SELECT in_a_row FROM failure"), 5);
}

/// SECURITY.md 16
#[test]
fn the_count_outlives_removal_and_enrolment() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let (phone, other) = (server.enrol(&alice), server.enrol(&alice));
    guess(&server, &alice, &phone);
    server.remove(&alice, &phone).expect_status(200);
    let new = server.start_enrolment(&alice);
    let right = new.code_at(server.now());
    server
        .confirm(&alice, &new, &right)
        .expect_error(429, 8, WAIT);
    server
        .check(&alice, &other.code_at(server.now()))
        .expect_error(429, 8, WAIT);
}
