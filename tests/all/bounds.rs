//! Limits of what a client sends and receives. SECURITY.md 44, 45.

use rusqlite::Connection;
use serde_json::{Value, json};
use totpd::service::Role;

use crate::harness::TestServer;
use crate::rpc::{Rpc, encode, method};

const FIELD: Option<&str> = Some("TOTPD-Field");
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Makes one gRPC call as the admin.
fn call(server: &TestServer, rpc: &str, message: &Value) -> crate::rpc::Outcome {
    let mut client = Rpc::connect(&server.address());
    let message = encode(method(rpc).input(), message);
    client.call(Some(&server.admin), rpc, &message)
}

/// Inserts users with this data directly into the database, as versions without the limit stored them.
fn store_users(server: &TestServer, users: usize, data: &str) {
    let database = Connection::open(server.path().join("totpd.db")).unwrap();
    database.pragma_update(None, "foreign_keys", true).unwrap();
    let mut insert = database
        .prepare(
            "INSERT INTO user (id, id_folded, org_id, data, created, changed)
             VALUES (?1, ?1, ?2, ?3, ?4, ?4)",
        )
        .unwrap();
    database.execute_batch("BEGIN").unwrap();
    for n in 0..users {
        let id = format!("user-{n:05}");
        insert
            .execute((&id, &server.org, data, i64::try_from(n).unwrap()))
            .unwrap();
    }
    database.execute_batch("COMMIT").unwrap();
}

