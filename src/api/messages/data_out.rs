//! `google.protobuf.Struct` in an answer: the stored text in JSON, bytes in protobuf. No tree is built.

use std::fmt;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::encoding::{encode_key, encode_varint};
use prost::{DecodeError, Message};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::Encoding;
use crate::error::{Error, Result};

/// A user's data in an answer: the stored text in JSON, bytes in protobuf. No tree of it is ever built.
#[derive(Clone)]
pub(super) enum Data {
    Json(Box<RawValue>),
    Protobuf(Vec<u8>),
}

impl Data {
    pub(super) fn of(stored: &str, encoding: Encoding) -> Result<Self> {
        let data = match encoding {
            Encoding::Json => RawValue::from_string(stored.to_owned()).map(Self::Json),
            Encoding::Protobuf => struct_bytes(stored).map(Self::Protobuf),
        };
        data.map_err(|error| Error::Bug(format!("stored data: {error}")))
    }
}

impl Default for Data {
    fn default() -> Self {
        Self::Protobuf(Vec::new())
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Json(it), Self::Json(other)) => it.get() == other.get(),
            (Self::Protobuf(it), Self::Protobuf(other)) => it == other,
            (Self::Json(_), Self::Protobuf(_)) | (Self::Protobuf(_), Self::Json(_)) => false,
        }
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(it) => it.serialize(serializer),
            Self::Protobuf(_) => Err(serde::ser::Error::custom("data of the other encoding")),
        }
    }
}

/// Implemented by hand, because the bytes are a `Struct` already. It is never decoded.
impl Message for Data {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if let Self::Protobuf(bytes) = self {
            buffer.put_slice(bytes);
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Json(_) => 0,
            Self::Protobuf(bytes) => bytes.len(),
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A JSON object as the bytes of a `Struct`.
fn struct_bytes(json: &str) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut from = serde_json::Deserializer::from_str(json);
    from.deserialize_map(StructTo(&mut bytes))?;
    from.end()?;
    Ok(bytes)
}

/// Writes a field whose length is known only when all of it is there. What comes after the length is moved once for
/// each object or list around it, of which there are few.
fn delimited<E>(
    tag: u32,
    bytes: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    encode_key(tag, WireType::LengthDelimited, bytes);
    let start = bytes.len();
    write(bytes)?;
    let length = bytes.len().saturating_sub(start);
    let mut prefix = Vec::with_capacity(4);
    encode_varint(u64::try_from(length).unwrap_or(u64::MAX), &mut prefix);
    bytes.splice(start..start, prefix);
    Ok(())
}

fn put_text(tag: u32, text: &str, bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(u64::try_from(text.len()).unwrap_or(u64::MAX), bytes);
    bytes.extend_from_slice(text.as_bytes());
}

/// Writes the members of an object as a `Struct`.
struct StructTo<'a>(&'a mut Vec<u8>);

impl<'de> Visitor<'de> for StructTo<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            delimited(1, self.0, |entry| {
                put_text(1, &name, entry);
                delimited(2, entry, |value| members.next_value_seed(ValueTo(value)))
            })?;
        }
        Ok(())
    }
}

/// Writes a value of JSON as a `Value`.
struct ValueTo<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for ValueTo<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueTo<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        encode_key(1, WireType::Varint, self.0);
        encode_varint(0, self.0);
        Ok(())
    }

    fn visit_f64<E>(self, it: f64) -> Result<(), E> {
        encode_key(2, WireType::SixtyFourBit, self.0);
        self.0.put_f64_le(it);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, it: u64) -> Result<(), E> {
        let number = serde_json::Number::from(it).as_f64();
        self.visit_f64(number.ok_or_else(|| E::custom("a number beyond doubles"))?)
    }

    fn visit_i64<E: serde::de::Error>(self, it: i64) -> Result<(), E> {
        let number = serde_json::Number::from(it).as_f64();
        self.visit_f64(number.ok_or_else(|| E::custom("a number beyond doubles"))?)
    }

    fn visit_str<E>(self, it: &str) -> Result<(), E> {
        put_text(3, it, self.0);
        Ok(())
    }

    fn visit_bool<E>(self, it: bool) -> Result<(), E> {
        encode_key(4, WireType::Varint, self.0);
        encode_varint(it.into(), self.0);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        delimited(5, self.0, |fields| StructTo(fields).visit_map(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        delimited(6, self.0, |list| {
            loop {
                // The key of an element that is not there is taken back.
                let before = list.len();
                let mut is_there = false;
                delimited(1, list, |value| {
                    is_there = elements.next_element_seed(ValueTo(value))?.is_some();
                    Ok::<(), A::Error>(())
                })?;
                if !is_there {
                    list.truncate(before);
                    return Ok(());
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::data_in::Struct;
    use super::*;

    #[test]
    fn an_object_survives_protobuf() {
        let json = json!({
            "a": [1, -2.5, null, true, "ü", {"b": {}}, [[]]], "n": 9_007_199_254_740_992_i64, "e": [], "z": 0,
            "": "x".repeat(300), "q": "\"\\\n",
        });
        let Ok(Data::Protobuf(bytes)) = Data::of(&json.to_string(), Encoding::Protobuf) else {
            panic!("bytes")
        };
        let back = Struct::decode(bytes.as_slice()).unwrap();
        assert_eq!(back.into_text().unwrap(), json.to_string());
    }
}
