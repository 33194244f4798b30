//! What metrics read from a service: its counts, the length of its files, and, within a time limit, its database.

use std::fs;
use std::time::Duration;

use super::Service;
use crate::error::Result;
use crate::model::Timestamp;
use crate::store::{self, ReadKind, StoreCounts, Totals};

impl Service {
    /// What the database has counted since it was opened.
    pub(crate) fn store_counts(&self) -> &StoreCounts {
        self.inner.store.counts()
    }

    /// The lengths of the database and of its WAL, in bytes.
    pub(crate) fn file_bytes(&self) -> (u64, u64) {
        let database = self.inner.dir.database();
        let bytes = fs::metadata(&database).map_or(0, |it| it.len());
        (bytes, store::wal_bytes(&database))
    }

    /// Whether the clock is wrong, or is doubted until a person has looked at it.
    pub(crate) fn has_clock_fault(&self, now: Timestamp, time_limit: Duration) -> Result<bool> {
        let store = &self.inner.store;
        store.read_within(time_limit, ReadKind::ById, |tx| {
            let is_doubted = tx.clock_trust()?.doubted_from.is_some();
            Ok(is_doubted || tx.require_sane_clock(now).is_err())
        })
    }

    /// Counts users and authenticators. That looks through all of them.
    pub(crate) fn totals(&self, now: Timestamp, time_limit: Duration) -> Result<Totals> {
        let store = &self.inner.store;
        store.read_within(time_limit, ReadKind::Search, |tx| tx.totals(now))
    }
}
