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
    CreateUser {
        target: Target,
        user: Box<NewUser>,
    },
    GetUser(UserRef),
    SearchUsers {
        target: Target,
        search: Search,
    },
    ListEvents(EventSearch),
    DeleteUser(UserRef),
    LockUser(UserRef),
    UnlockUser(UserRef),
    DeactivateUser(UserRef),
    ActivateUser(UserRef),
    StartTotp {
        user: UserRef,
        name: Option<Name>,
        replaces: Option<TotpId>,
        qr: Option<QrFormat>,
    },
    ConfirmTotp {
        user: UserRef,
        totp: TotpId,
        code: Code,
    },
    CheckTotp {
        user: UserRef,
        totp: Option<TotpId>,
        code: Code,
    },
    ListTotps(UserRef),
    RenameTotp {
        user: UserRef,
        totp: TotpId,
        name: Name,
    },
    RemoveTotp {
        user: UserRef,
        totp: TotpId,
    },
    ResyncTotp {
        user: UserRef,
        totp: TotpId,
        codes: [Code; 2],
    },
    GenerateRecoveryCodes(UserRef),
    GetRecoveryCodes(UserRef),
    CheckRecoveryCode {
        user: UserRef,
        code: RecoveryCode,
    },
    RemoveRecoveryCodes(UserRef),
    CreateInvitation {
        user: UserRef,
        lifetime: Duration,
    },
}

impl Call {
    /// The user that the call names.
    pub(super) const fn user(&self) -> Option<&UserId> {
        match self {
            Self::CreateUser { .. } | Self::SearchUsers { .. } | Self::ListEvents(_) => None,
            Self::GetUser(it)
            | Self::DeleteUser(it)
            | Self::LockUser(it)
            | Self::UnlockUser(it)
            | Self::DeactivateUser(it)
            | Self::ActivateUser(it)
            | Self::ListTotps(it)
            | Self::GenerateRecoveryCodes(it)
            | Self::GetRecoveryCodes(it)
            | Self::RemoveRecoveryCodes(it)
            | Self::CheckRecoveryCode { user: it, .. }
            | Self::StartTotp { user: it, .. }
            | Self::ConfirmTotp { user: it, .. }
            | Self::CheckTotp { user: it, .. }
            | Self::CreateInvitation { user: it, .. }
            | Self::RenameTotp { user: it, .. }
            | Self::ResyncTotp { user: it, .. }
            | Self::RemoveTotp { user: it, .. } => Some(&it.user),
        }
    }
}

impl Call {
    /// Whether a `self` token may need a code for the call.
    const fn takes_proof(&self) -> bool {
        match self {
            Self::StartTotp { .. }
            | Self::ConfirmTotp { .. }
            | Self::RemoveTotp { .. }
            | Self::GenerateRecoveryCodes(_)
            | Self::RemoveRecoveryCodes(_) => true,
            Self::CreateUser { .. }
            | Self::GetUser(_)
            | Self::SearchUsers { .. }
            | Self::ListEvents(_)
            | Self::DeleteUser(_)
            | Self::LockUser(_)
            | Self::UnlockUser(_)
            | Self::DeactivateUser(_)
            | Self::ActivateUser(_)
            | Self::CheckTotp { .. }
            | Self::ListTotps(_)
            | Self::RenameTotp { .. }
            | Self::ResyncTotp { .. }
            | Self::GetRecoveryCodes(_)
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

/// Fields that REST accepts and that ZITADEL's message of the call does not have.
#[derive(Default)]
pub(super) struct RestOnly {
    pub(super) instance: Option<Instance>,
    pub(super) organization: Option<Organization>,
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

pub(super) fn get_user(request: &GetUserRequest, rest: RestOnly) -> Result<Call> {
    let target = target(request.instance.clone(), rest.organization)?;
    user_ref(target, &request.id).map(Call::GetUser)
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
pub(super) fn on_user(request: UserRequest, call: fn(UserRef) -> Call) -> Result<Call> {
    let target = target(request.instance, request.organization)?;
    user_ref(target, &request.id).map(call)
}

pub(super) fn start_totp(request: UserRequest, rest: &RestOnly) -> Result<Call> {
    let target = target(request.instance, request.organization)?;
    let user = user_ref(target, &request.id)?;
    let name = rest.name.as_deref();
    let name = name.map(|it| Name::parse("name", it)).transpose()?;
    let replaces = rest.replaces.as_deref();
    let replaces = replaces.map(|it| TotpId::parse("replaces", it));
    let replaces = replaces.transpose()?;
    let qr = rest.qr.as_deref().map(QrFormat::parse).transpose()?;
    Ok(Call::StartTotp {
        user,
        name,
        replaces,
        qr,
    })
}

pub(super) fn confirm_totp(request: TotpCodeRequest) -> Result<Call> {
    let code = Zeroizing::new(request.code);
    let target = target(request.instance, request.organization)?;
    Ok(Call::ConfirmTotp {
        user: user_ref(target, &request.id)?,
        totp: request.totp_id.parse()?,
        code: code.parse()?,
    })
}

pub(super) fn check_totp(request: CheckRequest, rest: RestOnly) -> Result<Call> {
    let code = Zeroizing::new(request.code);
    let target = target(rest.instance, request.organization)?;
    Ok(Call::CheckTotp {
        user: user_ref(target, &request.id)?,
        totp: request.totp_id.map(|it| it.parse()).transpose()?,
        code: code.parse()?,
    })
}

pub(super) fn rename_totp(request: RenameRequest) -> Result<Call> {
    let target = target(request.instance, request.organization)?;
    Ok(Call::RenameTotp {
        user: user_ref(target, &request.id)?,
        totp: request.totp_id.parse()?,
        name: Name::parse("name", &request.name)?,
    })
}

pub(super) fn resync_totp(request: ResyncRequest) -> Result<Call> {
    let codes = Zeroizing::new(request.codes);
    let target = target(request.instance, request.organization)?;
    let (user, totp) = (user_ref(target, &request.id)?, request.totp_id.parse()?);
    let [first, second] = codes.as_slice() else {
        return Err(Error::invalid("codes", "expected two codes"));
    };
    Ok(Call::ResyncTotp {
        user,
        totp,
        codes: [first.parse()?, second.parse()?],
    })
}

pub(super) fn remove_totp(request: TotpRequest) -> Result<Call> {
    let target = target(request.instance, request.organization)?;
    Ok(Call::RemoveTotp {
        user: user_ref(target, &request.id)?,
        totp: request.totp_id.parse()?,
    })
}

pub(super) fn check_recovery_code(request: RecoveryCodeRequest) -> Result<Call> {
    let code = Zeroizing::new(request.code);
    let target = target(request.instance, request.organization)?;
    Ok(Call::CheckRecoveryCode {
        user: user_ref(target, &request.id)?,
        code: code.parse()?,
    })
}

pub(super) fn create_invitation(request: InvitationRequest) -> Result<Call> {
    let target = target(request.instance, request.organization)?;
    let user = user_ref(target, &request.id)?;
    let lifetime = if request.expires.is_empty() {
        INVITATION_LIFETIME
    } else {
        parse_span(&request.expires).map_err(|problem| Error::invalid("expires", problem))?
    };
    Ok(Call::CreateInvitation { user, lifetime })
}

fn user_ref(target: Target, user: &str) -> Result<UserRef> {
    let user = UserId::for_lookup(user)?;
    Ok(UserRef { target, user })
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
