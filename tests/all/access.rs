//! What each role may do. A resource that the caller may not see is answered byte for byte like one that does not
//! exist. SECURITY.md 20, 23, 28.

use std::time::Duration;

use totpd::service::{Context, Role};

use crate::harness::{Answer, Phone, TestServer};

const FORBIDDEN: (u16, i64, Option<&str>) = (403, 7, Some("AUTH-AWfge"));

/// A user with one confirmed and one pending authenticator.
struct Target {
    user: String,
    phone: Phone,
    pending: Phone,
    recovery_code: String,
}

fn target(server: &TestServer, org: &str, name: &str) -> Target {
    let user = server.user_in(org, name);
    let (phone, pending) = (server.enrol(&user), server.start_enrolment(&user));
    let codes = server.ask("POST", &format!("/users/{user}/recovery_codes"), "");
    Target {
        user,
        phone,
        pending,
        recovery_code: codes.expect_status(200).text("/codes/0"),
    }
}

const CALLS: [&str; 15] = [
    "create",
    "get",
    "list",
    "start",
    "verify",
    "check",
    "rename",
    "resync",
    "generate codes",
    "count codes",
    "check a recovery code",
    "remove codes",
    "invite",
    "remove",
    "delete",
];
/// The calls that change nothing and leave no event.
const READS: [&str; 3] = ["get", "list", "count codes"];
/// What a `checker` may do.
const CHECKS: [&str; 2] = ["check", "check a recovery code"];
/// What a `self` token may do for its own user.
const OWN: [&str; 10] = [
    "get",
    "list",
    "start",
    "verify",
    "rename",
    "resync",
    "remove",
    "generate codes",
    "count codes",
    "remove codes",
];

fn call(server: &TestServer, token: &str, call: &str, org: &str, at: &Target) -> Answer {
    let user = format!("/users/{}", at.user);
    let codes = format!("{user}/recovery_codes");
    let (phone, pending) = (&at.phone.id, &at.pending.id);
    let right = format!("\"{}\"", at.pending.code_at(server.now()));
    let good = format!("\"{}\"", at.phone.code_at(server.now()));
    match call {
        "create" => server.ask_as(
            token,
            "POST",
            &format!("/users?organization.orgId={org}"),
            "{}",
        ),
        "get" => server.ask_as(token, "GET", &user, ""),
        "list" => server.ask_as(token, "GET", &format!("{user}/totp"), ""),
        "rename" => server.ask_as(
            token,
            "POST",
            &format!("{user}/totp/{phone}/_rename"),
            "\"Pixel 9\"",
        ),
        "resync" => {
            let codes = [3, 4].map(|it| at.phone.code_of(server.now(), it));
            let body = serde_json::json!(codes).to_string();
            server.ask_as(
                token,
                "POST",
                &format!("{user}/totp/{phone}/_resync"),
                &body,
            )
        }
        "start" => server.ask_as(token, "POST", &format!("{user}/totp"), ""),
        "verify" => server.ask_as(
            token,
            "POST",
            &format!("{user}/totp/{pending}/_verify"),
            &right,
        ),
        "check" => server.ask_as(token, "POST", &format!("{user}/totp/_check"), &good),
        "generate codes" => server.ask_as(token, "POST", &codes, ""),
        "count codes" => server.ask_as(token, "GET", &codes, ""),
        "check a recovery code" => {
            let code = format!("\"{}\"", at.recovery_code);
            server.ask_as(token, "POST", &format!("{codes}/_check"), &code)
        }
        "remove codes" => server.ask_as(token, "DELETE", &codes, ""),
        "invite" => server.ask_as(token, "POST", &format!("{user}/_invite"), ""),
        "remove" => server.ask_as(token, "DELETE", &format!("{user}/totp/{phone}"), ""),
        "delete" => server.ask_as(token, "DELETE", &user, ""),
        other => panic!("{other}"),
    }
}

