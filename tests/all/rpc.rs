//! A gRPC client for the tests. A library speaks HTTP/2, and the tests see frames and trailers directly.

use std::sync::LazyLock;

use h2::PingPong;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use protox::prost::Message;
use protox::prost::bytes::{Buf, Bytes};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");
pub const USERS: &str = "zitadel.resources.user.v3alpha.ZITADELUsers";
pub const ADMIN: &str = "zitadel.admin.v1.AdminService";
pub const TOTPS: &str = "totpd.v1.TOTPService";
pub const RECOVERY_CODES: &str = "totpd.v1.RecoveryCodeService";
pub const INVITATIONS: &str = "totpd.v1.InvitationService";

/// The services and messages. They are decoded once, because that takes longer than most calls.
pub fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap());
    &POOL
}

/// The method with this name, of any service.
pub fn method(rpc: &str) -> MethodDescriptor {
    let service = match rpc {
        "CheckTOTP" | "ListTOTP" | "RenameTOTP" | "ResyncTOTP" => TOTPS,
        "GenerateRecoveryCodes"
        | "GetRecoveryCodes"
        | "CheckRecoveryCode"
        | "RemoveRecoveryCodes" => RECOVERY_CODES,
        "CreateInvitation" => INVITATIONS,
        "ListEvents" => ADMIN,
        _ => USERS,
    };
    let service = pool().get_service_by_name(service).unwrap();
    service.methods().find(|it| it.name() == rpc).unwrap()
}

pub fn path(rpc: &str) -> String {
    let method = method(rpc);
    format!("/{}/{rpc}", method.parent_service().full_name())
}

/// Converts protojson to protobuf with a library that shares no code with totpd.
pub fn encode(kind: MessageDescriptor, json: &Value) -> Vec<u8> {
    let message = DynamicMessage::deserialize(kind, json).unwrap();
    message.encode_to_vec()
}

/// Converts protobuf to protojson.
pub fn decode(kind: MessageDescriptor, message: &[u8]) -> Value {
    let message = DynamicMessage::decode(kind, message).unwrap();
    serde_json::to_value(&message).unwrap()
}

/// The outcome of a call over any transport.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub code: i64,
    pub message: String,
    pub id: Option<String>,
    pub answer: Value,
    pub retry_after_s: Option<i64>,
}

#[derive(Clone, PartialEq, protox::prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, protox::prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, protox::prost::Message)]
struct Two {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, protox::prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Seconds>,
}

#[derive(Clone, PartialEq, protox::prost::Message)]
struct Seconds {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// Reads trailers, and asserts that all parts of a refusal agree.
pub fn outcome(trailers: &[(String, String)], message: &[u8], kind: MessageDescriptor) -> Outcome {
    let field = |name: &str| {
        let found = trailers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.clone())
    };
    let code: i64 = field("grpc-status").unwrap().parse().unwrap();
    if code == 0 {
        assert!(field("grpc-status-details-bin").is_none());
        return Outcome {
            code,
            message: String::new(),
            id: None,
            answer: decode(kind, message),
            retry_after_s: None,
        };
    }
    assert!(message.is_empty(), "a refusal has no message");
    let told = field("grpc-message").unwrap_or_default();
    let told = percent_encoding::percent_decode_str(&told)
        .decode_utf8()
        .unwrap()
        .into_owned();
    let details = field("grpc-status-details-bin").unwrap();
    let details = data_encoding::BASE64_NOPAD
        .decode(details.trim_end_matches('=').as_bytes())
        .unwrap();
    let status = Status::decode(details.as_slice()).unwrap();
    assert_eq!((i64::from(status.code), &status.message), (code, &told));
    let (mut id, mut retry_after_s) = (None, None);
    for it in status.details {
        match it.type_url.as_str() {
            "type.googleapis.com/zitadel.v1.ErrorDetail" => {
                let detail = Two::decode(it.value.as_slice()).unwrap();
                assert_eq!(told, format!("{} ({})", detail.message, detail.id));
                id = Some(detail.id);
            }
            "type.googleapis.com/google.rpc.RetryInfo" => {
                let info = RetryInfo::decode(it.value.as_slice()).unwrap();
                retry_after_s = info.delay.map(|it| it.seconds);
            }
            other => panic!("{other}"),
        }
    }
    Outcome {
        code,
        message: told,
        id,
        answer: Value::Null,
        retry_after_s,
    }
}

