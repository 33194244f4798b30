//! A call as a value: what a request asks for once its fields have been read.
//!
//! Only here do fields become domain types. This needs no token, clock or database, so it runs before the transaction. A
//! malformed field is kept as an error in [`ParsedCall`], because the token is judged first.

use std::time::Duration;

use zeroize::Zeroizing;

use super::counts::CallName;
use super::messages::{
    CheckRequest, CreateUser, CreateUserRequest, GetUserRequest, Instance, InvitationRequest,
    ListEventsRequest, Organization, RecoveryCodeRequest, RenameRequest, ResyncRequest,
    SearchUsersRequest, Struct, TotpCodeRequest, TotpRequest, UserRequest,
};
use super::qr::QrFormat;
use super::{events, filters};
use crate::error::{Error, Result};
use crate::model::{
    Code, EventSearch, Name, Proof, RecoveryCode, Search, TotpId, UserId, parse_span,
};
use crate::service::{INVITATION_LIFETIME, NamedBy, NewUser, NewUsername, Permission, Target};

/// A call, independent of the transport.
pub(super) enum Call {
    CreateUser { target: Target, user: Box<NewUser> },
    SearchUsers { target: Target, search: Search },
    ListEvents(EventSearch),
    OnUser(UserRef, UserCall),
}

/// A call about one user.
pub(super) enum UserCall {
    Get,
    Delete,
    Lock,
    Unlock,
    Deactivate,
    Activate,
    StartTotp {
        name: Option<Name>,
        replaces: Option<TotpId>,
        qr: Option<QrFormat>,
    },
    ConfirmTotp {
        totp: TotpId,
        code: Code,
    },
    CheckTotp {
        totp: Option<TotpId>,
        code: Code,
    },
    ListTotps,
    RenameTotp {
        totp: TotpId,
        name: Name,
    },
    RemoveTotp {
        totp: TotpId,
    },
    ResyncTotp {
        totp: TotpId,
        codes: [Code; 2],
    },
    GenerateRecoveryCodes,
    GetRecoveryCodes,
    CheckRecoveryCode {
        code: RecoveryCode,
    },
    RemoveRecoveryCodes,
    CreateInvitation {
        lifetime: Duration,
    },
}

impl Call {
    /// The user that the call names.
    pub(super) const fn user(&self) -> Option<&UserId> {
        match self {
            Self::CreateUser { .. } | Self::SearchUsers { .. } | Self::ListEvents(_) => None,
            Self::OnUser(it, _) => Some(&it.user),
        }
    }

    /// Whether a `self` token may need a code for the call.
    const fn takes_proof(&self) -> bool {
        match self {
            Self::CreateUser { .. } | Self::SearchUsers { .. } | Self::ListEvents(_) => false,
            Self::OnUser(_, call) => call.takes_proof(),
        }
    }
}

impl UserCall {
    const fn takes_proof(&self) -> bool {
        match self {
            Self::StartTotp { .. }
            | Self::ConfirmTotp { .. }
            | Self::RemoveTotp { .. }
            | Self::GenerateRecoveryCodes
            | Self::RemoveRecoveryCodes => true,
            Self::Get
            | Self::Delete
            | Self::Lock
            | Self::Unlock
            | Self::Deactivate
            | Self::Activate
            | Self::CheckTotp { .. }
            | Self::ListTotps
            | Self::RenameTotp { .. }
            | Self::ResyncTotp { .. }
            | Self::GetRecoveryCodes
            | Self::CheckRecoveryCode { .. }
            | Self::CreateInvitation { .. } => false,
        }
    }
}

/// The user that a call names, and where the caller expects it to be.
pub(super) struct UserRef {
    pub(super) target: Target,
    pub(super) user: UserId,
}

/// A call and the permission that it needs. The permission is known from the path alone.
pub(super) struct ParsedCall {
    /// The name of the rpc, for the log.
    pub(super) name: CallName,
    pub(super) permission: Permission,
    /// The call, or what is wrong with its fields.
    pub(super) call: Result<Call>,
    /// The code that came beside the call, if the call takes one.
    pub(super) proof: Option<Proof>,
}

impl ParsedCall {
    /// Reads the code that came beside the call. Calls that never need one do not look at it.
    pub(super) fn read_proof(&mut self, code: &str) {
        if !self.call.as_ref().is_ok_and(Call::takes_proof) {
            return;
        }
        match code.parse() {
            Ok(proof) => self.proof = Some(proof),
            Err(malformed) => self.call = Err(malformed),
        }
    }
}

/// Fields of a start that REST accepts and that ZITADEL's message does not have.
#[derive(Default)]
pub(super) struct RestOnly {
    pub(super) name: Option<String>,
    pub(super) replaces: Option<String>,
    pub(super) qr: Option<String>,
}

pub(super) fn create_user(request: CreateUserRequest) -> Result<Call> {
    Ok(Call::CreateUser {
        target: target(request.instance, request.organization)?,
        user: Box::new(new_user(request.user.unwrap_or_default())?),
    })
}

pub(super) fn get_user(request: GetUserRequest) -> Result<Call> {
    let user = user_ref(request.instance, None, &request.id)?;
    Ok(Call::OnUser(user, UserCall::Get))
}

