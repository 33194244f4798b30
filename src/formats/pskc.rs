//! PSKC (RFC 6030): a container of keys in XML, without encryption.
//!
//! Only elements, text and the five entities of XML itself are read. A document type is refused, and so with it every
//! entity that could grow or name a file.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use totpd::error::{Error, Result};

use super::fields::{Draft, Fault, given};
use super::input::{Source, refused};
use super::{Place, ReadOptions, Sink};

/// The deepest nesting. That of RFC 6030 is 8.
const DEPTH: usize = 32;

/// A key as it is read.
#[derive(Default)]
struct Key {
    algorithm: String,
    secret: Option<String>,
    is_encrypted: bool,
    suite: String,
    digits: String,
    encoding: String,
    period: String,
    serial: String,
    name: String,
    user: String,
}

/// Reads a container.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let text = source.whole()?;
    let mut reader = Reader::from_str(&text);
    let (mut path, mut key): (Vec<String>, Option<Key>) = (Vec::new(), None);
    let (mut content, mut index) = (String::new(), 0_usize);
    loop {
        let position = reader.buffer_position();
        // The library's message may repeat what it is about.
        let event = reader
            .read_event()
            .map_err(|_| malformed(&text, position))?;
        match event {
            Event::DocType(_) => return Err(refused("it has a document type, which is not taken")),
            Event::GeneralRef(it) => content.push(character(&it).ok_or_else(|| {
                refused("it has an entity that XML itself does not have, which is not taken")
            })?),
            Event::Text(it) => content.push_str(&it),
            Event::CData(it) => content.push_str(&it),
            Event::Start(it) => {
                begin(&it, &mut key);
                path.push(local(&it));
                if path.first().is_some_and(|it| it != "keycontainer") {
                    return Err(refused("it is XML, and no container of keys (PSKC)"));
                }
                if path.len() > DEPTH {
                    return Err(refused("it is nested too deeply"));
                }
                content.clear();
            }
            Event::Empty(it) => begin(&it, &mut key),
            Event::End(_) => {
                if let Some(key) = &mut key {
                    key.take(&path, content.trim());
                }
                if path.pop().as_deref() == Some("keypackage")
                    && let Some(key) = key.take()
                {
                    let place = Place::Path(format!("KeyPackage[{index}]"));
                    let row = key.draft(options).and_then(|it| options.finish(it));
                    sink(place, row)?;
                    index = index.saturating_add(1);
                }
                content.clear();
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err(malformed(&text, position)),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn malformed(text: &str, position: u64) -> Error {
    let before = usize::try_from(position).ok().and_then(|it| text.get(..it));
    let line = before
        .map_or(0, |it| it.matches('\n').count())
        .saturating_add(1);
    refused(format!("it is no whole XML document; see line {line}"))
}

/// A character by its number, or one of the five that XML names.
fn character(it: &BytesRef<'_>) -> Option<char> {
    if it.is_char_ref() {
        return it.resolve_char_ref().ok().flatten();
    }
    match &**it {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    }
}

/// The name of an element without its prefix, in lower case as privacyIDEA writes it.
fn local(it: &BytesStart<'_>) -> String {
    it.local_name().as_ref().to_ascii_lowercase()
}

fn attribute(it: &BytesStart<'_>, name: &str) -> String {
    let found = it.attributes().flatten().find(|it| {
        let local = it.key.local_name();
        local.as_ref().eq_ignore_ascii_case(name)
    });
    found.map(|it| it.value.to_string()).unwrap_or_default()
}

/// Takes what the attributes of an element say.
fn begin(it: &BytesStart<'_>, key: &mut Option<Key>) {
    match (local(it).as_str(), &mut *key) {
        ("keypackage", _) => *key = Some(Key::default()),
        ("key", Some(key)) => key.algorithm = attribute(it, "Algorithm"),
        ("responseformat", Some(key)) => {
            key.digits = attribute(it, "Length");
            key.encoding = attribute(it, "Encoding");
        }
        // privacyIDEA writes it as an attribute.
        ("suite", Some(key)) => key.suite = attribute(it, "hashalgo"),
        ("encryptedvalue", Some(key)) => key.is_encrypted = true,
        _ => {}
    }
}

impl Key {
    /// Takes the text of an element that ends.
    fn take(&mut self, path: &[String], text: &str) {
        let mut names = path.iter().rev().map(String::as_str);
        let (element, parent) = (
            names.next().unwrap_or_default(),
            names.next().unwrap_or_default(),
        );
        let into = match (parent, element) {
            ("secret", "plainvalue") => {
                self.secret = Some(text.to_owned());
                return;
            }
            ("timeinterval", "plainvalue") => &mut self.period,
            ("algorithmparameters", "suite") if !text.is_empty() => &mut self.suite,
            ("deviceinfo", "serialno") => &mut self.serial,
            ("key", "friendlyname") => &mut self.name,
            ("key" | "deviceinfo", "userid") => &mut self.user,
            _ => return,
        };
        text.clone_into(into);
    }

    fn draft(self, options: &ReadOptions) -> Result<Draft, Fault> {
        let kind = self.algorithm.rsplit([':', '#']).next().unwrap_or_default();
        if !kind.eq_ignore_ascii_case("totp") {
            return Err(Fault::new("its algorithm is not TOTP"));
        }
        if self.is_encrypted {
            return Err(Fault::new(
                "its secret is encrypted; export it without encryption",
            ));
        }
        if !matches!(self.encoding.as_str(), "" | "DECIMAL") {
            return Err(Fault::new("its codes are not of digits"));
        }
        let secret = self.secret.ok_or_else(|| Fault::new("it has no secret"))?;
        Ok(Draft {
            username: user(&self.user).map(str::to_owned),
            secret: Some(options.secrets.base64(&secret)?),
            algorithm: Some(self.suite),
            digits: Some(self.digits),
            period: Some(self.period),
            name: given(&self.name).or(given(&self.serial)).map(str::to_owned),
            ..Draft::default()
        })
    }
}

/// The user that an id of RFC 6030 names: a distinguished name, or a plain one.
fn user(id: &str) -> Option<&str> {
    let parts = id.split(',').filter_map(|it| it.split_once('='));
    let find = |wanted: &str| {
        let mut parts = parts.clone();
        parts.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
    };
    let named = find("UID").or_else(|| find("CN")).map(|(_, value)| value);
    given(named.unwrap_or(id))
}
