//! The floor: what bare SQLite does with the statements of a removal, one commit each, on one thread.
//!
//! Three bare tables, no index but the primary keys, WAL, `synchronous=FULL`, everything else as SQLite has
//! it. The rows are as long as totpd's. The user is read here, as the marks have it; totpd finds beside the
//! authenticator what it has to know.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::Result;
use crate::bench::Order;
use crate::machine;

const SCHEMA: &str = "
    CREATE TABLE user (id TEXT PRIMARY KEY, org_id TEXT, state TEXT, schema_id TEXT, data TEXT,
        created INTEGER, changed INTEGER);
    CREATE TABLE totp (id TEXT PRIMARY KEY, user_id TEXT, name TEXT, state TEXT, secret BLOB,
        algorithm TEXT, digits INTEGER, last_step INTEGER, created INTEGER, changed INTEGER);
    CREATE TABLE event (id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, actor TEXT, peer TEXT,
        org_id TEXT, user_id TEXT, about_id TEXT);";
const INSERT_USERS: &str = "
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    INSERT INTO user SELECT CAST(100000000000000000 + i AS TEXT), '300000000000000000', 'active',
        NULL, NULL, 1700000000000000, 1700000000000000 FROM n";
const INSERT_TOTP: &str = "
    INSERT INTO totp VALUES (?1, ?2, NULL, 'confirmed', randomblob(56), 'SHA1', 6, 1,
        1700000000000000, 1700000000000000)";

const READ_USER: &str =
    "SELECT id, org_id, state, schema_id, data, created, changed FROM user WHERE id = ?1";
const DELETE_TOTP: &str = "DELETE FROM totp WHERE id = ?1 AND user_id = ?2 RETURNING created";
const APPEND_EVENT: &str = "
    INSERT INTO event (at, kind, actor, peer, org_id, user_id, about_id)
    VALUES (?1, 'totp.removed', '400000000000000000', '127.0.0.1', ?2, ?3, ?4)";

pub(crate) struct Floor {
    connection: Connection,
    left: VecDeque<i64>,
    gone: Vec<i64>,
}

/// What the floor was at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// Removals a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
}

impl Level {
    /// What it was between two measurements.
    pub(crate) fn between(self, other: Self) -> Self {
        Self {
            rate: f64::midpoint(self.rate, other.rate),
            p50_ms: f64::midpoint(self.p50_ms, other.p50_ms),
        }
    }
}

impl Floor {
    pub(crate) fn make(path: &Path, rows: i64, order: Order) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        connection.execute(INSERT_USERS, (rows,))?;
        // Every place once and none beside the next: a prime that is no factor of the count, as steps.
        let stride = match order {
            Order::Scattered => 7919,
            Order::Neighbours => 1,
        };
        let all: Vec<i64> = (0..rows).collect();
        let left = (0..rows).map(|it| it * stride % rows).collect();
        let floor = Self {
            connection,
            left,
            gone: Vec::new(),
        };
        floor.insert(&all)?;
        Ok(floor)
    }

    /// Removes for so long, `batch` removals a commit, or until half of the rows are gone, and puts them back. The
    /// median is that of a commit.
    pub(crate) fn measure(&mut self, time: Duration, batch: usize) -> Result<Level> {
        let enough = self.left.len() / 2;
        let mut times = Vec::new();
        let start = Instant::now();
        let mut last = start;
        while last.duration_since(start) < time && self.gone.len() < enough {
            let count = batch.min(self.left.len());
            let places: Vec<i64> = self.left.drain(..count).collect();
            self.remove(&places)?;
            self.gone.extend(places);
            let now = Instant::now();
            times.push(now.duration_since(last));
            last = now;
        }
        let rate = self.gone.len() as f64 / last.duration_since(start).as_secs_f64();
        times.sort_unstable();
        let p50_ms = machine::at_share(&times, 0.5).as_secs_f64() * 1e3;
        let gone = std::mem::take(&mut self.gone);
        self.insert(&gone)?;
        self.left.extend(gone);
        Ok(Level { rate, p50_ms })
    }

    /// Removes these in one transaction.
    fn remove(&self, places: &[i64]) -> Result<()> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute(());
        run("BEGIN IMMEDIATE")?;
        for place in places {
            self.remove_one(*place)?;
        }
        run("COMMIT")?;
        Ok(())
    }

    fn remove_one(&self, place: i64) -> Result<()> {
        let (user, totp) = ids(place);
        let mut statement = self.connection.prepare_cached(READ_USER)?;
        let org: String = statement.query_row((&user,), |row| row.get(1))?;
        let mut statement = self.connection.prepare_cached(DELETE_TOTP)?;
        let _created: i64 = statement.query_row((&totp, &user), |row| row.get(0))?;
        let mut statement = self.connection.prepare_cached(APPEND_EVENT)?;
        statement.execute((machine::now()?.micros(), &org, &user, &totp))?;
        Ok(())
    }

    fn insert(&self, places: &[i64]) -> Result<()> {
        let tx = self.connection.unchecked_transaction()?;
        for place in places {
            let (user, totp) = ids(*place);
            tx.prepare_cached(INSERT_TOTP)?.execute((totp, user))?;
        }
        tx.commit()?;
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))?;
        Ok(())
    }
}

fn ids(place: i64) -> (String, String) {
    let user = 100_000_000_000_000_000 + place;
    let totp = 200_000_000_000_000_000 + place;
    (user.to_string(), totp.to_string())
}
