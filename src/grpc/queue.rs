//! Where calls wait for a thread: bounded in number and in time, with some threads that writes never hold.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Limits;
use super::hold::{CONVERSATIONS_BYTES, SHARED_BYTES};
use super::reflection::Reflection;
use crate::api;
use crate::api::handler::Handler;
use crate::api::http::{Reply, Request, Via};
use crate::api::status::AtTheDoor;

/// Threads that writes leave free for reads and health.
const RESERVED_FOR_READS: usize = 4;
/// Where there is no thread free or no place for more.
pub(super) const BUSY: AtTheDoor = AtTheDoor::Busy { retry_after_s: 1 };

/// A call, its message whole.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) peer: Option<IpAddr>,
    pub(super) message: Vec<u8>,
}

pub(super) struct Queue {
    pub(super) reflection: Reflection,
    handler: Arc<Handler>,
    pub(super) limits: Limits,
    /// What is left of what requests of all connections may hold.
    pub(super) shared: Arc<AtomicUsize>,
    /// The same of conversations with reflection.
    pub(super) conversations: Arc<AtomicUsize>,
    threads: Arc<Semaphore>,
    for_writes: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Queue {
    pub(super) fn new(handler: Arc<Handler>, limits: Limits, reflection: Reflection) -> Self {
        let for_writes = limits.workers.saturating_sub(RESERVED_FOR_READS).max(1);
        Self {
            reflection,
            handler,
            threads: Arc::new(Semaphore::new(limits.workers.max(1))),
            for_writes: Arc::new(Semaphore::new(for_writes)),
            limits,
            shared: Arc::new(AtomicUsize::new(SHARED_BYTES)),
            conversations: Arc::new(AtomicUsize::new(CONVERSATIONS_BYTES)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Carries a call out on a thread of its own. If this is given up before one was free, nothing happens; after
    /// that the call goes on, whether or not anybody waits for the answer.
    pub(super) async fn carry_out(&self, call: Call) -> Result<Reply, AtTheDoor> {
        let permits = self.permits(api::is_change("POST", &call.path)).await?;
        let handler = Arc::clone(&self.handler);
        let work = move || {
            let _permits = permits;
            let request = Request {
                via: Via::Grpc,
                method: "POST",
                target: &call.path,
                authorization: call.authorization.as_deref(),
                content_type: None,
                origin: None,
                body: &call.message,
                peer: call.peer,
            };
            handler.reply_to(&request)
        };
        let carried = tokio::task::spawn_blocking(work).await;
        carried.unwrap_or(Err(AtTheDoor::Stopping))
    }

    async fn permits(&self, writes: bool) -> Result<Vec<OwnedSemaphorePermit>, AtTheDoor> {
        let waiting = Waiting::among(&self.waiting);
        if waiting.before >= self.limits.waiting {
            return Err(BUSY);
        }
        let kinds = [writes.then_some(&self.for_writes), Some(&self.threads)];
        let take = async {
            let mut permits = Vec::with_capacity(2);
            for semaphore in kinds.into_iter().flatten() {
                permits.push(Arc::clone(semaphore).acquire_owned().await.ok()?);
            }
            Some(permits)
        };
        let taken = timeout(self.limits.answer_time, take).await;
        taken.ok().flatten().ok_or(BUSY)
    }
}

/// One that waits, until this is dropped.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
