//! How requests are carried: stopping, who waits for whom, the form of refusals. SECURITY.md 34 and 47.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Client, TestServer};

/// A container runtime kills after ten seconds: nobody may hold a stop for longer than that.
#[test]
fn requests_of_which_a_part_was_sent_do_not_hold_a_stop_for_more_than_two_seconds() {
    let mut server = TestServer::start();
    let half = b"POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut http1 = Client::connect(&server.address());
    http1.send(half);
    assert_eq!(http1.answer(false, "the first half").status, 100);
    let mut http2 = TcpStream::connect(server.address()).unwrap();
    if cfg!(feature = "grpc") {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        http2.write_all(preface).unwrap();
        // HEADERS of a call to /x/Y, without an end of the stream.
        let head = b"\x83\x86\x41\x01t\x44\x04/x/Y\x5f\x10application/grpc";
        let frame = [&[0, 0, head.len() as u8, 1, 4, 0, 0, 0, 1][..], head].concat();
        http2.write_all(&frame).unwrap();
    }
    // An answer on a connection that came later: the others are known by then.
    server
        .raw("GET", "/debug/healthz", "", b"")
        .expect_status(200);
    let begun = Instant::now();
    assert!(server.stop(Duration::from_secs(8)));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_500), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(http1.is_closed());
    drop(http2);
}
