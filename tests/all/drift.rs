//! Authenticators whose clocks are wrong: good codes adjust the drift, and two codes find it. RFC 6238 §6,
//! SECURITY.md 7, 11, 32, 39.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use totpd::error::{Error, Result};
use totpd::model::{Code, Period, Timestamp, UserId, Window};
use totpd::service::{Role, SettingsChange, Verdict};

use crate::harness::{Phone, TestServer};
use crate::node::{FORCE, Node};

const DAY_S: u64 = 86_400;

fn resync(node: &Node, user: &UserId, phone: &Phone, codes: [&str; 2]) -> Result<Verdict> {
    let codes = codes.map(|it| it.parse::<Code>().unwrap());
    let id = phone.id.parse().unwrap();
    node.service()
        .resync_totp(&node.context(), user.clone(), id, codes)
}

/// Two consecutive codes, the second one `offset` steps from now.
fn pair(node: &Node, phone: &Phone, offset: i64) -> [String; 2] {
    [offset - 1, offset].map(|it| phone.code_of(node.now, it))
}

fn resync_at(node: &Node, user: &UserId, phone: &Phone, offset: i64) -> Verdict {
    let [first, second] = pair(node, phone, offset);
    resync(node, user, phone, [&first, &second]).unwrap()
}

fn is_good(node: &Node, user: &UserId, code: &str) -> bool {
    matches!(node.check(user, code).unwrap(), Verdict::Accepted(_))
}

fn is_accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accepted(_))
}

fn number(node: &Node, sql: &str) -> i64 {
    let database = Connection::open(node.file("totpd.db")).unwrap();
    database.query_row(sql, (), |row| row.get(0)).unwrap()
}

fn drift(node: &Node, phone: &Phone) -> i64 {
    let id = &phone.id;
    number(
        node,
        &format!("SELECT drift_steps FROM totp WHERE id = '{id}'"),
    )
}

fn failures(node: &Node) -> i64 {
    number(node, "SELECT coalesce(sum(in_a_row), 0) FROM failure")
}

fn end_wait(node: &Node, user: &UserId) {
    let context = node.context();
    node.service().unlock_user(&context, user.clone()).unwrap();
}

fn set_window(node: &Node, window: Window) {
    let change = SettingsChange {
        window: Some(window),
        ..SettingsChange::default()
    };
    let changed = node.service().change_settings(&node.context(), change);
    let _settings = changed.unwrap();
}

/// totpd follows a phone that is 40 s slow and falls further behind over a year. No older code is ever accepted
/// again.
#[test]
fn a_slow_phone_is_followed_over_a_year_of_logins() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(600);
    for login in 0..730_u64 {
        // A login every twelve hours, each at a different second of the step. The first one is late in its step, so
        // that the phone is only one step behind.
        node.pass_seconds(DAY_S / 2 + if login % 2 == 0 { 7 } else { 17 });
        let slow_s = 40 + login * 6 / 20;
        let shown = node.now.before(Duration::from_secs(slow_s));
        let code = phone.code_at(shown);
        if login == 0 {
            assert_eq!(
                shown.step(Period::ENROLMENT).number() + 1,
                node.now.step(Period::ENROLMENT).number()
            );
        }
        assert!(
            is_good(&node, &alice, &code),
            "login {login}, {slow_s} s slow"
        );
        for earlier in 0..=3 {
            let code = phone.code_of(shown, -earlier);
            assert!(!is_good(&node, &alice, &code), "login {login}, {earlier}");
        }
        end_wait(&node, &alice);
    }
    let at_end = drift(&node, &phone);
    assert!((-9..=-8).contains(&at_end), "{at_end}");
}

/// A code outside the window does not move the drift, and neither does a resync with only one code.
#[test]
fn a_phone_that_jumps_five_minutes_needs_a_resync() {
    for steps in [-10, 10] {
        let mut node = Node::new();
        let alice = node.user("alice");
        let phone = node.enrol(&alice);
        node.pass_seconds(900);
        let code = phone.code_of(node.now, steps);
        assert!(!is_good(&node, &alice, &code));
        assert_eq!(drift(&node, &phone), 0);
        let [first, second] = pair(&node, &phone, steps);
        assert!(is_accepted(
            &resync(&node, &alice, &phone, [&first, &second]).unwrap()
        ));
        assert_eq!(drift(&node, &phone), steps);
        for used in [&first, &second] {
            assert_eq!(node.check(&alice, used).unwrap(), Verdict::Used);
        }
        for older in 2..=25 {
            let code = phone.code_of(node.now, steps - older);
            assert!(!is_good(&node, &alice, &code), "{older}");
            end_wait(&node, &alice);
        }
        node.pass_seconds(30);
        let code = phone.code_of(node.now, steps);
        assert!(is_good(&node, &alice, &code), "{steps}");
        assert_eq!(drift(&node, &phone), steps);
    }
}

