//! How transports get requests answered: one at a time, or a batch that shares a commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http::{Reply, Request};
use super::status::TransportError;
use super::{Api, Outcome, Parsed};
use crate::log_limit::LogLimit;
use crate::model::Timestamp;

/// Answers requests, and catches panics.
pub struct Handler {
    api: Api,
    observer: Observer,
}

/// The type of [`Observer::on_request`].
pub type OnRequest = Box<dyn Fn(&str) + Send + Sync>;

/// Observes requests while they are carried out. Tests of the transports use it.
#[derive(Default)]
pub struct Observer {
    /// Called with the target of a request just before the request is carried out. A panic in it counts as a panic of
    /// that request.
    pub on_request: Option<OnRequest>,
    /// Called before several requests share a commit.
    pub on_batch: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Handler {
    /// A handler that answers with `api`.
    pub fn of(api: Api) -> Arc<Self> {
        Self::with_observer(api, Observer::default())
    }

    /// A handler whose requests `observer` sees.
    pub fn with_observer(api: Api, observer: Observer) -> Arc<Self> {
        Arc::new(Self { api, observer })
    }

    /// Logs how many refusals were left out of the log and are not told of yet. Call it every few seconds.
    pub fn log_left_out(&self) {
        self.api.log_left_out(Instant::now());
    }

    /// The same at the end, also of the last second.
    pub fn log_all_left_out(&self) {
        let next_second = Instant::now().checked_add(Duration::from_secs(1));
        self.api
            .log_left_out(next_second.unwrap_or_else(Instant::now));
    }

    /// The present time, for the `Date` header of an answer.
    pub(crate) fn now(&self) -> Timestamp {
        self.api.now()
    }

    /// The API that answers.
    pub(crate) const fn api(&self) -> &Api {
        &self.api
    }

    /// Encodes a refusal of a transport, for a request of that content type and origin.
    pub(crate) fn refuse(
        &self,
        why: TransportError,
        content_type: Option<&str>,
        origin: Option<&str>,
    ) -> Reply {
        self.api.refuse(why, content_type, origin)
    }

    /// Answers one request. A panic ends this request alone.
    pub(crate) fn reply_to(&self, request: &Request<'_>) -> Result<Reply, TransportError> {
        let reply = catch_panic(|| self.api.encode(self.carry_out(self.api.parse(request))));
        log_panic(&reply);
        reply
    }

    fn carry_out<'a>(&self, parsed: Parsed<'a>) -> Outcome<'a> {
        if let Some(on_request) = &self.observer.on_request {
            on_request(parsed.target());
        }
        self.api.carry_out(parsed)
    }

    /// Answers several requests, in order: parses all, carries them out in one transaction, and encodes the answers after
    /// the commit. A single request has its own transaction.
    pub(crate) fn reply_to_batch(
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
            catch_panic(|| self.api.parse(request))
        });
        let mut parsed = parsed.collect::<Vec<_>>().into_iter();
        let mut outcomes: Vec<Result<Outcome<'_>, TransportError>> =
            Vec::with_capacity(requests.len());
        if let Some(on_batch) = &self.observer.on_batch {
            on_batch();
        }
        let mut all = || {
            outcomes.extend(parsed.by_ref().map(|it| {
                let parsed = it?;
                catch_panic(|| self.carry_out(parsed))
            }));
        };
        if !self.api.run_batch(&mut all) {
            let failed = outcomes.iter().flatten();
            failed.for_each(|it| self.api.note_failed_commit(it));
            return vec![Err(TransportError::CommitFailed); requests.len()];
        }
        let replies = outcomes.into_iter().map(|it| {
            let outcome = it?;
            catch_panic(|| self.api.encode(outcome))
        });
        let replies: Vec<_> = replies.collect();
        replies.iter().for_each(log_panic);
        replies
    }
}

/// Turns a panic into a refusal of this one request. [`log_panic`] logs it after the transaction.
fn catch_panic<T>(act: impl FnOnce() -> T) -> Result<T, TransportError> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| TransportError::Bug)
}

/// Logs that a request panicked.
fn log_panic<T>(outcome: &Result<T, TransportError>) {
    static LIMIT: LogLimit = LogLimit::new();
    if matches!(outcome, Err(TransportError::Bug)) && LIMIT.admit(Instant::now()).is_some() {
        log::error!("a request panicked; it alone is lost");
    }
}
