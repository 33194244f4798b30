//! The wire: a request in, an answer out. Messages, routes, and errors as statuses.
//!
//! Only this room knows statuses and JSON. It knows no sockets and no SQL, and judges no rights: it reads
//! what was asked, calls the service, and writes down what came of it.

pub mod http;
pub mod messages;
mod path;
mod routes;
pub mod status;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{Clock, Timestamp};
use crate::service::{Caller, Details, Service, Verdict};
use http::{Reply, Request};
use messages::{CheckResponse, DetailsResponse, GetUserResponse, StartResponse};
use routes::Call;
pub use routes::is_change;
use status::Refusal;

/// Answers requests with a service.
pub struct Api {
    service: Service,
    clock: Clock,
}

impl Api {
    /// An API over `service`; `clock` is read once a request.
    pub const fn new(service: Service, clock: Clock) -> Self {
        Self { service, clock }
    }

    /// Runs what answers several requests, whose changes then share one commit. `false` if that failed: nothing
    /// happened, whatever the answers say.
    pub fn together(&self, calls: &mut dyn FnMut()) -> bool {
        let kept = self.service.together(calls);
        kept.map_err(|error| refusal(&error)).is_ok()
    }

    /// Answers one request.
    pub fn answer(&self, request: &Request<'_>) -> Reply {
        let reply = self.try_answer(request).unwrap_or_else(Refusal::into_reply);
        let path = request.target.split('?').next().unwrap_or_default();
        log::debug!(
            "{} {} -> {}",
            request.method.escape_debug(),
            path.escape_debug(),
            reply.status
        );
        reply
    }

    /// Judges in the order of contract §3: path, token, fields, rights, existence, state, code.
    fn try_answer(&self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((request.target, ""));
        let call = routes::route(request.method, path)?;
        let now = (self.clock)();
        self.call(call, query, request, now)
            .unwrap_or_else(|error| Err(refusal(&error)))
    }

    fn call(&self, call: Call<'_>, query: &str, request: &Request<'_>, now: Timestamp) -> Answer {
        let service = &self.service;
        // What a prober asks needs no token.
        match call {
            Call::Healthz => return Ok(text("ok")),
            Call::Ready => return service.ready(now).map(|()| text("ok")),
            Call::CreateUser
            | Call::GetUser(_)
            | Call::DeleteUser(_)
            | Call::StartTotp(_)
            | Call::ConfirmTotp(..)
            | Call::CheckTotp(..)
            | Call::RemoveTotp(..) => {}
        }
        let caller = &self.caller(request, now)?;
        let user = |raw: &str| path::decode("id", raw)?.parse();
        let totp = |raw: &str| path::decode("totpId", raw)?.parse();
        let expect = &path::expect(query)?;
        match call {
            Call::Healthz | Call::Ready => Ok(text("ok")),
            Call::CreateUser => {
                let new = messages::read_create_user(request.body)?;
                let details = service.create_user(caller, expect, new, now)?;
                Ok(json(201, &DetailsResponse::from(details)))
            }
            Call::GetUser(id) => {
                let found = service.user(caller, expect, &user(id)?, now)?;
                Ok(json(200, &GetUserResponse::of(found)?))
            }
            Call::DeleteUser(id) => {
                let details = service.remove_user(caller, expect, &user(id)?, now)?;
                Ok(json(200, &DetailsResponse::from(details)))
            }
            Call::StartTotp(id) => {
                let (user, name) = (user(id)?, messages::read_start(request.body)?);
                let enrolment = service.start_totp(caller, expect, &user, name, now)?;
                Ok(json(200, &StartResponse::from(enrolment)))
            }
            Call::ConfirmTotp(id, of) => {
                let (user, totp, code) = (user(id)?, totp(of)?, messages::read_code(request.body)?);
                let verdict = service.confirm_totp(caller, expect, &user, &totp, &code, now)?;
                Ok(judged(verdict, |it| json(200, &DetailsResponse::from(it))))
            }
            Call::CheckTotp(id, of) => {
                let (user, totp) = (user(id)?, of.map(totp).transpose()?);
                let code = messages::read_code(request.body)?;
                let verdict =
                    service.check_totp(caller, expect, &user, totp.as_ref(), &code, now)?;
                Ok(judged(verdict, |it| json(200, &CheckResponse::from(it))))
            }
            Call::RemoveTotp(id, of) => {
                let (user, totp) = (user(id)?, totp(of)?);
                let details = service.remove_totp(caller, expect, &user, &totp, now)?;
                Ok(json(200, &DetailsResponse::from(details)))
            }
        }
    }

    /// Who calls, by the bearer token (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
    fn caller(&self, request: &Request<'_>, now: Timestamp) -> Result<Caller> {
        let header = request.authorization.ok_or(Error::NoToken)?;
        let (scheme, token) = header.split_once(' ').ok_or(Error::BadToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Error::BadToken);
        }
        Ok(self
            .service
            .authenticate(token.trim(), now)?
            .from_peer(request.peer))
    }
}

/// What a call comes to: a reply, which may be a refusal of its own kind, or an error.
type Answer = Result<Result<Reply, Refusal>>;

fn judged(
    verdict: Verdict,
    accepted: impl FnOnce(Details) -> Result<Reply, Refusal>,
) -> Result<Reply, Refusal> {
    match verdict {
        Verdict::Accepted(details) => accepted(details),
        Verdict::Wrong => Err(Refusal::wrong_code()),
        Verdict::Used => Err(Refusal::used_code()),
        Verdict::Wait { retry_after_s } => Err(Refusal::wait(retry_after_s)),
    }
}

/// The refusal for an error; what is inside it goes to the log here, once, and to nobody else.
fn refusal(error: &Error) -> Refusal {
    match error {
        Error::Bug(inner) => log::error!("a fault of ours: {inner}"),
        Error::Unavailable(inner) => log::warn!("unavailable: {inner}"),
        Error::Invalid { .. }
        | Error::NoToken
        | Error::BadToken
        | Error::Forbidden
        | Error::NotFound(_)
        | Error::Unfit(_)
        | Error::Taken(_) => {}
    }
    Refusal::from(error)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every arm of a call has this type"
)]
fn json(status: u16, message: &impl Serialize) -> Result<Reply, Refusal> {
    // Strings, booleans and lists of them: serializing them cannot fail.
    let body = serde_json::to_vec(message).unwrap_or_default();
    Ok(Reply {
        status,
        content_type: "application/json",
        headers: Vec::new(),
        body,
    })
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every arm of a call has this type"
)]
fn text(body: &str) -> Result<Reply, Refusal> {
    let (content_type, body) = ("text/plain; charset=utf-8", body.as_bytes().to_vec());
    Ok(Reply {
        status: 200,
        content_type,
        headers: Vec::new(),
        body,
    })
}
