//! The request id in each answer: whose id is kept, and what is replaced.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use totpd::serve::{Limits, Listen};

use crate::harness::{Client, TestServer};

const HEALTH: &str = "/debug/healthz";

/// A server that trusts every peer on loopback as a proxy.
fn behind_proxy() -> TestServer {
    TestServer::builder()
        .config(|it| {
            it.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            it.limits = Limits {
                body_bytes: 1_024,
                ..Limits::default()
            };
        })
        .start()
}

fn is_made_here(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit())
}

#[test]
fn a_trusted_proxys_id_is_answered_and_a_malformed_one_replaced() {
    let server = behind_proxy();
    let longest = "x".repeat(64);
    for id in ["a", "7f3A.b_c-9", longest.as_str()] {
        for target in [HEALTH, "/resources/v3alpha/users/nobody", "/no/such/path"] {
            let head = format!("X-Request-Id: {id}\r\n");
            let answer = server.raw("GET", target, &head, b"");
            assert_eq!(answer.header("x-request-id"), Some(id), "{target}");
        }
    }
    let too_long = "x".repeat(65);
    let endless = "x".repeat(10 * 1_024);
    for bad in [
        "", "a b", "a,b", "a/b", "a\"b", "ä", "a\tb", &too_long, &endless,
    ] {
        let head = format!("X-Request-Id: {bad}\r\n");
        let answer = server.raw("GET", HEALTH, &head, b"").expect_status(200);
        let id = answer.header("x-request-id").unwrap();
        assert!(is_made_here(id), "{bad:.80} gave {id}");
    }
    let twice = "X-Request-Id: one\r\nX-Request-Id: two\r\n";
    let answer = server.raw("GET", HEALTH, twice, b"").expect_status(200);
    assert!(is_made_here(answer.header("x-request-id").unwrap()));
}

#[test]
fn the_event_of_a_change_names_the_request() {
    let server = behind_proxy();
    let named = |id: &str| {
        server.count(&format!(
            "SELECT count(*) FROM event WHERE request_id = '{id}'"
        ))
    };
    let authorized = format!("Authorization: Bearer {}\r\n", server.admin);
    for id in ["given", "a b"] {
        let head = format!("{authorized}X-Request-Id: {id}\r\n");
        let made = server.raw("POST", "/resources/v3alpha/users", &head, b"{}");
        let made = made.expect_status(201);
        assert_eq!(named(made.header("x-request-id").unwrap()), 1);
    }
    assert_eq!(named("given"), 1);
    server.token(totpd::service::Role::Admin);
    assert_eq!(
        server.count(
            "SELECT count(*) FROM event WHERE actor = 'command-line' AND request_id IS NOT NULL"
        ),
        0
    );
}

#[test]
fn nobody_elses_word_counts_and_no_two_requests_share_an_id() {
    let server = TestServer::start();
    let mut client = Client::connect(&server.address());
    let mut seen = Vec::new();
    for _ in 0..100 {
        let answer = client.ask("GET", HEALTH, "X-Request-Id: forged\r\n", b"");
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert!(is_made_here(&id), "{id}");
        assert!(!seen.contains(&id), "{id} twice");
        seen.push(id);
    }
}

#[test]
fn refusals_of_the_front_end_name_the_request_as_far_as_its_head_was_read() {
    let server = behind_proxy();
    let id = "X-Request-Id: mine\r\n";
    let too_long = server.raw("POST", "/resources/v3alpha/users", id, &[b' '; 2_000]);
    let too_long = too_long.expect_status(413);
    assert_eq!(too_long.header("x-request-id"), Some("mine"));
    let bad = format!("{id}Transfer-Encoding: br\r\n");
    let bad = server.raw("GET", HEALTH, &bad, b"").expect_status(400);
    assert_eq!(bad.header("x-request-id"), Some("mine"));
    let mut client = Client::connect(&server.address());
    client.send(b"this is no request\r\n\r\n");
    let answer = client.answer(false, "no request").expect_status(400);
    assert!(is_made_here(answer.header("x-request-id").unwrap()));
}