/// SECURITY.md 7
#[test]
fn good_codes_move_the_drift_by_one_step_and_not_beyond_ten() {
    for direction in [-1, 1] {
        let mut node = Node::new();
        let alice = node.user("alice");
        let phone = node.enrol(&alice);
        for steps in 1..=11 {
            node.pass_seconds(600);
            let beyond = phone.code_of(node.now, direction * (steps + 1));
            assert!(!is_good(&node, &alice, &beyond), "{steps}");
            let code = phone.code_of(node.now, direction * steps);
            assert!(is_good(&node, &alice, &code), "{steps}");
            assert_eq!(drift(&node, &phone), direction * steps.min(10));
        }
        node.pass_seconds(600);
        let code = phone.code_of(node.now, direction * 12);
        assert!(!is_good(&node, &alice, &code), "beyond ten and the window");
    }
}

/// A user who has just scanned the secret types the code late. A later check is a better measure of the drift.
#[test]
fn a_confirmation_moves_no_drift() {
    let node = Node::new();
    let alice = node.user("alice");
    let phone = node.begin(&alice);
    let confirmed = node.confirm(&alice, &phone, &phone.code_of(node.now, -1));
    assert!(is_accepted(&confirmed.unwrap()));
    assert_eq!(drift(&node, &phone), 0);
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 1)));
    assert_eq!(drift(&node, &phone), 1);
}

/// SECURITY.md 7
#[test]
fn without_a_window_good_codes_move_no_drift() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    set_window(&node, Window::Present);
    node.pass_seconds(600);
    for offset in [-1, 1] {
        assert!(!is_good(&node, &alice, &phone.code_of(node.now, offset)));
    }
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 0)));
    assert_eq!(drift(&node, &phone), 0);
    node.pass_seconds(600);
    assert!(is_accepted(&resync_at(&node, &alice, &phone, 5)));
    node.pass_seconds(600);
    for (offset, expected) in [(4, false), (6, false), (0, false), (5, true)] {
        let code = phone.code_of(node.now, offset);
        assert_eq!(is_good(&node, &alice, &code), expected, "{offset}");
    }
    assert_eq!(drift(&node, &phone), 5);
}

/// RFC 6238 §6: both codes within 20 steps of the present one.
#[test]
fn a_resync_reaches_twenty_steps_either_side() {
    for (offset, expected) in [
        (-21, false),
        (-20, false),
        (-19, true),
        (20, true),
        (21, false),
    ] {
        let mut node = Node::new();
        let alice = node.user("alice");
        let phone = node.enrol(&alice);
        node.pass_seconds(1_200);
        let verdict = resync_at(&node, &alice, &phone, offset);
        assert_eq!(is_accepted(&verdict), expected, "{offset}: {verdict:?}");
        let after = if expected { offset } else { 0 };
        assert_eq!(drift(&node, &phone), after);
    }
}

/// SECURITY.md 6: when a phone that was ahead is corrected, its codes are refused until they are newer than the used
/// ones.
#[test]
fn a_phone_that_is_put_right_waits_for_codes_that_are_newer() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(600);
    assert!(is_accepted(&resync_at(&node, &alice, &phone, 10)));
    for step in 1..=11 {
        node.pass_seconds(30);
        assert!(
            !is_good(&node, &alice, &phone.code_of(node.now, 0)),
            "{step}"
        );
        end_wait(&node, &alice);
        assert_eq!(resync_at(&node, &alice, &phone, 0), Verdict::Used, "{step}");
    }
    node.pass_seconds(30);
    assert!(is_accepted(&resync_at(&node, &alice, &phone, 0)));
    assert_eq!(drift(&node, &phone), 0);
    node.pass_seconds(30);
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 0)));
}

