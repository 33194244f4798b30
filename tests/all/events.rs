//! The list of events: what it contains, what it leaves out, and which events each role sees.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use totpd::service::Role;

use crate::binary::Home;
use crate::harness::{Answer, TestServer, tidy};

const PATH: &str = "/admin/v1/events/_search";

fn ask_as(server: &TestServer, token: &str, body: &str) -> Answer {
    let bearer = format!("Authorization: Bearer {token}\r\n");
    server.raw("POST", PATH, &bearer, body.as_bytes())
}

fn list_as(server: &TestServer, token: &str, request: &Value) -> Vec<Value> {
    let answer = ask_as(server, token, &request.to_string()).expect_status(200);
    match answer.json().get("events") {
        Some(events) => events.as_array().unwrap().clone(),
        None => Vec::new(),
    }
}

fn list(server: &TestServer, request: &Value) -> Vec<Value> {
    list_as(server, &server.admin, request)
}

fn types(events: &[Value]) -> Vec<&str> {
    let types = events.iter().map(|it| it["type"]["type"].as_str().unwrap());
    types.collect()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    let numbers = events.iter().map(|it| it["sequence"].as_str().unwrap());
    numbers.map(|it| it.parse().unwrap()).collect()
}

/// Adds `count` events of their own kind, one per second.
fn add_events(server: &TestServer, count: u32) {
    let at = server.now().micros();
    let database = Connection::open(server.path().join("totpd.db")).unwrap();
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
        INSERT INTO event (at, kind, actor, org_id) SELECT {at} + i * 1000000, 'test.made', 'someone', '{}' FROM n",
        server.org
    );
    database.execute_batch(&sql).unwrap();
    server.pass_seconds(i64::from(count));
}

