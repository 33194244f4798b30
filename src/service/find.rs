//! Finding the user that a person names on the command line.

use super::{Context, Service};
use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId, UserId};
pub use crate::store::FoundUser;
use crate::store::ReadTx;

/// How the command line names a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSelector {
    /// An id or a username, in any organization.
    Any(String),
    /// An id.
    Id(UserId),
    /// A username in one organization.
    Username(OrgId, Name),
}

impl Service {
    /// Finds the user that `name` selects. Fails where it selects more than one.
    ///
    /// Callers choose ids. A manager could create a user whose id is the username of another organization's user, and so
    /// make the operator act on the wrong one. An id and a username of the same user are not ambiguous.
    pub fn find_user(&self, context: &Context, name: &UserSelector) -> Result<FoundUser> {
        self.read_as_admin(context, |tx| match name {
            UserSelector::Id(id) => by_id(tx, id)?.ok_or(Error::NotFound(Missing::User)),
            UserSelector::Username(org, username) => {
                if !tx.organization_exists(org)? {
                    return Err(Error::NotFound(Missing::Organization));
                }
                let found = tx.users_named(username, Some(org))?;
                only(username.as_str(), found)
            }
            UserSelector::Any(text) => {
                let mut found = tx.users_named(&Name::for_lookup("USER", text)?, None)?;
                if let Some(user) = by_id(tx, &UserId::for_lookup(text)?)?
                    && !found.contains(&user)
                {
                    found.insert(0, user);
                }
                only(text, found)
            }
        })
    }
}

fn by_id(tx: &ReadTx<'_>, id: &UserId) -> Result<Option<FoundUser>> {
    let found = tx.user(None, id)?;
    Ok(found.map(|it| FoundUser {
        id: it.id,
        org: it.org,
    }))
}

/// Returns the only user in `found`, or an error that lists all of them.
fn only(text: &str, found: Vec<FoundUser>) -> Result<FoundUser> {
    let ids: Vec<String> = found
        .iter()
        .map(|it| format!("{:?} of organization {}", it.id.as_str(), it.org))
        .collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(user), None) => Ok(user),
        (None, _) => Err(Error::NotFound(Missing::User)),
        (Some(_), Some(_)) => {
            let problem = format!(
                "this means more than one user, by id or by username: {}; say which with --id, or with --org ID",
                ids.join(", ")
            );
            Err(Error::invalid(text.to_owned(), problem))
        }
    }
}
