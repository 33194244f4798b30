//! The wire: a request in, an answer out. Messages, routes, and errors as statuses.
//!
//! Only this room knows statuses, JSON and protobuf. It knows no sockets and no SQL, and judges no rights: it
//! reads what was asked, calls the service, and writes down what came of it.

mod calls;
mod filters;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "grpc")]
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
#[cfg(feature = "grpc")]
use http::Via;
use http::{Reply, Request};
pub use routes::is_change;
use status::{AtTheDoor, Refusal};

/// Answers requests with a service.
pub struct Api {
    service: Service,
    clock: Clock,
    /// Whose pages may call by gRPC-Web.
    #[cfg(feature = "grpc")]
    origins: Vec<String>,
}

impl Api {
    /// An API over `service`; `clock` is read once a request.
    pub const fn new(service: Service, clock: Clock) -> Self {
        Self {
            service,
            clock,
            #[cfg(feature = "grpc")]
            origins: Vec::new(),
        }
    }

    /// The same API for pages of these origins too, such as `https://example.org`: their browsers let them call
    /// it by gRPC-Web.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn for_origins(mut self, origins: Vec<String>) -> Self {
        self.origins = origins;
        self
    }

    /// Runs what answers several requests, whose changes then share one commit. `false` if that failed: nothing
    /// happened, whatever the answers say.
    pub fn together(&self, calls: &mut dyn FnMut()) -> bool {
        let kept = self.service.together(calls);
        kept.map_err(Refusal::from).is_ok()
    }

    /// Answers one request.
    pub fn answer(&self, request: &Request<'_>) -> Reply {
        let reply = self.reply(request);
        let path = request.target.split('?').next().unwrap_or_default();
        log::debug!(
            "{} {} -> {}",
            request.method.escape_debug(),
            path.escape_debug(),
            reply.status
        );
        reply
    }

    #[cfg(feature = "grpc")]
    fn reply(&self, request: &Request<'_>) -> Reply {
        if request.via == Via::Grpc {
            let outcome = grpc::answer(self, request, request.body);
            let headers = grpc::trailers(outcome.as_ref().map(|_| ()));
            return Reply {
                status: 200,
                content_type: "application/grpc",
                headers,
                body: outcome.unwrap_or_default(),
            };
        }
        let form = grpc_web::Form::of(request.content_type).filter(|_| request.method == "POST");
        if let Some(form) = form {
            return grpc_web::answer(self, request, form);
        }
        grpc_web::preflight(self, request).unwrap_or_else(|| self.rest(request))
    }

    #[cfg(not(feature = "grpc"))]
    fn reply(&self, request: &Request<'_>) -> Reply {
        self.rest(request)
    }

    fn rest(&self, request: &Request<'_>) -> Reply {
        rest::answer(self, request).unwrap_or_else(Refusal::into_reply)
    }

    /// A refusal of whoever carries requests, in the form that a request of this content type and origin asks for.
    #[cfg(feature = "grpc")]
    pub fn refused(
        &self,
        refusal: AtTheDoor,
        content_type: Option<&str>,
        origin: Option<&str>,
    ) -> Reply {
        match grpc_web::Form::of(content_type) {
            Some(form) => grpc_web::refused(self, refusal.into(), form, origin),
            None => Refusal::from(refusal).into_reply(),
        }
    }

    /// A refusal of whoever carries requests.
    #[cfg(not(feature = "grpc"))]
    pub fn refused(&self, refusal: AtTheDoor, _: Option<&str>, _: Option<&str>) -> Reply {
        Refusal::from(refusal).into_reply()
    }

    /// Who calls, by the bearer token (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
    fn caller(
        &self,
        authorization: Option<&str>,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Caller> {
        let header = authorization.ok_or(Error::NoToken)?;
        let (scheme, token) = header.split_once(' ').ok_or(Error::BadToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Error::BadToken);
        }
        Ok(self
            .service
            .authenticate(token.trim(), now)?
            .from_peer(peer))
    }
}

/// How a refusal of whoever carries a call of gRPC is told, as trailers.
#[cfg(feature = "grpc")]
pub fn refused_trailers(refusal: &Refusal) -> Vec<(&'static str, String)> {
    grpc::trailers(Err(refusal))
}
