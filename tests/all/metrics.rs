//! Metrics: each counter increases when its event happens.

use std::collections::BTreeMap;

use totpd::serve::Limits;
use totpd::service::Role;

use crate::harness::{Answer, Client, TestServer};

pub fn start() -> TestServer {
    start_with(Limits::default())
}

pub fn start_with(limits: Limits) -> TestServer {
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

/// The samples of a page, by name and labels.
pub fn samples(server: &TestServer) -> BTreeMap<String, f64> {
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

/// Calls `act`, and asserts that each of these samples has increased by that much, or by at least one where marked
/// `+`.
pub fn moves(server: &TestServer, what: &str, samples_moved: &[(&str, f64)], act: impl FnOnce()) {
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

fn move_by_one(server: &TestServer, names: &[String], what: &str, act: &dyn Fn()) {
    let names: Vec<_> = names.iter().map(|it| (it.as_str(), 1.0)).collect();
    moves(server, what, &names, act);
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

pub fn refused(reason: &str) -> String {
    format!(r#"totpd_connections_refused_total{{reason="{reason}"}}"#)
}

/// Covers codes that the API judged and codes that it did not.
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
    let one = |names: &[String], what: &str, act: &dyn Fn()| move_by_one(&server, names, what, act);
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
        &[rest("DeactivateUser", "ok"), change("user.deactivated")],
        "deactivating",
        &|| {
            on_user("_deactivate", 200);
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
}

#[test]
fn each_check_of_a_code_moves_its_counter() {
    let server = start();
    let one = |names: &[String], what: &str, act: &dyn Fn()| move_by_one(&server, names, what, act);
    let user = server.user("alice");
    let phone = server.enrol(&user);
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
    let deactivated = server.ask("POST", &format!("/users/{user}/_deactivate"), "");
    deactivated.expect_status(200);
    one(
        &[check("inactive"), rest("CheckTOTP", "failed_precondition")],
        "an inactive user",
        &|| {
            server.check(&user, "123456").expect_status(400);
        },
    );
}

#[test]
fn refusals_probes_and_panics_move_their_counters() {
    let server = start();
    let one = |names: &[String], what: &str, act: &dyn Fn()| move_by_one(&server, names, what, act);
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
}

#[test]
fn emptying_the_wal_moves_its_counters() {
    let server = start();
    server.service.truncate_wal().unwrap();
    let truncated = r#"totpd_checkpoints_total{mode="truncate",result="ok"}"#.to_owned();
    let took = "totpd_checkpoint_duration_seconds_count".to_owned();
    server.user("dave");
    move_by_one(&server, &[truncated, took], "emptying the WAL", &|| {
        server.service.truncate_wal().unwrap();
    });
}

/// A change that is rolled back is not counted.
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
    // Other tests in this process cause errors too.
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