fn ids(result: &Value) -> Vec<String> {
    let users = result.as_array().cloned().unwrap_or_default();
    let ids = users.iter();
    ids.map(|it| it["details"]["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A page longer than 4 MiB is cut. It says how many users it contains, and the next page continues from there.
#[test]
fn a_long_page_is_cut_and_paging_goes_on_from_there() {
    const USERS: usize = 150;
    let server = TestServer::start();
    let data = json!({"a": "x".repeat(60_000)}).to_string();
    store_users(&server, USERS, &data);

    let (mut rest, mut pages) = (Vec::new(), 0);
    while rest.len() < USERS {
        let path = format!(
            "/users/_search?query.limit=1000&query.offset={}",
            rest.len()
        );
        let answer = server.ask("POST", &path, "[]").expect_status(200);
        assert!(answer.body.len() <= PAGE_BYTES, "{}", answer.body.len());
        let page = answer.json();
        assert_eq!(page["details"]["totalResult"], USERS.to_string());
        let on_page = ids(&page["result"]);
        let applied = &page["details"]["appliedLimit"];
        if rest.len() + on_page.len() < USERS {
            assert_eq!(*applied, on_page.len().to_string());
            assert!(answer.body.len() > PAGE_BYTES - 2 * data.len());
        } else {
            assert_eq!(*applied, "1000");
        }
        rest.extend(on_page);
        pages += 1;
    }
    assert!(pages > 1);
    let all: Vec<String> = (0..USERS).map(|n| format!("user-{n:05}")).collect();
    assert_eq!(rest, all);

    let mut over_grpc = Vec::new();
    while over_grpc.len() < USERS {
        let query = json!({"query": {"limit": 1000, "offset": over_grpc.len().to_string()}});
        let outcome = call(&server, "SearchUsers", &query);
        assert_eq!(outcome.code, 0, "{}", outcome.message);
        let on_page = ids(&outcome.answer["result"]);
        assert!(!on_page.is_empty() && on_page.len() * data.len() <= PAGE_BYTES);
        over_grpc.extend(on_page);
    }
    assert_eq!(over_grpc, all);
}

/// A page contains at least one user, and an empty page counts as complete.
#[test]
fn a_page_says_what_was_asked_for_where_it_is_not_cut() {
    let server = TestServer::start();
    let empty = server.ask("POST", "/users/_search?query.limit=7", "");
    let empty = empty.expect_status(200).json();
    assert_eq!(empty["details"]["appliedLimit"], "7");
    assert!(empty.get("result").is_none(), "{empty}");
    server.user("alice");
    let one = server.ask("POST", "/users/_search", "").expect_status(200);
    assert_eq!(one.json()["details"]["appliedLimit"], "100");
    assert_eq!(ids(&one.json()["result"]).len(), 1);
}

/// Every member and every element counts. Objects and lists may be nested thirty deep.
#[test]
fn data_is_bounded_in_values_and_depth_on_both_encodings() {
    let server = TestServer::start();
    let nested = |depth: usize| {
        // The data itself is one object, and the innermost value is a list.
        (2..depth).fold(json!([]), |inner, _| json!({ "a": inner }))
    };
    let list = |elements: usize| Value::from(vec![0; elements]);
    let members: serde_json::Map<String, Value> =
        (0..2_000).map(|n| (n.to_string(), Value::Null)).collect();
    for (data, is_taken) in [
        // The list counts as a value too.
        (json!({"a": list(1_999)}), true),
        (json!({"a": list(2_000)}), false),
        (json!({"a": list(1_000), "b": list(998)}), true),
        (json!({"a": list(1_000), "b": list(999)}), false),
        (Value::Object(members.clone()), true),
        (json!({"a": members}), false),
        (json!({"a": vec![json!({}); 2_000]}), false),
        (json!({"a": nested(30)}), true),
        (json!({"a": nested(31)}), false),
    ] {
        let rest = server.ask("POST", "/users", &json!({"data": data}).to_string());
        let grpc = call(&server, "CreateUser", &json!({"user": {"data": data}}));
        if !is_taken {
            let told = String::from_utf8_lossy(&rest.body).into_owned();
            assert!(told.contains("data: "), "{told}");
            rest.expect_error(400, 3, FIELD);
            assert_eq!((grpc.code, grpc.id.as_deref()), (3, FIELD));
            continue;
        }
        assert_eq!(grpc.code, 0, "{}", grpc.message);
        let rest = rest.expect_status(201).text("/details/id");
        let over_grpc = &grpc.answer["details"]["id"];
        for id in [&rest, over_grpc.as_str().unwrap()] {
            let read = server.ask("GET", &format!("/users/{id}"), "");
            assert_eq!(read.expect_status(200).json()["user"]["data"], data);
        }
    }
}

/// Data that is already stored is returned unchanged over both encodings, even if it exceeds the limit.
#[test]
fn data_that_was_stored_before_there_was_a_bound_is_still_answered() {
    let server = TestServer::start();
    let mut data = json!({"many": vec![1.5; 10_000], "text": "ü\u{0}\"\\"});
    for _ in 0..40 {
        data = json!({"a": data, "b": [[]]});
    }
    store_users(&server, 1, &data.to_string());
    let read = server
        .ask("GET", "/users/user-00000", "")
        .expect_status(200);
    let told = String::from_utf8(read.body.clone()).unwrap();
    assert!(told.contains(&data.to_string()), "as text, byte for byte");
    let found = server.ask("POST", "/users/_search", "[]");
    let found = found.expect_status(200).json();
    assert_eq!(found["result"][0]["data"], data);
}

/// At most a hundred filters, nested at most sixteen deep. Larger queries are refused before they are decoded, and
/// only for roles that may search.
#[test]
fn filters_are_counted_before_they_are_decoded() {
    let server = TestServer::start();
    let checker = server.token(Role::Checker(None));
    let one = || json!({"stateFilter": {"state": "USER_STATE_ACTIVE"}});
    let list = |filters: usize| Value::from((0..filters).map(|_| one()).collect::<Vec<_>>());
    let any = |queries: Value| json!([{"orFilter": {"queries": queries}}]);
    let deep = |depth: usize| {
        let not = |inner, _| json!({"notFilter": {"query": inner}});
        json!([(1..depth).fold(one(), not)])
    };
    for (filters, told) in [
        (list(100), None),
        (list(101), Some("too many: at most 100")),
        (any(list(99)), None),
        (any(list(100)), Some("too many: at most 100")),
        (deep(16), None),
        (deep(17), Some("nested too deeply: at most 16")),
    ] {
        let rest = server.ask("POST", "/users/_search", &filters.to_string());
        let grpc = call(&server, "SearchUsers", &json!({"filters": filters}));
        match told {
            None => {
                rest.expect_status(200);
                assert_eq!(grpc.code, 0, "{}", grpc.message);
            }
            Some(told) => {
                let rest = rest.expect_error(400, 3, FIELD).json();
                assert!(rest["message"].as_str().unwrap().contains(told), "{rest}");
                assert_eq!(rest["message"], grpc.message);
            }
        }
    }
    // An empty filter takes three bytes in JSON and two in protobuf.
    let flood = format!("[{}{{}}]", "{},".repeat(21_000));
    let refused = server.ask("POST", "/users/_search", &flood);
    let refused = refused.expect_error(400, 3, FIELD).json();
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("too many"), "{told}");
    server
        .ask_as(&checker, "POST", "/users/_search", &flood)
        .expect_error(403, 7, Some("AUTH-AWfge"));
    let mut client = Rpc::connect(&server.address());
    let flood = b"\x22\x00".repeat(32_000);
    let refused = client.call(Some(&server.admin), "SearchUsers", &flood);
    assert_eq!(refused.id.as_deref(), FIELD);
    assert!(refused.message.contains("too many"), "{}", refused.message);
    let refused = client.call(Some(&checker), "SearchUsers", &flood);
    assert_eq!(refused.code, 7);
}

#[test]
fn usernames_and_parameters_are_counted() {
    let server = TestServer::start();
    let user = |usernames: usize, prefix: &str| {
        let names = (0..usernames).map(|n| json!({"username": format!("{prefix}{n}")}));
        json!({"authenticators": {"usernames": names.collect::<Vec<_>>()}})
    };
    let made = server.ask("POST", "/users", &user(50, "rest").to_string());
    made.expect_status(201);
    let refused = server.ask("POST", "/users", &user(51, "more").to_string());
    let refused = refused.expect_error(400, 3, FIELD).json();
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("at most 50 usernames"), "{told}");
    let made = call(&server, "CreateUser", &json!({"user": user(50, "grpc")}));
    assert_eq!(made.code, 0, "{}", made.message);
    let outcome = call(&server, "CreateUser", &json!({"user": user(51, "more")}));
    assert_eq!(outcome.message, told);

    let query = |parameters: usize| {
        let parameters: Vec<String> = (0..parameters).map(|n| format!("p{n}=1")).collect();
        format!("/users/_search?{}", parameters.join("&"))
    };
    server.ask("POST", &query(32), "[]").expect_status(200);
    let refused = server.ask("POST", &query(33), "[]");
    let refused = refused.expect_error(400, 3, FIELD).json();
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("at most 32"), "{told}");
}
