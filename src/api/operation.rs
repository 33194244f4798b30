//! A request between its parts: parsed and not carried out, or carried out and not encoded.

use std::net::IpAddr;
use std::time::Instant;

use zeroize::Zeroizing;

use super::answer::Answer;
use super::call::ParsedCall;
use super::counts::{CallName, Transport};
use super::http::Reply;
use super::messages::Encoding;
use super::status::Refusal;
use super::{PAGE_BYTES, grpc_web};
use crate::error::Result;
use crate::web::File;

/// A parsed request.
pub struct Parsed<'a> {
    pub(super) authorization: Option<&'a str>,
    pub(super) peer: Option<IpAddr>,
    /// What to do, or why the path alone refuses it.
    pub(super) operation: Result<Operation, Refusal>,
    pub(super) context: ReplyContext<'a>,
}

impl Parsed<'_> {
    /// The target as it was sent.
    pub(crate) const fn target(&self) -> &str {
        self.context.target
    }
}

/// A request that was carried out, with the answer not encoded yet.
pub struct Outcome<'a> {
    pub(super) context: ReplyContext<'a>,
    pub(super) answer: Result<Answer, Refusal>,
}

/// What the encoding of an answer depends on.
pub(super) struct ReplyContext<'a> {
    pub(super) form: Form,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) origin: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    /// The name of the call, and the user that it names.
    pub(super) call: CallName,
    pub(super) user: Option<String>,
    pub(super) peer: Option<IpAddr>,
    /// For the log and for metrics.
    pub(super) begun: Instant,
}

/// The protocol of a request and of its answer.
pub(super) enum Form {
    Rest,
    Grpc,
    Web(grpc_web::Form),
}

impl Form {
    pub(super) const fn transport(&self) -> Transport {
        match self {
            Self::Rest => Transport::Rest,
            Self::Grpc => Transport::Grpc,
            Self::Web(_) => Transport::GrpcWeb,
        }
    }

    pub(super) const fn encoding(&self) -> Encoding {
        match self {
            Self::Rest => Encoding::Json,
            Self::Grpc | Self::Web(_) => Encoding::Protobuf,
        }
    }

    /// The length limit of a page of a search.
    pub(super) const fn page_bytes(&self) -> usize {
        match self {
            Self::Rest | Self::Grpc => PAGE_BYTES,
            Self::Web(form) => form.page_bytes(PAGE_BYTES),
        }
    }
}

/// What a request asks for.
pub(super) enum Operation {
    Healthz,
    Ready,
    /// Readiness, for `grpc.health.v1`.
    Health,
    /// The description of the API.
    OpenApi,
    /// The redemption of an invitation with this code, or what is wrong with its body.
    Redeem(Result<Zeroizing<String>>),
    /// A CORS preflight, with its answer.
    Preflight(Reply),
    /// A file of the pages for people.
    Page(File),
    Call(ParsedCall),
}
