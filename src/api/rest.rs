//! JSON over HTTP: a call out of path, query and body.

use super::call::{self, Call, ParsedCall, RestOnly};
use super::http::Request;
use super::messages::{
    self, CheckRequest, CreateUserRequest, GetUserRequest, InvitationRequest, RecoveryCodeRequest,
    RenameRequest, ResyncRequest, SearchUsersRequest, TotpCodeRequest, TotpRequest, UserRequest,
};
use super::path::{self, Query};
use super::routes::{self, Rpc};
use super::status::Refusal;
use super::{Operation, routes::Call as Route};
use crate::error::Result;

/// Reads one request. The path alone can refuse it here.
pub(super) fn parse(request: &Request<'_>) -> Result<Operation, Refusal> {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((request.target, ""));
    Ok(match routes::route(request.method, path)? {
        // Probes, the description and redemptions need no token.
        Route::Healthz => Operation::Healthz,
        Route::Ready => Operation::Ready,
        Route::OpenApi => Operation::OpenApi,
        Route::Page(file) => Operation::Page(file),
        Route::Redeem => Operation::Redeem(messages::read_redeem(request.body)),
        Route::Rpc(rpc) => Operation::Call(ParsedCall {
            name: rpc.name(),
            permission: rpc.permission(),
            call: Query::read(query).and_then(|it| fields(rpc, &it, request.body)),
            proof: None,
        }),
    })
}

fn fields(rpc: Rpc<'_>, query: &Query, body: &[u8]) -> Result<Call> {
    let (instance, organization) = (query.instance(), query.organization());
    let id = |raw: &str| path::decode("id", raw);
    let totp_id = |raw: &str| path::decode("totpId", raw);
    let user = |raw: &str| -> Result<UserRequest> {
        Ok(UserRequest {
            instance: query.instance(),
            organization: query.organization(),
            id: id(raw)?,
        })
    };
    let rest = || RestOnly {
        instance: query.instance(),
        organization: query.organization(),
        ..RestOnly::default()
    };
    match rpc {
        Rpc::CreateUser => call::create_user(CreateUserRequest {
            instance,
            organization,
            user: Some(messages::read_user(body)?),
        }),
        Rpc::GetUser(raw) => {
            let id = id(raw)?;
            call::get_user(&GetUserRequest { instance, id }, rest())
        }
        Rpc::SearchUsers => call::search_users(SearchUsersRequest {
            instance,
            query: Some(query.page()?),
            sorting_column: query.sorting_column()?,
            filters: messages::read_filters(body)?,
        }),
        Rpc::ListEvents => call::list_events(messages::read_events(body)?),
        Rpc::DeleteUser(raw) => call::on_user(user(raw)?, Call::DeleteUser),
        Rpc::LockUser(raw) => call::on_user(user(raw)?, Call::LockUser),
        Rpc::UnlockUser(raw) => call::on_user(user(raw)?, Call::UnlockUser),
        Rpc::DeactivateUser(raw) => call::on_user(user(raw)?, Call::DeactivateUser),
        Rpc::ActivateUser(raw) => call::on_user(user(raw)?, Call::ActivateUser),
        Rpc::StartTotp(raw) => {
            let in_body_and_query = RestOnly {
                name: messages::read_start(body)?,
                replaces: query.replaces(),
                qr: query.qr(),
                ..RestOnly::default()
            };
            call::start_totp(user(raw)?, &in_body_and_query)
        }
        Rpc::ConfirmTotp(raw, totp) => call::confirm_totp(TotpCodeRequest {
            instance,
            organization,
            id: id(raw)?,
            totp_id: totp_id(totp)?,
            code: messages::read_code(body)?,
        }),
        Rpc::CheckTotp(raw, totp) => {
            let request = CheckRequest {
                organization,
                id: id(raw)?,
                totp_id: totp.map(totp_id).transpose()?,
                code: messages::read_code(body)?,
            };
            call::check_totp(request, rest())
        }
        Rpc::ListTotp(raw) => call::on_user(user(raw)?, Call::ListTotps),
        Rpc::RenameTotp(raw, totp) => call::rename_totp(RenameRequest {
            instance,
            organization,
            id: id(raw)?,
            totp_id: totp_id(totp)?,
            name: messages::read_name(body)?,
        }),
        Rpc::ResyncTotp(raw, totp) => call::resync_totp(ResyncRequest {
            instance,
            organization,
            id: id(raw)?,
            totp_id: totp_id(totp)?,
            codes: messages::read_codes(body)?,
        }),
        Rpc::RemoveTotp(raw, totp) => call::remove_totp(TotpRequest {
            instance,
            organization,
            id: id(raw)?,
            totp_id: totp_id(totp)?,
        }),
        Rpc::GenerateRecoveryCodes(raw) => call::on_user(user(raw)?, Call::GenerateRecoveryCodes),
        Rpc::GetRecoveryCodes(raw) => call::on_user(user(raw)?, Call::GetRecoveryCodes),
        Rpc::CheckRecoveryCode(raw) => call::check_recovery_code(RecoveryCodeRequest {
            instance,
            organization,
            id: id(raw)?,
            code: messages::read_recovery_code(body)?,
        }),
        Rpc::RemoveRecoveryCodes(raw) => call::on_user(user(raw)?, Call::RemoveRecoveryCodes),
        Rpc::CreateInvitation(raw) => call::create_invitation(InvitationRequest {
            instance,
            organization,
            id: id(raw)?,
            expires: messages::read_expires(body)?,
        }),
    }
}
