//! Carries calls out: one function for each, from the call as a value to its answer.
//!
//! The service judges rights, existence and state.

use std::net::IpAddr;
use std::time::Duration;

use super::answer::Answer;
use super::call::{Call, ParsedCall, UserCall, UserRef};
use super::messages::{Encoding, GetUserResponse, InvitationResponse, Page, StartResponse};
use super::status::Refusal;
use crate::error::{Error, Result};
use crate::model::{EventSearch, RequestId, Search, Timestamp, UserId};
use crate::service::{
    Caller, Context, Details, Permission, RecoveryVerdict, RemainingRecoveryCodes, Service, Target,
    Verdict,
};

/// How an answer is encoded, and what bounds its length.
pub(super) struct AnswerSettings<'a> {
    pub(super) encoding: Encoding,
    /// The length limit of a page of a search. The front end has reserved memory for that much.
    pub(super) page_bytes: usize,
    /// What links begin with. `None` if no address that a browser can open is known.
    pub(super) base_url: Option<&'a str>,
}

/// Carries a call out, in one transaction. The API prescribes the order of judgement: token, role, fields, then
/// existence and state.
pub(super) fn carry_out(
    service: &Service,
    caller: &Caller,
    now: Timestamp,
    parsed: ParsedCall,
    settings: &AnswerSettings<'_>,
) -> Result<Answer, Refusal> {
    let proof = parsed.proof;
    let in_context = |target| Context {
        caller: caller.clone(),
        target,
        now,
        proof: proof.clone(),
    };
    let call = parsed.call.map_err(|malformed| {
        let context = in_context(Target::default());
        service.refusal(&context, parsed.permission, malformed)
    })?;
    match call {
        Call::CreateUser { target, user } => {
            let made = service.create_user(&in_context(target), *user)?;
            Ok(Answer::Created(made.into()))
        }
        Call::SearchUsers { target, search } => {
            search_users(service, &in_context(target), &search, settings)
        }
        Call::ListEvents(search) => {
            let context = in_context(Target::default());
            list_events(service, &context, &search, settings)
        }
        Call::OnUser(UserRef { target, user }, call) => {
            carry_out_on_user(service, &in_context(target), user, call, settings)
        }
    }
}

fn carry_out_on_user(
    service: &Service,
    context: &Context,
    user: UserId,
    call: UserCall,
    settings: &AnswerSettings<'_>,
) -> Result<Answer, Refusal> {
    match call {
        UserCall::Get => {
            let user = service.user(context, &user)?;
            let user = GetUserResponse::encode_as(settings.encoding, user)?;
            Ok(Answer::User(user))
        }
        UserCall::Delete => changed(service.remove_user(context, user)),
        UserCall::Lock => changed(service.lock_user(context, user)),
        UserCall::Unlock => changed(service.unlock_user(context, user)),
        UserCall::Deactivate => changed(service.deactivate_user(context, user)),
        UserCall::Activate => changed(service.activate_user(context, user)),
        UserCall::StartTotp { name, replaces, qr } => {
            let begun = match replaces {
                None => service.start_totp(context, user, name)?,
                Some(old) => service.start_totp_replacing(context, user, name, old)?,
            };
            Ok(Answer::Start(StartResponse::from(begun), qr))
        }
        UserCall::ConfirmTotp { totp, code } => {
            confirmed(service.confirm_totp(context, user, totp, code)?)
        }
        UserCall::CheckTotp { totp, code } => {
            let verdict = service.check_totp(context, user, totp, code)?;
            accepted(verdict).map(|it| Answer::Check(it.into()))
        }
        UserCall::ListTotps => Ok(Answer::Totps(service.totps(context, &user)?.into())),
        UserCall::RenameTotp { totp, name } => {
            changed(service.rename_totp(context, user, totp, name))
        }
        UserCall::ResyncTotp { totp, codes } => {
            confirmed(service.resync_totp(context, user, totp, codes)?)
        }
        UserCall::RemoveTotp { totp } => changed(service.remove_totp(context, user, totp)),
        UserCall::GenerateRecoveryCodes => {
            let generated = service.generate_recovery_codes(context, user)?;
            Ok(Answer::RecoveryCodes(generated.into()))
        }
        UserCall::GetRecoveryCodes => {
            let remaining = service.recovery_codes(context, &user)?;
            Ok(Answer::Remaining(remaining.into()))
        }
        UserCall::CheckRecoveryCode { code } => {
            let verdict = service.check_recovery_code(context, user, code)?;
            accepted_recovery_code(verdict).map(|it| Answer::Remaining(it.into()))
        }
        UserCall::RemoveRecoveryCodes => changed(service.remove_recovery_codes(context, user)),
        UserCall::CreateInvitation { lifetime } => {
            invite(service, context, user, lifetime, settings.base_url)
        }
    }
}

