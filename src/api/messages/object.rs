//! Parts of messages: details, owners, and the organization or instance that a call names.

use prost::Message;
use serde::Serialize;

use super::json::{Named, enumeration_out, is_unset};
use super::well_known::Timestamp;
use crate::service;

/// `zitadel.resources.object.v3alpha.Details`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct Details {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    pub(super) id: String,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    created: Option<Timestamp>,
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "is_unset")]
    changed: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "is_unset")]
    owner: Option<Owner>,
}

/// `zitadel.object.v3alpha.Owner`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
struct Owner {
    #[prost(enumeration = "OwnerType", tag = "1")]
    #[serde(
        skip_serializing_if = "is_unset",
        serialize_with = "enumeration_out::<OwnerType, _>"
    )]
    r#type: i32,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    id: String,
}

/// `zitadel.object.v3alpha.OwnerType`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
enum OwnerType {
    Unspecified = 0,
    System = 1,
    Instance = 2,
    Org = 3,
}

impl Named for OwnerType {
    const NAMES: &'static [(i32, &'static str)] = &[
        (0, "OWNER_TYPE_UNSPECIFIED"),
        (1, "OWNER_TYPE_SYSTEM"),
        (2, "OWNER_TYPE_INSTANCE"),
        (3, "OWNER_TYPE_ORG"),
    ];
}

impl From<service::Details> for Details {
    fn from(it: service::Details) -> Self {
        Self {
            id: it.id,
            created: Some(it.created.into()),
            changed: Some(it.changed.into()),
            owner: Some(Owner {
                r#type: OwnerType::Org.into(),
                id: it.owner.to_string(),
            }),
        }
    }
}

/// The answer of calls that return only details.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct DetailsResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
}

impl From<service::Details> for DetailsResponse {
    fn from(it: service::Details) -> Self {
        Self {
            details: Some(it.into()),
        }
    }
}

/// `zitadel.object.v3alpha.Instance`, a `oneof`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct Instance {
    #[prost(string, optional, tag = "1")]
    pub(in crate::api) id: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(in crate::api) domain: Option<String>,
}

/// `zitadel.object.v3alpha.Organization`, a `oneof`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct Organization {
    #[prost(string, optional, tag = "1")]
    pub(in crate::api) org_id: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(in crate::api) org_domain: Option<String>,
}

/// The request of calls that name only a user: removing, locking, unlocking, deactivating and activating it, and
/// starting an enrolment.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct UserRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
}
