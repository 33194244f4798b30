//! What google's protos define and JSON writes in ways of its own: `Timestamp`, `Struct`.

use std::collections::BTreeMap;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value as Json};

use crate::model;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// `google.protobuf.Timestamp`; in JSON it is RFC 3339.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl From<model::Timestamp> for Timestamp {
    fn from(it: model::Timestamp) -> Self {
        let micros = it.micros().rem_euclid(MICROS_PER_SECOND);
        Self {
            seconds: it.micros().div_euclid(MICROS_PER_SECOND),
            nanos: i32::try_from(micros.saturating_mul(1_000)).unwrap_or_default(),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.seconds.saturating_mul(MICROS_PER_SECOND);
        let micros = seconds.saturating_add(i64::from(self.nanos).div_euclid(1_000));
        serializer.collect_str(&model::Timestamp::from_micros(micros))
    }
}

/// `google.protobuf.Struct`: a JSON object, kept as one.
///
/// In protobuf its numbers are doubles. Between JSON and the database they stay what they were.
#[derive(Clone, PartialEq, Default)]
pub(in crate::api) struct Struct {
    fields: Map<String, Json>,
    /// Whether something stood there that JSON has no word for: no kind of value at all, or no number.
    is_beyond_json: bool,
}

impl Struct {
    pub(in crate::api) const fn of(fields: Map<String, Json>) -> Self {
        Self {
            fields,
            is_beyond_json: false,
        }
    }

    /// Whether no more than so many objects and lists stand in each other, this one among them.
    pub(in crate::api) fn is_within(&self, depth: usize) -> bool {
        are_within(self.fields.values(), depth)
    }

    /// The object, unless JSON cannot say it.
    pub(in crate::api) fn into_json(self) -> Option<Json> {
        (!self.is_beyond_json).then_some(Json::Object(self.fields))
    }
}

impl<'de> Deserialize<'de> for Struct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::of)
    }
}

impl Serialize for Struct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(serializer)
    }
}

fn are_within<'a>(mut values: impl Iterator<Item = &'a Json>, depth: usize) -> bool {
    depth
        .checked_sub(1)
        .is_some_and(|inner| values.all(|it| is_within(it, inner)))
}

fn is_within(value: &Json, depth: usize) -> bool {
    match value {
        Json::Object(it) => are_within(it.values(), depth),
        Json::Array(it) => are_within(it.iter(), depth),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => true,
    }
}

/// A `Struct` as it is on the wire.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Fields {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Struct(Fields),
    #[prost(message, tag = "6")]
    List(List),
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct List {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

/// Written by hand only to say that it is [`Fields`] on the wire.
impl Message for Struct {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        Fields::from(&self.fields).encode_raw(buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut part = Fields::default();
        part.merge_field(tag, wire_type, buffer, context)?;
        for (name, value) in part.fields {
            let value = json_of(value).unwrap_or_else(|| {
                self.is_beyond_json = true;
                Json::Null
            });
            self.fields.insert(name, value);
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        Fields::from(&self.fields).encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl From<&Map<String, Json>> for Fields {
    fn from(object: &Map<String, Json>) -> Self {
        let fields = object.iter().map(|(name, it)| (name.clone(), it.into()));
        Self {
            fields: fields.collect(),
        }
    }
}

impl From<&Json> for Value {
    fn from(it: &Json) -> Self {
        let kind = match it {
            Json::Null => Kind::Null(0),
            Json::Bool(it) => Kind::Bool(*it),
            Json::Number(it) => Kind::Number(it.as_f64().unwrap_or_default()),
            Json::String(it) => Kind::Text(it.clone()),
            Json::Array(it) => Kind::List(List {
                values: it.iter().map(Into::into).collect(),
            }),
            Json::Object(it) => Kind::Struct(it.into()),
        };
        Self { kind: Some(kind) }
    }
}

fn json_of(value: Value) -> Option<Json> {
    Some(match value.kind? {
        Kind::Null(_) => Json::Null,
        Kind::Bool(it) => Json::Bool(it),
        Kind::Number(it) => Json::Number(number_of(it)?),
        Kind::Text(it) => Json::String(it),
        Kind::List(it) => Json::Array(it.values.into_iter().map(json_of).collect::<Option<_>>()?),
        Kind::Struct(it) => {
            let fields = it.fields.into_iter();
            let fields = fields.map(|(name, it)| Some((name, json_of(it)?)));
            Json::Object(fields.collect::<Option<_>>()?)
        }
    })
}

/// A double without a fraction is written without one, as protojson does.
fn number_of(number: f64) -> Option<Number> {
    // 2⁵³: up to here every whole number is a double.
    if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
        return format!("{number:.0}").parse().ok();
    }
    Number::from_f64(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_survives_protobuf() {
        let json = serde_json::json!({
            "a": [1, -2.5, null, true, "ü", {"b": {}}], "n": 9_007_199_254_740_992_i64, "e": [], "z": 0,
        });
        let Json::Object(fields) = json.clone() else {
            panic!("an object")
        };
        let bytes = Struct::of(fields).encode_to_vec();
        let back = Struct::decode(bytes.as_slice()).unwrap();
        assert_eq!(back.into_json(), Some(json));
    }

    #[test]
    fn what_json_has_no_word_for_is_noticed() {
        for kind in [
            None,
            Some(Kind::Number(f64::NAN)),
            Some(Kind::Number(f64::INFINITY)),
        ] {
            let list = List {
                values: vec![Value { kind }],
            };
            let value = Value {
                kind: Some(Kind::List(list)),
            };
            let fields = BTreeMap::from([("a".to_owned(), value)]);
            let bytes = Fields { fields }.encode_to_vec();
            let read = Struct::decode(bytes.as_slice()).unwrap();
            assert!(read.into_json().is_none());
        }
    }
}
