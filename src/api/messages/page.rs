//! A page of a list, encoded while its users or events are read. Its length is bounded, and so is the memory that it takes: the
//! front end reserves as much from the budget of answers before the search begins.

use prost::{Message, encoding};
use serde::Serialize;

use super::search::ListDetails;
use super::{Encoding, Event, User};
use crate::error::{Error, Result};
use crate::service;

/// The fields that the elements are in: of `SearchUsersResponse`, and of `ListEventsResponse`.
const RESULT: u32 = 2;
const EVENTS: u32 = 1;
/// The most that the details of a page take.
const DETAILS_BYTES: usize = 256;
/// A page grows in steps of this size.
const STEP_BYTES: usize = 64 * 1024;

/// A page to which users or events are added one by one.
///
/// Beside the page itself only one of them is in memory at a time.
pub(in crate::api) struct Page {
    encoding: Encoding,
    max_bytes: usize,
    bytes: Vec<u8>,
    length: u64,
    is_cut: bool,
    /// Why there is no page.
    failure: Option<Error>,
}

impl Page {
    /// An empty page of at most `max_bytes`. It takes no memory yet.
    pub(in crate::api) const fn new(encoding: Encoding, max_bytes: usize) -> Self {
        Self {
            encoding,
            max_bytes,
            bytes: Vec::new(),
            length: 0,
            is_cut: false,
            failure: None,
        }
    }

    /// Adds a user. Returns whether another one may follow: a user that does not fit ends the page. The first one always
    /// fits.
    pub(in crate::api) fn push(&mut self, user: service::User) -> bool {
        let user = User::encode_as(self.encoding, user);
        self.push_message(RESULT, user)
    }

    /// The same for an event. `instance` is the instance's id.
    pub(in crate::api) fn push_event(
        &mut self,
        event: &service::RecordedEvent,
        instance: &str,
    ) -> bool {
        let event = Event::encode_as(self.encoding, event, instance);
        self.push_message(EVENTS, event)
    }

    fn push_message(&mut self, tag: u32, message: Result<impl Message + Serialize>) -> bool {
        match message.and_then(|it| self.add(tag, &it)) {
            Ok(goes_on) => goes_on,
            Err(failure) => {
                self.failure = Some(failure);
                false
            }
        }
    }

    fn add(&mut self, tag: u32, message: &(impl Message + Serialize)) -> Result<bool> {
        let message = self.encode(tag, message)?;
        let length = self.bytes.len().saturating_add(message.len());
        if self.length > 0 && length.saturating_add(DETAILS_BYTES) > self.max_bytes {
            self.is_cut = true;
            return Ok(false);
        }
        self.grow_to(length.saturating_add(DETAILS_BYTES))?;
        self.bytes.extend_from_slice(&message);
        self.length = self.length.saturating_add(1);
        Ok(true)
    }

    /// Encodes one message as an element of the page.
    fn encode(&self, tag: u32, message: &(impl Message + Serialize)) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.encoding {
            Encoding::Json => {
                bytes.push(if self.length == 0 { b'[' } else { b',' });
                let encoded = serde_json::to_writer(&mut bytes, message);
                encoded.map_err(|it| Error::Bug(format!("an element of a page as JSON: {it}")))?;
            }
            Encoding::Protobuf => encoding::message::encode(tag, message, &mut bytes),
        }
        Ok(bytes)
    }

    fn grow_to(&mut self, length: usize) -> Result<()> {
        if length <= self.bytes.capacity() {
            return Ok(());
        }
        let wanted = length.next_multiple_of(STEP_BYTES);
        let more = wanted.saturating_sub(self.bytes.len());
        let grown = self.bytes.try_reserve_exact(more);
        grown.map_err(|_| Error::Unavailable("no memory for a page".to_owned()))
    }

    /// The complete answer. `limit` is the number of users that the request asked for.
    pub(in crate::api) fn finish(
        mut self,
        found: &service::SearchSummary,
        limit: u32,
    ) -> Result<Vec<u8>> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let applied_limit = if self.is_cut {
            self.length
        } else {
            limit.into()
        };
        let details = ListDetails::of(found, applied_limit);
        let head = match self.encoding {
            Encoding::Json => {
                let mut head = json(&Head { details: &details })?;
                // The object goes on with the users.
                head.pop();
                if self.length > 0 {
                    head.extend_from_slice(b",\"result\":");
                    self.bytes.push(b']');
                }
                self.bytes.push(b'}');
                head
            }
            Encoding::Protobuf => {
                let mut head = Vec::new();
                encoding::message::encode(1, &details, &mut head);
                head
            }
        };
        // The page has grown by enough for it already.
        self.bytes.splice(..0, head);
        Ok(self.bytes)
    }
}

impl Page {
    /// The complete answer of a list of events.
    pub(in crate::api) fn finish_events(mut self) -> Result<Vec<u8>> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if self.encoding == Encoding::Json {
            let (head, end): (&[u8], &[u8]) = match self.length {
                0 => (b"{", b"}"),
                _ => (b"{\"events\":", b"]}"),
            };
            // The page has grown by enough for it already.
            self.bytes.splice(..0, head.iter().copied());
            self.bytes.extend_from_slice(end);
        }
        Ok(self.bytes)
    }
}

#[derive(Serialize)]
struct Head<'a> {
    details: &'a ListDetails,
}

fn json(it: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(it);
    bytes.map_err(|it| Error::Bug(format!("a page as JSON: {it}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timestamp, UserState};

    fn user() -> service::User {
        let now = Timestamp::from_seconds(0);
        service::User {
            details: service::Details {
                id: "1".to_owned(),
                created: now,
                changed: now,
                owner: "2".parse().unwrap(),
            },
            schema_id: None,
            data: Some(format!(r#"{{"a":"{}"}}"#, "x".repeat(60_000))),
            usernames: Vec::new(),
            totps: Vec::new(),
            state: UserState::Active,
        }
    }

    /// SECURITY.md 45: what is reserved for a page before the search is enough for it.
    #[test]
    fn a_page_takes_no_more_memory_than_its_limit() {
        let found = service::SearchSummary {
            total: 9,
            at: Timestamp::from_seconds(0),
        };
        let max_bytes = 4 * STEP_BYTES;
        let mut page = Page::new(Encoding::Json, max_bytes);
        let mut added = 0;
        while page.push(user()) {
            added += 1;
            assert!(page.bytes.capacity() <= max_bytes);
        }
        assert_eq!(added, 4, "a fifth does not fit");
        let bytes = page.finish(&found, 100).unwrap();
        assert!(bytes.len() <= max_bytes && bytes.capacity() <= max_bytes);
    }
}
