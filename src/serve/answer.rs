//! The one writer of HTTP/1.1 answers: those of the workers, and those that the front end gives by itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::http::{COMMON_HEADERS, REQUEST_ID, Reply};
use crate::model::Timestamp;

/// The last second of the year 9999: a date in a header has four digits for the year.
const LAST_DATE_S: u64 = 253_402_300_799;

/// The head of an answer as it goes over the wire, to the request of that id.
pub(super) fn head_of(reply: &Reply, request_id: &str, now: Timestamp) -> String {
    let reason = tiny_http::StatusCode(reply.status).default_reason_phrase();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", reply.status);
    let mut field = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    };
    field("Date", &httpdate::fmt_http_date(date(now)));
    field("Content-Type", reply.content_type);
    field("Content-Length", &reply.body.len().to_string());
    for (name, value) in &reply.headers {
        field(name, value);
    }
    for (name, value) in COMMON_HEADERS {
        field(name, value);
    }
    field(REQUEST_ID, request_id);
    head.push_str("\r\n");
    head
}

/// Tells the client, behind the status line of an answer, that no other follows.
pub(super) fn close_after(answer: &mut Vec<u8>) {
    let status_line = answer.iter().position(|it| *it == b'\n');
    let fields = status_line.map_or(0, |it| it.saturating_add(1));
    answer.splice(fields..fields, *b"Connection: close\r\n");
}

fn date(now: Timestamp) -> SystemTime {
    let seconds = now.micros().div_euclid(1_000_000);
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_DATE_S);
    let since_epoch = Duration::from_secs(seconds);
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}
