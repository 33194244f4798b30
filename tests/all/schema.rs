//! The part of JSON Schema that the API description uses. An unknown keyword fails the test.

use serde_json::{Map, Value};
use totpd::model::Timestamp;

/// What `#/…` refers to in a document.
pub fn resolve<'a>(document: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').unwrap();
    let found = document.pointer(pointer);
    found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// A member of an OpenAPI document, which may be a reference.
pub fn follow<'a>(document: &'a Value, it: &'a Value) -> &'a Value {
    match it.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolve(document, reference),
        None => it,
    }
}

/// Whether a value matches the schema and has no member that the schema does not describe.
pub fn matches(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schemas = Schemas { document };
    schemas.check(schema, value, "$")?;
    schemas.check_described(&[schema], value, "$")
}

struct Schemas<'a> {
    document: &'a Value,
}

impl<'a> Schemas<'a> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let keywords = schema.as_object().unwrap();
        for (keyword, rule) in keywords {
            let problem = self.problem(keyword, rule, value, at)?;
            if let Some(problem) = problem {
                return Err(format!("{at}: {problem}: {value}"));
            }
        }
        Ok(())
    }

    fn problem(
        &self,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
    ) -> Result<Option<String>, String> {
        let number = || rule.as_u64().unwrap();
        let length = value.as_str().map(|it| it.chars().count() as u64);
        let elements = value.as_array().map(|it| it.len() as u64);
        let is_good = match keyword {
            "$ref" => {
                let schema = resolve(self.document, rule.as_str().unwrap());
                return self.check(schema, value, at).map(|()| None);
            }
            "allOf" => {
                for schema in rule.as_array().unwrap() {
                    self.check(schema, value, at)?;
                }
                true
            }
            "oneOf" => {
                let schemas = rule.as_array().unwrap().iter();
                let results: Vec<_> = schemas.map(|it| self.check(it, value, at)).collect();
                match results.iter().filter(|it| it.is_ok()).count() {
                    0 => return Err(format!("{at}: none of: {results:?}")),
                    count => count == 1,
                }
            }
            "not" => self.check(rule, value, at).is_err(),
            "type" => match rule.as_array() {
                Some(types) => types.iter().any(|it| is_of_type(it, value)),
                None => is_of_type(rule, value),
            },
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => value.as_object().is_none_or(|it| {
                let names = rule.as_array().unwrap().iter();
                names
                    .clone()
                    .all(|name| it.contains_key(name.as_str().unwrap()))
            }),
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        self.check(schema, member, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "items" => {
                for (nth, element) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(rule, element, &format!("{at}[{nth}]"))?;
                }
                true
            }
            "minItems" => elements.is_none_or(|it| it >= number()),
            "maxItems" => elements.is_none_or(|it| it <= number()),
            "minLength" => length.is_none_or(|it| it >= number()),
            "maxLength" => length.is_none_or(|it| it <= number()),
            "minimum" => value.as_i64().is_none_or(|it| it >= rule.as_i64().unwrap()),
            "maximum" => value.as_u64().is_none_or(|it| it <= number()),
            "format" if rule == "date-time" => value
                .as_str()
                .is_none_or(|it| it.parse::<Timestamp>().is_ok()),
            "format" => ["uint32", "uint64", "uri"].contains(&rule.as_str().unwrap()),
            // Schemathesis tests patterns.
            "pattern" | "description" | "deprecated" | "additionalProperties" => true,
            other => panic!("{at}: this test does not know the keyword {other}"),
        };
        Ok((!is_good).then(|| format!("{keyword} {rule}")))
    }

    /// Refuses a member that no schema of its object describes.
    fn check_described(
        &self,
        schemas: &[&'a Value],
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let facets: Vec<_> = schemas.iter().flat_map(|it| self.facets(it)).collect();
        if facets
            .iter()
            .any(|it| it.contains_key("additionalProperties"))
        {
            return Ok(());
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let properties = facets.iter().filter_map(|it| it.get("properties"));
            let described: Vec<_> = properties.filter_map(|it| it.get(name)).collect();
            if described.is_empty() && !facets.is_empty() {
                return Err(format!("{at}: {name} is not described"));
            }
            self.check_described(&described, member, &format!("{at}.{name}"))?;
        }
        let items: Vec<_> = facets.iter().filter_map(|it| it.get("items")).collect();
        for (nth, element) in value.as_array().into_iter().flatten().enumerate() {
            self.check_described(&items, element, &format!("{at}[{nth}]"))?;
        }
        Ok(())
    }

    /// The schema itself, and every schema that it refers to or is composed of.
    fn facets(&self, schema: &'a Value) -> Vec<&'a Map<String, Value>> {
        let keywords = schema.as_object().unwrap();
        let mut facets = vec![keywords];
        if let Some(reference) = keywords.get("$ref") {
            facets.extend(self.facets(resolve(self.document, reference.as_str().unwrap())));
        }
        for keyword in ["allOf", "oneOf"] {
            let parts = keywords.get(keyword).and_then(Value::as_array);
            facets.extend(parts.into_iter().flatten().flat_map(|it| self.facets(it)));
        }
        facets
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type that the description uses"),
    }
}

#[test]
fn the_matcher_refuses_what_a_schema_does_not_say() {
    let document = serde_json::json!({"s": {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"oneOf": [{"const": 1}, {"type": "string", "maxLength": 2}]}, "b": {"items": {"type": "null"}}},
    }});
    let schema = serde_json::json!({"$ref": "#/s"});
    for (value, is_good) in [
        (r#"{"a":1}"#, true),
        (r#"{"a":"xy","b":[null]}"#, true),
        (r#"{"a":"xyz"}"#, false),
        (r#"{"a":2}"#, false),
        (r#"{"b":[]}"#, false),
        (r#"{"a":1,"b":[0]}"#, false),
        (r#"{"a":1,"c":0}"#, false),
        ("[]", false),
    ] {
        let value_read: Value = serde_json::from_str(value).unwrap();
        let judged = matches(&document, &schema, &value_read);
        assert_eq!(judged.is_ok(), is_good, "{value}: {judged:?}");
    }
}
