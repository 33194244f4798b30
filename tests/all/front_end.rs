//! The front end: unambiguous parsing of requests, limits, bursts, panics, stopping.

use std::io::{Read, Write};
use std::iter::repeat;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use totpd::serve::Limits;

use crate::harness::{Client, TestServer};
use crate::wait;

const FIELD: Option<&str> = Some("TOTPD-Field");

#[test]
fn a_burst_of_120_clients_that_stay_is_answered_within_a_second_ten_times_over() {
    let server = TestServer::start();
    for round in 0..10 {
        let begun = Instant::now();
        let mut clients: Vec<Client> = (0..120)
            .map(|_| Client::connect(&server.address()))
            .collect();
        for client in &mut clients {
            client.send(b"GET /debug/healthz HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        for client in &mut clients {
            client.answer(false, "healthz").expect_status(200);
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "round {round} took {took:?}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let server = TestServer::start();
    let body = "\r\n\r\nGET /debug/healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 3",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3, 3",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +3",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0x3",
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length:",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked",
        "GET / HTTP/1.1\r\nHost: t\r\nHost: u",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost : t",
        "GET / HTTP/1.1\r\nHost: t\r\nX-Folded: a\r\n b",
        "GET / HTTP/1.1\nHost: t",
        "GET / HTTP/1.1\r\nHost: t\r\nX: a\nY: b",
        "GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b",
        "GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer \u{fc}",
        "GET /\u{fc} HTTP/1.1\r\nHost: t",
        "GET  / HTTP/1.1\r\nHost: t",
        "GET * HTTP/1.1\r\nHost: t",
        "GET / HTTP/2.0\r\nHost: t",
        "GET / HTTP/1.1\r\nHost: t\r\nExpect: a-miracle",
        "PRI * HTTP/2.0",
        "nonsense",
    ] {
        let mut client = Client::connect(&server.address());
        client.send(format!("{head}{body}").as_bytes());
        client.answer(false, head).expect_error(400, 3, FIELD);
        assert!(client.is_closed(), "a second answer to {head}");
    }
}

#[test]
fn a_second_request_hidden_in_a_body_is_body() {
    let server = TestServer::start();
    let mut client = Client::connect(&server.address());
    let hidden = b"DELETE /debug/healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    client
        .ask("GET", "/debug/healthz", "", hidden)
        .expect_status(200);
    client
        .ask("GET", "/debug/healthz", "", b"")
        .expect_status(200);
}

#[test]
fn chunks_pipelining_continue_and_http_1_0_do_what_the_rfcs_say() {
    let server = TestServer::start();
    let mut client = Client::connect(&server.address());
    let post = |headers: &str| {
        format!(
            "POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\n{headers}\r\n",
            server.admin
        )
    };
    let chunked = post("Transfer-Encoding: Chunked\r\n");
    client.send(format!("{chunked}1;x=y\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n").as_bytes());
    client.answer(false, &chunked).expect_status(201);
    for (chunks, status) in [
        ("zz\r\n", 400),
        ("2\r\n{}x\r\n0\r\n\r\n", 400),
        ("fffffffffffffffff\r\n", 400),
        ("10001\r\n", 413),
        ("0\r\nTrailer: x\r\n\r\n", 400),
        // A parser in front of totpd could see the end of the line here, and so other chunks than totpd does.
        ("2;a\nb\r\n{}\r\n0\r\n\r\n", 400),
        ("2;a\0b\r\n{}\r\n0\r\n\r\n", 400),
        ("2\r\n{}\r\n\r\n\r\n", 400),
        ("2\r\n{}\r\n;x\r\n\r\n", 400),
    ] {
        let mut client = Client::connect(&server.address());
        client.send(format!("{chunked}{chunks}").as_bytes());
        client.answer(false, chunks).expect_status(status);
        assert!(client.is_closed(), "{chunks}");
    }

    let two = "GET /debug/healthz HTTP/1.1\r\nHost: t\r\n\r\n".repeat(2);
    client.send(format!("\r\n{two}").as_bytes());
    client.answer(false, &two).expect_status(200);
    client.answer(false, &two).expect_status(200);

    let expecting = post("Content-Length: 2\r\nExpect: 100-continue\r\n");
    client.send(expecting.as_bytes());
    assert_eq!(client.answer(false, &expecting).status, 100);
    client.send(b"{}");
    client.answer(false, &expecting).expect_status(201);

    let too_much = post("Content-Length: 65537\r\nExpect: 100-continue\r\n");
    let mut refused = Client::connect(&server.address());
    refused.send(too_much.as_bytes());
    refused.answer(false, &too_much).expect_status(413);

    client.send(b"GET http://t/debug/healthz HTTP/1.1\r\nHost: t\r\n\r\n");
    client.answer(false, "absolute form").expect_status(200);
    let head = client.ask("HEAD", "/debug/healthz", "", b"");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("2"))
    );
    let last = client.ask("GET", "/debug/healthz", "Connection: Close\r\n", b"");
    assert_eq!(last.header("connection"), Some("close"));
    assert!(last.header("server").is_none() && last.header("date").is_some());
    assert!(client.is_closed());

    let mut old = Client::connect(&server.address());
    old.send(b"GET /debug/healthz HTTP/1.0\r\n\r\n");
    old.answer(false, "HTTP/1.0").expect_status(200);
    assert!(old.is_closed());
}

