//! gRPC calls without their framing: a message in, a message and trailers out.
//!
//! gRPC over HTTP/2 and gRPC-Web both use this, and share all functions behind it with REST.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;

use super::Operation;
use super::call::{self, Call, ParsedCall, RestOnly, UserCall};
use super::counts::CallName;
use super::messages::rpc::{
    Any, Duration, ErrorDetail, HealthCheckRequest, HealthCheckResponse, RetryInfo, ServingStatus,
    Status,
};
use super::messages::{
    Bound, CODES_OF_RESYNC, FILTERS_OF_SEARCH, TYPES_OF_EVENTS, USERNAMES_OF_USER,
};
use super::routes::Kind;
use super::status::Refusal;
use crate::error::Error;
use crate::service::Permission;

/// The services whose clients ZITADEL publishes, and our own.
const USERS: &str = "zitadel.resources.user.v3alpha.ZITADELUsers";
const ADMIN: &str = "zitadel.admin.v1.AdminService";
const TOTPS: &str = "totpd.v1.TOTPService";
const RECOVERY_CODES: &str = "totpd.v1.RecoveryCodeService";
const INVITATIONS: &str = "totpd.v1.InvitationService";
const HEALTH: &str = "grpc.health.v1.Health";

/// What `grpc-message` escapes: everything but visible ASCII, and the percent sign.
const MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// A call that totpd offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rpc {
    SearchUsers,
    ListEvents,
    GetUser,
    CreateUser,
    DeleteUser,
    LockUser,
    UnlockUser,
    DeactivateUser,
    ActivateUser,
    StartTotp,
    ConfirmTotp,
    RemoveTotp,
    CheckTotp,
    ListTotp,
    RenameTotp,
    ResyncTotp,
    GenerateRecoveryCodes,
    GetRecoveryCodes,
    CheckRecoveryCode,
    RemoveRecoveryCodes,
    CreateInvitation,
    Health,
}

/// Finds the call of a path.
pub(super) fn rpc(target: &str) -> Result<Rpc, Refusal> {
    let path = target.strip_prefix('/').unwrap_or_default();
    Ok(match path.split_once('/') {
        Some((USERS, rpc)) => match rpc {
            "SearchUsers" => Rpc::SearchUsers,
            "GetUser" => Rpc::GetUser,
            "CreateUser" => Rpc::CreateUser,
            "DeleteUser" => Rpc::DeleteUser,
            "LockUser" => Rpc::LockUser,
            "UnlockUser" => Rpc::UnlockUser,
            "DeactivateUser" => Rpc::DeactivateUser,
            "ActivateUser" => Rpc::ActivateUser,
            "StartTOTPRegistration" => Rpc::StartTotp,
            "VerifyTOTPRegistration" => Rpc::ConfirmTotp,
            "RemoveTOTPAuthenticator" => Rpc::RemoveTotp,
            _ => return Err(Refusal::not_offered()),
        },
        Some((TOTPS, rpc)) => match rpc {
            "CheckTOTP" => Rpc::CheckTotp,
            "ListTOTP" => Rpc::ListTotp,
            "RenameTOTP" => Rpc::RenameTotp,
            "ResyncTOTP" => Rpc::ResyncTotp,
            _ => return Err(Refusal::not_offered()),
        },
        Some((RECOVERY_CODES, rpc)) => match rpc {
            "GenerateRecoveryCodes" => Rpc::GenerateRecoveryCodes,
            "GetRecoveryCodes" => Rpc::GetRecoveryCodes,
            "CheckRecoveryCode" => Rpc::CheckRecoveryCode,
            "RemoveRecoveryCodes" => Rpc::RemoveRecoveryCodes,
            _ => return Err(Refusal::not_offered()),
        },
        Some((INVITATIONS, "CreateInvitation")) => Rpc::CreateInvitation,
        Some((ADMIN, "ListEvents")) => Rpc::ListEvents,
        Some((HEALTH, "Check")) => Rpc::Health,
        _ => return Err(Refusal::not_offered()),
    })
}

