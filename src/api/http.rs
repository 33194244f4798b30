//! A request and its answer, independent of sockets and transports: a front end builds a [`Request`], and `api` returns
//! a [`Reply`].

use std::net::IpAddr;

/// The transport of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// HTTP/1.1: the content type tells REST from gRPC-Web.
    Http,
    /// gRPC. The front end removes and adds the framing: the bodies of request and reply are messages, and the headers of
    /// the reply are the trailers.
    Grpc,
}

/// A complete request, within the limits of the front end.
pub struct Request<'a> {
    /// The transport.
    pub via: Via,
    /// The method as sent, for instance `DELETE`.
    pub method: &'a str,
    /// Path and query as sent, still percent-encoded: only visible ASCII.
    pub target: &'a str,
    /// The `Authorization` header, if there is one.
    pub authorization: Option<&'a str>,
    /// The `Content-Type` header, if there is one. JSON needs none.
    pub content_type: Option<&'a str>,
    /// The `Origin` header, if there is one: browsers send it for pages of other origins.
    pub origin: Option<&'a str>,
    /// The `Totpd-Code` header, if there is one. It is a credential: nothing logs it.
    pub code: Option<&'a str>,
    /// The body; empty if there is none. The front end limits its length.
    pub body: &'a [u8],
    /// The client's address, if it is known; events record it.
    pub peer: Option<IpAddr>,
    /// The request's id, if the front end gave it one; log lines carry it.
    pub request_id: Option<&'a str>,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The media type of `body`.
    pub content_type: &'static str,
    /// Headers beside those of every answer ([`COMMON_HEADERS`]).
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The header that says which request is answered. Front ends add it, also to what they answer by themselves.
pub(crate) const REQUEST_ID: &str = "X-Request-Id";

/// The header with the code that a `self` token needs for some changes.
pub(crate) const CODE: &str = "Totpd-Code";

/// Headers of every answer: no cache may keep a code, a secret or a verdict, and no browser may guess the type of a
/// body.
pub const COMMON_HEADERS: [(&str, &str); 2] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
];
