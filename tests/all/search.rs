//! Searching for users: every filter, every order, stable pages, and no user that the token may not see.

use serde_json::{Value, json};
use totpd::service::Role;

use crate::harness::{Answer, TestServer};

const FIELD: Option<&str> = Some("TOTPD-Field");

fn search(server: &TestServer, token: &str, query: &str, filters: &Value) -> Answer {
    let path = format!("/users/_search{query}");
    server.ask_as(token, "POST", &path, &filters.to_string())
}

/// The ids that a search returns, in order, and the total that it reports.
fn found(answer: Answer) -> (Vec<String>, String) {
    let json = answer.expect_status(200).json();
    let ids = json["result"].as_array().cloned().unwrap_or_default();
    let ids = ids
        .iter()
        .map(|it| it["details"]["id"].as_str().unwrap().to_owned());
    let total = json["details"]["totalResult"].as_str().unwrap_or("0");
    (ids.collect(), total.to_owned())
}

fn make(server: &TestServer, org: &str, id: &str, usernames: &[(&str, bool)]) {
    let usernames: Vec<Value> = usernames
        .iter()
        .map(|(name, specific)| json!({"username": name, "isOrganizationSpecific": specific}))
        .collect();
    let body = json!({"userId": id, "authenticators": {"usernames": usernames}}).to_string();
    let path = format!("/users?organization.orgId={org}");
    server.ask("POST", &path, &body).expect_status(201);
    server.pass_seconds(1);
}

/// A few users of two organizations, created in this order.
fn populated() -> (TestServer, String) {
    let server = TestServer::start();
    let (here, there) = (server.org.clone(), server.organization("Elsewhere"));
    make(&server, &here, "c", &[("Anna", false), ("second", true)]);
    make(&server, &here, "a", &[("anna.b", false)]);
    make(&server, &there, "B", &[("Ännchen", true)]);
    make(&server, &here, "b%", &[("a%n_n*a", false)]);
    make(&server, &there, "d", &[("Straße", false), ("ΟΔΟΣ", false)]);
    make(&server, &here, "e", &[]);
    server.ask("POST", "/users/a/_lock", "").expect_status(200);
    server.pass_seconds(1);
    server
        .ask("POST", "/users/c/_deactivate", "")
        .expect_status(200);
    (server, there)
}

fn username(text: &str, method: &str) -> Value {
    json!({"usernameFilter": {"username": text, "method": format!("TEXT_FILTER_METHOD_{method}")}})
}

fn id(text: &str, method: &str) -> Value {
    json!({"userIdFilter": {"id": text, "method": format!("TEXT_FILTER_METHOD_{method}")}})
}

fn state(name: &str) -> Value {
    json!({"stateFilter": {"state": format!("USER_STATE_{name}")}})
}

