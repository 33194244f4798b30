//! Users, their usernames, and their failures in a row.

use rusqlite::Row;

use super::{ReadTx, WriteTx};
use crate::error::{Error, Result};
use crate::model::{Name, OrgId, Timestamp, UserId, UserState, fold};

/// The columns of a user's row that every call needs.
pub(crate) struct UserRow {
    pub(crate) id: UserId,
    pub(crate) org: OrgId,
    pub(crate) state: UserState,
    pub(crate) created: Timestamp,
    pub(crate) changed: Timestamp,
}

/// The other columns of a user's row. They may be long, and are read only where they are shown.
pub(crate) struct UserContent {
    pub(crate) schema_id: Option<String>,
    /// JSON, as the caller sent it.
    pub(crate) data: Option<String>,
}

/// A user found by name, and its organization.
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

/// The number of failures in a row, and the time of the last.
pub(crate) struct Failures {
    pub(crate) in_a_row: u32,
    pub(crate) judged_at: Timestamp,
}

/// The name of a state in the database.
pub(super) const fn state_name(state: UserState) -> &'static str {
    match state {
        UserState::Active => "active",
        UserState::Inactive => "inactive",
        UserState::Locked => "locked",
    }
}

/// Reads a user's row from the columns id, org_id, state, created, changed.
pub(super) fn user(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    let state: String = row.get(2)?;
    Ok(UserRow {
        id: UserId::from_trusted(row.get(0)?),
        org: OrgId::from_trusted(row.get(1)?),
        state: match state.as_str() {
            "active" => UserState::Active,
            "inactive" => UserState::Inactive,
            // Any other value fails closed: a locked user can check no codes.
            _ => UserState::Locked,
        },
        created: Timestamp::from_micros(row.get(3)?),
        changed: Timestamp::from_micros(row.get(4)?),
    })
}

/// The statements that a caller bound to one organization can reach with ids of its own choice, or for a user that one
/// of them found. `super::tests` holds their query plans against SECURITY.md 23.
pub(super) const USER_IN_ORG: &str = "SELECT id, org_id, state, created, changed
    FROM user INDEXED BY user_in_org WHERE org_id = ?1 AND id = ?2";
pub(super) const USER_CONTENT: &str = "SELECT schema_id, data
    FROM user INDEXED BY user_in_org WHERE org_id = ?1 AND id = ?2";
pub(super) const USERNAMES: &str = "SELECT id, username, org_specific FROM username
    WHERE user_id = ?2 AND org_id = ?1 ORDER BY CAST(id AS INTEGER)";
pub(super) const USERNAME_IS_TAKEN: &str =
    "SELECT 1 FROM username WHERE org_id = ?1 AND folded = ?2";
pub(super) const DELETE_USER: &str =
    "DELETE FROM user INDEXED BY user_in_org WHERE org_id = ?1 AND id = ?2";
pub(super) const CHANGE_STATE: &str =
    "UPDATE user INDEXED BY user_in_org SET state = ?3, changed = ?4
    WHERE org_id = ?1 AND id = ?2 AND state IN (?5, ?6)";

