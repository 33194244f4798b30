//! Carries calls out: one function for each, from the call as a value to its answer.
//!
//! Who may do what, what exists and in which state it is are the service's to judge.

use super::answer::Answer;
use super::call::{Call, ParsedCall, Target};
use super::messages::{DetailsResponse, Encoding, Failure, GetUserResponse, Page, StartResponse};
use super::status::{AtTheDoor, Refusal};
use crate::error::Result;
use crate::model::{Search, Timestamp, UserId};
use crate::service::{Caller, Context, Details, Service, Verdict};

/// How a long answer is written.
pub(super) struct Writing<'a> {
    pub(super) encoding: Encoding,
    /// How long a page of a search may be.
    pub(super) page_bytes: usize,
    /// See [`super::http::Request::reserve`].
    pub(super) reserve: &'a dyn Fn(usize) -> bool,
}

/// Carries a call out. Its token is judged first, then its role, then its fields, then all else (the order of judgement
/// is the contract's), all of it inside one transaction.
pub(super) fn carry_out(
    service: &Service,
    caller: Caller,
    now: Timestamp,
    parsed: ParsedCall,
    writing: &Writing<'_>,
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
            let user = GetUserResponse::written_as(writing.encoding, user)?;
            writing.reserved(Answer::User(user).written_as(writing.encoding))
        }
        Call::SearchUsers { expect, search } => {
            search_users(service, &in_context(expect), &search, writing)
        }
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

fn search_users(
    service: &Service,
    context: &Context,
    search: &Search,
    writing: &Writing<'_>,
) -> Result<Answer, Refusal> {
    let mut page = Page::new(writing.encoding, writing.page_bytes, writing.reserve);
    let found = service.search_users(context, search, |user| page.push(user))?;
    match page.finish(&found, search.limit) {
        Ok(bytes) => Ok(Answer::Written(bytes)),
        Err(Failure::NoMemory) => Err(no_memory()),
        Err(Failure::Error(error)) => Err(error.into()),
    }
}

impl Writing<'_> {
    /// A long answer to a read, if there is memory for it. While it was written it was the only one on its thread.
    fn reserved(&self, bytes: Vec<u8>) -> Result<Answer, Refusal> {
        if (self.reserve)(bytes.len()) {
            Ok(Answer::Written(bytes))
        } else {
            Err(no_memory())
        }
    }
}

fn no_memory() -> Refusal {
    AtTheDoor::Busy { retry_after_s: 1 }.into()
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