impl Rpc {
    /// The name of the call in metrics and in the log.
    const fn name(self) -> CallName {
        match self {
            Self::SearchUsers => CallName::SearchUsers,
            Self::ListEvents => CallName::ListEvents,
            Self::GetUser => CallName::GetUser,
            Self::CreateUser => CallName::CreateUser,
            Self::DeleteUser => CallName::DeleteUser,
            Self::LockUser => CallName::LockUser,
            Self::UnlockUser => CallName::UnlockUser,
            Self::DeactivateUser => CallName::DeactivateUser,
            Self::ActivateUser => CallName::ActivateUser,
            Self::StartTotp => CallName::StartTotp,
            Self::ConfirmTotp => CallName::ConfirmTotp,
            Self::RemoveTotp => CallName::RemoveTotp,
            Self::ListTotp => CallName::ListTotp,
            Self::RenameTotp => CallName::RenameTotp,
            Self::ResyncTotp => CallName::ResyncTotp,
            Self::CheckTotp => CallName::CheckTotp,
            Self::GenerateRecoveryCodes => CallName::GenerateRecoveryCodes,
            Self::GetRecoveryCodes => CallName::GetRecoveryCodes,
            Self::CheckRecoveryCode => CallName::CheckRecoveryCode,
            Self::RemoveRecoveryCodes => CallName::RemoveRecoveryCodes,
            Self::CreateInvitation => CallName::CreateInvitation,
            Self::Health => CallName::Ready,
        }
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Health => Kind::Readiness,
            Self::GetUser | Self::ListTotp | Self::GetRecoveryCodes => Kind::Read,
            Self::SearchUsers | Self::ListEvents => Kind::Search,
            Self::CreateUser
            | Self::DeleteUser
            | Self::LockUser
            | Self::UnlockUser
            | Self::DeactivateUser
            | Self::ActivateUser
            | Self::StartTotp
            | Self::ConfirmTotp
            | Self::RemoveTotp
            | Self::RenameTotp
            | Self::ResyncTotp
            | Self::CheckTotp
            | Self::GenerateRecoveryCodes
            | Self::CheckRecoveryCode
            | Self::RemoveRecoveryCodes
            | Self::CreateInvitation => Kind::Change,
        }
    }
}

/// Parses one call. Only its path can refuse it here.
pub(super) fn parse(target: &str, message: &[u8]) -> Result<Operation, Refusal> {
    let rpc = rpc(target)?;
    let on_user =
        |permission, call| parse_message(permission, message, |it| call::on_user(it, call));
    let (permission, call) = match rpc {
        Rpc::Health => return health(message),
        Rpc::SearchUsers => parse_counted(
            Permission::Search,
            message,
            &FILTERS_OF_SEARCH,
            call::search_users,
        ),
        Rpc::ListEvents => parse_counted(
            Permission::ReadEvents,
            message,
            &TYPES_OF_EVENTS,
            call::list_events,
        ),
        Rpc::GetUser => parse_message(Permission::ReadUser, message, call::get_user),
        Rpc::CreateUser => parse_counted(
            Permission::WriteUser,
            message,
            &USERNAMES_OF_USER,
            call::create_user,
        ),
        Rpc::DeleteUser => on_user(Permission::WriteUser, UserCall::Delete),
        Rpc::LockUser => on_user(Permission::WriteUser, UserCall::Lock),
        Rpc::UnlockUser => on_user(Permission::WriteUser, UserCall::Unlock),
        Rpc::DeactivateUser => on_user(Permission::WriteUser, UserCall::Deactivate),
        Rpc::ActivateUser => on_user(Permission::WriteUser, UserCall::Activate),
        Rpc::StartTotp => parse_message(Permission::WriteTotp, message, |it| {
            call::start_totp(it, &RestOnly::default())
        }),
        Rpc::ConfirmTotp => parse_message(Permission::WriteTotp, message, call::confirm_totp),
        Rpc::RemoveTotp => parse_message(Permission::WriteTotp, message, call::remove_totp),
        Rpc::ListTotp => on_user(Permission::ReadUser, UserCall::ListTotps),
        Rpc::RenameTotp => parse_message(Permission::WriteTotp, message, call::rename_totp),
        Rpc::ResyncTotp => parse_counted(
            Permission::WriteTotp,
            message,
            &CODES_OF_RESYNC,
            call::resync_totp,
        ),
        Rpc::CheckTotp => {
            parse_message(Permission::Check, message, |it| call::check_totp(it, None))
        }
        Rpc::GenerateRecoveryCodes => {
            on_user(Permission::WriteTotp, UserCall::GenerateRecoveryCodes)
        }
        Rpc::GetRecoveryCodes => on_user(Permission::ReadUser, UserCall::GetRecoveryCodes),
        Rpc::CheckRecoveryCode => {
            parse_message(Permission::Check, message, call::check_recovery_code)
        }
        Rpc::RemoveRecoveryCodes => on_user(Permission::WriteTotp, UserCall::RemoveRecoveryCodes),
        Rpc::CreateInvitation => {
            parse_message(Permission::WriteUser, message, call::create_invitation)
        }
    };
    Ok(Operation::Call(ParsedCall {
        name: rpc.name(),
        permission,
        call,
        proof: None,
    }))
}

