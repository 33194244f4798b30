//! Data directories with as many authenticators as a mark wants.
//!
//! What is only ever removed is put there by SQL, with secrets that open under no key: nothing of a
//! removal looks at them. All of that SQL is here.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use prost::Message;
use rusqlite::Connection;
use serde_json::Value;

use crate::Result;
use crate::bench::Order;
use crate::machine;

/// The binary that is measured.
pub(crate) const TOTPD: &str = env!("CARGO_BIN_EXE_totpd");
/// Rows of one transaction: what the log holds at most.
const SLICE: i64 = 50_000;
/// Ids have 18 digits, as totpd's own; these are below all that it makes.
const FIRST_USER: i64 = 100_000_000_000_000_000;
const FIRST_TOTP: i64 = 200_000_000_000_000_000;

const INSERT_USERS: &str = "
    WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
    INSERT INTO user (id, id_folded, org_id, state, created, changed)
    SELECT CAST(?3 + i AS TEXT), CAST(?3 + i AS TEXT), ?4, 'active', ?5, ?5 FROM n";
// Behind all slots that are there: others are enrolled through the API.
const INSERT_SLOTS: &str = "
    WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
    INSERT INTO slot (number, secret) SELECT ?3 + i, randomblob(165) FROM n";
const INSERT_TOTPS: &str = "
    WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
    INSERT INTO totp
        (id, user_id, org_id, name, state, slot, algorithm, digits, last_step, created, changed)
    SELECT CAST(?3 + i AS TEXT), CAST(?4 + i AS TEXT), ?5, NULL, 'confirmed', ?7 + i,
        'SHA1', 6, 1, ?6, ?6 FROM n";

/// The rpc that removes, and as much of its request as that takes.
const REMOVE: &str = "/zitadel.resources.user.v3alpha.ZITADELUsers/RemoveTOTPAuthenticator";
#[derive(Message)]
struct Removal {
    #[prost(string, tag = "3")]
    user: String,
    #[prost(string, tag = "4")]
    totp: String,
}

/// An authenticator that was put there by SQL, and its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target(i64);

impl Target {
    pub(crate) fn user(self) -> String {
        (FIRST_USER + self.0).to_string()
    }

    pub(crate) fn totp(self) -> String {
        (FIRST_TOTP + self.0).to_string()
    }

    /// The request that removes it.
    pub(crate) fn removal(self) -> String {
        format!(
            "DELETE /resources/v3alpha/users/{}/totp/{}",
            self.user(),
            self.totp()
        )
    }

    /// The call that does.
    pub(crate) fn call_to_remove(self) -> String {
        let message = Removal {
            user: self.user(),
            totp: self.totp(),
        };
        let message = HEXLOWER.encode(&message.encode_to_vec());
        format!("POST {REMOVE} {message}")
    }

    /// The request that reads its user.
    pub(crate) fn reading(self) -> String {
        format!("GET /resources/v3alpha/users/{}", self.user())
    }
}

/// A data directory.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    /// An admin's.
    pub(crate) token: String,
    org: String,
    /// How many were ever put there.
    made: i64,
    order: Order,
    /// Those that no load has taken yet.
    left: VecDeque<Target>,
    random: u64,
}

impl Home {
    /// Makes one, by `totpd init`.
    pub(crate) fn init(dir: PathBuf, order: Order) -> Result<Self> {
        let output = Command::new(TOTPD)
            .env_clear()
            .arg("--data-dir")
            .arg(&dir)
            .args(["init", "--json"])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let said: Value = serde_json::from_slice(&output.stdout)?;
        let text = |pointer: &str| said.pointer(pointer).and_then(Value::as_str);
        Ok(Self {
            dir,
            token: text("/token/token").ok_or("no token")?.to_owned(),
            org: text("/orgId").ok_or("no organization")?.to_owned(),
            made: 0,
            order,
            left: VecDeque::new(),
            // Any number but 0 will do; always the same, so that runs are alike.
            random: 0x2545_F491_4F6C_DD1D,
        })
    }

    /// A token of a manager of the one organization.
    pub(crate) fn manager(&self) -> Result<String> {
        let output = Command::new(TOTPD)
            .env_clear()
            .arg("--data-dir")
            .arg(&self.dir)
            .args([
                "token", "create", "--role", "manager", "--org", &self.org, "--json",
            ])
            .output()?;
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let token = answer.pointer("/token").and_then(Value::as_str);
        Ok(token.ok_or("no token of a manager")?.to_owned())
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("totpd.db")
    }

    /// Adds authenticators until there are `count` that no load has taken.
    pub(crate) fn fill(&mut self, count: i64) -> Result<()> {
        let add = count - i64::try_from(self.left.len())?;
        if add <= 0 {
            return Ok(());
        }
        let first = self.made;
        insert(&self.database(), &self.org, first, first + add)?;
        self.made += add;
        for it in first..self.made {
            self.left.push_back(Target(it));
            if self.order == Order::Neighbours {
                continue;
            }
            // Each new one changes places with any that is there.
            let other = self.random() % self.left.len() as u64;
            let last = self.left.len() - 1;
            self.left.swap(other as usize, last);
        }
        Ok(())
    }

    /// Takes authenticators to remove.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Target> {
        let count = count.min(self.left.len());
        self.left.drain(..count).collect()
    }

    /// Gives those back that were not removed after all.
    pub(crate) fn give_back(&mut self, targets: &[Target]) {
        self.left.extend(targets);
    }

    /// Authenticators whose users may be read; they may be removed meanwhile.
    pub(crate) fn some(&self, count: usize) -> Vec<Target> {
        self.left.iter().rev().take(count).copied().collect()
    }

    /// xorshift64: enough to have no order.
    const fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn insert(database: &Path, org: &str, first: i64, end: i64) -> Result<()> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let created = machine::now()?.micros();
    for from in (first..end).step_by(usize::try_from(SLICE)?) {
        let to = end.min(from + SLICE);
        let tx = connection.unchecked_transaction()?;
        let newest = "SELECT coalesce(max(number), 0) FROM slot";
        let newest: i64 = tx.query_row(newest, (), |row| row.get(0))?;
        let slot = newest + 1 - from;
        tx.execute(INSERT_USERS, (from, to, FIRST_USER, org, created))?;
        tx.execute(INSERT_SLOTS, (from, to, slot))?;
        tx.execute(
            INSERT_TOTPS,
            (from, to, FIRST_TOTP, FIRST_USER, org, created, slot),
        )?;
        tx.commit()?;
    }
    // What was put there is on disk and out of the way before anything is measured.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))?;
    Ok(())
}
