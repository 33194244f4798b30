//! Users: whom authenticators belong to.

use super::call::TxContext;
use super::{Context, Details, Inner, NamedBy, Permission, Service};
use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId, Timestamp, TotpId, UserId, UserState};
use crate::store::{
    EventKind, ReadKind, ReadTx, TotpState, UserContent, UserRow, UsernameRow, WriteTx,
};

/// Tries at an id of our own that no caller has chosen before.
const ID_TRIES: usize = 100;
/// Users in one page of a listing.
const PAGE: u32 = 500;

/// A user to make.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// The id, if the caller chooses it.
    pub id: Option<UserId>,
    /// The schema that `data` follows; kept as it is.
    pub schema_id: Option<Name>,
    /// A JSON object; kept as it is.
    pub data: Option<String>,
    /// The usernames, unique within the organization.
    pub usernames: Vec<NewUsername>,
}

/// A username to give.
#[derive(Debug, Clone)]
pub struct NewUsername {
    /// The name.
    pub username: Name,
    /// Kept as it is; totpd's usernames are all unique within their organization.
    pub is_organization_specific: bool,
}

/// A user as it is.
pub struct User {
    /// Its id, and whose it is.
    pub details: Details,
    /// The schema that `data` follows.
    pub schema_id: Option<String>,
    /// A JSON object.
    pub data: Option<String>,
    /// Its usernames, in the order they were given.
    pub usernames: Vec<Username>,
    /// Its authenticators, pending ones included, in the order they were begun.
    pub totps: Vec<Totp>,
    /// Whether it may check codes.
    pub state: UserState,
}

/// A username as it is.
pub struct Username {
    /// Its id.
    pub id: String,
    /// The name.
    pub username: Name,
    /// As it was given.
    pub is_organization_specific: bool,
}

/// An authenticator as far as it is shown: never its secret.
pub struct Totp {
    /// Its id.
    pub id: TotpId,
    /// Its name.
    pub name: Option<Name>,
    /// Whether its codes are good.
    pub is_confirmed: bool,
}

impl Service {
    /// Makes a user. Without a word about the organization it goes to the caller's, or the first.
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

    /// Removes a user and everything of it: authenticators, usernames, its own tokens.
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

    /// Hands every user to `each`, in the order of their ids, a page at a time.
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
    /// Where a new user goes.
    fn organization_for_new(&self, tx: &WriteTx<'_>) -> Result<OrgId> {
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

/// Inserts the user under the id that was chosen, or under the next one of ours that nobody chose.
fn insert_user(tx: &WriteTx<'_>, org: &OrgId, new: &NewUser) -> Result<UserRow> {
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
    let totps = tx.totps(row, now)?.into_iter().map(|it| Totp {
        id: it.id,
        name: it.name,
        is_confirmed: it.state == TotpState::Confirmed,
    });
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
