//! protojson's rules, as far as derives do not know them: names of enums, `null` as unset.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

use crate::error::{Error, Result};

/// Reads a body. What is wrong with it is told in the parser's words.
pub(in crate::api) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let read = serde_json::from_slice(body).map(|Object(it)| it);
    read.map_err(|error| Error::invalid("body", error.to_string()))
}

/// A message as JSON: an object and nothing else. serde by itself takes a list of the fields' values as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Reads a field that holds a message.
pub(super) fn message<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let read = Option::deserialize(deserializer)?;
    Ok(read.map(|Object(it)| it))
}

/// Reads a field that holds messages.
pub(super) fn messages<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    nullable(deserializer).map(objects_of)
}

fn objects_of<T>(objects: Vec<Object<T>>) -> Vec<T> {
    objects.into_iter().map(|Object(it)| it).collect()
}

/// Whether a field holds what it holds when nobody sets it; such a field is left out.
pub(super) fn is_unset<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

/// Reads a field of which `null` says the same as nothing.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An enum of the protos with the names its values have there.
pub(in crate::api) trait Named {
    /// Each value and its name.
    const NAMES: &'static [(i32, &'static str)];
}

/// An enum goes out by name; a value without one, by number.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
pub(super) fn enumeration_out<E: Named, S: Serializer>(
    value: &i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match E::NAMES.iter().find(|(number, _)| number == value) {
        Some((_, name)) => serializer.serialize_str(name),
        None => serializer.serialize_i32(*value),
    }
}
