//! The one writer of HTTP/1.1 answers: those of the workers, and those that the front end gives by itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::http::{COMMON_HEADERS, REQUEST_ID, Reply};
use crate::model::{RequestId, Timestamp};

/// The last second of the year 9999: a date in a header has four digits for the year.
const LAST_DATE_S: u64 = 253_402_300_799;
const CLOSE: &str = "Connection: close\r\n";

/// An answer whose header fields are written, and whose framing is not.
pub(super) struct Http1Answer {
    pub(super) status: u16,
    /// The header fields but for those of the framing, each with its CRLF.
    pub(super) fields: Vec<u8>,
    /// The length of the body of a GET; a HEAD has it without the body.
    pub(super) content_length: usize,
    pub(super) body: Vec<u8>,
}

impl Http1Answer {
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

    /// The answer to the request of that id, as it goes over the wire.
    pub(super) fn into_bytes(mut self, request: &RequestId, keep_alive: bool) -> Vec<u8> {
        let reason = tiny_http::StatusCode(self.status).default_reason_phrase();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", self.status).into_bytes();
        bytes.append(&mut self.fields);
        let id = request.as_str();
        let (length, close) = (self.content_length, if keep_alive { "" } else { CLOSE });
        let last = format!("{REQUEST_ID}: {id}\r\nContent-Length: {length}\r\n{close}\r\n");
        bytes.extend_from_slice(last.as_bytes());
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
