//! An authenticator replaces another when it is confirmed, and not earlier. SECURITY.md 17, 18, 20, 21, 30, 32.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use totpd::model::UserId;
use totpd::service::{Role, Verdict};
use totpd::totp::Secret;

use crate::binary::{Home, enrolled, now, refused};
use crate::harness::{Answer, Client, Phone, TestServer};
use crate::node::{FORCE, Node};

const MISSING: Option<&str> = Some("COMMAND-Hd9sd");
const LIMIT: Option<&str> = Some("TOTPD-Limit");

/// Starts an enrolment that replaces an authenticator.
fn ask_to_replace(server: &TestServer, user: &str, replaced: &str) -> Answer {
    let path = format!("/users/{user}/totp?replaces={replaced}");
    server.ask("POST", &path, "")
}

pub fn phone_of(answer: &Answer) -> Phone {
    Phone {
        id: answer.text("/totpId"),
        secret: Secret::from_base32(&answer.text("/secret")).unwrap(),
    }
}

fn replace(server: &TestServer, user: &str, replaced: &Phone) -> Phone {
    phone_of(&ask_to_replace(server, user, &replaced.id).expect_status(200))
}

fn confirm(server: &TestServer, user: &str, phone: &Phone) {
    let code = phone.code_at(server.now());
    server.confirm(user, phone, &code).expect_status(200);
}

fn confirmed(server: &TestServer) -> i64 {
    server.count("SELECT count(*) FROM totp WHERE state = 'confirmed'")
}

fn rows(server: &TestServer) -> i64 {
    server.count("SELECT count(*) FROM totp")
}

/// Kinds and subjects of the newest events, oldest first.
fn newest_events(server: &TestServer, count: i64) -> Vec<(String, String)> {
    let database = Connection::open(server.path().join("totpd.db")).unwrap();
    let sql = "SELECT kind, about_id FROM event ORDER BY id DESC LIMIT ?1";
    let mut statement = database.prepare(sql).unwrap();
    let found = statement.query_map([count], |row| Ok((row.get(0)?, row.get(1)?)));
    let mut all: Vec<_> = found.unwrap().collect::<Result<_, _>>().unwrap();
    all.reverse();
    all
}

/// SECURITY.md 17 and 21: until the confirmation the old authenticator is accepted and nothing is lost. Afterwards it
/// is gone as after a removal.
#[test]
fn the_old_one_is_good_until_the_new_one_is_confirmed_and_gone_from_then_on() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let old = server.enrol(&alice);
    let new = replace(&server, &alice, &old);
    server
        .confirm(&alice, &new, &new.wrong_at(server.now()))
        .expect_error(400, 3, Some("EVENT-8isk2"));
    server
        .check(&alice, &old.code_at(server.now()))
        .expect_status(200);
    server.pass_seconds(30);

    let code = new.code_at(server.now());
    let done = server.confirm(&alice, &new, &code).expect_status(200);
    assert_eq!(done.text("/details/id"), new.id);
    let events = [("totp.confirmed", &new.id), ("totp.removed", &old.id)];
    let events = events.map(|(kind, id)| (kind.to_owned(), id.clone()));
    assert_eq!(newest_events(&server, 2), events);
    let secrets = "SELECT count(*) FROM slot WHERE secret <> zeroblob(165)";
    assert_eq!(server.count(secrets), 1, "the old secret is zeroed");
    let record = "SELECT count(*) FROM confirmed_totp";
    assert_eq!(server.count(record), 2, "both stay on record");
    assert_eq!(server.count("SELECT count(replaces) FROM totp"), 0);

    server.pass_seconds(30);
    let wrong = Some("EVENT-8isk2");
    server
        .check(&alice, &old.code_at(server.now()))
        .expect_error(400, 3, wrong);
    server.remove(&alice, &old).expect_error(404, 5, MISSING);
    server
        .check(&alice, &new.code_at(server.now()))
        .expect_status(200);
}

