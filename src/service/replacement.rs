//! How many authenticators a user may have, and how one replaces another.
//!
//! An enrolment can name a confirmed authenticator that its confirmation removes, in the same transaction. Until then the
//! old one stays good, so a new phone that never worked locks no user out.

use super::call::TxContext;
use crate::error::{Error, Missing, Result, WrongState};
use crate::model::TotpId;
use crate::store::{Event, EventKind, EventSource, TotpRow, TotpState, UserRow, WriteTx};

/// The most authenticators of one user, pending ones included. Each of them makes a guess more likely to succeed.
///
/// The authenticator that a new enrolment is to replace is not counted. So there may be an eleventh row, but never an
/// eleventh confirmed one: an eleventh row comes only with an enrolment that names one of the others, and that one goes
/// when the enrolment is confirmed. If it went before, there were ten rows again.
pub(super) const MAX_TOTPS: usize = 10;

/// Fails unless the authenticator that an enrolment is to replace is there and confirmed.
pub(super) fn require_replaceable(totps: &[TotpRow], replaced: &TotpId) -> Result<()> {
    let is_there = totps
        .iter()
        .any(|it| it.id == *replaced && it.state == TotpState::Confirmed);
    is_there.then_some(()).ok_or(Error::NotFound(Missing::Totp))
}

/// The pending authenticators that give way to a new one, oldest first. Fails if the user has as many confirmed ones as
/// are allowed, not counting the one that the new one is to replace.
pub(super) fn pending_to_give_way<'a>(
    totps: &'a [TotpRow],
    replaced: Option<&TotpId>,
) -> Result<Vec<&'a TotpRow>> {
    let counted = totps.iter().filter(|it| Some(&it.id) != replaced);
    // One more than these is at most the limit.
    let excess = counted.count().saturating_sub(MAX_TOTPS.saturating_sub(1));
    let pending = totps.iter().filter(|it| it.state == TotpState::Pending);
    let oldest: Vec<&TotpRow> = pending.take(excess).collect();
    if oldest.len() < excess {
        return Err(Error::WrongState(WrongState::TooManyTotps));
    }
    Ok(oldest)
}

/// Removes a pending authenticator as if it had expired.
pub(super) fn remove_pending(tx: &WriteTx<'_>, user: &UserRow, totp: &TotpRow) -> Result<()> {
    tx.delete_totp(Some(&user.org), &user.id, &totp.id)?;
    tx.append(&Event {
        kind: EventKind::TotpExpired,
        source: &EventSource::totpd(),
        org: Some(&user.org),
        user: Some(&user.id),
        about: Some(totp.id.as_str()),
        name: totp.name.as_ref(),
    })
}

impl TxContext<'_> {
    /// Removes the authenticator that a confirmed one replaces. It may have been removed since the enrolment began.
    pub(super) fn remove_replaced(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        confirmed: &TotpRow,
    ) -> Result<()> {
        let Some(replaced) = &confirmed.replaces else {
            return Ok(());
        };
        let Some(removed) = tx.delete_totp(Some(&user.org), &user.id, replaced)? else {
            return Ok(());
        };
        tx.append(&Event {
            kind: EventKind::TotpRemoved,
            source: &self.principal.source,
            org: Some(&user.org),
            user: Some(&user.id),
            about: Some(replaced.as_str()),
            name: removed.name.as_ref(),
        })
    }
}