#[test]
fn a_panic_is_the_end_of_one_request_alone() {
    let server = TestServer::start();
    let mut client = Client::connect(&server.address());
    for _ in 0..40 {
        client
            .ask("GET", "/panic", "", b"")
            .expect_error(500, 13, None);
    }
    client
        .ask("GET", "/debug/healthz", "", b"")
        .expect_status(200);
}

/// While one change is in progress later ones gather, and then share a commit.
#[test]
fn changes_that_gather_share_a_commit_and_not_a_panic() {
    const PANICS: &str = "/resources/v3alpha/users/panic";
    // Sixteen changes are in progress and one waits, so one of eighteen is refused. The refusal shows that all others
    // have gathered.
    let server = TestServer::builder()
        .config(|it| {
            it.changes_at_once = 16;
            it.limits.waiting = 1;
        })
        .start();
    PANICS.clone_into(&mut server.panics.lock().unwrap());
    let lock = server.lock();
    let bearer = &format!("Authorization: Bearer {}\r\n", server.admin);
    let answers: Vec<(&str, u16)> = thread::scope(|scope| {
        let (tell, answered) = mpsc::channel();
        for nth in 0..18 {
            let (tell, server) = (tell.clone(), &server);
            let (method, target) = match nth {
                8 | 9 => ("DELETE", PANICS),
                _ => ("POST", "/resources/v3alpha/users"),
            };
            scope.spawn(move || {
                let status = server.raw(method, target, bearer, b"{}").status;
                tell.send((target, status)).unwrap();
            });
        }
        drop(tell);
        let refused = answered.recv().unwrap();
        assert_eq!(refused.1, 503);
        drop(lock);
        answered.iter().collect()
    });
    for (target, status) in &answers {
        let expected = if *target == PANICS { 500 } else { 201 };
        assert_eq!(*status, expected, "{target}");
    }
    let made: i64 = answers.iter().map(|it| i64::from(it.1 == 201)).sum();
    assert!(answers.len() == 17 && made < 17, "one panicked at least");
    assert_eq!(server.count("SELECT count(*) FROM user"), made);
    let shared = server.shared_commits();
    assert!((1..=3).contains(&shared), "{shared}");
}

/// An internal header that a client sends is ignored.
#[test]
fn the_peer_in_events_is_the_sockets_and_nobody_elses_word() {
    let server = TestServer::start();
    let headers = format!(
        "Authorization: Bearer {}\r\nX-Totpd-Peer: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.8\r\n",
        server.admin
    );
    server
        .raw("POST", "/resources/v3alpha/users", &headers, b"{}")
        .expect_status(201);
    let forged = "SELECT count(*) FROM event WHERE peer LIKE '203%'";
    assert_eq!(server.count(forged), 0);
    let own = "SELECT count(*) FROM event WHERE peer = '127.0.0.1'";
    assert_eq!(server.count(own), 1);
}

/// A client that has sent this part of a request.
fn begun(server: &TestServer, part: &str) -> Client {
    let mut client = Client::connect(&server.address());
    client.send(part.as_bytes());
    client
}

