//! One request and one answer as the wire rooms hand them to each other, free of any socket.
//!
//! The front end builds a [`Request`], the routes turn it into a [`Reply`]. Neither knows who carries it.

use std::net::IpAddr;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// As HTTP: the content type says whether it is REST or gRPC-Web.
    Http,
    /// As one call of gRPC, whose framing its carrier takes off and puts on: the body is the message alone, and so is
    /// that of the reply, whose headers are the trailers.
    Grpc,
}

/// A whole request, already read within the front end's limits.
pub struct Request<'a> {
    /// How it came.
    pub via: Via,
    /// The method as sent, for instance `DELETE`.
    pub method: &'a str,
    /// Path and query as sent, still percent-encoded: only visible ASCII.
    pub target: &'a str,
    /// The `Authorization` header, if there is one.
    pub authorization: Option<&'a str>,
    /// The `Content-Type` header, if there is one. JSON is taken without one too.
    pub content_type: Option<&'a str>,
    /// The `Origin` header, if there is one: a browser sends it for pages of others.
    pub origin: Option<&'a str>,
    /// The body; empty where there is none. It never holds more than the front end's limit.
    pub body: &'a [u8],
    /// Whose request it is, as far as the front end can tell; recorded in events.
    pub peer: Option<IpAddr>,
    /// Asked for so many bytes more before a long answer grows by them; `false` where there is no memory for them,
    /// and then the request is refused. What was granted stays with the request's carrier until the answer is taken.
    pub reserve: &'a (dyn Fn(usize) -> bool + 'a),
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The media type of `body`.
    pub content_type: &'static str,
    /// What else the answer says in its head, beside what every answer carries ([`EVERY_REPLY`]).
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What every answer carries, whoever writes it: no code, secret or verdict belongs in a cache, and
/// nobody is to guess at the type of a body.
pub const EVERY_REPLY: [(&str, &str); 2] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
];