/// SECURITY.md 20: only a confirmed authenticator of the same user can be replaced, and a refusal changes nothing.
#[test]
fn only_a_confirmed_authenticator_of_the_same_user_can_be_replaced() {
    let server = TestServer::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let (phone, bobs) = (server.enrol(&alice), server.enrol(&bob));
    let pending = server.start_enrolment(&alice);
    let before = server.count("SELECT count(*) FROM event");
    for replaced in ["1", &bobs.id, &pending.id, "%00", "a%2Fb"] {
        ask_to_replace(&server, &alice, replaced).expect_error(404, 5, MISSING);
    }
    let long = "1".repeat(201);
    for malformed in ["", "%zz", "%ff", &long, "1&replaces=1"] {
        let refused = ask_to_replace(&server, &alice, malformed);
        refused.expect_error(400, 3, Some("TOTPD-Field"));
    }
    // The user is checked first, and the state after the authenticator.
    ask_to_replace(&server, "nobody", "1").expect_error(404, 5, Some("COMMAND-6T2xrOHxTx"));
    let own = server.token(Role::Own(alice.parse().unwrap()));
    let lock = format!("/users/{alice}/_lock");
    server.ask("POST", &lock, "").expect_status(200);
    let as_alice = |replaced: &str| {
        let path = format!("/users/{alice}/totp?replaces={replaced}");
        server.ask_as(&own, "POST", &path, "")
    };
    as_alice("1").expect_error(404, 5, MISSING);
    as_alice(&phone.id).expect_error(400, 9, Some("COMMAND-SF3fg"));
    let changed = server.count("SELECT count(*) FROM event") - before;
    assert_eq!((rows(&server), changed), (3, 2), "the token and the lock");
}

#[test]
fn what_was_removed_before_needs_no_removal() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let old = server.enrol(&alice);
    let (first, second) = (
        replace(&server, &alice, &old),
        replace(&server, &alice, &old),
    );
    server.remove(&alice, &old).expect_status(200);
    confirm(&server, &alice, &first);
    confirm(&server, &alice, &second);
    assert_eq!(confirmed(&server), 2);
    let removals = "SELECT count(*) FROM event WHERE kind = 'totp.removed'";
    assert_eq!(server.count(removals), 1);
}

#[test]
fn two_that_replace_the_same_one_both_stay() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let old = server.enrol(&alice);
    let (first, second) = (
        replace(&server, &alice, &old),
        replace(&server, &alice, &old),
    );
    confirm(&server, &alice, &first);
    assert_eq!((confirmed(&server), rows(&server)), (1, 2));
    confirm(&server, &alice, &second);
    assert_eq!(confirmed(&server), 2);
    let removals = "SELECT count(*) FROM event WHERE kind = 'totp.removed'";
    assert_eq!(server.count(removals), 1);
}

/// SECURITY.md 30: with a replacement ten count as nine, and never are eleven confirmed.
#[test]
fn with_ten_authenticators_one_can_be_replaced_and_none_added() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let mut phones: Vec<Phone> = (0..10).map(|_| server.enrol(&alice)).collect();
    let totps = format!("/users/{alice}/totp");
    server.ask("POST", &totps, "").expect_error(400, 9, LIMIT);

    let new = replace(&server, &alice, &phones[0]);
    assert_eq!(rows(&server), 11);
    // A start that is refused removes nothing.
    server.ask("POST", &totps, "").expect_error(400, 9, LIMIT);
    assert_eq!(rows(&server), 11);
    confirm(&server, &alice, &new);
    assert_eq!((confirmed(&server), rows(&server)), (10, 10));
    phones[0] = new;

    // Of two replacements the second one supersedes the first one.
    let first = replace(&server, &alice, &phones[1]);
    let second = replace(&server, &alice, &phones[2]);
    let events = [("totp.expired", &first.id), ("totp.started", &second.id)];
    let events = events.map(|(kind, id)| (kind.to_owned(), id.clone()));
    assert_eq!(newest_events(&server, 2), events);
    assert_eq!(rows(&server), 11);
    let code = first.code_at(server.now());
    server
        .confirm(&alice, &first, &code)
        .expect_error(404, 5, Some("COMMAND-3Mif9s"));
    confirm(&server, &alice, &second);
    phones[2] = second;
    server
        .check(&alice, &phones[1].code_at(server.now()))
        .expect_status(200);

    // Nine confirmed authenticators, an enrolment that replaces one of them, and one that replaces none are eleven
    // rows. The next start removes both enrolments.
    server.remove(&alice, &phones.remove(9)).expect_status(200);
    let plain = server.start_enrolment(&alice);
    let replacing = replace(&server, &alice, &phones[3]);
    assert_eq!(rows(&server), 11);
    let last = server.start_enrolment(&alice);
    assert_eq!(rows(&server), 10);
    for gone in [&plain, &replacing] {
        let code = gone.code_at(server.now());
        server
            .confirm(&alice, gone, &code)
            .expect_error(404, 5, Some("COMMAND-3Mif9s"));
    }
    confirm(&server, &alice, &last);
    assert_eq!((confirmed(&server), rows(&server)), (10, 10));
}

