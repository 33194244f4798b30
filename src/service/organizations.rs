//! Organizations: renaming and removing them.

use super::{Context, Service};
use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId};
use crate::store::{Event, EventKind};

impl Service {
    /// Gives an organization another name.
    pub fn rename_organization(&self, context: &Context, id: OrgId, name: Name) -> Result<()> {
        self.change_as_admin(context, move |call, tx| {
            if !tx.rename_organization(&id, &name)? {
                return Err(Error::NotFound(Missing::Organization));
            }
            tx.append(&Event {
                kind: EventKind::OrganizationRenamed,
                source: &call.principal.source,
                org: Some(&id),
                user: None,
                about: Some(id.as_str()),
            })
        })
    }

    /// Removes an organization that has no user and no token bound to it, and returns its name. The last one stays:
    /// a user whose maker names no organization goes to the first.
    pub fn remove_organization(&self, context: &Context, id: OrgId) -> Result<Name> {
        self.change_as_admin(context, move |call, tx| {
            if !tx.organization_exists(&id)? {
                return Err(Error::NotFound(Missing::Organization));
            }
            let refused = |problem: String| Error::invalid(format!("organization {id}"), problem);
            let (users, tokens) = tx.organization_counts(&id)?;
            if users > 0 || tokens > 0 {
                return Err(refused(format!(
                    "it is not empty (users: {users}, tokens bound to it: {tokens}); remove or revoke them first"
                )));
            }
            if tx.organizations(2)?.len() < 2 {
                return Err(refused("it is the last one, and stays".to_owned()));
            }
            let removed = tx
                .delete_organization(&id)?
                .ok_or(Error::NotFound(Missing::Organization))?;
            tx.append(&Event {
                kind: EventKind::OrganizationRemoved,
                source: &call.principal.source,
                org: Some(&id),
                user: None,
                about: Some(id.as_str()),
            })?;
            Ok(removed.name)
        })
    }
}
