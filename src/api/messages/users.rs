//! Messages about users: making one, reading one.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::bounds::USERNAMES_OF_USER;
use super::data_in::Struct;
use super::data_out::Data;
use super::json::{Named, enumeration_out, is_unset, message, messages, nullable, read};
use super::{Details, Encoding, Instance, Organization};
use crate::error::Result;
use crate::service;

/// `CreateUserRequest`; on REST the body is its `user`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct CreateUserRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::api) user: Option<CreateUser>,
}

/// `zitadel.resources.user.v3alpha.CreateUser`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::api) struct CreateUser {
    #[prost(string, tag = "1")]
    #[serde(alias = "schema_id", deserialize_with = "nullable")]
    pub(in crate::api) schema_id: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) data: Option<Struct>,
    #[prost(message, optional, tag = "3")]
    #[serde(deserialize_with = "message")]
    pub(in crate::api) contact: Option<Anything>,
    #[prost(message, optional, tag = "4")]
    #[serde(deserialize_with = "message")]
    pub(in crate::api) authenticators: Option<SetAuthenticators>,
    #[prost(string, optional, tag = "5")]
    #[serde(alias = "user_id")]
    pub(in crate::api) user_id: Option<String>,
}

/// `zitadel.resources.user.v3alpha.SetAuthenticators`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct SetAuthenticators {
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "messages")]
    pub(in crate::api) usernames: Vec<SetUsername>,
    #[prost(message, optional, tag = "2")]
    #[serde(deserialize_with = "message")]
    pub(in crate::api) password: Option<Anything>,
}

/// `zitadel.resources.user.v3alpha.SetUsername`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::api) struct SetUsername {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable")]
    pub(in crate::api) username: String,
    #[prost(bool, tag = "2")]
    #[serde(alias = "is_organization_specific", deserialize_with = "nullable")]
    pub(in crate::api) is_organization_specific: bool,
}

/// Reads the body of a new user.
pub(in crate::api) fn read_user(body: &[u8]) -> Result<CreateUser> {
    USERNAMES_OF_USER.judge_json(body)?;
    read(body)
}

/// A message of which it only matters that it is there: what totpd does not keep or serve is refused.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct Anything {}

/// `GetUserRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct GetUserRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(string, tag = "2")]
    pub(in crate::api) id: String,
}

/// `GetUserResponse`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct GetUserResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    user: Option<User>,
}

impl GetUserResponse {
    /// The answer for this user, to be written as JSON.
    pub fn of(user: service::User) -> Result<Self> {
        Self::encode_as(Encoding::Json, user)
    }

    /// The answer for this user.
    pub(in crate::api) fn encode_as(encoding: Encoding, user: service::User) -> Result<Self> {
        let user = Some(User::encode_as(encoding, user)?);
        Ok(Self { user })
    }
}

/// `zitadel.resources.user.v3alpha.GetUser`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct User {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    schema: Option<Schema>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    data: Option<Data>,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "is_unset")]
    authenticators: Option<Authenticators>,
    #[prost(enumeration = "State", tag = "6")]
    #[serde(
        skip_serializing_if = "is_unset",
        serialize_with = "enumeration_out::<State, _>"
    )]
    state: i32,
}

/// `zitadel.resources.user.v3alpha.State`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub(in crate::api) enum State {
    Unspecified = 0,
    Active = 1,
    Inactive = 2,
    Deleted = 3,
    Locked = 4,
}

impl Named for State {
    const NAMES: &'static [(i32, &'static str)] = &[
        (0, "USER_STATE_UNSPECIFIED"),
        (1, "USER_STATE_ACTIVE"),
        (2, "USER_STATE_INACTIVE"),
        (3, "USER_STATE_DELETED"),
        (4, "USER_STATE_LOCKED"),
    ];
}

/// `zitadel.resources.user.v3alpha.GetSchema`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
struct Schema {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    id: String,
}

/// `zitadel.resources.user.v3alpha.Authenticators`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
struct Authenticators {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    usernames: Vec<Username>,
    #[prost(message, repeated, tag = "4")]
    #[serde(skip_serializing_if = "is_unset")]
    totps: Vec<Totp>,
}

/// `zitadel.resources.user.v3alpha.Username`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the protos'")]
struct Username {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    username_id: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    username: String,
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    is_organization_specific: bool,
}

/// `zitadel.resources.user.v3alpha.TOTP`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the protos'")]
pub struct Totp {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    totp_id: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    name: String,
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    is_verified: bool,
}

impl From<service::Totp> for Totp {
    fn from(it: service::Totp) -> Self {
        Self {
            totp_id: it.id.to_string(),
            name: it.name.map(|it| it.to_string()).unwrap_or_default(),
            is_verified: it.is_confirmed,
        }
    }
}

impl User {
    /// The message for this user, to be written as JSON.
    pub fn of(user: service::User) -> Result<Self> {
        Self::encode_as(Encoding::Json, user)
    }

    /// The message for this user.
    pub(super) fn encode_as(encoding: Encoding, it: service::User) -> Result<Self> {
        let data = it.data.as_deref().map(|it| Data::of(it, encoding));
        let authenticators = Authenticators {
            usernames: it
                .usernames
                .into_iter()
                .map(|it| Username {
                    username_id: it.id,
                    username: it.username.to_string(),
                    is_organization_specific: it.is_organization_specific,
                })
                .collect(),
            totps: it.totps.into_iter().map(Totp::from).collect(),
        };
        let state = match it.state {
            service::State::Active => State::Active,
            service::State::Inactive => State::Inactive,
            service::State::Locked => State::Locked,
        };
        Ok(Self {
            details: Some(it.details.into()),
            schema: it.schema_id.map(|id| Schema { id }),
            data: data.transpose()?,
            authenticators: (!is_unset(&authenticators)).then_some(authenticators),
            state: state.into(),
        })
    }
}
