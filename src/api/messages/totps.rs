//! Messages about authenticators: enrolling, confirming, checking, removing.

use prost::Message;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::json::{is_unset, read};
use super::{Details, Instance, Organization, Timestamp};
use crate::error::{Error, Result};
use crate::service;

/// The REST body of an enrolment: the name of the authenticator. ZITADEL's message has no field for it.
#[derive(Deserialize)]
struct StartBody {
    name: Option<String>,
}

/// Reads the body of an enrolment.
pub(in crate::api) fn read_start(body: &[u8]) -> Result<Option<String>> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    read::<StartBody>(body).map(|it| it.name)
}

/// `StartTOTPRegistrationResponse`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
pub struct StartResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    totp_id: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    uri: String,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_unset")]
    secret: String,
}

impl From<service::Enrolment> for StartResponse {
    fn from(it: service::Enrolment) -> Self {
        Self {
            totp_id: it.details.id.clone(),
            details: Some(it.details.into()),
            uri: it.uri.to_string(),
            secret: it.secret.base32().to_string(),
        }
    }
}

impl StartResponse {
    pub(in crate::api) fn uri(&self) -> &str {
        &self.uri
    }

    /// The answer on REST with the picture of its URI, if there is one.
    pub(in crate::api) fn with_qr<'a>(&'a self, qr: Option<&'a str>) -> impl Serialize + 'a {
        StartWithQr { start: self, qr }
    }
}

/// A `StartResponse` with a member that ZITADEL's message does not have.
#[derive(Serialize)]
struct StartWithQr<'a> {
    #[serde(flatten)]
    start: &'a StartResponse,
    #[serde(skip_serializing_if = "Option::is_none")]
    qr: Option<&'a str>,
}

impl Drop for StartResponse {
    fn drop(&mut self) {
        self.uri.zeroize();
        self.secret.zeroize();
    }
}

/// `RemoveTOTPAuthenticatorRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct TotpRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "4")]
    pub(in crate::api) totp_id: String,
}

/// `VerifyTOTPRegistrationRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct TotpCodeRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "4")]
    pub(in crate::api) totp_id: String,
    #[prost(string, tag = "5")]
    pub(in crate::api) code: String,
}

/// `totpd.v1.CheckTOTPRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct CheckRequest {
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, optional, tag = "4")]
    pub(in crate::api) totp_id: Option<String>,
    #[prost(string, tag = "5")]
    pub(in crate::api) code: String,
}

/// `totpd.v1.CheckTOTPResponse`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
pub struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    totp_id: String,
}

impl From<service::Details> for CheckResponse {
    fn from(it: service::Details) -> Self {
        Self {
            totp_id: it.id.clone(),
            details: Some(it.into()),
        }
    }
}

/// `totpd.v1.ListTOTPResponse`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct ListTotpResponse {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    result: Vec<ListedTotp>,
}

impl From<Vec<service::Totp>> for ListTotpResponse {
    fn from(it: Vec<service::Totp>) -> Self {
        Self {
            result: it.into_iter().map(ListedTotp::from).collect(),
        }
    }
}

/// `totpd.v1.TOTP`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
#[serde(rename_all = "camelCase")]
pub struct ListedTotp {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    totp_id: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    name: String,
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    is_verified: bool,
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "is_unset")]
    created: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "is_unset")]
    last_used: Option<Timestamp>,
}

impl From<service::Totp> for ListedTotp {
    fn from(it: service::Totp) -> Self {
        Self {
            totp_id: it.id.to_string(),
            name: it.name.map(|it| it.to_string()).unwrap_or_default(),
            is_verified: it.is_confirmed,
            created: Some(it.created.into()),
            last_used: it.last_used.map(Timestamp::from),
        }
    }
}

/// `totpd.v1.RenameTOTPRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct RenameRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "4")]
    pub(in crate::api) totp_id: String,
    #[prost(string, tag = "5")]
    pub(in crate::api) name: String,
}

/// `totpd.v1.ResyncTOTPRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct ResyncRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "4")]
    pub(in crate::api) totp_id: String,
    #[prost(string, repeated, tag = "5")]
    pub(in crate::api) codes: Vec<String>,
}

/// Reads the body of a resync: a JSON array of two codes. As in [`read_code`], the parser's own words are left out.
pub(in crate::api) fn read_codes(body: &[u8]) -> Result<Vec<String>> {
    let codes: [String; 2] = serde_json::from_slice(body).map_err(|_| {
        Error::invalid(
            "body",
            "expected two codes as a JSON array, such as [\"123456\", \"654321\"]",
        )
    })?;
    Ok(codes.into())
}

/// Reads the body of a renaming: the bare JSON string of the name.
pub(in crate::api) fn read_name(body: &[u8]) -> Result<String> {
    serde_json::from_slice(body).map_err(|_| {
        Error::invalid(
            "body",
            "expected the name as a JSON string, such as \"Pixel 9\"",
        )
    })
}

/// Reads the body of a confirmation or a check: the bare JSON string of a code.
///
/// The parser's own words are left out here: they might repeat the code.
pub(in crate::api) fn read_code(body: &[u8]) -> Result<String> {
    serde_json::from_slice(body).map_err(|_| {
        Error::invalid(
            "body",
            "expected the code as a JSON string, such as \"123456\"",
        )
    })
}
