//! A refusal as the answer of REST: its status, headers and JSON.

use serde::Serialize;

use super::Refusal;
use crate::api::http::Reply;

impl Refusal {
    /// The JSON body and the headers that go with it.
    pub fn into_reply(self) -> Reply {
        let mut headers = Vec::new();
        if let Some(seconds) = self.retry_after_s {
            headers.push(("Retry-After", seconds.to_string()));
        }
        if let Some(allow) = self.allow {
            headers.push(("Allow", allow.to_owned()));
        }
        if self.http == 401 {
            headers.push(("WWW-Authenticate", "Bearer".to_owned()));
        }
        let body = Status {
            code: self.code.number(),
            message: self.sentence(),
            details: self.id.map(|id| ErrorDetail {
                r#type: "type.googleapis.com/zitadel.v1.ErrorDetail",
                id,
                message: &self.message,
            }),
        };
        // Strings and one number: serializing them cannot fail.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Reply {
            status: self.http,
            content_type: "application/json",
            headers,
            body,
        }
    }
}

/// `google.rpc.Status` as JSON.
#[derive(Serialize)]
struct Status<'a> {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_list")]
    details: Option<ErrorDetail<'a>>,
}

/// `zitadel.v1.ErrorDetail` inside a `google.protobuf.Any`.
#[derive(Serialize)]
struct ErrorDetail<'a> {
    #[serde(rename = "@type")]
    r#type: &'static str,
    id: &'static str,
    message: &'a str,
}

#[expect(
    clippy::ref_option,
    reason = "serde calls it with a reference to the field"
)]
fn as_list<S: serde::Serializer>(
    detail: &Option<ErrorDetail<'_>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(detail)
}
