//! Authenticators. Each statement decides and records at once; none reads, compares and writes later.

use std::time::Duration;

use rusqlite::Row;

use super::{ReadTx, Slot, WriteTx};
use crate::error::Result;
use crate::model::{Name, OrgId, Step, Timestamp, TotpId, UserId};
use crate::totp::{Algorithm, Parameters};

/// A pending enrolment that nobody confirmed in this time counts as never begun.
const PENDING_FOR: Duration = Duration::from_mins(10);

/// Whether an authenticator counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TotpState {
    Pending,
    Confirmed,
}

/// An authenticator's row.
pub(crate) struct TotpRow {
    pub(crate) id: TotpId,
    pub(crate) name: Option<Name>,
    pub(crate) state: TotpState,
    /// Where its sealed secret lies.
    pub(crate) slot: Slot,
    pub(crate) parameters: Parameters,
    pub(crate) created: Timestamp,
}

/// What is told of an authenticator that has no row any more.
pub(crate) struct RemovedTotp {
    /// Its user's organization.
    pub(crate) org: OrgId,
    pub(crate) created: Timestamp,
}

const fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sha1 => "SHA1",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha512 => "SHA512",
    }
}

fn totp(row: &Row<'_>) -> rusqlite::Result<TotpRow> {
    let (state, algorithm): (String, String) = (row.get(2)?, row.get(4)?);
    Ok(TotpRow {
        id: TotpId::known(row.get(0)?),
        name: row.get::<_, Option<String>>(1)?.map(Name::known),
        state: if state == "confirmed" {
            TotpState::Confirmed
        } else {
            TotpState::Pending
        },
        slot: Slot::known(row.get(3)?),
        parameters: Parameters {
            algorithm: match algorithm.as_str() {
                "SHA256" => Algorithm::Sha256,
                "SHA512" => Algorithm::Sha512,
                _ => Algorithm::Sha1,
            },
            digits: row.get(5)?,
        },
        created: Timestamp::from_micros(row.get(6)?),
    })
}

/// Before this moment a pending enrolment must have begun to have expired by `now`.
fn expired_before(now: Timestamp) -> i64 {
    now.before(PENDING_FOR).micros()
}

impl ReadTx<'_> {
    /// The last step in which no code of some authenticator is good, for a clock was ahead when it was used.
    pub(crate) fn last_void_step(&self) -> Result<Option<Step>> {
        const SQL: &str = "SELECT max(void_to) FROM totp";
        let step = self.one(SQL, (), |row| row.get::<_, Option<i64>>(0))?;
        Ok(step.flatten().map(Step::from_number))
    }

    /// The authenticators of a user in the order they were begun, without the expired.
    pub(crate) fn totps(&self, user: &UserId, now: Timestamp) -> Result<Vec<TotpRow>> {
        const SQL: &str = "SELECT id, name, state, slot, algorithm, digits, created
            FROM totp WHERE user_id = ?1 AND (state = 'confirmed' OR created > ?2)
            ORDER BY CAST(id AS INTEGER)";
        self.all(SQL, (user.as_str(), expired_before(now)), totp)
    }
}

impl WriteTx<'_> {
    /// Inserts a pending authenticator, in the organization that its user is in.
    pub(crate) fn insert_totp(&self, user: &UserId, it: &TotpRow) -> Result<()> {
        const SQL: &str = "INSERT INTO totp
            (id, user_id, org_id, name, state, slot, algorithm, digits, last_step, created, changed)
            VALUES (?1, ?2, (SELECT org_id FROM user WHERE id = ?2), ?3, 'pending', ?4, ?5, ?6, ?7, ?8, ?8)";
        let row = (
            it.id.as_str(),
            user.as_str(),
            it.name.as_ref().map(Name::as_str),
            it.slot.number(),
            algorithm_name(it.parameters.algorithm),
            it.parameters.digits,
            Step::NONE.number(),
            it.created.micros(),
        );
        self.execute(SQL, row).map(|_| ())
    }

    /// Marks `step` as used, unless it or a later one already was (RFC 6238 §5.2), or it lies where codes were used by
    /// a clock that was ahead.
    ///
    /// Of two requests racing with one code only one can win.
    pub(crate) fn claim_step(&self, user: &UserId, id: &TotpId, step: Step) -> Result<bool> {
        const SQL: &str = "UPDATE totp SET last_step = ?3, changed = ?4
            WHERE user_id = ?1 AND id = ?2 AND state = 'confirmed' AND last_step < ?3
            AND (void_from IS NULL OR ?3 NOT BETWEEN void_from AND void_to)";
        self.take_step(SQL, user, id, step)
    }

    /// Confirms a pending authenticator; the code that did it counts as used. A restored one may know a floor
    /// already, and the same rule holds.
    pub(crate) fn confirm_totp(&self, user: &UserId, id: &TotpId, step: Step) -> Result<bool> {
        const SQL: &str = "UPDATE totp SET state = 'confirmed', last_step = ?3, changed = ?4
            WHERE user_id = ?1 AND id = ?2 AND state = 'pending' AND last_step < ?3
            AND (void_from IS NULL OR ?3 NOT BETWEEN void_from AND void_to)";
        self.take_step(SQL, user, id, step)
    }

    fn take_step(&self, sql: &'static str, user: &UserId, id: &TotpId, step: Step) -> Result<bool> {
        let at = self.event_at().micros();
        let row = (user.as_str(), id.as_str(), step.number(), at);
        Ok(self.execute(sql, row)? == 1)
    }

    /// Removes an authenticator of this user and zeroes its secret, within one organization or over all, unless it
    /// is gone or has expired.
    pub(crate) fn delete_totp(
        &self,
        org: Option<&OrgId>,
        user: &UserId,
        id: &TotpId,
    ) -> Result<Option<RemovedTotp>> {
        const SQL: &str = "DELETE FROM totp
            WHERE user_id = ?1 AND id = ?2 AND (state = 'confirmed' OR created > ?3)
            AND (?4 IS NULL OR org_id = ?4)
            RETURNING org_id, created, slot";
        let (expired, org) = (expired_before(self.now()), org.map(OrgId::as_str));
        let removed = self.one(SQL, (user.as_str(), id.as_str(), expired, org), |row| {
            let removed = RemovedTotp {
                org: OrgId::known(row.get(0)?),
                created: Timestamp::from_micros(row.get(1)?),
            };
            Ok((removed, Slot::known(row.get(2)?)))
        })?;
        let Some((removed, slot)) = removed else {
            return Ok(None);
        };
        self.zero_slot(slot)?;
        Ok(Some(removed))
    }

    /// Removes pending enrolments that have expired and zeroes their secrets, at most `slice` of them.
    pub(crate) fn delete_expired_totps(&self, slice: u32) -> Result<Vec<(UserId, TotpId)>> {
        const SQL: &str = "DELETE FROM totp WHERE (user_id, id) IN (
            SELECT user_id, id FROM totp
            WHERE state = 'pending' AND created <= ?1 ORDER BY created LIMIT ?2
        ) RETURNING user_id, id, slot";
        let removed = self.all(SQL, (expired_before(self.now()), slice), |row| {
            let ids = (UserId::known(row.get(0)?), TotpId::known(row.get(1)?));
            Ok((ids, Slot::known(row.get(2)?)))
        })?;
        for (_, slot) in &removed {
            self.zero_slot(*slot)?;
        }
        Ok(removed.into_iter().map(|(ids, _)| ids).collect())
    }
}
