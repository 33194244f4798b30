//! As much of HTTP/1.1 as two ends need that know each other: requests as bytes, answers with a length.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Result;

/// What an answer takes at most: a user with its authenticators is the longest.
const ANSWER_BYTES: usize = 64 * 1024;
/// Longer than any request may take. A wait that takes longer fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The bytes of a request.
pub(crate) fn request(method: &str, target: &str, token: &str, body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: totpd\r\n");
    if !token.is_empty() {
        text.extend(["Authorization: Bearer ", token, "\r\n"]);
    }
    if !body.is_empty() {
        text.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    text.extend(["\r\n", body]);
    text.into_bytes()
}

/// Status and body, once all of the answer is there.
pub(crate) fn answer(bytes: &[u8]) -> Result<Option<(u16, &[u8])>> {
    let mut fields = [httparse::EMPTY_HEADER; 24];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    let length = response
        .headers
        .iter()
        .find(|it| it.name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without a length")?;
    let length: usize = str::from_utf8(length.value)?.parse()?;
    let body = bytes.get(head..head.saturating_add(length));
    Ok(body.map(|body| (status, body)))
}

/// A connection that asks and waits.
pub(crate) struct Client {
    stream: TcpStream,
    token: String,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: &str, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            token: token.to_owned(),
            buffer: vec![0; ANSWER_BYTES],
        })
    }

    /// The stream, once nothing more is asked in this way.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(crate) fn ask(&mut self, method: &str, target: &str, body: &str) -> Result<(u16, &[u8])> {
        let request = request(method, target, &self.token, body);
        self.stream.write_all(&request)?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err("the server closed without an answer".into());
            }
            filled += read;
            if answer(&self.buffer[..filled])?.is_some() {
                break;
            }
        }
        answer(&self.buffer[..filled])?.ok_or_else(|| "an answer was lost".into())
    }
}