#[test]
fn every_filter_finds_what_it_says() {
    let (server, there) = populated();
    let org = |method: &str| json!({"organizationIdFilter": {"id": there, "method": format!("TEXT_FILTER_METHOD_{method}")}});
    let org_part = json!({"organizationIdFilter": {"id": &there[..1], "method": 2}});
    let specific =
        json!({"usernameFilter": {"username": "n", "method": 4, "isOrganizationSpecific": true}});
    let table: &[(Value, &[&str])] = &[
        (json!([]), &["c", "a", "B", "b%", "d", "e"]),
        (json!([username("anna.b", "EQUALS")]), &["a"]),
        (json!([username("anna", "EQUALS")]), &[]),
        (json!([username("aNNa", "EQUALS_IGNORE_CASE")]), &["c"]),
        (json!([username("ann", "STARTS_WITH")]), &["a"]),
        (
            json!([username("aNN", "STARTS_WITH_IGNORE_CASE")]),
            &["c", "a"],
        ),
        (json!([username("äNN", "STARTS_WITH_IGNORE_CASE")]), &["B"]),
        (json!([username("STRASSE", "EQUALS_IGNORE_CASE")]), &["d"]),
        (json!([username("οδος", "EQUALS_IGNORE_CASE")]), &["d"]),
        (json!([username("nn", "CONTAINS")]), &["c", "a", "B"]),
        // Wildcards of other languages are plain text here.
        (json!([username("%", "CONTAINS")]), &["b%"]),
        (json!([username("_", "CONTAINS")]), &["b%"]),
        (json!([username("a%", "STARTS_WITH")]), &["b%"]),
        (json!([username("a*", "STARTS_WITH")]), &[]),
        (json!([username("' OR 1=1 --", "CONTAINS")]), &[]),
        (json!([specific]), &["c", "B"]),
        (json!([id("B", "EQUALS")]), &["B"]),
        (json!([id("b", "STARTS_WITH")]), &["b%"]),
        (json!([id("b", "STARTS_WITH_IGNORE_CASE")]), &["B", "b%"]),
        (json!([id("b", "EQUALS_IGNORE_CASE")]), &["B"]),
        (json!([id("%", "CONTAINS")]), &["b%"]),
        (json!([org("EQUALS")]), &["B", "d"]),
        (json!([org("CONTAINS")]), &["B", "d"]),
        (
            json!([org_part, {"notFilter": {"query": org("EQUALS")}}]),
            &["c", "a", "b%", "e"],
        ),
        (json!([state("LOCKED")]), &["a"]),
        (json!([state("INACTIVE")]), &["c"]),
        (json!([state("DELETED")]), &[]),
        (
            json!([{"state_filter": {"state": 1}}]),
            &["B", "b%", "d", "e"],
        ),
        (
            json!([{"notFilter": {"query": state("ACTIVE")}}]),
            &["c", "a"],
        ),
        (
            json!([{"orFilter": {"queries": [id("e", "EQUALS"), state("LOCKED"), state("DELETED")]}}]),
            &["a", "e"],
        ),
        (
            json!([{"andFilter": {"queries": [username("n", "CONTAINS"), state("ACTIVE")]}}]),
            &["B", "b%"],
        ),
        (json!([username("n", "CONTAINS"), state("LOCKED")]), &["a"]),
        // `notFilter` excludes matches, also when nested and combined with other filters.
        (
            json!([{"notFilter": {"query": username("n", "CONTAINS")}}]),
            &["d", "e"],
        ),
        (
            json!([
                {"notFilter": {"query": id("e", "EQUALS")}},
                {"notFilter": {"query": state("LOCKED")}},
                {"notFilter": {"query": username("ann", "STARTS_WITH_IGNORE_CASE")}},
            ]),
            &["B", "b%", "d"],
        ),
        (
            json!([{"not_filter": {"query": {"or_filter": {"queries": [
                username("n", "CONTAINS"), {"andFilter": {"queries": [state("ACTIVE"), org("EQUALS")]}}
            ]}}}}]),
            &["e"],
        ),
    ];
    for (filters, expected) in table {
        let (ids, total) = found(search(&server, &server.admin, "", filters));
        assert_eq!(ids, *expected, "{filters}");
        assert_eq!(total, expected.len().to_string(), "{filters}");
    }
    found(server.ask("POST", "/users/_search", ""));
}

#[test]
fn every_order_is_total_and_turns_round() {
    let (server, _) = populated();
    for (column, expected) in [
        ("0", ["c", "a", "B", "b%", "d", "e"]),
        ("FIELD_NAME_ID", ["B", "a", "b%", "c", "d", "e"]),
        ("FIELD_NAME_CREATION_DATE", ["c", "a", "B", "b%", "d", "e"]),
        ("FIELD_NAME_CHANGE_DATE", ["B", "b%", "d", "e", "a", "c"]),
        ("FIELD_NAME_STATE", ["B", "b%", "d", "e", "c", "a"]),
        ("7", ["c", "a", "B", "b%", "d", "e"]),
    ] {
        let query = format!("?sortingColumn={column}");
        let (ids, _) = found(search(&server, &server.admin, &query, &json!([])));
        assert_eq!(ids, expected, "{column}");
        let query = format!("?sorting_column={column}&query.desc=true");
        let (mut ids, _) = found(search(&server, &server.admin, &query, &json!([])));
        ids.reverse();
        assert_eq!(ids, expected, "{column} the other way round");
    }
}

#[test]
fn pages_hold_still_while_users_come() {
    let (server, _) = populated();
    let mut seen = Vec::new();
    for offset in 0..6 {
        let query = format!("?query.offset={offset}&query.limit=1");
        let answer = search(&server, &server.admin, &query, &json!([]));
        let details = answer.json()["details"].clone();
        assert_eq!(details["appliedLimit"], "1");
        assert_eq!(details["totalResult"], (6 + offset).to_string());
        assert_eq!(details["timestamp"], server.now().to_string());
        seen.extend(found(answer).0);
        // This id sorts before all others. By time of creation it is still the last one.
        make(&server, &server.org, &format!("!{offset}"), &[]);
    }
    assert_eq!(seen, ["c", "a", "B", "b%", "d", "e"]);
    let beyond = search(
        &server,
        &server.admin,
        "?query.offset=18446744073709551615",
        &json!([]),
    );
    assert_eq!(found(beyond), (vec![], "12".to_owned()));
}

