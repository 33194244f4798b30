//! HTTP/2 and gRPC beyond the calls: limits, deadlines, abuse, farewell, reflection and health. SECURITY.md 34.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use protox::prost::Message;
use protox::prost::bytes::Bytes;
use serde_json::json;
use totpd::serve::{Limits, Listen};

use crate::harness::{Client, TestServer};
use crate::rpc::{Rpc, encode, frame, method, outcome, path, unframe};

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As many as one connection may have at once.
const STREAMS: u32 = 32;
/// SETTINGS with nothing in it.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

fn quick() -> Limits {
    Limits {
        idle_time: Duration::from_millis(400),
        take_time: Duration::from_millis(400),
        request_time: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// Health over gRPC: 1 is SERVING, 2 is NOT_SERVING.
fn health(rpc: &mut Rpc, service: &str) -> Result<u8, i64> {
    let request = [&[10, service.len() as u8], service.as_bytes()].concat();
    let path = "/grpc.health.v1.Health/Check";
    let (_, body, trailers) = rpc.raw(path, &GRPC, &frame(0, &request)).unwrap();
    let status = trailers.iter().find(|(name, _)| name == "grpc-status");
    match status.unwrap().1.as_str() {
        "0" => Ok(unframe(&body).1[1]),
        code => Err(code.parse().unwrap()),
    }
}

#[test]
fn health_follows_readiness_and_needs_no_token() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    for service in ["", crate::rpc::USERS, crate::rpc::TOTPS] {
        assert_eq!(health(&mut rpc, service), Ok(1));
    }
    assert_eq!(health(&mut rpc, "no.such.Service"), Err(5));
    server.pass_seconds(-901);
    std::thread::sleep(Duration::from_millis(210));
    assert_eq!(health(&mut rpc, ""), Ok(2), "a clock that cannot be right");
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

/// What `grpcurl` asks: which services there are, and the file that has a symbol.
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
    // A call is a POST: what is not is no call, though it looks like one in all else (SECURITY.md 22).
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

/// As REST and gRPC-Web read it: what may stand once stands once, what is a header is ASCII, and a path has no more to
/// it than its name.
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
    let target = path("CreateUser");
    let mut told = |headers: &[(&str, &str)], body: &[u8]| {
        let (_, message, trailers) = rpc.raw(&target, headers, body).unwrap();
        let it = outcome(&trailers, &message, method("CreateUser").output());
        (it.code, it.id)
    };
    let field = (3, Some("TOTPD-Field".to_owned()));
    let large = (8, Some("TOTPD-Large".to_owned()));
    assert_eq!(told(&headers, &frame(0, &vec![0; 64 * 1024 + 1])), large);
    // As long as allowed: it is read, and found to be no message.
    assert_eq!(told(&headers, &frame(0, &vec![0; 64 * 1024])), field);
    assert_eq!(told(&headers, b""), field);
    assert_eq!(told(&headers, &frame(7, b"")), field);
    // One message, and nothing after it.
    for rest in [&frame(0, b"")[..], &frame(7, b""), b"abc"] {
        assert_eq!(told(&headers, &[&frame(0, b""), rest].concat()), field);
    }
    for timeout in ["", "1", "1s", "-1S", "123456789S"] {
        let headers = [GRPC[0], headers[1], ("grpc-timeout", timeout)];
        assert_eq!(told(&headers, &frame(0, b"")), field, "{timeout}");
    }
    let slow = (4, Some("TOTPD-Slow".to_owned()));
    let headers = [GRPC[0], headers[1], ("grpc-timeout", "1n")];
    // Nothing is begun that nobody waits for, however the timer and the message race.
    for _ in 0..40 {
        assert_eq!(told(&headers, &frame(0, b"")), slow);
    }
    let long = "x".repeat(20_000);
    let headers = [GRPC[0], ("x-long", long.as_str())];
    assert_eq!(told(&headers, &frame(0, b"")), large);
    // Beyond what h2 reads it says so in HTTP's words.
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
    // A client that only says hello, and one that goes on sending frames that ask for nothing.
    let mut silent = hello(&server);
    let mut pinging = hello(&server);
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    while pinging.write_all(&ping).is_ok() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(health(&mut rpc, ""), Ok(1));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let mut rest = Vec::new();
    let _reset = silent.read_to_end(&mut rest);
    assert!(rest.windows(4).any(|it| it[3] == 7), "GOAWAY is said");
}

/// After the goodbye what was begun has its time, and not what is begun again and again.
#[test]
fn whoever_goes_on_beginning_after_the_goodbye_is_cut_off() {
    let server = TestServer::builder().limits(quick()).start();
    let mut stream = hello(&server);
    let begun = Instant::now();
    for n in 0..100_u32 {
        let block = [request_to("/x"), GRPC_TYPE.to_vec()].concat();
        if stream.write_all(&headers_of(2 * n + 1, 4, &block)).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
}

/// A connection that has said hello and nothing more.
fn hello(server: &TestServer) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&SETTINGS).unwrap();
    stream
}

