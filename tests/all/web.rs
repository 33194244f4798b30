//! gRPC-Web beyond the calls themselves: allowed origins, frames, and refusals of the front end.

use serde_json::json;

use crate::harness::{Client, TestServer};
use crate::rpc::{encode, frame, method, path};
use crate::transports::{web_outcome, web_request};

#[test]
fn only_pages_of_origins_that_were_named_may_call() {
    let server = TestServer::start();
    let target = path("GetUser");
    let message = encode(method("GetUser").input(), &json!({"id": "nobody"}));
    let (headers, body) = web_request(false, Some(&server.admin), &message);
    let asks =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-grpc-web\r\n";

    let named = "Origin: https://pages.test\r\n";
    let before = server
        .raw("OPTIONS", &target, &format!("{named}{asks}"), b"")
        .expect_status(200);
    assert_eq!(before.header("access-control-allow-methods"), Some("POST"));
    let allowed = before.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("authorization") && allowed.contains("x-grpc-web"));
    let answer = server
        .raw("POST", &target, &format!("{named}{headers}"), &body)
        .expect_status(200);
    for answer in [&before, &answer] {
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://pages.test"));
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert!(answer.header("access-control-allow-credentials").is_none());
    }

    for other in [
        "Origin: https://pages.test.evil\r\n",
        "Origin: http://pages.test\r\n",
        "Origin: null\r\n",
        "",
    ] {
        server
            .raw("OPTIONS", &target, &format!("{other}{asks}"), b"")
            .expect_error(405, 12, None);
        let answer = server
            .raw("POST", &target, &format!("{other}{headers}"), &body)
            .expect_status(200);
        assert!(
            answer.header("access-control-allow-origin").is_none(),
            "{other}"
        );
    }
    let redeem = format!("{named}{asks}");
    server
        .raw("OPTIONS", "/ui/redeem", &redeem, b"")
        .expect_error(405, 12, None);
    // REST allows no origin.
    let rest = "/resources/v3alpha/users/nobody";
    server
        .raw("OPTIONS", rest, &format!("{named}{asks}"), b"")
        .expect_error(405, 12, None);
    let answer = server.raw("GET", rest, named, b"");
    assert!(answer.header("access-control-allow-origin").is_none());
}

#[test]
fn what_is_no_frame_is_refused_in_the_form_it_came() {
    let server = TestServer::start();
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let good = encode(method("GetUser").input(), &json!({"id": "nobody"}));
    let mut long = frame(0, &good);
    long.push(0);
    let text = |it: &[u8]| data_encoding::BASE64.encode(it).into_bytes();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("application/grpc-web", Vec::new()),
        ("application/grpc-web", b"{}".to_vec()),
        ("application/grpc-web+proto", frame(1, &good)),
        ("application/grpc-web+proto", frame(0x80, &good)),
        ("application/grpc-web+proto", long),
        ("application/grpc-web+proto", frame(0, &good)[..6].to_vec()),
        ("application/grpc-web+proto", frame(0, b"\xff\xff")),
        ("application/grpc-web-text", frame(0, &good)),
        ("application/grpc-web-text", b"!!!!".to_vec()),
        (
            "application/grpc-web-text+proto; charset=x",
            text(&frame(1, &good)),
        ),
    ];
    for (content_type, body) in table {
        let headers = format!("{bearer}Content-Type: {content_type}\r\n");
        let answer = server
            .raw("POST", &path("GetUser"), &headers, &body)
            .expect_status(200);
        let is_text = answer.header("content-type") == Some("application/grpc-web-text+proto");
        assert_eq!(is_text, content_type.contains("text"));
        let outcome = web_outcome(&answer, "GetUser");
        assert_eq!(
            (outcome.code, outcome.id.as_deref()),
            (3, Some("TOTPD-Field"))
        );
    }
    let json = format!("{bearer}Content-Type: application/json\r\n");
    server
        .raw("POST", &path("GetUser"), &json, b"{}")
        .expect_error(501, 12, None);
    let web = format!("{bearer}Content-Type: application/grpc-web\r\n");
    let unknown = server.raw("POST", "/no.such.Service/Rpc", &web, &frame(0, b""));
    assert_eq!(web_outcome(&unknown, "GetUser").code, 12);
}

#[test]
fn refusals_of_the_front_end_have_the_form_too() {
    let server = TestServer::start();
    let mut client = Client::connect(&server.address());
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: t\r\nOrigin: https://pages.test\r\nContent-Type: application/grpc-web\r\n\
         Content-Length: 65537\r\n\r\n",
        path("GetUser")
    );
    client.send(head.as_bytes());
    let answer = client.answer(false, &head).expect_status(200);
    let outcome = web_outcome(&answer, "GetUser");
    assert_eq!(
        (outcome.code, outcome.id.as_deref()),
        (8, Some("TOTPD-Large"))
    );
    // The page may read this answer, like every other.
    let origin = answer.header("access-control-allow-origin");
    assert_eq!(origin, Some("https://pages.test"));
    // A failure behind the front end has the same form.
    let web = "Content-Type: application/grpc-web-text\r\n";
    let answer = server.raw("POST", "/panic", web, b"").expect_status(200);
    assert_eq!(web_outcome(&answer, "GetUser").code, 13);
}