/// Parses a message into a call.
fn parse_message<Q: Message + Default>(
    permission: Permission,
    message: &[u8],
    read: impl FnOnce(Q) -> Result<Call, Error>,
) -> (Permission, Result<Call, Error>) {
    let call = decode(message).and_then(read);
    (permission, call)
}

/// Parses a message with a limited number of messages inside, which are counted before they are decoded.
fn parse_counted<Q: Message + Default>(
    permission: Permission,
    message: &[u8],
    bound: &Bound,
    read: impl FnOnce(Q) -> Result<Call, Error>,
) -> (Permission, Result<Call, Error>) {
    let judged = bound.judge_protobuf(message);
    let call = judged.and_then(|()| decode(message)).and_then(read);
    (permission, call)
}

/// Readiness, which needs no token.
fn health(message: &[u8]) -> Result<Operation, Refusal> {
    let request: HealthCheckRequest = decode(message)?;
    if !["", USERS, ADMIN, TOTPS, RECOVERY_CODES, INVITATIONS].contains(&request.service.as_str()) {
        return Err(Refusal::unknown_service());
    }
    Ok(Operation::Health)
}

/// The answer to a probe.
pub(super) fn health_response(is_ready: bool) -> HealthCheckResponse {
    let status = if is_ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    let status = status.into();
    HealthCheckResponse { status }
}

fn decode<Q: Message + Default>(message: &[u8]) -> Result<Q, Error> {
    // The decoder's own words are left out: they might repeat what was sent.
    Q::decode(message).map_err(|_| Error::invalid("message", "this is not the call's message"))
}

/// How a call ended, as trailers.
pub(super) fn trailers(outcome: Result<(), &Refusal>) -> Vec<(&'static str, String)> {
    let Err(refusal) = outcome else {
        return vec![("grpc-status", "0".to_owned())];
    };
    let status = status(refusal);
    vec![
        ("grpc-status", status.code.to_string()),
        (
            "grpc-message",
            utf8_percent_encode(&status.message, MESSAGE).to_string(),
        ),
        (
            "grpc-status-details-bin",
            data_encoding::BASE64_NOPAD.encode(&status.encode_to_vec()),
        ),
    ]
}

/// The same that REST says as JSON, and how long to wait where there is a wait.
fn status(refusal: &Refusal) -> Status {
    let mut details = Vec::new();
    if let Some(id) = refusal.id {
        let detail = ErrorDetail {
            id: id.to_owned(),
            message: refusal.message.clone(),
        };
        let kind = "type.googleapis.com/zitadel.v1.ErrorDetail";
        details.push(Any::of(kind, &detail));
    }
    if let Some(seconds) = refusal.retry_after_s {
        let retry_delay = Some(Duration {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        });
        let kind = "type.googleapis.com/google.rpc.RetryInfo";
        details.push(Any::of(kind, &RetryInfo { retry_delay }));
    }
    Status {
        code: refusal.code.number(),
        message: refusal.sentence(),
        details,
    }
}