/// SECURITY.md 30: in any order of starts, confirmations and removals at most ten are confirmed.
#[test]
fn no_order_of_replacements_confirms_an_eleventh() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let mut good: Vec<Phone> = (0..9).map(|_| server.enrol(&alice)).collect();
    let mut begun: Vec<Phone> = Vec::new();
    let mut random = 20_261_126_u64;
    let mut below = |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
        (random >> 33) as usize % end
    };
    for _ in 0..200 {
        match below(5) {
            0 | 1 => {
                let replaced = &good[below(good.len())].id;
                let answer = ask_to_replace(&server, &alice, replaced);
                if answer.status == 200 {
                    begun.push(phone_of(&answer));
                }
            }
            2 => {
                let answer = server.ask("POST", &format!("/users/{alice}/totp"), "");
                if answer.status == 200 {
                    begun.push(phone_of(&answer));
                }
            }
            3 if !begun.is_empty() => {
                let phone = begun.remove(below(begun.len()));
                let code = phone.code_at(server.now());
                if server.confirm(&alice, &phone, &code).status == 200 {
                    good.push(phone);
                }
            }
            _ if confirmed(&server) > 6 => {
                let phone = good.remove(below(good.len()));
                let _was_replaced = server.remove(&alice, &phone);
            }
            _ => {}
        }
        let listed = server.ask("GET", &format!("/users/{alice}/totp"), "");
        let listed = listed.json()["result"].to_string();
        good.retain(|it| listed.contains(&it.id));
        assert!(confirmed(&server) <= 10 && rows(&server) <= 11, "{listed}");
    }
}

/// SECURITY.md 17: checks race with the confirmation that removes their authenticator.
#[test]
fn no_check_in_flight_outlives_a_replacement() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let check = format!("/resources/v3alpha/users/{alice}/totp/_check");
    let mut old = server.enrol(&alice);
    for _ in 0..10 {
        let new = replace(&server, &alice, &old);
        let named = format!("/resources/v3alpha/users/{alice}/totp/{}/_verify", new.id);
        let [first, good] = [&new, &old].map(|it| format!("\"{}\"", it.code_at(server.now())));
        let (is_confirmed, barrier) = (AtomicBool::new(false), Barrier::new(65));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::connect(&server.address());
                barrier.wait();
                let answer = client.ask("POST", &named, &bearer, first.as_bytes());
                answer.expect_status(200);
                is_confirmed.store(true, Ordering::SeqCst);
            });
            for _ in 0..64 {
                scope.spawn(|| {
                    let mut client = Client::connect(&server.address());
                    barrier.wait();
                    let was_confirmed = is_confirmed.load(Ordering::SeqCst);
                    let answer = client.ask("POST", &check, &bearer, good.as_bytes());
                    assert!(!was_confirmed || answer.status != 200);
                });
            }
        });
        assert_eq!((confirmed(&server), rows(&server)), (1, 1));
        let late = "SELECT count(*) FROM event checked JOIN event removed USING (about_id)
            WHERE checked.kind = 'totp.checked' AND removed.kind = 'totp.removed'
            AND checked.id > removed.id";
        assert_eq!(server.count(late), 0);
        let unlock = format!("/users/{alice}/_unlock");
        server.ask("POST", &unlock, "").expect_status(200);
        server.pass_seconds(30);
        old = new;
    }
}

