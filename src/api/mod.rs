//! The wire: a request in, an answer out. Messages, routes, and errors as statuses.
//!
//! Only this room knows statuses, JSON and protobuf. It knows no sockets and no SQL, and judges no rights: it
//! reads what was asked, calls the service, and writes down what came of it.

mod answer;
mod call;
mod calls;
#[cfg(test)]
mod cost;
mod filters;
mod grpc;
mod grpc_web;
pub mod handler;
pub mod http;
pub mod messages;
mod path;
mod rest;
mod routes;
pub mod status;

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{Clock, Timestamp};
use crate::service::{Caller, Service};
use answer::Answer;
use call::ParsedCall;
use calls::Writing;
use http::Via;
use http::{Reply, Request};
use messages::Encoding;
pub use routes::Kind;
use status::{Refusal, TransportError};

/// How long a page of a search may be as sent. Clients of gRPC take no longer message unless they are told to.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Answers requests with a service.
pub struct Api {
    service: Service,
    clock: Clock,
    /// Whose pages may call by gRPC-Web.
    origins: Vec<String>,
}

impl Api {
    /// An API over `service`; `clock` is read once a request.
    pub const fn new(service: Service, clock: Clock) -> Self {
        Self {
            service,
            clock,
            origins: Vec::new(),
        }
    }

    /// The same API for pages of these origins too, such as `https://example.org`: their browsers let them call
    /// it by gRPC-Web.
    #[must_use]
    pub fn for_origins(mut self, origins: Vec<String>) -> Self {
        self.origins = origins;
        self
    }

    /// Runs what answers several requests, whose changes then share one commit. `false` if that failed: nothing
    /// happened, whatever the answers say.
    pub fn run_batch(&self, calls: &mut dyn FnMut()) -> bool {
        let kept = self.service.run_batch(calls).map_err(Refusal::from);
        if let Err(refusal) = &kept {
            refusal.log();
        }
        kept.is_ok()
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Answers one request.
    pub fn answer(&self, request: &Request<'_>) -> Reply {
        self.encode(self.carry_out(self.parse(request)))
    }

    /// Reads one request. This needs no database: it runs before the transaction in which the request is carried out.
    pub fn parse<'a>(&self, request: &Request<'a>) -> Parsed<'a> {
        let (form, work) = self.form_and_work(request);
        Parsed {
            authorization: request.authorization,
            peer: request.peer,
            reserve: request.reserve,
            work,
            to: ReplyTo {
                form,
                method: request.method,
                target: request.target,
                origin: request.origin,
            },
        }
    }

    /// Judges the token and carries the request out.
    pub fn carry_out<'a>(&self, parsed: Parsed<'a>) -> Outcome<'a> {
        let Parsed {
            authorization,
            peer,
            reserve,
            work,
            to,
        } = parsed;
        let writing = Writing {
            encoding: to.form.encoding(),
            page_bytes: to.form.page_bytes(),
            reserve,
        };
        let answer = work.and_then(|work| self.do_work(work, authorization, peer, &writing));
        Outcome { to, answer }
    }

    fn do_work(
        &self,
        work: Work,
        authorization: Option<&str>,
        peer: Option<IpAddr>,
        writing: &Writing<'_>,
    ) -> Result<Answer, Refusal> {
        let now = (self.clock)();
        match work {
            Work::Healthz => Ok(Answer::Ok),
            Work::Ready => Ok(self.service.ready(now).map(|()| Answer::Ok)?),
            Work::Health => {
                let is_ready = self.service.ready(now).is_ok();
                Ok(Answer::Health(grpc::health_response(is_ready)))
            }
            Work::Preflight(reply) => Ok(Answer::Reply(reply)),
            Work::Call(parsed) => {
                let caller = caller(authorization)?.from_peer(peer);
                calls::carry_out(&self.service, caller, now, parsed, writing)
            }
        }
    }

    /// Writes the answer down in the form that the request asked for. Runs after the commit.
    pub fn encode(&self, outcome: Outcome<'_>) -> Reply {
        let Outcome { to, answer } = outcome;
        if let Err(refusal) = &answer {
            refusal.log();
        }
        let reply = match to.form {
            Form::Rest => answer.map_or_else(Refusal::into_reply, Answer::into_reply),
            Form::Grpc => {
                let headers = grpc::trailers(answer.as_ref().map(|_| ()));
                Reply {
                    status: answer.as_ref().map_or_else(|it| it.http, |_| 200),
                    content_type: "application/grpc",
                    headers,
                    body: answer.map(Answer::into_message).unwrap_or_default(),
                }
            }
            Form::Web(form) => {
                let outcome = answer.map(Answer::into_message);
                grpc_web::reply(self, &outcome, form, to.origin)
            }
        };
        let path = to.target.split('?').next().unwrap_or_default();
        log::debug!(
            "{} {} -> {}",
            to.method.escape_debug(),
            path.escape_debug(),
            reply.status
        );
        reply
    }

    fn form_and_work(&self, request: &Request<'_>) -> (Form, Result<Work, Refusal>) {
        if request.via == Via::Grpc {
            return (Form::Grpc, grpc::parse(request.target, request.body));
        }
        let form = grpc_web::Form::of(request.content_type).filter(|_| request.method == "POST");
        if let Some(form) = form {
            return (Form::Web(form), grpc_web::parse(request, form));
        }
        let preflight = grpc_web::preflight(self, request).map(|it| Ok(Work::Preflight(it)));
        let work = preflight.unwrap_or_else(|| rest::parse(request));
        (Form::Rest, work)
    }

    /// A refusal of whoever carries requests, in the form that a request of this content type and origin asks for.
    pub fn refused(
        &self,
        refusal: TransportError,
        content_type: Option<&str>,
        origin: Option<&str>,
    ) -> Reply {
        match grpc_web::Form::of(content_type) {
            Some(form) => grpc_web::reply(self, &Err(refusal.into()), form, origin),
            None => Refusal::from(refusal).into_reply(),
        }
    }
}

