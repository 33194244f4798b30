//! YAML: lists of authenticators by Authelia and by privacyIDEA's tokenjanitor.
//!
//! Only plain trees are read. An anchor or an alias is refused as it comes, so a few lines cannot become a million nodes.

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};
use totpd::error::{Error, Result};

use super::fields::{Draft, Fault, base64, given, time};
use super::input::{Source, refused};
use super::privacyidea::{OtpKey, Owners};
use super::{Format, Place, ReadOptions, Sink};

/// The deepest nesting.
const DEPTH: usize = 32;

/// Reads a document of Authelia or privacyIDEA.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let text = source.whole()?;
    let document = parse(&text)?;
    let is_asked = |it: Format| options.format.is_none_or(|asked| asked == it);
    if let Some(list) = document
        .get("totp_configurations")
        .and_then(Value::as_array)
        && is_asked(Format::Authelia)
    {
        for (index, entry) in list.iter().enumerate() {
            let place = Place::Path(format!("totp_configurations[{index}]"));
            let row = authelia(entry, options).and_then(|it| options.finish(it));
            sink(place, row)?;
        }
        return Ok(());
    }
    let tokens = document
        .as_array()
        .filter(|list| list.iter().any(|it| it.get("otpkey").is_some()));
    let Some(tokens) = tokens.filter(|_| is_asked(Format::Privacyidea)) else {
        return Err(refused(
            "it is YAML, and no export of Authelia or of privacyIDEA's tokenjanitor",
        ));
    };
    let mut owners = Owners::default();
    for (index, token) in tokens.iter().enumerate() {
        let place = Place::Path(format!("[{index}]"));
        let row = privacyidea(token, &mut owners, options).and_then(|it| options.finish(it));
        sink(place, row)?;
    }
    Ok(())
}

fn text(of: &Value, name: &str) -> Option<String> {
    of.get(name)?.as_str().and_then(given).map(str::to_owned)
}

/// The secret is the base64 of its base32.
fn authelia(entry: &Value, options: &ReadOptions) -> Result<Draft, Fault> {
    let secret = text(entry, "secret").ok_or_else(|| Fault::new("it has no secret"))?;
    let base32 = base64(&secret).and_then(|it| String::from_utf8(it.to_vec()).ok());
    let base32 = base32.ok_or_else(|| Fault::new("the secret is not the base64 of base32"))?;
    Ok(Draft {
        username: text(entry, "username"),
        secret: Some(options.secrets.base32(&base32)?),
        algorithm: text(entry, "algorithm"),
        digits: text(entry, "digits"),
        period: text(entry, "period"),
        created: text(entry, "created_at").as_deref().map(time).transpose()?,
        ..Draft::default()
    })
}

fn privacyidea(token: &Value, owners: &mut Owners, options: &ReadOptions) -> Result<Draft, Fault> {
    if text(token, "type").is_none_or(|it| !it.eq_ignore_ascii_case("totp")) {
        return Err(Fault::new("its type is not totp"));
    }
    let is = |name: &str| text(token, name).is_some_and(|it| it.eq_ignore_ascii_case("true"));
    if is("revoked")
        || is("locked")
        || text(token, "active").is_some_and(|it| it.eq_ignore_ascii_case("false"))
    {
        return Err(Fault::new("it is disabled, locked or revoked there"));
    }
    let info = token.get("info_list").unwrap_or(&Value::Null);
    let key = text(token, "otpkey").ok_or_else(|| Fault::new("it has no secret"))?;
    let name = text(token, "description").or_else(|| text(token, "serial"));
    Ok(Draft {
        username: owners.username(&text(token, "owner").unwrap_or_default())?,
        secret: Some(OtpKey(&key).secret(options.secrets)?),
        algorithm: text(info, "hashlib"),
        digits: text(token, "otplen"),
        period: text(info, "timeStep"),
        name,
        ..Draft::default()
    })
}

/// A value that is being read.
enum Open {
    List(Vec<Value>),
    /// The members, and the name of the one that comes.
    Map(Map<String, Value>, Option<String>),
}

/// Parses one document. Every scalar is a text.
fn parse(text: &str) -> Result<Value> {
    let mut stack: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        // The library's message may repeat what it is about.
        let (event, span) = event.map_err(|error| malformed(error.marker().line()))?;
        let line = span.start.line();
        let value = match event {
            Event::Alias(_) => return Err(anchored(line)),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err(anchored(line));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if stack.len() >= DEPTH => {
                return Err(refused(format!("line {line}: it is nested too deeply")));
            }
            Event::SequenceStart(..) => {
                stack.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                stack.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::DocumentStart(_) if root.is_some() => {
                return Err(refused(format!("line {line}: it holds a second document")));
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {
                continue;
            }
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, None)) => Value::Object(map),
                Some(Open::Map(_, Some(_))) | None => return Err(malformed(line)),
            },
        };
        match stack.last_mut() {
            None => root = Some(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, name)) => match (name.take(), value) {
                (Some(name), value) => {
                    if map.insert(name, value).is_some() {
                        return Err(refused(format!("line {line}: a name occurs twice")));
                    }
                }
                (None, Value::String(text)) => *name = Some(text),
                (None, _) => return Err(malformed(line)),
            },
        }
    }
    root.ok_or_else(|| refused("it is an empty document"))
}

fn malformed(line: usize) -> Error {
    refused(format!("it is no YAML that is read here; see line {line}"))
}

fn anchored(line: usize) -> Error {
    refused(format!(
        "line {line}: anchors and aliases of YAML are not taken"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_read_and_every_scalar_is_a_text() {
        let read = parse("a:\n  - b: 1\n    c: '02'\n  - ~\nd: {e: [x, \"y\"]}\n").unwrap();
        let expected =
            serde_json::json!({"a": [{"b": "1", "c": "02"}, "~"], "d": {"e": ["x", "y"]}});
        assert_eq!(read, expected);
    }

    #[test]
    fn what_could_grow_is_refused_at_once() {
        let deep = "[".repeat(1_000_000);
        let laughs = format!("a: &a [x, x]\n{}", "- *a\n".repeat(1_000_000));
        for (bad, told) in [
            (deep.as_str(), "line 1"),
            (&laughs, "line 1: anchors"),
            ("a: *b\n", "YAML"),
            ("a: &x y\n", "anchors"),
            ("? [a]\n: b\n", "YAML"),
            ("a: 1\na: 2\n", "twice"),
            ("a: 1\n---\nb: 1\n", "second document"),
            ("a: [1, 2\n", "YAML"),
            ("a: \"b\n", "YAML"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(told), "{bad:.20}: {error}");
        }
    }
}
