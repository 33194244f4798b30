//! Messages about recovery codes: `totpd/v1/recovery_code_service.proto`.

use prost::Message;
use serde::Serialize;
use zeroize::Zeroize;

use super::json::is_unset;
use super::{Details, Instance, Organization};
use crate::error::{Error, Result};
use crate::service;

/// `totpd.v1.GenerateRecoveryCodesResponse`
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct RecoveryCodesResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
    #[prost(string, repeated, tag = "2")]
    #[serde(skip_serializing_if = "is_unset")]
    codes: Vec<String>,
}

impl From<service::NewRecoveryCodes> for RecoveryCodesResponse {
    fn from(it: service::NewRecoveryCodes) -> Self {
        let codes = it.codes.iter().map(|it| it.text().to_string());
        Self {
            codes: codes.collect(),
            details: Some(it.details.into()),
        }
    }
}

impl Drop for RecoveryCodesResponse {
    fn drop(&mut self) {
        self.codes.zeroize();
    }
}

/// `totpd.v1.GetRecoveryCodesResponse` and `totpd.v1.CheckRecoveryCodeResponse`. The number is written even if it is 0: it
/// is what the caller asks for.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct RemainingResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "is_unset")]
    details: Option<Details>,
    #[prost(uint32, tag = "2")]
    remaining: u32,
}

impl From<service::RemainingRecoveryCodes> for RemainingResponse {
    fn from(it: service::RemainingRecoveryCodes) -> Self {
        Self {
            details: Some(it.details.into()),
            remaining: it.remaining,
        }
    }
}

/// `totpd.v1.CheckRecoveryCodeRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct RecoveryCodeRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) instance: Option<Instance>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::api) organization: Option<Organization>,
    #[prost(string, tag = "3")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "4")]
    pub(in crate::api) code: String,
}

/// Reads the body of a check: the bare JSON string of a recovery code.
///
/// The parser's own words are left out here: they might repeat the code.
pub(in crate::api) fn read_recovery_code(body: &[u8]) -> Result<String> {
    serde_json::from_slice(body).map_err(|_| {
        let problem =
            "expected the recovery code as a JSON string, such as \"xxxx-xxxx-xxxx-xxxx\"";
        Error::invalid("body", problem)
    })
}
