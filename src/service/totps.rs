//! Enrolling authenticators, checking their codes, and removing them for good.

use std::time::Duration;

use zeroize::Zeroizing;

use super::call::TxContext;
use super::codes::{Verdict, remaining_wait_s, whole_seconds};
use super::replacement::{pending_to_give_way, remove_pending, require_replaceable};
use super::{Context, Details, Permission, Service, Totp};
use crate::error::{Error, Missing, ProofRefusal, Result, WrongState};
use crate::model::{Code, Drift, Name, Step, Timestamp, TotpId, UserId, UserState};
use crate::seal::new_secret;
use crate::store::{
    Event, EventKind, EventSource, ReadKind, RemovedTotp, TotpRow, TotpState, UserRow, WriteTx,
};
use crate::totp::{Parameters, Secret, enrolment_uri};

/// A new, pending authenticator. No other call returns its secret.
pub struct Enrolment {
    /// The authenticator's id, times and organization.
    pub details: Details,
    /// The `otpauth:` URI, which apps scan as a QR code.
    pub uri: Zeroizing<String>,
    /// The secret, for apps without a camera.
    pub secret: Secret,
}

/// The result of a change of which `self` tokens may make thirty an hour, or for which they may need a code. A refusal is a
/// value and not an error, so that its transaction commits.
pub(super) enum Limited<T> {
    Done(T),
    Wait(Duration),
    Refused(ProofRefusal),
}

impl<T> Limited<T> {
    pub(super) fn into_result(self) -> Result<T> {
        match self {
            Self::Done(done) => Ok(done),
            Self::Wait(wait) => Err(Error::TooOften {
                retry_after_s: whole_seconds(wait),
            }),
            Self::Refused(refusal) => Err(Error::ProofRefused(refusal)),
        }
    }
}

impl Service {
    /// Starts an enrolment. Its codes are refused until it is confirmed, and it expires after ten minutes. If the user has
    /// ten authenticators, it replaces the oldest pending one. A `self` token may start thirty enrolments an hour.
    pub fn start_totp(
        &self,
        context: &Context,
        user: UserId,
        name: Option<Name>,
    ) -> Result<Enrolment> {
        self.start(context, user, name, None)
    }

    /// The same, and confirming the new authenticator removes the confirmed one `replaces`, in the same transaction. Until
    /// then that one stays good. If it is removed before, confirming still succeeds. It does not count towards the ten.
    pub fn start_totp_replacing(
        &self,
        context: &Context,
        user: UserId,
        name: Option<Name>,
        replaces: TotpId,
    ) -> Result<Enrolment> {
        self.start(context, user, name, Some(replaces))
    }

    fn start(
        &self,
        context: &Context,
        user: UserId,
        name: Option<Name>,
        replaces: Option<TotpId>,
    ) -> Result<Enrolment> {
        let started = self.change_user(
            context,
            Permission::WriteTotp,
            user,
            move |call, tx, user| {
                let user = call.visible_user(tx, user, Missing::User)?;
                let totps = tx.totps(&user, call.now)?;
                if let Some(replaced) = &replaces {
                    require_replaceable(&totps, replaced)?;
                }
                call.require_may_enrol(&user)?;
                let give_way = pending_to_give_way(&totps, replaces.as_ref())?;
                if let Some(refused) = call.begin_proven_change(tx, &user, &totps)? {
                    return Ok(refused);
                }
                for pending in give_way {
                    remove_pending(tx, &user, pending)?;
                }
                let is_proven = call.is_proven(tx, &totps)?;
                let enrolment = call.insert_enrolment(tx, &user, name, replaces, is_proven)?;
                Ok(Limited::Done(enrolment))
            },
        )?;
        started.into_result()
    }

