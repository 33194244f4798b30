//! Limits the lines of the log that a client can cause, so that it cannot fill the disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most lines in a second, unless another limit is said.
const LINES: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Admits so many lines in a period, ten a second usually, and counts the rest.
pub(crate) struct LogLimit {
    max_lines: u32,
    period: Duration,
    state: Mutex<Option<State>>,
}

struct State {
    /// When the period began that is counted.
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    pub(crate) const fn new() -> Self {
        Self::of(LINES, SECOND)
    }

    pub(crate) const fn of(max_lines: u32, period: Duration) -> Self {
        Self {
            max_lines,
            period,
            state: Mutex::new(None),
        }
    }

    /// Whether one more line may be written; then, how many were left out before it and are not told of yet.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert(State {
            since: now,
            lines: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(state.since) >= self.period {
            state.since = now;
            state.lines = 0;
        }
        if state.lines >= self.max_lines {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.lines = state.lines.saturating_add(1);
        Some(std::mem::take(&mut state.left_out))
    }

    /// Once the period that is counted has passed: how many were left out and are not told of yet.
    fn take_left_out(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = state.as_mut() else {
            return Some(0);
        };
        let is_over = now.saturating_duration_since(state.since) >= self.period;
        is_over.then(|| std::mem::take(&mut state.left_out))
    }

    /// Counts lines of others that were left out, which its next line tells of.
    fn add_left_out(&self, count: u64, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert(State {
            since: now,
            lines: 0,
            left_out: 0,
        });
        state.left_out = state.left_out.saturating_add(count);
    }
}

/// Addresses that are told apart at once; all further ones share a limit.
const ADDRESSES: usize = 1_024;

/// Admits ten lines a second about each address, and counts the rest.
pub(crate) struct AddressLimits {
    apart: Mutex<HashMap<Option<IpAddr>, LogLimit>>,
    others: LogLimit,
}

impl AddressLimits {
    pub(crate) fn new() -> Self {
        Self {
            apart: Mutex::default(),
            others: LogLimit::new(),
        }
    }

    /// As [`LogLimit::admit`], for lines about this address.
    pub(crate) fn admit(&self, address: Option<IpAddr>, now: Instant) -> Option<u64> {
        let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        if apart.len() >= ADDRESSES && !apart.contains_key(&address) {
            apart.retain(|_, limit| match limit.take_left_out(now) {
                Some(left_out) => {
                    self.others.add_left_out(left_out, now);
                    false
                }
                None => true,
            });
            if apart.len() >= ADDRESSES {
                drop(apart);
                return self.others.admit(now);
            }
        }
        apart
            .entry(address)
            .or_insert_with(LogLimit::new)
            .admit(now)
    }

    /// Forgets the addresses whose second has passed. Returns those of which lines were left out, and how many; and how
    /// many of all further addresses together.
    pub(crate) fn take_left_out(&self, now: Instant) -> (Vec<(Option<IpAddr>, u64)>, u64) {
        let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        apart.retain(|address, limit| match limit.take_left_out(now) {
            Some(left_out) => {
                told.push((*address, left_out));
                false
            }
            None => true,
        });
        drop(apart);
        told.retain(|(_, left_out)| *left_out > 0);
        (told, self.others.take_left_out(now).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SECURITY.md 45
    #[test]
    fn ten_lines_a_second_are_written_and_the_rest_is_counted() {
        let (limit, begun) = (LogLimit::new(), Instant::now());
        for _ in 0..10 {
            assert_eq!(limit.admit(begun), Some(0));
        }
        for n in 0..1_000 {
            let now = begun + Duration::from_micros(n * 900);
            assert_eq!(limit.admit(now), None);
        }
        assert_eq!(limit.admit(begun + SECOND), Some(1_000));
        assert_eq!(limit.admit(begun + SECOND), Some(0));
    }

    /// SECURITY.md 45
    #[test]
    fn each_address_has_its_own_lines_and_a_flood_of_addresses_shares_ten() {
        let (limits, begun) = (AddressLimits::new(), Instant::now());
        let address = |it: u32| Some(IpAddr::from(it.to_be_bytes()));
        for _ in 0..10 {
            assert_eq!(limits.admit(address(0), begun), Some(0));
        }
        assert_eq!(limits.admit(address(0), begun), None);
        let admitted = (1..10_000).filter(|it| limits.admit(address(*it), begun).is_some());
        assert_eq!(admitted.count(), ADDRESSES - 1 + 10);
        assert!(limits.apart.lock().unwrap().len() <= ADDRESSES);
        assert_eq!(limits.admit(address(0), begun + SECOND), Some(1));
        assert_eq!(limits.admit(address(20_000), begun + SECOND), Some(0));
    }

    /// SECURITY.md 45: what was left out is told of also where no line of that address follows.
    #[test]
    fn what_was_left_out_is_told_once_its_second_is_over() {
        let (limits, begun) = (AddressLimits::new(), Instant::now());
        let address = |it: u32| Some(IpAddr::from(it.to_be_bytes()));
        for _ in 0..13 {
            limits.admit(address(1), begun);
        }
        limits.admit(address(2), begun);
        assert_eq!(limits.take_left_out(begun), (vec![], 0));
        let later = begun + SECOND;
        assert_eq!(limits.take_left_out(later), (vec![(address(1), 3)], 0));
        assert_eq!(limits.take_left_out(later), (vec![], 0));
        assert!(limits.apart.lock().unwrap().is_empty());
        // A flood of addresses pushes out one of which lines were left out.
        for _ in 0..13 {
            limits.admit(address(1), later);
        }
        for it in 0..u32::try_from(ADDRESSES).unwrap() {
            limits.admit(address(10 + it), later + SECOND);
        }
        assert_eq!(limits.take_left_out(later + SECOND * 2), (vec![], 3));
    }
}
