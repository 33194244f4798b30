//! JSON over HTTP: a call out of path, query and body.

use super::call::{self, Call, ParsedCall, RestOnly, UserCall};
use super::http::Request;
use super::messages::{
    self, CheckRequest, CreateUserRequest, InvitationRequest, RecoveryCodeRequest, RenameRequest,
    ResyncRequest, SearchUsersRequest, TotpCodeRequest, TotpRequest, UserRequest,
};
use super::path::{self, Query};
use super::routes::{self, Rpc, TotpRpc};
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
    let id = |raw: &str| path::decode("id", raw);
    let user = |raw: &str| -> Result<UserRequest> {
        Ok(UserRequest {
            instance: query.instance(),
            organization: query.organization(),
            id: id(raw)?,
        })
    };
    match rpc {
        Rpc::CreateUser => call::create_user(CreateUserRequest {
            instance: query.instance(),
            organization: query.organization(),
            user: Some(messages::read_user(body)?),
        }),
        Rpc::GetUser(raw) => call::on_user(user(raw)?, UserCall::Get),
        Rpc::SearchUsers => call::search_users(SearchUsersRequest {
            instance: query.instance(),
            query: Some(query.page()?),
            sorting_column: query.sorting_column()?,
            filters: messages::read_filters(body)?,
        }),
        Rpc::ListEvents => call::list_events(messages::read_events(body)?),
        Rpc::DeleteUser(raw) => call::on_user(user(raw)?, UserCall::Delete),
        Rpc::LockUser(raw) => call::on_user(user(raw)?, UserCall::Lock),
        Rpc::UnlockUser(raw) => call::on_user(user(raw)?, UserCall::Unlock),
        Rpc::DeactivateUser(raw) => call::on_user(user(raw)?, UserCall::Deactivate),
        Rpc::ActivateUser(raw) => call::on_user(user(raw)?, UserCall::Activate),
        Rpc::StartTotp(raw) => {
            let in_body_and_query = RestOnly {
                name: messages::read_start(body)?,
                replaces: query.replaces(),
                qr: query.qr(),
            };
            call::start_totp(user(raw)?, &in_body_and_query)
        }
        Rpc::CheckTotp(raw) => {
            let request = CheckRequest {
                organization: query.organization(),
                id: id(raw)?,
                totp_id: None,
                code: messages::read_code(body)?,
            };
            call::check_totp(request, query.instance())
        }
        Rpc::ListTotp(raw) => call::on_user(user(raw)?, UserCall::ListTotps),
        Rpc::OnTotp(raw, totp, rpc) => {
            let user = user(raw)?;
            let totp_id = path::decode("totpId", totp)?;
            fields_on_totp(rpc, user, totp_id, body)
        }
        Rpc::GenerateRecoveryCodes(raw) => {
            call::on_user(user(raw)?, UserCall::GenerateRecoveryCodes)
        }
        Rpc::GetRecoveryCodes(raw) => call::on_user(user(raw)?, UserCall::GetRecoveryCodes),
        Rpc::CheckRecoveryCode(raw) => call::check_recovery_code(RecoveryCodeRequest {
            instance: query.instance(),
            organization: query.organization(),
            id: id(raw)?,
            code: messages::read_recovery_code(body)?,
        }),
        Rpc::RemoveRecoveryCodes(raw) => call::on_user(user(raw)?, UserCall::RemoveRecoveryCodes),
        Rpc::CreateInvitation(raw) => call::create_invitation(InvitationRequest {
            instance: query.instance(),
            organization: query.organization(),
            id: id(raw)?,
            expires: messages::read_expires(body)?,
        }),
    }
}

fn fields_on_totp(rpc: TotpRpc, user: UserRequest, totp_id: String, body: &[u8]) -> Result<Call> {
    let UserRequest {
        instance,
        organization,
        id,
    } = user;
    match rpc {
        TotpRpc::Confirm => call::confirm_totp(TotpCodeRequest {
            instance,
            organization,
            id,
            totp_id,
            code: messages::read_code(body)?,
        }),
        TotpRpc::Check => {
            let request = CheckRequest {
                organization,
                id,
                totp_id: Some(totp_id),
                code: messages::read_code(body)?,
            };
            call::check_totp(request, instance)
        }
        TotpRpc::Rename => call::rename_totp(RenameRequest {
            instance,
            organization,
            id,
            totp_id,
            name: messages::read_name(body)?,
        }),
        TotpRpc::Resync => call::resync_totp(ResyncRequest {
            instance,
            organization,
            id,
            totp_id,
            codes: messages::read_codes(body)?,
        }),
        TotpRpc::Remove => call::remove_totp(TotpRequest {
            instance,
            organization,
            id,
            totp_id,
        }),
    }
}
