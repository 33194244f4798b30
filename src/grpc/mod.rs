//! gRPC over HTTP/2: connections that the front end hands over, on a runtime of one thread of its own.
//!
//! The only module with an async runtime. Its thread, `grpc`, reads, writes and waits and never blocks: reads run on a
//! bounded number of `grpc-read` threads and all changes on `grpc-change`, through the same [`Handler`] as REST. This
//! module knows framing and deadlines, and nothing of users or codes.

mod answer;
mod body;
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

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::api::handler::Handler;
use crate::connections::{Connections, PROBES, READS, SEARCHES};
use calls::Calls;
pub(crate) use connection::Handover;
use connection::Stage;
use reflection::Reflection;

/// What every HTTP/2 connection begins with, if its client knows beforehand that HTTP/2 is spoken (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the blocking threads need: as much as the workers of REST.
const STACK_BYTES: usize = 512 * 1024;
/// Blocking threads: one for each permit of reads, searches and readiness.
const READ_THREADS: usize = READS + SEARCHES + PROBES;
/// How long the blocking threads have to finish once all connections are closed.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// How calls are carried out.
pub(crate) struct Settings {
    pub(crate) connections: Arc<Connections>,
    /// Changes that share a commit, at most.
    pub(crate) commit_batch: usize,
}

/// The server of gRPC.
pub(crate) struct GrpcServer {
    handover_tx: mpsc::UnboundedSender<Handover>,
    stage: watch::Sender<Stage>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl GrpcServer {
    /// Starts the runtime's thread. `on_fatal_error` is called if it ends before [`Self::end`].
    pub(crate) fn start(
        handler: Arc<Handler>,
        settings: Settings,
        on_fatal_error: impl FnOnce(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(READ_THREADS)
            .thread_stack_size(STACK_BYTES)
            .thread_name("grpc-read")
            .build()?;
        let reflection = Reflection::new().map_err(io::Error::other)?;
        // Unbounded, but no more connections are handed over than are admitted.
        let (handover_tx, mut handover_rx) = mpsc::unbounded_channel::<Handover>();
        let (stage, mut stopping) = watch::channel(Stage::Open);
        let run = move || {
            let (jobs_tx, jobs_rx) = mpsc::unbounded_channel();
            let (batch, changes) = (settings.commit_batch.max(1), Arc::clone(&handler));
            let connections = settings.connections;
            let calls = Calls::new(connections, handler, reflection, jobs_tx.downgrade());
            let calls = Arc::new(calls);
            // Dropped when the thread ends, for whatever reason.
            let (ended_tx, mut ended_rx) = watch::channel(());
            let mut last_rx = ended_rx.clone();
            let change_thread = thread::Builder::new()
                .name("grpc-change".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let _ended = ended_tx;
                    calls::run_changes(jobs_rx, batch, &changes);
                });
            if let Err(error) = change_thread {
                log::error!("no thread for changes over gRPC: {error}");
            }
            runtime.block_on(async move {
                let stage_rx = stopping.clone();
                loop {
                    tokio::select! {
                        handover = handover_rx.recv() => match handover {
                            Some(handover) => {
                                let (calls, stage) = (Arc::clone(&calls), stage_rx.clone());
                                tokio::spawn(connection::serve(handover, calls, stage));
                            }
                            None => return,
                        },
                        _ = stopping.wait_for(|it| *it == Stage::Ended) => return,
                        _ = ended_rx.changed() => return,
                    }
                }
            });
            // Without this `grpc-change` would wait for more.
            drop(jobs_tx);
            let _ended = runtime.block_on(async { timeout(LAST_CALLS, last_rx.changed()).await });
            runtime.shutdown_timeout(LAST_CALLS);
        };
        let expected = stage.subscribe();
        let thread = thread::Builder::new()
            .name("grpc".to_owned())
            .spawn(move || {
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
    pub(crate) fn take_over(&self, handover: Handover) {
        // Where the runtime has ended, the connection ends with it.
        let _taken = self.handover_tx.send(handover);
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
