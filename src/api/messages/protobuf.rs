//! Reads protobuf field by field, where a derived decoder would build too much.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The fields of a message, in their order on the wire. An iterator that holds no memory.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// The content of a field, by its wire type.
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Raw<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field())
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Raw<'a>), Malformed> {
        let (tag, wire_type) = decode_key(&mut self.0)?;
        let raw = match wire_type {
            WireType::Varint => Raw::Varint(decode_varint(&mut self.0)?),
            WireType::SixtyFourBit if self.0.len() >= 8 => Raw::Fixed64(self.0.get_u64_le()),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut self.0)?).unwrap_or(usize::MAX);
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                Raw::Bytes(bytes)
            }
            WireType::SixtyFourBit
            | WireType::StartGroup
            | WireType::EndGroup
            | WireType::ThirtyTwoBit => {
                skip_field(wire_type, tag, &mut self.0, DecodeContext::default())?;
                Raw::Other
            }
        };
        Ok((tag, raw))
    }
}

/// The message is malformed. The message of prost is dropped, because it may repeat what was sent.
#[derive(Debug)]
pub(super) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}
