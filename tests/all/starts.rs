//! Limits on starting enrolments. SECURITY.md 30, 45.

use totpd::error::Error;
use totpd::model::{Timestamp, UserId};
use totpd::service::{Caller, Context, DataDir, KeyFile, Role, Service};

use crate::harness::{Answer, TestServer};

const WAIT: Option<&str> = Some("TOTPD-Wait2");
const EVENTS: &str = "SELECT count(*) FROM event";

fn start(server: &TestServer, token: &str, user: &str) -> Answer {
    server.ask_as(token, "POST", &format!("/users/{user}/totp"), "")
}

/// Starts an enrolment and removes it.
fn start_and_remove(server: &TestServer, token: &str, user: &str) {
    let totp = start(server, token, user)
        .expect_status(200)
        .text("/totpId");
    let path = format!("/users/{user}/totp/{totp}");
    server.ask_as(token, "DELETE", &path, "").expect_status(200);
}

fn self_token(server: &TestServer, user: &str) -> String {
    server.token(Role::Own(user.parse().unwrap()))
}

/// Asserts the refusal, and that it left nothing behind. Returns how long to wait.
#[track_caller]
fn refused(server: &TestServer, token: &str, user: &str) -> i64 {
    let before = server.count(EVENTS);
    let answer = start(server, token, user).expect_error(429, 8, WAIT);
    assert_eq!(server.count(EVENTS), before, "a refusal leaves no event");
    answer.header("retry-after").unwrap().parse().unwrap()
}

/// At most thirty within any hour, whatever happened to them and whichever of the user's tokens started them.
#[test]
fn self_tokens_begin_thirty_enrolments_within_any_hour() {
    let server = TestServer::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let (first, second) = (self_token(&server, &alice), self_token(&server, &alice));
    for _ in 0..10 {
        start_and_remove(&server, &first, &alice);
    }
    server.pass_seconds(1_800);
    for _ in 0..10 {
        start_and_remove(&server, &first, &alice);
        start_and_remove(&server, &second, &alice);
    }
    assert_eq!(refused(&server, &first, &alice), 1_800);
    assert_eq!(refused(&server, &second, &alice), 1_800);
    // Another user is not affected, and neither is another role.
    start_and_remove(&server, &self_token(&server, &bob), &bob);
    start_and_remove(&server, &server.admin, &alice);
    server.pass_seconds(1_799);
    assert_eq!(refused(&server, &first, &alice), 1);
    server.pass_seconds(1);
    // Ten are an hour old, and twenty are not.
    for _ in 0..10 {
        start_and_remove(&server, &first, &alice);
    }
    assert_eq!(refused(&server, &first, &alice), 1_800);
    let rows = "SELECT count(*) FROM self_change";
    assert_eq!(server.count(rows), 31, "no more than an hour's are kept");
}

/// Renames count too, because each leaves an event.
#[test]
fn renames_by_self_tokens_are_of_the_same_thirty() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let token = self_token(&server, &alice);
    let path = format!("/users/{alice}/totp/{}/_rename", phone.id);
    let rename = |token: &str| server.ask_as(token, "POST", &path, "\"Pixel 9\"");
    for _ in 0..15 {
        start_and_remove(&server, &token, &alice);
        rename(&token).expect_status(200);
    }
    assert_eq!(refused(&server, &token, &alice), 3_600);
    let before = server.count(EVENTS);
    rename(&token).expect_error(429, 8, WAIT);
    assert_eq!(server.count(EVENTS), before, "a refusal leaves no event");
    // A missing resource is reported before the wait, and other roles do not wait.
    let unknown = format!("/users/{alice}/totp/1/_rename");
    server
        .ask_as(&token, "POST", &unknown, "\"Pixel 9\"")
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    rename(&server.admin).expect_status(200);
    server.pass_seconds(3_600);
    rename(&token).expect_status(200);
}

