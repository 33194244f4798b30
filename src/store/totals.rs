//! How many users and authenticators there are, for metrics. Each statement looks through an index or a whole table, so it
//! needs a time limit, and is not for requests.

use super::ReadTx;
use crate::error::Result;
use crate::model::Timestamp;

/// How many there are of each state, and what expires next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) active_users: i64,
    pub(crate) inactive_users: i64,
    pub(crate) locked_users: i64,
    pub(crate) pending_totps: i64,
    pub(crate) confirmed_totps: i64,
    /// For each role with tokens that expire, when the first of them does.
    pub(crate) token_expiries: Vec<(String, Timestamp)>,
    /// When a backup was last made, if that is known.
    pub(crate) backed_up_at: Option<Timestamp>,
}

impl ReadTx<'_> {
    pub(crate) fn totals(&self, now: Timestamp) -> Result<Totals> {
        const USERS: &str = "SELECT count(*) FROM user WHERE state = ?1";
        const TOTPS: &str = "SELECT count(*), coalesce(sum(state = 'pending'), 0) FROM totp";
        // Tokens of users are many, and are made anew with each invitation.
        const TOKENS: &str = "SELECT role, min(expires) FROM token
            WHERE expires > ?1 AND role <> 'self' GROUP BY role";
        const BACKUP: &str = "SELECT backed_up_at FROM instance WHERE one = 1";
        let users = |state: &str| {
            let count = self.one(USERS, (state,), |row| row.get::<_, i64>(0))?;
            Ok(count.unwrap_or_default())
        };
        let totps = self.one(TOTPS, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (all, pending): (i64, i64) = totps.unwrap_or_default();
        let token_expiries = self.all(TOKENS, (now.micros(),), |row| {
            Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))
        })?;
        let backed_up_at = self.one(BACKUP, (), |row| row.get::<_, Option<i64>>(0))?;
        Ok(Totals {
            active_users: users("active")?,
            inactive_users: users("inactive")?,
            locked_users: users("locked")?,
            pending_totps: pending,
            confirmed_totps: all.saturating_sub(pending),
            token_expiries,
            backed_up_at: backed_up_at.flatten().map(Timestamp::from_micros),
        })
    }
}
