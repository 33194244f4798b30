//! JSON over HTTP: a call's request message out of path, query and body, and its answer as JSON.

use serde::Serialize;

use super::Api;
use super::calls::{self, Beside, Context};
use super::http::{Reply, Request};
use super::messages::{
    self, CheckRequest, CreateUserRequest, GetUserRequest, SearchUsersRequest, TotpCodeRequest,
    TotpRequest, UserRequest,
};
use super::path::{self, Query};
use super::routes::{self, Call};
use super::status::Refusal;
use crate::error::Result;

/// Answers one request. Judges in this order: path, token, fields, rights, existence, state, code.
pub(super) fn answer(api: &Api, request: &Request<'_>) -> Result<Reply, Refusal> {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((request.target, ""));
    let call = routes::route(request.method, path)?;
    let now = (api.clock)();
    match call {
        // What a prober asks needs no token.
        Call::Healthz => Ok(text("ok")),
        Call::Ready => Ok(api.service.ready(now).map(|()| text("ok"))?),
        Call::Rpc(rpc) => {
            let caller = &api.caller(request.authorization, request.peer, now)?;
            let query = Query::read(query)?;
            let it = Context {
                service: &api.service,
                caller,
                now,
                beside: Beside {
                    instance: query.instance(),
                    organization: query.organization(),
                    name: None,
                },
            };
            carry_out(it, rpc, &query, request.body)
        }
    }
}

fn carry_out(
    mut it: Context<'_>,
    rpc: routes::Rpc<'_>,
    query: &Query,
    body: &[u8],
) -> Result<Reply, Refusal> {
    use routes::Rpc as R;
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
    match rpc {
        R::CreateUser => {
            let request = CreateUserRequest {
                instance,
                organization,
                user: Some(messages::read(body)?),
            };
            Ok(json(201, &calls::create_user(&it, request)?))
        }
        R::GetUser(raw) => {
            let request = GetUserRequest {
                instance,
                id: id(raw)?,
            };
            Ok(json(200, &calls::get_user(&it, request)?))
        }
        R::SearchUsers => {
            let request = SearchUsersRequest {
                instance,
                query: Some(query.page()?),
                sorting_column: query.sorting_column()?,
                filters: messages::read_filters(body)?,
            };
            Ok(json(200, &calls::search_users(&it, request)?))
        }
        R::DeleteUser(raw) => Ok(json(200, &calls::delete_user(&it, user(raw)?)?)),
        R::LockUser(raw) => Ok(json(200, &calls::lock_user(&it, user(raw)?)?)),
        R::UnlockUser(raw) => Ok(json(200, &calls::unlock_user(&it, user(raw)?)?)),
        R::DeactivateUser(raw) => Ok(json(200, &calls::deactivate_user(&it, user(raw)?)?)),
        R::ActivateUser(raw) => Ok(json(200, &calls::activate_user(&it, user(raw)?)?)),
        R::StartTotp(raw) => {
            let request = user(raw)?;
            it.beside.name = messages::read_start(body)?;
            Ok(json(200, &calls::start_totp(&it, request)?))
        }
        R::ConfirmTotp(raw, totp) => {
            let request = TotpCodeRequest {
                instance,
                organization,
                id: id(raw)?,
                totp_id: totp_id(totp)?,
                code: messages::read_code(body)?,
            };
            Ok(json(200, &calls::confirm_totp(&it, request)?))
        }
        R::CheckTotp(raw, totp) => {
            let request = CheckRequest {
                organization,
                id: id(raw)?,
                totp_id: totp.map(totp_id).transpose()?,
                code: messages::read_code(body)?,
            };
            Ok(json(200, &calls::check_totp(&it, request)?))
        }
        R::RemoveTotp(raw, totp) => {
            let request = TotpRequest {
                instance,
                organization,
                id: id(raw)?,
                totp_id: totp_id(totp)?,
            };
            Ok(json(200, &calls::remove_totp(&it, request)?))
        }
    }
}

fn json(status: u16, message: &impl Serialize) -> Reply {
    // Text, numbers, booleans and lists of them: serializing them cannot fail.
    let body = serde_json::to_vec(message).unwrap_or_default();
    Reply {
        status,
        content_type: "application/json",
        headers: Vec::new(),
        body,
    }
}

fn text(body: &str) -> Reply {
    let (content_type, body) = ("text/plain; charset=utf-8", body.as_bytes().to_vec());
    Reply {
        status: 200,
        content_type,
        headers: Vec::new(),
        body,
    }
}
