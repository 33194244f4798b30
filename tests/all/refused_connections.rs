//! Metrics: invalid requests, and connections above a limit, are counted by reason.

use std::time::Duration;

use totpd::serve::{Limits, TlsFiles};

use crate::harness::{Client, TestServer};
use crate::metrics::{moves, refused, rest, start_with, value};
use crate::wait::until;

/// Four clients, each with a request that keeps its worker while a test holds `stuck`.
fn four_at_work(server: &TestServer) -> Vec<Client> {
    let mut busy: Vec<_> = (0..4).map(|_| Client::connect(&server.address())).collect();
    for client in &mut busy {
        client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    let working = r#"totpd_workers{kind="read",state="busy"}"#;
    until("four are at work", || value(server, working) == Some(4.0));
    busy
}

#[test]
fn what_clients_do_wrong_moves_the_counter_of_its_reason() {
    let limits = Limits {
        request_time: Duration::from_millis(200),
        connections_per_peer: 4,
        ..Limits::default()
    };
    let server = start_with(limits);
    let sends = |bytes: &[u8], status: u16| {
        let mut client = Client::connect(&server.address());
        client.send(bytes);
        client.answer(false, "").expect_status(status);
    };
    let code = rest("other", "resource_exhausted");
    moves(
        &server,
        "a long head",
        &[(&refused("head"), 1.0), (&code, 1.0)],
        || {
            let long = "x".repeat(20_000);
            sends(
                format!("GET / HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n").as_bytes(),
                431,
            );
        },
    );
    moves(
        &server,
        "a long body",
        &[(&refused("body"), 1.0), (&code, 1.0)],
        || {
            sends(
                b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n",
                413,
            );
        },
    );
    moves(&server, "no HTTP", &[(&refused("malformed"), 1.0)], || {
        sends(b"\x01\x02\x03\x04\r\n\r\n", 400);
    });
    let code = rest("other", "deadline_exceeded");
    moves(
        &server,
        "a slow request",
        &[(&refused("slow"), 1.0), (&code, 1.0)],
        || {
            sends(b"GET / HTTP/1.1\r\nHost:", 408);
        },
    );
    moves(
        &server,
        "too many connections",
        &[(&refused("peer_limit"), 1.0)],
        || {
            // A request in progress is not closed in favour of another connection.
            let held = server.stuck.lock().unwrap();
            let mut busy = four_at_work(&server);
            assert_eq!(
                value(&server, r#"totpd_connections{protocol="http1"}"#),
                Some(4.0)
            );
            assert!(Client::connect(&server.address()).is_closed());
            drop(held);
            for client in &mut busy {
                client.answer(false, "").expect_status(404);
            }
        },
    );
}

#[test]
fn a_full_server_and_a_failed_handshake_are_counted() {
    let limits = Limits {
        connections: 4,
        ..Limits::default()
    };
    let server = start_with(limits);
    assert_eq!(value(&server, "totpd_connections_limit"), Some(4.0));
    moves(
        &server,
        "a full server",
        &[(&refused("limit"), 1.0)],
        || {
            let held = server.stuck.lock().unwrap();
            let _busy = four_at_work(&server);
            assert!(Client::connect(&server.address()).is_closed());
            drop(held);
        },
    );

    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["login.test".to_owned()]).unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = TestServer::builder()
        .config(|it| {
            it.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
            it.tls = Some(TlsFiles {
                cert,
                key,
                group_may_read: false,
            });
        })
        .start();
    moves(&server, "no TLS", &[(&refused("tls"), 1.0)], || {
        let mut client = Client::connect(&server.address());
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let mut rest = Vec::new();
        let _closed = client.read_rest(&mut rest);
    });
    let expires = value(&server, "totpd_tls_certificate_expiry_timestamp_seconds");
    // Certificates of that library are valid until 4096-01-01.
    assert_eq!(expires, Some(67_090_118_400.0));
}