/// SECURITY.md 20, 23
#[test]
fn a_search_sees_what_the_token_may_see_and_nothing_else() {
    let (server, there) = populated();
    let manager = server.token(Role::Manager(there.parse().unwrap()));
    let everything = [
        json!([]),
        json!([{"orFilter": {"queries": [state("LOCKED"), {"notFilter": {"query": state("LOCKED")}}]}}]),
        json!([{"notFilter": {"query": id("x", "EQUALS")}}]),
        json!([{"notFilter": {"query": {"organizationIdFilter": {"id": server.org}}}}]),
    ];
    for filters in everything {
        let (ids, total) = found(search(&server, &manager, "", &filters));
        assert_eq!(
            (ids, total.as_str()),
            (vec!["B".to_owned(), "d".to_owned()], "2"),
            "{filters}"
        );
    }
    let others = json!([{"organizationIdFilter": {"id": server.org}}]);
    assert!(found(search(&server, &manager, "", &others)).0.is_empty());
    for role in [
        Role::Own("a".parse().unwrap()),
        Role::Checker(None),
        Role::Checker(Some(server.org.parse().unwrap())),
    ] {
        let token = server.token(role);
        search(&server, &token, "", &json!([])).expect_error(403, 7, Some("AUTH-AWfge"));
        // The role is checked before the fields.
        search(&server, &token, "", &json!([{}])).expect_error(403, 7, Some("AUTH-AWfge"));
    }
}

#[test]
fn a_search_that_makes_no_sense_or_is_too_much_is_refused() {
    let server = TestServer::start();
    let nested = |depth: usize| {
        let mut filter = state("ACTIVE");
        for _ in 1..depth {
            filter = json!({"notFilter": {"query": filter}});
        }
        json!([filter])
    };
    found(search(&server, &server.admin, "", &nested(16)));
    let many: Vec<Value> = (0..100).map(|_| state("ACTIVE")).collect();
    found(search(&server, &server.admin, "", &json!(many)));
    let too_many: Vec<Value> = (0..101).map(|_| state("ACTIVE")).collect();
    for filters in [
        nested(17),
        nested(100),
        json!(too_many),
        json!({}),
        json!([[]]),
        json!([{}]),
        json!([null]),
        json!([{"stateFilter": {}}]),
        json!([{"stateFilter": {"state": "USER_STATE_ASLEEP"}}]),
        json!([{"stateFilter": {"state": 5}}]),
        json!([{"stateFilter": {"state": 1.5}}]),
        json!([{"stateFilter": []}]),
        json!([{"stateFilter": {"state": 1}, "userIdFilter": {"id": "a"}}]),
        json!([{"stateFilter": {"state": 1}, "state_filter": {"state": 1}}]),
        json!([{"orFilter": {}}]),
        json!([{"andFilter": {"queries": []}}]),
        json!([{"notFilter": {}}]),
        json!([{"userIdFilter": {}}]),
        json!([{"userIdFilter": {"id": "x".repeat(201)}}]),
        json!([{"userIdFilter": {"id": "a", "method": 5}}]),
        json!([{"usernameFilter": {"username": ""}}]),
        json!([{"emailFilter": {"address": "a"}}]),
        json!([{"phoneFilter": {}}]),
        json!([{"schemaIdFilter": {"id": "a"}}]),
        json!([{"schemaTypeFilter": {"type": "a"}}]),
    ] {
        search(&server, &server.admin, "", &filters).expect_error(400, 3, FIELD);
    }
    for query in [
        "?query.limit=1001",
        "?query.limit=-1",
        "?query.limit=4294967296",
        "?query.limit=",
        "?query.offset=1.5",
        "?query.offset=18446744073709551616",
        "?query.desc=yes",
        "?sortingColumn=FIELD_NAME_EMAIL",
        "?sortingColumn=5",
        "?sortingColumn=8",
        "?sortingColumn=9",
        "?sortingColumn=id",
        "?sortingColumn=1&sorting_column=1",
    ] {
        search(&server, &server.admin, query, &json!([])).expect_error(400, 3, FIELD);
    }
    found(search(
        &server,
        &server.admin,
        "?query.limit=1000",
        &json!([]),
    ));
}