#[test]
fn the_limits_of_the_front_end_hold_for_it() {
    // Three, each of which counts as four.
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
    let mut server = TestServer::start();
    let idle = Rpc::connect(&server.address());
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
    // A request is begun, the server is told to stop, and the rest comes only then.
    let (begun, rest) = message.split_at(3);
    let stopping = rpc.runtime.block_on(async {
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
        tokio::time::sleep(Duration::from_millis(200)).await;
        let stopping = std::thread::spawn(move || (server.stop(Duration::from_secs(8)), server));
        // Longer than a connection may stay on which nothing is under way.
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        stream
            .send_data(Bytes::copy_from_slice(rest), true)
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(body.data().await.unwrap().unwrap().len() > 5);
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        stopping
    });
    let (answered, server) = stopping.join().unwrap();
    assert!(answered, "nobody was left behind");
    assert_eq!(server.count("SELECT count(*) FROM user"), 1);
    drop(idle);
}

/// The headers of a call as admin, and one more.
fn with<'a>(bearer: &'a str, more: (&'a str, &'a str)) -> [(&'a str, &'a str); 3] {
    [GRPC[0], ("authorization", bearer), more]
}

/// The message that creates a user of that id.
fn user(id: &str) -> Vec<u8> {
    let user = json!({"user": {"userId": id}});
    encode(method("CreateUser").input(), &user)
}

/// A read on the connection: when it is answered, whatever was begun before has come to where it is worked on or
/// waits.
fn read(rpc: &mut Rpc, bearer: &str) {
    let nobody = encode(method("GetUser").input(), &json!({"id": "nobody"}));
    let told = rpc.call_with(&with(bearer, ("grpc-timeout", "3S")), "GetUser", &nobody);
    assert_eq!(told.code, 5);
}

/// As over REST: while one change is being made the next ones gather, and are then made in one batch.
#[test]
fn changes_that_gather_share_a_commit_and_not_a_panic() {
    let server = TestServer::start();
    let mut rpc = Rpc::connect(&server.address());
    let bearer = format!("Bearer {}", server.admin);
    let headers = with(&bearer, ("te", "trailers"));
    let lock = server.lock();
    let begun: Vec<_> = (0..16)
        .map(|nth| match nth {
            8 => rpc
                .begin("POST", "/panic", &headers, &frame(0, b""))
                .unwrap(),
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
    let given_up = [begin("first", "1S"), begin("second", "100m")];
    let last = begin("last", "9S");
    for it in given_up {
        assert_eq!(rpc.end_call("CreateUser", it).code, 4);
    }
    drop(lock);
    // Nobody overtakes: when it is made the others are, or never will be.
    assert_eq!(rpc.end_call("CreateUser", last).code, 0);
    assert_eq!(
        server.count("SELECT count(*) FROM user WHERE id = 'first'"),
        1
    );
    assert_eq!(server.count("SELECT count(*) FROM user"), 2);
}

/// Changes wait for a place, so many and so long, and reads wait for none of them.
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
    let stopping = std::thread::spawn(move || (server.stop(Duration::from_secs(8)), server));
    std::thread::sleep(Duration::from_millis(200));
    drop(lock);
    for it in begun {
        assert_eq!(rpc.end_call("CreateUser", it).code, 0);
    }
    drop(rpc);
    let (answered, server) = stopping.join().unwrap();
    assert!(answered, "nobody was left behind");
    assert_eq!(server.count("SELECT count(*) FROM user"), 3);
}

/// The peer of a call is the socket's, or who a trusted proxy names: here nobody is trusted.
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

/// Frames of a kind that nobody knows are passed over, so a client could send them for ever. Only a complete request
/// renews what it may send.
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

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A request's HEADERS frame on a stream, its head complete or not.
fn headers(stream: u32, flags: u8) -> Vec<u8> {
    headers_of(stream, flags, &request_to("/"))
}

/// :method POST, :scheme http, :authority and :path, as HPACK's static table has them.
fn request_to(path: &str) -> Vec<u8> {
    let begin = [0x83, 0x86, 0x41, 1, b't', 0x44, path.len() as u8];
    [&begin, path.as_bytes()].concat()
}

/// content-type: application/grpc
const GRPC_TYPE: &[u8] = b"\x5f\x10application/grpc";
/// A window that lets nothing of an answer's body through.
const CLOSED: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];

