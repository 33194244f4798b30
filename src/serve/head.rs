//! One reading of a request's head. What could be read in two ways is refused, and the connection with it.
//!
//! Parses bytes and nothing else: no socket, no time.

use std::borrow::Cow;

use crate::api::status::TransportError;
use crate::model::RequestId;

/// What is known of a request once its head is whole.
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query, visible ASCII.
    pub(super) target: String,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) origin: Option<String>,
    /// What `X-Forwarded-For` says, all of it in order; whether it counts is for others to judge.
    pub(super) forwarded_for: String,
    /// What `X-Request-Id` says, if it is well-formed and stands once; whether it counts is for others to judge.
    pub(super) request_id: Option<RequestId>,
    pub(super) body: BodyLength,
    pub(super) expects_continue: bool,
    /// Whether the client means to go on after this request.
    pub(super) keep_alive: bool,
    /// How many bytes of the buffer the head took.
    pub(super) length: usize,
}

/// What decides the form of a refusal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) is_head: bool,
    pub(super) content_type: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) request_id: Option<RequestId>,
}

impl Form {
    /// As far as it can be told from a head that is refused, or of which only a part came.
    pub(super) fn of_part(bytes: &[u8]) -> Self {
        let mut form = Self {
            is_head: bytes.starts_with(b"HEAD "),
            ..Self::default()
        };
        let head = bytes.windows(4).position(|it| it == b"\r\n\r\n");
        let head = head.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
        let mut lines = head.split(|it| *it == b'\n');
        let _request_line = lines.next();
        // The last line may have been cut off in its middle.
        if head.len() == bytes.len() {
            let _cut_off = lines.next_back();
        }
        for line in lines {
            let Some((name, value)) = str::from_utf8(line).ok().and_then(|it| it.split_once(':'))
            else {
                continue;
            };
            let slot = match name.to_ascii_lowercase().as_str() {
                "content-type" => &mut form.content_type,
                "origin" => &mut form.origin,
                "x-request-id" => {
                    form.request_id = value.trim().parse().ok();
                    continue;
                }
                _ => continue,
            };
            *slot = ascii(value.trim().as_bytes()).ok().map(str::to_owned);
        }
        form
    }
}

impl Head {
    pub(super) fn form(&self) -> Form {
        Form {
            is_head: self.method == "HEAD",
            content_type: self.content_type.clone(),
            origin: self.origin.clone(),
            request_id: self.request_id.clone(),
        }
    }
}

/// How the end of the body is told (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(u64),
    Chunked,
}

/// Reads a head from the start of `bytes`; `None` as long as it is not whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, TransportError> {
    // Each field has a line: as many as there can be, on the heap. Only the bytes of a head are limited.
    let lines = bytes.split(|it| *it == b'\n').count();
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(length)) => length,
        Err(_) => {
            return Err(TransportError::BadFraming(
                "this is not an HTTP/1.1 request",
            ));
        }
    };
    only_crlf(bytes.get(..length).unwrap_or_default())?;
    let mut host = None;
    let mut authorization = None;
    let mut content_type = None;
    let mut origin = None;
    let mut content_length = None;
    let mut transfer_encoding = None;
    let mut expect = None;
    let mut connection = String::new();
    let mut forwarded_for = String::new();
    let mut request_id = None;
    for field in request.headers.iter() {
        let slot = match field.name.to_ascii_lowercase().as_str() {
            "host" => &mut host,
            "authorization" => &mut authorization,
            "content-type" => &mut content_type,
            "origin" => &mut origin,
            "content-length" => &mut content_length,
            "transfer-encoding" => &mut transfer_encoding,
            "expect" => &mut expect,
            "x-forwarded-for" => {
                forwarded_for.push(',');
                forwarded_for.push_str(ascii(field.value)?);
                continue;
            }
            // What is malformed or stands twice is replaced, and never refused.
            "x-request-id" => {
                let is_first = request_id.is_none();
                let text = str::from_utf8(field.value).unwrap_or_default();
                request_id = Some(text.trim()).filter(|_| is_first).or(Some(""));
                continue;
            }
            "connection" => {
                connection.push(',');
                connection.push_str(&ascii(field.value)?.to_ascii_lowercase());
                continue;
            }
            _ => continue,
        };
        if slot.replace(ascii(field.value)?).is_some() {
            return Err(TransportError::BadFraming(
                "a header that may stand once stands twice",
            ));
        }
    }
    let is_1_1 = request.version == Some(1);
    if is_1_1 && host.is_none() {
        return Err(TransportError::BadFraming("a Host header is required"));
    }
    let body = match (content_length, transfer_encoding) {
        (None, None) => BodyLength::Bytes(0),
        (Some(length), None) => BodyLength::Bytes(bytes_in(length)?),
        (None, Some(coding)) if is_1_1 && coding.eq_ignore_ascii_case("chunked") => {
            BodyLength::Chunked
        }
        (None, Some(_)) => {
            return Err(TransportError::BadFraming(
                "the one transfer coding known is chunked",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(TransportError::BadFraming(
                "Content-Length and Transfer-Encoding exclude each other",
            ));
        }
    };
    let expects_continue = match expect {
        None => false,
        Some(it) if it.eq_ignore_ascii_case("100-continue") => is_1_1,
        Some(_) => {
            return Err(TransportError::BadFraming(
                "the one expectation known is 100-continue",
            ));
        }
    };
    let says = |word| connection.split(',').any(|it| it.trim() == word);
    Ok(Some(Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: path_of(request.path.unwrap_or_default())?.into_owned(),
        authorization: authorization.map(str::to_owned),
        content_type: content_type.map(str::to_owned),
        origin: origin.map(str::to_owned),
        forwarded_for,
        request_id: request_id.and_then(|it| it.parse().ok()),
        body,
        expects_continue,
        keep_alive: is_1_1 && !says("close"),
        length,
    }))
}