/// SECURITY.md 11: both codes together are one guess, which counts towards the same wait as all guesses. A match does
/// not end a wait.
#[test]
fn a_resync_that_fails_is_one_guess_and_one_that_succeeds_resets_nothing() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(600);
    let wrong = phone.wrong_at(node.now);
    let present = phone.code_of(node.now, 0);
    for (guesses, codes) in [
        (1, [&wrong, &wrong]),
        // The refusal does not say which of the two codes was right.
        (2, [&present, &wrong]),
        (3, [&wrong, &present]),
    ] {
        let verdict = resync(&node, &alice, &phone, [codes[0], codes[1]]).unwrap();
        let refused = Verdict::Wrong {
            begins_wait_s: None,
        };
        assert_eq!(verdict, refused, "{guesses}");
        assert_eq!(failures(&node), guesses);
    }
    assert!(is_accepted(&resync_at(&node, &alice, &phone, 2)));
    assert_eq!(failures(&node), 3, "as a confirmation, it resets nothing");
    assert_eq!(resync_at(&node, &alice, &phone, 2), Verdict::Used);
    assert_eq!(failures(&node), 3, "used codes are no guess");
    let guess = |node: &Node| resync(node, &alice, &phone, [&wrong, &wrong]).unwrap();
    assert!(matches!(
        guess(&node),
        Verdict::Wrong {
            begins_wait_s: None
        }
    ));
    let begins = Verdict::Wrong {
        begins_wait_s: Some(30),
    };
    assert_eq!(guess(&node), begins);
    let waits = resync_at(&node, &alice, &phone, 4);
    assert_eq!(waits, Verdict::Wait { retry_after_s: 30 });
    assert!(matches!(
        node.check(&alice, &present).unwrap(),
        Verdict::Wait { .. }
    ));
    node.pass_seconds(30);
    assert!(is_accepted(&resync_at(&node, &alice, &phone, 4)));
}

/// SECURITY.md 1: neither code may have been used before. A pair with a used code uses up nothing.
#[test]
fn two_codes_are_good_only_if_none_of_them_was_used() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(600);
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 0)));
    for offset in [-5, 0, 1] {
        assert_eq!(
            resync_at(&node, &alice, &phone, offset),
            Verdict::Used,
            "{offset}"
        );
    }
    assert_eq!((drift(&node, &phone), failures(&node)), (0, 0));
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 1)));
}

/// SECURITY.md 2
#[test]
fn of_64_threads_with_one_pair_one_is_told_yes() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    for _ in 0..10 {
        node.pass_seconds(900);
        let [first, second] = pair(&node, &phone, 3);
        let barrier = Barrier::new(64);
        let accepted = thread::scope(|scope| {
            let ask = || {
                barrier.wait();
                resync(&node, &alice, &phone, [&first, &second]).unwrap()
            };
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
            let verdicts = threads.into_iter().map(|it| it.join().unwrap());
            let (yes, no): (Vec<_>, Vec<_>) = verdicts.partition(is_accepted);
            assert!(no.iter().all(|it| *it == Verdict::Used), "{no:?}");
            yes.len()
        });
        assert_eq!(accepted, 1);
    }
}

/// SECURITY.md 32, 39
#[test]
fn a_restore_keeps_the_newest_drift_and_reopens_no_code() {
    for (old, new) in [(0, 15), (15, -15), (-15, 0), (5, 5)] {
        let mut node = Node::new();
        let alice = node.user("alice");
        let phone = node.enrol(&alice);
        node.pass_seconds(1_200);
        if old != 0 {
            assert!(is_accepted(&resync_at(&node, &alice, &phone, old)));
        }
        node.pass_seconds(1_200);
        let file = node.back_up("backup");
        node.pass_seconds(30);
        let then = node.now;
        let used = pair(&node, &phone, new);
        assert!(is_accepted(&resync_at(&node, &alice, &phone, new)));
        let restored = node.restore(&file, FORCE).unwrap();
        assert!(!restored.has_loss);
        assert_eq!(drift(&node, &phone), new, "{old} {new}");
        for _ in 0..45 {
            for code in &used {
                assert!(!is_good(&node, &alice, code), "{old} {new}");
            }
            end_wait(&node, &alice);
            node.pass_seconds(30);
        }
        // Another drift does not reopen them either.
        for offset in [1, 20] {
            let late =
                node.now.step(Period::ENROLMENT).number() - then.step(Period::ENROLMENT).number();
            assert!(late > 21);
            let _verdict = resync_at(&node, &alice, &phone, offset);
        }
        for code in &used {
            assert!(!is_good(&node, &alice, code), "{old} {new}");
        }
    }
}

