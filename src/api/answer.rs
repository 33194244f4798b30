//! The answer to a call that was carried out, and its two encodings.

#[cfg(feature = "grpc")]
use prost::Message;
use serde::Serialize;

use super::http::Reply;
#[cfg(feature = "grpc")]
use super::messages::rpc::HealthCheckResponse;
use super::messages::{
    CheckResponse, DetailsResponse, GetUserResponse, SearchUsersResponse, StartResponse,
};

/// What a call answers when all went well.
pub(super) enum Answer {
    /// What a probe is told on REST.
    Ok,
    /// What a probe is told on gRPC.
    #[cfg(feature = "grpc")]
    Health(HealthCheckResponse),
    /// What needs no call.
    #[cfg(feature = "grpc")]
    Reply(Reply),
    Created(DetailsResponse),
    Details(DetailsResponse),
    User(GetUserResponse),
    Page(SearchUsersResponse),
    Start(StartResponse),
    Check(CheckResponse),
}

impl Answer {
    /// The answer on REST.
    pub(super) fn into_reply(self) -> Reply {
        match self {
            Self::Ok => text("ok"),
            #[cfg(feature = "grpc")]
            Self::Health(_) => text("ok"),
            #[cfg(feature = "grpc")]
            Self::Reply(it) => it,
            Self::Created(it) => json(201, &it),
            Self::Details(it) => json(200, &it),
            Self::User(it) => json(200, &it),
            Self::Page(it) => json(200, &it),
            Self::Start(it) => json(200, &it),
            Self::Check(it) => json(200, &it),
        }
    }

    /// The answer as a message of protobuf.
    #[cfg(feature = "grpc")]
    pub(super) fn into_message(self) -> Vec<u8> {
        match self {
            Self::Ok | Self::Reply(_) => Vec::new(),
            Self::Health(it) => it.encode_to_vec(),
            Self::Created(it) | Self::Details(it) => it.encode_to_vec(),
            Self::User(it) => it.encode_to_vec(),
            Self::Page(it) => it.encode_to_vec(),
            Self::Start(it) => it.encode_to_vec(),
            Self::Check(it) => it.encode_to_vec(),
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
