//! Decodes paths and queries. Refuses a parameter that is given twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::messages::{self, FieldName, Instance, Organization, SearchQuery};
use crate::error::{Error, Result};

/// Parameters that a query may have: more than all calls together know.
const MAX_PARAMETERS: usize = 32;

/// Decodes percent-encoding. Refuses text that does not decode.
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

/// The parameters of a query. Calls ignore those that they do not know.
pub(super) struct Query {
    parameters: BTreeMap<String, String>,
}

impl Query {
    /// Parses a query. A parameter that is given twice is refused, because it is ambiguous.
    pub(super) fn read(query: &str) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        let pairs = || query.split('&').filter(|it| !it.is_empty());
        if pairs().nth(MAX_PARAMETERS).is_some() {
            return Err(Error::invalid("query", "too many parameters: at most 32"));
        }
        for pair in pairs() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode("query", &name.replace('+', " "))?;
            let value = decode("query", &value.replace('+', " "))?;
            // Two spellings of one parameter are the same parameter (protojson).
            let name = match name.as_str() {
                "organization.org_id" => "organization.orgId".to_owned(),
                "organization.org_domain" => "organization.orgDomain".to_owned(),
                "sorting_column" => "sortingColumn".to_owned(),
                _ => name,
            };
            match parameters.entry(name) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(seen) => {
                    let name = seen.key().clone();
                    return Err(Error::invalid(name, "given twice; give it once"));
                }
            };
        }
        Ok(Self { parameters })
    }

    /// The instance that the caller expects.
    pub(super) fn instance(&self) -> Option<Instance> {
        let (id, domain) = (self.owned("instance.id"), self.owned("instance.domain"));
        (id.is_some() || domain.is_some()).then_some(Instance { id, domain })
    }

    /// The organization that the caller expects.
    pub(super) fn organization(&self) -> Option<Organization> {
        let org_id = self.owned("organization.orgId");
        let org_domain = self.owned("organization.orgDomain");
        let said = org_id.is_some() || org_domain.is_some();
        said.then_some(Organization { org_id, org_domain })
    }

    /// The authenticator that a new one is to replace.
    pub(super) fn replaces(&self) -> Option<String> {
        self.owned("replaces")
    }

    /// The format of the picture that an enrolment is to answer with.
    pub(super) fn qr(&self) -> Option<String> {
        self.owned("qr")
    }

    /// Which page of a search is asked for.
    pub(super) fn page(&self) -> Result<SearchQuery> {
        let desc = match self.get("query.desc") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Error::invalid("query.desc", "expected true or false")),
        };
        Ok(SearchQuery {
            offset: self.number("query.offset")?,
            limit: self.number("query.limit")?,
            desc,
        })
    }

    /// The column that a search is sorted by.
    pub(super) fn sorting_column(&self) -> Result<i32> {
        let text = self.get("sortingColumn").unwrap_or("0");
        messages::enumeration_in_text::<FieldName>(text)
            .ok_or_else(|| Error::invalid("sortingColumn", "expected a name such as FIELD_NAME_ID"))
    }

    fn number<T: FromStr + Default>(&self, name: &'static str) -> Result<T> {
        let Some(text) = self.get(name) else {
            return Ok(T::default());
        };
        let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| Error::invalid(name, "expected a number"))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }
}
