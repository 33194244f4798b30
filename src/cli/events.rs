//! `event list`: who changed what, when, for whom.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use totpd::api::messages;
use totpd::error::{Error, Missing, Result};
use totpd::model::{EventSearch, SubjectKind};
use totpd::service::{RecordedEvent, Service};

use super::args::{self, Moment};
use super::clock::now;
use super::output::{self, Output};
use super::{operator, users};

/// How often `--follow` looks for new events.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(service: &Service, out: &Output, command: args::Event) -> Result<()> {
    let args::Event::List(list) = command;
    let search = search(service, &list)?;
    let end = service.newest_event_number(&operator())?;
    // The newest come first, so that a limit keeps them.
    let mut newest = VecDeque::new();
    service.each_event(&operator(), &search, |event| {
        newest.push_front(event);
        Ok(())
    })?;
    if list.follow {
        return follow(service, out, search, (newest, end));
    }
    let instance = service.instance_id();
    let documents = newest.iter().map(|it| messages::Event::of(it, instance));
    out.answer(&documents.collect::<Result<Vec<_>>>()?, || {
        newest.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

/// Prints the events that were found, and then new ones as they come, until there is no reader. `end` is the number of
/// the newest event when they were found.
fn follow(
    service: &Service,
    out: &Output,
    mut search: EventSearch,
    (mut events, mut end): (VecDeque<RecordedEvent>, u64),
) -> Result<()> {
    search.ascending = true;
    search.limit = u32::MAX;
    loop {
        for event in events.drain(..) {
            let document = messages::Event::of(&event, service.instance_id())?;
            if !out.line(&document, || line(&event))? {
                return Ok(());
            }
            end = end.max(event.number);
        }
        search.after = end;
        while service.newest_event_number(&operator())? <= end {
            thread::sleep(FOLLOW_EVERY);
            if !output::has_reader() {
                return Ok(());
            }
        }
        end = service.newest_event_number(&operator())?;
        service.each_event(&operator(), &search, |event| {
            events.push_back(event);
            Ok(())
        })?;
    }
}

fn search(service: &Service, list: &args::EventList) -> Result<EventSearch> {
    let user = list.user.as_deref();
    let user = user.map(|it| user_id(service, it, list.id)).transpose()?;
    let moment = |it: Option<Moment>| {
        it.map(|it| match it {
            Moment::At(it) => it,
            Moment::Ago(it) => now().before(it),
        })
    };
    Ok(EventSearch {
        since: moment(list.since),
        until: moment(list.until),
        limit: list.limit,
        kinds: (!list.kind.is_empty()).then(|| list.kind.clone()),
        subject_kinds: user.is_some().then(|| vec![SubjectKind::User]),
        subject: user,
        ..EventSearch::default()
    })
}

/// The id of the user that the arguments name. A removed user is found by its id, which nothing else tells.
fn user_id(service: &Service, user: &str, is_id: bool) -> Result<String> {
    match service.find_user(&operator(), &users::selector(user, is_id, None)?) {
        Ok(found) => Ok(found.id.to_string()),
        Err(Error::NotFound(Missing::User)) => Ok(user.to_owned()),
        Err(error) => Err(error),
    }
}

/// An event in one line, which no name can forge.
fn line(event: &RecordedEvent) -> String {
    let mut line = format!("{} {} {}", event.at, event.number, event.kind);
    let user = event.user.as_ref().map(ToString::to_string);
    let organization = event.organization.as_ref().map(ToString::to_string);
    let fields = [
        ("user", &user),
        ("id", &event.about),
        ("name", &event.name),
        ("organization", &organization),
        ("by", &Some(event.actor.clone())),
        ("from", &event.peer),
        ("request", &event.request_id),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            line.extend([" ", name, "=", output::word(value).as_str()]);
        }
    }
    line
}