fn headers_of(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = (block.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[1, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

/// A whole request for health.
fn asks_health(stream: u32) -> Vec<u8> {
    let block = [
        request_to("/grpc.health.v1.Health/Check"),
        GRPC_TYPE.to_vec(),
    ]
    .concat();
    let data = [&[0, 0, 5, 0, 1][..], &stream.to_be_bytes(), &frame(0, b"")].concat();
    [headers_of(stream, 4, &block), data].concat()
}

/// Answers that nobody takes are no work: whoever sits on them makes room as on HTTP/1.1.
#[test]
fn whoever_takes_no_answers_shuts_nobody_out() {
    let limits = Limits {
        connections: 4 * 4,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut sitting: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream
                .write_all(&[PREFACE, &CLOSED, &asks_health(1)].concat())
                .unwrap();
            stream
        })
        .collect();
    // To ask on and on makes no difference.
    for n in 1..4 {
        std::thread::sleep(Duration::from_millis(50));
        for stream in &mut sitting {
            stream.write_all(&asks_health(2 * n + 1)).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut honest = Rpc::connect(&server.address());
    assert_eq!(health(&mut honest, ""), Ok(1));
}

/// To give a request up and begin another does not make a client quick: it has sent nothing whole all that time.
#[test]
fn beginning_anew_all_the_time_holds_no_place_against_its_own_address() {
    let limits = Limits {
        connections_per_peer: 2 * 4,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let block = [request_to("/x/Y"), GRPC_TYPE.to_vec()].concat();
    let mut sitting = [hello(&server), hello(&server)];
    for n in 0..8_u32 {
        for stream in &mut sitting {
            if n > 0 {
                let given_up = [
                    &[0, 0, 4, 3, 0][..],
                    &(2 * n - 1).to_be_bytes(),
                    &[0, 0, 0, 8],
                ];
                stream.write_all(&given_up.concat()).unwrap();
            }
            stream.write_all(&headers_of(2 * n + 1, 4, &block)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    server
        .raw("GET", "/debug/healthz", "", b"")
        .expect_status(200);
}

/// Heads that are many times as large in memory as on the wire, and more requests begun than there is place for.
#[test]
fn what_is_never_finished_holds_little_memory() {
    // 440 times `age` without a value, each one byte long.
    let ages = [request_to("/x/Y"), GRPC_TYPE.to_vec(), vec![0x95; 440]].concat();
    nobody_finishes(&ages, &ages);
    // A field of 3,900 bytes: put into HPACK's table once, and from there it comes four times in each head. What
    // stands before it leaves the table alone.
    let before = b"\x83\x86\x01\x01t\x04\x04/x/Y\x0f\x10\x10application/grpc";
    let field = [b"\x40\x0fx-forwarded-for\x7f\xbd\x1d", &[b'*'; 3_900][..]].concat();
    let first = [&before[..], &field, &[0xbe; 3]].concat();
    let further = [&before[..], &[0xbe; 4]].concat();
    nobody_finishes(&first, &further);
}

/// Many begin as many requests as they may, the first of them and all further ones with these heads.
fn nobody_finishes(first: &[u8], further: &[u8]) {
    let limits = Limits {
        connections_per_peer: 1024,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut honest = Rpc::connect(&server.address());
    assert_eq!(health(&mut honest, ""), Ok(1));
    let before = resident();
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = hello(&server);
            stream.write_all(&headers_of(1, 4, first)).unwrap();
            let all: Vec<u8> = (1..STREAMS)
                .flat_map(|n| headers_of(2 * n + 1, 4, further))
                .collect();
            stream.write_all(&all).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(health(&mut honest, ""), Ok(1));
        std::thread::sleep(Duration::from_millis(20));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
    drop(streams);
}

#[test]
fn messages_that_are_never_finished_share_what_there_is() {
    let limits = Limits {
        request_time: Duration::from_secs(3),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut honest = Rpc::connect(&server.address());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let unfinished = Bytes::from(frame(0, &vec![0; 60_000])[..50_000].to_vec());
    let mut told: Vec<i64> = runtime.block_on(async {
        let mut waiting = Vec::new();
        for _ in 0..10 {
            let socket = tokio::net::TcpStream::connect(server.address());
            let (mut send, connection) =
                h2::client::handshake(socket.await.unwrap()).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..STREAMS {
                send = send.ready().await.unwrap();
                let request = http::Request::post("http://t/x/Y")
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap();
                let (response, mut stream) = send.send_request(request, false).unwrap();
                stream.send_data(unfinished.clone(), false).unwrap();
                waiting.push((response, stream, send.clone()));
            }
        }
        let mut told = Vec::new();
        for (response, _stream, _send) in waiting {
            let response = response.await.unwrap();
            let status = response.headers()["grpc-status"].to_str().unwrap();
            told.push(status.parse().unwrap());
        }
        told
    });
    assert_eq!(health(&mut honest, ""), Ok(1));
    // Busy are those for whom there was no place, and all others were not whole in time.
    told.sort_unstable();
    let slow = told.iter().filter(|it| **it == 4).count();
    assert_eq!(
        told.len() - slow,
        told.iter().filter(|it| **it == 14).count()
    );
    assert!((100..200).contains(&slow), "{slow} of {}", told.len());
    // What they held is free again.
    let mut rpc = Rpc::connect(&server.address());
    for _ in 0..3 {
        assert_eq!(health(&mut rpc, ""), Ok(1));
    }
}

/// Long answers that nobody takes: each was whole in memory, and they are as many as there is place for.
#[test]
fn answers_that_are_never_taken_share_what_there_is() {
    // With a window of one byte the answer has begun to go out, and waits all the same.
    for window in [0, 1] {
        nobody_takes_answers_within(window);
    }
}

fn nobody_takes_answers_within(window: u32) {
    let limits = Limits {
        answer_memory_bytes: 8 * 1024 * 1024,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let body = json!({"userId": "u", "data": {"a": "x".repeat(60_000)}}).to_string();
    server.ask("POST", "/users", &body).expect_status(201);
    let bearer = format!("Bearer {}", server.admin);
    let asked = json!({"id": "u"});
    let asked = Bytes::from(frame(0, &encode(method("GetUser").input(), &asked)));
    let mut honest = Rpc::connect(&server.address());
    let busy = honest.runtime.block_on(async {
        let mut waiting = Vec::new();
        for _ in 0..10 {
            let socket = tokio::net::TcpStream::connect(server.address()).await;
            let mut client = h2::client::Builder::new();
            client.initial_window_size(window);
            let (mut send, connection) = client.handshake(socket.unwrap()).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..STREAMS {
                send = send.ready().await.unwrap();
                let request = http::Request::post(format!("http://t{}", path("GetUser")))
                    .header("content-type", "application/grpc")
                    .header("authorization", &bearer)
                    .body(())
                    .unwrap();
                let (response, mut stream) = send.send_request(request, false).unwrap();
                stream.send_data(asked.clone(), true).unwrap();
                waiting.push((response, stream, send.clone()));
            }
        }
        let mut busy = 0;
        let mut taken = Vec::new();
        for (response, _stream, send) in waiting {
            let response = response.await.unwrap();
            match response.headers().get("grpc-status") {
                Some(status) => {
                    assert_eq!(status, "14");
                    busy += 1;
                }
                None => taken.push((response, send)),
            }
        }
        let taken = taken.len();
        assert!((100..200).contains(&taken), "{taken} within {window}");
        busy
    });
    assert!(busy > 100, "{busy}");
    // What is asked for alone has its place.
    let all = json!({"id": "u"});
    let all = encode(method("GetUser").input(), &all);
    let short = honest.call(Some(&server.admin), "GetUser", &all);
    assert_eq!(short.code, 0);
}

/// A conversation with reflection may stay open for nothing, and nobody needs a token for it.
#[test]
fn open_conversations_with_reflection_take_no_calls_place() {
    let server = TestServer::start();
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let block = [request_to(reflection), GRPC_TYPE.to_vec()].concat();
    let open: Vec<_> = (0..9)
        .map(|_| {
            let mut stream = hello(&server);
            for n in 0..STREAMS {
                stream.write_all(&headers_of(2 * n + 1, 4, &block)).unwrap();
            }
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let rpc = Rpc::connect(&server.address());
    let told = rpc.runtime.block_on(async {
        let mut send = rpc.send.clone();
        let mut waiting = Vec::new();
        for _ in 0..STREAMS {
            send = send.ready().await.unwrap();
            let request = http::Request::post("http://t/grpc.health.v1.Health/Check")
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            waiting.push(send.send_request(request, false).unwrap());
        }
        // All have begun by now: they are finished together.
        let begun = tokio::time::sleep(Duration::from_millis(100));
        begun.await;
        for (_, stream) in &mut waiting {
            // Of what was refused nothing more is wanted.
            let _or_refused = stream.send_data(Bytes::from(frame(0, b"")), true);
        }
        let mut told = 0;
        for (response, _) in waiting {
            let response = response.await.unwrap();
            told += u32::from(!response.headers().contains_key("grpc-status"));
        }
        told
    });
    assert_eq!(told, STREAMS);
    drop(open);
}

/// A page is reserved before it is built. One for which there is never room is not one to come back for.
#[test]
fn an_answer_beyond_all_that_there_is_is_told_so() {
    for (answer_memory_bytes, expected) in [
        (8 * 1024 * 1024, (0, None)),
        (2 * 1024 * 1024, (8, Some("TOTPD-Large".to_owned()))),
    ] {
        let limits = Limits {
            answer_memory_bytes,
            ..Limits::default()
        };
        let server = TestServer::builder().limits(limits).start();
        let mut rpc = Rpc::connect(&server.address());
        let asked = json!({"query": {"limit": 150}});
        let asked = encode(method("SearchUsers").input(), &asked);
        for _ in 0..3 {
            let told = rpc.call(Some(&server.admin), "SearchUsers", &asked);
            assert_eq!((told.code, told.id), expected);
            let read = server.ask("POST", "/users/_search?query.limit=150", "");
            assert_eq!(read.status, if expected.0 == 0 { 200 } else { 413 });
        }
    }
}

/// Rapid reset, endless CONTINUATION, idle streams, and a window that is never opened: each in a quick form.
#[test]
fn abuse_of_http_2_costs_little_and_disturbs_nobody() {
    let server = TestServer::builder().limits(quick()).start();
    let mut honest = Rpc::connect(&server.address());
    assert_eq!(health(&mut honest, ""), Ok(1));
    let before = resident();
    let reset = |stream: u32| {
        let mut bytes = vec![0, 0, 4, 3, 0];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&8_u32.to_be_bytes());
        bytes
    };

    // 10,000 streams opened and reset.
    let mut rapid = hello(&server);
    for n in 0..10_000_u32 {
        let stream = 2 * n + 1;
        let both = [headers(stream, 5), reset(stream)].concat();
        if rapid.write_all(&both).is_err() {
            break;
        }
    }
    assert_eq!(health(&mut honest, ""), Ok(1));

    // A head that goes on for ever.
    let mut endless = hello(&server);
    endless.write_all(&headers(1, 0)).unwrap();
    let mut sent = 0_usize;
    let part = [&[0, 0x40, 0, 9, 0, 0, 0, 0, 1][..], &[0x84; 16 * 1024]].concat();
    while sent < 32 * 1024 * 1024 && endless.write_all(&part).is_ok() {
        sent += part.len();
    }
    assert!(sent < 32 * 1024 * 1024, "it was cut off");
    assert_eq!(health(&mut honest, ""), Ok(1));

    // 1,000 streams that say nothing more: most are refused, and all are gone in time.
    let mut idle = hello(&server);
    for n in 0..1_000_u32 {
        if idle.write_all(&headers(2 * n + 1, 4)).is_err() {
            break;
        }
    }
    // Answers that are asked for and never taken: the window is closed from the start.
    let mut closed = TcpStream::connect(server.address()).unwrap();
    closed
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    closed.write_all(&[PREFACE, &CLOSED].concat()).unwrap();
    for n in 0..STREAMS {
        closed.write_all(&asks_health(2 * n + 1)).unwrap();
    }
    let begun = Instant::now();
    for mut stream in [rapid, endless, idle, closed] {
        let mut last = Vec::new();
        let _reset = stream.read_to_end(&mut last);
        assert_eq!(health(&mut honest, ""), Ok(1));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "all are cut off: {:?}",
        begun.elapsed()
    );
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
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
    // Byte by byte it is HTTP/2 all the same.
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
