//! How calls are carried out: a read on a `grpc-read` thread, a change on the one `grpc-change` thread, which takes all
//! changes at once that arrived during the last commit.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::reflection::Reflection;
use crate::api::counts::Transport;
use crate::api::handler::Handler;
use crate::api::http::{Reply, Request, Via};
use crate::api::status::TransportError;
use crate::api::{self, Kind};
use crate::connections::{Connections, Lease, MemoryBudget, Permit, Share};
use crate::model::RequestId;

/// A call with one message in and one out. Its message is complete.
pub(super) struct UnaryCall {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) code: Option<String>,
    pub(super) peer: Option<IpAddr>,
    pub(super) request_id: RequestId,
    pub(super) message: Vec<u8>,
    pub(super) answers: Arc<Share>,
}

/// A call that has its permit.
pub(super) struct Job {
    call: UnaryCall,
    /// Receives the answer and the permit. The permit is free again when the answer was received, so no more answers wait
    /// in memory than there are permits.
    answer: oneshot::Sender<(Result<Reply, TransportError>, Permit)>,
    permit: Permit,
}

impl Job {
    /// The request, unless its client has given up waiting: then it is not begun.
    fn request(&self) -> Result<Request<'_>, TransportError> {
        if self.answer.is_closed() {
            return Err(TransportError::DeadlinePassed);
        }
        Ok(Request {
            via: Via::Grpc,
            method: "POST",
            target: &self.call.path,
            authorization: self.call.authorization.as_deref(),
            content_type: None,
            origin: None,
            code: self.call.code.as_deref(),
            body: &self.call.message,
            peer: self.call.peer,
            request_id: Some(self.call.request_id.as_str()),
        })
    }

    fn end(self, reply: Result<Reply, TransportError>) {
        let _given_up = self.answer.send((reply, self.permit));
    }
}

/// The `grpc-change` thread, until the runtime ends: takes all changes that have arrived, `batch` at most, and carries them
/// out in one transaction.
pub(super) fn run_changes(mut jobs_rx: UnboundedReceiver<Job>, batch: usize, handler: &Handler) {
    let mut jobs = Vec::new();
    while jobs_rx.blocking_recv_many(&mut jobs, batch) > 0 {
        let requests: Vec<_> = jobs.iter().map(Job::request).collect();
        let replies = handler.reply_to_batch(&requests);
        drop(requests);
        for (job, reply) in jobs.drain(..).zip(replies) {
            job.end(reply);
        }
    }
}

/// What all connections of HTTP/2 share.
pub(super) struct Calls {
    pub(super) connections: Arc<Connections>,
    pub(super) reflection: Reflection,
    pub(super) conversations: MemoryBudget,
    pub(super) handler: Arc<Handler>,
    /// The queue of `grpc-change`. Weak, so that this thread ends with the runtime and not with the last connection.
    pub(super) jobs_tx: WeakUnboundedSender<Job>,
}

impl Calls {
    /// Counts a call that is refused here.
    pub(super) fn note_refusal(&self, refusal: TransportError) {
        self.connections.registry.refusals.note_refusal(refusal);
        self.handler.api().note_refusal(Transport::Grpc, refusal);
    }

    /// Carries a call out, and returns its answer with the memory that this holds. If the future is dropped before the call
    /// was begun, nothing happens; after that the call goes on without it. Runs on the `grpc` thread, which it never blocks.
    pub(super) async fn carry_out(
        &self,
        call: UnaryCall,
    ) -> Result<(Reply, Lease), TransportError> {
        let kind = api::kind_of_grpc(&call.path);
        let limits = &self.connections.limits;
        let gate = self.connections.gates.of(kind);
        let waiting = gate.acquire(call.peer).ok_or(TransportError::Busy)?;
        let permit = timeout(limits.answer_time, waiting).await;
        let permit = permit.map_err(|_| TransportError::Busy)?;
        let no_memory = |bytes| TransportError::no_answer_memory(bytes, limits.answer_memory_bytes);
        let expected = kind.answer_bytes();
        let lease = call.answers.lease(expected);
        let mut lease = lease.ok_or_else(|| no_memory(expected))?;
        let (answer, outcome) = oneshot::channel();
        let job = Job {
            call,
            answer,
            permit,
        };
        if kind == Kind::Change {
            // Where the `grpc-change` thread has ended the job is dropped, and the call is refused below.
            let _sent = self.jobs_tx.upgrade().map(|it| it.send(job).is_ok());
        } else {
            let handler = Arc::clone(&self.handler);
            tokio::task::spawn_blocking(move || {
                let reply = job.request().and_then(|it| handler.reply_to(&it));
                job.end(reply);
            });
        }
        let outcome = outcome.await;
        let (reply, _permit) = outcome.map_err(|_| TransportError::Stopping)?;
        let reply = reply?;
        // The answer to a change is sent in any case; it is short.
        if !lease.resize(reply.body.len()) && kind != Kind::Change {
            return Err(no_memory(reply.body.len()));
        }
        Ok((reply, lease))
    }
}
