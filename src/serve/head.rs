//! One reading of a request's head. What could be read in two ways is refused, and the connection with it.
//!
//! Parses bytes and nothing else: no socket, no time.

use std::borrow::Cow;

use crate::api::status::TransportError::{self, BadFraming};
use crate::model::RequestId;

/// A request's head. Where it is refused or incomplete, what could be read of it decides the form of the refusal.
#[derive(Default)]
pub(super) struct RequestHead {
    pub(super) method: String,
    /// Path and query, visible ASCII.
    pub(super) target: String,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) origin: Option<String>,
    /// What `Totpd-Code` says.
    pub(super) code: Option<String>,
    /// What `Accept` says. A second one, and one that is not text, are ignored.
    pub(super) accept: Option<String>,
    /// What `X-Forwarded-For` says, all of it in order. `connections` judges whether it counts.
    pub(super) forwarded_for: String,
    /// What `X-Request-Id` says, if it is well-formed and stands once. `connections` judges whether it counts.
    pub(super) request_id: Option<RequestId>,
    pub(super) body: BodyLength,
    pub(super) expects_continue: bool,
    /// Whether the client means to go on after this request.
    pub(super) keep_alive: bool,
}

/// Where the body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(u64),
    Chunked,
}

impl Default for BodyLength {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

/// Fields that decide how the rest of the connection is read.
#[derive(Default)]
struct Framing {
    host: Option<String>,
    content_length: Option<String>,
    transfer_encoding: Option<String>,
    expect: Option<String>,
    /// All of `Connection`.
    connection: String,
    has_request_id: bool,
}

impl RequestHead {
    /// Reads a head from the start of `bytes`, and returns its length; `None` as long as it is not complete.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, TransportError> {
        // Each field has a line: as many as there can be, on the heap. Only the bytes of a head are limited.
        let lines = bytes.split(|it| *it == b'\n').count();
        let mut fields = vec![httparse::EMPTY_HEADER; lines];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(bytes);
        *self = Self {
            method: request.method.unwrap_or_default().to_owned(),
            ..Self::default()
        };
        let mut framing = Framing::default();
        let mut refusal = None;
        // Of a head that is incomplete these are the fields that could be read, and then empty ones.
        for field in request.headers.iter().filter(|it| !it.name.is_empty()) {
            let read = self.read_field(&mut framing, field);
            refusal = refusal.or(read.err());
        }
        let length = match parsed {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(length)) => length,
            Err(_) => return Err(BadFraming("this is not an HTTP/1.1 request")),
        };
        only_crlf(bytes.get(..length).unwrap_or_default())?;
        refusal.map_or(Ok(()), Err)?;
        self.judge(&framing, request.version == Some(1))?;
        self.target = path_of(request.path.unwrap_or_default())?.into_owned();
        Ok(Some(length))
    }

    fn read_field(
        &mut self,
        framing: &mut Framing,
        field: &httparse::Header<'_>,
    ) -> Result<(), TransportError> {
        let slot = match field.name.to_ascii_lowercase().as_str() {
            "authorization" => &mut self.authorization,
            "content-type" => &mut self.content_type,
            "origin" => &mut self.origin,
            "totpd-code" => &mut self.code,
            "host" => &mut framing.host,
            "content-length" => &mut framing.content_length,
            "transfer-encoding" => &mut framing.transfer_encoding,
            "expect" => &mut framing.expect,
            "x-forwarded-for" => {
                self.forwarded_for.push(',');
                self.forwarded_for.push_str(ascii(field.value)?);
                return Ok(());
            }
            "accept" => {
                let text = str::from_utf8(field.value).ok();
                self.accept = self.accept.take().or_else(|| text.map(str::to_owned));
                return Ok(());
            }
            "connection" => {
                framing.connection.push(',');
                framing.connection.push_str(ascii(field.value)?);
                return Ok(());
            }
            // One that is malformed or repeated is replaced, and never refused.
            "x-request-id" => {
                let text = str::from_utf8(field.value).unwrap_or_default();
                let id = text.trim().parse().ok();
                self.request_id = id.filter(|_| !framing.has_request_id);
                framing.has_request_id = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        if slot.replace(ascii(field.value)?.to_owned()).is_some() {
            return Err(BadFraming("a header that may occur once occurs twice"));
        }
        Ok(())
    }

    /// Judges the fields of a complete head.
    fn judge(&mut self, framing: &Framing, is_1_1: bool) -> Result<(), TransportError> {
        if is_1_1 && framing.host.is_none() {
            return Err(BadFraming("a Host header is required"));
        }
        self.body = match (&framing.content_length, &framing.transfer_encoding) {
            (None, None) => BodyLength::Bytes(0),
            (Some(length), None) => BodyLength::Bytes(bytes_in(length)?),
            (None, Some(coding)) if is_1_1 && coding.eq_ignore_ascii_case("chunked") => {
                BodyLength::Chunked
            }
            (None, Some(_)) => return Err(BadFraming("the only known transfer coding is chunked")),
            (Some(_), Some(_)) => {
                let why = "Content-Length and Transfer-Encoding exclude each other";
                return Err(BadFraming(why));
            }
        };
        self.expects_continue = match &framing.expect {
            None => false,
            Some(it) if it.eq_ignore_ascii_case("100-continue") => is_1_1,
            Some(_) => return Err(BadFraming("the only known expectation is 100-continue")),
        };
        let mut options = framing.connection.split(',');
        self.keep_alive = is_1_1 && !options.any(|it| it.trim().eq_ignore_ascii_case("close"));
        Ok(())
    }
}

/// Lines end in CRLF and nowhere else; a parser behind or before us may see others (RFC 9112 §2.2).
fn only_crlf(head: &[u8]) -> Result<(), TransportError> {
    let mut before = b' ';
    for &byte in head {
        if (byte == b'\n') != (before == b'\r') {
            return Err(BadFraming("lines end in CR LF"));
        }
        before = byte;
    }
    Ok(())
}

/// The meaning of a header's bytes beyond ASCII is not defined.
fn ascii(value: &[u8]) -> Result<&str, TransportError> {
    let text = str::from_utf8(value)
        .ok()
        .filter(|it| it.bytes().all(|it| (b' '..=b'~').contains(&it)));
    text.map(str::trim)
        .ok_or(BadFraming("expected visible ASCII in headers"))
}

fn bytes_in(text: &str) -> Result<u64, TransportError> {
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_digit()) {
        return Err(BadFraming("Content-Length: expected digits"));
    }
    // A number too long to be read is certainly too large.
    text.parse().map_err(|_| TransportError::BodyTooLarge)
}

/// The path and query of a target in origin or absolute form (RFC 9112 §3.2).
fn path_of(target: &str) -> Result<Cow<'_, str>, TransportError> {
    if !target.bytes().all(|it| (b'!'..=b'~').contains(&it)) {
        let why = "expected visible ASCII in the target; percent-encode the rest";
        return Err(BadFraming(why));
    }
    // A fragment is no part of a target. Some servers cut it off and some take it for a part of the path.
    if target.contains('#') {
        return Err(BadFraming("a target holds no fragment"));
    }
    if target.starts_with('/') {
        return Ok(Cow::Borrowed(target));
    }
    let absolute = after_scheme(target).ok_or(BadFraming("expected a path"))?;
    // The authority ends at the first of these (RFC 3986 §3.2).
    let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
    let (authority, rest) = absolute.split_at(end);
    if authority.is_empty() {
        return Err(BadFraming("expected a host in the target"));
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