/// SECURITY.md 39: only the backup has a record of the drift, and the restore raises the floor by it.
#[test]
fn a_restore_without_the_old_database_raises_the_floor_by_the_drift() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(1_200);
    assert!(is_accepted(&resync_at(&node, &alice, &phone, 8)));
    node.pass_seconds(1_200);
    let file = node.back_up("backup");
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 8)));
    let mut other = node.elsewhere();
    let options = totpd::service::RestoreOptions {
        replace: false,
        accept_loss: true,
    };
    other.restore(&file, options).unwrap();
    assert_eq!(drift(&other, &phone), 8);
    for offset in 7..=9 {
        let code = phone.code_of(other.now, offset);
        assert_eq!(
            other.check(&alice, &code).unwrap(),
            Verdict::Used,
            "{offset}"
        );
    }
    other.pass_seconds(60);
    assert!(is_good(&other, &alice, &phone.code_of(other.now, 8)));
}

/// SECURITY.md 35: a drift found while the clock was wrong is discarded, and the two codes it accepted stay used.
#[test]
fn a_fix_of_the_clock_forgets_the_drift_and_voids_both_codes() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let phone = node.enrol(&alice);
    node.pass_seconds(600);
    let right = node.now;
    node.pass_seconds(3 * DAY_S);
    let then = node.now;
    assert!(is_accepted(&resync_at(&node, &alice, &phone, -6)));
    let used = pair(&node, &phone, -6);
    node.now = right.after(Duration::from_secs(30));
    let fixed = node.service().fix_clock(&node.context()).unwrap();
    assert_eq!(fixed.totps, 1);
    assert_eq!(drift(&node, &phone), 0);
    assert_eq!(
        node.check(&alice, &phone.code_of(node.now, 1)).unwrap(),
        Verdict::Used
    );
    node.pass_seconds(60);
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 0)));
    node.now = then.before(Duration::from_mins(3));
    let codes = used.each_ref().map(String::as_str);
    assert_eq!(resync(&node, &alice, &phone, codes).unwrap(), Verdict::Used);
    for code in codes {
        assert!(!is_good(&node, &alice, code));
    }
    // The next code is later than both.
    node.pass_seconds(30);
    assert!(is_good(&node, &alice, &phone.code_of(node.now, 0)));
}

#[test]
fn a_resync_needs_a_confirmed_authenticator_of_an_active_user() {
    let mut node = Node::new();
    let (alice, bob) = (node.user("alice"), node.user("bob"));
    let phone = node.enrol(&alice);
    let pending = node.begin(&alice);
    node.pass_seconds(300);
    let refusal = |user: &UserId, phone: &Phone| {
        let [first, second] = pair(&node, phone, 0);
        match resync(&node, user, phone, [&first, &second]) {
            Err(Error::WrongState(state)) => format!("{state:?}"),
            Err(Error::NotFound(missing)) => format!("{missing:?}"),
            other => panic!("{:?}", other.is_ok()),
        }
    };
    assert_eq!(refusal(&alice, &pending), "NoneConfirmed");
    assert_eq!(refusal(&bob, &phone), "Totp");
    node.service()
        .lock_user(&node.context(), alice.clone())
        .unwrap();
    assert_eq!(refusal(&alice, &phone), "UserNotActive");
    assert_eq!(failures(&node), 0);
}

/// SECURITY.md 33
#[test]
fn a_resync_over_rest_leaves_an_event_without_a_code() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    server.pass_seconds(600);
    let codes = [5, 6].map(|it| phone.code_of(server.now(), it));
    let own = server.token(Role::Own(alice.parse().unwrap()));
    let path = format!("/users/{alice}/totp/{}/_resync", phone.id);
    let body = json!(codes).to_string();
    let answer = server.ask_as(&own, "POST", &path, &body).expect_status(200);
    assert_eq!(answer.text("/details/id"), phone.id);
    server
        .ask_as(&own, "POST", &path, &body)
        .expect_error(400, 3, Some("TOTPD-Used1"));
    let checker = server.token(Role::Checker(None));
    server
        .ask_as(&checker, "POST", &path, &body)
        .expect_error(403, 7, Some("AUTH-AWfge"));
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let request = br#"{"eventTypes":["totpd.totp.resynced"]}"#;
    let events = server
        .raw("POST", "/admin/v1/events/_search", &bearer, request)
        .expect_status(200);
    let told = events.json();
    assert_eq!(told["events"].as_array().map(Vec::len), Some(1), "{told}");
    for code in &codes {
        assert!(!told.to_string().contains(code.as_str()));
    }
    let sql = format!("SELECT last_used FROM totp WHERE id = '{}'", phone.id);
    assert_eq!(Timestamp::from_micros(server.count(&sql)), server.now());
}
