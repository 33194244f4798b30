//! Recovery codes: generating, counting, checking and removing them (SECURITY.md 38).
//!
//! They stand in for an authenticator that is lost, and go with the last confirmed one.

use super::call::TxContext;
use super::codes::remaining_wait_s;
use super::totps::Limited;
use super::{Context, Details, Permission, Service, users};
use crate::error::{Error, Missing, Result, WrongState};
use crate::model::{OrgId, RecoveryCode, RecoverySetId, Timestamp, UserId, UserState};
use crate::seal::{RecoveryKey, new_recovery_code};
use crate::store::{
    Event, EventKind, RECOVERY_CODES, RECOVERY_SET_BYTES, ReadKind, RecoverySetRow, TotpState,
    UserRow, WriteTx,
};

/// A new set of recovery codes. No other call returns them.
pub struct NewRecoveryCodes {
    /// The user's id and organization, and when the codes were generated.
    pub details: Details,
    /// The codes. Each is good once.
    pub codes: Vec<RecoveryCode>,
}

/// How many recovery codes a user has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemainingRecoveryCodes {
    /// The user's id and organization, when the codes were generated, and when one of them was last used. Of a user without
    /// codes: when the user was created and last changed.
    pub details: Details,
    /// How many codes are unused.
    pub remaining: u32,
}

/// The result of checking a recovery code. A refused code is a value and not an error, because an error would roll back the
/// count of failures.
#[must_use = "a code that was not accepted is no error: look at the verdict"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryVerdict {
    /// The code was good. That it was used is committed.
    Accepted(RemainingRecoveryCodes),
    /// The code was wrong or was used before, and counted. Which of the two is not told.
    Refused {
        /// The length of the wait that this code began, in seconds.
        begins_wait_s: Option<u64>,
    },
    /// The user has to wait after too many wrong codes. The code was not compared.
    Wait {
        /// The seconds until codes are compared again.
        retry_after_s: u64,
    },
}

impl Service {
    /// Generates ten recovery codes, which replace all earlier ones of the user. Only a user with a confirmed authenticator
    /// can have some. For `self` tokens it counts with the enrolments they start.
    pub fn generate_recovery_codes(
        &self,
        context: &Context,
        user: UserId,
    ) -> Result<NewRecoveryCodes> {
        let generated =
            self.change_user(context, Permission::WriteTotp, user, |call, tx, user| {
                let user = call.visible_user(tx, user, Missing::User)?;
                if user.state != UserState::Active {
                    return Err(Error::WrongState(WrongState::UserNotActive));
                }
                let totps = tx.totps(&user, call.now)?;
                if !totps.iter().any(|it| it.state == TotpState::Confirmed) {
                    return Err(Error::WrongState(WrongState::NoTotpToRecover));
                }
                if let Some(refused) = call.begin_proven_change(tx, &user, &totps)? {
                    return Ok(refused);
                }
                tx.delete_recovery_set(&user.org, &user.id)?;
                call.insert_recovery_codes(tx, &user).map(Limited::Done)
            })?;
        generated.into_result()
    }

    /// Counts the unused recovery codes of a user.
    pub fn recovery_codes(
        &self,
        context: &Context,
        user: &UserId,
    ) -> Result<RemainingRecoveryCodes> {
        let (kind, permission) = (ReadKind::ById, Permission::ReadUser);
        self.read(context, kind, permission, Some(user), |call, tx| {
            let user = call.visible_user(tx, user, Missing::User)?;
            let set = tx.recovery_set(&user)?;
            let remaining = set.as_ref().map_or(0, RecoverySetRow::remaining);
            let details = match set {
                Some(set) => details(&user.id, &user.org, set.created, set.changed),
                None => users::details(&user),
            };
            Ok(RemainingRecoveryCodes { details, remaining })
        })
    }

    /// Checks a recovery code and uses it up.
    ///
    /// One transaction checks the wait, compares the code, and marks it as used or counts the failure, with the failures of
    /// [`Self::check_totp`]. Of any number of requests with the same code, one is accepted.
    pub fn check_recovery_code(
        &self,
        context: &Context,
        user: UserId,
        code: RecoveryCode,
    ) -> Result<RecoveryVerdict> {
        self.change_user(context, Permission::Check, user, move |call, tx, user| {
            let user = call.visible_user(tx, user, Missing::User)?;
            if user.state != UserState::Active {
                return Err(Error::WrongState(WrongState::UserNotActive));
            }
            let verdict = call.use_recovery_code(tx, &user, &code)?;
            verdict.ok_or(Error::WrongState(WrongState::NoRecoveryCodes))
        })
    }

    /// Removes the recovery codes of a user, used ones too.
    pub fn remove_recovery_codes(&self, context: &Context, user: UserId) -> Result<Details> {
        let removed =
            self.change_user(context, Permission::WriteTotp, user, |call, tx, user| {
                let none = Error::WrongState(WrongState::NoRecoveryCodes);
                let user = call.visible_user(tx, user, Missing::User)?;
                if tx.recovery_set(&user)?.is_none() {
                    return Err(none);
                }
                let totps = tx.totps(&user, call.now)?;
                if call.needs_proof(tx, &totps)?
                    && let Some(refused) = call.prove(tx, &user, &totps)?
                {
                    return Ok(refused);
                }
                let created = call.delete_recovery_codes(tx, &user.org, &user.id)?;
                let created = created.ok_or(none)?;
                let details = details(&user.id, &user.org, created, tx.event_at());
                Ok(Limited::Done(details))
            })?;
        removed.into_result()
    }
}

