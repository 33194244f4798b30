//! What is read from the database for metrics.
//!
//! A disk may hang, and a table may be long. So a thread of its own reads, through the gate of reads and within a limit of
//! time, and a page waits for it for a moment only: after that it has the values of the last reading. What looks through
//! all users is read once a minute.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::page::{Labels, Page};
use super::{seconds, whole};
use crate::error::Error;
use crate::model::Timestamp;
use crate::service::Service;
use crate::store::Totals;

/// How long a page waits for a reading.
const PAGE_WAIT: Duration = Duration::from_millis(400);
/// How long the clock's state may take to read: two rows.
const CLOCK_TIME_LIMIT: Duration = Duration::from_millis(100);
/// How long counting may take. A million users take a quarter of a second, while no WAL can start over.
const TOTALS_TIME_LIMIT: Duration = Duration::from_secs(1);
/// How old totals become.
const TOTALS_LIFETIME: Duration = Duration::from_mins(1);
/// Enough for the thread's calls into SQLite.
const STACK_BYTES: usize = 256 * 1024;

/// Reads for one page after another.
pub(super) struct DatabaseReader {
    service: Service,
    state: Mutex<State>,
    /// Notified at the end of a reading.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    is_reading: bool,
    clock_fault: Option<bool>,
    totals: Option<Totals>,
    /// When the totals were last read, or could not be.
    totals_at: Option<Timestamp>,
    last: Option<Reading>,
}

/// How a reading went.
#[derive(Clone, Copy)]
struct Reading {
    time: Duration,
    has_failed: bool,
}

impl DatabaseReader {
    pub(super) fn new(service: Service) -> Arc<Self> {
        Arc::new(Self {
            service,
            state: Mutex::default(),
            ended: Condvar::new(),
        })
    }

    pub(super) fn encode(self: &Arc<Self>, page: &mut Page<'_>, now: Timestamp) -> fmt::Result {
        let state = self.read(now);
        if let Some(is_wrong) = state.clock_fault {
            let help = "Whether the clock is wrong, or doubted until a person has looked at it";
            page.gauge("totpd_clock_fault", help, f64::from(u8::from(is_wrong)))?;
        }
        if let Some(totals) = &state.totals {
            encode_totals(page, totals)?;
        }
        if let Some(reading) = state.last {
            let help = "How long the last reading of the database for metrics took";
            page.gauge(
                "totpd_metrics_read_duration_seconds",
                help,
                reading.time.as_secs_f64(),
            )?;
            let help = "Whether that reading failed or took too long";
            page.gauge(
                "totpd_metrics_read_failed",
                help,
                f64::from(u8::from(reading.has_failed)),
            )?;
        }
        Ok(())
    }

    /// Starts a reading unless one runs, and waits for its end for a moment.
    fn read(self: &Arc<Self>, now: Timestamp) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if !state.is_reading {
            state.is_reading = true;
            let reader = Arc::clone(self);
            let thread = thread::Builder::new()
                .name("metrics-read".to_owned())
                .stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(move || reader.run(now)) {
                log::warn!("no thread to read for metrics: {error}");
                state.is_reading = false;
                return state;
            }
        }
        let waited = self
            .ended
            .wait_timeout_while(state, PAGE_WAIT, |it| it.is_reading);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// One reading: the whole of a `metrics-read` thread.
    fn run(&self, now: Timestamp) {
        let begun = Instant::now();
        let (earlier, totals_at) = {
            let state = self.lock();
            (state.totals.is_some(), state.totals_at)
        };
        // A clock that was set back makes them old too.
        let is_old = totals_at.is_none_or(|it| now < it || now.since(it) >= TOTALS_LIFETIME);
        let clock_fault = logged(self.service.has_clock_fault(now, CLOCK_TIME_LIMIT));
        let totals = is_old.then(|| logged(self.service.totals(now, TOTALS_TIME_LIMIT)));
        let mut state = self.lock();
        let has_some = totals.as_ref().map_or(earlier, Option::is_some);
        state.last = Some(Reading {
            time: begun.elapsed(),
            has_failed: clock_fault.is_none() || !has_some,
        });
        state.clock_fault = clock_fault;
        if let Some(totals) = totals {
            state.totals = totals;
            state.totals_at = Some(now);
        }
        state.is_reading = false;
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn logged<T>(read: Result<T, Error>) -> Option<T> {
    read.inspect_err(|error| log::warn!("reading for metrics: {error:?}"))
        .ok()
}

fn encode_totals(page: &mut Page<'_>, totals: &Totals) -> fmt::Result {
    let by_state = |state: &'static str, count: i64| -> (Labels<'static>, f64) {
        let count = u64::try_from(count).map_or(0.0, whole);
        (vec![("state", state)], count)
    };
    let users = [
        by_state("active", totals.active_users),
        by_state("inactive", totals.inactive_users),
        by_state("locked", totals.locked_users),
    ];
    page.gauges("totpd_users", "Users, counted once a minute", users)?;
    let totps = [
        by_state("pending", totals.pending_totps),
        by_state("confirmed", totals.confirmed_totps),
    ];
    page.gauges(
        "totpd_authenticators",
        "Authenticators, counted once a minute",
        totps,
    )?;
    let expiries = totals.token_expiries.iter();
    let expiries = expiries.map(|(role, at)| (vec![("role", role.as_str())], seconds(*at)));
    let name = "totpd_earliest_token_expiry_timestamp_seconds";
    let help = "When the next token of each role expires, but for those of users";
    page.gauges(name, help, expiries)?;
    totals.backed_up_at.map_or(Ok(()), |at| {
        let help = "When `totpd backup` last wrote a file";
        page.gauge("totpd_last_backup_timestamp_seconds", help, seconds(at))
    })
}
