//! What a server tells Prometheus about itself: all counts of the other modules, under their names (SECURITY.md 42).
//!
//! Other modules count without knowing names or labels, and only this one uses `prometheus-client`. It names no user,
//! authenticator, token or address. It knows no sockets.

mod database;
mod page;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use crate::api::counts::{CallName, CodeName, Transport};
use crate::api::handler::Handler;
use crate::connections::Connections;
use crate::log_lines;
use crate::model::Timestamp;
use crate::store::{CheckpointMode, CheckpointOutcome, StoreErrorKind};
use database::DatabaseReader;
use page::{MICROSECONDS, Page};

/// The format of a page of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4
    Text,
    /// OpenMetrics 1.0
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    pub(crate) fn of(accept: Option<&str>) -> Self {
        let types = accept.unwrap_or_default().split(',');
        let mut types = types.map(|it| it.split(';').next().unwrap_or_default().trim());
        if types.any(|it| it.eq_ignore_ascii_case("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(handler: Arc<Handler>, connections: Arc<Connections>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Source {
            database: DatabaseReader::new(handler.api().service().clone()),
            started: handler.now(),
            handler,
            connections,
        }));
        Self { registry }
    }

    /// All metrics as they are now.
    pub(crate) fn page(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::new();
        match format {
            Format::Text => prometheus_text::encode(&mut page, &self.registry)?,
            Format::OpenMetrics => text::encode(&mut page, &self.registry)?,
        }
        Ok(page)
    }
}

/// Where the values come from.
struct Source {
    handler: Arc<Handler>,
    connections: Arc<Connections>,
    database: Arc<DatabaseReader>,
    started: Timestamp,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page::new(encoder);
        let has_grpc = if cfg!(feature = "grpc") { "yes" } else { "no" };
        let build = [("version", env!("CARGO_PKG_VERSION")), ("grpc", has_grpc)];
        let help = "The version that runs, and whether it speaks gRPC";
        page.gauges("totpd_build_info", help, [(build.to_vec(), 1.0)])?;
        process::encode(&mut page, self.started)?;
        self.requests(&mut page)?;
        self.connections(&mut page)?;
        self.workers(&mut page)?;
        self.store(&mut page)?;
        self.files_and_errors(&mut page)?;
        self.database.encode(&mut page, self.handler.now())
    }
}

