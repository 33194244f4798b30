//! gRPC calls, their framing taken off: a message in, a message and trailers out.
//!
//! Whoever carries them, HTTP/2 or gRPC-Web, comes through here and from here to the same functions as REST.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;

use super::Api;
use super::calls::{self, Beside, Context};
use super::http::Request;
use super::messages::rpc::{
    Any, Duration, ErrorDetail, HealthCheckRequest, HealthCheckResponse, RetryInfo, ServingStatus,
    Status,
};
use super::status::Refusal;
use crate::error::Error;

/// The service whose clients ZITADEL publishes, and our own.
const USERS: &str = "zitadel.resources.user.v3alpha.ZITADELUsers";
const TOTPS: &str = "totpd.v1.TOTPService";
const HEALTH: &str = "grpc.health.v1.Health";

/// What `grpc-message` may hold unescaped: visible ASCII but the sign of escaping.
const MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// Answers one call. Judges in the same order as REST: path, token, fields and so on.
pub(super) fn answer(api: &Api, request: &Request<'_>, message: &[u8]) -> Result<Vec<u8>, Refusal> {
    let path = request.target.strip_prefix('/').unwrap_or_default();
    let (service, rpc) = path.split_once('/').ok_or_else(Refusal::not_offered)?;
    match service {
        USERS => match rpc {
            "SearchUsers" => call(api, request, message, calls::search_users),
            "GetUser" => call(api, request, message, calls::get_user),
            "CreateUser" => call(api, request, message, calls::create_user),
            "DeleteUser" => call(api, request, message, calls::delete_user),
            "LockUser" => call(api, request, message, calls::lock_user),
            "UnlockUser" => call(api, request, message, calls::unlock_user),
            "DeactivateUser" => call(api, request, message, calls::deactivate_user),
            "ActivateUser" => call(api, request, message, calls::activate_user),
            "StartTOTPRegistration" => call(api, request, message, calls::start_totp),
            "VerifyTOTPRegistration" => call(api, request, message, calls::confirm_totp),
            "RemoveTOTPAuthenticator" => call(api, request, message, calls::remove_totp),
            _ => Err(Refusal::not_offered()),
        },
        TOTPS if rpc == "CheckTOTP" => call(api, request, message, calls::check_totp),
        HEALTH if rpc == "Check" => health(api, message),
        _ => Err(Refusal::not_offered()),
    }
}

fn call<Q: Message + Default, A: Message>(
    api: &Api,
    request: &Request<'_>,
    message: &[u8],
    call: impl FnOnce(&Context<'_>, Q) -> Result<A, Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let now = (api.clock)();
    let caller = &api.caller(request.authorization, request.peer, now)?;
    let it = Context {
        service: &api.service,
        caller,
        now,
        beside: Beside::default(),
    };
    Ok(call(&it, decode(message)?)?.encode_to_vec())
}

/// Whether totpd is ready, for whoever asks: no token is needed.
fn health(api: &Api, message: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: HealthCheckRequest = decode(message)?;
    if !["", USERS, TOTPS].contains(&request.service.as_str()) {
        return Err(Refusal::unknown_service());
    }
    let status = match api.service.ready((api.clock)()) {
        Ok(()) => ServingStatus::Serving,
        Err(_) => ServingStatus::NotServing,
    };
    let status = status.into();
    Ok(HealthCheckResponse { status }.encode_to_vec())
}

fn decode<Q: Message + Default>(message: &[u8]) -> Result<Q, Error> {
    // The decoder's own words are left out: they might repeat what was sent.
    Q::decode(message).map_err(|_| Error::invalid("message", "this is not the call's message"))
}

/// How a call ended, as trailers.
pub(super) fn trailers(outcome: Result<(), &Refusal>) -> Vec<(&'static str, String)> {
    let Err(refusal) = outcome else {
        return vec![("grpc-status", "0".to_owned())];
    };
    let status = status(refusal);
    vec![
        ("grpc-status", status.code.to_string()),
        (
            "grpc-message",
            utf8_percent_encode(&status.message, MESSAGE).to_string(),
        ),
        (
            "grpc-status-details-bin",
            data_encoding::BASE64_NOPAD.encode(&status.encode_to_vec()),
        ),
    ]
}

/// The same that REST says as JSON, and how long to wait where there is a wait.
fn status(refusal: &Refusal) -> Status {
    let mut details = Vec::new();
    if let Some(id) = refusal.id {
        let detail = ErrorDetail {
            id: id.to_owned(),
            message: refusal.message.clone(),
        };
        let kind = "type.googleapis.com/zitadel.v1.ErrorDetail";
        details.push(Any::of(kind, &detail));
    }
    if let Some(seconds) = refusal.retry_after_s {
        let retry_delay = Some(Duration {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        });
        let kind = "type.googleapis.com/google.rpc.RetryInfo";
        details.push(Any::of(kind, &RetryInfo { retry_delay }));
    }
    Status {
        code: refusal.code.number(),
        message: refusal.sentence(),
        details,
    }
}