impl ReadTx<'_> {
    /// Finds a user in one organization or in any.
    pub(crate) fn user(&self, org: Option<&OrgId>, id: &UserId) -> Result<Option<UserRow>> {
        // `org_id` stands before `data` in the row and the other columns behind it: they are read from the index.
        const ANYWHERE: &str = "SELECT u.id, u.org_id, u.state, u.created, u.changed
            FROM user AS found CROSS JOIN user AS u INDEXED BY user_in_org
            ON u.org_id = found.org_id AND u.id = found.id WHERE found.id = ?1";
        match org {
            Some(org) => self.one(USER_IN_ORG, (org.as_str(), id.as_str()), user),
            None => self.one(ANYWHERE, (id.as_str(),), user),
        }
    }

    /// Reads the other columns of a user's row.
    pub(crate) fn user_content(&self, of: &UserRow) -> Result<UserContent> {
        let found = self.one(USER_CONTENT, (of.org.as_str(), of.id.as_str()), |row| {
            Ok(UserContent {
                schema_id: row.get(0)?,
                data: row.get(1)?,
            })
        })?;
        found.ok_or_else(|| Error::Bug("a row is gone from its own snapshot".to_owned()))
    }

    /// Users after `after` in the order of their ids, at most `limit`.
    pub(crate) fn users_after(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<UserRow>> {
        const SQL: &str = "SELECT id, org_id, state, created, changed
            FROM user WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.all(SQL, (after.map_or("", UserId::as_str), limit), user)
    }

    /// Users of one organization after `after` in the order of their ids, at most `limit`.
    pub(crate) fn users_in_organization_after(
        &self,
        org: &OrgId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserRow>> {
        const SQL: &str = "SELECT id, org_id, state, created, changed
            FROM user INDEXED BY user_in_org WHERE org_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let key = (org.as_str(), after.map_or("", UserId::as_str), limit);
        self.all(SQL, key, user)
    }

    /// Users with this username, regardless of case and normalization, in one organization or in any. At most three, since
    /// more than one is ambiguous.
    pub(crate) fn users_named(
        &self,
        username: &Name,
        org: Option<&OrgId>,
    ) -> Result<Vec<FoundUser>> {
        const ANYWHERE: &str = "SELECT DISTINCT user_id, org_id FROM username
            WHERE org_id IN (SELECT id FROM organization) AND folded = ?1 LIMIT 3";
        const IN_ONE: &str = "SELECT DISTINCT user_id, org_id FROM username
            WHERE folded = ?1 AND org_id = ?2 LIMIT 3";
        let folded = fold(username.as_str());
        let found = |row: &Row<'_>| {
            Ok(FoundUser {
                id: UserId::from_trusted(row.get(0)?),
                org: OrgId::from_trusted(row.get(1)?),
            })
        };
        match org {
            None => self.all(ANYWHERE, (folded,), found),
            Some(org) => self.all(IN_ONE, (folded, org.as_str()), found),
        }
    }

    /// An example of usernames in one organization that differ only in case or normalization. Empty if there is none.
    pub(crate) fn usernames_that_clash(&self) -> Result<Vec<String>> {
        const SQL: &str = "SELECT min(username) FROM username
            GROUP BY org_id, folded HAVING count(*) > 1 LIMIT 1";
        self.all(SQL, (), |row| row.get(0))
    }

    /// The usernames of a user in the order in which they were sent.
    pub(crate) fn usernames(&self, of: &UserRow) -> Result<Vec<UsernameRow>> {
        self.all(USERNAMES, (of.org.as_str(), of.id.as_str()), |row| {
            Ok(UsernameRow {
                id: row.get(0)?,
                username: Name::from_trusted(row.get(1)?),
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
    pub(crate) fn insert_user(&self, it: &UserRow, content: &UserContent) -> Result<bool> {
        const SQL: &str = "INSERT INTO user
            (id, id_folded, org_id, schema_id, data, created, changed)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING";
        let row = (
            it.id.as_str(),
            fold(it.id.as_str()),
            it.org.as_str(),
            &content.schema_id,
            &content.data,
            it.created.micros(),
            it.changed.micros(),
        );
        Ok(self.execute(SQL, row)? == 1)
    }

    /// Adds a username to a user. Fails if the organization has it already, in any case or normalization.
    ///
    /// No index enforces that, because databases from before this rule may hold usernames that clash.
    pub(crate) fn insert_username(&self, user: &UserRow, it: &UsernameRow) -> Result<()> {
        const SQL: &str = "INSERT INTO username
            (id, user_id, org_id, username, folded, org_specific)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let folded = fold(it.username.as_str());
        let key = (user.org.as_str(), folded.as_str());
        if self.one(USERNAME_IS_TAKEN, key, |_| Ok(()))?.is_some() {
            return Err(Error::AlreadyExists("the username"));
        }
        let specific = it.is_organization_specific;
        let row = (
            &it.id,
            user.id.as_str(),
            user.org.as_str(),
            it.username.as_str(),
            folded.as_str(),
            specific,
        );
        self.execute(SQL, row).map(|_| ())
    }

    /// Deletes a user and all its usernames, authenticators with their secrets, failures and `self` tokens.
    pub(crate) fn delete_user(&self, it: &UserRow) -> Result<bool> {
        // First, while the rows with the numbers of the slots exist.
        self.zero_slots_of_user(it)?;
        Ok(self.execute(DELETE_USER, (it.org.as_str(), it.id.as_str()))? == 1)
    }

    /// Changes a user's state from one of `from` to `to`. Returns whether it was in one of these.
    pub(crate) fn change_state(
        &self,
        of: &UserRow,
        from: &[UserState],
        to: UserState,
    ) -> Result<bool> {
        let at = |n: usize| from.get(n).or(from.first()).copied().map(state_name);
        let key = (
            of.org.as_str(),
            of.id.as_str(),
            state_name(to),
            self.event_at().micros(),
            at(0),
            at(1),
        );
        Ok(self.execute(CHANGE_STATE, key)? == 1)
    }

    /// Counts one more failure in a row.
    pub(crate) fn count_failure(&self, user: &UserId) -> Result<()> {
        const SQL: &str = "INSERT INTO failure (user_id, in_a_row, judged_at) VALUES (?1, 1, ?2)
            ON CONFLICT (user_id) DO UPDATE
            SET in_a_row = min(in_a_row + 1, 1000000), judged_at = excluded.judged_at";
        self.execute(SQL, (user.as_str(), self.now().micros()))
            .map(|_| ())
    }

    /// Deletes a user's failures. Returns whether there were any.
    pub(crate) fn clear_failures(&self, user: &UserId) -> Result<bool> {
        const SQL: &str = "DELETE FROM failure WHERE user_id = ?1";
        Ok(self.execute(SQL, (user.as_str(),))? == 1)
    }

    /// Sets times of failures that are later than now to now. So after the clock went back, a wait begins anew and does not
    /// last longer than the caller was told.
    pub(crate) fn clamp_failure_times(&self) -> Result<()> {
        const SQL: &str = "UPDATE failure SET judged_at = ?1 WHERE judged_at > ?1";
        self.execute(SQL, (self.now().micros(),)).map(|_| ())
    }
}
