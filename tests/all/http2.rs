//! HTTP/2 and gRPC beyond the calls: limits, deadlines, abuse, GOAWAY, reflection and health. SECURITY.md 34.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use protox::prost::Message;
use protox::prost::bytes::Bytes;
use serde_json::json;
use totpd::serve::{Limits, Listen};

use crate::frames::{
    GRPC, GRPC_TYPE, PREFACE, SETTINGS, goaway, headers_of, health, hello, ping, quick, request_to,
};
use crate::harness::{Client, TestServer};
use crate::rpc::{Rpc, encode, frame, method, outcome, path};
use crate::wait;

#[test]
fn health_follows_readiness_and_needs_no_token() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    for service in [
        "",
        crate::rpc::USERS,
        crate::rpc::TOTPS,
        crate::rpc::RECOVERY_CODES,
        crate::rpc::INVITATIONS,
    ] {
        assert_eq!(health(&mut rpc, service), Ok(1));
    }
    assert_eq!(health(&mut rpc, "no.such.Service"), Err(5));
    server.pass_seconds(-901);
    // The result of a probe is shared for a fifth of a second.
    wait::until("a clock that cannot be right", || {
        health(&mut rpc, "") == Ok(2)
    });
    let watch = rpc
        .raw("/grpc.health.v1.Health/Watch", &GRPC, &frame(0, b""))
        .unwrap();
    assert_eq!(
        watch
            .2
            .iter()
            .find(|(it, _)| it == "grpc-status")
            .unwrap()
            .1,
        "12"
    );
}

/// The requests of `grpcurl`: the list of services, and the file that defines a symbol.
#[test]
fn reflection_tells_the_protos_in_both_versions() {
    #[derive(Clone, PartialEq, Message)]
    struct Question {
        #[prost(string, optional, tag = "4")]
        symbol: Option<String>,
        #[prost(string, optional, tag = "7")]
        list: Option<String>,
    }
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let ask = |rpc: &mut Rpc, it: &Question| {
            let (_, body, trailers) = rpc
                .raw(&path, &GRPC, &frame(0, &it.encode_to_vec()))
                .unwrap();
            assert!(trailers.contains(&("grpc-status".to_owned(), "0".to_owned())));
            String::from_utf8_lossy(&body).into_owned()
        };
        let (symbol, list) = (None, Some(String::new()));
        let services = ask(&mut rpc, &Question { symbol, list });
        for service in [
            crate::rpc::USERS,
            crate::rpc::TOTPS,
            crate::rpc::RECOVERY_CODES,
            crate::rpc::INVITATIONS,
            "grpc.health.v1.Health",
            &format!("grpc.reflection.{version}.ServerReflection"),
        ] {
            assert!(services.contains(service), "{services}");
        }
        let (symbol, list) = (Some(crate::rpc::TOTPS.to_owned()), None);
        let file = ask(&mut rpc, &Question { symbol, list });
        assert!(file.contains("CheckTOTPRequest"), "{file}");
    }
}

#[test]
fn what_is_not_grpc_is_sent_to_http_1_1() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    for content_type in [
        "application/json",
        "application/grpc-web",
        "application/grpc+json",
        "text/plain",
    ] {
        let headers = [("content-type", content_type)];
        let error = rpc
            .raw("/resources/v3alpha/users", &headers, b"{}")
            .unwrap_err();
        assert_eq!(
            error.reason(),
            Some(h2::Reason::HTTP_1_1_REQUIRED),
            "{content_type}"
        );
    }
    // A call is a POST. Another method is not a call, even if everything else looks like one (SECURITY.md 22).
    let bearer = format!("Bearer {}", server.admin);
    let headers = [GRPC[0], ("authorization", bearer.as_str())];
    for verb in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PRI"] {
        let target = path("CreateUser");
        let error = rpc
            .raw_as(verb, &target, &headers, &frame(0, b""))
            .unwrap_err();
        assert_eq!(
            error.reason(),
            Some(h2::Reason::HTTP_1_1_REQUIRED),
            "{verb}"
        );
    }
    assert_eq!(server.count("SELECT count(*) FROM user"), 0);
    assert_eq!(health(&mut rpc, ""), Ok(1), "the connection goes on");
}

