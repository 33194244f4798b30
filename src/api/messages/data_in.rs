//! `google.protobuf.Struct` in a request: bounded while it is read.
//!
//! Between JSON and the database numbers stay exact; in protobuf they are doubles.

use std::fmt;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value as Json};

use super::protobuf::{Fields, Malformed, Raw};
use crate::error::{Error, Result};

/// How deep objects and lists may be nested. Each object is three messages of protobuf, whose parsers give up
/// at a hundred: a client of gRPC could not read a page of users with a deeper one among them.
const MAX_DEPTH: usize = 30;
/// Values, every member and element counted. Each takes two bytes on the wire and a hundred in memory.
const MAX_VALUES: usize = 2_000;

/// What is wrong with a user's data. The rest of the data is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataError {
    TooDeep,
    TooMany,
    /// No kind of value at all, or a number that JSON cannot write.
    BeyondJson,
    /// No message of protobuf.
    Malformed,
}

/// A user's data as it was sent.
#[derive(Clone, PartialEq, Default)]
pub(in crate::api) struct Struct {
    fields: Map<String, Json>,
    budget: Budget,
}

/// How much may still follow, and what is wrong so far.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Budget {
    values_left: usize,
    error: Option<DataError>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            values_left: MAX_VALUES,
            error: None,
        }
    }
}

impl Budget {
    /// Counts one member or element; `false` if it is one too many or something is wrong already.
    fn take_value(&mut self) -> bool {
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => self.mark(DataError::TooMany),
        }
        self.error.is_none()
    }

    fn mark(&mut self, error: DataError) {
        self.error.get_or_insert(error);
    }

    /// The depth inside one more object or list.
    fn enter(&mut self, depth_left: usize) -> Option<usize> {
        let inner = depth_left.checked_sub(1);
        if inner.is_none() {
            self.mark(DataError::TooDeep);
        }
        inner
    }
}

impl Struct {
    /// The JSON text to keep.
    pub(in crate::api) fn into_text(self) -> Result<String> {
        match self.budget.error {
            None => Ok(Json::Object(self.fields).to_string()),
            Some(DataError::TooDeep) => {
                Err(Error::invalid("data", "nested too deeply: at most 30"))
            }
            Some(DataError::TooMany) => {
                Err(Error::invalid("data", "too many values: at most 2000"))
            }
            Some(DataError::Malformed) => Err(Error::invalid("data", "this is no Struct")),
            Some(DataError::BeyondJson) => {
                let problem = "expected what JSON can say: finite numbers";
                Err(Error::invalid("data", problem))
            }
        }
    }
}

/// Parses a user's data outside a request, within the same bounds. Returns the JSON text to keep.
pub fn read_data(json: &str) -> Result<String> {
    super::json::read::<Struct>(json.as_bytes())?.into_text()
}

impl<'de> Deserialize<'de> for Struct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut budget = Budget::default();
        let tree = Tree {
            depth_left: MAX_DEPTH,
            budget: &mut budget,
        };
        let fields = match deserializer.deserialize_map(tree)? {
            Json::Object(fields) => fields,
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                return Err(D::Error::custom("expected an object"));
            }
        };
        Ok(Self { fields, budget })
    }
}

/// Reads a JSON value within the budget.
struct Tree<'a> {
    depth_left: usize,
    budget: &'a mut Budget,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let inner = self.budget.enter(self.depth_left);
        let mut fields = Map::new();
        if let Some(depth_left) = inner {
            while let Some(name) = members.next_key::<String>()? {
                if !self.budget.take_value() {
                    members.next_value::<IgnoredAny>()?;
                    break;
                }
                let budget = &mut *self.budget;
                let value = members.next_value_seed(Tree { depth_left, budget })?;
                fields.insert(name, value);
            }
        }
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Json::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let inner = self.budget.enter(self.depth_left);
        let mut list = Vec::new();
        if let Some(depth_left) = inner {
            // The element that is one too many is read before it is known to be there.
            while self.budget.error.is_none() {
                let budget = &mut *self.budget;
                let element = Counted(Tree { depth_left, budget });
                match elements.next_element_seed(element)? {
                    Some(value) => list.push(value),
                    None => return Ok(Json::Array(list)),
                }
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Array(list))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Json, E> {
        Ok(Json::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Json, E> {
        Ok(it.into())
    }

    fn visit_u64<E>(self, it: u64) -> Result<Json, E> {
        Ok(it.into())
    }

    fn visit_f64<E>(self, it: f64) -> Result<Json, E> {
        Ok(it.into())
    }

    fn visit_str<E>(self, it: &str) -> Result<Json, E> {
        Ok(it.into())
    }

    fn visit_string<E>(self, it: String) -> Result<Json, E> {
        Ok(it.into())
    }
}

/// An element of a list, which takes from the budget.
struct Counted<'a>(Tree<'a>);

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        if self.0.budget.take_value() {
            self.0.deserialize(deserializer)
        } else {
            IgnoredAny::deserialize(deserializer).map(|_| Json::Null)
        }
    }
}

