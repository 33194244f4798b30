//! Messages about invitations: `totpd/v1/invitation_service.proto`, and what the pages redeem, which is REST alone.

use prost::Message;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::json::{is_unset, nullable, read};
use super::{Details, Instance, Organization, Timestamp};
use crate::error::{Error, Result};
use crate::service;

/// `totpd.v1.CreateInvitationRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct InvitationRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "4")]
    pub(in crate::api) expires: String,
}

/// The REST body of an invitation.
#[derive(Deserialize)]
struct InvitationBody {
    #[serde(default, deserialize_with = "nullable")]
    expires: String,
}

/// Reads the body of an invitation: how long it is good, empty if the body does not say.
pub(in crate::api) fn read_expires(body: &[u8]) -> Result<String> {
    if body.trim_ascii().is_empty() {
        return Ok(String::new());
    }
    read::<InvitationBody>(body).map(|it| it.expires)
}

/// `totpd.v1.CreateInvitationResponse`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct InvitationResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    url: String,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "is_unset")]
    expires: Option<Timestamp>,
}

impl InvitationResponse {
    /// The answer with a link that begins with `base_url`.
    pub fn new(invitation: service::Invitation, base_url: &str) -> Self {
        Self {
            url: invitation_url(base_url, invitation.code.reveal()),
            details: Some(invitation.details.into()),
            expires: Some(invitation.expires.into()),
        }
    }

    /// The link.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for InvitationResponse {
    fn drop(&mut self) {
        self.url.zeroize();
    }
}

/// The link to the pages with a code. The code is in the fragment, which browsers send to no server.
pub fn invitation_url(base_url: &str, code: &str) -> String {
    format!("{base_url}/ui/#{code}")
}

/// The body with the code of an invitation.
#[derive(Deserialize)]
struct RedeemBody {
    code: String,
}

/// Reads the body of a redemption: `{"code":"…"}`.
///
/// The parser's own words are left out here: they might repeat the code.
pub(in crate::api) fn read_redeem(body: &[u8]) -> Result<Zeroizing<String>> {
    let expected = |_| Error::invalid("body", "expected the code, as in {\"code\":\"…\"}");
    let read = read::<RedeemBody>(body).map_err(expected);
    read.map(|it| Zeroizing::new(it.code))
}

/// The answer to a redemption.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct RedeemResponse {
    token: String,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    expires: Timestamp,
}

impl From<service::RedeemedInvitation> for RedeemResponse {
    fn from(it: service::RedeemedInvitation) -> Self {
        Self {
            token: it.token.reveal().to_owned(),
            role: it.role.name(),
            user_id: it.role.user().map(ToString::to_string),
            expires: it.expires.into(),
        }
    }
}

impl Drop for RedeemResponse {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}