/// Who calls, by the bearer token (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1). Whether the token is
/// good is judged in the call's transaction.
fn caller(authorization: Option<&str>) -> Result<Caller> {
    let header = authorization.ok_or(Error::NoToken)?;
    let (scheme, token) = header.split_once(' ').ok_or(Error::BadToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Error::BadToken);
    }
    Ok(Caller::of_token(token.trim()))
}

/// A request that has been read, and may be carried out.
pub struct Parsed<'a> {
    authorization: Option<&'a str>,
    peer: Option<IpAddr>,
    reserve: &'a (dyn Fn(usize) -> bool + 'a),
    /// What to do, or why the path alone refuses it.
    work: Result<Work, Refusal>,
    to: ReplyTo<'a>,
}

impl Parsed<'_> {
    /// The target as it was sent.
    pub(crate) const fn target(&self) -> &str {
        self.to.target
    }
}

/// A request that was carried out, and whose answer is not written down yet.
pub struct Outcome<'a> {
    to: ReplyTo<'a>,
    answer: Result<Answer, Refusal>,
}

/// What the answer to a request depends on beside the call.
struct ReplyTo<'a> {
    form: Form,
    method: &'a str,
    target: &'a str,
    origin: Option<&'a str>,
}

/// The form that a request came in, and its answer goes out in.
enum Form {
    Rest,
    Grpc,
    Web(grpc_web::Form),
}

impl Form {
    const fn encoding(&self) -> Encoding {
        match self {
            Self::Rest => Encoding::Json,
            Self::Grpc | Self::Web(_) => Encoding::Protobuf,
        }
    }

    /// How long a page of a search may be.
    const fn page_bytes(&self) -> usize {
        match self {
            Self::Rest | Self::Grpc => PAGE_BYTES,
            Self::Web(form) => form.page_bytes(PAGE_BYTES),
        }
    }
}

/// What a request asks for.
enum Work {
    Healthz,
    Ready,
    /// Readiness, asked by gRPC.
    Health,
    /// What a browser asks before it lets a page of another origin call.
    Preflight(Reply),
    Call(ParsedCall),
}

/// What kind of request this is, as the path and the method alone tell.
pub fn kind(method: &str, target: &str, content_type: Option<&str>) -> Kind {
    if method == "POST" && grpc_web::Form::of(content_type).is_some() {
        return kind_of_grpc(target);
    }
    let path = target.split('?').next().unwrap_or_default();
    routes::route(method, path).map_or(Kind::Read, routes::Call::kind)
}

/// The same of a call of gRPC.
pub fn kind_of_grpc(target: &str) -> Kind {
    grpc::rpc(target).map_or(Kind::Read, grpc::Rpc::kind)
}

/// How a refusal of whoever carries a call of gRPC is told, as trailers.
pub fn refused_trailers(refusal: &Refusal) -> Vec<(&'static str, String)> {
    grpc::trailers(Err(refusal))
}
