//! `docs/api.md` is generated from the OpenAPI description.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::openapi::{Operation, document, operations, refusals};
use crate::schema::{follow, resolve};

/// The schema that most answers contain. The page describes its fields once.
const DETAILS: &str = "#/components/schemas/Details";

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md"))
}

fn text<'a>(it: &'a Value, name: &str) -> &'a str {
    it.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The types of a schema as the page writes them: `text`, `number or null`, a list of values.
fn kind(document: &Value, schema: &Value) -> String {
    let schema = follow(document, schema);
    if let Some(values) = schema.get("enum") {
        // The numbers of enum values matter only to programs.
        let names = values.as_array().unwrap().iter().filter_map(Value::as_str);
        let names = names.filter(|it| it.parse::<u8>().is_err());
        let names = names.map(|it| format!("`{it}`"));
        return names.collect::<Vec<_>>().join(", ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`").replace('"', "");
    }
    if let Some(any) = schema.get("oneOf").and_then(Value::as_array)
        && schema.get("type").is_none()
    {
        let kinds: Vec<_> = any
            .iter()
            .map(|it| kind(document, it))
            .filter(|it| it != "null")
            .collect();
        return kinds.join(" or ");
    }
    let types = &schema["type"];
    let name = types.as_str().or_else(|| types[0].as_str()).unwrap();
    match (name, text(schema, "format")) {
        ("string", "date-time") => "time".to_owned(),
        ("string", _) => "text".to_owned(),
        ("integer", _) => "number".to_owned(),
        ("boolean", _) => "`true`, `false`".to_owned(),
        (name @ ("array" | "object" | "null"), _) => name.replace("array", "list"),
        (other, _) => panic!("{other}"),
    }
}

/// The schema itself, without `null`. Adds the names of the schemas it refers to.
fn shape<'a>(document: &'a Value, schema: &'a Value, names: &mut Vec<&'a str>) -> &'a Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        names.push(reference);
        return shape(document, resolve(document, reference), names);
    }
    match schema.get("oneOf").and_then(Value::as_array) {
        Some(any) if schema.get("properties").is_none() => shape(document, &any[0], names),
        _ => schema,
    }
}

/// One row for each field. The fields of nested objects and lists follow below. `around` names the enclosing schemas:
/// a schema that contains itself is described once.
fn fields<'a>(
    document: &'a Value,
    schema: &'a Value,
    prefix: &str,
    around: &[&'a str],
    rows: &mut String,
) {
    let mut names = around.to_vec();
    let schema = shape(document, schema, &mut names);
    if names[around.len()..].iter().any(|it| around.contains(it)) {
        return;
    }
    if let Some(items) = schema.get("items") {
        fields(document, items, &format!("{prefix}[]"), &names, rows);
        return;
    }
    let required = schema.get("required").and_then(Value::as_array);
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, member) in properties.into_iter().flatten() {
        let kind = kind(document, member);
        // A member of type `null` is in the description only because it is refused.
        if kind == "null" {
            continue;
        }
        let at = [prefix, name].join(if prefix.is_empty() { "" } else { "." });
        let is_required = required.is_some_and(|it| it.iter().any(|it| *it == **name));
        let needed = if is_required { "yes" } else { "" };
        let described = [member, shape(document, member, &mut Vec::new())];
        let mut words = described.iter().map(|it| text(it, "description"));
        let words = words.find(|it| !it.is_empty()).unwrap_or_default();
        writeln!(rows, "| `{at}` | {kind} | {needed} | {words} |").unwrap();
        fields(document, member, &at, &names, rows);
    }
}

fn fields_table(document: &Value, schema: &Value, around: &[&str], page: &mut String) {
    let mut rows = String::new();
    fields(document, schema, "", around, &mut rows);
    if !rows.is_empty() {
        writeln!(
            page,
            "| field | type | required | |\n|---|---|---|---|\n{rows}"
        )
        .unwrap();
    }
}

fn json(value: &Value) -> String {
    format!(
        "```json\n{}\n```\n",
        serde_json::to_string_pretty(value).unwrap()
    )
}

fn refusal_rows(document: &Value, response: &Value, status: u16, page: &mut String) {
    let schema = &response["content"]["application/json"]["schema"];
    for (_, id, refusal) in refusals(document, schema) {
        let id = id.map_or_else(|| "none".to_owned(), |it| format!("`{it}`"));
        writeln!(
            page,
            "| {status} | {id} | {} |",
            text(refusal, "description")
        )
        .unwrap();
    }
}

const REFUSALS: &str = "| HTTP | id | when |\n|---|---|---|\n";

