//! Renaming and removing organizations.

use super::{Context, Service};
use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId};
use crate::store::{Event, EventKind};

impl Service {
    /// Renames an organization.
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
                name: Some(&name),
            })
        })
    }

    /// Removes an organization and returns its name. Fails where users or tokens belong to it, and for the last
    /// organization: new users need one.
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
                name: Some(&removed.name),
            })?;
            Ok(removed.name)
        })
    }
}
