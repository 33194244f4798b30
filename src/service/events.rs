//! Lists of events: who changed what, when, for whom.

use super::{Context, Permission, Service};
use crate::error::Result;
use crate::model::{EventSearch, OrgId, SubjectKind, Timestamp, UserId};
use crate::store::{EventKind, EventRow, ReadKind};

/// An event on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its number. Later events have higher ones; some numbers are missing.
    pub number: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What `at` was before the correction of a clock that was ahead.
    pub original_at: Option<Timestamp>,
    /// Its kind, such as `totp.removed`.
    pub kind: String,
    /// Who made the change: a token's id, `command-line` or `totpd`.
    pub actor: String,
    /// The address that the request came from.
    pub peer: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// What changed.
    pub subject_kind: SubjectKind,
    /// The id of what changed: of the user, organization, token or instance.
    pub subject: String,
    /// The organization that it belongs to.
    pub organization: Option<OrgId>,
    /// The user, if it is about one.
    pub user: Option<UserId>,
    /// The id of the authenticator, token or organization.
    pub about: Option<String>,
    /// The name that it had then.
    pub name: Option<String>,
}

impl RecordedEvent {
    fn of(row: EventRow, instance: &str) -> Self {
        let subject_kind = row.subject_kind();
        let subject = match subject_kind {
            SubjectKind::User => row.user.as_ref().map(ToString::to_string),
            SubjectKind::Organization | SubjectKind::Token => row.about.clone(),
            SubjectKind::Instance => Some(instance.to_owned()),
        };
        Self {
            number: u64::try_from(row.number).unwrap_or_default(),
            at: row.at,
            original_at: row.original_at,
            kind: row.kind,
            actor: row.actor,
            peer: row.peer,
            request_id: row.request_id,
            subject_kind,
            subject: subject.unwrap_or_default(),
            organization: row.org,
            user: row.user,
            about: row.about,
            name: row.name,
        }
    }
}

impl Service {
    /// The kinds of events that this version records, such as `totp.removed`.
    pub fn event_kinds() -> impl Iterator<Item = &'static str> {
        EventKind::ALL.into_iter().map(EventKind::as_str)
    }

    /// Lists the events that the caller may see, and calls `each` for every one until it returns `false`. A `manager`
    /// sees those of its organization.
    pub fn list_events(
        &self,
        context: &Context,
        search: &EventSearch,
        mut each: impl FnMut(RecordedEvent) -> bool,
    ) -> Result<()> {
        let (kind, permission) = (ReadKind::Search, Permission::ReadEvents);
        self.read(context, kind, permission, None, |call, tx| {
            let org = call.principal.role.organization();
            let instance = &call.inner.instance.id;
            tx.list_events(search, org, instance, |row| {
                Ok(each(RecordedEvent::of(row, instance)))
            })
        })
    }

    /// The number of the newest event.
    pub fn newest_event_number(&self, context: &Context) -> Result<u64> {
        let number = self.read_as_admin(context, |tx| tx.newest_event_number())?;
        Ok(u64::try_from(number).unwrap_or_default())
    }

    /// [`Self::list_events`] for an administrator, without a time limit. An error of `each` ends the list.
    pub fn each_event(
        &self,
        context: &Context,
        search: &EventSearch,
        mut each: impl FnMut(RecordedEvent) -> Result<()>,
    ) -> Result<()> {
        let instance = &self.inner.instance.id;
        self.read_as_admin(context, |tx| {
            tx.list_events(search, None, instance, |row| {
                each(RecordedEvent::of(row, instance)).map(|()| true)
            })
        })
    }
}
