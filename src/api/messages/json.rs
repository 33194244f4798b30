//! The rules of protojson that serde does not know: names of enums, numbers as text, `null` as unset.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

use crate::error::{Error, Result};

/// Parses a body. The error has the parser's message.
pub(in crate::api) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let read = serde_json::from_slice(body).map(|Object(it)| it);
    read.map_err(|error| unread(&error))
}

/// Parses a body that is a list of messages.
pub(super) fn read_list<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Vec<T>> {
    let read = serde_json::from_slice(body).map(objects_of);
    read.map_err(|error| unread(&error))
}

/// If a body is not JSON at all, the parser's message does not say what is expected, so this adds it.
fn unread(error: &serde_json::Error) -> Error {
    let problem = if error.is_data() {
        error.to_string()
    } else {
        format!("expected JSON: {error}")
    };
    Error::invalid("body", problem)
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

/// Whether a field has its default value; such a field is left out.
pub(super) fn is_unset<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

/// Reads a field in which `null` means the same as its absence.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A 64-bit number as text: JavaScript's numbers end at 2⁵³.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
pub(super) fn number_as_text<S: Serializer>(
    number: &u64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// A number without a fraction, written with a point or an exponent: protojson reads `1.0` and `1e2` as whole numbers.
fn whole_number(number: f64) -> Option<i64> {
    // 2⁵³: up to here every whole number is a double.
    let is_whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    is_whole
        .then(|| format!("{number:.0}").parse().ok())
        .flatten()
}

/// Reads an unsigned number, which may be written as text.
pub(super) fn number_in<'de, D: Deserializer<'de>, N: TryFrom<u64>>(
    deserializer: D,
) -> Result<N, D::Error> {
    struct Number;

    impl Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number from 0 on")
        }

        fn visit_u64<F>(self, number: u64) -> Result<u64, F> {
            Ok(number)
        }

        fn visit_f64<F: serde::de::Error>(self, number: f64) -> Result<u64, F> {
            let whole = whole_number(number).and_then(|it| it.try_into().ok());
            whole.ok_or_else(|| F::invalid_value(Unexpected::Float(number), &self))
        }

        fn visit_str<F: serde::de::Error>(self, text: &str) -> Result<u64, F> {
            let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.ok_or_else(|| F::invalid_value(Unexpected::Str(text), &self))
        }

        fn visit_unit<F>(self) -> Result<u64, F> {
            Ok(0)
        }
    }

    let number = deserializer.deserialize_any(Number)?;
    N::try_from(number).map_err(|_| D::Error::custom("this number is too large"))
}

/// An enum of the protos with the names its values have there.
pub(in crate::api) trait Named {
    /// Each value and its name.
    const NAMES: &'static [(i32, &'static str)];
}

/// Writes an enum by name, or by number if the value has no name.
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

/// Reads an enum by name or by number.
pub(super) fn enumeration_in<'de, E: Named, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<i32, D::Error> {
    struct NameOrNumber<E>(PhantomData<E>);

    impl<E: Named> Visitor<'_> for NameOrNumber<E> {
        type Value = i32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name or the number of a value")
        }

        fn visit_str<F: serde::de::Error>(self, text: &str) -> Result<i32, F> {
            named::<E>(text).ok_or_else(|| F::invalid_value(Unexpected::Str(text), &self))
        }

        fn visit_u64<F: serde::de::Error>(self, number: u64) -> Result<i32, F> {
            i32::try_from(number).map_err(|_| F::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_i64<F: serde::de::Error>(self, number: i64) -> Result<i32, F> {
            i32::try_from(number).map_err(|_| F::invalid_value(Unexpected::Signed(number), &self))
        }

        fn visit_f64<F: serde::de::Error>(self, number: f64) -> Result<i32, F> {
            let whole = whole_number(number).and_then(|it| it.try_into().ok());
            whole.ok_or_else(|| F::invalid_value(Unexpected::Float(number), &self))
        }

        fn visit_unit<F>(self) -> Result<i32, F> {
            Ok(0)
        }
    }

    deserializer
        .deserialize_any(NameOrNumber::<E>(PhantomData))
        .map_err(D::Error::custom)
}

/// Reads an enum in a query.
pub(in crate::api) fn enumeration_in_text<E: Named>(text: &str) -> Option<i32> {
    named::<E>(text).or_else(|| text.parse().ok())
}

fn named<E: Named>(text: &str) -> Option<i32> {
    let found = E::NAMES.iter().find(|(_, name)| *name == text);
    found.map(|(number, _)| *number)
}