    /// Confirms a pending authenticator with its first code, and removes the one that it replaces. The code cannot be used
    /// again.
    ///
    /// A wrong code counts as in [`Self::check_totp`]. A right one does not clear the count of failures, because a `self`
    /// token could then clear it at will by enrolling.
    pub fn confirm_totp(
        &self,
        context: &Context,
        user: UserId,
        totp: TotpId,
        code: Code,
    ) -> Result<Verdict> {
        let confirmed = self.change_user(
            context,
            Permission::WriteTotp,
            user,
            move |call, tx, user| {
                let user = call.visible_user(tx, user, Missing::User)?;
                let totps = tx.totps(&user, call.now)?;
                let found = totps.iter().find(|it| it.id == totp);
                let totp = found.ok_or(Error::NotFound(Missing::TotpToCheck))?;
                call.require_may_enrol(&user)?;
                if totp.state == TotpState::Confirmed {
                    return Err(Error::WrongState(WrongState::AlreadyConfirmed));
                }
                // An enrolment that a `self` token began without a code must not end as one more way in.
                if !totp.is_proven
                    && call.needs_proof(tx, &totps)?
                    && let Some(refused) = call.prove(tx, &user, &totps)?
                {
                    return Ok(refused);
                }
                if let Some(retry_after_s) = remaining_wait_s(tx, &user.id)? {
                    return Ok(Limited::Done(Verdict::Wait { retry_after_s }));
                }
                let window = tx.settings()?.window;
                let verdict = match call.inner.find_step(tx, &user, totp, &code, window)? {
                    Some(matched) if tx.confirm_totp(&user, &totp.id, matched.step)? => {
                        call.record_totp(tx, EventKind::TotpConfirmed, &user, Some(totp))?;
                        call.remove_replaced(tx, &user, totp)?;
                        Verdict::Accepted(details(totp, &user, tx.event_at()))
                    }
                    Some(_) => Verdict::Used,
                    None => call.count_wrong_code(tx, &user, Some(totp))?,
                };
                Ok(Limited::Done(verdict))
            },
        )?;
        confirmed.into_result()
    }

    /// Checks a code against all confirmed authenticators of a user, or against one of them.
    ///
    /// One transaction checks the wait, compares the code, and marks its step as used or counts the failure. Of any number
    /// of requests with the same code, one is accepted.
    pub fn check_totp(
        &self,
        context: &Context,
        user: UserId,
        totp: Option<TotpId>,
        code: Code,
    ) -> Result<Verdict> {
        self.change_user(context, Permission::Check, user, move |call, tx, user| {
            let user = call.visible_user(tx, user, Missing::User)?;
            let mut totps = tx.totps(&user, call.now)?;
            if let Some(id) = &totp {
                totps = vec![find(totps, id, Missing::TotpToCheck)?];
            }
            if user.state != UserState::Active {
                return Err(Error::WrongState(WrongState::UserNotActive));
            }
            totps.retain(|it| it.state == TotpState::Confirmed);
            if totps.is_empty() {
                return Err(Error::WrongState(WrongState::NoneConfirmed));
            }
            let confirmed: Vec<&TotpRow> = totps.iter().collect();
            let named = totp.and(totps.first());
            call.use_code(tx, &user, &confirmed, &code, named)
        })
    }

    /// Lists a user's authenticators, pending ones included, oldest first.
    pub fn totps(&self, context: &Context, user: &UserId) -> Result<Vec<Totp>> {
        let (kind, permission) = (ReadKind::ById, Permission::ReadUser);
        self.read(context, kind, permission, Some(user), |call, tx| {
            let user = call.visible_user(tx, user, Missing::User)?;
            let totps = tx.totps(&user, call.now)?;
            Ok(totps.into_iter().map(Totp::from).collect())
        })
    }

    /// Changes the name of an authenticator, pending or confirmed. A `self` token's renames count with the enrolments it
    /// starts.
    pub fn rename_totp(
        &self,
        context: &Context,
        user: UserId,
        totp: TotpId,
        name: Name,
    ) -> Result<Details> {
        let renamed = self.change_user(
            context,
            Permission::WriteTotp,
            user,
            move |call, tx, user| {
                let user = call.visible_user(tx, user, Missing::User)?;
                let totp = find(tx.totps(&user, call.now)?, &totp, Missing::Totp)?;
                if let Some(wait) = call.begin_self_change(tx, &user)? {
                    return Ok(Limited::Wait(wait));
                }
                if !tx.rename_totp(&user, &totp.id, &name)? {
                    return Err(Error::NotFound(Missing::Totp));
                }
                let totp = TotpRow {
                    name: Some(name),
                    ..totp
                };
                call.record_totp(tx, EventKind::TotpRenamed, &user, Some(&totp))?;
                Ok(Limited::Done(details(&totp, &user, tx.event_at())))
            },
        )?;
        renamed.into_result()
    }