/// The head is read as strictly as over REST and gRPC-Web: a field that may occur once occurs at most once, headers
/// are ASCII, and a path is exactly the name of its rpc.
#[test]
fn a_head_is_read_in_one_way() {
    let server = TestServer::builder()
        .config(|it| {
            it.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        })
        .start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let known = [GRPC[0], ("authorization", bearer.as_str())];
    for more in [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
        ("grpc-timeout", "ü"),
        ("x-forwarded-for", "ü, 203.0.113.7"),
    ] {
        let headers = [&known[..], &[more]].concat();
        let told = rpc.call_with(&headers, "CreateUser", b"");
        assert_eq!(
            (told.code, told.id.as_deref()),
            (3, Some("TOTPD-Field")),
            "{more:?}"
        );
    }
    let twice = [("grpc-timeout", "9S"), ("grpc-timeout", "1n")];
    let told = rpc.call_with(&[known, twice].concat(), "CreateUser", b"");
    assert_eq!((told.code, told.id.as_deref()), (3, Some("TOTPD-Field")));
    let target = format!("{}?x=1", path("CreateUser"));
    let (_, _, trailers) = rpc.raw(&target, &known, &frame(0, b"")).unwrap();
    assert!(trailers.contains(&("grpc-status".to_owned(), "12".to_owned())));
    assert_eq!(server.count("SELECT count(*) FROM user"), 0);
}

#[test]
fn a_message_too_long_a_frame_that_is_none_and_a_timeout_that_is_none_are_refused() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let headers = [GRPC[0], ("authorization", bearer.as_str())];
    let nobody = encode(method("GetUser").input(), &json!({"id": "nobody"}));
    for timeout in ["99999999H", "1M", "60S", "60000m", "60000000u"] {
        let headers = [GRPC[0], headers[1], ("grpc-timeout", timeout)];
        let told = rpc.call_with(&headers, "GetUser", &nobody);
        assert_eq!(told.code, 5, "{timeout}");
    }
    let target = path("CreateUser");
    let mut told = |headers: &[(&str, &str)], body: &[u8]| {
        let (_, message, trailers) = rpc.raw(&target, headers, body).unwrap();
        let it = outcome(&trailers, &message, method("CreateUser").output());
        (it.code, it.id)
    };
    let field = (3, Some("TOTPD-Field".to_owned()));
    let large = (8, Some("TOTPD-Large".to_owned()));
    assert_eq!(told(&headers, &frame(0, &vec![0; 64 * 1024 + 1])), large);
    // The longest allowed message: it is read, and is not valid protobuf.
    assert_eq!(told(&headers, &frame(0, &vec![0; 64 * 1024])), field);
    assert_eq!(told(&headers, b""), field);
    assert_eq!(told(&headers, &frame(7, b"")), field);
    // Exactly one message, and no bytes after it.
    for rest in [&frame(0, b"")[..], &frame(7, b""), b"abc"] {
        assert_eq!(told(&headers, &[&frame(0, b""), rest].concat()), field);
    }
    for timeout in [
        "",
        "S",
        "1",
        "1s",
        "-1S",
        "+1S",
        "1.5S",
        "1 S",
        "123456789S",
    ] {
        let headers = [GRPC[0], headers[1], ("grpc-timeout", timeout)];
        assert_eq!(told(&headers, &frame(0, b"")), field, "{timeout}");
    }
    let slow = (4, Some("TOTPD-Slow".to_owned()));
    let headers = [GRPC[0], headers[1], ("grpc-timeout", "1n")];
    // A call whose deadline has passed is never started, whether the timer or the message comes first.
    for _ in 0..40 {
        assert_eq!(told(&headers, &frame(0, b"")), slow);
    }
    let long = "x".repeat(20_000);
    let headers = [GRPC[0], ("x-long", long.as_str())];
    assert_eq!(told(&headers, &frame(0, b"")), large);
    // Beyond the limit of h2 the refusal is one of HTTP, not of gRPC.
    let long = "x".repeat(80_000);
    let headers = [GRPC[0], ("x-long", long.as_str())];
    let refused = rpc.raw(&target, &headers, &frame(0, b""));
    assert!(refused.is_err() || refused.unwrap().0.get("grpc-status").is_none());
    assert_eq!(server.count("SELECT count(*) FROM user"), 0);
}