#[test]
fn a_unix_socket_is_believed_only_where_its_user_alone_may_use_it() {
    for (mode, is_believed) in [(0o600, true), (0o666, false)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("totpd.sock");
        let listen: Listen = format!("unix:{}", path.display()).parse().unwrap();
        let _server = TestServer::builder()
            .config(|it| {
                it.listen.push(listen);
                it.unix_mode = mode;
            })
            .start();
        let mut stream = UnixStream::connect(&path).unwrap();
        let request = format!(
            "GET {HEALTH} HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let is_named = answer.contains("X-Request-Id: mine\r\n");
        assert_eq!(is_named, is_believed, "{mode:o}: {answer}");
        assert!(answer.contains("X-Request-Id: "), "{answer}");
    }
}

#[cfg(feature = "grpc")]
mod over_grpc {
    use super::{behind_proxy, is_made_here};
    use crate::harness::TestServer;
    use crate::rpc::{Rpc, encode, frame, method, path};
    use crate::transports::web_request;
    use serde_json::json;

    const NAME: &str = "x-request-id";

    /// The id in the initial metadata of an answer to a request with these headers.
    fn asked(server: &TestServer, sent: &[(&str, &str)]) -> Vec<String> {
        let health = ("/grpc.health.v1.Health/Check", frame(0, b""));
        let refused = ("/no.such.Service/Call", frame(0, b""));
        let reflection = (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            frame(0, b"\x3a\x01*"),
        );
        let usual = [("content-type", "application/grpc"), ("te", "trailers")];
        let headers = [&usual[..], sent].concat();
        [health, refused, reflection]
            .into_iter()
            .map(|(path, body)| {
                let mut rpc = Rpc::connect(&server.address());
                let (head, _, _) = rpc.raw(path, &headers, &body).unwrap();
                let id = head.get(NAME).unwrap().to_str().unwrap();
                id.to_owned()
            })
            .collect()
    }

    #[test]
    fn metadata_carries_the_id_that_a_trusted_proxy_gave() {
        let server = behind_proxy();
        assert_eq!(asked(&server, &[(NAME, "mine")]), ["mine"; 3]);
        for bad in [
            &[(NAME, "a b")][..],
            &[(NAME, "ä")],
            &[(NAME, "one"), (NAME, "two")],
            &[],
        ] {
            let ids = asked(&server, bad);
            assert!(ids.iter().all(|it| is_made_here(it)), "{bad:?}: {ids:?}");
        }
        let server = TestServer::start();
        let ids = asked(&server, &[(NAME, "forged")]);
        assert!(ids.iter().all(|it| is_made_here(it)), "{ids:?}");
    }

    #[test]
    fn the_event_of_a_change_names_the_request_over_grpc() {
        let server = behind_proxy();
        let message = encode(method("CreateUser").input(), &json!({"user": {}}));
        let token = format!("Bearer {}", server.admin);
        let headers = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", &token),
            (NAME, "mine"),
        ];
        let mut rpc = Rpc::connect(&server.address());
        rpc.raw(&path("CreateUser"), &headers, &frame(0, &message))
            .unwrap();
        let (headers, body) = web_request(false, Some(&server.admin), &message);
        let head = format!("X-Request-Id: mine\r\n{headers}");
        server
            .raw("POST", &path("CreateUser"), &head, &body)
            .expect_status(200);
        let events = server.count("SELECT count(*) FROM event WHERE request_id = 'mine'");
        assert_eq!(events, 2);
    }

    #[test]
    fn pages_may_read_the_id_of_an_answer_over_grpc_web() {
        let server = behind_proxy();
        let message = encode(method("GetUser").input(), &json!({"id": "nobody"}));
        let (headers, body) = web_request(false, Some(&server.admin), &message);
        let head = format!("Origin: https://pages.test\r\nX-Request-Id: mine\r\n{headers}");
        let answer = server.raw("POST", &path("GetUser"), &head, &body);
        assert_eq!(answer.header("x-request-id"), Some("mine"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-request-id"), "{exposed}");
    }
}