fn call(document: &Value, it: &Operation<'_>, page: &mut String) {
    writeln!(
        page,
        "### {}\n\n`{} {}`\n",
        text(it.text, "summary"),
        it.method,
        it.path
    )
    .unwrap();
    let rpc = it.id.trim_end_matches('2').replace('_', ".");
    match it.roles() {
        Some(roles) => writeln!(page, "gRPC `{rpc}`. Roles: {}.\n", roles.join(", ")).unwrap(),
        None => writeln!(page, "It needs no token.\n").unwrap(),
    }
    let words = text(it.text, "description");
    if !words.is_empty() {
        writeln!(page, "{words}\n").unwrap();
    }
    let parameters = it.parameters(document);
    if !parameters.is_empty() {
        page.push_str("| parameter | in | type | |\n|---|---|---|---|\n");
        for parameter in parameters {
            let (name, place) = (text(parameter, "name"), text(parameter, "in"));
            let kind = kind(document, &parameter["schema"]);
            writeln!(
                page,
                "| `{name}` | {place} | {kind} | {} |",
                text(parameter, "description")
            )
            .unwrap();
        }
        page.push('\n');
    }
    if let Some((schema, examples)) = it.body() {
        let is_needed = it.text["requestBody"]["required"] == true;
        let described = [&it.text["requestBody"], follow(document, schema)];
        let words = described.iter().map(|it| text(it, "description"));
        let words = words
            .into_iter()
            .find(|it| !it.is_empty())
            .unwrap_or_default();
        let needed = if is_needed {
            "**Body**"
        } else {
            "**Body**, optional"
        };
        let sentence = format!("{needed}: {}. {words}", kind(document, schema));
        writeln!(page, "{}\n", sentence.trim_end()).unwrap();
        fields_table(document, schema, &[], page);
        for (_, example) in examples {
            page.push_str(&format!("```json\n{example}\n```\n\n"));
        }
    }
    let mut own = String::new();
    for (status, response) in it.responses(document) {
        if status < 400 {
            writeln!(page, "**{status}**: {}\n", text(response, "description")).unwrap();
            if let Some(media) = response["content"].get("application/json") {
                fields_table(document, &media["schema"], &[DETAILS], page);
                if let Some(example) = media.get("example") {
                    page.push_str(&json(example));
                    page.push('\n');
                }
            }
        } else if matches!(status, 400 | 404 | 409 | 429) {
            refusal_rows(document, response, status, &mut own);
        }
    }
    if !own.is_empty() {
        writeln!(page, "{REFUSALS}{own}").unwrap();
    }
}

fn page() -> String {
    let document = document();
    let mut page = String::from(
        "# The API\n\n<!-- Made from src/api/openapi.json: change that file, then run\n     `cargo test --test all write_the_page_of_the_api -- --ignored` -->\n\n",
    );
    writeln!(page, "{}\n", text(&document["info"], "description")).unwrap();
    page.push_str("A running server has the same as OpenAPI 3.1 at `/openapi.json`. [`errors.md`](errors.md) says what to do about each refusal.\n\n");
    page.push_str("Most answers have `details`, of a user or of an authenticator:\n\n");
    fields_table(&document, resolve(&document, DETAILS), &[], &mut page);
    page.push_str("These refusals can come from every call that needs a token:\n\n");
    page.push_str(REFUSALS);
    for (name, status) in [
        ("Unauthenticated", 401),
        ("Forbidden", 403),
        ("TooSlow", 408),
        ("TooLarge", 413),
        ("HeadTooLarge", 431),
        ("Bug", 500),
        ("Unavailable", 503),
    ] {
        let response = resolve(&document, &format!("#/components/responses/{name}"));
        refusal_rows(&document, response, status, &mut page);
    }
    page.push('\n');
    for tag in document["tags"].as_array().unwrap() {
        writeln!(page, "## {}\n", text(tag, "name")).unwrap();
        let words = text(tag, "description");
        if !words.is_empty() {
            writeln!(page, "{words}\n").unwrap();
        }
        let all = operations(&document);
        for it in all.iter().filter(|it| it.text["tags"][0] == tag["name"]) {
            call(&document, it, &mut page);
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[test]
fn the_page_of_the_api_is_what_the_description_says() {
    let committed = fs::read_to_string(file()).unwrap_or_default();
    assert!(
        committed == page(),
        "openapi.json has changed: run `cargo test --test all write_the_page_of_the_api -- --ignored`"
    );
}

#[test]
#[ignore = "it writes docs/api.md anew"]
fn write_the_page_of_the_api() {
    fs::write(file(), page()).unwrap();
}
