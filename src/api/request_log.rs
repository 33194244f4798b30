//! The lines of the log about requests. They are written after the transaction, and hold no token, code or secret.

use std::net::IpAddr;
use std::time::Instant;

use super::ReplyContext;
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
        "request_id" = context.request_id.unwrap_or(UNKNOWN);
        "{} {} -> {status}", context.method.escape_debug(), path.escape_debug()
    );
}

/// A token was refused: what bans an address that guesses.
pub(super) fn token_refused(limits: &AddressLimits, context: &ReplyContext<'_>) {
    let Some(left_out) = limits.admit(context.peer, Instant::now()) else {
        return;
    };
    let client = address(context.peer);
    if left_out > 0 {
        log::info!("client.address":% = client; "{left_out} more refusals of tokens were not logged");
    }
    log::info!(
        "client.address":% = client,
        "request_id" = context.request_id.unwrap_or(UNKNOWN);
        "a token was refused"
    );
}

fn address(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| UNKNOWN.to_owned(), |it| it.to_string())
}
