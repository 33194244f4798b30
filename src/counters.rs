//! Counters and histograms that any thread adds to without a lock, and that `metrics` reads.
//!
//! They know neither names nor labels: the module that holds one knows what it counts.

#![cfg_attr(
    not(any(feature = "server", test)),
    expect(dead_code, reason = "what reads counters is a part of the server")
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number of things that happened.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero, also in a `static`.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets it to zero, and returns what it was.
    pub(crate) fn take(&self) -> u64 {
        // Most are zero most of the time, and a load is cheaper than a swap.
        if self.get() == 0 {
            return 0;
        }
        self.0.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The most buckets of a histogram, that without a bound included.
const MAX_BUCKETS: usize = 16;

/// How many values were at most as large as each of some bounds. Values are whole numbers of the histogram's unit.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Rising; one fewer than [`MAX_BUCKETS`] at most.
    bounds: &'static [u64],
    buckets: [Counter; MAX_BUCKETS],
    sum: Counter,
}

/// What a histogram has counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// The bounds, and the number of values in each bucket alone.
    pub(crate) buckets: Vec<(u64, u64)>,
    /// The number of all values, those above the last bound included.
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Histogram {
    pub(crate) const fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: [const { Counter::new() }; MAX_BUCKETS],
            sum: Counter::new(),
        }
    }

    pub(crate) fn observe(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at.min(MAX_BUCKETS.saturating_sub(1))) {
            bucket.add_one();
        }
        self.sum.add(value);
    }

    /// Observes a time, in microseconds.
    pub(crate) fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn read(&self) -> Distribution {
        let counted = self.buckets.iter().map(Counter::get);
        let count = counted.fold(0, u64::saturating_add);
        let buckets = self.bounds.iter().zip(&self.buckets);
        Distribution {
            buckets: buckets.map(|(bound, it)| (*bound, it.get())).collect(),
            count,
            sum: self.sum.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, 500] {
            histogram.observe(value);
        }
        let expected = Distribution {
            buckets: vec![(1, 2), (10, 2)],
            count: 6,
            sum: 524,
        };
        assert_eq!(histogram.read(), expected);
    }
}
