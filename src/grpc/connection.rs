//! One connection of HTTP/2, a task on the `grpc` thread: a TLS handshake if there is TLS, requests, and a GOAWAY.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::server::Accepted;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::StartHandshake;

use super::call::{CallContext, h2_head_bytes};
use super::calls::Calls;
use super::socket::Socket;
use crate::connections::{Connection, ConnectionGuard, Health, RefusalReason};

/// Requests at once on one connection. RFC 9113 §6.5.2 recommends a hundred at least, but each may hold memory without
/// ever being finished.
const MAX_STREAMS: u32 = 32;
/// What may be on its way to us on one stream, and on all of a connection: the least that a connection can have (RFC
/// 9113 §6.9.2). Where many send at once it lies in memory before it is counted.
const WINDOW_BYTES: u32 = 65_535;
/// How much of an answer h2 keeps in memory for a client that has not taken it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that were opened and reset before we looked at them (CVE-2023-44487), and streams that we reset
/// for errors of the client's; beyond that the connection is ended.
const MAX_RESETS_UNSEEN: usize = 20;
const MAX_RESETS_FOR_ERRORS: usize = 64;
/// How long a client may keep a connection without a request in progress once it was sent a GOAWAY.
const GOAWAY_GRACE: Duration = Duration::from_secs(1);
/// The time between two checks of a connection's health, at least and at most.
const MIN_CHECK_PERIOD: Duration = Duration::from_millis(20);
const MAX_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// How far a connection had come when it turned out to speak HTTP/2.
pub(crate) enum Handover {
    /// These bytes were read of it.
    Plain(Vec<u8>),
    /// Its ClientHello was read.
    Tls(Box<Accepted>, Arc<ServerConfig>),
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    /// Clients are sent a GOAWAY, and requests in progress are answered.
    Closing,
    Ended,
}

/// Serves a connection until it ends: the whole of its task.
pub(super) async fn serve(
    connection: ConnectionGuard,
    handover: Handover,
    calls: Arc<Calls>,
    stage: watch::Receiver<Stage>,
) {
    let outcome = async {
        match handover {
            Handover::Plain(first) => {
                let socket = Socket::new(Arc::clone(&connection), first)?;
                speak(socket, &calls, &connection, stage).await
            }
            Handover::Tls(accepted, config) => {
                let socket = Socket::new(Arc::clone(&connection), Vec::new())?;
                let handshake = StartHandshake::from_parts(*accepted, socket).into_stream(config);
                let request_time = calls.connections.limits.request_time;
                let stream = timeout(request_time, handshake).await;
                let stream = stream.map_err(io::Error::from).and_then(|it| it);
                let refusals = &calls.connections.registry.refusals;
                let stream = stream.inspect_err(|_| refusals.note(RefusalReason::Tls))?;
                speak(stream, &calls, &connection, stage).await
            }
        }
    };
    if let Err(error) = outcome.await {
        log::debug!("a connection of HTTP/2 has ended: {error}");
    }
}

/// Speaks HTTP/2 over a socket until the client leaves, or is cut off. hyper reads requests and calls
/// [`CallContext::answer`] for each; beside it this looks at the connection's health, and sends a GOAWAY where the client
/// asks for nothing or the server stops.
async fn speak(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    calls: &Arc<Calls>,
    shared: &Arc<Connection>,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let limits = &calls.connections.limits;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(h2_head_bytes(limits)).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS_UNSEEN)
        .max_local_error_reset_streams(MAX_RESETS_FOR_ERRORS);
    let context = Arc::new(CallContext::new(Arc::clone(calls), Arc::clone(shared)));
    let service = service_fn(move |request| Arc::clone(&context).answer(request));
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);

    let period = limits.idle_time.min(limits.take_time).div_f32(4.0);
    let mut checks = interval(period.clamp(MIN_CHECK_PERIOD, MAX_CHECK_PERIOD));
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut goaway_at: Option<Instant> = None;
    loop {
        let sends_goaway = tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            _ = stage.wait_for(|it| *it != Stage::Open), if goaway_at.is_none() => true,
            _ = checks.tick() => match shared.health(limits.idle_time, limits.take_time) {
                Health::Well => false,
                Health::Idle => goaway_at.is_none(),
                Health::Stalled => return Err(io::ErrorKind::TimedOut.into()),
            },
        };
        if sends_goaway {
            // GOAWAY: what was begun is answered, and nothing new is.
            connection.as_mut().graceful_shutdown();
            goaway_at = Some(Instant::now());
        }
        let Some(since_goaway) = goaway_at.map(|it| it.elapsed()) else {
            continue;
        };
        // By then a request begun before the GOAWAY is complete or refused. A client that begins more ignores it.
        let patience = limits.request_time.saturating_add(GOAWAY_GRACE);
        let is_done = !shared.is_busy() || (since_goaway > patience && !shared.is_at_work());
        if since_goaway > GOAWAY_GRACE && is_done {
            return Ok(());
        }
    }
}
