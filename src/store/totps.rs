//! Authenticators. Each statement decides and records at once; none reads, compares and writes later.

use std::time::Duration;

use rusqlite::Row;

use super::{ReadTx, Slot, UserRow, WriteTx};
use crate::error::Result;
use crate::model::{Drift, Name, OrgId, Period, Step, Timestamp, TotpId, UserId};
use crate::totp::{Algorithm, Match, Parameters};

/// A pending enrolment that is not confirmed in this time has expired.
const PENDING_LIFETIME: Duration = Duration::from_mins(10);

/// The state of an authenticator. Only a confirmed one can check codes.
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
    /// The slot of its sealed secret.
    pub(crate) slot: Slot,
    pub(crate) parameters: Parameters,
    pub(crate) drift: Drift,
    pub(crate) created: Timestamp,
    /// When a code was last accepted, if that is known.
    pub(crate) last_used: Option<Timestamp>,
    /// The authenticator that confirming this one removes. A confirmed one replaces none.
    pub(crate) replaces: Option<TotpId>,
    /// Whether a code, or another token than a `self` token, allowed the start of the enrolment.
    pub(crate) is_proven: bool,
}

/// What is returned about an authenticator that was deleted.
pub(crate) struct RemovedTotp {
    /// Its user's organization.
    pub(crate) org: OrgId,
    pub(crate) name: Option<Name>,
    pub(crate) created: Timestamp,
    /// Whether its user has recovery codes.
    pub(crate) has_recovery: bool,
}

/// A pending authenticator that was deleted because it had expired.
pub(crate) struct ExpiredTotp {
    pub(crate) org: OrgId,
    pub(crate) user: UserId,
    pub(crate) totp: TotpId,
    pub(crate) name: Option<Name>,
}

fn name(text: Option<String>) -> Option<Name> {
    text.map(Name::from_trusted)
}

fn totp(row: &Row<'_>) -> rusqlite::Result<TotpRow> {
    let (state, algorithm): (String, String) = (row.get(2)?, row.get(4)?);
    Ok(TotpRow {
        id: TotpId::from_trusted(row.get(0)?),
        name: name(row.get(1)?),
        state: if state == "confirmed" {
            TotpState::Confirmed
        } else {
            TotpState::Pending
        },
        slot: Slot::from_number(row.get(3)?),
        parameters: Parameters {
            algorithm: match algorithm.as_str() {
                "SHA256" => Algorithm::Sha256,
                "SHA512" => Algorithm::Sha512,
                _ => Algorithm::Sha1,
            },
            digits: row.get(5)?,
            period: Period::from_trusted(row.get(9)?),
        },
        drift: Drift::from_steps(row.get(10)?).unwrap_or_default(),
        created: Timestamp::from_micros(row.get(6)?),
        last_used: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_micros),
        replaces: row.get::<_, Option<_>>(8)?.map(TotpId::from_trusted),
        is_proven: row.get(11)?,
    })
}

/// A pending enrolment created at or before this time has expired by `now`.
fn expired_before(now: Timestamp) -> i64 {
    now.before(PENDING_LIFETIME).micros()
}

/// The statements that a caller bound to one organization can reach with ids of its own choice, or for a user in it.
/// `super::tests` holds their query plans against SECURITY.md 23.
pub(super) const TOTPS: &str =
    "SELECT id, name, state, slot, algorithm, digits, created, last_used, replaces, period_s, drift_steps,
    proven
    FROM totp WHERE user_id = ?2 AND org_id = ?1 AND (state = 'confirmed' OR created > ?3)
    ORDER BY CAST(id AS INTEGER)";
pub(super) const CLAIM_STEP: &str =
    "UPDATE totp SET last_step = ?4, changed = ?5, last_used = ?5, drift_steps = ?6
    WHERE user_id = ?2 AND org_id = ?1 AND id = ?3 AND state = 'confirmed' AND last_step < ?4
    AND (void_from IS NULL OR ?4 NOT BETWEEN void_from AND void_to)";
pub(super) const CONFIRM_TOTP: &str =
    "UPDATE totp SET state = 'confirmed', last_step = ?4, changed = ?5, last_used = ?5, replaces = NULL
    WHERE user_id = ?2 AND org_id = ?1 AND id = ?3 AND state = 'pending' AND last_step < ?4
    AND (void_from IS NULL OR ?4 NOT BETWEEN void_from AND void_to)";
