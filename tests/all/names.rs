//! Which usernames are allowed, and which ones count as the same.

use crate::binary::Home;
use crate::harness::TestServer;

fn create(server: &TestServer, org: &str, username: &str) -> crate::harness::Answer {
    let username = serde_json::Value::from(username);
    let body = format!(r#"{{"authenticators":{{"usernames":[{{"username":{username}}}]}}}}"#);
    server.ask("POST", &format!("/users?organization.orgId={org}"), &body)
}

fn ids_of(server: &TestServer, username: &str, method: &str) -> Vec<String> {
    let username = serde_json::Value::from(username);
    let body = format!(r#"[{{"usernameFilter":{{"username":{username},"method":"{method}"}}}}]"#);
    let answer = server
        .ask("POST", "/users/_search", &body)
        .expect_status(200);
    let found = answer.json()["result"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    found
        .iter()
        .map(|it| it["details"]["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn usernames_that_differ_in_case_or_normalization_alone_are_one_name_of_an_organization() {
    let server = TestServer::start();
    let other = server.organization("other");
    for (first, same) in [
        ("Alice", "ALICE"),
        ("Straße", "strasse"),
        ("ΟΔΟΣ", "οδος"),
        ("Ren\u{e9}", "rene\u{301}"),
        ("\u{fb01}n", "FIN"),
    ] {
        create(&server, &server.org, first).expect_status(201);
        for username in [first, same] {
            create(&server, &server.org, username).expect_error(409, 6, Some("TOTPD-Taken"));
        }
        create(&server, &other, same).expect_status(201);

        let exact = ids_of(&server, same, "TEXT_FILTER_METHOD_EQUALS");
        let alike = ids_of(&server, same, "TEXT_FILTER_METHOD_EQUALS_IGNORE_CASE");
        assert_eq!((exact.len(), alike.len()), (1, 2), "{first} {same}");
    }
    // Folding does not depend on a locale: a Turkish ı is not an i.
    create(&server, &server.org, "il").expect_status(201);
    create(&server, &server.org, "\u{131}l").expect_status(201);
    // The same rule applies to two usernames of one user.
    let both = r#"{"authenticators":{"usernames":[{"username":"bob"},{"username":"BOB"}]}}"#;
    server
        .ask("POST", "/users", both)
        .expect_error(409, 6, Some("TOTPD-Taken"));
}

/// If many requests for one name run at once, no two of them are checked before either is written.
#[test]
fn of_many_who_take_one_name_at_once_one_gets_it() {
    let server = TestServer::start();
    let spellings = [
        "alice", "Alice", "ALICE", "aLICE", "alicE", "AliCe", "ALice", "aLiCe",
    ];
    let taken: Vec<u16> = std::thread::scope(|threads| {
        let creations = spellings.map(|it| {
            let server = &server;
            threads.spawn(move || create(server, &server.org, it).status)
        });
        creations.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(
        taken.iter().filter(|it| **it == 201).count(),
        1,
        "{taken:?}"
    );
    assert_eq!(
        taken.iter().filter(|it| **it == 409).count(),
        7,
        "{taken:?}"
    );
}

#[test]
fn characters_that_cannot_be_seen_are_refused_where_something_is_made_and_looked_for_all_the_same()
{
    let server = TestServer::start();
    let alice = server.user("alice");
    for bad in [
        "%20a",
        "a%20",
        "a%E2%80%8Bb",
        "a%E2%80%AEb",
        "a%E2%80%A8b",
        "a%0Ab",
        "a%00b",
    ] {
        let raw = percent_encoding::percent_decode_str(bad)
            .decode_utf8()
            .unwrap();
        let json = serde_json::Value::from(raw.as_ref());
        let made = format!(r#"{{"userId":{json}}}"#);
        server
            .ask("POST", "/users", &made)
            .expect_error(400, 3, Some("TOTPD-Field"));
        create(&server, &server.org, &raw).expect_error(400, 3, Some("TOTPD-Field"));
        let named = format!(r#"{{"name":{json}}}"#);
        server
            .ask("POST", &format!("/users/{alice}/totp"), &named)
            .expect_error(400, 3, Some("TOTPD-Field"));

        server
            .ask("GET", &format!("/users/{bad}"), "")
            .expect_error(404, 5, Some("COMMAND-6T2xrOHxTx"));
        server
            .ask("DELETE", &format!("/users/{alice}/totp/{bad}"), "")
            .expect_error(404, 5, Some("COMMAND-Hd9sd"));
        assert!(ids_of(&server, &raw, "TEXT_FILTER_METHOD_EQUALS").is_empty());
    }
}

/// Usernames that clashed before the rule existed are kept, and the doctor reports them.
#[test]
fn usernames_that_clash_are_kept_and_doctor_warns() {
    let (home, _) = Home::init();
    let usernames = || {
        let findings = home.json(&["doctor"]);
        let of = |it: &&serde_json::Value| it["check"] == "usernames";
        findings
            .as_array()
            .unwrap()
            .iter()
            .find(of)
            .unwrap()
            .clone()
    };
    let alice = home.json(&["user", "create", "alice"])["details"]["id"].clone();
    home.json(&["user", "create", "bob"]);
    assert_eq!(usernames()["level"], "ok");
    let older = "UPDATE username SET username = 'ALICE', folded = 'alice' WHERE username = 'bob'";
    rusqlite::Connection::open(home.data().join("totpd.db"))
        .unwrap()
        .execute(older, ())
        .unwrap();
    let warned = usernames();
    assert_eq!(warned["level"], "warn");
    assert!(
        warned["message"].as_str().unwrap().contains("ALICE"),
        "{warned}"
    );
    home.refuses(&["user", "show", "Alice"], 1, "more than one user");
    let shown = home.json(&["user", "show", "--id", alice.as_str().unwrap()]);
    assert_eq!(
        shown["user"]["authenticators"]["usernames"][0]["username"],
        "alice"
    );
}

/// A name that the current rules refuse is kept if it was stored before, and a search finds it.
#[test]
fn names_of_older_rules_stay() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let bob = server.user("bob");
    let sql = format!(
        "UPDATE username SET username = 'ALICE ' || char(8203), folded = 'alice ' || char(8203) WHERE user_id = '{bob}'"
    );
    rusqlite::Connection::open(server.path().join("totpd.db"))
        .unwrap()
        .execute(&sql, ())
        .unwrap();
    assert_eq!(
        ids_of(&server, "ALICE \u{200b}", "TEXT_FILTER_METHOD_EQUALS"),
        [bob]
    );
    assert_eq!(
        ids_of(&server, "alice", "TEXT_FILTER_METHOD_EQUALS"),
        [alice]
    );
}
