//! Locked, inactive and active users: which calls each state refuses and allows, and the event of each change.

use totpd::service::Role;

use crate::harness::{Answer, TestServer};

const NOT_ACTIVE: (u16, i64, Option<&str>) = (400, 9, Some("COMMAND-SF3fg"));

fn go(server: &TestServer, user: &str, change: &str) -> Answer {
    server.ask("POST", &format!("/users/{user}/_{change}"), "")
}

fn state(server: &TestServer, user: &str) -> String {
    server
        .ask("GET", &format!("/users/{user}"), "")
        .text("/user/state")
}

/// Every change from every state: the new state, or the id of the refusal.
#[test]
fn every_change_of_state_leads_where_it_should_and_leaves_an_event() {
    let server = TestServer::start();
    let refusals = [
        ("lock", "COMMAND-G4LOrnjY7q"),
        ("deactivate", "COMMAND-Ob6lR5iFTe"),
        ("activate", "COMMAND-rQjbBr4J3j"),
    ];
    let table = [
        ("ACTIVE", "lock", Some("LOCKED")),
        ("ACTIVE", "deactivate", Some("INACTIVE")),
        ("ACTIVE", "activate", None),
        ("INACTIVE", "lock", Some("LOCKED")),
        ("INACTIVE", "unlock", Some("INACTIVE")),
        ("INACTIVE", "deactivate", None),
        ("INACTIVE", "activate", Some("ACTIVE")),
        ("LOCKED", "lock", None),
        ("LOCKED", "unlock", Some("ACTIVE")),
        ("LOCKED", "deactivate", None),
        ("LOCKED", "activate", None),
        ("ACTIVE", "unlock", Some("ACTIVE")),
    ];
    for (n, (from, change, to)) in table.into_iter().enumerate() {
        let user = server.user(&format!("user{n}"));
        match from {
            "LOCKED" => go(&server, &user, "lock").expect_status(200),
            "INACTIVE" => go(&server, &user, "deactivate").expect_status(200),
            _ => go(&server, &user, "unlock").expect_status(200),
        };
        server.pass_seconds(1);
        let past = match change {
            "deactivate" => "deactivated".to_owned(),
            other => format!("{other}ed").replace("eed", "ed"),
        };
        let events = format!(
            "SELECT count(*) FROM event WHERE kind = 'user.{past}' AND user_id = '{user}' AND actor <> ''"
        );
        let (before, answer) = (server.count(&events), go(&server, &user, change));
        let Some(to) = to else {
            let id = refusals.iter().find(|(it, _)| *it == change).unwrap().1;
            answer.expect_error(404, 5, Some(id));
            assert_eq!(state(&server, &user), format!("USER_STATE_{from}"));
            assert_eq!(server.count(&events), before);
            continue;
        };
        let answer = answer.expect_status(200);
        assert_eq!(state(&server, &user), format!("USER_STATE_{to}"));
        let has_changed = from != to;
        assert_eq!(
            server.count(&events) - before,
            i64::from(has_changed),
            "{from} {change}"
        );
        let changed = answer.text("/details/changed");
        assert_eq!(
            changed == server.now().to_string(),
            has_changed,
            "{from} {change}"
        );
        assert_eq!(answer.text("/details/id"), user);
        assert_eq!(answer.text("/details/owner/id"), server.org);
    }
}

#[test]
fn who_is_locked_or_inactive_checks_nothing_and_is_told_so() {
    let server = TestServer::start();
    for (away, back) in [("lock", "unlock"), ("deactivate", "activate")] {
        let user = server.user(away);
        let phone = server.enrol(&user);
        go(&server, &user, away).expect_status(200);
        let good = phone.code_at(server.now());
        let named = format!("/users/{user}/totp/{}/_check", phone.id);
        for _ in 0..8 {
            // Not even a wrong code is judged. It does not count, and the refusal reveals nothing.
            let (status, code, id) = NOT_ACTIVE;
            server
                .check(&user, &phone.wrong_at(server.now()))
                .expect_error(status, code, id);
            server.check(&user, &good).expect_error(status, code, id);
            server
                .ask("POST", &named, &format!("\"{good}\""))
                .expect_error(status, code, id);
        }
        go(&server, &user, back).expect_status(200);
        server.check(&user, &good).expect_status(200);
    }
}

#[test]
fn others_go_on_enrolling_and_removing_for_it_and_itself_only_reads_and_removes() {
    let server = TestServer::start();
    for away in ["lock", "deactivate"] {
        let user = server.user(away);
        let (phone, pending) = (server.enrol(&user), server.start_enrolment(&user));
        let own = server.token(Role::Own(user.parse().unwrap()));
        let manager = server.token(Role::Manager(server.org.parse().unwrap()));
        go(&server, &user, away).expect_status(200);
        let (path, code) = (
            format!("/users/{user}/totp"),
            format!("\"{}\"", pending.code_at(server.now())),
        );
        let verify = format!("{path}/{}/_verify", pending.id);
        let (status, number, id) = NOT_ACTIVE;
        server
            .ask_as(&own, "POST", &path, "")
            .expect_error(status, number, id);
        server
            .ask_as(&own, "POST", &verify, &code)
            .expect_error(status, number, id);
        // A missing resource is reported as missing in every state.
        server
            .ask_as(&own, "POST", &format!("{path}/1/_verify"), &code)
            .expect_error(404, 5, Some("COMMAND-3Mif9s"));
        server
            .ask_as(&own, "GET", &format!("/users/{user}"), "")
            .expect_status(200);
        server
            .ask_as(&own, "DELETE", &format!("{path}/{}", phone.id), "")
            .expect_status(200);
        server
            .ask_as(&manager, "POST", &path, "")
            .expect_status(200);
        server
            .ask_as(&manager, "POST", &verify, &code)
            .expect_status(200);
        server
            .ask_as(&manager, "DELETE", &format!("{path}/{}", pending.id), "")
            .expect_status(200);
    }
}

/// SECURITY.md 12
#[test]
fn unlocking_ends_a_wait_and_on_an_active_user_does_nothing_else() {
    let server = TestServer::start();
    let user = server.user("alice");
    let phone = server.enrol(&user);
    for _ in 0..5 {
        server
            .check(&user, &phone.wrong_at(server.now()))
            .expect_error(400, 3, Some("EVENT-8isk2"));
    }
    let good = phone.code_at(server.now());
    server
        .check(&user, &good)
        .expect_error(429, 8, Some("TOTPD-Wait1"));
    let before = server
        .ask("GET", &format!("/users/{user}"), "")
        .text("/user/details/changed");
    let unlocked = go(&server, &user, "unlock").expect_status(200);
    assert_eq!(
        unlocked.text("/details/changed"),
        before,
        "it was active already"
    );
    server.check(&user, &good).expect_status(200);
}
