//! Where calls wait, bounded in number and in time: a read for a thread of its own, a change for the one thread that
//! makes all that have gathered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::Limits;
use super::hold::{CONVERSATIONS_BYTES, OWN_BYTES, SHARED_BYTES};
use super::reflection::Reflection;
use crate::api::handler::Handler;
use crate::api::http::{Reply, Request, Via};
use crate::api::status::AtTheDoor;
use crate::memory::Pool as Memory;

/// Where there is no thread free or no place for more.
pub(super) const BUSY: AtTheDoor = AtTheDoor::Busy { retry_after_s: 1 };

/// A call, its message whole.
pub(super) struct Call {
    pub(super) is_change: bool,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) peer: Option<IpAddr>,
    pub(super) message: Vec<u8>,
}

impl Call {
    fn request(&self) -> Request<'_> {
        Request {
            via: Via::Grpc,
            method: "POST",
            target: &self.path,
            authorization: self.authorization.as_deref(),
            content_type: None,
            origin: None,
            body: &self.message,
            peer: self.peer,
        }
    }
}

/// What came of a call, and the place that it had: it is free again when the answer is taken over, so that no more
/// answers lie about than there are places.
type Answered = (Result<Reply, AtTheDoor>, OwnedSemaphorePermit);

/// A call that has its place and is to be carried out.
pub(super) struct Job {
    call: Call,
    answer: oneshot::Sender<Answered>,
    place: OwnedSemaphorePermit,
}

impl Job {
    /// Carries the call out, unless nobody waits for it any more: then it is not begun.
    fn reply(&self, handler: &Handler) -> Result<Reply, AtTheDoor> {
        if self.answer.is_closed() {
            return Err(AtTheDoor::DeadlinePassed);
        }
        handler.reply_to(&self.call.request())
    }

    fn end(self, reply: Result<Reply, AtTheDoor>) {
        let _given_up = self.answer.send((reply, self.place));
    }
}

/// Makes changes until nobody can bring any more: while a commit is on its way to the disk the next ones gather, and are
/// then made together, at most `batch` of them.
pub(super) fn make(mut brought: UnboundedReceiver<Job>, batch: usize, handler: &Handler) {
    let mut gathered = Vec::new();
    while brought.blocking_recv_many(&mut gathered, batch) > 0 {
        let replies = handler.reply_to_all(&mut gathered, |it| it.reply(handler));
        for (job, reply) in gathered.drain(..).zip(replies) {
            job.end(reply);
        }
    }
}

pub(super) struct Queue {
    pub(super) reflection: Reflection,
    handler: Arc<Handler>,
    pub(super) limits: Limits,
    /// What requests of all connections may hold.
    pub(super) requests: Memory,
    /// The same of conversations with reflection.
    pub(super) conversations: Memory,
    /// Without a bound, but whatever is in it has its place.
    changes: WeakUnboundedSender<Job>,
    for_changes: Places,
    for_reads: Places,
}

impl Queue {
    /// A queue that brings changes to whoever is at the other end of `changes`.
    pub(super) fn new(
        handler: Arc<Handler>,
        limits: Limits,
        reflection: Reflection,
        changes: WeakUnboundedSender<Job>,
    ) -> Self {
        Self {
            reflection,
            handler,
            requests: Memory::new(OWN_BYTES, SHARED_BYTES),
            conversations: Memory::new(OWN_BYTES, CONVERSATIONS_BYTES),
            changes,
            for_changes: Places::new(&limits),
            for_reads: Places::new(&limits),
            limits,
        }
    }

    pub(super) fn is_change(&self, path: &str) -> bool {
        (self.handler.is_change)("POST", path)
    }

    /// Carries a call out. If this is given up before it was begun, nothing happens; after that the call goes on,
    /// whether or not anybody waits for the answer.
    pub(super) async fn carry_out(&self, call: Call) -> Result<Reply, AtTheDoor> {
        let is_change = call.is_change;
        let places = if is_change {
            &self.for_changes
        } else {
            &self.for_reads
        };
        let place = places.take(self.limits.answer_time).await?;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            call,
            answer,
            place,
        };
        if is_change {
            // Where nobody makes changes any more the job is dropped, and whoever waits for it is told.
            let _brought = self.changes.upgrade().map(|it| it.send(job));
        } else {
            let handler = Arc::clone(&self.handler);
            tokio::task::spawn_blocking(move || {
                let reply = job.reply(&handler);
                job.end(reply);
            });
        }
        let answered = answered.await;
        answered.map_or(Err(AtTheDoor::Stopping), |(reply, _place)| reply)
    }
}

/// Places of calls that are worked on at once, and of those who wait for one. Changes and reads have their own, so that
/// neither waits for the other.
struct Places {
    free: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Places {
    fn new(limits: &Limits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.workers.max(1))),
            waiting: Semaphore::new(limits.waiting.min(Semaphore::MAX_PERMITS)),
        }
    }

    async fn take(&self, patience: Duration) -> Result<OwnedSemaphorePermit, AtTheDoor> {
        let _waiting = self.waiting.try_acquire().map_err(|_| BUSY)?;
        let taken = timeout(patience, Arc::clone(&self.free).acquire_owned()).await;
        taken.ok().and_then(Result::ok).ok_or(BUSY)
    }
}
