//! What whoever carries requests answers them with: one by itself, or all that have gathered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::http::{Reply, Request};
use super::status::TransportError;
use super::{Api, Outcome, Parsed};
use crate::log_limit::LogLimit;
use crate::model::Timestamp;

/// What answers requests.
pub struct Handler {
    api: Api,
    watch: Watch,
}

/// See [`Watch::on_request`].
pub type OnRequest = Box<dyn Fn(&str) + Send + Sync>;

/// What is told of requests while they are carried out. It is there for tests of the carriers.
#[derive(Default)]
pub struct Watch {
    /// Told the target of a request just before it is carried out. A panic in here is one of that request.
    pub on_request: Option<OnRequest>,
    /// Told that several requests are about to share a commit.
    pub on_batch: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Handler {
    /// What answers with `api`.
    pub fn of(api: Api) -> Arc<Self> {
        Self::watched(api, Watch::default())
    }

    /// The same, and `watch` is told of requests.
    pub fn watched(api: Api, watch: Watch) -> Arc<Self> {
        Arc::new(Self { api, watch })
    }

    /// The time, as the date of an answer.
    pub(crate) fn now(&self) -> Timestamp {
        self.api.now()
    }

    /// A refusal that is not the answer's, to a request of that content type and origin.
    pub(crate) fn refuse(
        &self,
        why: TransportError,
        content_type: Option<&str>,
        origin: Option<&str>,
    ) -> Reply {
        self.api.refused(why, content_type, origin)
    }

    /// Answers one request. A panic is the end of it and of nothing else.
    pub(crate) fn reply_to(&self, request: &Request<'_>) -> Result<Reply, TransportError> {
        let reply = caught(|| self.api.encode(self.carry_out(self.api.parse(request))));
        log_panic(&reply);
        reply
    }

    fn carry_out<'a>(&self, parsed: Parsed<'a>) -> Outcome<'a> {
        if let Some(on_request) = &self.watch.on_request {
            on_request(parsed.target());
        }
        self.api.carry_out(parsed)
    }

    /// Answers what has gathered, in its order. All are read first, then carried out in one transaction, and their
    /// answers written down after the commit. One request alone shares nothing with anybody.
    pub(crate) fn reply_to_all(
        &self,
        requests: &[Result<Request<'_>, TransportError>],
    ) -> Vec<Result<Reply, TransportError>> {
        if let [only] = requests {
            return vec![
                only.as_ref()
                    .map_err(|it| *it)
                    .and_then(|it| self.reply_to(it)),
            ];
        }
        let parsed = requests.iter().map(|it| {
            let request = it.as_ref().map_err(|it| *it)?;
            caught(|| self.api.parse(request))
        });
        let mut parsed = parsed.collect::<Vec<_>>().into_iter();
        let mut outcomes: Vec<Result<Outcome<'_>, TransportError>> =
            Vec::with_capacity(requests.len());
        if let Some(on_batch) = &self.watch.on_batch {
            on_batch();
        }
        let mut all = || {
            outcomes.extend(parsed.by_ref().map(|it| {
                let parsed = it?;
                caught(|| self.carry_out(parsed))
            }));
        };
        if !self.api.run_batch(&mut all) {
            return vec![Err(TransportError::NotKept); requests.len()];
        }
        let replies = outcomes.into_iter().map(|it| {
            let outcome = it?;
            caught(|| self.api.encode(outcome))
        });
        let replies: Vec<_> = replies.collect();
        replies.iter().for_each(log_panic);
        replies
    }
}

/// A panic is the end of one request and of nothing else. It is logged with the refusal, after the transaction.
fn caught<T>(act: impl FnOnce() -> T) -> Result<T, TransportError> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| TransportError::Bug)
}

/// Logs that a request panicked.
fn log_panic<T>(outcome: &Result<T, TransportError>) {
    static LIMIT: LogLimit = LogLimit::new();
    if matches!(outcome, Err(TransportError::Bug)) && LIMIT.admit(Instant::now()).is_some() {
        log::error!("a request panicked; it alone is lost");
    }
}