/// Lines end in CRLF and nowhere else; a parser behind or before us may see others (RFC 9112 §2.2).
fn only_crlf(head: &[u8]) -> Result<(), TransportError> {
    let mut before = b' ';
    for &byte in head {
        if (byte == b'\n') != (before == b'\r') {
            return Err(TransportError::BadFraming("lines end in CR LF"));
        }
        before = byte;
    }
    Ok(())
}

/// Beyond ASCII a header's meaning is anyone's guess.
fn ascii(value: &[u8]) -> Result<&str, TransportError> {
    let text = str::from_utf8(value)
        .ok()
        .filter(|it| it.bytes().all(|it| (b' '..=b'~').contains(&it)));
    text.map(str::trim).ok_or(TransportError::BadFraming(
        "expected visible ASCII in headers",
    ))
}

fn bytes_in(text: &str) -> Result<u64, TransportError> {
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_digit()) {
        return Err(TransportError::BadFraming(
            "Content-Length: expected digits",
        ));
    }
    // A number too long to be read is certainly too large.
    text.parse().map_err(|_| TransportError::BodyTooLarge)
}

/// The path and query of a target in origin or absolute form (RFC 9112 §3.2).
fn path_of(target: &str) -> Result<Cow<'_, str>, TransportError> {
    if !target.bytes().all(|it| (b'!'..=b'~').contains(&it)) {
        return Err(TransportError::BadFraming(
            "expected visible ASCII in the target; percent-encode the rest",
        ));
    }
    // A fragment is no part of a target. Some servers cut it off and some take it for a part of the path.
    if target.contains('#') {
        return Err(TransportError::BadFraming("a target holds no fragment"));
    }
    if target.starts_with('/') {
        return Ok(Cow::Borrowed(target));
    }
    let absolute = after_scheme(target).ok_or(TransportError::BadFraming("expected a path"))?;
    // The authority ends at the first of these (RFC 3986 §3.2).
    let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
    let (authority, rest) = absolute.split_at(end);
    if authority.is_empty() {
        return Err(TransportError::BadFraming("expected a host in the target"));
    }
    // An empty path is the path `/` (RFC 9110 §4.2.3), with or without a query after it.
    Ok(if rest.starts_with('/') {
        Cow::Borrowed(rest)
    } else {
        Cow::Owned(format!("/{rest}"))
    })
}

/// What follows `http://` or `https://`; a scheme has no case (RFC 3986 §3.1).
fn after_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_ours = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    is_ours.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_reading() {
        for (target, path) in [
            ("/debug/healthz", "/debug/healthz"),
            ("/a?b=/c", "/a?b=/c"),
            ("//evil/a", "//evil/a"),
            ("http://t/a?b", "/a?b"),
            ("HTTPS://t:8080/a", "/a"),
            ("http://t", "/"),
            ("http://t?/debug/healthz", "/?/debug/healthz"),
            ("http://t?", "/?"),
        ] {
            assert_eq!(path_of(target).ok().as_deref(), Some(path), "{target}");
        }
        for bad in [
            "",
            "*",
            "a",
            "t:80",
            "http:/a",
            "http:///a",
            "http://?/a",
            "ftp://t/a",
            "http://t#/a",
            "http://t/a#b",
            "/a#b",
            "/a b",
            "/\u{e9}",
        ] {
            assert!(path_of(bad).is_err(), "{bad}");
        }
    }
}
