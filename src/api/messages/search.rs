//! Messages of a search for users.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::Instance;
use super::bounds::FILTERS_OF_SEARCH;
use super::json::{
    Named, enumeration_in, is_unset, message, messages, nullable, number_as_text, read_list,
};
use super::users::{Anything, State};
use super::well_known::Timestamp;
use crate::error::Result;
use crate::service;

/// `SearchUsersRequest`; on REST the body is its `filters`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct SearchUsersRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) query: Option<SearchQuery>,
    #[prost(enumeration = "FieldName", tag = "3")]
    pub(in crate::api) sorting_column: i32,
    #[prost(message, repeated, tag = "4")]
    pub(in crate::api) filters: Vec<SearchFilter>,
}

/// `zitadel.resources.object.v3alpha.SearchQuery`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct SearchQuery {
    #[prost(uint64, tag = "1")]
    pub(in crate::api) offset: u64,
    #[prost(uint32, tag = "2")]
    pub(in crate::api) limit: u32,
    #[prost(bool, tag = "3")]
    pub(in crate::api) desc: bool,
}

/// `zitadel.resources.user.v3alpha.FieldName`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub(in crate::api) enum FieldName {
    Unspecified = 0,
    Id = 1,
    CreationDate = 2,
    ChangeDate = 3,
    Email = 4,
    Phone = 5,
    State = 6,
    SchemaId = 7,
    SchemaType = 8,
}

impl Named for FieldName {
    const NAMES: &'static [(i32, &'static str)] = &[
        (0, "FIELD_NAME_UNSPECIFIED"),
        (1, "FIELD_NAME_ID"),
        (2, "FIELD_NAME_CREATION_DATE"),
        (3, "FIELD_NAME_CHANGE_DATE"),
        (4, "FIELD_NAME_EMAIL"),
        (5, "FIELD_NAME_PHONE"),
        (6, "FIELD_NAME_STATE"),
        (7, "FIELD_NAME_SCHEMA_ID"),
        (8, "FIELD_NAME_SCHEMA_TYPE"),
    ];
}

/// `zitadel.resources.user.v3alpha.SearchFilter`, a `oneof`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_field_names, reason = "the names are the protos'")]
pub(in crate::api) struct SearchFilter {
    #[prost(message, optional, tag = "1")]
    #[serde(alias = "or_filter", deserialize_with = "message")]
    pub(in crate::api) or_filter: Option<Filters>,
    #[prost(message, optional, tag = "2")]
    #[serde(alias = "and_filter", deserialize_with = "message")]
    pub(in crate::api) and_filter: Option<Filters>,
    #[prost(message, optional, tag = "3")]
    #[serde(alias = "not_filter", deserialize_with = "message")]
    pub(in crate::api) not_filter: Option<NotFilter>,
    #[prost(message, optional, tag = "4")]
    #[serde(alias = "user_id_filter", deserialize_with = "message")]
    pub(in crate::api) user_id_filter: Option<IdFilter>,
    #[prost(message, optional, tag = "5")]
    #[serde(alias = "organization_id_filter", deserialize_with = "message")]
    pub(in crate::api) organization_id_filter: Option<IdFilter>,
    #[prost(message, optional, tag = "6")]
    #[serde(alias = "username_filter", deserialize_with = "message")]
    pub(in crate::api) username_filter: Option<UsernameFilter>,
    #[prost(message, optional, tag = "7")]
    #[serde(alias = "email_filter", deserialize_with = "message")]
    pub(in crate::api) email_filter: Option<Anything>,
    #[prost(message, optional, tag = "8")]
    #[serde(alias = "phone_filter", deserialize_with = "message")]
    pub(in crate::api) phone_filter: Option<Anything>,
    #[prost(message, optional, tag = "9")]
    #[serde(alias = "state_filter", deserialize_with = "message")]
    pub(in crate::api) state_filter: Option<StateFilter>,
    #[prost(message, optional, tag = "10")]
    #[serde(alias = "schema_id_filter", deserialize_with = "message")]
    pub(in crate::api) schema_id_filter: Option<Anything>,
    #[prost(message, optional, tag = "11")]
    #[serde(alias = "schema_type_filter", deserialize_with = "message")]
    pub(in crate::api) schema_type_filter: Option<Anything>,
}

/// Reads the body of a search: a list of filters, or nothing.
pub(in crate::api) fn read_filters(body: &[u8]) -> Result<Vec<SearchFilter>> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    FILTERS_OF_SEARCH.judge_json(body)?;
    read_list(body)
}

/// `OrFilter` and `AndFilter`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct Filters {
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "messages")]
    pub(in crate::api) queries: Vec<SearchFilter>,
}

/// `NotFilter`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct NotFilter {
    #[prost(message, optional, boxed, tag = "1")]
    #[serde(deserialize_with = "message")]
    pub(in crate::api) query: Option<Box<SearchFilter>>,
}

/// `UserIDFilter` and `OrganizationIDFilter`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct IdFilter {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable")]
    pub(in crate::api) id: String,
    #[prost(enumeration = "TextFilterMethod", tag = "2")]
    #[serde(deserialize_with = "enumeration_in::<TextFilterMethod, _>")]
    pub(in crate::api) method: i32,
}

/// `UsernameFilter`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::api) struct UsernameFilter {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable")]
    pub(in crate::api) username: String,
    #[prost(enumeration = "TextFilterMethod", tag = "2")]
    #[serde(deserialize_with = "enumeration_in::<TextFilterMethod, _>")]
    pub(in crate::api) method: i32,
    #[prost(bool, tag = "3")]
    #[serde(alias = "is_organization_specific", deserialize_with = "nullable")]
    pub(in crate::api) is_organization_specific: bool,
}

/// `StateFilter`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct StateFilter {
    #[prost(enumeration = "State", tag = "1")]
    #[serde(deserialize_with = "enumeration_in::<State, _>")]
    pub(in crate::api) state: i32,
}

/// `zitadel.resources.object.v3alpha.TextFilterMethod`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub(in crate::api) enum TextFilterMethod {
    Equals = 0,
    EqualsIgnoreCase = 1,
    StartsWith = 2,
    StartsWithIgnoreCase = 3,
    Contains = 4,
}

impl Named for TextFilterMethod {
    const NAMES: &'static [(i32, &'static str)] = &[
        (0, "TEXT_FILTER_METHOD_EQUALS"),
        (1, "TEXT_FILTER_METHOD_EQUALS_IGNORE_CASE"),
        (2, "TEXT_FILTER_METHOD_STARTS_WITH"),
        (3, "TEXT_FILTER_METHOD_STARTS_WITH_IGNORE_CASE"),
        (4, "TEXT_FILTER_METHOD_CONTAINS"),
    ];
}

/// `zitadel.resources.object.v3alpha.ListDetails`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListDetails {
    #[prost(uint64, tag = "1")]
    #[serde(skip_serializing_if = "is_unset", serialize_with = "number_as_text")]
    applied_limit: u64,
    #[prost(uint64, tag = "2")]
    #[serde(skip_serializing_if = "is_unset", serialize_with = "number_as_text")]
    total_result: u64,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    timestamp: Option<Timestamp>,
}

impl ListDetails {
    /// The details of a page. `applied_limit` is the number of users that it may hold, or holds if it was cut.
    pub(super) fn of(found: &service::SearchSummary, applied_limit: u64) -> Self {
        Self {
            applied_limit,
            total_result: found.total,
            timestamp: Some(found.at.into()),
        }
    }
}
