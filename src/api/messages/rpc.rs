//! Messages of gRPC itself: the status of a refused call, and health.

use prost::Message;

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct Status {
    #[prost(int32, tag = "1")]
    pub(in crate::api) code: i32,
    #[prost(string, tag = "2")]
    pub(in crate::api) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(in crate::api) details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Any {
    pub(in crate::api) fn of(type_url: &str, message: &impl Message) -> Self {
        Self {
            type_url: type_url.to_owned(),
            value: message.encode_to_vec(),
        }
    }
}

/// `zitadel.v1.ErrorDetail`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct ErrorDetail {
    #[prost(string, tag = "1")]
    pub(in crate::api) id: String,
    #[prost(string, tag = "2")]
    pub(in crate::api) message: String,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(in crate::api) retry_delay: Option<Duration>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct Duration {
    #[prost(int64, tag = "1")]
    pub(in crate::api) seconds: i64,
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(in crate::api) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub(in crate::api) status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub(in crate::api) enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}
