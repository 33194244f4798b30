//! The URIs that Google Authenticator exports as QR codes: `otpauth-migration://offline?data=…`, one a line.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;
use prost::Message;
use totpd::error::Result;

use super::fields::{Draft, Fault, base64};
use super::input::{LINE_BYTES, Source};
use super::{Place, ReadOptions, Sink, otpauth};

/// How each line begins.
pub(super) const BEGINNING: &str = "otpauth-migration://";

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Payload {
    #[prost(message, repeated, tag = "1")]
    otp_parameters: Vec<OtpParameters>,
    #[prost(int32, tag = "3")]
    batch_size: i32,
    #[prost(int32, tag = "4")]
    batch_index: i32,
    #[prost(int32, tag = "5")]
    batch_id: i32,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct OtpParameters {
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    issuer: String,
    #[prost(int32, tag = "4")]
    algorithm: i32,
    #[prost(int32, tag = "5")]
    digits: i32,
    #[prost(int32, tag = "6")]
    r#type: i32,
}

/// Reads the parts of one export or of several, in any order. A part that is missing is told at the end.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    // The parts of each export: how many there are, and which were read.
    let mut exports: BTreeMap<i32, (i32, BTreeSet<i32>)> = BTreeMap::new();
    let mut last = 0;
    while let Some(line) = source.next_line(LINE_BYTES)? {
        last = line.number;
        let text = line.text.unwrap_or_default();
        if text.starts_with('#') {
            continue;
        }
        let payload = match payload(&text) {
            Ok(payload) => payload,
            Err(fault) => {
                sink(Place::Line(line.number), Err(fault))?;
                continue;
            }
        };
        if (2..=1_000).contains(&payload.batch_size) {
            let (_, parts) = exports
                .entry(payload.batch_id)
                .or_insert_with(|| (payload.batch_size, BTreeSet::new()));
            parts.insert(payload.batch_index);
        }
        for (index, entry) in payload.otp_parameters.into_iter().enumerate() {
            let place = Place::Path(format!(
                "line {}, entry {}",
                line.number,
                index.saturating_add(1)
            ));
            sink(
                place,
                draft(&entry, options).and_then(|it| options.finish(it)),
            )?;
        }
    }
    for (size, parts) in exports.into_values() {
        for missing in (0..size).filter(|it| !parts.contains(it)) {
            let number = missing.saturating_add(1);
            let fault = Fault::new(format!(
                "after it: part {number} of {size} of an export is missing"
            ));
            sink(Place::Line(last), Err(fault))?;
        }
    }
    Ok(())
}

fn payload(text: &str) -> Result<Payload, Fault> {
    let malformed = || Fault::new("it is no URI of Google's export");
    if !text.to_ascii_lowercase().starts_with(BEGINNING) {
        return Err(malformed());
    }
    let query = text.split_once('?').map(|(_, it)| it).unwrap_or_default();
    let data = query.split('&').find_map(|it| it.strip_prefix("data="));
    let decoded = percent_decode_str(data.ok_or_else(malformed)?).decode_utf8();
    // Some scanners decode it already, and then `+` may have become a blank.
    let plain = decoded.map_err(|_| malformed())?.replace(' ', "+");
    let bytes = base64(&plain).ok_or_else(malformed)?;
    Payload::decode(bytes.as_slice()).map_err(|_| malformed())
}

fn draft(entry: &OtpParameters, options: &ReadOptions) -> Result<Draft, Fault> {
    match entry.r#type {
        2 => {}
        0 | 1 => return Err(Fault::new("it is HOTP, by counter; only TOTP is taken")),
        _ => return Err(Fault::new("its type is not totp")),
    }
    let algorithm = match entry.algorithm {
        0 | 1 => "SHA1",
        2 => "SHA256",
        3 => "SHA512",
        _ => {
            return Err(Fault::new(
                "its algorithm is none of SHA1, SHA256 and SHA512",
            ));
        }
    };
    let digits = match entry.digits {
        0 | 1 => "6",
        2 => "8",
        3 => "7",
        _ => return Err(Fault::new("its codes do not have 6 to 9 digits")),
    };
    Ok(Draft {
        username: Some(otpauth::account(
            &entry.name,
            &entry.name,
            Some(&entry.issuer),
        )?),
        secret: Some(options.secrets.bytes(&entry.secret)?),
        algorithm: Some(algorithm.to_owned()),
        digits: Some(digits.to_owned()),
        ..Draft::default()
    })
}