/// SECURITY.md 20: every role × {own, another user's, another organization's, unknown} × every call.
#[test]
fn rights_are_judged_on_organization_user_and_authenticator() {
    let server = TestServer::start();
    let (here, there) = (server.org.clone(), server.organization("Elsewhere"));
    let unknown_org = "1".to_owned();
    for role in ["admin", "manager", "checker", "checker of all", "self"] {
        for call_name in CALLS {
            for place in ["own", "another's", "another organization's", "unknown"] {
                let label = format!("{role}-{call_name}-{place}");
                let own = target(&server, &here, &format!("own-{label}"));
                let token_role = match role {
                    "admin" => Role::Admin,
                    "manager" => Role::Manager(here.parse().unwrap()),
                    "checker" => Role::Checker(Some(here.parse().unwrap())),
                    "checker of all" => Role::Checker(None),
                    _ => Role::Own(own.user.parse().unwrap()),
                };
                let token = server.token(token_role);
                let (org, at) = match place {
                    "own" => (&here, own),
                    "another's" => (&here, target(&server, &here, &format!("other-{label}"))),
                    "another organization's" => {
                        (&there, target(&server, &there, &format!("far-{label}")))
                    }
                    _ => (
                        &unknown_org,
                        Target {
                            user: "nobody".to_owned(),
                            ..own
                        },
                    ),
                };
                let missing = (
                    404,
                    5,
                    Some(match call_name {
                        "create" => "TOTPD-Org01",
                        "delete" => "COMMAND-syHyCsGmvM",
                        _ => "COMMAND-6T2xrOHxTx",
                    }),
                );
                let may = match role {
                    "admin" | "manager" => true,
                    "checker" | "checker of all" => CHECKS.contains(&call_name),
                    _ => place == "own" && OWN.contains(&call_name),
                };
                let sees = match place {
                    "own" | "another's" => true,
                    "another organization's" => ["admin", "checker of all"].contains(&role),
                    _ => false,
                };
                let before = server.count("SELECT count(*) FROM event");
                let answer = call(&server, &token, call_name, org, &at);
                match (may, sees) {
                    (false, _) => {
                        answer.expect_error(FORBIDDEN.0, FORBIDDEN.1, FORBIDDEN.2);
                    }
                    (true, false) => {
                        answer.expect_error(missing.0, missing.1, missing.2);
                    }
                    (true, true) => {
                        let status = if call_name == "create" { 201 } else { 200 };
                        answer.expect_status(status);
                    }
                }
                let changed = server.count("SELECT count(*) FROM event") - before;
                let expected = match call_name {
                    _ if !may || !sees || READS.contains(&call_name) => 0,
                    // Removing the last confirmed authenticator removes the recovery codes too.
                    "remove" => 2,
                    _ => 1,
                };
                assert_eq!(changed, expected, "{label}");
            }
        }
    }
}

/// SECURITY.md 20: an authenticator is found only under its own user.
#[test]
fn an_authenticator_of_another_user_is_not_there() {
    let server = TestServer::start();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let (phone, pending) = (server.enrol(&alice), server.start_enrolment(&alice));
    server
        .remove(&bob, &phone)
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    let renamed = format!("/users/{bob}/totp/{}/_rename", phone.id);
    server
        .ask("POST", &renamed, "\"Mine\"")
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    let codes = [1, 2].map(|it| phone.code_of(server.now(), it));
    let resynced = format!("/users/{bob}/totp/{}/_resync", phone.id);
    server
        .ask("POST", &resynced, &serde_json::json!(codes).to_string())
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    let right = pending.code_at(server.now());
    server
        .confirm(&bob, &pending, &right)
        .expect_error(404, 5, Some("COMMAND-3Mif9s"));
    let named = format!("/users/{bob}/totp/{}/_check", phone.id);
    let code = format!("\"{}\"", phone.code_at(server.now()));
    server
        .ask("POST", &named, &code)
        .expect_error(404, 5, Some("COMMAND-3Mif9s"));
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
}

/// SECURITY.md 20: a request that names another organization removes nothing, and neither does a token of another
/// organization.
#[test]
fn an_authenticator_is_removed_where_it_is_looked_for_and_nowhere_else() {
    let server = TestServer::start();
    let (here, there) = (server.org.clone(), server.organization("Elsewhere"));
    let manager_of = |org: &str| server.token(Role::Manager(org.parse().unwrap()));
    let (near, own) = (manager_of(&here), manager_of(&there));
    let far = target(&server, &there, "far");
    let path = format!("/users/{}/totp/{}", far.user, far.phone.id);
    let remove =
        |token: &str, query: &str| server.ask_as(token, "DELETE", &format!("{path}{query}"), "");
    let rows = || server.count("SELECT count(*) FROM totp");
    let at = |org: &str| format!("?organization.orgId={org}");
    let (at_home, away, before) = (at(&here), at(&there), rows());
    let elsewhere = [
        at_home.as_str(),
        "?organization.orgId=1",
        "?organization.orgDomain=x",
        "?instance.id=1",
        "?instance.domain=x",
    ];
    for (token, queries) in [
        (&server.admin, &elsewhere[..]),
        (&own, &elsewhere[..]),
        (&near, &["", at_home.as_str(), away.as_str()][..]),
    ] {
        for query in queries {
            remove(token, query).expect_error(404, 5, Some("COMMAND-6T2xrOHxTx"));
            assert_eq!(rows(), before, "{query}");
        }
    }
    let removed = remove(&own, &away).expect_status(200);
    assert_eq!(removed.text("/details/owner/id"), there);
    let of_there =
        format!("SELECT count(*) FROM event WHERE kind = 'totp.removed' AND org_id = '{there}'");
    assert_eq!((rows(), server.count(&of_there)), (before - 1, 1));
}

