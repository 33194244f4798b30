//! Hands out users with their secrets in clear, for another instance or another program (SECURITY.md 40).
//!
//! Only an administrator may do that, and it leaves an event before the first secret is handed out. Knows no formats.

use super::{Context, Service, Username};
use crate::error::{Error, Missing, Result};
use crate::model::{Drift, Name, OrgId, Timestamp, UserId, UserState};
use crate::store::{Event, EventKind, Organization, ReadTx, TotpState, UserRow};
use crate::totp::{Parameters, Secret};

/// Users that are read in one transaction: a snapshot that lasts long keeps the WAL from being emptied.
const PAGE: u32 = 200;
/// The most organizations.
const MAX_ORGANIZATIONS: u32 = 10_000;

/// A part of an export.
pub enum ExportPart {
    /// An organization. Its users follow.
    Organization(OrgId, Name),
    /// A user.
    User(ExportedUser),
}

/// A user with its confirmed authenticators.
pub struct ExportedUser {
    /// The id.
    pub id: UserId,
    /// Its organization.
    pub org: OrgId,
    /// The usernames, in the order of creation.
    pub usernames: Vec<Username>,
    /// The schema of `data`.
    pub schema_id: Option<String>,
    /// A JSON object.
    pub data: Option<String>,
    /// The state.
    pub state: UserState,
    /// The authenticators, oldest first. Pending ones are left out.
    pub totps: Vec<ExportedTotp>,
}

/// An authenticator with its secret.
pub struct ExportedTotp {
    /// Its name.
    pub name: Option<Name>,
    /// The secret.
    pub secret: Secret,
    /// How its codes are computed.
    pub parameters: Parameters,
    /// How far its clock is off.
    pub drift: Drift,
    /// When its enrolment was started.
    pub created: Timestamp,
}

impl Service {
    /// Calls `each` with every organization and its users, or with one organization and its users, in the order of ids.
    ///
    /// Each page is read in its own transaction, so users that come or go meanwhile may be left out or not.
    pub fn export(
        &self,
        context: &Context,
        organization: Option<OrgId>,
        mut each: impl FnMut(ExportPart) -> Result<()>,
    ) -> Result<()> {
        let organizations = self.begin_export(context, organization)?;
        for Organization { id, name } in organizations {
            each(ExportPart::Organization(id.clone(), name))?;
            let mut after = None;
            loop {
                let page = self.read_as_admin(context, |tx| {
                    let rows = tx.users_in_organization_after(&id, after.as_ref(), PAGE)?;
                    let users = rows.iter().map(|it| self.exported(tx, it, context.now));
                    users.collect::<Result<Vec<_>>>()
                })?;
                let Some(last) = page.last() else { break };
                after = Some(last.id.clone());
                page.into_iter()
                    .try_for_each(|it| each(ExportPart::User(it)))?;
            }
        }
        Ok(())
    }

    /// Records that an export begins. Returns the organizations to export.
    fn begin_export(
        &self,
        context: &Context,
        organization: Option<OrgId>,
    ) -> Result<Vec<Organization>> {
        self.change_as_admin(context, move |call, tx| {
            let mut all = tx.organizations(MAX_ORGANIZATIONS)?;
            if let Some(id) = &organization {
                all.retain(|it| it.id == *id);
                if all.is_empty() {
                    return Err(Error::NotFound(Missing::Organization));
                }
            }
            let instance = tx.instance()?.id;
            let about = organization
                .as_ref()
                .map_or(instance.as_str(), OrgId::as_str);
            tx.append(&Event {
                kind: EventKind::TotpsExported,
                source: &call.principal.source,
                org: organization.as_ref(),
                user: None,
                about: Some(about),
                name: None,
            })?;
            Ok(all)
        })
    }

    fn exported(&self, tx: &ReadTx<'_>, row: &UserRow, now: Timestamp) -> Result<ExportedUser> {
        let content = tx.user_content(row)?;
        let usernames = tx.usernames(row)?.into_iter().map(|it| Username {
            id: it.id,
            username: it.username,
            is_organization_specific: it.is_organization_specific,
        });
        let mut totps = Vec::new();
        for it in tx.totps(row, now)? {
            if it.state == TotpState::Pending {
                continue;
            }
            let sealed = tx.sealed_secret(it.slot)?;
            totps.push(ExportedTotp {
                secret: self.inner.unseal(tx, &sealed, &row.id, &it.id)?,
                name: it.name,
                parameters: it.parameters,
                drift: it.drift,
                created: it.created,
            });
        }
        Ok(ExportedUser {
            id: row.id.clone(),
            org: row.org.clone(),
            usernames: usernames.collect(),
            schema_id: content.schema_id,
            data: content.data,
            state: row.state,
            totps,
        })
    }
}
