//! `doctor --fix clock`: a person says that the clock is right now and was ahead before (SECURITY.md 35).
//!
//! Everything that is dated later is dated now, in small transactions beside a running server. The events come
//! last and the newest of them last of all: so a server that refuses because of them goes on refusing until all is
//! put right, and a fix that was killed finds what it needs when it is run again.

use std::thread;
use std::time::Instant;

use super::{Context, Service};
use crate::error::Result;
use crate::model::{Step, Timestamp, TotpId, UserId, Window, require_plausible};
use crate::store::{DatedTable, EventSource, WriteTx};

/// What a fix changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockFixSummary {
    /// Events that were dated later.
    pub events: usize,
    /// Authenticators of which a code was used that is still to come, or might have been.
    pub totps: usize,
    /// Waits that begin anew.
    pub waits: usize,
    /// Tokens; each keeps its length.
    pub tokens: usize,
    /// Users and organizations.
    pub users: usize,
    /// The moment until which codes of such an authenticator are refused, the latest of all.
    pub void_until: Option<Timestamp>,
}

impl Service {
    /// Takes `now` for right, and everything that is dated later for dated by a clock that was ahead.
    ///
    /// No code that was used becomes good again: what was used while the clock was ahead is refused when its time
    /// comes, and so is every code up to now.
    pub fn fix_clock(&self, context: &Context) -> Result<ClockFixSummary> {
        let now = context.now;
        // The clock is not sane yet, so this is judged in a read of its own.
        let source = self.inner.store.read(|tx| {
            let principal = context.caller.identify(tx, now)?;
            principal.require_admin()?;
            Ok(principal.source)
        })?;
        require_plausible(now)?;
        // The window may have been wider than it is now.
        let window = i64::from(Window::OneEitherSide.steps());
        let fix = Fix {
            service: self,
            now,
            floor: Step::from_number(now.step().number().saturating_add(window)),
        };
        let (last, since) = self.inner.store.read(|tx| tx.events_ahead(now))?;
        let mut fixed = ClockFixSummary {
            totps: fix
                .used_totps(last)?
                .saturating_add(fix.other_totps(since)?),
            waits: fix.dated(DatedTable::Failures)?,
            tokens: fix.dated(DatedTable::Tokens)?,
            users: fix.dated(DatedTable::Users)?,
            ..ClockFixSummary::default()
        };
        let organizations = fix.dated(DatedTable::Organizations)?;
        fixed.users = fixed.users.saturating_add(organizations);
        fixed.events = fix.events(last, &source)?;
        let void_until = self.inner.store.read(|tx| tx.last_void_step())?;
        fixed.void_until = void_until.map(Step::end).filter(|it| *it > now);
        Ok(fixed)
    }
}

/// A fix that is under way.
struct Fix<'a> {
    service: &'a Service,
    now: Timestamp,
    /// No code up to this step is good afterwards.
    floor: Step,
}

impl Fix<'_> {
    /// Authenticators whose codes were used after the event `last`, by the clock that was ahead.
    fn used_totps(&self, mut last: i64) -> Result<usize> {
        let mut count = 0_usize;
        let next = |after| self.read(|tx| tx.codes_used_after(after));
        while let Some((until, mut uses)) = next(last)? {
            while !uses.is_empty() {
                let floor = self.floor;
                let (left, changed) =
                    self.slice(uses, move |tx, uses| tx.reset_used_totps(uses, floor))?;
                (uses, count) = (left, count.saturating_add(changed));
            }
            last = until;
        }
        Ok(count)
    }

    /// The other authenticators whose floor is in the future: a restore by that clock puts it there. Codes may have
    /// been used since the first event that is ahead; where there is none, up to the floor nothing is good.
    fn other_totps(&self, since: Option<Timestamp>) -> Result<usize> {
        let (now, floor, since) = (self.now, self.floor, since.unwrap_or(self.now));
        let mut count = 0_usize;
        let mut last = (
            UserId::from_trusted(String::new()),
            TotpId::from_trusted(String::new()),
        );
        loop {
            let mut totps = self.read(|tx| tx.totps_ahead(&last, floor, now))?;
            let Some(newest) = totps.last() else {
                return Ok(count);
            };
            last = newest.clone();
            while !totps.is_empty() {
                let (left, changed) = self.slice(totps, move |tx, totps| {
                    tx.reset_other_totps(totps, since, floor)
                })?;
                (totps, count) = (left, count.saturating_add(changed));
            }
        }
    }

    fn dated(&self, of: DatedTable) -> Result<usize> {
        let (mut count, mut last) = (0_usize, String::new());
        loop {
            let mut keys = self.read(|tx| tx.keys_ahead(of, &last, self.now))?;
            let Some(newest) = keys.last() else {
                return Ok(count);
            };
            last.clone_from(newest);
            while !keys.is_empty() {
                let (left, changed) = self.slice(keys, move |tx, keys| tx.redate_rows(of, keys))?;
                (keys, count) = (left, count.saturating_add(changed));
            }
        }
    }

    /// The events after `last`. With the newest of them the clock is confirmed.
    fn events(&self, last: i64, source: &EventSource) -> Result<usize> {
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

    /// Runs `change` on as many of `items` as one transaction may change. Returns what is left of them, and how
    /// many changed.
    fn slice<T: Send + 'static>(
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

    /// Runs one transaction, and then leaves the writer to others for as long as it took.
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