/// Invites a user. Without a URL that links can begin with, no invitation is made.
fn invite(
    service: &Service,
    context: &Context,
    user: UserId,
    lifetime: Duration,
    base_url: Option<&str>,
) -> Result<Answer, Refusal> {
    let Some(base_url) = base_url else {
        let problem =
            "an invitation needs `serve --public-url`, because no address of this server has a URL";
        let unavailable = Error::Unavailable(problem.to_owned());
        return Err(service
            .refusal(context, Permission::WriteUser, unavailable)
            .into());
    };
    let invitation = service.invite_user(context, user, lifetime)?;
    Ok(Answer::Invitation(InvitationResponse::new(
        invitation, base_url,
    )))
}

/// Redeems an invitation for a token.
pub(super) fn redeem(
    service: &Service,
    code: &str,
    (peer, request_id): (Option<IpAddr>, Option<RequestId>),
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let redeemed = service.redeem_invitation(code, peer, request_id, now)?;
    Ok(Answer::Redeemed(redeemed.into()))
}

fn search_users(
    service: &Service,
    context: &Context,
    search: &Search,
    settings: &AnswerSettings<'_>,
) -> Result<Answer, Refusal> {
    let mut page = Page::new(settings.encoding, settings.page_bytes);
    let found = service.search_users(context, search, |user| page.push(user))?;
    Ok(Answer::Encoded(page.finish(&found, search.limit)?))
}

fn list_events(
    service: &Service,
    context: &Context,
    search: &EventSearch,
    settings: &AnswerSettings<'_>,
) -> Result<Answer, Refusal> {
    let mut page = Page::new(settings.encoding, settings.page_bytes);
    let instance = service.instance_id();
    service.list_events(context, search, |event| page.push_event(&event, instance))?;
    Ok(Answer::Encoded(page.finish_events()?))
}

/// The answer of a change that returns details and nothing else.
fn changed(outcome: Result<Details>) -> Result<Answer, Refusal> {
    Ok(Answer::Details(outcome?.into()))
}

/// A code that is not accepted is a refusal, so that a client that looks only at the status is safe.
fn accepted(verdict: Verdict) -> Result<Details, Refusal> {
    match verdict {
        Verdict::Accepted(details) => Ok(details),
        Verdict::Wrong { begins_wait_s } => Err(Refusal::wrong_code(begins_wait_s)),
        Verdict::Used => Err(Refusal::used_code()),
        Verdict::Wait { retry_after_s } => Err(Refusal::wait(retry_after_s)),
    }
}

/// The same for a recovery code.
fn accepted_recovery_code(verdict: RecoveryVerdict) -> Result<RemainingRecoveryCodes, Refusal> {
    match verdict {
        RecoveryVerdict::Accepted(remaining) => Ok(remaining),
        RecoveryVerdict::Refused { begins_wait_s } => {
            Err(Refusal::wrong_recovery_code(begins_wait_s))
        }
        RecoveryVerdict::Wait { retry_after_s } => Err(Refusal::wait(retry_after_s)),
    }
}

/// The answer of a call that names its authenticator.
fn confirmed(verdict: Verdict) -> Result<Answer, Refusal> {
    accepted(verdict).map(|it| Answer::Details(it.into()))
}