/// The count is stored in the database, so it survives a restart.
#[test]
fn the_thirty_are_known_after_a_restart() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let token = self_token(&server, &alice);
    for _ in 0..30 {
        start_and_remove(&server, &token, &alice);
    }
    let dir = DataDir::open(server.path(), KeyFile::InDataDir).unwrap();
    let other = Service::open(dir).unwrap();
    let begin = |now: Timestamp| {
        let context = Context::new(Caller::of_token(&token), now);
        let user: UserId = alice.parse().unwrap();
        other.start_totp(&context, user, None)
    };
    assert!(matches!(
        begin(server.now()),
        Err(Error::TooOften {
            retry_after_s: 3_600
        })
    ));
    server.pass_seconds(3_600);
    assert!(begin(server.now()).is_ok());
}

/// After the clock was set back, the wait is at most an hour from the moment this is noticed.
#[test]
fn a_clock_that_was_set_back_shuts_nobody_out_for_longer_than_an_hour() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let token = self_token(&server, &alice);
    for _ in 0..30 {
        start_and_remove(&server, &token, &alice);
    }
    server.pass_seconds(-600);
    assert_eq!(refused(&server, &token, &alice), 3_600);
    server.pass_seconds(3_599);
    assert_eq!(refused(&server, &token, &alice), 1);
    server.pass_seconds(1);
    start_and_remove(&server, &token, &alice);
}

fn pending(server: &TestServer, user: &str) -> Vec<String> {
    let path = format!("/users/{user}");
    let json = server.ask("GET", &path, "").expect_status(200).json();
    let totps = json["user"]["authenticators"]["totps"].as_array();
    let totps = totps.cloned().unwrap_or_default();
    let pending = totps.iter().filter(|it| it.get("isVerified").is_none());
    pending
        .map(|it| it["totpId"].as_str().unwrap().to_owned())
        .collect()
}

/// Reloading a page starts an enrolment each time. The oldest one is removed, including its secret.
#[test]
fn the_eleventh_enrolment_takes_the_place_of_the_oldest_pending_one() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.enrol(&alice);
    let begun: Vec<String> = (0..9)
        .map(|_| {
            server.pass_seconds(1);
            server.start_enrolment(&alice).id
        })
        .collect();
    assert_eq!(pending(&server, &alice), begun);
    let newest = server.start_enrolment(&alice);
    let mut expected = begun[1..].to_vec();
    expected.push(newest.id.clone());
    assert_eq!(pending(&server, &alice), expected);
    let expired = format!(
        "SELECT count(*) FROM event WHERE kind = 'totp.expired' AND actor = 'totpd'
         AND about_id = '{}' AND user_id = '{alice}' AND org_id = '{}'",
        begun[0], server.org
    );
    assert_eq!(server.count(&expired), 1);
    let secrets = "SELECT count(*) FROM slot WHERE secret <> zeroblob(165)";
    assert_eq!(server.count(secrets), 10, "its secret is gone");
    // The confirmed authenticator stays, and the newest enrolment can be confirmed.
    server
        .confirm(&alice, &newest, &newest.code_at(server.now()))
        .expect_status(200);
}

/// A start that has to wait removes no pending enrolment.
#[test]
fn a_start_that_is_refused_lets_nobody_give_way() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let token = self_token(&server, &alice);
    for _ in 0..30 {
        start(&server, &token, &alice).expect_status(200);
    }
    let before = pending(&server, &alice);
    assert_eq!(before.len(), 10);
    refused(&server, &token, &alice);
    assert_eq!(pending(&server, &alice), before);
    // A user who cannot start an enrolment because ten are confirmed is told so, and not told to wait.
    let bob = server.user("bob");
    let token = self_token(&server, &bob);
    for _ in 0..10 {
        server.enrol(&bob);
    }
    for _ in 0..31 {
        start(&server, &token, &bob).expect_error(400, 9, Some("TOTPD-Limit"));
    }
}
