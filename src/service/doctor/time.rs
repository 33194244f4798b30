//! `doctor`'s checks of the clock and of expiring tokens.

use std::time::Duration;

use super::Observation;
use crate::error::{Error, Result};
use crate::model::{LONGEST_EVENT_GAP, Timestamp, require_plausible};
use crate::store::{ReadTx, TokenRow};
use crate::totp::LONGEST_WAIT;

/// Tokens that expire within this time are a warning, while there is time to create new ones.
const EXPIRY_WARNING: Duration = Duration::from_hours(14 * 24);
/// The most tokens that a message lists.
const NAMED_TOKENS: u32 = 3;

/// The advice where the clock is behind recorded events.
const TWO_WAYS: &str = "If the clock is wrong now, set it, and nothing else is needed. If it is right now and was ahead \
     before, run `totpd doctor --fix clock`: what is dated later is then dated now, and no code that was used becomes \
     good again";

pub(super) fn clock(tx: &ReadTx<'_>, now: Timestamp) -> Result<Observation> {
    require_plausible(now)?;
    let (newest, trust) = (tx.newest_event_at()?, tx.clock_trust()?);
    if newest > now.after(LONGEST_WAIT) {
        let problem = format!(
            "it says {now}, but an event of {newest} is on record, and nothing is served. {TWO_WAYS}"
        );
        return Err(Error::invalid("the clock", problem));
    }
    if newest > now {
        return Ok(Observation::warn(format!(
            "it says {now}, and an event of {newest} is on record: until then codes that were used by a clock ahead may \
             be refused. {TWO_WAYS}"
        )));
    }
    let known = trust.confirmed_at.map_or(newest, |it| it.max(newest));
    let doubted_from = trust
        .doubted_from
        .or_else(|| (now > known.after(LONGEST_EVENT_GAP)).then_some(known));
    Ok(match doubted_from {
        None => Observation::ok(format!("{now}, and no event is later")),
        Some(from) => Observation::warn(format!(
            "it says {now}, over 30 days after the last event before that, of {from}: nothing is deleted by age. If the \
             clock is wrong, set it. If it is right, say so with `totpd doctor --fix clock`"
        )),
    })
}

pub(super) fn tokens(tx: &ReadTx<'_>, now: Timestamp) -> Result<Observation> {
    let (count, tokens) = tx.tokens_expiring(now.after(EXPIRY_WARNING), NAMED_TOKENS)?;
    if count == 0 {
        return Ok(Observation::ok(
            "none has expired or expires within 14 days",
        ));
    }
    let named: Vec<_> = tokens.iter().map(|it| expiry(it, now)).collect();
    let more = if count > NAMED_TOKENS { ", …" } else { "" };
    Ok(Observation::warn(format!(
        "{count} of them: {}{more}. Make new ones with `totpd token create`, and revoke these",
        named.join(", ")
    )))
}

fn expiry(token: &TokenRow, now: Timestamp) -> String {
    let expires = token.expires.unwrap_or(now);
    let verb = if expires <= now { "expired" } else { "expires" };
    format!("{} token {} {verb} on {expires}", token.role, token.id)
}