pub(super) const CLAIM_TWO_STEPS: &str =
    "UPDATE totp SET last_step = ?4, changed = ?5, last_used = ?5, drift_steps = ?6
    WHERE user_id = ?2 AND org_id = ?1 AND id = ?3 AND state = 'confirmed' AND last_step < ?4 - 1
    AND (void_from IS NULL OR ?4 < void_from OR ?4 - 1 > void_to)";
pub(super) const RENAME_TOTP: &str = "UPDATE totp SET name = ?4, changed = ?5
    WHERE user_id = ?2 AND org_id = ?1 AND id = ?3";
pub(super) const DELETE_TOTP_IN_ORG: &str = "DELETE FROM totp
    WHERE user_id = ?1 AND org_id = ?4 AND id = ?2 AND (state = 'confirmed' OR created > ?3)
    RETURNING org_id, created, slot, name, has_recovery";
/// The same for a caller that sees all organizations.
const DELETE_TOTP: &str = "DELETE FROM totp
    WHERE user_id = ?1 AND id = ?2 AND (state = 'confirmed' OR created > ?3)
    RETURNING org_id, created, slot, name, has_recovery";

impl ReadTx<'_> {
    /// When the last void step of any authenticator ends by that authenticator's clock: one used while ours was ahead.
    pub(crate) fn end_of_void_steps(&self) -> Result<Option<Timestamp>> {
        const SQL: &str = "SELECT max((void_to + 1 - drift_steps) * period_s) FROM totp";
        let end_s = self.one(SQL, (), |row| row.get::<_, Option<i64>>(0))?;
        Ok(end_s.flatten().map(Timestamp::from_seconds))
    }

    /// The authenticators of a user in the order of enrolment, without those that have expired.
    pub(crate) fn totps(&self, of: &UserRow, now: Timestamp) -> Result<Vec<TotpRow>> {
        let key = (of.org.as_str(), of.id.as_str(), expired_before(now));
        self.all(TOTPS, key, totp)
    }
}

