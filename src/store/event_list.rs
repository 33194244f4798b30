//! Lists of events: of one organization by the index, of all by their numbers.
//!
//! Times of events never decrease with their numbers, so a period is a range of numbers, which is found by halving.
//! The rows are handed on one by one, because the caller may end the list early.

use rusqlite::Row;
use rusqlite::types::Value;

use super::{ReadTx, unavailable};
use crate::error::Result;
use crate::model::{EventSearch, OrgId, SubjectKind, Timestamp, UserId};

/// An event on record.
pub(crate) struct EventRow {
    pub(crate) number: i64,
    pub(crate) at: Timestamp,
    pub(crate) original_at: Option<Timestamp>,
    pub(crate) kind: String,
    pub(crate) actor: String,
    pub(crate) peer: Option<String>,
    pub(crate) org: Option<OrgId>,
    pub(crate) user: Option<UserId>,
    pub(crate) about: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) request_id: Option<String>,
}

impl EventRow {
    /// What the event is about. Everything of a user is about the user. The statements of `list!` say the
    /// same in SQL.
    pub(crate) fn subject_kind(&self) -> SubjectKind {
        if self.user.is_some() {
            SubjectKind::User
        } else if self.kind.starts_with("organization.") {
            SubjectKind::Organization
        } else if self.kind.starts_with("token.") {
            SubjectKind::Token
        } else {
            SubjectKind::Instance
        }
    }
}

/// The number that stands for a kind of subject in the statements of `list!`.
const fn bit(kind: SubjectKind) -> i64 {
    match kind {
        SubjectKind::User => 1,
        SubjectKind::Organization => 2,
        SubjectKind::Token => 4,
        SubjectKind::Instance => 8,
    }
}

/// ?1 says which organization, ?2 and ?3 bound the numbers; what follows leaves nothing out where it is NULL.
macro_rules! list {
    ($of:literal, $order:literal) => {
        concat!(
            "SELECT id, at, original_at, kind, actor, peer, org_id, user_id, about_id, about_name, request_id
            FROM event WHERE ",
            $of,
            " AND id > ?2 AND id < ?3
            AND (?4 IS NULL OR actor = ?4)
            AND (?5 IS NULL OR kind IN (SELECT value FROM json_each(?5)))
            AND (?6 IS NULL OR ?6 = CASE WHEN user_id IS NOT NULL THEN user_id
                WHEN kind GLOB 'organization.*' OR kind GLOB 'token.*' THEN about_id ELSE ?7 END)
            AND (?8 IS NULL OR ?8 & CASE WHEN user_id IS NOT NULL THEN 1 WHEN kind GLOB 'organization.*' THEN 2
                WHEN kind GLOB 'token.*' THEN 4 ELSE 8 END)
            ORDER BY id ",
            $order,
            " LIMIT ?9"
        )
    };
}

/// The statements for one organization. `super::tests` holds their query plans against SECURITY.md 23.
pub(super) const EVENTS_OF_ORG: [&str; 2] =
    [list!("org_id = ?1", "DESC"), list!("org_id = ?1", "ASC")];
/// If ?1 is true, only events of the instance are listed, which have no organization.
const EVENTS: [&str; 2] = [
    list!("(NOT ?1 OR org_id IS NULL)", "DESC"),
    list!("(NOT ?1 OR org_id IS NULL)", "ASC"),
];
pub(super) const NEXT_OF_ORG: &str =
    "SELECT at FROM event WHERE org_id = ?1 AND id >= ?2 ORDER BY id LIMIT 1";
const NEXT: &str = "SELECT at FROM event WHERE ?1 IS NULL AND id >= ?2 ORDER BY id LIMIT 1";

fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        number: row.get(0)?,
        at: Timestamp::from_micros(row.get(1)?),
        original_at: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros),
        kind: row.get(3)?,
        actor: row.get(4)?,
        peer: row.get(5)?,
        org: row.get::<_, Option<String>>(6)?.map(OrgId::from_trusted),
        user: row.get::<_, Option<String>>(7)?.map(UserId::from_trusted),
        about: row.get(8)?,
        name: row.get(9)?,
        request_id: row.get(10)?,
    })
}

impl ReadTx<'_> {
    /// The number of the newest event, or 0.
    pub(crate) fn newest_event_number(&self) -> Result<i64> {
        const SQL: &str = "SELECT id FROM event ORDER BY id DESC LIMIT 1";
        Ok(self.one(SQL, (), |row| row.get(0))?.unwrap_or(0))
    }

    /// Calls `each` for the events of `search`, of one organization or of all, until it returns `false`. `instance` is
    /// the instance's id.
    pub(crate) fn list_events(
        &self,
        search: &EventSearch,
        org: Option<&OrgId>,
        instance: &str,
        mut each: impl FnMut(EventRow) -> Result<bool>,
    ) -> Result<()> {
        let owner = search.owner.as_deref();
        let is_of_instance = owner == Some(instance);
        let owner = owner.filter(|_| !is_of_instance);
        let org = match (org.map(OrgId::as_str), owner) {
            // No event belongs to two organizations, and none of an organization to the instance.
            (Some(org), Some(owner)) if org != owner => return Ok(()),
            (Some(_), None) if is_of_instance => return Ok(()),
            (org, owner) => org.or(owner),
        };
        let after = i64::try_from(search.after).unwrap_or(i64::MAX);
        let first = match search.since {
            // The first event that is later than this.
            Some(it) => self.first_event_from(org, it.micros().saturating_add(1))?,
            None => 0,
        };
        let end = match search.until {
            Some(it) => self.first_event_from(org, it.micros())?,
            None => i64::MAX,
        };
        let statements = if org.is_some() { EVENTS_OF_ORG } else { EVENTS };
        let [descending, ascending] = statements;
        let sql = if search.ascending {
            ascending
        } else {
            descending
        };
        let of = org.map_or(Value::from(is_of_instance), |it| Value::from(it.to_owned()));
        let kinds = search.kinds.as_ref();
        let subjects = search.subject_kinds.as_ref();
        let params = (
            of,
            after.max(first.saturating_sub(1)),
            end,
            &search.actor,
            kinds.map(|it| serde_json::Value::from(it.as_slice()).to_string()),
            &search.subject,
            instance,
            subjects.map(|it| it.iter().fold(0, |bits, it| bits | bit(*it))),
            search.limit,
        );
        self.require_time()?;
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        let mut rows = statement.query(params).map_err(unavailable)?;
        while let Some(row) = rows.next().map_err(unavailable)? {
            if !each(event(row).map_err(unavailable)?)? {
                break;
            }
        }
        Ok(())
    }

    /// A number that all events from `moment` on have or exceed, and no earlier event.
    fn first_event_from(&self, org: Option<&str>, moment: i64) -> Result<i64> {
        let sql = if org.is_some() { NEXT_OF_ORG } else { NEXT };
        let (mut low, mut high) = (0, i64::MAX);
        while low < high {
            let middle = low.midpoint(high);
            let at: Option<i64> = self.one(sql, (org, middle), |row| row.get(0))?;
            if at.is_none_or(|it| it >= moment) {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        Ok(low)
    }
}
