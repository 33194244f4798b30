//! How many messages or texts a request may hold in a list, counted before any of them is built.
//!
//! A message takes two bytes on the wire and a few hundred in memory. So a body is scanned first, in one pass that keeps
//! nothing, and a body with too many messages is not decoded. Malformed bodies are left to the decoder to refuse.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::protobuf::{Fields, Raw};
use crate::error::{Error, Result};

/// How deep filters may be nested: a person writes three levels.
const MAX_FILTER_DEPTH: usize = 16;
/// How many filters one search may have: each is evaluated for every user.
const MAX_FILTERS: usize = 100;
/// Usernames that a user may be given at once. A person has a few; each is a row and an index entry.
const MAX_USERNAMES: usize = 50;
/// Types that a list of events may name: there are fewer.
const MAX_TYPES: usize = 100;

/// A field that holds messages.
struct Field {
    tag: u32,
    /// In JSON: as protojson writes it, and as the protos do.
    names: [&'static str; 2],
    /// Whether each message in it counts.
    is_counted: bool,
    fields: &'static [Field],
}

/// Which messages are counted in a request, and how many and how deep they may be.
pub(in crate::api) struct Bound {
    /// The request's fields in protobuf; on REST the body is the messages of the last step.
    fields: &'static [Field],
    rest: &'static [Field],
    /// Whether the body on REST is a list of the counted messages.
    rest_is_list: bool,
    count: usize,
    depth: usize,
    too_many: fn() -> Error,
    too_deep: fn() -> Error,
}

static FILTERS: [Field; 1] = [field(1, ["queries", "queries"], true, &FILTER)];
static NOT_FILTER: [Field; 1] = [field(1, ["query", "query"], true, &FILTER)];
static FILTER: [Field; 3] = [
    field(1, ["orFilter", "or_filter"], false, &FILTERS),
    field(2, ["andFilter", "and_filter"], false, &FILTERS),
    field(3, ["notFilter", "not_filter"], false, &NOT_FILTER),
];
static SEARCH: [Field; 1] = [field(4, ["filters", "filters"], true, &FILTER)];
static AUTHENTICATORS: [Field; 1] = [field(1, ["usernames", "usernames"], true, &[])];
static USER: [Field; 1] = [field(
    4,
    ["authenticators", "authenticators"],
    false,
    &AUTHENTICATORS,
)];
static CREATE_USER: [Field; 1] = [field(3, ["user", "user"], false, &USER)];

static LIST_EVENTS: [Field; 2] = [
    field(5, ["eventTypes", "event_types"], true, &[]),
    field(7, ["aggregateTypes", "aggregate_types"], true, &[]),
];

static RESYNC: [Field; 1] = [field(5, ["codes", "codes"], true, &[])];

const fn field(
    tag: u32,
    names: [&'static str; 2],
    is_counted: bool,
    fields: &'static [Field],
) -> Field {
    Field {
        tag,
        names,
        is_counted,
        fields,
    }
}

/// The filters of a search.
pub(in crate::api) static FILTERS_OF_SEARCH: Bound = Bound {
    fields: &SEARCH,
    rest: &FILTER,
    rest_is_list: true,
    count: MAX_FILTERS,
    depth: MAX_FILTER_DEPTH,
    too_many: || Error::invalid("filters", "too many: at most 100"),
    too_deep: || Error::invalid("filters", "nested too deeply: at most 16"),
};

/// The usernames of a new user.
pub(in crate::api) static USERNAMES_OF_USER: Bound = Bound {
    fields: &CREATE_USER,
    rest: &USER,
    rest_is_list: false,
    count: MAX_USERNAMES,
    depth: 1,
    too_many: || Error::invalid("authenticators.usernames", "expected at most 50 usernames"),
    too_deep: || Error::invalid("authenticators.usernames", "expected at most 50 usernames"),
};

/// The types that a list of events names.
pub(in crate::api) static TYPES_OF_EVENTS: Bound = Bound {
    fields: &LIST_EVENTS,
    rest: &LIST_EVENTS,
    rest_is_list: false,
    count: MAX_TYPES,
    depth: 1,
    too_many: || Error::invalid("eventTypes", "too many types: at most 100"),
    too_deep: || Error::invalid("eventTypes", "too many types: at most 100"),
};

/// The codes of a resync. On REST the body is read as exactly two texts.
pub(in crate::api) static CODES_OF_RESYNC: Bound = Bound {
    fields: &RESYNC,
    rest: &[],
    rest_is_list: false,
    count: 2,
    depth: 1,
    too_many: || Error::invalid("codes", "expected two codes"),
    too_deep: || Error::invalid("codes", "expected two codes"),
};

impl Bound {
    /// Refuses a message of protobuf that holds too many.
    pub(in crate::api) fn judge_protobuf(&self, message: &[u8]) -> Result<()> {
        let mut count = Count::of(self);
        let _malformed = count.message(message, self.fields, 0);
        count.judged()
    }

    /// Refuses a JSON body that holds too many.
    pub(in crate::api) fn judge_json(&self, body: &[u8]) -> Result<()> {
        let mut count = Count::of(self);
        let scan = Scan {
            fields: self.rest,
            is_counted: self.rest_is_list,
            depth: 0,
            count: &mut count,
        };
        let _malformed = scan.deserialize(&mut serde_json::Deserializer::from_slice(body));
        count.judged()
    }
}

/// The count so far.
struct Count<'a> {
    bound: &'a Bound,
    left: usize,
    excess: Option<fn() -> Error>,
}

/// The scan has ended early: there are too many messages, or the body is malformed.
struct ScanEnded;

impl<'a> Count<'a> {
    const fn of(bound: &'a Bound) -> Self {
        Self {
            bound,
            left: bound.count,
            excess: None,
        }
    }

