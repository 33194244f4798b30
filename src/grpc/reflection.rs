//! Reflection: the protos that totpd serves, for any client. They are no secret, and no token is needed.

use std::future::Future;
use std::pin::Pin;

use hyper::http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::{Builder, Error};

use super::body::CountedBody;

const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");
/// A question is a name.
const QUESTION_BYTES: usize = 4 * 1024;
const V1: &str = "/grpc.reflection.v1.ServerReflection/";
const V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Answer = Box<dyn Fn(Request<CountedBody>) -> Answering + Send + Sync>;

/// Both versions, made once: reading the protos costs more than answering from them.
pub(super) struct Reflection {
    v1: Answer,
    v1_alpha: Answer,
}

impl Reflection {
    pub(super) fn new() -> Result<Self, Error> {
        let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        Ok(Self {
            v1: answer(
                builder()
                    .build_v1()?
                    .max_decoding_message_size(QUESTION_BYTES),
            ),
            v1_alpha: answer(
                builder()
                    .build_v1alpha()?
                    .max_decoding_message_size(QUESTION_BYTES),
            ),
        })
    }

    /// What answers calls of this path, if it is one of reflection's.
    pub(super) fn of(&self, path: &str) -> Option<&Answer> {
        if path.starts_with(V1) {
            Some(&self.v1)
        } else {
            path.starts_with(V1_ALPHA).then_some(&self.v1_alpha)
        }
    }
}

fn answer<S>(service: S) -> Answer
where
    S: Service<Request<CountedBody>, Response = Response<Body>, Error = std::convert::Infallible>,
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
