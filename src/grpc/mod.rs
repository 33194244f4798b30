//! gRPC over HTTP/2: connections that the front end hands over, on a runtime of one thread of its own.
//!
//! The only module with an async runtime. Its thread, `grpc`, reads, writes and waits and never blocks: reads run on a
//! bounded number of `grpc-read` threads and all changes on `grpc-change`, through the same [`Handler`] as REST. This
//! module knows framing and deadlines, and nothing of users or codes.

mod answer;
mod call;
mod calls;
mod connection;
mod reflection;
mod socket;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::api::handler::Handler;
use crate::connections::{ConnectionGuard, Connections, MemoryBudget, PROBES, READS, SEARCHES};
use calls::{Calls, Job};
pub(crate) use connection::Handover;
use connection::Stage;
use reflection::Reflection;

/// What every HTTP/2 connection begins with, if its client knows beforehand that HTTP/2 is spoken (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the blocking threads need: as much as the workers of REST.
const STACK_BYTES: usize = 512 * 1024;
/// Blocking threads: one for each permit of reads, searches and readiness.
const READ_THREADS: usize = READS + SEARCHES + PROBES;
/// The memory of all conversations with reflection. A client can keep them open at no cost: holding all of this budget
/// keeps others from reflection, and from nothing else.
const CONVERSATIONS_BYTES: usize = 2 * 1024 * 1024;
/// How long the blocking threads have to finish once all connections are closed.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// The server of gRPC.
pub(crate) struct GrpcServer {
    handover_tx: UnboundedSender<(ConnectionGuard, Handover)>,
    stage: watch::Sender<Stage>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl GrpcServer {
    /// Starts the threads `grpc` and `grpc-change`. `on_fatal_error` is called if one of them ends before [`Self::close`].
    pub(crate) fn start(
        handler: Arc<Handler>,
        connections: Arc<Connections>,
        commit_batch: usize,
        on_fatal_error: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(READ_THREADS)
            .thread_stack_size(STACK_BYTES)
            .thread_name("grpc-read")
            .build()?;
        // Unbounded, but each job has its permit, and no more connections are handed over than are admitted.
        let (jobs_tx, jobs_rx) = unbounded_channel();
        let (handover_tx, handover_rx) = unbounded_channel();
        let (stage, stage_rx) = watch::channel(Stage::Open);
        let changes_ended = start_change_thread(jobs_rx, commit_batch, Arc::clone(&handler))?;
        let calls = Calls {
            connections,
            reflection: Reflection::new().map_err(io::Error::other)?,
            conversations: MemoryBudget::new(CONVERSATIONS_BYTES),
            handler,
            jobs_tx: jobs_tx.downgrade(),
        };
        let expected = stage.subscribe();
        let run = move || {
            let serving = serve_connections(handover_rx, Arc::new(calls), stage_rx, &jobs_tx);
            runtime.block_on(serving);
            // Without this `grpc-change` would wait for more.
            drop(jobs_tx);
            let _ended = runtime.block_on(async { timeout(LAST_CALLS, changes_ended).await });
            runtime.shutdown_timeout(LAST_CALLS);
        };
        let thread = thread::Builder::new().name("grpc".to_owned());
        let thread = thread.spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(run));
            if ended.is_err() || *expected.borrow() == Stage::Open {
                on_fatal_error("the thread of gRPC has ended");
            }
        })?;
        Ok(Self {
            handover_tx,
            stage,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes a connection over.
    pub(crate) fn take_over(&self, connection: ConnectionGuard, handover: Handover) {
        // Where the runtime has ended, the connection ends with it.
        let _taken = self.handover_tx.send((connection, handover));
    }

    /// Sends all clients a GOAWAY. Requests in progress are answered.
    pub(crate) fn close(&self) {
        let _told = self.stage.send(Stage::Closing);
    }

    /// Ends the runtime, and all connections that are left.
    pub(crate) fn end(&self) {
        let _told = self.stage.send(Stage::Ended);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Starts the `grpc-change` thread. The receiver that it returns completes when that thread ends, also by a panic.
fn start_change_thread(
    jobs_rx: UnboundedReceiver<Job>,
    commit_batch: usize,
    handler: Arc<Handler>,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended_tx, ended_rx) = oneshot::channel();
    thread::Builder::new()
        .name("grpc-change".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let _ended = ended_tx;
            calls::run_changes(jobs_rx, commit_batch.max(1), &handler);
        })?;
    Ok(ended_rx)
}

/// Gives each connection that is handed over a task, until the server stops or `grpc-change` has ended.
async fn serve_connections(
    mut handover_rx: UnboundedReceiver<(ConnectionGuard, Handover)>,
    calls: Arc<Calls>,
    mut stage: watch::Receiver<Stage>,
    jobs_tx: &UnboundedSender<Job>,
) {
    let stages = stage.clone();
    loop {
        tokio::select! {
            handover = handover_rx.recv() => {
                let Some((connection, handover)) = handover else {
                    return;
                };
                let calls = Arc::clone(&calls);
                tokio::spawn(connection::serve(connection, handover, calls, stages.clone()));
            }
            _ = stage.wait_for(|it| *it == Stage::Ended) => return,
            () = jobs_tx.closed() => return,
        }
    }
}
