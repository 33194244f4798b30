//! Creating, reading and removing users.

use super::call::TxContext;
use super::{Context, Details, Inner, NamedBy, Permission, Service};
use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId, Timestamp, TotpId, UserId, UserState};
use crate::store::{
    EventKind, ReadKind, ReadTx, TotpRow, TotpState, UserContent, UserRow, UsernameRow, WriteTx,
};

/// How many generated ids are tried. A caller may have chosen one of them for another user.
const ID_TRIES: usize = 100;
/// Users that [`Service::each_user`] reads in one transaction.
const PAGE: u32 = 500;

/// The fields of a new user.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// The id. `None` lets totpd choose one.
    pub id: Option<UserId>,
    /// The schema of `data`. Not interpreted.
    pub schema_id: Option<Name>,
    /// A JSON object. Not interpreted.
    pub data: Option<String>,
    /// The usernames, unique within the organization.
    pub usernames: Vec<NewUsername>,
}

/// A username of a new user.
#[derive(Debug, Clone)]
pub struct NewUsername {
    /// The name.
    pub username: Name,
    /// Stored and returned only: every username is unique within its organization.
    pub is_organization_specific: bool,
}

/// A user with usernames and authenticators.
pub struct User {
    /// The user's id, times and organization.
    pub details: Details,
    /// The schema of `data`.
    pub schema_id: Option<String>,
    /// A JSON object.
    pub data: Option<String>,
    /// The usernames, in the order of creation.
    pub usernames: Vec<Username>,
    /// The authenticators, pending ones included, oldest first.
    pub totps: Vec<Totp>,
    /// The state. Only an active user's codes are checked.
    pub state: UserState,
}

/// A username.
pub struct Username {
    /// Its id.
    pub id: String,
    /// The name.
    pub username: Name,
    /// As given at creation. Not interpreted.
    pub is_organization_specific: bool,
}

/// An authenticator, without its secret.
pub struct Totp {
    /// Its id.
    pub id: TotpId,
    /// Its name.
    pub name: Option<Name>,
    /// Whether it was confirmed. A pending one checks no codes.
    pub is_confirmed: bool,
    /// When its enrolment was started.
    pub created: Timestamp,
    /// When a code of it was last accepted, the one that confirmed it included. `None` if none was since this is recorded.
    pub last_used: Option<Timestamp>,
}

impl From<TotpRow> for Totp {
    fn from(it: TotpRow) -> Self {
        Self {
            id: it.id,
            name: it.name,
            is_confirmed: it.state == TotpState::Confirmed,
            created: it.created,
            last_used: it.last_used,
        }
    }
}

impl Service {
    /// Creates a user, in the target's organization, else the caller's, else the first one.
    pub fn create_user(&self, context: &Context, new: NewUser) -> Result<Details> {
        self.change(context, Permission::WriteUser, move |call, tx| {
            let org = call.organization_for_new(tx)?;
            let user = insert_user(tx, &org, &new)?;
            for it in new.usernames {
                let (id, username) = (tx.new_id()?, it.username);
                let is_organization_specific = it.is_organization_specific;
                tx.insert_username(
                    &user,
                    &UsernameRow {
                        id,
                        username,
                        is_organization_specific,
                    },
                )?;
            }
            call.record(tx, EventKind::UserCreated, &user)?;
            Ok(details(&user))
        })
    }

    /// Reads a user.
    pub fn user(&self, context: &Context, id: &UserId) -> Result<User> {
        let (kind, permission) = (ReadKind::ById, Permission::ReadUser);
        self.read(context, kind, permission, Some(id), |call, tx| {
            let row = call.visible_user(tx, id, Missing::User)?;
            read_user(tx, &row, call.now)
        })
    }

    /// Removes a user with its authenticators, usernames and `self` tokens.
    pub fn remove_user(&self, context: &Context, user: UserId) -> Result<Details> {
        self.change_user(context, Permission::WriteUser, user, |call, tx, user| {
            let user = call.visible_user(tx, user, Missing::UserToRemove)?;
            if !tx.delete_user(&user)? {
                return Err(Error::NotFound(Missing::UserToRemove));
            }
            call.record(tx, EventKind::UserRemoved, &user)?;
            Ok(Details {
                changed: tx.event_at(),
                ..details(&user)
            })
        })
    }

    /// Calls `each` for every user, in the order of ids. Each page is read in its own transaction.
    pub fn each_user(
        &self,
        context: &Context,
        mut each: impl FnMut(User) -> Result<()>,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.read_as_admin(context, |tx| {
                let rows = tx.users_after(after.as_ref(), PAGE)?;
                rows.into_iter()
                    .map(|it| read_user(tx, &it, context.now))
                    .collect::<Result<Vec<_>>>()
            })?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(UserId::for_lookup(&last.details.id)?);
            page.into_iter().try_for_each(&mut each)?;
        }
    }
}

impl TxContext<'_> {
    /// The organization of a new user.
    pub(super) fn organization_for_new(&self, tx: &WriteTx<'_>) -> Result<OrgId> {
        let (unknown, role) = (Error::NotFound(Missing::Organization), &self.principal.role);
        if !self.is_for_this_instance() {
            return Err(unknown);
        }
        match (&self.target.organization, role.organization()) {
            (Some(NamedBy::Domain), _) => Err(unknown),
            (Some(NamedBy::Id(id)), _) if !role.can_see(id) => Err(unknown),
            (Some(NamedBy::Id(id)), _) => Inner::require_organization(tx, id.clone()),
            (None, Some(own)) => Inner::require_organization(tx, own.clone()),
            (None, None) => tx.first_organization()?.ok_or(unknown),
        }
    }
}

/// Inserts a user with the chosen id, or with the next generated id that is free.
pub(super) fn insert_user(tx: &WriteTx<'_>, org: &OrgId, new: &NewUser) -> Result<UserRow> {
    let tries = if new.id.is_some() { 1 } else { ID_TRIES };
    let content = UserContent {
        schema_id: new.schema_id.as_ref().map(ToString::to_string),
        data: new.data.clone(),
    };
    for _ in 0..tries {
        let id = match &new.id {
            Some(id) => id.clone(),
            None => UserId::from_trusted(tx.new_id()?),
        };
        let user = UserRow {
            id,
            org: org.clone(),
            state: UserState::Active,
            created: tx.event_at(),
            changed: tx.event_at(),
        };
        if tx.insert_user(&user, &content)? {
            return Ok(user);
        }
    }
    Err(Error::AlreadyExists("the user id"))
}

pub(super) fn read_user(tx: &ReadTx<'_>, row: &UserRow, now: Timestamp) -> Result<User> {
    let content = tx.user_content(row)?;
    let usernames = tx.usernames(row)?.into_iter().map(|it| Username {
        id: it.id,
        username: it.username,
        is_organization_specific: it.is_organization_specific,
    });
    let totps = tx.totps(row, now)?.into_iter().map(Totp::from);
    Ok(User {
        details: details(row),
        usernames: usernames.collect(),
        totps: totps.collect(),
        state: row.state,
        schema_id: content.schema_id,
        data: content.data,
    })
}

pub(super) fn details(user: &UserRow) -> Details {
    let (id, owner) = (user.id.to_string(), user.org.clone());
    Details {
        id,
        created: user.created,
        changed: user.changed,
        owner,
    }
}