/// SECURITY.md 18: after a kill there are both authenticators or one, and never none.
#[test]
fn a_kill_between_leaves_the_old_one_or_the_new_one() {
    let (home, token) = Home::init();
    let (alice, mut old) = enrolled(&home);
    for round in 0..6 {
        let server = home.serve(&[]);
        let path = format!("/users/{alice}/totp?replaces={}", old.id);
        let begun = server.ask(&token, "POST", &path, "").expect_status(200);
        let new = phone_of(&begun);
        let target = format!("/resources/v3alpha/users/{alice}/totp/{}/_verify", new.id);
        let code = format!("\"{}\"", new.code_at(now()));
        let bearer = format!("Authorization: Bearer {token}\r\n");
        let mut client = Client::connect(&server.address);
        let told = thread::scope(|scope| {
            let confirms =
                scope.spawn(|| client.try_ask("POST", &target, &bearer, code.as_bytes()));
            // Each round gives it a different time, and the last round as long as it needs.
            let begun = std::time::Instant::now();
            while begun.elapsed() < Duration::from_micros(300 * round) {
                std::hint::spin_loop();
            }
            if round == 5 {
                return confirms.join().unwrap();
            }
            server.kill();
            confirms.join().unwrap()
        });
        let listed = home.json(&["totp", "list", &alice]);
        let is_confirmed = |phone: &Phone| {
            let all = listed.as_array().unwrap();
            all.iter()
                .any(|it| it["totpId"] == *phone.id && it["isVerified"] == true)
        };
        assert!(
            is_confirmed(&old) != is_confirmed(&new),
            "round {round}: {listed}"
        );
        if told.is_some_and(|it| it.status == 200) {
            assert!(is_confirmed(&new), "round {round}: it was answered");
        }
        if is_confirmed(&new) {
            old = new;
        }
    }
}

/// SECURITY.md 32: a replacement is recorded as a removal.
#[test]
fn a_restore_removes_again_what_was_replaced() {
    let mut node = Node::new();
    let alice: UserId = node.user("alice");
    let old = node.enrol(&alice);
    let replaced = old.id.parse().unwrap();
    let begun = node
        .service()
        .start_totp_replacing(&node.context(), alice.clone(), None, replaced)
        .unwrap();
    let new = Phone {
        id: begun.details.id,
        secret: begun.secret,
    };
    let before = node.back_up("before");
    node.pass_seconds(30);
    let confirmed = node.confirm(&alice, &new, &new.code_at(node.now));
    assert!(matches!(confirmed, Ok(Verdict::Accepted(_))));
    node.pass_seconds(1);
    assert!(!node.restore(&before, FORCE).unwrap().has_loss);
    assert_eq!(node.totps(&alice), [&*new.id], "pending again");
    // The backup's pending enrolment continues. Its confirmation finds nothing to remove.
    node.pass_seconds(90);
    let confirmed = node.confirm(&alice, &new, &new.code_at(node.now));
    assert!(matches!(confirmed, Ok(Verdict::Accepted(_))));
    assert_eq!(node.totps(&alice), [&*new.id]);
    assert!(node.is_content());
}

#[test]
fn the_command_line_replaces_too() {
    let (home, _) = Home::init();
    let (alice, old) = enrolled(&home);
    refused(
        &home.run(&["totp", "start", &alice, "--replaces", "1"]),
        1,
        "TOTP authenticator not found",
    );
    refused(
        &home.run(&["totp", "start", &alice, "--replaces", ""]),
        1,
        "--replaces",
    );
    let begun = home.json(&["totp", "start", &alice, "--replaces", &old.id]);
    let text = |field: &str| begun[field].as_str().unwrap().to_owned();
    let new = Phone {
        id: text("totpId"),
        secret: Secret::from_base32(&text("secret")).unwrap(),
    };
    home.json(&["totp", "confirm", &alice, &new.id, &new.code_at(now())]);
    let listed = home.json(&["totp", "list", &alice]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["totpId"], *new.id);
}
