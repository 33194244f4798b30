//! Bad input of every kind changes nothing. Unusual but valid input is accepted.

use crate::harness::{TestServer, tidy};

const FIELD: Option<&str> = Some("TOTPD-Field");

/// Every kind of bad input gets a clear error and leaves the database unchanged byte for byte.
#[test]
fn bad_input_is_told_so_and_changes_nothing() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let totps = format!("/users/{alice}/totp");
    let (check, verify) = (
        format!("{totps}/_check"),
        format!("{totps}/{}/_verify", phone.id),
    );
    let rename = format!("{totps}/{}/_rename", phone.id);
    let resync = format!("{totps}/{}/_resync", phone.id);
    let codes = format!("/users/{alice}/recovery_codes");
    server.ask("POST", &codes, "").expect_status(200);
    let recover = format!("{codes}/_check");
    let invite = format!("/users/{alice}/_invite");
    let long = "x".repeat(201);
    let long_name = format!("\"{long}\"");
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_data = format!(
        r#"{{"data":{{"a":{}1{}}}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    let many: Vec<String> = (0..51)
        .map(|it| format!(r#"{{"username":"u{it}"}}"#))
        .collect();
    let many = format!(
        r#"{{"authenticators":{{"usernames":[{}]}}}}"#,
        many.join(",")
    );
    let table: &[(&str, &str, &[u8])] = &[
        // Malformed JSON, wrong types, a missing body, and bytes that are not UTF-8.
        ("POST", "/users", b"{"),
        ("POST", "/users", b""),
        ("POST", "/users", b"[]"),
        ("POST", "/users", b"{} {}"),
        ("POST", "/users", b"{\"userId\":5}"),
        ("POST", "/users", b"{\"userId\":\"\"}"),
        ("POST", "/users", b"{\"userId\":\"a\",\"user_id\":\"a\"}"),
        ("POST", "/users", b"{\"userId\":\"a\\u0007\"}"),
        ("POST", "/users", b"{\"userId\":\"\xff\"}"),
        ("POST", "/users", b"{\"data\":[]}"),
        ("POST", "/users", b"{\"contact\":{}}"),
        ("POST", "/users", b"{\"authenticators\":{\"password\":{}}}"),
        (
            "POST",
            "/users",
            b"{\"authenticators\":{\"usernames\":[{}]}}",
        ),
        (
            "POST",
            "/users",
            b"{\"authenticators\":{\"usernames\":[{\"username\":\"a\\nb\"}]}}",
        ),
        ("POST", "/users", deep.as_bytes()),
        ("POST", "/users", deep_data.as_bytes()),
        ("POST", "/users", many.as_bytes()),
        ("POST", "/users", b"{\"contact\":[]}"),
        ("POST", "/users", b"{\"authenticators\":[]}"),
        (
            "POST",
            "/users",
            b"{\"authenticators\":{\"usernames\":[[\"a\"]]}}",
        ),
        ("POST", &totps, b"nonsense"),
        ("POST", &totps, b"\"name\""),
        ("POST", &totps, b"{\"name\":7}"),
        ("POST", &totps, b"{\"name\":\"\"}"),
        ("POST", &format!("{totps}?replaces="), b""),
        ("POST", &format!("{totps}?replaces=%zz"), b""),
        ("POST", &format!("{totps}?replaces={long}"), b""),
        ("POST", &format!("{totps}?replaces=1&replaces=1"), b""),
        ("POST", &format!("{totps}?replaces=1&re%70laces=1"), b""),
        ("POST", &rename, b""),
        ("POST", &rename, b"null"),
        ("POST", &rename, b"7"),
        ("POST", &rename, b"{\"name\":\"Pixel 9\"}"),
        ("POST", &rename, b"\"Pixel 9\" x"),
        ("POST", &rename, b"\"\""),
        ("POST", &rename, b"\" Pixel\""),
        ("POST", &rename, b"\"a\\nb\""),
        ("POST", &rename, b"\"a\\u202eb\""),
        ("POST", &rename, b"\"\xff\""),
        ("POST", &rename, long_name.as_bytes()),
        ("POST", &rename, deep.as_bytes()),
        ("POST", &resync, b""),
        ("POST", &resync, b"null"),
        ("POST", &resync, b"{}"),
        ("POST", &resync, b"\"123456\""),
        ("POST", &resync, b"[]"),
        ("POST", &resync, b"[\"123456\"]"),
        ("POST", &resync, b"[123456,654321]"),
        ("POST", &resync, b"[\"123456\",\"12345\"]"),
        ("POST", &resync, b"[\" 123456\",\"654321\"]"),
        ("POST", &resync, b"[\"123456\",\"654321\",\"111111\"]"),
        ("POST", &resync, b"[\"123456\",\"654321\"] x"),
        ("POST", &resync, b"[\"123456\",\"\xff54321\"]"),
        ("POST", &resync, deep.as_bytes()),
        ("POST", &check, b""),
        ("POST", &check, b"123456"),
        ("POST", &check, b"{\"code\":\"123456\"}"),
        ("POST", &check, b"\"123456\" x"),
        ("POST", &check, b"\"12345\""),
        ("POST", &check, b"null"),
        ("POST", &verify, b"\"1234567890\""),
        ("POST", &verify, b"\"\xff23456\""),
        ("POST", &verify, deep.as_bytes()),
        ("POST", &recover, b""),
        ("POST", &recover, b"null"),
        ("POST", &recover, b"0123456789abcdef"),
        ("POST", &recover, b"{\"code\":\"0000-0000-0000-0000\"}"),
        ("POST", &recover, b"\"0000-0000-0000-0000\" x"),
        ("POST", &recover, b"\"0000-0000-0000-000\""),
        ("POST", &recover, b"\"0000-0000-0000-00000\""),
        ("POST", &recover, b"\"0000-0000-0000-000u\""),
        ("POST", &recover, b"\"0000_0000_0000_0000\""),
        ("POST", &recover, b"\"\xff000-0000-0000-0000\""),
        ("POST", &recover, long_name.as_bytes()),
        ("POST", &recover, deep.as_bytes()),
        ("POST", &invite, b"{"),
        ("POST", &invite, b"null"),
        ("POST", &invite, b"\"1h\""),
        ("POST", &invite, b"{\"expires\":3600}"),
        ("POST", &invite, b"{\"expires\":\"soon\"}"),
        ("POST", &invite, b"{\"expires\":\"0s\"}"),
        ("POST", &invite, b"{\"expires\":\"-1h\"}"),
        ("POST", &invite, b"{\"expires\":\"8d\"}"),
        ("POST", &invite, b"{\"expires\":\"never\"}"),
        ("POST", &invite, b"{\"expires\":\"1h\",\"expires\":\"1h\"}"),
        ("POST", &invite, deep.as_bytes()),
        // Ids that are too long or empty, and invalid percent-encoding.
        ("GET", "/users/", b""),
        ("GET", &format!("/users/{long}"), b""),
        ("DELETE", &format!("{totps}/"), b""),
        ("DELETE", &format!("{totps}/{long}"), b""),
        ("GET", "/users/%", b""),
        ("GET", "/users/%2", b""),
        ("GET", "/users/%zz", b""),
        ("GET", "/users/%+1", b""),
        ("GET", "/users/%ff", b""),
        // Invalid query strings.
        (
            "GET",
            &format!("/users/{alice}?instance.id=a&instance.id=b"),
            b"",
        ),
        ("GET", &format!("/users/{alice}?unknown=a&unknown=b"), b""),
        ("GET", &format!("/users/{alice}?instance.id=%zz"), b""),
        ("GET", &format!("/users/{alice}?instance.id="), b""),
        (
            "GET",
            &format!("/users/{alice}?instance.id=1&instance.domain=x"),
            b"",
        ),
        (
            "GET",
            &format!("/users/{alice}?organization.orgId=1&organization.org_id=1"),
            b"",
        ),
    ];
    tidy(
        &server.service,
        std::time::Duration::from_hours(1),
        server.now(),
    );
    server.service.truncate_wal().unwrap();
    let file = || std::fs::read(server.path().join("totpd.db")).unwrap();
    let log_length =
        || std::fs::metadata(server.path().join("totpd.db-wal")).map_or(0, |it| it.len());
    let before = file();
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    for (method, path, body) in table {
        let target = format!("/resources/v3alpha{path}");
        server
            .raw(method, &target, &bearer, body)
            .expect_error(400, 3, FIELD);
    }
    let whole = vec![b' '; 64 * 1024 + 1];
    let target = "/resources/v3alpha/users";
    server
        .raw("POST", target, &bearer, &whole)
        .expect_error(413, 8, Some("TOTPD-Large"));
    let head = format!("X-Large: {}\r\n", "x".repeat(16 * 1024));
    server
        .raw("POST", target, &head, b"")
        .expect_error(431, 8, Some("TOTPD-Large"));
    assert_eq!(log_length(), 0, "nothing was written");
    assert!(file() == before, "the database is what it was, to the byte");
}

/// Unusual but valid input is accepted with its intended meaning.
#[test]
fn what_is_not_needed_is_ignored() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let get = format!("/resources/v3alpha/users/{alice}?utm=1&x.y=%20&flag");
    server
        .raw("GET", &get, &bearer, b"{ not JSON")
        .expect_status(200);
    let lower = format!("authorization: bearer {}\r\n", server.admin);
    server.raw("GET", &get, &lower, b"").expect_status(200);
    let typed = format!("{bearer}Content-Type: text/plain\r\n");
    let body = format!(" \"{}\" ", phone.code_at(server.now()));
    let check = format!("/resources/v3alpha/users/{alice}/totp/_check");
    server
        .raw("POST", &check, &typed, body.as_bytes())
        .expect_status(200);
    let body = br#"{"schema_id":"s","user_id":null,"unknown":[{}],"data":{"b":1,"a":"\u00fc"}}"#;
    let made = server
        .raw("POST", "/resources/v3alpha/users", &typed, body)
        .expect_status(201);
    let shown = server
        .ask("GET", &format!("/users/{}", made.text("/details/id")), "")
        .json();
    assert_eq!(shown["user"]["schema"]["id"], "s");
    assert_eq!(shown["user"]["data"], serde_json::json!({"a": "ü", "b": 1}));
    assert_eq!(shown["user"]["state"], "USER_STATE_ACTIVE");
    assert!(
        shown["user"].get("authenticators").is_none(),
        "unset is left out"
    );
    let removal = format!("/resources/v3alpha/users/{alice}/totp/{}", phone.id);
    server
        .raw("DELETE", &removal, &bearer, b"\xff\xfe")
        .expect_status(200);
}

/// An id chosen by the caller is any string, percent-encoded in paths.
#[test]
fn an_id_may_be_any_text() {
    let server = TestServer::start();
    let body = r#"{"userId":"a/b ü?#%","authenticators":{"usernames":[{"username":"x:é"}]}}"#;
    let made = server.ask("POST", "/users", body).expect_status(201);
    assert_eq!(made.text("/details/id"), "a/b ü?#%");
    let path = "/users/a%2Fb%20%c3%BC%3F%23%25";
    server.ask("GET", path, "").expect_status(200);
    let started = server
        .ask("POST", &format!("{path}/totp"), r#"{"name":"Pixel 9"}"#)
        .expect_status(200);
    let uri = started.text("/uri");
    let secret = started.text("/secret");
    assert_eq!(
        uri,
        format!(
            "otpauth://totp/Test:x%3A%C3%A9?algorithm=SHA1&digits=6&issuer=Test&period=30&secret={secret}"
        )
    );
    let shown = server.ask("GET", path, "").json();
    assert_eq!(
        shown["user"]["authenticators"]["totps"][0]["name"],
        "Pixel 9"
    );
}
