//! What google's protos define and JSON writes in ways of its own: `Timestamp`.

use std::ops::RangeInclusive;

use prost::Message;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::model;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// `google.protobuf.Timestamp`; in JSON it is RFC 3339.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(in crate::api) struct Timestamp {
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

/// What the protos allow: the years 1 to 9999.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

impl Timestamp {
    /// The time, in whole microseconds.
    pub(in crate::api) fn parse(self, field: &'static str) -> Result<model::Timestamp> {
        let is_valid = SECONDS.contains(&self.seconds) && (0..1_000_000_000).contains(&self.nanos);
        if !is_valid {
            return Err(Error::invalid(
                field,
                "expected a time of the years 1 to 9999",
            ));
        }
        let micros = self.seconds.saturating_mul(MICROS_PER_SECOND);
        let micros = micros.saturating_add(i64::from(self.nanos).div_euclid(1_000));
        Ok(model::Timestamp::from_micros(micros))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: model::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(time.into())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.seconds.saturating_mul(MICROS_PER_SECOND);
        let micros = seconds.saturating_add(i64::from(self.nanos).div_euclid(1_000));
        serializer.collect_str(&model::Timestamp::from_micros(micros))
    }
}
