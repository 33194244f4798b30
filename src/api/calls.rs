//! One function for each call, from its request message to its answer, whichever transport brought it.
//!
//! Here and nowhere else fields become domain types. Who calls is known before, by the token; rights, existence
//! and state are the service's to judge.

use zeroize::Zeroizing;

use super::filters;
use super::messages::{
    CheckRequest, CheckResponse, CreateUser, CreateUserRequest, DetailsResponse, GetUserRequest,
    GetUserResponse, Instance, ListDetails, Organization, SearchUsersRequest, SearchUsersResponse,
    StartResponse, TotpCodeRequest, TotpRequest, User, UserRequest,
};
use super::status::Refusal;
use crate::error::{Error, Result};
use crate::model::{Name, Timestamp, UserId};
use crate::service::{Caller, Details, Expect, Named, NewUser, NewUsername, Service, Verdict};

/// Usernames that a user may be given at once. A person has a few; each is a row and an index entry.
const MAX_USERNAMES: usize = 50;

/// How deep objects and lists may stand in each other in a user's data. Each object is three messages of protobuf, whose
/// parsers give up at a hundred: a client of gRPC could not read a page of users with a deeper one among them.
const MAX_DATA_DEPTH: usize = 30;

/// What a call is made with, beside its request.
pub(super) struct Context<'a> {
    pub(super) service: &'a Service,
    pub(super) caller: &'a Caller,
    pub(super) now: Timestamp,
    /// What only REST can say.
    pub(super) beside: Beside,
}

/// What REST takes where the call's message, which is ZITADEL's, has no field for it.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) instance: Option<Instance>,
    pub(super) organization: Option<Organization>,
    pub(super) name: Option<String>,
}

type Outcome<T> = Result<T, Refusal>;

pub(super) fn create_user(
    it: &Context<'_>,
    request: CreateUserRequest,
) -> Outcome<DetailsResponse> {
    let expect = expect(request.instance, request.organization)?;
    let new = new_user(request.user.unwrap_or_default())?;
    let details = it.service.create_user(it.caller, &expect, new, it.now)?;
    Ok(details.into())
}

pub(super) fn get_user(it: &Context<'_>, request: GetUserRequest) -> Outcome<GetUserResponse> {
    let expect = expect(request.instance, it.beside.organization.clone())?;
    let user = it
        .service
        .user(it.caller, &expect, &request.id.parse()?, it.now)?;
    Ok(GetUserResponse::of(user)?)
}

pub(super) fn search_users(
    it: &Context<'_>,
    request: SearchUsersRequest,
) -> Outcome<SearchUsersResponse> {
    let search = filters::search(&request)?;
    let expect = expect(request.instance, None)?;
    let found = it
        .service
        .search_users(it.caller, &expect, &search, it.now)?;
    let details = Some(ListDetails::of(&found, search.limit));
    let result = found.users.into_iter().map(User::of);
    let result = result.collect::<Result<_>>()?;
    Ok(SearchUsersResponse { details, result })
}

pub(super) fn delete_user(it: &Context<'_>, request: UserRequest) -> Outcome<DetailsResponse> {
    on_user(it, request, Service::remove_user)
}

pub(super) fn lock_user(it: &Context<'_>, request: UserRequest) -> Outcome<DetailsResponse> {
    on_user(it, request, Service::lock_user)
}

pub(super) fn unlock_user(it: &Context<'_>, request: UserRequest) -> Outcome<DetailsResponse> {
    on_user(it, request, Service::unlock_user)
}

pub(super) fn deactivate_user(it: &Context<'_>, request: UserRequest) -> Outcome<DetailsResponse> {
    on_user(it, request, Service::deactivate_user)
}

pub(super) fn activate_user(it: &Context<'_>, request: UserRequest) -> Outcome<DetailsResponse> {
    on_user(it, request, Service::activate_user)
}

/// A call that names a user and nothing else.
fn on_user(
    it: &Context<'_>,
    request: UserRequest,
    call: impl FnOnce(&Service, &Caller, &Expect, &UserId, Timestamp) -> Result<Details>,
) -> Outcome<DetailsResponse> {
    let expect = expect(request.instance, request.organization)?;
    let details = call(it.service, it.caller, &expect, &request.id.parse()?, it.now)?;
    Ok(details.into())
}

pub(super) fn start_totp(it: &Context<'_>, request: UserRequest) -> Outcome<StartResponse> {
    let expect = expect(request.instance, request.organization)?;
    let user = request.id.parse()?;
    let name = it.beside.name.as_deref();
    let name = name.map(|it| Name::parse("name", it)).transpose()?;
    let enrolment = it
        .service
        .start_totp(it.caller, &expect, &user, name, it.now)?;
    Ok(enrolment.into())
}

