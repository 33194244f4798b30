//! The wire: a request in, an answer out. Messages, routes, and errors as statuses.
//!
//! Only this room knows statuses, JSON and protobuf. It knows no sockets and no SQL, and judges no rights: it
//! reads what was asked, calls the service, and writes down what came of it.

mod calls;
mod filters;
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
use http::{Reply, Request};
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

    /// Answers one request.
    pub fn answer(&self, request: &Request<'_>) -> Reply {
        let reply = rest::answer(self, request).unwrap_or_else(Refusal::into_reply);
        let path = request.target.split('?').next().unwrap_or_default();
        log::debug!(
            "{} {} -> {}",
            request.method.escape_debug(),
            path.escape_debug(),
            reply.status
        );
        reply
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
