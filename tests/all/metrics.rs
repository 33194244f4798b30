//! Metrics: each counter moves when its thing happens, and every gauge tells what is so.

use std::collections::BTreeMap;
use std::time::Duration;

use totpd::model::Timestamp;
use totpd::serve::{Limits, TlsFiles};
use totpd::service::Role;

use crate::harness::{Answer, Client, TestServer};
use crate::wait::until;

pub fn start() -> TestServer {
    start_with(Limits::default())
}

fn start_with(limits: Limits) -> TestServer {
    TestServer::builder()
        .config(|it| {
            it.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
            it.limits = limits;
        })
        .start()
}

pub fn metrics_address(server: &TestServer) -> String {
    let bound = server.running().metrics_address().unwrap().to_string();
    bound.strip_prefix("http://").unwrap().to_owned()
}

pub fn get(server: &TestServer, target: &str, headers: &str) -> Answer {
    Client::connect(&metrics_address(server)).ask("GET", target, headers, b"")
}

pub fn page(server: &TestServer) -> String {
    let answer = get(server, "/metrics", "").expect_status(200);
    String::from_utf8(answer.body).unwrap()
}

/// The samples of a page, each under its name with its labels.
fn samples(server: &TestServer) -> BTreeMap<String, f64> {
    let page = page(server);
    let lines = page.lines().filter(|it| !it.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

pub fn value(server: &TestServer, name: &str) -> Option<f64> {
    samples(server).get(name).copied()
}

/// Does something, and requires that each of these samples has then moved by that much; those of `+` by at least one.
fn moves(server: &TestServer, what: &str, samples_moved: &[(&str, f64)], act: impl FnOnce()) {
    let before = samples(server);
    act();
    let after = samples(server);
    for (name, expected) in samples_moved {
        let of = |it: &BTreeMap<String, f64>| it.get(*name).copied().unwrap_or(0.0);
        let moved = of(&after) - of(&before);
        assert!(
            (moved - expected).abs() < 1e-9,
            "{what} moved {name} by {moved} and not by {expected}"
        );
    }
}

fn request(transport: &str, call: &str, code: &str) -> String {
    format!(r#"totpd_requests_total{{transport="{transport}",call="{call}",code="{code}"}}"#)
}

pub fn rest(call: &str, code: &str) -> String {
    request("rest", call, code)
}

fn check(result: &str) -> String {
    format!(r#"totpd_checks_total{{result="{result}"}}"#)
}

fn recovery(result: &str) -> String {
    format!(r#"totpd_recovery_checks_total{{result="{result}"}}"#)
}

fn change(kind: &str) -> String {
    format!(r#"totpd_changes_total{{kind="{kind}"}}"#)
}

fn refused(reason: &str) -> String {
    format!(r#"totpd_connections_refused_total{{reason="{reason}"}}"#)
}

/// Of a code that the API judged, and of one that it did not.
#[test]
fn each_check_of_a_recovery_code_moves_its_counter() {
    let server = start();
    let alice = server.user("alice");
    server.enrol(&alice);
    let path = format!("/users/{alice}/recovery_codes");
    let code = server.ask("POST", &path, "").text("/codes/0");
    let wrong = "zzzz-zzzz-zzzz-zzzz".to_owned();
    let checks = |user: &str, code: &str, result: &str, times: u32| {
        let path = format!("/users/{user}/recovery_codes/_check");
        moves(
            &server,
            result,
            &[(&recovery(result), times.into())],
            || {
                for _ in 0..times {
                    server.ask("POST", &path, &format!("\"{code}\""));
                }
            },
        );
    };
    checks(&alice, &code, "accepted", 1);
    checks(&alice, &code, "wrong", 1);
    checks(&alice, &wrong, "wrong", 4);
    checks(&alice, &wrong, "waiting", 1);
    checks("nobody", &wrong, "not_found", 1);
    checks(&server.user("bob"), &wrong, "none_left", 1);
    let lock = server.ask("POST", &format!("/users/{alice}/_lock"), "");
    lock.expect_status(200);
    checks(&alice, &wrong, "inactive", 1);
    let call = [(rest("GenerateRecoveryCodes", "failed_precondition"), 1.0)];
    let call = call.each_ref().map(|(name, by)| (name.as_str(), *by));
    moves(&server, "generating", &call, || {
        server.ask("POST", &path, "").expect_status(400);
    });
}

#[test]
fn each_call_moves_its_counters() {
    let server = start();
    let one = |names: &[String], what: &str, act: &dyn Fn()| {
        let names: Vec<_> = names.iter().map(|it| (it.as_str(), 1.0)).collect();
        moves(&server, what, &names, act);
    };
    let user = server.user("alice");
    let phone = server.enrol(&user);
    let on_user = |call: &str, status: u16| {
        let path = format!("/users/{user}/{call}");
        server.ask("POST", &path, "").expect_status(status);
    };
    one(
        &[
            rest("CreateUser", "ok"),
            change("user.created"),
            r#"totpd_commits_total{result="ok"}"#.to_owned(),
            "totpd_commit_duration_seconds_count".to_owned(),
            "totpd_commit_batch_size_count".to_owned(),
            "totpd_commit_batch_size_sum".to_owned(),
            r#"totpd_request_duration_seconds_count{call="CreateUser"}"#.to_owned(),
            r#"totpd_worker_wait_seconds_count{kind="change"}"#.to_owned(),
        ],
        "creating a user",
        &|| drop(server.user("bob")),
    );
    one(&[rest("GetUser", "ok")], "reading", &|| {
        server
            .ask("GET", &format!("/users/{user}"), "")
            .expect_status(200);
    });
    one(&[rest("SearchUsers", "ok")], "searching", &|| {
        server
            .ask("POST", "/users/_search", "[]")
            .expect_status(200);
    });
    one(&[rest("ListEvents", "ok")], "listing events", &|| {
        let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
        server
            .raw("POST", "/admin/v1/events/_search", &bearer, b"{}")
            .expect_status(200);
    });
    one(
        &[rest("StartTOTPRegistration", "ok"), change("totp.started")],
        "starting",
        &|| drop(server.start_enrolment(&user)),
    );
    one(&[rest("ListTOTP", "ok")], "listing", &|| {
        server
            .ask("GET", &format!("/users/{user}/totp"), "")
            .expect_status(200);
    });
    one(
        &[rest("RenameTOTP", "ok"), change("totp.renamed")],
        "renaming",
        &|| {
            let path = format!("/users/{user}/totp/{}/_rename", phone.id);
            server.ask("POST", &path, "\"Pixel 9\"").expect_status(200);
        },
    );
    let second = server.start_enrolment(&user);
    one(
        &[
            rest("VerifyTOTPRegistration", "ok"),
            change("totp.confirmed"),
        ],
        "confirming",
        &|| {
            let code = second.code_at(server.now());
            server.confirm(&user, &second, &code).expect_status(200);
        },
    );
    one(
        &[rest("ResyncTOTP", "ok"), change("totp.resynced")],
        "resynchronizing",
        &|| {
            let codes = [1, 2].map(|it| second.code_of(server.now(), it));
            let path = format!("/users/{user}/totp/{}/_resync", second.id);
            let body = serde_json::json!(codes).to_string();
            server.ask("POST", &path, &body).expect_status(200);
        },
    );
    one(
        &[
            rest("CheckTOTP", "ok"),
            check("accepted"),
            change("totp.checked"),
        ],
        "a good code",
        &|| {
            drop(
                server
                    .check(&user, &phone.code_at(server.now()))
                    .expect_status(200),
            );
        },
    );
    one(
        &[rest("CheckTOTP", "invalid_argument"), check("used")],
        "a used code",
        &|| {
            drop(
                server
                    .check(&user, &phone.code_at(server.now()))
                    .expect_status(400),
            );
        },
    );
    one(
        &[
            rest("CheckTOTP", "invalid_argument"),
            check("wrong"),
            change("totp.code_refused"),
        ],
        "a wrong code",
        &|| {
            drop(
                server
                    .check(&user, &phone.wrong_at(server.now()))
                    .expect_status(400),
            );
        },
    );
    while server.check(&user, &phone.wrong_at(server.now())).status != 429 {}
    one(
        &[rest("CheckTOTP", "resource_exhausted"), check("waiting")],
        "a code while waiting",
        &|| {
            drop(
                server
                    .check(&user, &phone.wrong_at(server.now()))
                    .expect_status(429),
            );
        },
    );
    let without = server.user("carol");
    one(&[check("none_confirmed")], "no authenticator", &|| {
        server.check(&without, "123456").expect_status(400);
    });
    one(
        &[check("not_found"), rest("CheckTOTP", "not_found")],
        "no user",
        &|| {
            server.check("nobody", "123456").expect_status(404);
        },
    );
    one(
        &[rest("DeactivateUser", "ok"), change("user.deactivated")],
        "deactivating",
        &|| {
            on_user("_deactivate", 200);
        },
    );
    one(
        &[check("inactive"), rest("CheckTOTP", "failed_precondition")],
        "an inactive user",
        &|| {
            server.check(&user, "123456").expect_status(400);
        },
    );
    for (call, name, kind) in [
        ("_activate", "ActivateUser", "user.activated"),
        ("_lock", "LockUser", "user.locked"),
        ("_unlock", "UnlockUser", "user.unlocked"),
    ] {
        one(&[rest(name, "ok"), change(kind)], name, &|| {
            on_user(call, 200);
        });
    }
    one(
        &[
            rest("RemoveTOTPAuthenticator", "ok"),
            change("totp.removed"),
        ],
        "removing",
        &|| drop(server.remove(&user, &phone).expect_status(200)),
    );
    one(
        &[rest("RemoveTOTPAuthenticator", "not_found")],
        "removing again",
        &|| {
            server.remove(&user, &phone).expect_status(404);
        },
    );
    one(
        &[rest("DeleteUser", "ok"), change("user.removed")],
        "removing a user",
        &|| {
            server
                .ask("DELETE", &format!("/users/{user}"), "")
                .expect_status(200);
        },
    );
    one(
        &[rest("CreateUser", "invalid_argument")],
        "a bad body",
        &|| {
            server.ask("POST", "/users", "{").expect_status(400);
        },
    );
    one(
        &[rest("GetUser", "unauthenticated")],
        "a bad token",
        &|| {
            server
                .ask_as("none", "GET", "/users/1", "")
                .expect_status(401);
        },
    );
    let checker = server.token(Role::Checker(None));
    one(&[rest("GetUser", "permission_denied")], "a role", &|| {
        server
            .ask_as(&checker, "GET", "/users/1", "")
            .expect_status(403);
    });
    one(&[rest("other", "not_found")], "an unknown path", &|| {
        server.raw("GET", "/metrics", "", b"").expect_status(404);
    });
    one(
        &[rest("other", "unimplemented")],
        "an rpc that is not offered",
        &|| {
            server.ask("PATCH", "/users/1", "").expect_status(501);
        },
    );
    one(&[rest("health", "ok")], "healthz", &|| {
        server
            .raw("GET", "/debug/healthz", "", b"")
            .expect_status(200);
    });
    one(&[rest("ready", "ok")], "ready", &|| {
        server
            .raw("GET", "/debug/ready", "", b"")
            .expect_status(200);
    });
    one(&[rest("metrics", "ok")], "a scrape", &|| ());
    one(&[rest("other", "internal")], "a panic", &|| {
        server.raw("GET", "/panic", "", b"").expect_status(500);
    });
    server.service.truncate_wal().unwrap();
    let truncated = r#"totpd_checkpoints_total{mode="truncate",result="ok"}"#.to_owned();
    let took = "totpd_checkpoint_duration_seconds_count".to_owned();
    server.user("dave");
    one(&[truncated, took], "emptying the WAL", &|| {
        server.service.truncate_wal().unwrap();
    });
}

/// What a change that fails has appended is not counted.
#[test]
fn a_commit_that_fails_moves_no_change() {
    let server = start();
    let user = server.user("alice");
    let neighbour = server.lock();
    let failed = r#"totpd_commits_total{result="failed"}"#;
    let unavailable = rest("StartTOTPRegistration", "unavailable");
    let started = change("totp.started");
    let busy = r#"totpd_store_errors_total{kind="busy"}"#;
    let errors = || value(&server, busy).unwrap();
    let errors_before = errors();
    moves(
        &server,
        "a locked database",
        &[(failed, 1.0), (&unavailable, 1.0), (&started, 0.0)],
        || {
            let path = format!("/users/{user}/totp");
            server.ask("POST", &path, "").expect_status(503);
        },
    );
    // Other tests of this process meet errors too.
    assert!(errors() >= errors_before + 1.0);
    drop(neighbour);
    moves(
        &server,
        "a free database",
        &[(failed, 0.0), (&started, 1.0)],
        || {
            drop(server.start_enrolment(&user));
        },
    );
}

#[test]
fn what_clients_do_wrong_moves_the_counter_of_its_reason() {
    let limits = Limits {
        request_time: Duration::from_millis(200),
        connections_per_peer: 4,
        ..Limits::default()
    };
    let server = start_with(limits);
    let sends = |bytes: &[u8], status: u16| {
        let mut client = Client::connect(&server.address());
        client.send(bytes);
        client.answer(false, "").expect_status(status);
    };
    let code = rest("other", "resource_exhausted");
    moves(
        &server,
        "a long head",
        &[(&refused("head"), 1.0), (&code, 1.0)],
        || {
            let long = "x".repeat(20_000);
            sends(
                format!("GET / HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n").as_bytes(),
                431,
            );
        },
    );
    moves(
        &server,
        "a long body",
        &[(&refused("body"), 1.0), (&code, 1.0)],
        || {
            sends(
                b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n",
                413,
            );
        },
    );
    moves(&server, "no HTTP", &[(&refused("malformed"), 1.0)], || {
        sends(b"\x01\x02\x03\x04\r\n\r\n", 400);
    });
    let code = rest("other", "deadline_exceeded");
    moves(
        &server,
        "a slow request",
        &[(&refused("slow"), 1.0), (&code, 1.0)],
        || {
            sends(b"GET / HTTP/1.1\r\nHost:", 408);
        },
    );
    moves(
        &server,
        "too many connections",
        &[(&refused("peer_limit"), 1.0)],
        || {
            // A request in progress is not closed in favour of another.
            let held = server.stuck.lock().unwrap();
            let mut busy: Vec<_> = (0..4).map(|_| Client::connect(&server.address())).collect();
            for client in &mut busy {
                client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
            }
            let working = r#"totpd_workers{kind="read",state="busy"}"#;
            until("four are at work", || value(&server, working) == Some(4.0));
            assert_eq!(
                value(&server, r#"totpd_connections{protocol="http1"}"#),
                Some(4.0)
            );
            assert!(Client::connect(&server.address()).is_closed());
            drop(held);
            for client in &mut busy {
                client.answer(false, "").expect_status(404);
            }
        },
    );
}

#[test]
fn a_full_server_and_a_failed_handshake_are_counted() {
    let limits = Limits {
        connections: 4,
        ..Limits::default()
    };
    let server = start_with(limits);
    assert_eq!(value(&server, "totpd_connections_limit"), Some(4.0));
    moves(
        &server,
        "a full server",
        &[(&refused("limit"), 1.0)],
        || {
            let held = server.stuck.lock().unwrap();
            let mut busy: Vec<_> = (0..4).map(|_| Client::connect(&server.address())).collect();
            for client in &mut busy {
                client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
            }
            let working = r#"totpd_workers{kind="read",state="busy"}"#;
            until("four are at work", || value(&server, working) == Some(4.0));
            assert!(Client::connect(&server.address()).is_closed());
            drop(held);
        },
    );

    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["login.test".to_owned()]).unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = TestServer::builder()
        .config(|it| {
            it.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
            it.tls = Some(TlsFiles {
                cert,
                key,
                group_may_read: false,
            });
        })
        .start();
    moves(&server, "no TLS", &[(&refused("tls"), 1.0)], || {
        let mut client = Client::connect(&server.address());
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let mut rest = Vec::new();
        let _closed = client.read_rest(&mut rest);
    });
    let expires = value(&server, "totpd_tls_certificate_expiry_timestamp_seconds");
    // That library's certificates are good until 4096-01-01.
    assert_eq!(expires, Some(67_090_118_400.0));
}

#[test]
fn requests_that_wait_are_told() {
    let server = start();
    let held = server.stuck.lock().unwrap();
    let mut clients: Vec<_> = (0..9).map(|_| Client::connect(&server.address())).collect();
    for client in &mut clients {
        client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    let waiting = r#"totpd_requests_waiting{kind="read"}"#;
    until("one waits", || value(&server, waiting) == Some(1.0));
    assert_eq!(
        value(&server, r#"totpd_workers{kind="read",state="idle"}"#),
        Some(0.0)
    );
    drop(held);
    for client in &mut clients {
        client.answer(false, "").expect_status(404);
    }
    assert_eq!(value(&server, waiting), Some(0.0));
    let waits = r#"totpd_worker_wait_seconds_count{kind="read"}"#;
    assert_eq!(value(&server, waits), Some(9.0));
    let at_once = r#"totpd_worker_wait_seconds_bucket{kind="read",le="0.0"}"#;
    let at_once = value(&server, at_once).or_else(|| {
        value(
            &server,
            r#"totpd_worker_wait_seconds_bucket{kind="read",le="0"}"#,
        )
    });
    assert_eq!(at_once, Some(8.0));
}

#[test]
fn users_authenticators_and_what_expires_are_counted_once_a_minute() {
    let server = start();
    let users = |state: &str| value(&server, &format!(r#"totpd_users{{state="{state}"}}"#));
    let totps = |state: &str| {
        value(
            &server,
            &format!(r#"totpd_authenticators{{state="{state}"}}"#),
        )
    };
    assert_eq!(users("active"), Some(0.0));
    let user = server.user("alice");
    let phone = server.start_enrolment(&user);
    assert_eq!(users("active"), Some(0.0), "not yet");
    server.pass_seconds(60);
    assert_eq!((users("active"), totps("pending")), (Some(1.0), Some(1.0)));
    server
        .confirm(&user, &phone, &phone.code_at(server.now()))
        .expect_status(200);
    server
        .ask("POST", &format!("/users/{user}/_lock"), "")
        .expect_status(200);
    let gone = server.user("bob");
    server
        .ask("POST", &format!("/users/{gone}/_deactivate"), "")
        .expect_status(200);
    server.pass_seconds(60);
    assert_eq!(
        (users("active"), users("locked"), users("inactive")),
        (Some(0.0), Some(1.0), Some(1.0))
    );
    assert_eq!(
        (totps("pending"), totps("confirmed")),
        (Some(0.0), Some(1.0))
    );

    let expiry = r#"totpd_earliest_token_expiry_timestamp_seconds{role="admin"}"#;
    assert_eq!(value(&server, expiry), None, "none expires");
    let expires = |hours: u64| {
        let lifetime = Duration::from_secs(hours * 3_600);
        server.token_with(Role::Admin, Some(lifetime));
        server.now().after(lifetime)
    };
    expires(48);
    let first = expires(24);
    server.pass_seconds(60);
    let seconds = |it: Timestamp| it.since(Timestamp::from_seconds(0)).as_secs_f64();
    let told = value(&server, expiry).unwrap();
    assert!((told - seconds(first)).abs() < 0.001, "{told}");
    // A token that has expired is not what expires next.
    server.pass_seconds(25 * 3_600);
    assert!(value(&server, expiry).unwrap() > seconds(server.now()));
}

#[test]
fn the_last_backup_is_told() {
    let server = start();
    let name = "totpd_last_backup_timestamp_seconds";
    assert_eq!(value(&server, name), None, "none was made");
    let made = server.now();
    server.record_backup();
    server.pass_seconds(60);
    let since_1970 = made.since(Timestamp::from_seconds(0)).as_secs_f64();
    let told = value(&server, name).unwrap();
    assert!((told - since_1970).abs() < 0.001, "{told}");
}

#[test]
fn a_wrong_clock_is_told() {
    let server = start();
    server.user("alice");
    assert_eq!(value(&server, "totpd_clock_fault"), Some(0.0));
    server.pass_seconds(-30 * 86_400);
    assert_eq!(value(&server, "totpd_clock_fault"), Some(1.0));
}

/// A database that cannot be read does not take its metrics with it.
#[test]
fn a_page_does_not_wait_for_the_database() {
    let server = start();
    page(&server);
    let broken = server.lock();
    broken
        .execute_batch("ALTER TABLE instance RENAME TO gone; COMMIT")
        .unwrap();
    let samples = samples(&server);
    assert_eq!(samples.get("totpd_metrics_read_failed"), Some(&1.0));
    assert_eq!(samples.get("totpd_clock_fault"), None);
    assert!(samples.contains_key("totpd_wal_bytes"));
}

#[cfg(feature = "grpc")]
#[test]
fn each_transport_has_its_label() {
    let server = start();
    let user = server.user("alice");
    let message = crate::rpc::encode(
        crate::rpc::method("GetUser").input(),
        &serde_json::json!({ "id": user }),
    );
    let mut rpc = crate::rpc::Rpc::connect(&server.address());
    let admin = server.admin.as_str();
    moves(
        &server,
        "gRPC",
        &[(&request("grpc", "GetUser", "ok"), 1.0)],
        || {
            assert_eq!(rpc.call(Some(admin), "GetUser", &message).code, 0);
        },
    );
    let unauthenticated = request("grpc", "GetUser", "unauthenticated");
    moves(
        &server,
        "gRPC without a token",
        &[(&unauthenticated, 1.0)],
        || {
            assert_eq!(rpc.call(None, "GetUser", &message).code, 16);
        },
    );
    let malformed = [
        (request("grpc", "other", "invalid_argument"), 1.0),
        (refused("malformed"), 1.0),
    ];
    let malformed: Vec<_> = malformed
        .iter()
        .map(|(it, by)| (it.as_str(), *by))
        .collect();
    moves(&server, "a bad frame", &malformed, || {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let path = crate::rpc::path("GetUser");
        assert!(rpc.raw(&path, &headers, b"\x07bad").is_ok());
    });
    assert_eq!(
        value(&server, r#"totpd_connections{protocol="http2"}"#),
        Some(1.0)
    );
    moves(
        &server,
        "gRPC-Web",
        &[(&request("grpc_web", "GetUser", "ok"), 1.0)],
        || {
            let (headers, body) = crate::transports::web_request(false, Some(admin), &message);
            let path = crate::rpc::path("GetUser");
            server
                .raw("POST", &path, &headers, &body)
                .expect_status(200);
        },
    );
    drop(rpc);
}
