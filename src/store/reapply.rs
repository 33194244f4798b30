//! Applies to a restored copy the removals, revocations, locks and waits of the database that it replaces
//! (SECURITY.md 32).
//!
//! The copy is `main`, and the replaced database is attached as `replaced`. Removals and revocations are read from its
//! events, locks and waits from its rows. Those of users that the copy does not have are kept in the copy, because the
//! next restore may bring such a user back.

use super::floors::floor;
use super::{WriteTx, unavailable};
use crate::error::Result;

/// How much of the backup was removed or revoked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReapplyCounts {
    /// Authenticators.
    pub totps: usize,
    /// Tokens.
    pub tokens: usize,
    /// Users with everything that belongs to them.
    pub users: usize,
    /// Users whose recovery codes in the backup are void: replaced or removed since, or, where a part of the record is
    /// lost, all of them.
    pub recovery_codes: usize,
}

impl WriteTx<'_> {
    /// Applies the removals and revocations of the replaced database, and its restrictions of users.
    pub(super) fn apply_again(&self) -> Result<ReapplyCounts> {
        self.find_removals()?;
        let applied = self.apply_removals()?;
        self.apply_restrictions()?;
        self.take_over_floors()?;
        self.apply_void_steps()?;
        self.take_over_last_uses()?;
        self.take_over_confirmed_totps()?;
        let end = "DROP TABLE temp.removal";
        self.connection.execute_batch(end).map_err(unavailable)?;
        Ok(applied)
    }

    /// Lists the removals and revocations that the replaced database has and the copy does not have.
    ///
    /// Ids of events differ between the two after a restore, so events are compared by their content. If the clock stood
    /// still, two events can have the same content: then the first is compared with the first, the second with the second.
    fn find_removals(&self) -> Result<()> {
        const TABLE: &str = "CREATE TEMP TABLE removal (
            id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, actor TEXT, peer TEXT, org_id TEXT, user_id TEXT, about_id TEXT,
            request_id TEXT, about_name TEXT)";
        const FIND: &str = "INSERT INTO temp.removal
            (id, at, kind, actor, peer, org_id, user_id, about_id, request_id, about_name)
            SELECT id, at, kind, actor, peer, org_id, user_id, about_id, request_id, about_name FROM (
                SELECT id, at, kind, actor, peer, org_id, user_id, about_id, request_id, about_name, row_number() OVER (
                    PARTITION BY at, kind, actor, peer, org_id, user_id, about_id ORDER BY id) AS nth
                FROM replaced.event
                WHERE kind IN ('totp.removed', 'token.revoked', 'user.removed'))
            WHERE json_array(at, kind, actor, peer, org_id, user_id, about_id, nth) NOT IN (
                SELECT json_array(at, kind, actor, peer, org_id, user_id, about_id, row_number() OVER (
                    PARTITION BY at, kind, actor, peer, org_id, user_id, about_id ORDER BY id))
                FROM main.event
                WHERE kind IN ('totp.removed', 'token.revoked', 'user.removed'))";
        self.connection.execute_batch(TABLE).map_err(unavailable)?;
        self.execute(FIND, ()).map(|_| ())
    }

    /// Raises the floors to those of the replaced database, whose drifts may be larger: by such a drift codes of later
    /// steps were used. A step that no drift explains is of a clock that was ahead, and no floor.
    fn take_over_floors(&self) -> Result<()> {
        const SQL: &str = concat!(
            "UPDATE main.totp SET last_step = max(totp.last_step, there.floor,
                CASE WHEN there.last_step <= there.latest THEN there.last_step ELSE -1 END)
            FROM (SELECT user_id, id, last_step, ",
            floor!("?1"),
            " AS floor, max(?1, 0) / totp.period_s + 20 + 1 AS latest FROM replaced.totp AS totp) AS there
            WHERE there.user_id = totp.user_id AND there.id = totp.id"
        );
        self.execute(SQL, (self.now().seconds(),)).map(|_| ())
    }

    /// Voids the steps that the replaced database knows to have been used by a clock that was ahead: the copy may be
    /// older than that. Every floor of the copy is at the present already.
    fn apply_void_steps(&self) -> Result<()> {
        const SQL: &str = "UPDATE main.totp SET
            void_from = CASE WHEN totp.void_to > totp.last_step
                THEN min(totp.void_from, there.void_from) ELSE there.void_from END,
            void_to = CASE WHEN totp.void_to > totp.last_step
                THEN max(totp.void_to, there.void_to) ELSE there.void_to END
            FROM replaced.totp AS there
            WHERE there.user_id = totp.user_id AND there.id = totp.id AND there.void_to > totp.last_step";
        self.execute(SQL, ()).map(|_| ())
    }

    /// Dates the last use of an authenticator as the replaced database does, where that is later, and takes over the drift
    /// that was found with it. A time later than now is not taken over.
    fn take_over_last_uses(&self) -> Result<()> {
        const SQL: &str =
            "UPDATE main.totp SET last_used = there.last_used, drift_steps = there.drift_steps
            FROM replaced.totp AS there
            WHERE there.user_id = totp.user_id AND there.id = totp.id
            AND there.last_used > coalesce(totp.last_used, 0) AND there.last_used <= ?1";
        self.execute(SQL, (self.now().micros(),)).map(|_| ())
    }

    /// Keeps the events of authenticators that were confirmed since, as long as their users are there. A user is
    /// identified by its id and the time of its creation.
    fn take_over_confirmed_totps(&self) -> Result<()> {
        const SQL: &str = "INSERT OR IGNORE INTO main.confirmed_totp (user_id, totp_id)
            SELECT there.user_id, there.totp_id FROM replaced.confirmed_totp AS there
            JOIN replaced.user AS known ON known.id = there.user_id
            JOIN main.user AS here ON here.id = known.id AND here.created = known.created";
        self.execute(SQL, ()).map(|_| ())
    }

    /// Takes over what the replaced database knows of the clock, in place of what the gap since the backup suggests.
    pub(super) fn take_over_clock_trust(&self) -> Result<()> {
        const SQL: &str = "UPDATE main.instance SET clock_doubted_from = there.clock_doubted_from,
            clock_confirmed_at = there.clock_confirmed_at
            FROM replaced.instance AS there WHERE main.instance.one = 1 AND there.one = 1";
        self.execute(SQL, ()).map(|_| ())
    }

    fn apply_removals(&self) -> Result<ReapplyCounts> {
        // Times of events must not decrease. Events from before the copy's own record are left out: every backup that a
        // later restore without loss accepts is newer, and has them applied.
        const EVENTS: &str =
            "INSERT INTO main.event (at, kind, actor, peer, org_id, user_id, about_id, request_id, about_name)
            SELECT max(at, ?1), kind, actor, peer, org_id, user_id, about_id, request_id, about_name FROM temp.removal
            WHERE at > ?2 ORDER BY id";
        const TOTPS: &str = "DELETE FROM main.totp WHERE (user_id, id) IN (
            SELECT user_id, about_id FROM temp.removal WHERE kind = 'totp.removed')";
        const TOKENS: &str = "DELETE FROM main.token WHERE id IN (
            SELECT about_id FROM temp.removal WHERE kind = 'token.revoked')";
        // A user's id may be used again. A user created after the removal is a different one.
        const USERS: &str = "DELETE FROM main.user WHERE EXISTS (
            SELECT 1 FROM temp.removal AS gone
            WHERE gone.kind = 'user.removed' AND gone.user_id = user.id AND gone.at >= user.created)";
        const IDS: &str = "UPDATE main.instance SET last_id =
            max(last_id, (SELECT last_id FROM replaced.instance WHERE one = 1)) WHERE one = 1";

        let as_of = self.newest_event_at()?.micros();
        let deleted = self.newest_deleted_event_at()?.micros();
        self.execute(EVENTS, (as_of, deleted))?;
        let users = self.execute(USERS, ())?;
        let totps = self.execute(TOTPS, ())?;
        let tokens = self.execute(TOKENS, ())?;
        self.execute(IDS, ())?;
        Ok(ReapplyCounts {
            totps,
            tokens,
            users,
            recovery_codes: 0,
        })
    }

    /// Keeps of the copy's recovery codes what the replaced database has too: the same set, of a user who still has a
    /// confirmed authenticator, and in it what neither of the two knows to be used. Deletes all other sets. Where the
    /// replaced database does not have the whole record, one of its codes may have been used: then nothing is kept.
    ///
    /// Returns how many sets were deleted. Their slots are zeroed by [`Self::zero_unused_slots`].
    pub(super) fn keep_recovery_codes(&self, is_complete: bool) -> Result<usize> {
        const VOID: &str = "CREATE TEMP TABLE void (user_id TEXT PRIMARY KEY)";
        const FIND_ALL: &str = "INSERT INTO temp.void SELECT user_id FROM main.recovery_set";
        const FIND: &str = "INSERT INTO temp.void SELECT user_id FROM main.recovery_set AS here
            WHERE NOT EXISTS (SELECT 1 FROM replaced.recovery_set AS there
                WHERE there.user_id = here.user_id AND there.id = here.id)
            OR NOT EXISTS (SELECT 1 FROM main.totp
                WHERE totp.user_id = here.user_id AND totp.state = 'confirmed')";
        const EVENTS: &str = "INSERT INTO main.event (at, kind, actor, org_id, user_id, about_id)
            SELECT ?1, 'recovery.removed', 'command-line', org_id, user_id, id FROM main.recovery_set
            WHERE user_id IN (SELECT user_id FROM temp.void) ORDER BY user_id";
        const DELETE: &str = "DELETE FROM main.recovery_set
            WHERE user_id IN (SELECT user_id FROM temp.void)";
        const FLAGS: &str = "UPDATE main.totp SET has_recovery = 1 - has_recovery
            WHERE has_recovery <> EXISTS (
                SELECT 1 FROM main.recovery_set AS here WHERE here.user_id = totp.user_id)";
        const USED: &str = "UPDATE main.recovery_set SET used = recovery_set.used | there.used,
            changed = max(recovery_set.changed, min(there.changed, ?1))
            FROM replaced.recovery_set AS there
            WHERE there.user_id = recovery_set.user_id AND there.id = recovery_set.id";

        let at = self.event_at().micros();
        self.connection.execute_batch(VOID).map_err(unavailable)?;
        self.execute(if is_complete { FIND } else { FIND_ALL }, ())?;
        self.execute(EVENTS, (at,))?;
        let deleted = self.execute(DELETE, ())?;
        self.execute(FLAGS, ())?;
        if is_complete {
            self.execute(USED, (at,))?;
        }
        let end = "DROP TABLE temp.void";
        self.connection.execute_batch(end).map_err(unavailable)?;
        Ok(deleted)
    }

    /// Locks and deactivates users and starts waits as in the replaced database. Keeps the restrictions of users that the
    /// copy does not have. A user is identified by its id and the time of its creation. Restrictions that the copy has
    /// remain.
    fn apply_restrictions(&self) -> Result<()> {
        const KEPT: &str =
            "INSERT INTO main.restriction (user_id, created, state, in_a_row, judged_at)
            SELECT user_id, created, state, in_a_row, judged_at FROM replaced.restriction WHERE true
            ON CONFLICT (user_id, created) DO UPDATE SET
                state = CASE excluded.state WHEN 'active' THEN state ELSE excluded.state END,
                in_a_row = max(in_a_row, excluded.in_a_row), judged_at = max(judged_at, excluded.judged_at)";
        const FOUND: &str =
            "INSERT INTO main.restriction (user_id, created, state, in_a_row, judged_at)
            SELECT user.id, user.created, user.state, coalesce(failure.in_a_row, 0), coalesce(failure.judged_at, 0)
            FROM replaced.user AS user LEFT JOIN replaced.failure AS failure ON failure.user_id = user.id
            WHERE user.state <> 'active' OR failure.in_a_row > 0
            ON CONFLICT (user_id, created) DO UPDATE SET
                state = CASE excluded.state WHEN 'active' THEN state ELSE excluded.state END,
                in_a_row = max(in_a_row, excluded.in_a_row), judged_at = max(judged_at, excluded.judged_at)";
        const STATES: &str = "UPDATE main.user SET state = known.state, changed = max(changed, ?1)
            FROM main.restriction AS known
            WHERE known.user_id = user.id AND known.created = user.created
            AND known.state <> 'active' AND known.state <> user.state";
        const WAITS: &str = "INSERT INTO main.failure (user_id, in_a_row, judged_at)
            SELECT known.user_id, known.in_a_row, known.judged_at FROM main.restriction AS known
            JOIN main.user AS here ON here.id = known.user_id AND here.created = known.created
            WHERE known.in_a_row > 0
            ON CONFLICT (user_id) DO UPDATE SET in_a_row = max(in_a_row, excluded.in_a_row),
                judged_at = max(judged_at, excluded.judged_at)";
        const APPLIED: &str = "DELETE FROM main.restriction WHERE EXISTS (
            SELECT 1 FROM main.user WHERE user.id = restriction.user_id AND user.created = restriction.created)";

        self.execute(KEPT, ())?;
        self.execute(FOUND, ())?;
        self.execute(STATES, (self.event_at().micros(),))?;
        self.execute(WAITS, ())?;
        self.execute(APPLIED, ()).map(|_| ())
    }
}
