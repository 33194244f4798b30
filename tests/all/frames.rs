//! HTTP/2 by hand: connections whose frames a test writes itself, and what several tests ask over them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use totpd::serve::Limits;

use crate::harness::TestServer;
use crate::rpc::{Rpc, frame, unframe};
use crate::wait::PATIENCE;

pub const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As many as one connection may have at once.
pub const STREAMS: u32 = 32;
/// SETTINGS with nothing in it.
pub const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Times so short that a test can wait for them.
pub fn quick() -> Limits {
    Limits {
        idle_time: Duration::from_millis(400),
        take_time: Duration::from_millis(400),
        request_time: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// Health over gRPC: 1 is SERVING, 2 is NOT_SERVING.
pub fn health(rpc: &mut Rpc, service: &str) -> Result<u8, i64> {
    let request = [&[10, service.len() as u8], service.as_bytes()].concat();
    let path = "/grpc.health.v1.Health/Check";
    let (_, body, trailers) = rpc.raw(path, &GRPC, &frame(0, &request)).unwrap();
    let status = trailers.iter().find(|(name, _)| name == "grpc-status");
    match status.unwrap().1.as_str() {
        "0" => Ok(unframe(&body).1[1]),
        code => Err(code.parse().unwrap()),
    }
}

/// A connection that has said hello and nothing more.
pub fn hello(server: &TestServer) -> TcpStream {
    begin(server, &SETTINGS)
}

/// A connection that begins with these settings.
pub fn begin(server: &TestServer, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[PREFACE, settings].concat()).unwrap();
    stream
}

/// Sends a PING, and returns whether it is answered. By then the server has read all that was sent before.
pub fn ping(stream: &mut TcpStream) -> bool {
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let is_answer = |it: &Frame| (it.kind, it.flags) == (6, 1);
    stream.write_all(&ping).is_ok() && until(stream, is_answer)
}

/// Waits for the GOAWAY of a server.
pub fn goaway(stream: &mut TcpStream) {
    assert!(until(stream, |it| it.kind == 7), "no GOAWAY is said");
}

/// Waits for the head of the answer on a stream.
pub fn head_of(stream: &mut TcpStream, id: u32) {
    let is_head = |it: &Frame| (it.kind, it.stream) == (1, id);
    assert!(until(stream, is_head), "no answer on {id}");
}

/// The head of a frame.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Reads frames until one is as wanted; `false` where the server closes before.
fn until(stream: &mut TcpStream, is_wanted: impl Fn(&Frame) -> bool) -> bool {
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut rest = vec![0; length as usize];
        if stream.read_exact(&mut rest).is_err() {
            return false;
        }
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        };
        if is_wanted(&frame) {
            return true;
        }
    }
}

/// A request's HEADERS frame on a stream, its head complete or not.
pub fn headers(stream: u32, flags: u8) -> Vec<u8> {
    headers_of(stream, flags, &request_to("/"))
}

/// :method POST, :scheme http, :authority and :path, as HPACK's static table has them.
pub fn request_to(path: &str) -> Vec<u8> {
    let begin = [0x83, 0x86, 0x41, 1, b't', 0x44, path.len() as u8];
    [&begin, path.as_bytes()].concat()
}

/// content-type: application/grpc
pub const GRPC_TYPE: &[u8] = b"\x5f\x10application/grpc";
/// A window that lets nothing of an answer's body through.
pub const CLOSED: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];

pub fn headers_of(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = (block.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[1, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

/// A whole request for health.
pub fn asks_health(stream: u32) -> Vec<u8> {
    let block = [
        request_to("/grpc.health.v1.Health/Check"),
        GRPC_TYPE.to_vec(),
    ]
    .concat();
    let data = [&[0, 0, 5, 0, 1][..], &stream.to_be_bytes(), &frame(0, b"")].concat();
    [headers_of(stream, 4, &block), data].concat()
}
