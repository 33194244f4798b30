//! The wire: a request in, an answer out. Messages, routes, and errors as statuses.
//!
//! Only this module knows statuses and protobuf. It knows no sockets and no SQL, and judges no rights: it reads a
//! request, calls the service, and encodes the answer.

mod answer;
mod call;
mod calls;
#[cfg(test)]
mod cost;
pub(crate) mod counts;
mod events;
mod filters;
mod grpc;
mod grpc_web;
pub mod handler;
pub mod http;
pub mod messages;
mod operation;
mod path;
mod qr;
mod request_log;
mod rest;
mod routes;
pub mod status;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::log_limit::AddressLimits;
use crate::model::{Clock, RequestId, Timestamp};
use crate::service::{Caller, Service};
use answer::Answer;
use call::Call;
use calls::AnswerSettings;
use counts::{CallName, CodeName, RequestCounts, Transport};
use http::{Reply, Request, Via};
use operation::{Form, Operation, ReplyContext};
pub use operation::{Outcome, Parsed};
pub use routes::Kind;
use status::{Code, Refusal, TransportError};

/// The length limit of a page of a search as sent: clients of gRPC accept no longer message by default.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Answers requests with a service.
pub struct Api {
    service: Service,
    clock: Clock,
    /// Origins whose pages may call by gRPC-Web.
    origins: Vec<String>,
    /// Whether the pages for people are served.
    has_pages: bool,
    /// What links begin with.
    base_url: OnceLock<String>,
    refusals: AddressLimits,
    counts: RequestCounts,
}

impl Api {
    /// An API over `service`; `clock` is read once a request.
    pub fn new(service: Service, clock: Clock) -> Self {
        Self {
            service,
            clock,
            origins: Vec::new(),
            has_pages: false,
            base_url: OnceLock::new(),
            refusals: AddressLimits::new(),
            counts: RequestCounts::new(),
        }
    }

    /// Lets pages of these origins, such as `https://example.org`, call by gRPC-Web.
    #[must_use]
    pub fn for_origins(mut self, origins: Vec<String>) -> Self {
        self.origins = origins;
        self
    }

    /// Serves the pages for people too, if the feature `web` is on.
    #[must_use]
    pub fn with_pages(mut self) -> Self {
        self.has_pages = true;
        self
    }

    /// Sets the URL that links begin with, such as `https://example.org/totpd`, unless it is set already. It never comes
    /// from a request.
    pub fn set_base_url(&self, url: String) {
        let _set_before = self.base_url.set(url);
    }

    /// What links begin with, if that is known.
    pub(crate) fn base_url(&self) -> Option<&str> {
        self.base_url.get().map(String::as_str)
    }

    /// Runs `calls`, whose changes share one commit. Returns `false` if the commit failed: then nothing has happened,
    /// whatever the answers say.
    pub fn run_batch(&self, calls: &mut dyn FnMut()) -> bool {
        let committed = self.service.run_batch(calls).map_err(Refusal::from);
        if let Err(refusal) = &committed {
            refusal.log();
        }
        committed.is_ok()
    }

