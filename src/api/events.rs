//! Turns the message of a list of events into a search.

use super::messages::{
    self, CreationDateRange, ListEventsRequest, kind_of_event_type, subject_of_type,
};
use crate::error::Result;
use crate::model::{EventSearch, Timestamp};

/// Events in a list, by default and at most.
const EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 1_000;

/// Parses the request. A name of a type that is not known matches nothing.
pub(super) fn search(request: ListEventsRequest) -> Result<EventSearch> {
    let time = |it: Option<messages::Timestamp>, field| it.map(|it| it.parse(field)).transpose();
    let creation_date = time(request.creation_date, "creationDate")?;
    let from = time(request.from, "from")?.or(creation_date);
    let CreationDateRange { since, until } = request.range.clone().unwrap_or_default();
    let (since, until) = (time(since, "range.since")?, time(until, "range.until")?);
    let (since, until): (Option<Timestamp>, Option<Timestamp>) =
        match (request.range.is_some(), request.asc) {
            (true, _) => (since, until),
            (false, true) => (from, None),
            (false, false) => (None, from),
        };
    let limit = match request.limit {
        0 => EVENTS,
        limit => limit.min(MAX_EVENTS),
    };
    let kinds = request.event_types.iter();
    let subjects = request.aggregate_types.iter();
    Ok(EventSearch {
        after: request.sequence,
        since,
        until,
        ascending: request.asc,
        limit,
        actor: set(request.editor_user_id),
        kinds: (!request.event_types.is_empty())
            .then(|| kinds.map(|it| kind_of_event_type(it)).collect()),
        subject: set(request.aggregate_id),
        subject_kinds: (!request.aggregate_types.is_empty())
            .then(|| subjects.filter_map(|it| subject_of_type(it)).collect()),
        owner: set(request.resource_owner),
    })
}

/// A text that is not empty: an empty one leaves nothing out.
fn set(text: String) -> Option<String> {
    Some(text).filter(|it| !it.is_empty())
}
