//! Invitation links over REST: inviting a user, the URL that the link begins with, and how the pages redeem it.
//! SECURITY.md 41.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::json;
use totpd::serve::Listen;

use crate::harness::{Answer, Client, TestServer};

fn invite(server: &TestServer, user: &str, body: &str) -> Answer {
    let path = format!("/users/{user}/_invite");
    server.ask("POST", &path, body).expect_status(200)
}

fn code_of(invited: &Answer) -> String {
    let url = invited.text("/url");
    url.split_once("/ui/#").unwrap().1.to_owned()
}

fn redeem(server: &TestServer, code: &str) -> Answer {
    let body = json!({"code": code}).to_string();
    server.raw("POST", "/ui/redeem", "", body.as_bytes())
}

#[track_caller]
fn refused(server: &TestServer, code: &str) {
    let answer = redeem(server, code).expect_error(401, 16, Some("AUTH-7fs1e"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

#[test]
fn an_application_invites_and_the_page_redeems_the_link_once() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let hour = Duration::from_hours(1);
    for (body, lifetime) in [
        ("", hour),
        ("{}", hour),
        (r#"{"expires":null}"#, hour),
        (r#"{"expires":""}"#, hour),
        (r#"{"expires":"7d"}"#, 7 * 24 * hour),
    ] {
        let invited = invite(&server, &alice, body);
        assert_eq!(invited.text("/details/id"), alice);
        let expires = server.now().after(lifetime).to_string();
        assert_eq!(invited.text("/expires"), expires, "{body}");
    }
    let code = code_of(&invite(&server, &alice, ""));
    let redeemed = redeem(&server, &code).expect_status(200);
    let token = redeemed.text("/token");
    let expected = json!({
        "token": token, "role": "self", "userId": alice, "expires": server.now().after(hour).to_string(),
    });
    assert_eq!(redeemed.json(), expected);
    refused(&server, &code);
    let get = |path: &str| server.ask_as(&token, "GET", path, "");
    get(&format!("/users/{alice}")).expect_status(200);
    get("/users/1").expect_error(403, 7, Some("AUTH-AWfge"));
    // Locking the user voids the next link.
    let code = code_of(&invite(&server, &alice, ""));
    let path = |action: &str| format!("/users/{alice}/{action}");
    server.ask("POST", &path("_lock"), "").expect_status(200);
    refused(&server, &code);
    let locked = server.ask("POST", &path("_invite"), "");
    locked.expect_error(400, 9, Some("COMMAND-SF3fg"));
    server.ask("POST", &path("_unlock"), "").expect_status(200);
    refused(&server, &code);
}

#[test]
fn of_many_requests_with_one_link_one_gets_a_token() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let code = code_of(&invite(&server, &alice, ""));
    let barrier = Barrier::new(16);
    let ask = || {
        let mut client = Client::connect(&server.address());
        let body = json!({"code": code}).to_string();
        barrier.wait();
        client.ask("POST", "/ui/redeem", "", body.as_bytes()).status
    };
    let mut told: Vec<u16> = thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    });
    told.sort_unstable();
    assert_eq!((told[0], told[1], told[15]), (200, 401, 401));
}

#[test]
fn a_link_begins_with_the_configured_url_and_never_with_what_a_request_says() {
    let names = [
        "Host: evil.example\r\n",
        "Host: test\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n",
        "Host: test\r\nOrigin: https://evil.example\r\nReferer: https://evil.example/\r\n",
    ];
    let urls = |server: &TestServer| {
        let alice = server.user("alice");
        let target = format!("/resources/v3alpha/users/{alice}/_invite");
        let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
        let ask = |target: &str, host: &str| {
            let mut client = Client::connect(&server.address());
            let head = format!("POST {target} HTTP/1.1\r\n{host}{bearer}Content-Length: 0\r\n\r\n");
            client.send(head.as_bytes());
            client.answer(false, &head).expect_status(200).text("/url")
        };
        let mut urls: Vec<_> = names.iter().map(|host| ask(&target, host)).collect();
        let absolute = format!("http://evil.example{target}");
        urls.push(ask(&absolute, names[0]));
        urls
    };
    let server = TestServer::start();
    for url in urls(&server) {
        let begins = format!("http://{}/ui/#", server.address());
        assert!(url.starts_with(&begins), "{url}");
    }
    let server = TestServer::builder()
        .config(|it| it.public_url = Some("https://totp.example.org/second".to_owned()))
        .start();
    for url in urls(&server) {
        assert!(
            url.starts_with("https://totp.example.org/second/ui/#"),
            "{url}"
        );
    }
    let everywhere = |it: &mut totpd::serve::Config| {
        it.listen = vec![Listen::Tcp("0.0.0.0:0".to_owned())];
        it.insecure_plaintext = true;
    };
    let server = TestServer::builder().config(everywhere).start();
    for url in urls(&server) {
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }
}

/// A server with only Unix sockets does not know the URL by which a browser reaches it.
#[test]
fn without_a_url_nobody_is_invited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api");
    let server = TestServer::builder()
        .config(|it| it.listen = vec![Listen::Unix(path.clone())])
        .start();
    let ask = |token: &str, user: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let request = format!(
            "POST /resources/v3alpha/users/{user}/_invite HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    };
    let answer = ask(&server.admin, "1");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("TOTPD-Store"), "{answer}");
    assert!(ask("nonsense", "1").starts_with("HTTP/1.1 401 "));
    let kept = "SELECT (SELECT count(*) FROM invitation)
        + (SELECT count(*) FROM event WHERE kind = 'invitation.created')";
    assert_eq!(server.count(kept), 0);
}

/// Redeeming an unknown code is not a change, so it neither delays changes nor waits for them.
#[test]
fn an_unknown_code_is_refused_while_changes_are_stuck() {
    let server = TestServer::start();
    let stuck = server.stuck.lock().unwrap();
    let request = format!(
        "DELETE /resources/v3alpha/users/stuck HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\n\r\n",
        server.admin
    );
    let mut waiting: Vec<_> = (0..4).map(|_| Client::connect(&server.address())).collect();
    for client in &mut waiting {
        client.send(request.as_bytes());
    }
    for code in ["", "nonsense", &"x".repeat(10_000)] {
        refused(&server, code);
    }
    drop(stuck);
    for client in &mut waiting {
        client.answer(false, &request).expect_status(404);
    }
}

#[test]
fn a_redemption_takes_one_code_in_the_body_and_repeats_nothing() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let code = code_of(&invite(&server, &alice, ""));
    for body in [
        String::new(),
        "{}".to_owned(),
        code.clone(),
        format!("\"{code}\""),
        format!("{{\"code\":[\"{code}\"]}}"),
        format!("{{\"{code}\":1"),
        format!("{{\"code\":\"{code}\",\"code\":\"{code}\"}}"),
        "{\"code\":7}".to_owned(),
        "{\"code\":null}".to_owned(),
    ] {
        let answer = server.raw("POST", "/ui/redeem", "", body.as_bytes());
        let answer = answer.expect_error(400, 3, Some("TOTPD-Field"));
        let told = String::from_utf8_lossy(&answer.body);
        assert!(!told.contains(&code), "{told}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let wrong = server.raw(method, "/ui/redeem", "", b"");
        let wrong = wrong.expect_error(405, 12, None);
        assert_eq!(wrong.header("allow"), Some("POST"));
    }
    // A code in the query would be written to logs.
    let query = format!("/ui/redeem?code={code}");
    let in_query = server.raw("POST", &query, "", b"");
    in_query.expect_error(400, 3, Some("TOTPD-Field"));
    redeem(&server, &code).expect_status(200);
}
