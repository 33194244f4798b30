//! Carries calls out: one function for each, from the call as a value to its answer.
//!
//! Who may do what, what exists and in which state it is are the service's to judge.

use super::answer::Answer;
use super::call::{Call, ParsedCall, Target};
use super::messages::{
    DetailsResponse, GetUserResponse, ListDetails, SearchUsersResponse, StartResponse, User,
};
use super::status::Refusal;
use crate::error::Result;
use crate::model::{Search, Timestamp, UserId};
use crate::service::{Caller, Context, Details, Service, Verdict};

/// Carries a call out. Its token is judged first, then its role, then its fields, then all else (the order of judgement
/// is the contract's), all of it inside one transaction.
pub(super) fn carry_out(
    service: &Service,
    caller: Caller,
    now: Timestamp,
    parsed: ParsedCall,
) -> Result<Answer, Refusal> {
    let in_context = |expect| Context {
        caller,
        expect,
        now,
    };
    let on = |target: Target| (in_context(target.expect), target.user);
    let call = match parsed.call {
        Ok(call) => call,
        Err(malformed) => {
            let context = Context::new(caller, now);
            return Err(service.refuse(&context, parsed.act, malformed).into());
        }
    };
    match call {
        Call::CreateUser { expect, user } => {
            let made = service.create_user(&in_context(expect), *user)?;
            Ok(Answer::Created(made.into()))
        }
        Call::GetUser(target) => {
            let (context, user) = on(target);
            let user = service.user(&context, &user)?;
            Ok(Answer::User(GetUserResponse::of(user)?))
        }
        Call::SearchUsers { expect, search } => search_users(service, &in_context(expect), &search),
        Call::DeleteUser(target) => details(on(target), service, Service::remove_user),
        Call::LockUser(target) => details(on(target), service, Service::lock_user),
        Call::UnlockUser(target) => details(on(target), service, Service::unlock_user),
        Call::DeactivateUser(target) => details(on(target), service, Service::deactivate_user),
        Call::ActivateUser(target) => details(on(target), service, Service::activate_user),
        Call::StartTotp { target, name } => {
            let (context, user) = on(target);
            let begun = service.start_totp(&context, user, name)?;
            Ok(Answer::Start(StartResponse::from(begun)))
        }
        Call::ConfirmTotp { target, totp, code } => {
            let (context, user) = on(target);
            let verdict = service.confirm_totp(&context, user, totp, code)?;
            accepted(verdict).map(|it| Answer::Details(it.into()))
        }
        Call::CheckTotp { target, totp, code } => {
            let (context, user) = on(target);
            let verdict = service.check_totp(&context, user, totp, code)?;
            accepted(verdict).map(|it| Answer::Check(it.into()))
        }
        Call::RemoveTotp { target, totp } => {
            let (context, user) = on(target);
            let removed = service.remove_totp(&context, user, totp)?;
            Ok(Answer::Details(removed.into()))
        }
    }
}

fn search_users(service: &Service, context: &Context, search: &Search) -> Result<Answer, Refusal> {
    let found = service.search_users(context, search)?;
    let details = Some(ListDetails::of(&found, search.limit));
    let result = found.users.into_iter().map(User::of);
    let result = result.collect::<Result<_>>()?;
    Ok(Answer::Page(SearchUsersResponse { details, result }))
}

/// A call that names a user and nothing else.
fn details(
    (context, user): (Context, UserId),
    service: &Service,
    call: fn(&Service, &Context, UserId) -> Result<Details>,
) -> Result<Answer, Refusal> {
    let details = call(service, &context, user)?;
    Ok(Answer::Details(DetailsResponse::from(details)))
}

/// A "no" to a code is a refusal on the wire: whoever looks at the status alone is not fooled.
fn accepted(verdict: Verdict) -> Result<Details, Refusal> {
    match verdict {
        Verdict::Accepted(details) => Ok(details),
        Verdict::Wrong => Err(Refusal::wrong_code()),
        Verdict::Used => Err(Refusal::used_code()),
        Verdict::Wait { retry_after_s } => Err(Refusal::wait(retry_after_s)),
    }
}
