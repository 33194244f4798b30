//! What whoever carries requests answers them with: one by itself, or all that have gathered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Api;
use super::http::{Reply, Request};
use super::status::AtTheDoor;

/// See [`Handler::together`].
pub type Together = dyn Fn(&mut dyn FnMut()) -> bool + Send + Sync;

/// See [`Handler::refuse`].
pub type Refuse = dyn Fn(AtTheDoor, Option<&str>, Option<&str>) -> Reply + Send + Sync;

/// What answers requests.
pub struct Handler {
    /// Whether a request of that method and target may change something.
    pub is_change: fn(&str, &str) -> bool,
    /// Answers a request.
    pub answer: Box<dyn Fn(&Request<'_>) -> Reply + Send + Sync>,
    /// Runs what answers several requests, whose changes share one commit; `false` if it failed, and then
    /// nothing of what they were to be told is true.
    pub together: Box<Together>,
    /// How a refusal is told that is not the answer's, to a request of that content type and origin.
    pub refuse: Box<Refuse>,
}

impl Handler {
    /// What answers with `api`.
    pub fn of(api: Api) -> Arc<Self> {
        let api = Arc::new(api);
        let (together, refuse) = (Arc::clone(&api), Arc::clone(&api));
        Arc::new(Self {
            is_change: super::is_change,
            answer: Box::new(move |request| api.answer(request)),
            together: Box::new(move |calls| together.together(calls)),
            refuse: Box::new(move |why, content_type, origin| {
                refuse.refused(why, content_type, origin)
            }),
        })
    }

    /// Answers one request. A panic is the end of it and of nothing else.
    pub(crate) fn reply_to(&self, request: &Request<'_>) -> Result<Reply, AtTheDoor> {
        catch_unwind(AssertUnwindSafe(|| (self.answer)(request))).map_err(|_| {
            log::error!("a request panicked; it alone is lost");
            AtTheDoor::Bug
        })
    }

    /// Answers what has gathered, in its order. One request alone shares nothing with anybody.
    pub(crate) fn reply_to_all<T>(
        &self,
        gathered: &mut [T],
        reply_to: impl Fn(&mut T) -> Result<Reply, AtTheDoor>,
    ) -> Vec<Result<Reply, AtTheDoor>> {
        if let [only] = gathered {
            return vec![reply_to(only)];
        }
        let mut replies = Vec::with_capacity(gathered.len());
        let mut all = || replies.extend(gathered.iter_mut().map(&reply_to));
        if !(self.together)(&mut all) {
            replies.clear();
        }
        replies.resize(gathered.len(), Err(AtTheDoor::NotKept));
        replies
    }
}