impl Source {
    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = self.handler.api().counts();
        let labels = |transport: Transport, call: CallName, code: CodeName| {
            vec![
                ("transport", transport.as_str()),
                ("call", call.as_str()),
                ("code", code.as_str()),
            ]
        };
        let requests = counts.requests();
        let requests =
            requests.map(|(transport, call, code, count)| (labels(transport, call, code), count));
        let help = "Requests that were answered, refused ones included";
        page.counters("totpd_requests", help, requests)?;
        let durations = counts
            .durations()
            .map(|(call, it)| (vec![("call", call.as_str())], it.read()));
        let durations = durations.filter(|(_, it)| it.count > 0);
        let help = "From the parsing of a request, after its wait for a worker, until its answer was encoded";
        page.histograms(
            "totpd_request_duration_seconds",
            help,
            MICROSECONDS,
            durations,
        )?;
        let checks = counts
            .checks()
            .map(|(result, count)| (vec![("result", result.as_str())], count));
        page.counters(
            "totpd_checks",
            "Codes of CheckTOTP by how they were judged",
            checks,
        )?;
        let checks = counts
            .recovery_checks()
            .map(|(result, count)| (vec![("result", result.as_str())], count));
        page.counters(
            "totpd_recovery_checks",
            "Codes of CheckRecoveryCode by how they were judged",
            checks,
        )?;
        let lines = log_lines::counts().map(|(level, count)| (vec![("level", level)], count));
        page.counters(
            "totpd_log_lines",
            "Lines of the log that were written or lost",
            lines,
        )
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let registry = &self.connections.registry;
        let totals = registry.totals();
        let by_protocol = [("http1", totals.http1), ("http2", totals.http2)];
        let by_protocol = by_protocol.map(|(it, count)| (vec![("protocol", it)], number(count)));
        page.gauges("totpd_connections", "Open connections", by_protocol)?;
        let help = "The most connections that may be open; each of HTTP/2 counts as four";
        page.gauge("totpd_connections_limit", help, number(totals.limit))?;
        let refused = registry.refusals.read();
        let refused = refused.map(|(reason, count)| (vec![("reason", reason.as_str())], count));
        let help = "Connections, and requests on them, that were refused for what the client did";
        page.counters("totpd_connections_refused", help, refused)?;
        if let Some(expires) = self.connections.tls.as_ref().and_then(|it| it.expires()) {
            let name = "totpd_tls_certificate_expiry_timestamp_seconds";
            let help = "When the first certificate of the chain expires";
            page.gauge(name, help, seconds(expires))?;
        }
        Ok(())
    }

    fn workers(&self, page: &mut Page<'_>) -> fmt::Result {
        let kinds = self.connections.gates.all();
        let mut workers = Vec::new();
        let mut waiting = Vec::new();
        for (kind, permits) in kinds {
            let totals = permits.totals();
            for (state, count) in [("busy", totals.used), ("idle", totals.free)] {
                workers.push((vec![("kind", kind), ("state", state)], number(count)));
            }
            waiting.push((vec![("kind", kind)], number(totals.waiting)));
        }
        let help = "Requests of each kind that may be carried out at once, and how many are";
        page.gauges("totpd_workers", help, workers)?;
        page.gauges(
            "totpd_requests_waiting",
            "Requests that wait for a worker",
            waiting,
        )?;
        let waits = kinds.map(|(kind, permits)| (vec![("kind", kind)], permits.wait_time.read()));
        let help = "How long requests waited for a worker";
        page.histograms("totpd_worker_wait_seconds", help, MICROSECONDS, waits)
    }

    fn store(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = self.handler.api().service().store_counts();
        let events = counts
            .events()
            .map(|(kind, count)| (vec![("kind", kind.as_str())], count));
        page.counters(
            "totpd_changes",
            "Changes that were committed, by the kind of their event",
            events,
        )?;
        let commits = [("ok", &counts.commits), ("failed", &counts.failed_commits)];
        let commits = commits.map(|(result, it)| (vec![("result", result)], it.get()));
        page.counters(
            "totpd_commits",
            "Transactions that were to be committed",
            commits,
        )?;
        let time = [(Vec::new(), counts.commit_time.read())];
        let help = "How long commits took, their sync included";
        page.histograms("totpd_commit_duration_seconds", help, MICROSECONDS, time)?;
        let size = [(Vec::new(), counts.batch_size.read())];
        page.histograms(
            "totpd_commit_batch_size",
            "Changes that shared a commit",
            1.0,
            size,
        )?;
        let mut checkpoints = Vec::new();
        for mode in CheckpointMode::ALL {
            for outcome in CheckpointOutcome::ALL {
                let labels = vec![("mode", mode.as_str()), ("result", outcome.as_str())];
                checkpoints.push((labels, counts.checkpoint(mode, outcome).get()));
            }
        }
        page.counters("totpd_checkpoints", "Checkpoints of the WAL", checkpoints)?;
        let time = [(Vec::new(), counts.checkpoint_time.read())];
        let help = "How long checkpoints took";
        page.histograms(
            "totpd_checkpoint_duration_seconds",
            help,
            MICROSECONDS,
            time,
        )
    }

    fn files_and_errors(&self, page: &mut Page<'_>) -> fmt::Result {
        let (database, wal) = self.handler.api().service().file_bytes();
        page.gauge(
            "totpd_database_bytes",
            "The length of the database file",
            whole(database),
        )?;
        page.gauge("totpd_wal_bytes", "The length of the WAL", whole(wal))?;
        let errors = StoreErrorKind::ALL.map(|it| (vec![("kind", it.as_str())], it.count()));
        page.counters("totpd_store_errors", "Errors of SQLite", errors)
    }
}

/// A whole number as the values of gauges are.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, and a gauge beyond that is close enough"
)]
const fn whole(number: u64) -> f64 {
    number as f64
}

fn number(count: usize) -> f64 {
    whole(u64::try_from(count).unwrap_or(u64::MAX))
}

/// A time in seconds since 1970.
fn seconds(at: Timestamp) -> f64 {
    u64::try_from(at.micros()).map_or(0.0, whole) * MICROSECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_name_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain"), Format::Text),
            (Some("nothing at all"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (
                Some("text/plain, Application/OpenMetrics-Text"),
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::of(accept), expected, "{accept:?}");
        }
    }
}
