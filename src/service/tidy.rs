//! What totpd does by itself, without anybody's call: sweeping what has expired, and what is old.
//!
//! Nothing is deleted on the word of a clock that may be wrong (SECURITY.md 36).

use std::sync::PoisonError;
use std::time::Duration;

use super::clock::Jump;
use super::{Service, totps};
use crate::error::Result;
use crate::model::{ClockReading, LONGEST_EVENT_GAP, Timestamp};
use crate::store::WriteTx;

/// Rows that one sweep removes in one transaction, so that it never holds others up.
const SWEEP_SLICE: u32 = 500;

impl Service {
    /// Sweeps expired enrolments and events that are older than `keep_events`.
    ///
    /// To be called again and again; each call does a bounded piece of work. Nothing is swept until the wall clock
    /// has run evenly for an hour of such calls, nor while it stands more than 30 days after what is known.
    pub fn tidy(&self, keep_events: Duration, clock: ClockReading) -> Result<()> {
        let Some(running_for) = self.steady_for(clock) else {
            return Ok(());
        };
        let (now, last_known_time) = (clock.now, self.inner.last_known_time);
        let trust = self.inner.store.write(now, move |tx| {
            let trust = judge(tx, last_known_time, running_for)?;
            if trust == Trust::Given {
                totps::sweep(tx, SWEEP_SLICE)?;
                tx.clamp_failure_times()?;
                tx.delete_old_events(now.before(keep_events), SWEEP_SLICE)?;
            }
            Ok(trust)
        })?;
        if trust == Trust::Lost {
            log::warn!(
                "the clock says {now}, over 30 days after the newest event before this process and the time since: \
                 nothing is deleted by age until a person has looked at it; see `totpd doctor`"
            );
        }
        Ok(())
    }

    /// Whether the clock can be right, as far as the database knows.
    pub fn check_clock(&self, now: Timestamp) -> Result<()> {
        let newest = self.inner.store.read(|tx| tx.require_sane_clock(now));
        newest.map(|_| ())
    }

    /// How long these readings go on, if the clock is steady.
    fn steady_for(&self, clock: ClockReading) -> Option<Duration> {
        let watch = self.inner.clock_watch.lock();
        let mut watch = watch.unwrap_or_else(PoisonError::into_inner);
        if let Some(jump) = watch.observe(clock) {
            let (by, direction) = match jump {
                Jump::Ahead(by) => (by, "ahead"),
                Jump::Back(by) => (by, "back"),
            };
            log::warn!(
                "the clock jumped {direction} by {} s, to {}; nothing is deleted by age until it has run evenly for an hour",
                by.as_secs(),
                clock.now
            );
        }
        watch.steady_for(clock)
    }
}

/// Whether anything may be deleted by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Given,
    /// Not any more, from this moment on.
    Lost,
    /// Not yet again.
    Withheld,
}

/// Judges whether the clock stands no more than 30 days after what is known: the newest event before this process
/// and the time since, or a person's word. A doubt is kept in the database, so that neither an event by that clock
/// nor a restart ends it. It ends where the clock is set back, or where a person confirms it.
fn judge(tx: &WriteTx<'_>, last_known_time: Timestamp, running_for: Duration) -> Result<Trust> {
    let trust = tx.clock_trust()?;
    let last_known_time = trust
        .confirmed_at
        .map_or(last_known_time, |it| it.max(last_known_time));
    let may_be_right = tx.now() <= last_known_time.after(running_for).after(LONGEST_EVENT_GAP);
    Ok(match (may_be_right, trust.doubted_from) {
        (true, None) => Trust::Given,
        (true, Some(_)) => {
            tx.trust_clock()?;
            Trust::Given
        }
        (false, None) => {
            tx.doubt_clock(last_known_time)?;
            Trust::Lost
        }
        (false, Some(_)) => Trust::Withheld,
    })
}