    /// Counts one message at that depth.
    fn one(&mut self, depth: usize) -> Result<(), ScanEnded> {
        let left = self.left.checked_sub(1);
        self.excess = match left {
            _ if depth > self.bound.depth => Some(self.bound.too_deep),
            None => Some(self.bound.too_many),
            Some(_) => None,
        };
        self.left = left.unwrap_or(0);
        if self.excess.is_some() {
            Err(ScanEnded)
        } else {
            Ok(())
        }
    }

    fn judged(&self) -> Result<()> {
        self.excess.map_or(Ok(()), |it| Err(it()))
    }

    fn message(
        &mut self,
        message: &[u8],
        fields: &'static [Field],
        depth: usize,
    ) -> Result<(), ScanEnded> {
        for field in Fields(message) {
            let (tag, raw) = field.map_err(|_| ScanEnded)?;
            let known = fields.iter().find(|it| it.tag == tag);
            if let (Some(field), Raw::Bytes(inner)) = (known, raw) {
                let depth = depth.saturating_add(usize::from(field.is_counted));
                if field.is_counted {
                    self.one(depth)?;
                }
                // What counts without any fields may be a text, which is no message.
                if !field.fields.is_empty() {
                    self.message(inner, field.fields, depth)?;
                }
            }
        }
        Ok(())
    }
}

/// A value of JSON: a message, or a list of them.
struct Scan<'a, 'b> {
    fields: &'static [Field],
    is_counted: bool,
    depth: usize,
    count: &'a mut Count<'b>,
}

impl<'de> DeserializeSeed<'de> for Scan<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.depth.saturating_add(usize::from(self.is_counted));
        if self.is_counted {
            let counted = self.count.one(depth);
            counted.map_err(|ScanEnded| A::Error::custom("too many"))?;
        }
        while let Some(name) = members.next_key::<String>()? {
            match self
                .fields
                .iter()
                .find(|it| it.names.contains(&name.as_str()))
            {
                Some(field) => members.next_value_seed(Scan {
                    fields: field.fields,
                    is_counted: field.is_counted,
                    depth,
                    count: self.count,
                })?,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        loop {
            let next = elements.next_element_seed(Scan {
                fields: self.fields,
                is_counted: self.is_counted,
                depth: self.depth,
                count: self.count,
            });
            if next?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        if self.is_counted {
            let counted = self.count.one(self.depth.saturating_add(1));
            counted.map_err(|ScanEnded| E::custom("too many"))?;
        }
        Ok(())
    }
}
