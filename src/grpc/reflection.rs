//! Reflection: the protos that totpd serves, for any client. They are no secret, and no token is needed.

use std::future::Future;
use std::pin::Pin;

use hyper::body::Incoming;
use hyper::http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::{Builder, Error};

const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");
/// A question is a name.
const QUESTION_BYTES: usize = 4 * 1024;
const V1: &str = "/grpc.reflection.v1.ServerReflection/";
const V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
/// Begins a conversation.
type Reflect = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Both versions, made once: reading the protos costs more than answering from them.
pub(super) struct Reflection {
    v1: Reflect,
    v1_alpha: Reflect,
}

impl Reflection {
    pub(super) fn new() -> Result<Self, Error> {
        let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        let (v1, v1_alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
        Ok(Self {
            v1: reflect(v1.max_decoding_message_size(QUESTION_BYTES)),
            v1_alpha: reflect(v1_alpha.max_decoding_message_size(QUESTION_BYTES)),
        })
    }

    /// What answers calls of this path, if it is one of reflection's.
    pub(super) fn of(&self, path: &str) -> Option<&Reflect> {
        if path.starts_with(V1) {
            Some(&self.v1)
        } else {
            path.starts_with(V1_ALPHA).then_some(&self.v1_alpha)
        }
    }
}

fn reflect<S>(service: S) -> Reflect
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    Box::new(move |request| {
        let answering = service.clone().call(request);
        Box::pin(async {
            match answering.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}