impl TxContext<'_> {
    /// Judges a recovery code, and uses it up or counts the failure. `None`: the user has no code left. The caller must not
    /// turn the verdict into an error, which would roll back the count.
    pub(super) fn use_recovery_code(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        code: &RecoveryCode,
    ) -> Result<Option<RecoveryVerdict>> {
        let Some(set) = tx.recovery_set(user)?.filter(|it| it.remaining() > 0) else {
            return Ok(None);
        };
        if let Some(retry_after_s) = remaining_wait_s(tx, &user.id)? {
            return Ok(Some(RecoveryVerdict::Wait { retry_after_s }));
        }
        let sealed = tx.sealed_secret(set.slot)?;
        let key = self
            .inner
            .unseal_recovery_key(tx, &sealed, &user.id, &set.id)?;
        // Used codes are compared like all others. The statement finds out that one was used.
        let position = key.position(code, &set.macs);
        if !tx.use_recovery_code(user, &set.id, position)? {
            tx.count_failure(&user.id)?;
            self.record_recovery(
                tx,
                EventKind::RecoveryRefused,
                (&user.org, &user.id),
                &set.id,
            )?;
            let begins_wait_s = remaining_wait_s(tx, &user.id)?;
            return Ok(Some(RecoveryVerdict::Refused { begins_wait_s }));
        }
        tx.clear_failures(&user.id)?;
        self.record_recovery(
            tx,
            EventKind::RecoveryChecked,
            (&user.org, &user.id),
            &set.id,
        )?;
        Ok(Some(RecoveryVerdict::Accepted(RemainingRecoveryCodes {
            details: details(&user.id, &user.org, set.created, tx.event_at()),
            remaining: set.remaining().saturating_sub(1),
        })))
    }

    /// Removes the recovery codes of a user who has no confirmed authenticator any more. Call it after the removal of an
    /// authenticator whose row says that there are codes.
    pub(super) fn remove_recovery_codes_without_totp(
        &self,
        tx: &WriteTx<'_>,
        org: &OrgId,
        user: &UserId,
    ) -> Result<()> {
        if !tx.has_confirmed_totp(org, user)? {
            self.delete_recovery_codes(tx, org, user)?;
        }
        Ok(())
    }

    /// Deletes the recovery codes of a user. Returns when they were generated, if there were some.
    fn delete_recovery_codes(
        &self,
        tx: &WriteTx<'_>,
        org: &OrgId,
        user: &UserId,
    ) -> Result<Option<Timestamp>> {
        let Some((id, created)) = tx.delete_recovery_set(org, user)? else {
            return Ok(None);
        };
        self.record_recovery(tx, EventKind::RecoveryRemoved, (org, user), &id)?;
        Ok(Some(created))
    }

    fn insert_recovery_codes(&self, tx: &WriteTx<'_>, user: &UserRow) -> Result<NewRecoveryCodes> {
        let id = RecoverySetId::from_trusted(tx.new_id()?);
        let key = RecoveryKey::new()?;
        let (mut codes, mut macs) = (
            Vec::with_capacity(RECOVERY_CODES),
            Vec::with_capacity(RECOVERY_SET_BYTES),
        );
        for _ in 0..RECOVERY_CODES {
            let code = new_recovery_code()?;
            macs.extend_from_slice(&key.mac(&code)?);
            codes.push(code);
        }
        let sealed = self.inner.seal_recovery_key(tx, &key, &user.id, &id)?;
        let slot = tx.fill_slot(&sealed)?;
        let set = RecoverySetRow::unused(id, slot, macs, tx.event_at());
        tx.insert_recovery_set(user, &set)?;
        self.record_recovery(
            tx,
            EventKind::RecoveryGenerated,
            (&user.org, &user.id),
            &set.id,
        )?;
        Ok(NewRecoveryCodes {
            details: details(&user.id, &user.org, set.created, set.changed),
            codes,
        })
    }

    /// Appends an event about a user's recovery codes. It names the set, and no code.
    fn record_recovery(
        &self,
        tx: &WriteTx<'_>,
        kind: EventKind,
        (org, user): (&OrgId, &UserId),
        set: &RecoverySetId,
    ) -> Result<()> {
        tx.append(&Event {
            kind,
            source: &self.principal.source,
            org: Some(org),
            user: Some(user),
            about: Some(set.as_str()),
            name: None,
        })
    }
}

/// Recovery codes have no id of their own: a call names their user.
fn details(user: &UserId, org: &OrgId, created: Timestamp, changed: Timestamp) -> Details {
    Details {
        id: user.to_string(),
        created,
        changed,
        owner: org.clone(),
    }
}