#[test]
fn a_request_that_is_not_whole_in_time_is_told_so() {
    let limits = Limits {
        request_time: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let parts = [
        "GET /debug/healthz HTT",
        "POST /debug/healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab",
    ];
    for (part, mut client) in parts.map(|it| (it, begun(&server, it))) {
        client
            .answer(false, part)
            .expect_error(408, 4, Some("TOTPD-Slow"));
        assert!(client.is_closed());
    }
    // An extra CRLF does not begin a request, so the client is never sent a refusal for it.
    let mut client = Client::connect(&server.address());
    for _ in 0..2 {
        client
            .ask("GET", "/debug/healthz", "", b"")
            .expect_status(200);
        client.send(b"\r\n");
        assert!(client.is_silent_for(Duration::from_millis(400)));
    }
    // Sending slowly gains no time: the limit applies to the whole request.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let took = wait::drip(&mut stream, repeat(b"x"), Duration::from_millis(20));
    assert!(took < Duration::from_secs(3), "closed after {took:?}");
}

/// A first line that could become HTTP/2 gets no more time than any other.
#[test]
fn a_first_word_that_might_be_http_2_has_no_more_time() {
    let limits = Limits {
        request_time: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let since = Instant::now();
    for (part, mut client) in ["P", "PRI * HTT"].map(|it| (it, begun(&server, it))) {
        client
            .answer(false, part)
            .expect_error(408, 4, Some("TOTPD-Slow"));
        let took = since.elapsed();
        assert!(took < Duration::from_millis(1_900), "{took:?}");
    }
}

#[test]
fn whoever_is_silent_too_long_is_sent_away_without_a_word() {
    let limits = Limits {
        idle_time: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut client = Client::connect(&server.address());
    assert!(client.is_closed());
    client = Client::connect(&server.address());
    client
        .ask("GET", "/debug/healthz", "", b"")
        .expect_status(200);
    assert!(client.is_closed());
}

#[test]
fn over_a_limit_the_longest_silent_makes_room() {
    for (connections, connections_per_peer) in [(3, 100), (100, 3)] {
        let limits = Limits {
            connections,
            connections_per_peer,
            ..Limits::default()
        };
        let server = TestServer::builder().limits(limits).start();
        // Connections are accepted in the order in which they are opened, and none of them sends anything.
        let connect = || Client::connect(&server.address());
        let (mut first, mut second, mut third) = (connect(), connect(), connect());
        let mut fourth = connect();
        assert!(first.is_closed(), "the one that was silent longest");
        for client in [&mut second, &mut third, &mut fourth] {
            client
                .ask("GET", "/debug/healthz", "", b"")
                .expect_status(200);
        }
    }
}

/// In a flood, all other connections are younger than the last request of a client that keeps sending requests.
#[test]
fn in_a_flood_the_address_that_holds_most_makes_room() {
    let limits = Limits {
        connections: 8,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut honest = Client::connect_from([127, 0, 0, 2], &server.address());
    let mut last = Instant::now();
    for _ in 0..10 {
        let healthy = honest.try_ask("GET", "/debug/healthz", "", b"");
        // If the machine stood still for a second, the connection that was idle longest is closed, which is correct.
        let Some(healthy) = healthy else {
            assert!(last.elapsed() > Duration::from_millis(900));
            return;
        };
        healthy.expect_status(200);
        last = Instant::now();
        let mut came: Vec<_> = (0..20)
            .map(|_| Client::connect(&server.address()))
            .collect();
        assert!(came[0].is_closed());
    }
}

/// A client idle for longer than a second is closed before clients that are not, even if its address has few
/// connections.
#[test]
fn the_silent_make_room_before_those_who_have_just_come() {
    let limits = Limits {
        connections: 8,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut silent = Client::connect_from([127, 0, 0, 2], &server.address());
    // The time itself is under test: the client must be idle for longer than the server's limit of one second.
    thread::sleep(Duration::from_millis(1_100));
    let _came: Vec<_> = (0..8).map(|_| Client::connect(&server.address())).collect();
    assert!(silent.is_closed());
}

/// Unfinished long bodies share one memory budget, and do not prevent short requests.
#[test]
fn long_bodies_that_are_never_finished_share_what_there_is() {
    let limits = Limits {
        connections_per_peer: 1024,
        request_time: Duration::from_secs(2),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let lengths = [
        "Content-Length: 65536\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nfffe\r\n",
    ];
    let mut unfinished: Vec<_> = (0..200)
        .map(|n| {
            let mut client = Client::connect(&server.address());
            let head = format!(
                "POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\n{}",
                lengths[n % 2]
            );
            client.send(head.as_bytes());
            client.send(&vec![b'x'; 60_000]);
            client
        })
        .collect();
    let user = server.user("short@example.org");
    server
        .ask("GET", &format!("/users/{user}"), "")
        .expect_status(200);
    let mut told: Vec<_> = unfinished
        .iter_mut()
        .map(|it| it.answer(false, "POST").status)
        .collect();
    told.sort_unstable();
    let (slow, busy) = told.split_at(told.partition_point(|it| *it == 408));
    assert!((140..170).contains(&slow.len()), "{}", slow.len());
    assert!(busy.iter().all(|it| *it == 503));
    // The memory they held is free again.
    let data = json!({"data": {"a": "x".repeat(60_000)}}).to_string();
    server.ask("POST", "/users", &data).expect_status(201);
}

/// Slow requests from an address never lock that address out. Fast requests that use up its connections do so for a
/// moment.
#[test]
fn over_the_limit_of_its_address_a_request_that_dawdles_makes_room() {
    let limits = Limits {
        connections_per_peer: 3,
        request_time: Duration::from_secs(10),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    // The answer 100 shows that the request has begun.
    let half = "POST /debug/healthz HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let drip = || {
        let mut client = Client::connect(&server.address());
        client.send(half.as_bytes());
        assert_eq!(client.answer(false, half).status, 100);
        client
    };
    let begun = Instant::now();
    let mut slow: Vec<_> = (0..3).map(|_| drip()).collect();
    let mut newest = Client::connect(&server.address());
    assert!(newest.is_closed() || begun.elapsed() >= Duration::from_millis(500));
    wait::until("there is room", || {
        let mut honest = Client::connect(&server.address());
        let healthy = honest.try_ask("GET", "/debug/healthz", "", b"");
        healthy.is_some_and(|it| it.status == 200)
    });
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "none is slow before"
    );
    assert!(slow[0].is_closed(), "the one that dawdled longest");
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = TestServer::start();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head =
        "POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; 200_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("TOTPD-Large"), "{answer}");
}
