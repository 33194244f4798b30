//! gRPC-Web: one gRPC call in one HTTP/1.1 request, binary or in base64; and CORS, which names the pages that may call.

use data_encoding::BASE64;

use super::http::{Reply, Request};
use super::status::{Refusal, TransportError};
use super::{Api, Operation, grpc};

/// A frame's flag and length.
const PREFIX_BYTES: usize = 5;
/// An upper bound of the framing of a successful answer.
const FRAMING_BYTES: usize = 64;
/// The flags of frames: a message, and the trailers.
const MESSAGE: u8 = 0;
const TRAILERS: u8 = 0x80;

/// How the body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Binary,
    /// In base64.
    Text,
}

impl Form {
    /// The form that a content type names, if it is gRPC-Web's.
    pub(super) fn of(content_type: Option<&str>) -> Option<Self> {
        let kind = content_type?.split(';').next()?.trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/grpc-web" | "application/grpc-web+proto" => Some(Self::Binary),
            "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(Self::Text),
            _ => None,
        }
    }

    /// The length limit of a message, if at most `sent_bytes` are sent: base64 makes four bytes of three, and trailers
    /// follow.
    pub(super) const fn page_bytes(self, sent_bytes: usize) -> usize {
        match self {
            Self::Binary => sent_bytes.saturating_sub(FRAMING_BYTES),
            Self::Text => (sent_bytes / 4)
                .saturating_mul(3)
                .saturating_sub(FRAMING_BYTES),
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text+proto",
        }
    }
}

/// Parses a call of gRPC-Web.
pub(super) fn parse(request: &Request<'_>, form: Form) -> Result<Operation, Refusal> {
    let message = unframe(request.body, form)
        .map_err(|why| Refusal::from(TransportError::BadFraming(why)))?;
    grpc::parse(request.target, &message)
}

/// The answer in the form of the call, with CORS headers.
pub(super) fn reply(
    api: &Api,
    outcome: &Result<Vec<u8>, Refusal>,
    form: Form,
    origin: Option<&str>,
) -> Reply {
    let mut reply = frame_outcome(outcome, form);
    reply.headers = cors(api, origin);
    reply
}

/// The answer to a CORS preflight.
pub(super) fn preflight(api: &Api, request: &Request<'_>) -> Option<Reply> {
    let path = request.target.split('?').next()?;
    // REST is not for pages of other origins, so its paths refuse OPTIONS.
    let is_rest = ["/resources/", "/debug/", "/ui/"];
    if request.method != "OPTIONS" || is_rest.iter().any(|it| path.starts_with(it)) {
        return None;
    }
    let mut headers = cors(api, request.origin);
    if headers.is_empty() {
        return None;
    }
    let allowed = "authorization, content-type, grpc-timeout, totpd-code, x-grpc-web, x-user-agent";
    headers.push(("Access-Control-Allow-Methods", "POST".to_owned()));
    headers.push(("Access-Control-Allow-Headers", allowed.to_owned()));
    headers.push(("Access-Control-Max-Age", "86400".to_owned()));
    Some(Reply {
        status: 200,
        content_type: "text/plain; charset=utf-8",
        headers,
        body: Vec::new(),
    })
}

/// CORS headers for an allowed origin. For all others there are none, and the browser hides the answer from the page.
fn cors(api: &Api, origin: Option<&str>) -> Vec<(&'static str, String)> {
    let Some(origin) = origin.filter(|it| api.origins.iter().any(|named| named == it)) else {
        return Vec::new();
    };
    let exposed = "grpc-status, grpc-message, grpc-status-details-bin, x-request-id";
    vec![
        ("Access-Control-Allow-Origin", origin.to_owned()),
        ("Access-Control-Expose-Headers", exposed.to_owned()),
        ("Vary", "Origin".to_owned()),
    ]
}

/// The message of a unary call: one frame, and nothing after it.
fn unframe(body: &[u8], form: Form) -> Result<Vec<u8>, &'static str> {
    let mut bytes = match form {
        Form::Binary => body.to_vec(),
        Form::Text => BASE64
            .decode(body.trim_ascii())
            .map_err(|_| "expected base64")?,
    };
    let Some((&[flag, a, b, c, d], rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err("expected a frame of gRPC-Web");
    };
    if flag != MESSAGE {
        return Err("expected a frame with a message, and not a compressed one");
    }
    let length = u32::from_be_bytes([a, b, c, d]);
    if u32::try_from(rest.len()) != Ok(length) {
        return Err("expected one frame, as long as it says it is");
    }
    Ok(bytes.split_off(PREFIX_BYTES))
}

/// The answer: the message, if there is one, and the trailers as a last frame.
fn frame_outcome(outcome: &Result<Vec<u8>, Refusal>, form: Form) -> Reply {
    let mut body = Vec::new();
    if let Ok(message) = outcome {
        push(&mut body, MESSAGE, message);
    }
    let mut trailers = String::new();
    for (name, value) in grpc::trailers(outcome.as_ref().map(|_| ())) {
        trailers.extend([name, ":", &value, "\r\n"]);
    }
    push(&mut body, TRAILERS, trailers.as_bytes());
    if form == Form::Text {
        body = BASE64.encode(&body).into_bytes();
    }
    Reply {
        status: 200,
        content_type: form.content_type(),
        headers: Vec::new(),
        body,
    }
}

fn push(body: &mut Vec<u8>, flag: u8, content: &[u8]) {
    // An answer is a thousand users at most: far from 4 GiB.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    body.push(flag);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(content);
}