pub(super) fn confirm_totp(it: &Context<'_>, request: TotpCodeRequest) -> Outcome<DetailsResponse> {
    let code = Zeroizing::new(request.code);
    let expect = expect(request.instance, request.organization)?;
    let (user, totp, code) = (request.id.parse()?, request.totp_id.parse()?, code.parse()?);
    let verdict = it
        .service
        .confirm_totp(it.caller, &expect, &user, &totp, &code, it.now)?;
    accepted(verdict).map(Into::into)
}

pub(super) fn check_totp(it: &Context<'_>, request: CheckRequest) -> Outcome<CheckResponse> {
    let code = Zeroizing::new(request.code);
    let expect = expect(it.beside.instance.clone(), request.organization)?;
    let user = request.id.parse()?;
    let totp = request.totp_id.map(|it| it.parse()).transpose()?;
    let code = code.parse()?;
    let verdict = it
        .service
        .check_totp(it.caller, &expect, &user, totp.as_ref(), &code, it.now)?;
    accepted(verdict).map(Into::into)
}

pub(super) fn remove_totp(it: &Context<'_>, request: TotpRequest) -> Outcome<DetailsResponse> {
    let expect = expect(request.instance, request.organization)?;
    let (user, totp) = (request.id.parse()?, request.totp_id.parse()?);
    let details = it
        .service
        .remove_totp(it.caller, &expect, &user, &totp, it.now)?;
    Ok(details.into())
}

/// Where the caller expects things to be.
fn expect(instance: Option<Instance>, organization: Option<Organization>) -> Result<Expect> {
    let instance = instance.map_or(Ok(None), |it| named("instance", it.id, it.domain.as_ref()))?;
    let organization = organization.map_or(Ok(None), |it| {
        named("organization", it.org_id, it.org_domain.as_ref())
    })?;
    Ok(Expect {
        instance,
        organization,
    })
}

fn named(
    field: &'static str,
    id: Option<String>,
    domain: Option<&String>,
) -> Result<Option<Named>> {
    match (id, domain) {
        (None, None) => Ok(None),
        (Some(id), None) => Ok(Some(Named::Id(id.parse()?))),
        (None, Some(_)) => Ok(Some(Named::Domain)),
        (Some(_), Some(_)) => Err(Error::invalid(
            field,
            "expected an id or a domain, not both",
        )),
    }
}

fn new_user(user: CreateUser) -> Result<NewUser> {
    if user.contact.is_some() {
        return Err(Error::invalid(
            "contact",
            "totpd keeps no contact; leave it out",
        ));
    }
    let authenticators = user.authenticators.unwrap_or_default();
    if authenticators.password.is_some() {
        return Err(Error::invalid(
            "authenticators.password",
            "totpd keeps no passwords; leave it out",
        ));
    }
    if authenticators.usernames.len() > MAX_USERNAMES {
        return Err(Error::invalid(
            "authenticators.usernames",
            "expected at most 50 usernames",
        ));
    }
    let usernames = authenticators.usernames.into_iter().map(|it| {
        Ok(NewUsername {
            username: Name::parse("username", &it.username)?,
            is_organization_specific: it.is_organization_specific,
        })
    });
    let schema_id = Some(user.schema_id).filter(|it| !it.is_empty());
    let data = user.data.map(|it| {
        if !it.is_within(MAX_DATA_DEPTH) {
            return Err(Error::invalid("data", "nested too deeply: at most 30"));
        }
        let json = it.into_json().map(|it| it.to_string());
        json.ok_or_else(|| Error::invalid("data", "expected what JSON can say: finite numbers"))
    });
    Ok(NewUser {
        id: user.user_id.map(|it| it.parse()).transpose()?,
        schema_id: schema_id
            .map(|it| Name::parse("schemaId", &it))
            .transpose()?,
        data: data.transpose()?,
        usernames: usernames.collect::<Result<_>>()?,
    })
}

/// A "no" to a code is a refusal on the wire: whoever looks at the status alone is not fooled.
fn accepted(verdict: Verdict) -> Outcome<Details> {
    match verdict {
        Verdict::Accepted(details) => Ok(details),
        Verdict::Wrong => Err(Refusal::wrong_code()),
        Verdict::Used => Err(Refusal::used_code()),
        Verdict::Wait { retry_after_s } => Err(Refusal::wait(retry_after_s)),
    }
}
