//! The peer address and the path of a request each have exactly one interpretation.

use crate::harness::{Client, TestServer};

/// SECURITY.md 47
#[test]
fn ports_brackets_quotes_and_zones_are_taken_off_what_a_proxy_names() {
    for (forwarded, peer) in [
        ("203.0.113.7:51234", "203.0.113.7"),
        ("6.6.6.6, \"203.0.113.7:51234\"", "203.0.113.7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("\"[2001:db8::7]:443\"", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("203.0.113.7, unknown", "127.0.0.1"),
    ] {
        let server = TestServer::builder()
            .config(|it| {
                it.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            })
            .start();
        let head = format!(
            "Authorization: Bearer {}\r\nX-Forwarded-For: {forwarded}\r\n",
            server.admin
        );
        server
            .raw("POST", "/resources/v3alpha/users", &head, b"{}")
            .expect_status(201);
        let sql =
            format!("SELECT count(*) FROM event WHERE kind = 'user.created' AND peer = '{peer}'");
        assert_eq!(server.count(&sql), 1, "{forwarded}");
    }
}

/// SECURITY.md 34
#[test]
fn the_authority_of_an_absolute_target_is_no_part_of_its_path() {
    let server = TestServer::start();
    let ask = |target: &str| Client::connect(&server.address()).ask("GET", target, "", b"");
    for whole in [
        "/debug/healthz?a=/b",
        "http://t/debug/healthz",
        "HTTP://t:80/debug/healthz?",
    ] {
        ask(whole).expect_status(200);
    }
    ask("//t/debug/healthz").expect_error(404, 5, None);
    // A target without a path means `/`, which is the start page if the binary has pages.
    for pathless in ["http://t", "http://t?/debug/healthz", "http://t?"] {
        let answer = ask(pathless);
        if cfg!(feature = "web") {
            let page = answer.expect_status(200);
            assert!(page.body.starts_with(b"<!doctype html>"), "{pathless}");
        } else {
            answer.expect_error(404, 5, None);
        }
    }
    for refused in [
        "http://t#/debug/healthz",
        "/debug/healthz#",
        "http:///debug/healthz",
        "http://?/debug/healthz",
        "ftp://t/debug/healthz",
        "http:/debug/healthz",
        "*",
        "debug/healthz",
        "t:80",
        "/debug/\u{e9}",
    ] {
        ask(refused).expect_error(400, 3, Some("TOTPD-Field"));
    }
}