    /// Removes an authenticator, so that no code of it is good from the moment this returns.
    ///
    /// The statement that removes the authenticator also checks that the caller may see it. The user's row is read only if
    /// nothing was removed, to tell an unknown user from an unknown authenticator.
    pub fn remove_totp(&self, context: &Context, user: UserId, totp: TotpId) -> Result<Details> {
        let removed = self.change_user(
            context,
            Permission::WriteTotp,
            user,
            move |call, tx, user| {
                let org = call.visible_organization(Missing::User)?;
                if let Some(refused) = call.prove_removal(tx, user, &totp)? {
                    return Ok(refused);
                }
                let Some(removed) = tx.delete_totp(org, user, &totp)? else {
                    call.visible_user(tx, user, Missing::User)?;
                    return Err(Error::NotFound(Missing::Totp));
                };
                let RemovedTotp {
                    org,
                    name,
                    created,
                    has_recovery,
                } = removed;
                tx.append(&Event {
                    kind: EventKind::TotpRemoved,
                    source: &call.principal.source,
                    org: Some(&org),
                    user: Some(user),
                    about: Some(totp.as_str()),
                    name: name.as_ref(),
                })?;
                if has_recovery {
                    call.remove_recovery_codes_without_totp(tx, &org, user)?;
                }
                let (id, changed) = (totp.to_string(), tx.event_at());
                Ok(Limited::Done(Details {
                    id,
                    created,
                    changed,
                    owner: org,
                }))
            },
        )?;
        removed.into_result()
    }
}

/// Removes expired enrolments.
pub(super) fn sweep(tx: &WriteTx<'_>, slice: u32) -> Result<()> {
    let source = EventSource::totpd();
    for expired in tx.delete_expired_totps(slice)? {
        tx.append(&Event {
            kind: EventKind::TotpExpired,
            source: &source,
            org: Some(&expired.org),
            user: Some(&expired.user),
            about: Some(expired.totp.as_str()),
            name: expired.name.as_ref(),
        })?;
    }
    Ok(())
}

impl TxContext<'_> {
    /// Inserts a pending authenticator with a new secret.
    fn insert_enrolment(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        name: Option<Name>,
        replaces: Option<TotpId>,
        is_proven: bool,
    ) -> Result<Enrolment> {
        let secret = new_secret()?;
        let id = TotpId::from_trusted(tx.new_id()?);
        let sealed = self.inner.seal(tx, &secret, &user.id, &id)?;
        let totp = TotpRow {
            slot: tx.fill_slot(&sealed)?,
            id,
            name,
            state: TotpState::Pending,
            parameters: Parameters::ENROLMENT,
            drift: Drift::NONE,
            created: tx.event_at(),
            last_used: None,
            replaces,
            is_proven,
        };
        tx.insert_totp(user, &totp, Step::NONE)?;
        self.record_totp(tx, EventKind::TotpStarted, user, Some(&totp))?;
        let usernames = tx.usernames(user)?;
        let account = usernames
            .first()
            .map_or(user.id.as_str(), |it| it.username.as_str());
        let uri = enrolment_uri(tx.settings()?.issuer.as_str(), account, &secret);
        Ok(Enrolment {
            details: details(&totp, user, tx.event_at()),
            uri,
            secret,
        })
    }

    /// Records that a `self` token begins a change, or returns how long it must wait before (SECURITY.md 45). Other tokens
    /// need not wait, and are not counted.
    pub(super) fn begin_self_change(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
    ) -> Result<Option<Duration>> {
        if self.principal.role.user().is_none() {
            return Ok(None);
        }
        let wait = tx.self_change_wait(&user.id)?;
        if wait.is_none() {
            tx.record_self_change(&user.id)?;
        }
        Ok(wait)
    }
}

pub(super) fn find(totps: Vec<TotpRow>, id: &TotpId, missing: Missing) -> Result<TotpRow> {
    totps
        .into_iter()
        .find(|it| it.id == *id)
        .ok_or(Error::NotFound(missing))
}

pub(super) fn details(totp: &TotpRow, user: &UserRow, changed: Timestamp) -> Details {
    let (id, owner) = (totp.id.to_string(), user.org.clone());
    Details {
        id,
        created: totp.created,
        changed,
        owner,
    }
}

#[cfg(test)]
mod tests;
