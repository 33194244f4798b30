//! Periodic deletion of expired enrolments and old events.
//!
//! Deletes nothing while the clock may be wrong (SECURITY.md 36). Starts no thread: the host calls [`Service::tidy`].

use std::sync::PoisonError;
use std::time::Duration;

use super::clock::Jump;
use super::{Service, totps};
use crate::error::Result;
use crate::model::{ClockReading, LONGEST_EVENT_GAP, Timestamp};
use crate::store::WriteTx;

/// The most rows that one sweep deletes in its transaction, so that other changes do not wait long.
const SWEEP_SLICE: u32 = 500;

impl Service {
    /// Deletes expired enrolments, expired invitations, and events older than `keep_events`. Keeps the record of each authenticator that was
    /// confirmed: when it was enrolled, confirmed and removed, as long as its user is there.
    ///
    /// Call it every few seconds; each call does a bounded amount of work. It deletes nothing until the wall clock has run
    /// without a jump for an hour of such calls, nor while the clock is more than 30 days after the newest known event.
    pub fn tidy(&self, keep_events: Duration, clock: ClockReading) -> Result<()> {
        if let Err(error) = self.inner.forget_old_keys() {
            log::warn!("the keys that the database names: {error:?}");
        }
        let Some(running_for) = self.steady_for(clock) else {
            return Ok(());
        };
        let (now, last_known_time) = (clock.now, self.inner.last_known_time);
        let trust = self.inner.store.write(now, move |tx| {
            let trust = judge(tx, last_known_time, running_for)?;
            if trust == Trust::Given {
                totps::sweep(tx, SWEEP_SLICE)?;
                tx.delete_expired_invitations(SWEEP_SLICE)?;
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

    /// Fails where the database shows that the clock is wrong.
    pub fn check_clock(&self, now: Timestamp) -> Result<()> {
        let newest = self.inner.store.read(|tx| tx.require_sane_clock(now));
        newest.map(|_| ())
    }

    /// Records a reading. Returns the time since the first one if the clock is steady.
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
    /// Lost in this sweep.
    Lost,
    /// Lost in an earlier sweep.
    Withheld,
}

/// Judges whether the clock is at most 30 days after the last known time: the newest event before this process plus the
/// time since, or the last confirmation by a person. A doubt is stored in the database, so that neither a new event nor a
/// restart ends it. Only setting the clock back or a confirmation ends it.
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
