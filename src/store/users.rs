//! Users, their usernames, and their failures in a row.

use rusqlite::Row;

use super::{ReadTx, WriteTx};
use crate::error::{Error, Result};
use crate::model::{Name, OrgId, Timestamp, UserId, UserState, fold};

/// A user's row.
pub(crate) struct UserRow {
    pub(crate) id: UserId,
    pub(crate) org: OrgId,
    pub(crate) state: UserState,
    pub(crate) schema_id: Option<String>,
    /// JSON, as it was given.
    pub(crate) data: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) changed: Timestamp,
}

/// A user that was found, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundUser {
    /// Its id.
    pub id: UserId,
    /// Its organization.
    pub org: OrgId,
}

/// A username's row.
pub(crate) struct UsernameRow {
    pub(crate) id: String,
    pub(crate) username: Name,
    pub(crate) is_organization_specific: bool,
}

/// Failures in a row, and when the last of them was judged.
pub(crate) struct Failures {
    pub(crate) in_a_row: u32,
    pub(crate) judged_at: Timestamp,
}

/// How a state stands in the database.
pub(super) const fn state_name(state: UserState) -> &'static str {
    match state {
        UserState::Active => "active",
        UserState::Inactive => "inactive",
        UserState::Locked => "locked",
    }
}

/// A user's row out of the columns id, org_id, state, schema_id, data, created, changed.
pub(super) fn user(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    let state: String = row.get(2)?;
    Ok(UserRow {
        id: UserId::known(row.get(0)?),
        org: OrgId::known(row.get(1)?),
        state: match state.as_str() {
            "active" => UserState::Active,
            "inactive" => UserState::Inactive,
            // Whatever else may stand there checks nothing.
            _ => UserState::Locked,
        },
        schema_id: row.get(3)?,
        data: row.get(4)?,
        created: Timestamp::from_micros(row.get(5)?),
        changed: Timestamp::from_micros(row.get(6)?),
    })
}

impl ReadTx<'_> {
    pub(crate) fn user(&self, id: &UserId) -> Result<Option<UserRow>> {
        const SQL: &str = "SELECT id, org_id, state, schema_id, data, created, changed
            FROM user WHERE id = ?1";
        self.one(SQL, (id.as_str(),), user)
    }

    /// Users after `after` in the order of their ids, at most `limit`.
    pub(crate) fn users_after(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<UserRow>> {
        const SQL: &str = "SELECT id, org_id, state, schema_id, data, created, changed
            FROM user WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.all(SQL, (after.map_or("", UserId::as_str), limit), user)
    }

    /// Users of that username, without regard to case and normalization, in one organization or in all. At most three: two
    /// are ambiguous, and shown.
    pub(crate) fn users_named(
        &self,
        username: &Name,
        org: Option<&OrgId>,
    ) -> Result<Vec<FoundUser>> {
        const ANYWHERE: &str =
            "SELECT DISTINCT user_id, org_id FROM username WHERE folded = ?1 LIMIT 3";
        const IN_ONE: &str = "SELECT DISTINCT user_id, org_id FROM username
            WHERE folded = ?1 AND org_id = ?2 LIMIT 3";
        let folded = fold(username.as_str());
        let found = |row: &Row<'_>| {
            Ok(FoundUser {
                id: UserId::known(row.get(0)?),
                org: OrgId::known(row.get(1)?),
            })
        };
        match org {
            None => self.all(ANYWHERE, (folded,), found),
            Some(org) => self.all(IN_ONE, (folded, org.as_str()), found),
        }
    }

    /// The usernames of a user in the order they were given.
    pub(crate) fn usernames(&self, user: &UserId) -> Result<Vec<UsernameRow>> {
        const SQL: &str = "SELECT id, username, org_specific FROM username
            WHERE user_id = ?1 ORDER BY CAST(id AS INTEGER)";
        self.all(SQL, (user.as_str(),), |row| {
            Ok(UsernameRow {
                id: row.get(0)?,
                username: Name::known(row.get(1)?),
                is_organization_specific: row.get(2)?,
            })
        })
    }

    /// A user's failures in a row, if there are any.
    pub(crate) fn failures(&self, user: &UserId) -> Result<Option<Failures>> {
        const SQL: &str = "SELECT in_a_row, judged_at FROM failure WHERE user_id = ?1";
        self.one(SQL, (user.as_str(),), |row| {
            Ok(Failures {
                in_a_row: row.get(0)?,
                judged_at: Timestamp::from_micros(row.get(1)?),
            })
        })
    }
}

