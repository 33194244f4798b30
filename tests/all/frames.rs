//! Handwritten HTTP/2: connections on which a test writes the frames itself, and requests that several tests send
//! over them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use totpd::serve::Limits;

use crate::harness::TestServer;
use crate::rpc::{Rpc, frame, unframe};
use crate::wait::PATIENCE;

pub const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most streams that one connection may have open.
pub const STREAMS: u32 = 32;
/// An empty SETTINGS frame.
pub const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Limits short enough for a test to wait for them.
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

/// A connection after the HTTP/2 preface and SETTINGS, without a request.
pub fn hello(server: &TestServer) -> TcpStream {
    begin(server, &SETTINGS)
}

/// A connection that sends these settings first.
pub fn begin(server: &TestServer, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[PREFACE, settings].concat()).unwrap();
    stream
}

/// Sends a PING, and returns whether the server answers. The answer shows that the server has read all earlier
/// frames.
pub fn ping(stream: &mut TcpStream) -> bool {
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let is_answer = |it: &Frame| (it.kind, it.flags) == (6, 1);
    stream.write_all(&ping).is_ok() && until(stream, is_answer)
}

/// Waits for the server's GOAWAY.
pub fn goaway(stream: &mut TcpStream) {
    assert!(until(stream, |it| it.kind == 7), "no GOAWAY is said");
}

/// Waits for the HEADERS frame of the answer on a stream.
pub fn head_of(stream: &mut TcpStream, id: u32) {
    let is_head = |it: &Frame| (it.kind, it.stream) == (1, id);
    assert!(until(stream, is_head), "no answer on {id}");
}

/// The header of a frame.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Reads frames until one matches. Returns `false` if the server closes the connection first.
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

/// The HEADERS frame of a request. `flags` say whether the head and the stream end with it.
pub fn headers(stream: u32, flags: u8) -> Vec<u8> {
    headers_of(stream, flags, &request_to("/"))
}

/// :method POST, :scheme http, :authority and :path, with indices of HPACK's static table.
pub fn request_to(path: &str) -> Vec<u8> {
    let begin = [0x83, 0x86, 0x41, 1, b't', 0x44, path.len() as u8];
    [&begin, path.as_bytes()].concat()
}

/// content-type: application/grpc
pub const GRPC_TYPE: &[u8] = b"\x5f\x10application/grpc";
/// Settings with a window of zero, which lets no byte of an answer's body through.
pub const CLOSED: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];

pub fn headers_of(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = (block.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[1, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

/// A complete request for health.
pub fn asks_health(stream: u32) -> Vec<u8> {
    let block = [
        request_to("/grpc.health.v1.Health/Check"),
        GRPC_TYPE.to_vec(),
    ]
    .concat();
    let data = [&[0, 0, 5, 0, 1][..], &stream.to_be_bytes(), &frame(0, b"")].concat();
    [headers_of(stream, 4, &block), data].concat()
}
