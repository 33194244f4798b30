//! `doctor --fix clock`: a person confirms that the clock is right now and was ahead before (SECURITY.md 35).
//!
//! Every date in the future becomes now, in small transactions beside a running server. Events are changed last, the
//! newest at the very end. Until then a server that refuses because of them goes on refusing, and a fix that was killed
//! can run again.

use std::thread;
use std::time::Instant;

use super::{Context, Service};
use crate::error::Result;
use crate::model::{Timestamp, TotpId, UserId, require_plausible};
use crate::store::{DatedTable, EventSource, WriteTx};

/// What a fix changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockFixSummary {
    /// Events with a date in the future.
    pub events: usize,
    /// Authenticators of which a code of a future step was used, or may have been.
    pub totps: usize,
    /// Waits that start again.
    pub waits: usize,
    /// Tokens. Each keeps its lifetime.
    pub tokens: usize,
    /// Users and organizations.
    pub users: usize,
    /// When the last code that was used ahead of time stops being refused.
    pub void_until: Option<Timestamp>,
}

impl Service {
    /// Replaces every date after `now` by `now`, on the assumption that the clock was ahead.
    ///
    /// No used code becomes good again. Codes that were used while the clock was ahead are refused when their steps come,
    /// and so is every code up to now.
    pub fn fix_clock(&self, context: &Context) -> Result<ClockFixSummary> {
        let now = context.now;
        // A separate read, because a write would fail: to the database the clock still looks wrong.
        let source = self.inner.store.read(|tx| {
            let principal = context.caller.identify(tx, now)?;
            principal.require_admin()?;
            Ok(principal.source)
        })?;
        require_plausible(now)?;
        let fix = ClockFix { service: self, now };
        let (last, since) = self.inner.store.read(|tx| tx.events_ahead(now))?;
        let mut fixed = ClockFixSummary {
            totps: fix
                .fix_used_totps(last)?
                .saturating_add(fix.fix_other_totps(since)?),
            waits: fix.fix_dates(DatedTable::Failures)?,
            tokens: fix.fix_dates(DatedTable::Tokens)?,
            users: fix.fix_dates(DatedTable::Users)?,
            ..ClockFixSummary::default()
        };
        fix.fix_dates(DatedTable::RecoverySets)?;
        fix.fix_dates(DatedTable::Invitations)?;
        let organizations = fix.fix_dates(DatedTable::Organizations)?;
        fixed.users = fixed.users.saturating_add(organizations);
        fixed.events = fix.fix_events(last, &source)?;
        let void_until = self.inner.store.read(|tx| tx.end_of_void_steps())?;
        fixed.void_until = void_until.filter(|it| *it > now);
        Ok(fixed)
    }
}

/// The arguments of a fix in progress.
struct ClockFix<'a> {
    service: &'a Service,
    /// The right time. No code that could be good now is good after the fix.
    now: Timestamp,
}

impl ClockFix<'_> {
    /// Corrects the authenticators whose codes were used in events after `last`.
    fn fix_used_totps(&self, mut last: i64) -> Result<usize> {
        let mut count = 0_usize;
        let next = |after| self.read(|tx| tx.codes_used_after(after));
        while let Some((until, mut uses)) = next(last)? {
            while !uses.is_empty() {
                let now = self.now;
                let (left, changed) =
                    self.change_some(uses, move |tx, uses| tx.reset_used_totps(uses, now))?;
                (uses, count) = (left, count.saturating_add(changed));
            }
            last = until;
        }
        Ok(count)
    }

    /// Corrects the other authenticators whose `last_step` is in the future, as a restore while the clock was ahead leaves
    /// it. Their codes may have been used since `since`, the first event in the future.
    fn fix_other_totps(&self, since: Option<Timestamp>) -> Result<usize> {
        let (now, since) = (self.now, since.unwrap_or(self.now));
        let mut count = 0_usize;
        let mut last = (
            UserId::from_trusted(String::new()),
            TotpId::from_trusted(String::new()),
        );
        loop {
            let mut totps = self.read(|tx| tx.totps_ahead(&last, now, now))?;
            let Some(newest) = totps.last() else {
                return Ok(count);
            };
            last = newest.clone();
            while !totps.is_empty() {
                let (left, changed) = self.change_some(totps, move |tx, totps| {
                    tx.reset_other_totps(totps, since, now)
                })?;
                (totps, count) = (left, count.saturating_add(changed));
            }
        }
    }

    fn fix_dates(&self, of: DatedTable) -> Result<usize> {
        let (mut count, mut last) = (0_usize, String::new());
        loop {
            let mut keys = self.read(|tx| tx.keys_ahead(of, &last, self.now))?;
            let Some(newest) = keys.last() else {
                return Ok(count);
            };
            last.clone_from(newest);
            while !keys.is_empty() {
                let (left, changed) =
                    self.change_some(keys, move |tx, keys| tx.redate_rows(of, keys))?;
                (keys, count) = (left, count.saturating_add(changed));
            }
        }
    }

    /// Corrects the events after `last`. The transaction with the newest one also records that the clock was confirmed.
    fn fix_events(&self, last: i64, source: &EventSource) -> Result<usize> {
        let (mut count, mut after) = (0_usize, Some(last));
        while let Some(last) = after {
            let source = source.clone();
            let (changed, next) = self.write(move |tx| {
                let (changed, next) = tx.redate_events(last)?;
                if next.is_none() {
                    tx.confirm_clock(&source)?;
                }
                Ok((changed, next))
            })?;
            (count, after) = (count.saturating_add(changed), next);
        }
        Ok(count)
    }

    /// Runs `change` on as many of `items` as one transaction may change. Returns the remaining items and the number of
    /// changed ones.
    fn change_some<T: Send + 'static>(
        &self,
        mut items: Vec<T>,
        change: impl FnOnce(&WriteTx<'_>, &[T]) -> Result<(usize, usize)> + Send + 'static,
    ) -> Result<(Vec<T>, usize)> {
        self.write(move |tx| {
            let (changed, seen) = change(tx, &items)?;
            items.drain(..seen.clamp(1, items.len()));
            Ok((items, changed))
        })
    }

    /// Runs one transaction, then sleeps for as long as it took, so that other changes get half of the writer's time.
    fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let begun = Instant::now();
        let store = &self.service.inner.store;
        let done = store.write_with_confirmed_clock(self.now, change)?;
        thread::sleep(begun.elapsed());
        Ok(done)
    }

    fn read<T>(&self, read: impl FnOnce(&crate::store::ReadTx<'_>) -> Result<T>) -> Result<T> {
        self.service.inner.store.read(read)
    }
}