#[test]
fn a_request_that_is_not_whole_in_time_is_told_so() {
    let server = TestServer::builder().limits(quick()).start();
    let rpc = Rpc::connect(&server.address());
    let trailers = rpc.runtime.block_on(async {
        let mut send = rpc.send.clone().ready().await.unwrap();
        let request = http::Request::post(format!("http://t{}", path("GetUser")));
        let request = request
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        stream
            .send_data(Bytes::from_static(&[0, 0]), false)
            .unwrap();
        response.await.unwrap().headers().clone()
    });
    assert_eq!(trailers["grpc-status"], "4");
}

#[test]
fn whoever_asks_nothing_is_sent_away_and_whoever_asks_is_not() {
    let server = TestServer::builder().limits(quick()).start();
    let mut rpc = Rpc::connect(&server.address());
    let begun = Instant::now();
    // One client that sends only the preface, and one that keeps sending frames without a request.
    let mut silent = hello(&server);
    let mut pinging = hello(&server);
    while ping(&mut pinging) && begun.elapsed() < Duration::from_secs(10) {
        assert_eq!(health(&mut rpc, ""), Ok(1));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    goaway(&mut silent);
    let _reset = silent.read_to_end(&mut Vec::new());
}

/// After GOAWAY, requests in progress get time to finish. Starting new ones does not extend that time.
#[test]
fn whoever_goes_on_beginning_after_the_goodbye_is_cut_off() {
    let server = TestServer::builder().limits(quick()).start();
    let mut stream = hello(&server);
    let block = [request_to("/x"), GRPC_TYPE.to_vec()].concat();
    let requests = (0..100).map(|n| headers_of(2 * n + 1, 4, &block));
    let took = wait::drip(&mut stream, requests, Duration::from_millis(100));
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn the_limits_of_the_front_end_hold_for_it() {
    // Three connections, each with a weight of four.
    for (connections, connections_per_peer) in [(12, 100), (100, 15)] {
        let limits = Limits {
            connections,
            connections_per_peer,
            ..Limits::default()
        };
        let server = TestServer::builder().limits(limits).start();
        let connect = || {
            let mut rpc = Rpc::connect(&server.address());
            assert_eq!(health(&mut rpc, ""), Ok(1));
            rpc
        };
        let mut first = connect();
        let (mut second, mut third, mut fourth) = (connect(), connect(), connect());
        let gone = first.raw("/grpc.health.v1.Health/Check", &GRPC, &frame(0, b""));
        assert!(gone.is_err(), "the one that was silent longest makes room");
        for rpc in [&mut second, &mut third, &mut fourth] {
            assert_eq!(health(rpc, ""), Ok(1));
        }
    }
}

#[test]
fn stopping_answers_what_was_begun_and_says_goodbye() {
    // The server looks at idle connections four times a second, so `silent` is closed well before the two seconds that
    // an incomplete request has.
    let limits = Limits {
        idle_time: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut server = TestServer::builder().limits(limits).start();
    let idle = Rpc::connect(&server.address());
    let mut silent = hello(&server);
    let mut rpc = Rpc::connect(&server.address());
    assert_eq!(health(&mut rpc, ""), Ok(1));
    let bearer = format!("Bearer {}", server.admin);
    let message = frame(
        0,
        &encode(
            method("CreateUser").input(),
            &json!({"user": {"userId": "u"}}),
        ),
    );
    // The request begins before the server is told to stop, and its end is sent only afterwards.
    let (begun, rest) = message.split_at(3);
    let (response, mut stream) = rpc.runtime.block_on(async {
        let mut send = rpc.send.clone().ready().await.unwrap();
        let request = http::Request::post(format!("http://t{}", path("CreateUser")))
            .header("content-type", "application/grpc")
            .header("authorization", &bearer)
            .body(())
            .unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        stream
            .send_data(Bytes::copy_from_slice(begun), false)
            .unwrap();
        rpc.pings.ping(h2::Ping::opaque()).await.unwrap();
        (response, stream)
    });
    let stopping = std::thread::spawn(move || (server.stop(Duration::from_secs(8)), server));
    goaway(&mut silent);
    // A connection without a request is closed a second later. The request that was begun may still be completed.
    let _reset = silent.read_to_end(&mut Vec::new());
    rpc.runtime.block_on(async {
        stream
            .send_data(Bytes::copy_from_slice(rest), true)
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(body.data().await.unwrap().unwrap().len() > 5);
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    });
    let (answered, server) = stopping.join().unwrap();
    assert!(answered, "nobody was left behind");
    assert_eq!(server.count("SELECT count(*) FROM user"), 1);
    drop(idle);
}

/// The headers of a call as the admin, plus one more.
fn with<'a>(bearer: &'a str, more: (&'a str, &'a str)) -> [(&'a str, &'a str); 3] {
    [GRPC[0], ("authorization", bearer), more]
}

/// The message that creates a user with this id.
fn user(id: &str) -> Vec<u8> {
    let user = json!({"user": {"userId": id}});
    encode(method("CreateUser").input(), &user)
}

/// Sends a read on the connection. Its answer shows that every earlier call is running or waiting.
fn read(rpc: &mut Rpc, bearer: &str) {
    let nobody = encode(method("GetUser").input(), &json!({"id": "nobody"}));
    let told = rpc.call_with(&with(bearer, ("grpc-timeout", "3S")), "GetUser", &nobody);
    assert_eq!(told.code, 5);
}

/// As over REST: while one change is in progress later ones gather, and then run in one batch.
#[test]
fn changes_that_gather_share_a_commit_and_not_a_panic() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let headers = with(&bearer, ("te", "trailers"));
    path("DeleteUser").clone_into(&mut server.panics.lock().unwrap());
    let lock = server.lock();
    let begun: Vec<_> = (0..16)
        .map(|nth| match nth {
            8 => rpc.begin_call(&headers, "DeleteUser", b""),
            _ => rpc.begin_call(&headers, "CreateUser", &user(&format!("u{nth}"))),
        })
        .collect();
    read(&mut rpc, &bearer);
    drop(lock);
    let codes = begun
        .into_iter()
        .map(|it| rpc.end_call("CreateUser", it).code);
    let codes: Vec<i64> = codes.collect();
    assert_eq!(codes, [[0; 8], [13, 0, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(server.count("SELECT count(*) FROM user"), 15);
    let shared = server.shared_commits();
    assert!((1..=2).contains(&shared), "{shared}");
}

#[test]
fn a_change_that_is_given_up_before_it_is_begun_never_is_and_one_that_was_begun_goes_on() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let lock = server.lock();
    let mut begin = |id: &str, patience: &str| {
        let headers = with(&bearer, ("grpc-timeout", patience));
        let begun = rpc.begin_call(&headers, "CreateUser", &user(id));
        read(&mut rpc, &bearer);
        begun
    };
    let before = server.begun();
    let first = begin("first", "1S");
    // The read counts too. Later changes do not join the batch of the first one.
    wait::until("the first is begun", || server.begun() == before + 2);
    let given_up = [first, begin("second", "100m")];
    let last = begin("last", "9S");
    for it in given_up {
        assert_eq!(rpc.end_call("CreateUser", it).code, 4);
    }
    drop(lock);
    // Changes keep their order: when the last one is done, the others are done or were dropped.
    assert_eq!(rpc.end_call("CreateUser", last).code, 0);
    assert_eq!(
        server.count("SELECT count(*) FROM user WHERE id = 'first'"),
        1
    );
    assert_eq!(server.count("SELECT count(*) FROM user"), 2);
}

/// The number of waiting changes and their time are limited, and reads do not wait for them.
#[test]
fn changes_that_wait_are_bounded_and_hold_up_no_read() {
    let server = TestServer::builder()
        .config(|it| {
            it.changes_at_once = 1;
            it.limits.waiting = 1;
            it.limits.answer_time = Duration::from_millis(500);
        })
        .start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let headers = with(&bearer, ("te", "trailers"));
    let lock = server.lock();
    let begun =
        ["made", "waits", "too-many"].map(|id| rpc.begin_call(&headers, "CreateUser", &user(id)));
    read(&mut rpc, &bearer);
    let [made, waits, too_many] = begun;
    for it in [too_many, waits] {
        let told = rpc.end_call("CreateUser", it);
        assert_eq!((told.code, told.retry_after_s), (14, Some(1)));
    }
    drop(lock);
    assert_eq!(rpc.end_call("CreateUser", made).code, 0);
    assert_eq!(server.count("SELECT count(*) FROM user"), 1);
}

#[test]
fn stopping_answers_changes_that_have_gathered() {
    let mut server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let headers = with(&bearer, ("te", "trailers"));
    let lock = server.lock();
    let begun = ["a", "b", "c"].map(|id| rpc.begin_call(&headers, "CreateUser", &user(id)));
    read(&mut rpc, &bearer);
    let address = server.address();
    let stopping = std::thread::spawn(move || (server.stop(Duration::from_secs(8)), server));
    wait::until("nobody listens", || TcpStream::connect(&address).is_err());
    drop(lock);
    for it in begun {
        assert_eq!(rpc.end_call("CreateUser", it).code, 0);
    }
    drop(rpc);
    let (answered, server) = stopping.join().unwrap();
    assert!(answered, "nobody was left behind");
    assert_eq!(server.count("SELECT count(*) FROM user"), 3);
}

/// The peer of a call is the address of its socket, unless a trusted proxy names another. This server trusts no
/// proxy.
#[test]
fn the_peer_in_events_is_the_sockets() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let headers = [
        GRPC[0],
        ("authorization", bearer.as_str()),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-totpd-peer", "203.0.113.8"),
    ];
    let made = rpc.call_with(&headers, "CreateUser", b"");
    assert_eq!(made.code, 0);
    assert_eq!(
        server.count("SELECT count(*) FROM event WHERE peer = '127.0.0.1'"),
        1
    );
    let trusting = TestServer::builder()
        .config(|it| {
            it.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        })
        .start();
    let mut rpc = Rpc::connect(&trusting.address());
    let bearer = format!("Bearer {}", trusting.admin);
    let headers = [
        GRPC[0],
        ("authorization", bearer.as_str()),
        ("x-forwarded-for", "10.0.0.1, 203.0.113.7"),
    ];
    assert_eq!(rpc.call_with(&headers, "CreateUser", b"").code, 0);
    assert_eq!(
        trusting.count("SELECT count(*) FROM event WHERE peer = '203.0.113.7'"),
        1
    );
}

/// Frames of unknown types are ignored, so a client could send them without end. Only a complete request resets the
/// number that it may send.
#[test]
fn frames_without_a_request_end_a_connection() {
    let server = TestServer::start();
    let mut stream = hello(&server);
    let unknown = [&[0, 0x40, 0, 0xbb, 0, 0, 0, 0, 0][..], &[0; 16 * 1024]].concat();
    let mut sent = 0_usize;
    while sent < 64 * 1024 * 1024 && stream.write_all(&unknown).is_ok() {
        sent += unknown.len();
    }
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
}

#[test]
fn what_only_begins_like_http_2_is_refused_as_http_1() {
    let server = TestServer::start();
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx\r\n\r\n",
    ] {
        let mut client = Client::connect(&server.address());
        client.send(bytes);
        client
            .answer(false, "PRI")
            .expect_error(400, 3, Some("TOTPD-Field"));
        assert!(client.is_closed());
    }
    // Sent byte by byte, it is still HTTP/2.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in PREFACE.iter().chain(&SETTINGS) {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "SETTINGS come first");
}

#[test]
fn a_unix_socket_speaks_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totpd.sock");
    let listen = path.clone();
    let _server = TestServer::builder()
        .config(|it| {
            it.listen.push(Listen::Unix(listen));
        })
        .start();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&[PREFACE, &SETTINGS].concat()).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "SETTINGS come first");
}
