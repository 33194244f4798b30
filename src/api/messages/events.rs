//! Messages of the list of events: `zitadel/admin.proto` and `zitadel/event.proto`.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::Encoding;
use super::bounds::TYPES_OF_EVENTS;
use super::data_out::Data;
use super::json::{is_unset, message, nullable, number_as_text, number_in, read};
use super::well_known::Timestamp;
use crate::error::Result;
use crate::model::SubjectKind;
use crate::service;

/// `zitadel.admin.v1.ListEventsRequest`; on REST it is the body.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::api) struct ListEventsRequest {
    #[prost(uint64, tag = "1")]
    #[serde(deserialize_with = "number_in")]
    pub(in crate::api) sequence: u64,
    #[prost(uint32, tag = "2")]
    #[serde(deserialize_with = "number_in")]
    pub(in crate::api) limit: u32,
    #[prost(bool, tag = "3")]
    #[serde(deserialize_with = "nullable")]
    pub(in crate::api) asc: bool,
    #[prost(string, tag = "4")]
    #[serde(alias = "editor_user_id", deserialize_with = "nullable")]
    pub(in crate::api) editor_user_id: String,
    #[prost(string, repeated, tag = "5")]
    #[serde(alias = "event_types", deserialize_with = "nullable")]
    pub(in crate::api) event_types: Vec<String>,
    #[prost(string, tag = "6")]
    #[serde(alias = "aggregate_id", deserialize_with = "nullable")]
    pub(in crate::api) aggregate_id: String,
    #[prost(string, repeated, tag = "7")]
    #[serde(alias = "aggregate_types", deserialize_with = "nullable")]
    pub(in crate::api) aggregate_types: Vec<String>,
    #[prost(string, tag = "8")]
    #[serde(alias = "resource_owner", deserialize_with = "nullable")]
    pub(in crate::api) resource_owner: String,
    #[prost(message, optional, tag = "9")]
    #[serde(alias = "creation_date")]
    pub(in crate::api) creation_date: Option<Timestamp>,
    /// One of a `oneof` with `from`.
    #[prost(message, optional, tag = "10")]
    #[serde(deserialize_with = "message")]
    pub(in crate::api) range: Option<CreationDateRange>,
    #[prost(message, optional, tag = "11")]
    pub(in crate::api) from: Option<Timestamp>,
}

/// `zitadel.admin.v1.ListEventsRequest.creation_date_range`
#[derive(Clone, PartialEq, Message, Deserialize)]
#[prost(skip_debug)]
#[serde(default)]
pub(in crate::api) struct CreationDateRange {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) since: Option<Timestamp>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) until: Option<Timestamp>,
}

/// Reads the body of a list of events: the request, or nothing.
pub(in crate::api) fn read_events(body: &[u8]) -> Result<ListEventsRequest> {
    if body.trim_ascii().is_empty() {
        return Ok(ListEventsRequest::default());
    }
    TYPES_OF_EVENTS.judge_json(body)?;
    read(body)
}

/// `zitadel.event.v1.Event`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    editor: Option<Editor>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    aggregate: Option<Aggregate>,
    #[prost(uint64, tag = "3")]
    #[serde(skip_serializing_if = "is_unset", serialize_with = "number_as_text")]
    sequence: u64,
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "is_unset")]
    creation_date: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "is_unset")]
    payload: Option<Data>,
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "is_unset")]
    r#type: Option<Type>,
}

/// `zitadel.event.v1.Editor`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
struct Editor {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    user_id: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    display_name: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    service: String,
}

/// `zitadel.event.v1.Aggregate`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
struct Aggregate {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    id: String,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    r#type: Option<Type>,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    resource_owner: String,
}

/// `zitadel.event.v1.EventType` and `AggregateType`. Their second field, a translation, is never set.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
struct Type {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    r#type: String,
}

impl Type {
    fn named(name: impl Into<String>) -> Self {
        Self {
            r#type: name.into(),
        }
    }
}

/// What an event says beside its other fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    totp_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_date: Option<String>,
}