/// Read by hand, so that it is bounded while it is read.
impl Message for Struct {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn encoded_len(&self) -> usize {
        0
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != 1 {
            return skip_field(wire_type, tag, buffer, context);
        }
        let mut entry = Vec::new();
        encoding::bytes::merge(wire_type, &mut entry, buffer, context)?;
        let inner = MAX_DEPTH.saturating_sub(1);
        let merged = merge_entry(&mut self.fields, &entry, inner, &mut self.budget);
        if merged.is_err() {
            self.budget.mark(DataError::Malformed);
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Reads one entry of a `Struct`'s map.
fn merge_entry(
    fields: &mut Map<String, Json>,
    entry: &[u8],
    depth_left: usize,
    budget: &mut Budget,
) -> Result<(), Malformed> {
    if !budget.take_value() {
        return Ok(());
    }
    let (mut name, mut value) = (String::new(), &[][..]);
    for field in Fields(entry) {
        match field? {
            (1, Raw::Bytes(bytes)) => name = text(bytes)?,
            (2, Raw::Bytes(bytes)) => value = bytes,
            (1 | 2, _) => return Err(Malformed),
            _ => {}
        }
    }
    let value = value_of(value, depth_left, budget)?;
    fields.insert(name, value);
    Ok(())
}

/// Reads a `Value`. Of several kinds in one the last holds, as everywhere in protobuf.
fn value_of(bytes: &[u8], depth_left: usize, budget: &mut Budget) -> Result<Json, Malformed> {
    let mut value = None;
    for field in Fields(bytes) {
        value = match field? {
            (1, Raw::Varint(_)) => Some(Json::Null),
            (2, Raw::Fixed64(bits)) => number_of(f64::from_bits(bits)),
            (3, Raw::Bytes(bytes)) => Some(Json::String(text(bytes)?)),
            (4, Raw::Varint(it)) => Some(Json::Bool(it != 0)),
            (5, Raw::Bytes(bytes)) => {
                let mut fields = Map::new();
                if let Some(inner) = budget.enter(depth_left) {
                    for entry in Fields(bytes) {
                        match entry? {
                            (1, Raw::Bytes(it)) => merge_entry(&mut fields, it, inner, budget)?,
                            (1, _) => return Err(Malformed),
                            _ => {}
                        }
                    }
                }
                Some(Json::Object(fields))
            }
            (6, Raw::Bytes(bytes)) => {
                let mut list = Vec::new();
                if let Some(inner) = budget.enter(depth_left) {
                    for element in Fields(bytes) {
                        match element? {
                            (1, Raw::Bytes(it)) if budget.take_value() => {
                                list.push(value_of(it, inner, budget)?);
                            }
                            (1, Raw::Bytes(_)) => {}
                            (1, _) => return Err(Malformed),
                            _ => {}
                        }
                    }
                }
                Some(Json::Array(list))
            }
            (1..=6, _) => return Err(Malformed),
            _ => value,
        };
    }
    if value.is_none() {
        budget.mark(DataError::BeyondJson);
    }
    Ok(value.unwrap_or_default())
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    Ok(text.to_owned())
}

/// A double without a fraction is written without one, as protojson does.
fn number_of(number: f64) -> Option<Json> {
    // 2⁵³: up to here every whole number is a double.
    let number = if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
        format!("{number:.0}").parse().ok()
    } else {
        Number::from_f64(number)
    };
    number.map(Json::Number)
}
