//! Where calls wait, bounded in number and in time: a read for a thread of its own, a change for the one thread that
//! makes all that have gathered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::reflection::Reflection;
use super::{BUSY, Settings};
use crate::api::handler::Handler;
use crate::api::http::{Reply, Request, Via};
use crate::api::status::AtTheDoor;
use crate::connections::{Connections, MemoryBudget};

/// What all conversations with reflection may hold.
const CONVERSATIONS_BYTES: usize = 2 * 1024 * 1024;

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
            reserve: &|_| true,
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
    /// The request, unless nobody waits for its answer any more: then it is not begun.
    fn request(&self) -> Result<Request<'_>, AtTheDoor> {
        if self.answer.is_closed() {
            return Err(AtTheDoor::DeadlinePassed);
        }
        Ok(self.call.request())
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
        let requests: Vec<_> = gathered.iter().map(Job::request).collect();
        let replies = handler.reply_to_all(&requests);
        drop(requests);
        for (job, reply) in gathered.drain(..).zip(replies) {
            job.end(reply);
        }
    }
}

pub(super) struct Queue {
    pub(super) reflection: Reflection,
    handler: Arc<Handler>,
    pub(super) connections: Arc<Connections>,
    /// What requests of all connections may hold.
    pub(super) memory: MemoryBudget,
    /// The same of conversations with reflection. They stay open for nothing and cost a client nothing: holding all of
    /// this budget keeps others from reflection, and from nothing else.
    pub(super) conversations: MemoryBudget,
    /// Without a bound, but whatever is in it has its place.
    changes: WeakUnboundedSender<Job>,
    for_changes: Places,
    for_reads: Places,
}

impl Queue {
    /// A queue that brings changes to whoever is at the other end of `changes`.
    pub(super) fn new(
        handler: Arc<Handler>,
        settings: &Settings,
        reflection: Reflection,
        changes: WeakUnboundedSender<Job>,
    ) -> Self {
        Self {
            reflection,
            handler,
            memory: settings.connections.memory.clone(),
            conversations: MemoryBudget::new(CONVERSATIONS_BYTES),
            changes,
            for_changes: Places::new(settings),
            for_reads: Places::new(settings),
            connections: Arc::clone(&settings.connections),
        }
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
        let place = places.take(self.connections.limits.answer_time).await?;
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
                let reply = job.request().and_then(|it| handler.reply_to(&it));
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
    fn new(settings: &Settings) -> Self {
        let waiting = settings.connections.limits.waiting;
        Self {
            free: Arc::new(Semaphore::new(settings.workers.max(1))),
            waiting: Semaphore::new(waiting.min(Semaphore::MAX_PERMITS)),
        }
    }

    async fn take(&self, patience: Duration) -> Result<OwnedSemaphorePermit, AtTheDoor> {
        let _waiting = self.waiting.try_acquire().map_err(|_| BUSY)?;
        let taken = timeout(patience, Arc::clone(&self.free).acquire_owned()).await;
        taken.ok().and_then(Result::ok).ok_or(BUSY)
    }
}