/// Asserts the results and prints the times. `cargo test --release --test all a_page_of -- --ignored --nocapture` on
/// an idle machine shows each search under 20 ms (p99).
#[test]
#[ignore = "it fills a database with 100,000 users and measures"]
fn a_page_of_100_among_100_000_users_is_right_and_takes_so_long() {
    const ROUNDS: usize = 200;
    let server = TestServer::start();
    let database = rusqlite::Connection::open(server.path().join("totpd.db")).unwrap();
    let fill = format!(
        "BEGIN;
         INSERT INTO user (id, id_folded, org_id, state, created, changed)
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)
         SELECT printf('%018d', i), printf('%018d', i), '{org}',
             CASE i % 10 WHEN 0 THEN 'locked' WHEN 1 THEN 'inactive' ELSE 'active' END, i, i FROM n;
         INSERT INTO username (id, user_id, org_id, username, folded, org_specific)
         SELECT id, id, org_id, printf('User%05d', created), printf('user%05d', created), 0 FROM user;
         COMMIT",
        org = server.org
    );
    database.execute_batch(&fill).unwrap();
    let manager = server.token(Role::Manager(server.org.parse().unwrap()));
    let nested = json!([
        {"orFilter": {"queries": [
            username("User1", "STARTS_WITH"),
            {"andFilter": {"queries": [username("user77", "STARTS_WITH_IGNORE_CASE"), state("LOCKED")]}},
        ]}},
        {"notFilter": {"query": state("INACTIVE")}},
    ]);
    let cases = [
        (
            "prefix of 10",
            10,
            json!([username("User1234", "STARTS_WITH")]),
        ),
        (
            "prefix of 10,000",
            10_000,
            json!([username("User1", "STARTS_WITH")]),
        ),
        (
            "prefix, case ignored",
            1_000,
            json!([username("uSER12", "STARTS_WITH_IGNORE_CASE")]),
        ),
        ("state, 10,000", 10_000, json!([state("LOCKED")])),
        ("state, 80,000", 80_000, json!([state("ACTIVE")])),
        // One in ten of 10,000 is inactive, and one in ten of the other 1,000 is locked.
        ("nested", 9_000 + 100, nested),
        // One in ten of 90,000 is locked.
        (
            "nested, all but some",
            81_000,
            json!([
                {"notFilter": {"query": username("User1", "STARTS_WITH")}}, {"notFilter": {"query": state("LOCKED")}},
            ]),
        ),
        ("all", 100_000, json!([])),
    ];
    for (name, expected, filters) in cases {
        for (who, token) in [("admin", &server.admin), ("manager", &manager)] {
            for query in ["", "?sortingColumn=FIELD_NAME_ID&query.desc=true"] {
                let (ids, total) = found(search(&server, token, query, &filters));
                assert_eq!(total, expected.to_string(), "{name}");
                assert_eq!(ids.len(), expected.min(100), "{name}");
                let mut took = Vec::with_capacity(ROUNDS);
                for _ in 0..ROUNDS {
                    let begun = std::time::Instant::now();
                    search(&server, token, query, &filters).expect_status(200);
                    took.push(begun.elapsed());
                }
                took.sort();
                let (p50, p99) = (took[ROUNDS / 2], took[ROUNDS * 99 / 100]);
                println!("{name}, {who}{query}: p50 {p50:?}, p99 {p99:?}");
            }
        }
    }
}

/// As protojson reads numbers.
#[test]
fn a_whole_number_may_be_written_with_a_point_or_an_exponent() {
    let server = TestServer::start();
    server.user("alice");
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let events = |body: &str| {
        let target = "/admin/v1/events/_search";
        server.raw("POST", target, &bearer, body.as_bytes())
    };
    for body in [r#"{"limit":1.0}"#, r#"{"limit":1e0}"#, r#"{"limit":10E-1}"#] {
        let answer = events(body).expect_status(200);
        assert_eq!(answer.json()["events"].as_array().unwrap().len(), 1);
    }
    events(r#"{"sequence":-0.0}"#).expect_status(200);
    for body in [
        r#"{"limit":1.5}"#,
        r#"{"limit":-1.0}"#,
        r#"{"limit":4294967296.0}"#,
        r#"{"sequence":1e300}"#,
    ] {
        events(body).expect_error(400, 3, Some("TOTPD-Field"));
    }
    let search = |state: &str| {
        let filters = format!(r#"[{{"stateFilter":{{"state":{state}}}}}]"#);
        server.ask("POST", "/users/_search", &filters)
    };
    let found = search("1.0").expect_status(200);
    assert_eq!(found.text("/details/totalResult"), "1");
    search("5.0").expect_error(400, 3, Some("TOTPD-Field"));
    search("1.5").expect_error(400, 3, Some("TOTPD-Field"));
}