    /// As [`handler::Handler::log_left_out`].
    fn log_left_out(&self, now: Instant) {
        request_log::left_out(&self.refusals, now);
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Answers one request.
    pub fn answer(&self, request: &Request<'_>) -> Reply {
        self.encode(self.carry_out(self.parse(request)))
    }

    /// Parses one request. This needs no database, so it runs before the transaction.
    pub fn parse<'a>(&self, request: &Request<'a>) -> Parsed<'a> {
        let (form, mut operation) = self.form_and_operation(request);
        if let (Ok(Operation::Call(call)), Some(code)) = (&mut operation, request.code) {
            call.read_proof(code);
        }
        let (call, user) = match &operation {
            Ok(Operation::Call(it)) => (it.name, it.call.as_ref().ok().and_then(Call::user)),
            Ok(Operation::Redeem(_)) => (CallName::RedeemInvitation, None),
            Ok(Operation::Healthz) => (CallName::Health, None),
            Ok(Operation::Ready | Operation::Health) => (CallName::Ready, None),
            Ok(Operation::OpenApi | Operation::Preflight(_) | Operation::Page(_)) | Err(_) => {
                (CallName::Other, None)
            }
        };
        let user = user.map(ToString::to_string);
        Parsed {
            authorization: request.authorization,
            peer: request.peer,
            operation,
            context: ReplyContext {
                form,
                method: request.method,
                target: request.target,
                origin: request.origin,
                request_id: request.request_id,
                call,
                user,
                peer: request.peer,
                begun: Instant::now(),
            },
        }
    }

    /// Judges the token and carries the request out.
    pub fn carry_out<'a>(&self, parsed: Parsed<'a>) -> Outcome<'a> {
        let Parsed {
            authorization,
            peer,
            operation,
            context,
        } = parsed;
        let settings = AnswerSettings {
            encoding: context.form.encoding(),
            page_bytes: context.form.page_bytes(),
            base_url: self.base_url(),
        };
        let request_id = context.request_id.and_then(|it| it.parse().ok());
        let answer =
            operation.and_then(|it| self.run(it, authorization, (peer, request_id), &settings));
        Outcome { context, answer }
    }

    fn run(
        &self,
        operation: Operation,
        authorization: Option<&str>,
        (peer, request_id): (Option<IpAddr>, Option<RequestId>),
        settings: &AnswerSettings<'_>,
    ) -> Result<Answer, Refusal> {
        let now = (self.clock)();
        match operation {
            Operation::Healthz => Ok(Answer::Ok),
            Operation::Ready => Ok(self.service.ready(now).map(|()| Answer::Ok)?),
            Operation::Health => {
                let is_ready = self.service.ready(now).is_ok();
                Ok(Answer::Health(grpc::health_response(is_ready)))
            }
            Operation::OpenApi => Ok(Answer::OpenApi),
            Operation::Redeem(code) => {
                calls::redeem(&self.service, &code?, (peer, request_id), now)
            }
            Operation::Preflight(reply) => Ok(Answer::Reply(reply)),
            Operation::Page(file) => Ok(Answer::Page(file)),
            Operation::Call(parsed) => {
                let caller = caller(authorization)?
                    .from_peer(peer)
                    .with_request_id(request_id);
                calls::carry_out(&self.service, &caller, now, parsed, settings)
            }
        }
    }

    /// Encodes the answer in the form that the request asked for. Runs after the commit.
    pub fn encode(&self, outcome: Outcome<'_>) -> Reply {
        let Outcome { context, answer } = outcome;
        let (transport, time) = (context.form.transport(), context.begun.elapsed());
        self.counts
            .note_answer(transport, context.call, &answer, time);
        if let Err(refusal) = &answer {
            refusal.log();
            if refusal.code == Code::Unauthenticated {
                request_log::token_refused(&self.refusals, &context);
            }
            if let Some(wait_s) = refusal.begins_wait_s {
                request_log::wait_begins(&self.refusals, &context, wait_s);
            }
        }
        let error_id = answer.as_ref().err().and_then(|it| it.id);
        let reply = match context.form {
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
                grpc_web::reply(self, &outcome, form, context.origin)
            }
        };
        request_log::answered(&context, reply.status, error_id);
        reply
    }

    fn form_and_operation(&self, request: &Request<'_>) -> (Form, Result<Operation, Refusal>) {
        if request.via == Via::Grpc {
            return (Form::Grpc, grpc::parse(request.target, request.body));
        }
        let form = grpc_web::Form::of(request.content_type).filter(|_| request.method == "POST");
        if let Some(form) = form {
            return (Form::Web(form), grpc_web::parse(request, form));
        }
        let preflight = grpc_web::preflight(self, request).map(|it| Ok(Operation::Preflight(it)));
        let operation = preflight.unwrap_or_else(|| rest::parse(request));
        let operation = operation.and_then(|it| self.judge_page(it, request.method));
        (Form::Rest, operation)
    }

    /// Refuses a page where none are served, and what is no reading of one.
    fn judge_page(&self, operation: Operation, method: &str) -> Result<Operation, Refusal> {
        if !matches!(operation, Operation::Page(_)) {
            return Ok(operation);
        }
        if !self.has_pages {
            return Err(Refusal::no_page());
        }
        if !["GET", "HEAD"].contains(&method) {
            return Err(Refusal::method_not_allowed("GET, HEAD"));
        }
        Ok(operation)
    }

    /// Encodes a refusal of a transport, in the form that a request of this content type and origin asks for.
    pub fn refuse(
        &self,
        refusal: TransportError,
        content_type: Option<&str>,
        origin: Option<&str>,
    ) -> Reply {
        let form = grpc_web::Form::of(content_type);
        let transport = form
            .as_ref()
            .map_or(Transport::Rest, |_| Transport::GrpcWeb);
        self.note_refusal(transport, refusal);
        match form {
            Some(form) => grpc_web::reply(self, &Err(refusal.into()), form, origin),
            None => Refusal::from(refusal).into_reply(),
        }
    }

    /// Counts a request that a transport refused.
    pub(crate) fn note_refusal(&self, transport: Transport, refusal: TransportError) {
        // A failed commit was counted for each of its calls.
        if refusal != TransportError::CommitFailed {
            let code = Refusal::from(refusal).code.into();
            self.counts.note(transport, CallName::Other, code);
        }
    }

    /// Counts a request whose commit failed: its transport refuses it.
    fn note_failed_commit(&self, outcome: &Outcome<'_>) {
        let (transport, call) = (outcome.context.form.transport(), outcome.context.call);
        self.counts.note(transport, call, CodeName::Unavailable);
    }

    /// What was counted.
    pub(crate) const fn counts(&self) -> &RequestCounts {
        &self.counts
    }

    /// The service that answers.
    pub(crate) const fn service(&self) -> &Service {
        &self.service
    }
}

/// The caller, named by the bearer token (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1). The token
/// itself is judged in the call's transaction.
fn caller(authorization: Option<&str>) -> Result<Caller> {
    let header = authorization.ok_or(Error::NoToken)?;
    let (scheme, token) = header.split_once(' ').ok_or(Error::BadToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Error::BadToken);
    }
    Ok(Caller::of_token(token.trim()))
}

/// The kind of a request, known from its method and path.
pub fn kind(method: &str, target: &str, content_type: Option<&str>) -> Kind {
    if method == "POST" && grpc_web::Form::of(content_type).is_some() {
        return kind_of_grpc(target);
    }
    let path = target.split('?').next().unwrap_or_default();
    routes::route(method, path).map_or(Kind::Read, routes::Call::kind)
}

/// The kind of a gRPC call.
pub fn kind_of_grpc(target: &str) -> Kind {
    grpc::rpc(target).map_or(Kind::Read, grpc::Rpc::kind)
}

/// The gRPC trailers of a refusal.
pub fn refusal_trailers(refusal: &Refusal) -> Vec<(&'static str, String)> {
    grpc::trailers(Err(refusal))
}