impl WriteTx<'_> {
    /// Inserts an authenticator, in the organization that its user is in. No code up to the step `floor` is good.
    ///
    /// What totpd enrols is pending, and has no floor. An authenticator that was confirmed elsewhere is inserted as such;
    /// its events are kept as long as its user is there.
    pub(crate) fn insert_totp(&self, user: &UserRow, it: &TotpRow, floor: Step) -> Result<()> {
        const SQL: &str = "INSERT INTO totp
            (id, user_id, org_id, name, state, slot, algorithm, digits, last_step, created, changed, last_used,
                period_s, drift_steps, replaces, proven, has_recovery)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15,
                EXISTS (SELECT 1 FROM recovery_set WHERE user_id = ?2 AND org_id = ?3))";
        let row = (
            it.id.as_str(),
            user.id.as_str(),
            user.org.as_str(),
            it.name.as_ref().map(Name::as_str),
            match it.state {
                TotpState::Pending => "pending",
                TotpState::Confirmed => "confirmed",
            },
            it.slot.number(),
            it.parameters.algorithm.name(),
            it.parameters.digits,
            floor.number(),
            it.created.micros(),
            it.last_used.map(Timestamp::micros),
            it.parameters.period.seconds(),
            it.drift.steps(),
            it.replaces.as_ref().map(TotpId::as_str),
            it.is_proven,
        );
        self.execute(SQL, row)?;
        if it.state == TotpState::Confirmed {
            self.keep_events_of(user, &it.id)?;
        }
        Ok(())
    }

    /// Records that an authenticator is confirmed, so that its events are kept as long as its user is there.
    fn keep_events_of(&self, user: &UserRow, id: &TotpId) -> Result<()> {
        const SQL: &str = "INSERT OR IGNORE INTO confirmed_totp (user_id, totp_id) VALUES (?1, ?2)";
        self.execute(SQL, (user.id.as_str(), id.as_str()))
            .map(|_| ())
    }

    /// Marks the step of a code as used and returns whether it was unused (RFC 6238 §5.2): neither it nor a later one was
    /// used before, and it is not void. Only then the drift changes.
    ///
    /// Of two concurrent requests with the same code only one gets `true`.
    pub(crate) fn claim_step(&self, user: &UserRow, id: &TotpId, matched: Match) -> Result<bool> {
        self.update_step(CLAIM_STEP, user, id, matched)
    }

    /// As [`Self::claim_step`], for a step and the one before: both must be unused.
    pub(crate) fn claim_two_steps(
        &self,
        user: &UserRow,
        id: &TotpId,
        matched: Match,
    ) -> Result<bool> {
        self.update_step(CLAIM_TWO_STEPS, user, id, matched)
    }

    fn update_step(
        &self,
        sql: &'static str,
        user: &UserRow,
        id: &TotpId,
        matched: Match,
    ) -> Result<bool> {
        let (at, org) = (self.event_at().micros(), user.org.as_str());
        let (step, drift) = (matched.step.number(), matched.drift.steps());
        let row = (org, user.id.as_str(), id.as_str(), step, at, drift);
        Ok(self.execute(sql, row)? == 1)
    }

    /// Confirms a pending authenticator and marks the step of its code as used. It shows no drift: who has just scanned the
    /// secret types late. As [`Self::claim_step`], because a restore
    /// may have raised the floor of a pending one. From now on its events are kept as long as its user is there. They may be
    /// already: a restore takes over which authenticators were confirmed, also those that are pending in the backup.
    pub(crate) fn confirm_totp(&self, user: &UserRow, id: &TotpId, step: Step) -> Result<bool> {
        let (at, org) = (self.event_at().micros(), user.org.as_str());
        let row = (org, user.id.as_str(), id.as_str(), step.number(), at);
        let is_confirmed = self.execute(CONFIRM_TOTP, row)? == 1;
        if is_confirmed {
            self.keep_events_of(user, id)?;
        }
        Ok(is_confirmed)
    }

    /// Changes the name of an authenticator. Returns whether it is there.
    pub(crate) fn rename_totp(&self, user: &UserRow, id: &TotpId, name: &Name) -> Result<bool> {
        let (at, org) = (self.event_at().micros(), user.org.as_str());
        let row = (org, user.id.as_str(), id.as_str(), name.as_str(), at);
        Ok(self.execute(RENAME_TOTP, row)? == 1)
    }

    /// Deletes an authenticator of this user and zeroes its secret, in one organization or in any. Returns `None` if
    /// there is none, or if it has expired.
    pub(crate) fn delete_totp(
        &self,
        org: Option<&OrgId>,
        user: &UserId,
        id: &TotpId,
    ) -> Result<Option<RemovedTotp>> {
        let removed = |row: &Row<'_>| {
            let removed = RemovedTotp {
                org: OrgId::from_trusted(row.get(0)?),
                created: Timestamp::from_micros(row.get(1)?),
                name: name(row.get(3)?),
                has_recovery: row.get(4)?,
            };
            Ok((removed, Slot::from_number(row.get(2)?)))
        };
        let (user, id, expired) = (user.as_str(), id.as_str(), expired_before(self.now()));
        let removed = match org {
            Some(org) => {
                let key = (user, id, expired, org.as_str());
                self.one(DELETE_TOTP_IN_ORG, key, removed)?
            }
            None => self.one(DELETE_TOTP, (user, id, expired), removed)?,
        };
        let Some((removed, slot)) = removed else {
            return Ok(None);
        };
        self.zero_slot(slot)?;
        Ok(Some(removed))
    }

    /// Deletes pending enrolments that have expired and zeroes their secrets, at most `slice` of them.
    pub(crate) fn delete_expired_totps(&self, slice: u32) -> Result<Vec<ExpiredTotp>> {
        const SQL: &str = "DELETE FROM totp WHERE (user_id, org_id, id) IN (
            SELECT user_id, org_id, id FROM totp
            WHERE state = 'pending' AND created <= ?1 ORDER BY created LIMIT ?2
        ) RETURNING user_id, id, slot, org_id, name";
        let removed = self.all(SQL, (expired_before(self.now()), slice), |row| {
            let expired = ExpiredTotp {
                org: OrgId::from_trusted(row.get(3)?),
                user: UserId::from_trusted(row.get(0)?),
                totp: TotpId::from_trusted(row.get(1)?),
                name: name(row.get(4)?),
            };
            Ok((expired, Slot::from_number(row.get(2)?)))
        })?;
        for (_, slot) in &removed {
            self.zero_slot(*slot)?;
        }
        Ok(removed.into_iter().map(|(expired, _)| expired).collect())
    }
}
