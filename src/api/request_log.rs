//! The lines of the log about requests. They are written after the transaction, and hold no token, code or secret.

use std::net::IpAddr;
use std::time::Instant;

use super::ReplyContext;
use super::counts::CallName;
use crate::log_limit::AddressLimits;

/// What a field says that is not known.
const UNKNOWN: &str = "-";

/// A request was answered.
pub(super) fn answered(context: &ReplyContext<'_>, status: u16, error_id: Option<&str>) {
    if !log::log_enabled!(log::Level::Debug) {
        return;
    }
    let path = context.target.split('?').next().unwrap_or_default();
    let seconds = context.begun.elapsed().as_secs_f64();
    log::debug!(
        "http.response.status_code" = status,
        "error.id" = error_id.unwrap_or(UNKNOWN),
        "duration" = seconds,
        "client.address":% = address(context.peer),
        "call" = call(context),
        "user_id" = user(context),
        "request_id" = context.request_id.unwrap_or(UNKNOWN);
        "{} {} -> {status}", context.method.escape_debug(), path.escape_debug()
    );
}

/// A token was refused: what bans an address that guesses.
pub(super) fn token_refused(limits: &AddressLimits, context: &ReplyContext<'_>) {
    if let Some(client) = admitted(limits, context) {
        log::info!(
            "client.address" = client.as_str(),
            "call" = call(context),
            "request_id" = context.request_id.unwrap_or(UNKNOWN);
            "a token was refused"
        );
    }
}

/// A wrong code began a wait of its user.
pub(super) fn wait_begins(limits: &AddressLimits, context: &ReplyContext<'_>, wait_s: u64) {
    if let Some(client) = admitted(limits, context) {
        log::info!(
            "client.address" = client.as_str(),
            "wait_s" = wait_s,
            "call" = call(context),
            "user_id" = user(context),
            "request_id" = context.request_id.unwrap_or(UNKNOWN);
            "a wait began"
        );
    }
}

/// What was left out and no line tells of yet.
pub(super) fn left_out(limits: &AddressLimits, now: Instant) {
    let (told, others) = limits.take_left_out(now);
    for (peer, left_out) in told {
        tell_left_out(&address(peer), left_out);
    }
    if others > 0 {
        tell_left_out("several", others);
    }
}

fn tell_left_out(client: &str, left_out: u64) {
    log::info!("client.address" = client; "{left_out} more refusals were not logged");
}

/// The client's address, if one more line about its refusals may be written.
fn admitted(limits: &AddressLimits, context: &ReplyContext<'_>) -> Option<String> {
    let left_out = limits.admit(context.peer, Instant::now())?;
    let client = address(context.peer);
    if left_out > 0 {
        tell_left_out(&client, left_out);
    }
    Some(client)
}

fn call(context: &ReplyContext<'_>) -> &'static str {
    if context.call == CallName::Other {
        UNKNOWN
    } else {
        context.call.as_str()
    }
}

fn user<'a>(context: &'a ReplyContext<'_>) -> &'a str {
    context.user.as_deref().unwrap_or(UNKNOWN)
}

fn address(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| UNKNOWN.to_owned(), |it| it.to_string())
}
