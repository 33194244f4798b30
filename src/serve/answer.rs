//! The one writer of HTTP/1.1 answers: those of the workers, and those that the front end gives by itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::http::{COMMON_HEADERS, REQUEST_ID, Reply};
use crate::model::{RequestId, Timestamp};

/// The last second of the year 9999: a date in a header has four digits for the year.
const LAST_DATE_S: u64 = 253_402_300_799;

/// An answer whose header fields are written, and whose framing is not.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header fields but for those of the framing, each with its CRLF.
    pub(super) fields: Vec<u8>,
    /// The length of the body of a GET; a HEAD has it without the body.
    pub(super) content_length: usize,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// An answer that the front end gives by itself.
    pub(super) fn of(reply: Reply, now: Timestamp, is_head: bool) -> Self {
        let mut fields = Vec::with_capacity(256);
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                fields.extend_from_slice(part.as_bytes());
            }
        };
        field("Date", &httpdate::fmt_http_date(date(now)));
        field("Content-Type", reply.content_type);
        for (name, value) in &reply.headers {
            field(name, value);
        }
        for (name, value) in COMMON_HEADERS {
            field(name, value);
        }
        let content_length = reply.body.len();
        Self {
            status: reply.status,
            fields,
            content_length,
            body: if is_head { Vec::new() } else { reply.body },
        }
    }

    /// Adds the header that names the request.
    pub(super) fn add_request_id(&mut self, request: &RequestId) {
        for part in [REQUEST_ID, ": ", request.as_str(), "\r\n"] {
            self.fields.extend_from_slice(part.as_bytes());
        }
    }

    /// The answer as it goes over the wire.
    pub(super) fn into_bytes(mut self, keep_alive: bool) -> Vec<u8> {
        let reason = tiny_http::StatusCode(self.status).default_reason_phrase();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", self.status).into_bytes();
        bytes.append(&mut self.fields);
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.content_length).as_bytes());
        bytes.extend_from_slice(if keep_alive {
            b"\r\n"
        } else {
            b"Connection: close\r\n\r\n"
        });
        bytes.append(&mut self.body);
        bytes
    }
}

fn date(now: Timestamp) -> SystemTime {
    let seconds = now.micros().div_euclid(1_000_000);
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_DATE_S);
    let since_epoch = Duration::from_secs(seconds);
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}
