//! What google's protos define and JSON writes in ways of its own: `Timestamp`.

use prost::Message;
use serde::{Serialize, Serializer};

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