#[test]
fn an_event_says_who_what_when_for_whom() {
    let server = TestServer::builder()
        .config(|it| it.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
        .start();
    let alice = server.user("alice");
    let path = format!("/resources/v3alpha/users/{alice}/totp");
    let (token_id, token) = server.token_with(Role::Admin, None);
    let head = format!(
        "Authorization: Bearer {token}\r\nX-Request-Id: mine\r\nX-Forwarded-For: 192.0.2.7\r\n"
    );
    let body = br#"{"name":"Pixel 9"}"#;
    let started = server.raw("POST", &path, &head, body).expect_status(200);
    let totp = started.text("/totpId");
    server
        .raw("DELETE", &format!("{path}/{totp}"), &head, b"")
        .expect_status(200);
    let events = list(&server, &json!({"aggregateId": alice}));
    assert_eq!(
        types(&events),
        [
            "user.human.mfa.otp.removed",
            "user.human.mfa.otp.added",
            "user.human.added"
        ]
    );
    let number = server.count("SELECT max(id) FROM event");
    let expected = json!({
        "editor": {"userId": token_id, "displayName": token_id, "service": "totpd"},
        "aggregate": {"id": alice, "type": {"type": "user"}, "resourceOwner": server.org},
        "sequence": number.to_string(),
        "creationDate": server.now().to_string(),
        "payload": {"totpId": totp, "name": "Pixel 9", "peer": "192.0.2.7", "requestId": "mine"},
        "type": {"type": "user.human.mfa.otp.removed"},
    });
    assert_eq!(events[0], expected, "the name outlives the authenticator");
}

/// SECURITY.md 33: an event by totpd itself, or by one of the user's own tokens, also belongs to the user.
#[test]
fn everything_of_a_user_is_found_by_the_user_and_carries_its_organization() {
    let server = TestServer::start();
    let alice = server.user("alice");
    server.start_enrolment(&alice);
    server.token(Role::Own(alice.parse().unwrap()));
    server.pass_seconds(3_700);
    tidy(&server.service, KEEP, server.now());
    server
        .ask("DELETE", &format!("/users/{alice}"), "")
        .expect_status(200);
    let events = list(
        &server,
        &json!({"aggregateId": alice, "aggregateTypes": ["user"], "asc": true}),
    );
    assert_eq!(
        types(&events),
        [
            "user.human.added",
            "user.human.mfa.otp.added",
            "totpd.token.created",
            "totpd.totp.expired",
            "user.removed"
        ]
    );
    let owner = |it: &Value| it["aggregate"]["resourceOwner"] == server.org;
    assert!(events.iter().all(owner), "{events:#?}");
}

#[test]
fn each_filter_leaves_out_what_does_not_fit() {
    let server = TestServer::start();
    let there = server.organization("Elsewhere");
    let alice = server.user("alice");
    let far = server.user_in(&there, "far");
    let phone = server.enrol(&alice);
    server
        .check(&alice, &phone.wrong_at(server.now()))
        .expect_status(400);
    server.token(Role::Manager(there.parse().unwrap()));
    let instance = server.service.instance_id().to_owned();
    let command_line = json!({"editorUserId": "command-line"});
    for (request, expected) in [
        (json!({"eventTypes": ["org.added"]}), 2),
        (json!({"eventTypes": ["organization.created"]}), 2),
        (json!({"eventTypes": ["totpd.organization.created"]}), 2),
        (
            json!({"event_types": ["user.human.mfa.otp.added", "user.human.mfa.otp.check.failed"]}),
            2,
        ),
        (json!({"eventTypes": ["no.such.type"]}), 0),
        (json!({"aggregateId": alice}), 4),
        (json!({"aggregateId": far}), 1),
        (json!({"aggregateId": there, "aggregateTypes": ["org"]}), 1),
        (json!({"aggregateId": there, "aggregateTypes": ["user"]}), 0),
        (json!({"aggregateId": instance}), 1),
        (json!({"aggregateTypes": ["user"]}), 5),
        (json!({"aggregateTypes": ["org", "instance"]}), 3),
        (json!({"aggregateTypes": ["token"]}), 2),
        (json!({"aggregateTypes": ["nothing"]}), 0),
        (json!({"resourceOwner": there}), 3),
        (json!({"resourceOwner": instance}), 2),
        (json!({"resourceOwner": "1"}), 0),
        (json!({"editorUserId": "totpd"}), 0),
        (
            json!({"resourceOwner": there, "aggregateTypes": ["token"], "editorUserId": "command-line"}),
            1,
        ),
        (json!({}), 10),
        (json!(null), 10),
    ] {
        let body = if request.is_null() {
            String::new()
        } else {
            request.to_string()
        };
        let answer = ask_as(&server, &server.admin, &body)
            .expect_status(200)
            .json();
        let found = answer["events"].as_array().map_or(0, Vec::len);
        assert_eq!(found, expected, "{request}");
    }
    assert_eq!(list(&server, &command_line).len(), 5);
    let answer = ask_as(&server, &server.admin, r#"{"resourceOwner":"1"}"#);
    assert_eq!(answer.body, b"{}", "nothing was found");
}

#[test]
fn a_limit_an_order_a_number_and_times_choose_the_events() {
    let server = TestServer::start();
    let start = server.now();
    let first = u64::try_from(server.count("SELECT max(id) FROM event")).unwrap();
    add_events(&server, 1_200);
    let second = |n: u64| start.after(Duration::from_secs(n)).to_string();
    // The events of these seconds, from the first to the last.
    for (request, from, to) in [
        (json!({}), 1_200, 1_101),
        (
            json!({"limit": 0, "asc": true, "sequence": first.to_string()}),
            1,
            100,
        ),
        (json!({"limit": 3}), 1_200, 1_198),
        (json!({"limit": "3"}), 1_200, 1_198),
        (json!({"limit": 5_000}), 1_200, 201),
        (
            json!({"limit": 2, "asc": true, "sequence": first + 500}),
            501,
            502,
        ),
        (
            json!({"limit": 1_000, "sequence": (first + 1_190).to_string()}),
            1_200,
            1_191,
        ),
        // `from` means later events with `asc`, and earlier ones without it.
        (json!({"limit": 2, "from": second(700)}), 699, 698),
        (
            json!({"limit": 2, "asc": true, "from": second(700)}),
            701,
            702,
        ),
        (
            json!({"limit": 2, "asc": true, "creationDate": second(700)}),
            701,
            702,
        ),
        (
            json!({"limit": 2, "asc": true, "creation_date": second(1), "from": second(700)}),
            701,
            702,
        ),
        (
            json!({"range": {"since": second(700), "until": second(704)}}),
            703,
            701,
        ),
        (
            json!({"asc": true, "range": {"since": second(700), "until": second(704)}}),
            701,
            703,
        ),
        (
            json!({"limit": 1, "range": {"until": second(2)}, "creationDate": second(700)}),
            1,
            1,
        ),
        (
            json!({"limit": 1, "asc": true, "range": {"since": second(1_199)}}),
            1_200,
            1_200,
        ),
    ] {
        let found = numbers(&list(&server, &request));
        let ends = (found.first().copied(), found.last().copied());
        assert_eq!(ends, (Some(first + from), Some(first + to)), "{request}");
        let expected = from.abs_diff(to) + 1;
        assert_eq!(found.len() as u64, expected, "{request}");
        assert!(
            found.is_sorted() == (from <= to) || found.len() == 1,
            "{request}"
        );
    }
    for request in [
        json!({"range": {"since": second(5), "until": second(5)}}),
        json!({"sequence": u64::MAX.to_string()}),
        json!({"asc": true, "from": "9999-12-31T23:59:59Z"}),
        json!({"from": "0001-01-01T00:00:00Z"}),
    ] {
        assert!(list(&server, &request).is_empty(), "{request}");
    }
}

/// SECURITY.md 23
#[test]
fn a_manager_sees_the_events_of_its_organization_and_no_others() {
    let server = TestServer::start();
    let there = server.organization("Elsewhere");
    let (alice, far) = (server.user("alice"), server.user_in(&there, "far"));
    server.enrol(&alice);
    server.start_enrolment(&far);
    let manager = server.token(Role::Manager(there.parse().unwrap()));
    let seen = list_as(&server, &manager, &json!({"limit": 1_000}));
    assert_eq!(
        types(&seen),
        [
            "totpd.token.created",
            "user.human.mfa.otp.added",
            "user.human.added",
            "org.added"
        ]
    );
    assert!(
        seen.iter()
            .all(|it| it["aggregate"]["resourceOwner"] == there)
    );
    let of = |key: &str, value: &str| ask_as(&server, &manager, &json!({key: value}).to_string());
    let instance = server.service.instance_id();
    for (key, unseen, unknown) in [
        ("aggregateId", alice.as_str(), "9"),
        ("resourceOwner", server.org.as_str(), "9"),
        ("resourceOwner", instance, "9"),
    ] {
        let (unseen, unknown) = (of(key, unseen), of(key, unknown));
        assert_eq!((unseen.status, unknown.status), (200, 200));
        assert_eq!(unseen.body, unknown.body, "{key}");
    }
    for role in [
        Role::Checker(None),
        Role::Checker(Some(there.parse().unwrap())),
        Role::Own(alice.parse().unwrap()),
    ] {
        let token = server.token(role);
        // The role is checked before the fields.
        for body in ["{}", "{"] {
            ask_as(&server, &token, body).expect_error(403, 7, Some("AUTH-AWfge"));
        }
    }
    ask_as(&server, "nonsense", "{").expect_error(401, 16, Some("AUTH-7fs1e"));
}

#[test]
fn what_is_no_list_of_events_is_told_so() {
    let server = TestServer::start();
    let many = |count: usize| json!({"eventTypes": vec![""; count]}).to_string();
    ask_as(&server, &server.admin, &many(100)).expect_status(200);
    let both = json!({"eventTypes": vec!["a"; 60], "aggregate_types": vec!["b"; 60]}).to_string();
    for bad in [
        "{",
        "[]",
        "7",
        "{\"sequence\":-1}",
        "{\"sequence\":\"x\"}",
        "{\"sequence\":\"18446744073709551616\"}",
        "{\"limit\":4294967296}",
        "{\"limit\":1.5}",
        "{\"asc\":1}",
        "{\"asc\":\"true\"}",
        "{\"eventTypes\":\"a\"}",
        "{\"eventTypes\":[1]}",
        "{\"aggregateId\":7}",
        "{\"from\":7}",
        "{\"from\":\"yesterday\"}",
        "{\"creationDate\":\"2026-11-23\"}",
        "{\"range\":[]}",
        "{\"range\":{\"since\":\"\"}}",
        "{\"from\":\"2026-02-30T00:00:00Z\"}",
        &many(101),
        &both,
    ] {
        ask_as(&server, &server.admin, bad).expect_error(400, 3, Some("TOTPD-Field"));
    }
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let other = server
        .raw("GET", PATH, &bearer, b"")
        .expect_error(405, 12, None);
    assert_eq!(other.header("allow"), Some("POST"));
    server
        .raw("POST", "/admin/v1/events/types/_search", &bearer, b"")
        .expect_error(404, 5, None);
}

/// SECURITY.md 45
#[test]
fn a_long_list_is_cut() {
    let server = TestServer::start();
    let database = Connection::open(server.path().join("totpd.db")).unwrap();
    let long = "\u{1f512}".repeat(200);
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
        INSERT INTO event (at, kind, actor, org_id, user_id, about_id, about_name)
        SELECT {}, 'totp.checked', '{long}', '{long}', '{long}', '{long}', '{long}' FROM n",
        server.now().micros()
    );
    database.execute_batch(&sql).unwrap();
    let answer = ask_as(&server, &server.admin, r#"{"limit":1000}"#).expect_status(200);
    let events = answer.json()["events"].as_array().unwrap().len();
    assert!((500..1_000).contains(&events), "{events}");
    assert!(
        answer.body.len() <= 4 * 1024 * 1024,
        "{}",
        answer.body.len()
    );
}

#[test]
fn the_command_line_lists_events_with_the_newest_last() {
    let (home, _) = Home::init();
    home.json(&["user", "create", "alice"]);
    let started = home.json(&["totp", "start", "alice", "--name", "a b"]);
    let totp = started["totpId"].as_str().unwrap();
    let found = |args: &[&str]| -> Vec<String> {
        let events = home.json(&[&["event", "list"], args].concat());
        let events = events.as_array().unwrap();
        types(events).into_iter().map(str::to_owned).collect()
    };
    let all = found(&[]);
    assert_eq!(all.last().unwrap(), "user.human.mfa.otp.added");
    assert_eq!(found(&["--limit", "2"]), all[all.len() - 2..]);
    let of_alice = ["user.human.added", "user.human.mfa.otp.added"];
    assert_eq!(found(&["--user", "alice"]), of_alice);
    assert_eq!(
        found(&["--kind", "totp.started", "--kind", "org.added"]),
        ["org.added", of_alice[1]]
    );
    assert_eq!(found(&["--since", "1h"]), all);
    assert!(found(&["--until", "1h"]).is_empty());
    assert!(found(&["--since", "2099-01-01T00:00:00Z"]).is_empty());
    let text = home.run(&["event", "list", "--kind", "totp.started"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in [
        " totp.started user=",
        &format!(" id={totp} name=\"a b\" "),
        " by=command-line",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let id = home.json(&["user", "show", "alice"])["user"]["details"]["id"].clone();
    home.json(&["user", "remove", "alice"]);
    let removed = found(&["--user", id.as_str().unwrap()]);
    assert_eq!(removed.last().unwrap(), "user.removed");
    for (args, told) in [
        (["event", "list", "--since", "yesterday"], "expected a time"),
        (["event", "list", "--limit", "0"], "0"),
        (["event", "list", "--kind", "totp.remove"], "totp.removed"),
    ] {
        home.refuses(&args, 2, told);
    }
}

#[test]
fn following_prints_each_event_once_and_ends_quietly_with_its_reader() {
    let (home, _) = Home::init();
    home.json(&["user", "create", "alice"]);
    let mut follower = home
        .command(&[
            "event",
            "list",
            "--follow",
            "--json",
            "--kind",
            "user.created",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let mut seen = vec![next()["sequence"].clone()];
    for name in ["bob", "carol"] {
        home.json(&["user", "create", name]);
        seen.push(next()["sequence"].clone());
    }
    let all = home.json(&["event", "list", "--kind", "user.created"]);
    let all: Vec<Value> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["sequence"].clone())
        .collect();
    assert_eq!(seen, all);
    // No further event is written. The command ends because the pipe is closed.
    drop(lines);
    let status = follower.wait().unwrap();
    let mut said = String::new();
    follower
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

/// Deletes events older than `keep`, in `times` sweeps.
fn sweep(server: &TestServer, keep: Duration, times: usize) {
    for _ in 0..times {
        tidy(&server.service, keep, server.now());
    }
}

const KEEP: Duration = Duration::from_hours(400 * 24);
const LONG_S: i64 = 401 * 86_400;

/// Lets [`LONG_S`] pass. The clock is read and events are written often enough for the clock to be trusted.
fn pass_long(server: &TestServer) {
    sweep(server, KEEP, 1);
    for _ in 0..14 {
        server.pass_seconds(LONG_S / 14);
        server.user(&format!("at {}", server.now()));
    }
}

/// SECURITY.md 33
#[test]
fn the_record_of_what_was_confirmed_is_kept_as_long_as_its_user_is_there() {
    let server = TestServer::start();
    server
        .ask("POST", "/users", r#"{"userId":"alice"}"#)
        .expect_status(201);
    let removed = server.enrol("alice");
    server.remove("alice", &removed).expect_status(200);
    let kept = server.enrol("alice");
    let rename = format!("/users/alice/totp/{}/_rename", kept.id);
    server.ask("POST", &rename, "\"Pixel\"").expect_status(200);
    server.pass_seconds(30);
    server
        .check("alice", &kept.code_at(server.now()))
        .expect_status(200);
    let pending = server.start_enrolment("alice");
    server.remove("alice", &pending).expect_status(200);
    pass_long(&server);
    sweep(&server, KEEP, 2);
    let of_alice = || {
        let events = list(&server, &json!({"aggregateId": "alice", "asc": true}));
        let about = |it: &Value| it["payload"]["totpId"].as_str().unwrap_or("-").to_owned();
        let told = events
            .iter()
            .map(|it| (it["type"]["type"].as_str().unwrap().to_owned(), about(it)));
        told.collect::<Vec<_>>()
    };
    let told = |kind: &str, phone: &crate::harness::Phone| {
        (format!("user.human.mfa.otp.{kind}"), phone.id.clone())
    };
    assert_eq!(
        of_alice(),
        [
            told("added", &removed),
            told("verified", &removed),
            told("removed", &removed),
            told("added", &kept),
            told("verified", &kept)
        ]
    );
    // A later user with the same id is a different user.
    server.ask("DELETE", "/users/alice", "").expect_status(200);
    server
        .ask("POST", "/users", r#"{"userId":"alice"}"#)
        .expect_status(201);
    server.pass_seconds(86_400);
    sweep(&server, KEEP, 3);
    let left: Vec<String> = of_alice().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(left, ["user.removed", "user.human.added"]);
}

/// SECURITY.md 33: there are more kept events than one sweep examines, and later events that can be deleted.
#[test]
fn events_that_are_kept_do_not_stop_the_sweep() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let database = Connection::open(server.path().join("totpd.db")).unwrap();
    let add = |kind: &str, count: u32| {
        let sql = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
            INSERT INTO event (at, kind, actor, user_id, about_id) SELECT {}, '{kind}', 'test', '{alice}', '{}' FROM n",
            server.now().micros(),
            phone.id
        );
        database.execute_batch(&sql).unwrap();
    };
    add("totp.removed", 1_200);
    add("totp.checked", 700);
    pass_long(&server);
    let left =
        |kind: &str| server.count(&format!("SELECT count(*) FROM event WHERE kind = '{kind}'"));
    let mut sweeps = 0;
    while left("totp.checked") > 0 {
        sweep(&server, KEEP, 1);
        sweeps += 1;
        assert!(sweeps <= 5, "it does not get past what is kept");
    }
    assert_eq!(left("totp.removed"), 1_200);
    server.service.truncate_wal().unwrap();
    sweep(&server, KEEP, 3);
    let wal = std::fs::metadata(server.path().join("totpd.db-wal"));
    assert_eq!(
        wal.map_or(0, |it| it.len()),
        0,
        "nothing is left to do, and nothing is written"
    );
    server
        .ask("DELETE", &format!("/users/{alice}"), "")
        .expect_status(200);
    server.pass_seconds(86_400);
    sweep(&server, KEEP, 4);
    assert_eq!(left("totp.removed"), 0, "a day later it begins anew");
}
