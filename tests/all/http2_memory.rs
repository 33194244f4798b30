//! The connections and the memory that HTTP/2 clients can hold. SECURITY.md 34, 44 and 45.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use protox::prost::bytes::Bytes;
use serde_json::json;
use totpd::serve::Limits;

use crate::frames::{
    CLOSED, GRPC_TYPE, STREAMS, asks_health, begin, head_of, headers, headers_of, health, hello,
    ping, quick, request_to,
};
use crate::harness::TestServer;
use crate::rpc::{Rpc, encode, frame, method, path};

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// An answer that the client does not read is not work in progress, so its connection gives way to others as on
/// HTTP/1.1.
#[test]
fn whoever_takes_no_answers_shuts_nobody_out() {
    let limits = Limits {
        connections: 4 * 4,
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let mut sitting: Vec<_> = (0..4).map(|_| begin(&server, &CLOSED)).collect();
    // Sending further requests makes no difference.
    for n in 0..4 {
        for stream in &mut sitting {
            stream.write_all(&asks_health(2 * n + 1)).unwrap();
            head_of(stream, 2 * n + 1);
        }
    }
    let mut honest = Rpc::connect(&server.address());
    assert_eq!(health(&mut honest, ""), Ok(1));
}

/// Cancelling a request and starting another does not make a client look fast, because it has completed no request.
#[test]
fn beginning_anew_all_the_time_holds_no_place_against_its_own_address() {
    let limits = Limits {
        connections_per_peer: 2 * 4,
        // A client counts as slow after a twentieth of this.
        request_time: Duration::from_secs(4),
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
        // The pace of a slow client.
        std::thread::sleep(Duration::from_millis(40));
    }
    server
        .raw("GET", "/debug/healthz", "", b"")
        .expect_status(200);
}

/// Heads that are many times larger in memory than on the wire, and more requests than the server has memory for.
#[test]
fn what_is_never_finished_holds_little_memory() {
    // 440 times `age` without a value, each encoded in one byte.
    let ages = [request_to("/x/Y"), GRPC_TYPE.to_vec(), vec![0x95; 440]].concat();
    nobody_finishes(&ages, &ages);
    // A field of 3,900 bytes. It is put into HPACK's table once, and each head then refers to it four times. The
    // fields before it are not added to the table.
    let before = b"\x83\x86\x01\x01t\x04\x04/x/Y\x0f\x10\x10application/grpc";
    let field = [b"\x40\x0fx-forwarded-for\x7f\xbd\x1d", &[b'*'; 3_900][..]].concat();
    let first = [&before[..], &field, &[0xbe; 3]].concat();
    let further = [&before[..], &[0xbe; 4]].concat();
    nobody_finishes(&first, &further);
}

/// Many clients open as many requests as allowed. `first` is the head of each client's first request, `further` that
/// of the others.
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
            assert!(ping(&mut stream), "all of it is read");
            stream
        })
        .collect();
    assert_eq!(health(&mut honest, ""), Ok(1));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes");
    drop(streams);
}

#[test]
fn messages_that_are_never_finished_share_what_there_is() {
    let limits = Limits {
        request_time: Duration::from_secs(2),
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
    // Requests without memory get "busy", and all others get "too slow".
    told.sort_unstable();
    let slow = told.iter().filter(|it| **it == 4).count();
    assert_eq!(
        told.len() - slow,
        told.iter().filter(|it| **it == 14).count()
    );
    assert!((100..200).contains(&slow), "{slow} of {}", told.len());
    // The memory they held is free again.
    let mut rpc = Rpc::connect(&server.address());
    for _ in 0..3 {
        assert_eq!(health(&mut rpc, ""), Ok(1));
    }
}

/// Long answers that no client reads: each is complete in memory, and only as many exist as the budget allows.
#[test]
fn answers_that_are_never_taken_share_what_there_is() {
    // With a window of one byte the answer has begun to be sent and still cannot continue.
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
    // A short answer on its own still fits.
    let all = json!({"id": "u"});
    let all = encode(method("GetUser").input(), &all);
    let short = honest.call(Some(&server.admin), "GetUser", &all);
    assert_eq!(short.code, 0);
}

/// A reflection stream may stay open without sending anything, and needs no token.
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
            assert!(ping(&mut stream), "all are open");
            stream
        })
        .collect();
    let mut rpc = Rpc::connect(&server.address());
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
        // The answer shows that all calls have begun. They are finished together.
        rpc.pings.ping(h2::Ping::opaque()).await.unwrap();
        for (_, stream) in &mut waiting {
            // The server does not need the rest of a call that it refused.
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

/// Memory for a page is reserved before the page is built. A page that can never fit is refused for good, without a
/// request to retry.
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

/// Rapid reset, endless CONTINUATION, idle streams, and a window that never opens, each in a short form.
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

    // 10,000 streams, opened and reset.
    let mut rapid = hello(&server);
    for n in 0..10_000_u32 {
        let stream = 2 * n + 1;
        let both = [headers(stream, 5), reset(stream)].concat();
        if rapid.write_all(&both).is_err() {
            break;
        }
    }
    assert_eq!(health(&mut honest, ""), Ok(1));

    // A head that never ends.
    let mut endless = hello(&server);
    endless.write_all(&headers(1, 0)).unwrap();
    let mut sent = 0_usize;
    let part = [&[0, 0x40, 0, 9, 0, 0, 0, 0, 1][..], &[0x84; 16 * 1024]].concat();
    while sent < 32 * 1024 * 1024 && endless.write_all(&part).is_ok() {
        sent += part.len();
    }
    assert!(sent < 32 * 1024 * 1024, "it was cut off");
    assert_eq!(health(&mut honest, ""), Ok(1));

    // 1,000 streams that send nothing more. Most are refused, and all end in time.
    let mut idle = hello(&server);
    for n in 0..1_000_u32 {
        if idle.write_all(&headers(2 * n + 1, 4)).is_err() {
            break;
        }
    }
    // Answers that the client requests and cannot receive, because its window is closed from the start.
    let mut closed = begin(&server, &CLOSED);
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