impl Event {
    /// The message for this event, to be written as JSON. `instance` is the instance's id.
    pub fn of(event: &service::RecordedEvent, instance: &str) -> Result<Self> {
        Self::encode_as(Encoding::Json, event, instance)
    }

    /// The message for this event.
    pub(super) fn encode_as(
        encoding: Encoding,
        it: &service::RecordedEvent,
        instance: &str,
    ) -> Result<Self> {
        let about = |prefix| it.about.as_deref().filter(|_| it.kind.starts_with(prefix));
        let payload = Payload {
            totp_id: about("totp."),
            token_id: about("token."),
            name: it.name.as_deref(),
            peer: it.peer.as_deref(),
            request_id: it.request_id.as_deref(),
            original_date: it.original_at.map(|it| it.to_string()),
        };
        let payload = serde_json::to_string(&payload)
            .map_err(|error| crate::error::Error::Bug(format!("a payload: {error}")))?;
        let owner = it.organization.as_ref();
        Ok(Self {
            editor: Some(Editor {
                user_id: it.actor.clone(),
                display_name: it.actor.clone(),
                service: "totpd".to_owned(),
            }),
            aggregate: Some(Aggregate {
                id: it.subject.clone(),
                r#type: Some(Type::named(aggregate_type(it.subject_kind))),
                resource_owner: owner.map_or_else(|| instance.to_owned(), ToString::to_string),
            }),
            sequence: it.number,
            creation_date: Some(it.at.into()),
            payload: Some(Data::of(&payload, encoding)?),
            r#type: Some(Type::named(event_type(&it.kind))),
        })
    }
}

const fn aggregate_type(kind: SubjectKind) -> &'static str {
    match kind {
        SubjectKind::User => "user",
        SubjectKind::Organization => "org",
        SubjectKind::Token => "token",
        SubjectKind::Instance => "instance",
    }
}

/// The subjects of a type. None has another name.
pub(in crate::api) fn subject_of_type(name: &str) -> Option<SubjectKind> {
    use SubjectKind as K;
    let all = [K::User, K::Organization, K::Token, K::Instance];
    all.into_iter().find(|it| aggregate_type(*it) == name)
}

/// Our kinds of events that ZITADEL has too, and its names for them.
const TYPES: [(&str, &str); 19] = [
    ("instance.created", "instance.added"),
    ("organization.created", "org.added"),
    ("organization.renamed", "org.changed"),
    ("organization.removed", "org.removed"),
    ("user.created", "user.human.added"),
    ("user.removed", "user.removed"),
    ("user.locked", "user.locked"),
    ("user.unlocked", "user.unlocked"),
    ("user.deactivated", "user.deactivated"),
    ("user.activated", "user.reactivated"),
    ("totp.started", "user.human.mfa.otp.added"),
    ("totp.confirmed", "user.human.mfa.otp.verified"),
    ("totp.checked", "user.human.mfa.otp.check.succeeded"),
    ("totp.code_refused", "user.human.mfa.otp.check.failed"),
    ("totp.removed", "user.human.mfa.otp.removed"),
    ("recovery.generated", "user.human.mfa.recoverycode.added"),
    ("recovery.removed", "user.human.mfa.recoverycode.removed"),
    (
        "recovery.checked",
        "user.human.mfa.recoverycode.check.succeeded",
    ),
    (
        "recovery.code_refused",
        "user.human.mfa.recoverycode.check.failed",
    ),
];
/// What the names of kinds begin with that ZITADEL does not have.
const OURS: &str = "totpd.";

/// The name of a kind of events: ZITADEL's, or ours.
fn event_type(kind: &str) -> String {
    let known = TYPES.iter().find(|(it, _)| *it == kind);
    known.map_or_else(|| format!("{OURS}{kind}"), |(_, name)| (*name).to_owned())
}

/// The kind of events that a name stands for. Our own name is taken too, with `totpd.` or without it.
pub fn kind_of_event_type(name: &str) -> String {
    let known = TYPES.iter().find(|(_, it)| *it == name);
    known.map_or_else(
        || name.strip_prefix(OURS).unwrap_or(name).to_owned(),
        |(kind, _)| (*kind).to_owned(),
    )
}
