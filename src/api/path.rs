//! Paths and queries: what percent-encoding hides, and what may stand there only once.

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::service::{Expect, Named};

/// The text behind a percent-encoded one. What does not decode is refused, never guessed at.
pub(super) fn decode(field: &'static str, raw: &str) -> Result<String> {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|it| *it == b'%') {
        let digits = rest
            .get(at.saturating_add(1)..at.saturating_add(3))
            .unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Error::invalid(
                field,
                "bad percent-encoding: expected two hex digits after %",
            ));
        }
        rest = rest.get(at.saturating_add(3)..).unwrap_or_default();
    }
    let text = percent_decode_str(raw).decode_utf8();
    text.map(Into::into)
        .map_err(|_| Error::invalid(field, "bad percent-encoding: expected UTF-8"))
}

/// Reads what a query says about instance and organization.
///
/// Unknown parameters are ignored; one that is given twice is refused, for nobody can say which was meant.
pub(super) fn expect(query: &str) -> Result<Expect> {
    let mut seen = Vec::new();
    let mut expect = Expect::default();
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode("query", &name.replace('+', " "))?;
        let value = decode("query", &value.replace('+', " "))?;
        // Two spellings of one parameter are the same parameter (protojson).
        let name = match name.as_str() {
            "organization.org_id" => "organization.orgId".to_owned(),
            "organization.org_domain" => "organization.orgDomain".to_owned(),
            _ => name,
        };
        if seen.contains(&name) {
            return Err(Error::invalid(name, "given twice; give it once"));
        }
        match name.as_str() {
            "instance.id" => set(&mut expect.instance, Named::Id(value.parse()?))?,
            "instance.domain" => set(&mut expect.instance, Named::Domain)?,
            "organization.orgId" => set(&mut expect.organization, Named::Id(value.parse()?))?,
            "organization.orgDomain" => set(&mut expect.organization, Named::Domain)?,
            _ => {}
        }
        seen.push(name);
    }
    Ok(expect)
}

/// The id and the domain of a thing are one choice (a `oneof` in the protos).
fn set(slot: &mut Option<Named>, to: Named) -> Result<()> {
    match slot.replace(to) {
        None => Ok(()),
        Some(_) => Err(Error::invalid(
            "query",
            "expected an id or a domain, not both",
        )),
    }
}