impl WriteTx<'_> {
    /// Inserts a user, unless the id is taken.
    pub(crate) fn insert_user(&self, it: &UserRow) -> Result<bool> {
        const SQL: &str = "INSERT INTO user
            (id, id_folded, org_id, schema_id, data, created, changed)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING";
        let row = (
            it.id.as_str(),
            fold(it.id.as_str()),
            it.org.as_str(),
            &it.schema_id,
            &it.data,
            it.created.micros(),
            it.changed.micros(),
        );
        Ok(self.execute(SQL, row)? == 1)
    }

    /// Gives a user a username, unless somebody of the organization has it, in whichever case and normalization.
    ///
    /// No index judges that: databases made before this rule may hold usernames that clash, and those stay.
    pub(crate) fn insert_username(&self, user: &UserRow, it: &UsernameRow) -> Result<()> {
        const SQL: &str = "INSERT INTO username
            (id, user_id, org_id, username, folded, org_specific)
            SELECT ?1, ?2, ?3, ?4, ?5, ?6
            WHERE NOT EXISTS (SELECT 1 FROM username WHERE org_id = ?3 AND folded = ?5)";
        let specific = it.is_organization_specific;
        let row = (
            &it.id,
            user.id.as_str(),
            user.org.as_str(),
            it.username.as_str(),
            fold(it.username.as_str()),
            specific,
        );
        if self.execute(SQL, row)? == 1 {
            Ok(())
        } else {
            Err(Error::Taken("the username"))
        }
    }

    /// Removes a user and everything of it: usernames, authenticators with their secrets, failures, its own tokens.
    pub(crate) fn delete_user(&self, id: &UserId) -> Result<bool> {
        const SQL: &str = "DELETE FROM user WHERE id = ?1";
        // Before the rows go that name the slots.
        self.zero_slots_of_user(id)?;
        Ok(self.execute(SQL, (id.as_str(),))? == 1)
    }

    /// Puts a user from one of the states in `from` into the state `to`, and says whether it was in one.
    pub(crate) fn change_state(
        &self,
        id: &UserId,
        from: &[UserState],
        to: UserState,
    ) -> Result<bool> {
        const SQL: &str = "UPDATE user SET state = ?2, changed = ?3
            WHERE id = ?1 AND state IN (?4, ?5)";
        let at = |n: usize| from.get(n).or(from.first()).copied().map(state_name);
        let key = (
            id.as_str(),
            state_name(to),
            self.event_at().micros(),
            at(0),
            at(1),
        );
        Ok(self.execute(SQL, key)? == 1)
    }

    /// Counts one more failure in a row.
    pub(crate) fn count_failure(&self, user: &UserId) -> Result<()> {
        const SQL: &str = "INSERT INTO failure (user_id, in_a_row, judged_at) VALUES (?1, 1, ?2)
            ON CONFLICT (user_id) DO UPDATE
            SET in_a_row = min(in_a_row + 1, 1000000), judged_at = excluded.judged_at";
        self.execute(SQL, (user.as_str(), self.now().micros()))
            .map(|_| ())
    }

    /// Forgets a user's failures, and says whether there were any.
    pub(crate) fn clear_failures(&self, user: &UserId) -> Result<bool> {
        const SQL: &str = "DELETE FROM failure WHERE user_id = ?1";
        Ok(self.execute(SQL, (user.as_str(),))? == 1)
    }

    /// Lets no failure lie in the future: after the clock went back a wait begins anew rather than
    /// lasting longer than it was told.
    pub(crate) fn anchor_failures(&self) -> Result<()> {
        const SQL: &str = "UPDATE failure SET judged_at = ?1 WHERE judged_at > ?1";
        self.execute(SQL, (self.now().micros(),)).map(|_| ())
    }
}
