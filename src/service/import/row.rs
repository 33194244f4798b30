//! One row of an import: finds or creates its user, and inserts its authenticator.

use std::collections::HashSet;

use super::{ImportOutcome, ImportRefusal, ImportRow, ImportTotp, ImportUser};
use crate::error::{Error, Result};
use crate::model::{OrgId, TotpId, UserId, UserState, fold};
use crate::service::call::TxContext;
use crate::service::replacement::{pending_to_give_way, remove_pending};
use crate::service::users::insert_user;
use crate::service::{NewUser, NewUsername};
use crate::store::{EventKind, TotpRow, TotpState, UserRow, UsernameRow, WriteTx};
use crate::totp::Secret;

/// Imports one row, or says why not. Nothing is changed where it is refused.
pub(super) fn import_row(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    org: &OrgId,
    row: &ImportRow,
) -> Result<ImportOutcome> {
    let found = match find_user(call, tx, org, &row.user)? {
        Ok(found) => found,
        Err(refusal) => return Ok(ImportOutcome::Refused(refusal)),
    };
    let Some(new) = &row.totp else {
        if found.is_some() {
            return Ok(ImportOutcome::AlreadyThere);
        }
        create_user(call, tx, org, &row.user)?;
        return Ok(ImportOutcome::Imported {
            has_created_user: true,
            has_totp: false,
        });
    };
    let (user, has_created_user) = match found {
        Some(user) => {
            if let Some(outcome) = make_way(call, tx, &user, new)? {
                return Ok(outcome);
            }
            (user, false)
        }
        None => (create_user(call, tx, org, &row.user)?, true),
    };
    insert_totp(call, tx, &user, new)?;
    Ok(ImportOutcome::Imported {
        has_created_user,
        has_totp: true,
    })
}

/// Removes the pending authenticators of a user that give way to `new`, or says why it is not imported.
///
/// A pending one with the same secret is among them: once that was confirmed, each code would be good twice.
fn make_way(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    user: &UserRow,
    new: &ImportTotp,
) -> Result<Option<ImportOutcome>> {
    let mut totps = tx.totps(user, call.now)?;
    let same = find_same(call, tx, user, &totps, new)?;
    let same = same.map(|it| totps.remove(it));
    if let Some(same) = same.as_ref().filter(|it| it.state == TotpState::Confirmed) {
        return Ok(Some(if same.parameters == new.parameters {
            ImportOutcome::AlreadyThere
        } else {
            ImportOutcome::Refused(ImportRefusal::OtherParameters)
        }));
    }
    let pending = match pending_to_give_way(&totps, None) {
        Ok(pending) => pending,
        Err(Error::WrongState(_)) => {
            return Ok(Some(ImportOutcome::Refused(ImportRefusal::TooMany)));
        }
        Err(error) => return Err(error),
    };
    for it in same.iter().chain(pending) {
        remove_pending(tx, user, it)?;
    }
    Ok(None)
}

/// The user of a row, if there is one, or why the row is refused.
fn find_user(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    org: &OrgId,
    it: &ImportUser,
) -> Result<Result<Option<UserRow>, ImportRefusal>> {
    if let Some(id) = &it.id {
        return match tx.user(None, id)? {
            Some(user) if user.org == *org => Ok(Ok(Some(user))),
            Some(_) => Ok(Err(ImportRefusal::OtherOrganization)),
            None => are_free(tx, org, &it.usernames).map(|are| {
                if are {
                    Ok(None)
                } else {
                    Err(ImportRefusal::UsernameTaken)
                }
            }),
        };
    }
    let Some(first) = it.usernames.first() else {
        return Ok(Err(ImportRefusal::NoUser));
    };
    let is_org_named = call.target.organization.is_some();
    let named = tx.users_named(&first.username, is_org_named.then_some(org))?;
    let (ours, others): (Vec<_>, Vec<_>) = named.into_iter().partition(|it| it.org == *org);
    let refusal = match (ours.len(), others.len()) {
        (0 | 1, 0) => None,
        (0, 1) => Some(ImportRefusal::OtherOrganization),
        (_, 0) => Some(ImportRefusal::Ambiguous),
        _ => Some(ImportRefusal::SeveralOrganizations),
    };
    if let Some(refusal) = refusal {
        return Ok(Err(refusal));
    }
    let by_name = ours.into_iter().next().map(|it| it.id);
    let by_id = match UserId::for_lookup(first.username.as_str()) {
        Ok(id) => tx.user(Some(org), &id)?,
        Err(_) => None,
    };
    match (by_name, by_id) {
        (Some(name), Some(user)) if user.id != name => Ok(Err(ImportRefusal::Ambiguous)),
        (_, Some(user)) => Ok(Ok(Some(user))),
        (Some(name), None) => Ok(Ok(tx.user(Some(org), &name)?)),
        (None, None) if are_free(tx, org, &it.usernames)? => Ok(Ok(None)),
        (None, None) => Ok(Err(ImportRefusal::UsernameTaken)),
    }
}