/// SECURITY.md 23
#[test]
fn out_of_sight_is_not_there_byte_for_byte() {
    let server = TestServer::start();
    let there = server.organization("Elsewhere");
    let far = target(&server, &there, "far");
    let manager = server.token(Role::Manager(server.org.parse().unwrap()));
    let own = server.token(Role::Own(server.user("me").parse().unwrap()));
    let nobody = Target {
        user: "9".repeat(far.user.len()),
        phone: server_phone(&far),
        pending: server_phone(&far),
        recovery_code: far.recovery_code.clone(),
    };
    for token in [&manager, &own] {
        for name in CALLS {
            let (seen, unseen) = (
                call(&server, token, name, &there, &far),
                call(&server, token, name, "1", &nobody),
            );
            let bytes = |it: &Answer| {
                let head: Vec<String> = it
                    .head
                    .lines()
                    .filter(|it| !it.starts_with("Date") && !it.starts_with("X-Request-Id"))
                    .map(str::to_owned)
                    .collect();
                (head, it.body.clone())
            };
            assert_eq!(bytes(&seen), bytes(&unseen), "{name}");
        }
    }
}

/// A second `Phone` with the same id and secret.
fn server_phone(of: &Target) -> Phone {
    let secret = totpd::totp::Secret::from_base32(&of.phone.secret.base32()).unwrap();
    Phone {
        id: of.phone.id.clone(),
        secret,
    }
}

/// SECURITY.md 28
#[test]
fn a_token_ends_at_once_by_revocation_by_time_and_with_its_user() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let path = format!("/users/{alice}");
    let get = |token: &str| server.ask_as(token, "GET", &path, "");
    let refused = |answer: Answer| answer.expect_error(401, 16, Some("AUTH-7fs1e"));

    let (id, token) = server.token_with(Role::Admin, None);
    get(&token).expect_status(200);
    let context = Context::command_line(server.now());
    server
        .service
        .revoke_token(&context, id.parse().unwrap())
        .unwrap();
    refused(get(&token));

    let (_, token) = server.token_with(Role::Admin, Some(Duration::from_mins(1)));
    server.pass_seconds(59);
    get(&token).expect_status(200);
    server.pass_seconds(1);
    refused(get(&token));

    let own = server.token(Role::Own(alice.parse().unwrap()));
    get(&own).expect_status(200);
    server.ask("DELETE", &path, "").expect_status(200);
    refused(get(&own));
    let again = format!(r#"{{"userId":"{alice}"}}"#);
    server.ask("POST", "/users", &again).expect_status(201);
    refused(get(&own));
    server.ask("GET", &path, "").expect_status(200);
}

/// A user that a manager creates belongs to the manager's organization. A manager learns that an id is taken in
/// another organization, and nothing else about it.
#[test]
fn a_new_user_goes_where_the_token_belongs() {
    let server = TestServer::start();
    let there = server.organization("Elsewhere");
    let manager = server.token(Role::Manager(there.parse().unwrap()));
    let made = server
        .ask_as(&manager, "POST", "/users", r#"{"userId":"u"}"#)
        .expect_status(201);
    assert_eq!(made.text("/details/owner/id"), there);
    let first = server
        .ask("POST", "/users", r#"{"userId":"v"}"#)
        .expect_status(201);
    assert_eq!(first.text("/details/owner/id"), server.org);
    let taken = server.ask_as(&manager, "POST", "/users", r#"{"userId":"v"}"#);
    taken.expect_error(409, 6, Some("TOTPD-Taken"));
    let name = r#"{"authenticators":{"usernames":[{"username":"ann"}]}}"#;
    server.ask("POST", "/users", name).expect_status(201);
    server
        .ask_as(&manager, "POST", "/users", name)
        .expect_status(201);
    server
        .ask_as(&manager, "POST", "/users", name)
        .expect_error(409, 6, Some("TOTPD-Taken"));
}
