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
use crate::service::{Caller, Details, Expect, Service, Verdict};

/// What a call is carried out with.
pub(super) struct Context<'a> {
    pub(super) service: &'a Service,
    pub(super) caller: &'a Caller,
    pub(super) now: Timestamp,
}

/// Carries a call out. The token is known to be good; next come its role, then the fields, then all else
/// (the order of judgement is the contract's).
pub(super) fn carry_out(it: &Context<'_>, parsed: ParsedCall) -> Result<Answer, Refusal> {
    it.caller.require_role(parsed.act)?;
    match parsed.call? {
        Call::CreateUser { expect, user } => {
            let made = it.service.create_user(it.caller, &expect, *user, it.now)?;
            Ok(Answer::Created(made.into()))
        }
        Call::GetUser(Target { expect, user }) => {
            let user = it.service.user(it.caller, &expect, &user, it.now)?;
            Ok(Answer::User(GetUserResponse::of(user)?))
        }
        Call::SearchUsers { expect, search } => search_users(it, &expect, &search),
        Call::DeleteUser(target) => on_user(it, &target, Service::remove_user),
        Call::LockUser(target) => on_user(it, &target, Service::lock_user),
        Call::UnlockUser(target) => on_user(it, &target, Service::unlock_user),
        Call::DeactivateUser(target) => on_user(it, &target, Service::deactivate_user),
        Call::ActivateUser(target) => on_user(it, &target, Service::activate_user),
        Call::StartTotp { target, name } => {
            let Target { expect, user } = target;
            let begun = it
                .service
                .start_totp(it.caller, &expect, &user, name, it.now)?;
            Ok(Answer::Start(StartResponse::from(begun)))
        }
        Call::ConfirmTotp { target, totp, code } => {
            let Target { expect, user } = target;
            let verdict = it
                .service
                .confirm_totp(it.caller, &expect, &user, &totp, &code, it.now)?;
            accepted(verdict).map(|it| Answer::Details(it.into()))
        }
        Call::CheckTotp { target, totp, code } => {
            let Target { expect, user } = target;
            let verdict =
                it.service
                    .check_totp(it.caller, &expect, &user, totp.as_ref(), &code, it.now)?;
            accepted(verdict).map(|it| Answer::Check(it.into()))
        }
        Call::RemoveTotp { target, totp } => {
            let Target { expect, user } = target;
            let removed = it
                .service
                .remove_totp(it.caller, &expect, &user, &totp, it.now)?;
            Ok(Answer::Details(removed.into()))
        }
    }
}

fn search_users(it: &Context<'_>, expect: &Expect, search: &Search) -> Result<Answer, Refusal> {
    let found = it.service.search_users(it.caller, expect, search, it.now)?;
    let details = Some(ListDetails::of(&found, search.limit));
    let result = found.users.into_iter().map(User::of);
    let result = result.collect::<Result<_>>()?;
    Ok(Answer::Page(SearchUsersResponse { details, result }))
}

/// A call that names a user and nothing else.
fn on_user(
    it: &Context<'_>,
    target: &Target,
    call: impl FnOnce(&Service, &Caller, &Expect, &UserId, Timestamp) -> Result<Details>,
) -> Result<Answer, Refusal> {
    let details = call(it.service, it.caller, &target.expect, &target.user, it.now)?;
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