/// Whether no user of the organization has one of these usernames, and no two of them are equal.
fn are_free(tx: &WriteTx<'_>, org: &OrgId, usernames: &[NewUsername]) -> Result<bool> {
    let mut folded = HashSet::new();
    for it in usernames {
        if !folded.insert(fold(it.username.as_str()))
            || !tx.users_named(&it.username, Some(org))?.is_empty()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which of a user's authenticators has this secret.
fn find_same(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    user: &UserRow,
    totps: &[TotpRow],
    new: &ImportTotp,
) -> Result<Option<usize>> {
    for (index, totp) in totps.iter().enumerate() {
        let sealed = tx.sealed_secret(totp.slot)?;
        let secret = call.inner.unseal(tx, &sealed, &user.id, &totp.id)?;
        if key_of(&secret) == key_of(&new.secret) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn create_user(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    org: &OrgId,
    it: &ImportUser,
) -> Result<UserRow> {
    let new = NewUser {
        id: it.id.clone(),
        schema_id: it.schema_id.clone(),
        data: it.data.clone(),
        usernames: Vec::new(),
    };
    let user = insert_user(tx, org, &new)?;
    for it in &it.usernames {
        let row = UsernameRow {
            id: tx.new_id()?,
            username: it.username.clone(),
            is_organization_specific: it.is_organization_specific,
        };
        tx.insert_username(&user, &row)?;
    }
    call.record(tx, EventKind::UserCreated, &user)?;
    let kind = match it.state {
        UserState::Active => return Ok(user),
        UserState::Inactive => EventKind::UserDeactivated,
        UserState::Locked => EventKind::UserLocked,
    };
    tx.change_state(&user, &[UserState::Active], it.state)?;
    call.record(tx, kind, &user)?;
    Ok(user)
}

/// Inserts a confirmed authenticator. Its floor is the present step (SECURITY.md 39).
fn insert_totp(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    user: &UserRow,
    new: &ImportTotp,
) -> Result<()> {
    let id = TotpId::from_trusted(tx.new_id()?);
    let sealed = call.inner.seal(tx, &new.secret, &user.id, &id)?;
    let totp = TotpRow {
        slot: tx.fill_slot(&sealed)?,
        id,
        name: new.name.clone(),
        state: TotpState::Confirmed,
        parameters: new.parameters,
        drift: new.drift,
        created: new.created.unwrap_or(tx.event_at()).min(tx.event_at()),
        last_used: None,
        replaces: None,
        is_proven: true,
    };
    let floor = tx.now().step(new.parameters.period).shifted(new.drift);
    tx.insert_totp(user, &totp, floor)?;
    call.record_totp(tx, EventKind::TotpImported, user, Some(&totp))
}

/// The secret as HMAC takes it: zeros at its end change no code (RFC 2104 §2).
pub(super) fn key_of(secret: &Secret) -> &[u8] {
    let bytes = secret.bytes();
    let zeros = bytes.iter().rev().take_while(|it| **it == 0).count();
    bytes
        .get(..bytes.len().saturating_sub(zeros))
        .unwrap_or_default()
}
