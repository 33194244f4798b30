//! The answer to a call that was carried out, and its two encodings.

use prost::Message;
use serde::Serialize;

use super::http::Reply;
use super::messages::rpc::HealthCheckResponse;
use super::messages::{
    CheckResponse, DetailsResponse, GetUserResponse, InvitationResponse, ListTotpResponse,
    RecoveryCodesResponse, RedeemResponse, RemainingResponse, StartResponse,
};
use super::qr::{self, QrFormat};
use crate::web::{self, File};

/// The calls of REST as OpenAPI 3.1, written by hand. Tests compare it with the routes and with real answers.
const OPENAPI: &str = include_str!("openapi.json");

/// What a call answers when all went well.
pub(super) enum Answer {
    /// The answer to a probe over REST.
    Ok,
    /// The answer to a probe over gRPC.
    Health(HealthCheckResponse),
    /// The description of the API.
    OpenApi,
    /// A complete reply, made without a call.
    Reply(Reply),
    /// A file of the pages for people.
    Page(File),
    Created(DetailsResponse),
    Details(DetailsResponse),
    User(GetUserResponse),
    /// An answer that is encoded already.
    Encoded(Vec<u8>),
    /// An enrolment, and the format of the picture that goes with it over REST.
    Start(StartResponse, Option<QrFormat>),
    Check(CheckResponse),
    Totps(ListTotpResponse),
    RecoveryCodes(RecoveryCodesResponse),
    Remaining(RemainingResponse),
    Invitation(InvitationResponse),
    /// REST alone.
    Redeemed(RedeemResponse),
}

impl Answer {
    /// The answer on REST.
    pub(super) fn into_reply(self) -> Reply {
        match self {
            Self::Ok | Self::Health(_) => text("ok"),
            Self::OpenApi => reply(200, OPENAPI.as_bytes().to_vec()),
            Self::Reply(it) => it,
            Self::Page(it) => page(it),
            Self::Created(it) => json(201, &it),
            Self::Details(it) => json(200, &it),
            Self::User(it) => json(200, &it),
            Self::Encoded(body) => reply(200, body),
            // Drawn here, because here the transaction has ended.
            Self::Start(it, None) => json(200, &it),
            Self::Start(it, Some(QrFormat::Svg)) => {
                let picture = qr::svg(it.uri());
                json(200, &it.with_qr(picture.as_ref().map(|it| it.as_str())))
            }
            Self::Check(it) => json(200, &it),
            Self::Totps(it) => json(200, &it),
            Self::RecoveryCodes(it) => json(200, &it),
            Self::Remaining(it) => json(200, &it),
            Self::Invitation(it) => json(200, &it),
            Self::Redeemed(it) => json(200, &it),
        }
    }

    /// The answer as a message of protobuf.
    pub(super) fn into_message(self) -> Vec<u8> {
        match self {
            Self::Ok | Self::OpenApi | Self::Reply(_) | Self::Page(_) | Self::Redeemed(_) => {
                Vec::new()
            }
            Self::Health(it) => it.encode_to_vec(),
            Self::Created(it) | Self::Details(it) => it.encode_to_vec(),
            Self::User(it) => it.encode_to_vec(),
            Self::Encoded(it) => it,
            Self::Start(it, _) => it.encode_to_vec(),
            Self::Check(it) => it.encode_to_vec(),
            Self::Totps(it) => it.encode_to_vec(),
            Self::RecoveryCodes(it) => it.encode_to_vec(),
            Self::Remaining(it) => it.encode_to_vec(),
            Self::Invitation(it) => it.encode_to_vec(),
        }
    }
}

fn json(status: u16, message: &impl Serialize) -> Reply {
    // Text, numbers, booleans and lists of them: serializing them cannot fail.
    reply(status, serde_json::to_vec(message).unwrap_or_default())
}

fn reply(status: u16, body: Vec<u8>) -> Reply {
    Reply {
        status,
        content_type: "application/json",
        headers: Vec::new(),
        body,
    }
}

fn page(file: File) -> Reply {
    let headers = web::HEADERS.map(|(name, value)| (name, value.to_owned()));
    Reply {
        status: 200,
        content_type: file.content_type,
        headers: headers.into(),
        body: file.body(),
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