/// Headers, body and trailers.
pub type Raw = (HeaderMap, Vec<u8>, Vec<(String, String)>);

/// An HTTP/2 connection.
pub struct Rpc {
    pub runtime: Runtime,
    pub send: SendRequest<Bytes>,
    /// The answer to a ping shows that the server has read everything sent before.
    pub pings: PingPong,
}

impl Rpc {
    pub fn connect(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (send, pings) = runtime.block_on(async {
            let socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let (send, mut connection) = h2::client::handshake(socket).await.unwrap();
            let pings = connection.ping_pong().unwrap();
            tokio::spawn(async move {
                let _ended = connection.await;
            });
            (send, pings)
        });
        Self {
            runtime,
            send,
            pings,
        }
    }

    /// Sends one request with exactly these headers and this body, and returns the answer.
    pub fn raw(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Raw, h2::Error> {
        self.raw_as("POST", path, headers, body)
    }

    pub fn raw_as(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Raw, h2::Error> {
        let response = self.begin(method, path, headers, body)?;
        self.end(response)
    }

    /// Starts a request, which is sent while the client waits for something.
    pub fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<ResponseFuture, h2::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://test{path}"));
        for (name, value) in headers {
            // The bytes are sent unchanged, even if invalid.
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request = request.header(*name, value);
        }
        let request = request.body(()).unwrap();
        let (mut send, body) = (self.send.clone(), Bytes::copy_from_slice(body));
        self.runtime.block_on(async move {
            send = send.ready().await?;
            let (response, mut stream) = send.send_request(request, false)?;
            // A server that refuses early does not wait for the rest.
            let _refused = stream.send_data(body, true);
            Ok(response)
        })
    }

    /// The answer to a request that was started.
    pub fn end(&mut self, response: ResponseFuture) -> Result<Raw, h2::Error> {
        self.runtime.block_on(async move {
            let (head, mut incoming) = response.await?.into_parts();
            let mut message = Vec::new();
            while let Some(part) = incoming.data().await {
                let part = part?;
                incoming.flow_control().release_capacity(part.len())?;
                message.extend_from_slice(&part);
            }
            let trailers = incoming.trailers().await?;
            // A refusal without a message has its trailers in the headers.
            let trailers = trailers.unwrap_or_else(|| head.headers.clone());
            let trailers = trailers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            Ok((head.headers, message, trailers.collect()))
        })
    }

    /// Makes one call.
    pub fn call(&mut self, token: Option<&str>, rpc: &str, message: &[u8]) -> Outcome {
        let bearer = token.map(|it| format!("Bearer {it}"));
        let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
        headers.extend(bearer.as_deref().map(|it| ("authorization", it)));
        self.call_with(&headers, rpc, message)
    }

    pub fn call_with(&mut self, headers: &[(&str, &str)], rpc: &str, message: &[u8]) -> Outcome {
        let begun = self.begin_call(headers, rpc, message);
        self.end_call(rpc, begun)
    }

    /// Starts a call, which is sent while the client waits for something.
    pub fn begin_call(
        &mut self,
        headers: &[(&str, &str)],
        rpc: &str,
        message: &[u8],
    ) -> ResponseFuture {
        self.begin("POST", &path(rpc), headers, &frame(0, message))
            .unwrap()
    }

    pub fn end_call(&mut self, rpc: &str, begun: ResponseFuture) -> Outcome {
        let (head, body, trailers) = self.end(begun).unwrap();
        assert_eq!(head["content-type"], "application/grpc");
        assert_eq!(head["cache-control"], "no-store");
        let answer = if body.is_empty() {
            Vec::new()
        } else {
            let (flag, message, rest) = unframe(&body);
            assert_eq!((flag, rest.len()), (0, 0));
            message
        };
        outcome(&trailers, &answer, method(rpc).output())
    }
}

pub fn frame(flag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flag];
    bytes.extend_from_slice(&(content.len() as u32).to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// The flag and the message of the first frame, and the bytes after it.
pub fn unframe(mut bytes: &[u8]) -> (u8, Vec<u8>, Vec<u8>) {
    let (flag, length) = (bytes.get_u8(), bytes.get_u32() as usize);
    (flag, bytes[..length].to_vec(), bytes[length..].to_vec())
}