pub(super) fn search_users(request: SearchUsersRequest) -> Result<Call> {
    Ok(Call::SearchUsers {
        search: filters::search(&request)?,
        target: target(request.instance, None)?,
    })
}

pub(super) fn list_events(request: ListEventsRequest) -> Result<Call> {
    events::search(request).map(Call::ListEvents)
}

/// A call that names a user and nothing else.
pub(super) fn on_user(request: UserRequest, call: UserCall) -> Result<Call> {
    let user = user_ref(request.instance, request.organization, &request.id)?;
    Ok(Call::OnUser(user, call))
}

pub(super) fn start_totp(request: UserRequest, rest: &RestOnly) -> Result<Call> {
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let name = rest.name.as_deref();
    let name = name.map(|it| Name::parse("name", it)).transpose()?;
    let replaces = rest.replaces.as_deref();
    let replaces = replaces.map(|it| TotpId::parse("replaces", it));
    let replaces = replaces.transpose()?;
    let qr = rest.qr.as_deref().map(QrFormat::parse).transpose()?;
    let call = UserCall::StartTotp { name, replaces, qr };
    Ok(Call::OnUser(user, call))
}

pub(super) fn confirm_totp(request: TotpCodeRequest) -> Result<Call> {
    let code = Zeroizing::new(request.code);
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let (totp, code) = (request.totp_id.parse()?, code.parse()?);
    Ok(Call::OnUser(user, UserCall::ConfirmTotp { totp, code }))
}

/// `instance` is an argument because the message has none, and REST takes one in the query.
pub(super) fn check_totp(request: CheckRequest, instance: Option<Instance>) -> Result<Call> {
    let code = Zeroizing::new(request.code);
    let user = user_ref(instance, request.organization, &request.id)?;
    let totp = request.totp_id.map(|it| it.parse()).transpose()?;
    let code = code.parse()?;
    Ok(Call::OnUser(user, UserCall::CheckTotp { totp, code }))
}

pub(super) fn rename_totp(request: RenameRequest) -> Result<Call> {
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let totp = request.totp_id.parse()?;
    let name = Name::parse("name", &request.name)?;
    Ok(Call::OnUser(user, UserCall::RenameTotp { totp, name }))
}

pub(super) fn resync_totp(request: ResyncRequest) -> Result<Call> {
    let codes = Zeroizing::new(request.codes);
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let totp = request.totp_id.parse()?;
    let [first, second] = codes.as_slice() else {
        return Err(Error::invalid("codes", "expected two codes"));
    };
    let codes = [first.parse()?, second.parse()?];
    Ok(Call::OnUser(user, UserCall::ResyncTotp { totp, codes }))
}

pub(super) fn remove_totp(request: TotpRequest) -> Result<Call> {
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let totp = request.totp_id.parse()?;
    Ok(Call::OnUser(user, UserCall::RemoveTotp { totp }))
}

pub(super) fn check_recovery_code(request: RecoveryCodeRequest) -> Result<Call> {
    let code = Zeroizing::new(request.code);
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let code = code.parse()?;
    Ok(Call::OnUser(user, UserCall::CheckRecoveryCode { code }))
}

pub(super) fn create_invitation(request: InvitationRequest) -> Result<Call> {
    let user = user_ref(request.instance, request.organization, &request.id)?;
    let lifetime = if request.expires.is_empty() {
        INVITATION_LIFETIME
    } else {
        parse_span(&request.expires).map_err(|problem| Error::invalid("expires", problem))?
    };
    Ok(Call::OnUser(user, UserCall::CreateInvitation { lifetime }))
}

fn user_ref(
    instance: Option<Instance>,
    organization: Option<Organization>,
    id: &str,
) -> Result<UserRef> {
    Ok(UserRef {
        target: target(instance, organization)?,
        user: UserId::for_lookup(id)?,
    })
}

/// Where the caller expects things to be.
fn target(instance: Option<Instance>, organization: Option<Organization>) -> Result<Target> {
    let instance = instance.map_or(Ok(None), |it| named("instance", it.id, it.domain.as_ref()))?;
    let organization = organization.map_or(Ok(None), |it| {
        named("organization", it.org_id, it.org_domain.as_ref())
    })?;
    Ok(Target {
        instance,
        organization,
    })
}

fn named(
    field: &'static str,
    id: Option<String>,
    domain: Option<&String>,
) -> Result<Option<NamedBy>> {
    match (id, domain) {
        (None, None) => Ok(None),
        (Some(id), None) => Ok(Some(NamedBy::Id(id.parse()?))),
        (None, Some(_)) => Ok(Some(NamedBy::Domain)),
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
    let usernames = authenticators.usernames.into_iter().map(|it| {
        Ok(NewUsername {
            username: Name::parse("username", &it.username)?,
            is_organization_specific: it.is_organization_specific,
        })
    });
    let schema_id = Some(user.schema_id).filter(|it| !it.is_empty());
    let data = user.data.map(Struct::into_text);
    Ok(NewUser {
        id: user.user_id.map(|it| it.parse()).transpose()?,
        schema_id: schema_id
            .map(|it| Name::parse("schemaId", &it))
            .transpose()?,
        data: data.transpose()?,
        usernames: usernames.collect::<Result<_>>()?,
    })
}
