//! `GET /openapi.json` describes every REST call and nothing else, and agrees with the other pages. `openapi_answers`
//! sends its examples.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::DescriptorPool;
use serde_json::Value;

use crate::docs;
use crate::harness::TestServer;
use crate::schema::{follow, matches};

const FILE: &str = include_str!("../../src/api/openapi.json");
const ROUTES: &str = include_str!("../../src/api/routes.rs");
const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");

/// A call in the description.
pub struct Operation<'a> {
    pub path: &'a str,
    pub method: String,
    pub id: &'a str,
    pub text: &'a Value,
}

impl Operation<'_> {
    /// The roles that may make the call. `None` if it needs no token.
    pub fn roles(&self) -> Option<Vec<&str>> {
        let roles = self.text.get("x-roles")?.as_array().unwrap();
        Some(roles.iter().map(|it| it.as_str().unwrap()).collect())
    }

    pub fn parameters<'a>(&'a self, document: &'a Value) -> Vec<&'a Value> {
        let parameters = self.text.get("parameters").and_then(Value::as_array);
        let parameters = parameters.into_iter().flatten();
        parameters.map(|it| follow(document, it)).collect()
    }

    /// The schema of the body, and its examples by name.
    pub fn body(&self) -> Option<(&Value, Vec<(&String, &Value)>)> {
        let media = self
            .text
            .pointer("/requestBody/content/application~1json")?;
        let examples = media["examples"].as_object().unwrap();
        let examples = examples.iter().map(|(name, it)| (name, &it["value"]));
        Some((&media["schema"], examples.collect()))
    }

    pub fn responses<'a>(&'a self, document: &'a Value) -> BTreeMap<u16, &'a Value> {
        let responses = self.text["responses"].as_object().unwrap();
        let responses = responses.iter();
        responses
            .map(|(status, it)| (status.parse().unwrap(), follow(document, it)))
            .collect()
    }
}

pub fn document() -> Value {
    serde_json::from_str(FILE).unwrap()
}

pub fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, text) in methods.as_object().unwrap() {
            all.push(Operation {
                path,
                method: method.to_uppercase(),
                id: text["operationId"].as_str().unwrap(),
                text,
            });
        }
    }
    // Sorted by their order in the file, which the parser does not keep.
    all.sort_by_key(|it| {
        let path = FILE.find(&format!("\"{}\": {{", it.path)).unwrap();
        let method = format!("\"{}\": {{", it.method.to_lowercase());
        (path, FILE[path..].find(&method))
    });
    all
}

/// The codes and ids of the refusals that a schema allows.
pub fn refusals<'a>(
    document: &'a Value,
    schema: &'a Value,
) -> Vec<(i32, Option<&'a str>, &'a Value)> {
    if let Some(any) = schema.get("oneOf") {
        let any = any.as_array().unwrap().iter();
        return any.flat_map(|it| refusals(document, it)).collect();
    }
    let refusal = follow(document, schema);
    let own = &refusal["allOf"][1]["properties"];
    let code = own["code"]["const"].as_i64().unwrap() as i32;
    let id = own.pointer("/details/items/properties/id/const");
    vec![(code, id.map(|it| it.as_str().unwrap()), refusal)]
}

#[test]
fn the_description_is_served_without_a_token() {
    let server = TestServer::start();
    let answer = server
        .raw("GET", "/openapi.json", "", b"")
        .expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, FILE.as_bytes());
    server
        .raw("HEAD", "/openapi.json", "", b"")
        .expect_status(200);
    let wrong = server.raw("POST", "/openapi.json", "", b"");
    assert_eq!(
        wrong.expect_error(405, 12, None).header("allow"),
        Some("GET, HEAD")
    );
    let document = document();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// Whether a path matches a template such as `/users/{id}`.
fn is_of(template: &str, path: &str) -> bool {
    let (one, other) = (template.split('/'), path.split('/'));
    one.clone().count() == other.clone().count()
        && one
            .zip(other)
            .all(|(it, other)| it.starts_with('{') || it == other)
}

pub fn with_ids(path: &str, user: &str, totp: &str) -> String {
    path.replace("{id}", user).replace("{totpId}", totp)
}

#[test]
fn every_path_and_method_of_the_routes_is_described_and_nothing_else() {
    let document = document();
    let operations = operations(&document);
    let server = TestServer::start();
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    for it in &operations {
        let target = with_ids(it.path, "nobody", "1");
        let answer = server.raw(&it.method, &target, &bearer, b"");
        let is_no_route = matches!(answer.status, 405 | 501)
            || answer.status == 404 && answer.json().get("details").is_none();
        assert!(!is_no_route, "{} {} is no route", it.method, it.path);
        // `Allow` names the methods of every call that the path can be.
        let refused = server.raw("LINK", &target, &bearer, b"");
        let refused = refused.expect_error(405, 12, None);
        let allowed: BTreeSet<&str> = refused.header("allow").unwrap().split(", ").collect();
        let same = operations.iter().filter(|other| is_of(other.path, &target));
        let mut described: BTreeSet<&str> = same.map(|it| it.method.as_str()).collect();
        if described.contains("GET") {
            described.insert("HEAD");
        }
        assert_eq!(described, allowed, "{}", it.path);
    }
    // A path that the routes know and the description lacks is one arm too many.
    let routes = ROUTES.split("#[cfg(test)]").next().unwrap();
    let arms = |text: &str| routes.matches(text).count();
    let rpcs = arms("=> Ok(R::") + arms("=> Ok(Rpc::") + arms("=> Ok(Call::Rpc(Rpc::");
    let others = arms("=> get(method, Call::") + arms("=> Ok(Call::Redeem)");
    let (described_rpcs, described_others): (Vec<_>, Vec<_>) =
        operations.iter().partition(|it| it.roles().is_some());
    assert_eq!(
        described_rpcs.len(),
        rpcs,
        "an rpc of routes.rs is not described"
    );
    assert_eq!(
        described_others.len(),
        others,
        "a path of routes.rs is not described"
    );
}

#[test]
fn each_call_has_the_name_of_its_rpc() {
    let document = document();
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let rpcs = pool.services().flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods.into_iter().map(move |it| {
            (
                format!("{}_{}", service.name(), it.name()),
                service.full_name().to_owned(),
            )
        })
    });
    let rpcs: BTreeMap<String, String> = rpcs.collect();
    let mut described = BTreeSet::new();
    for it in operations(&document) {
        assert!(
            described.insert(it.id.to_owned()),
            "{} is there twice",
            it.id
        );
        // The second path of an rpc has a number at the end, as Google's generators write it.
        let rpc = it.id.trim_end_matches('2');
        assert!(
            it.roles().is_none() || rpcs.contains_key(rpc),
            "{} is no rpc",
            it.id
        );
    }
    let ours = rpcs
        .iter()
        .filter(|(_, service)| service.starts_with("totpd."));
    for (rpc, _) in ours {
        assert!(described.contains(rpc), "{rpc} is not described");
    }
}

#[test]
fn every_refusal_of_rest_is_described_at_a_call() {
    let document = document();
    let mut described = BTreeSet::new();
    for it in operations(&document) {
        for (status, response) in it.responses(&document) {
            if status < 400 {
                continue;
            }
            let schema = &response["content"]["application/json"]["schema"];
            for (code, id, _) in refusals(&document, schema) {
                described.insert((id.map(str::to_owned), status, code));
            }
        }
    }
    // These refusals belong to a path and not to a call. Only gRPC has 504.
    let elsewhere = |id: &Option<String>, status: u16| {
        id.is_none() && matches!(status, 404 | 405 | 501) || status == 504
    };
    let on_page = docs::rows().into_iter();
    let on_page = on_page.filter(|(id, status, ..)| !elsewhere(id, *status));
    let on_page = on_page.map(|(id, status, code, _)| (id, status, code));
    assert_eq!(
        described,
        on_page.collect(),
        "openapi.json and docs/errors.md"
    );
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if let Some(id) = schema.pointer("/allOf/1/properties/details/items/properties/id/const") {
            assert!(name.starts_with(id.as_str().unwrap()), "{name}");
        }
    }
}

#[test]
fn links_lead_to_calls_and_a_removed_authenticator_is_asked_for_again() {
    let document = document();
    let operations = operations(&document);
    let find = |id: &str| operations.iter().find(|it| it.id == id).unwrap();
    let links = |it: &Operation<'_>| -> Vec<Value> {
        let responses = it.responses(&document);
        let links = responses.values().filter_map(|it| it.get("links"));
        links
            .flat_map(|it| it.as_object().unwrap().values().cloned())
            .collect()
    };
    for it in &operations {
        for link in links(it) {
            let target = find(link["operationId"].as_str().unwrap());
            let parameters = target.parameters(&document);
            for name in link["parameters"].as_object().unwrap().keys() {
                assert!(
                    parameters.iter().any(|it| it["name"] == **name),
                    "{} {link}",
                    it.id
                );
            }
        }
    }
    let leads = |from: &str, to: &str| links(find(from)).iter().any(|it| it["operationId"] == to);
    let (start, remove) = (
        "ZITADELUsers_StartTOTPRegistration",
        "ZITADELUsers_RemoveTOTPAuthenticator",
    );
    assert!(leads(start, remove) && leads(start, "ZITADELUsers_VerifyTOTPRegistration"));
    for after in [
        "TOTPService_CheckTOTP2",
        "TOTPService_ResyncTOTP",
        "ZITADELUsers_VerifyTOTPRegistration",
        remove,
    ] {
        assert!(leads(remove, after), "{after}");
    }
}

#[test]
fn every_example_is_as_its_schema_says() {
    let document = document();
    let judge = |id: &str, schema: &Value, example: &Value| {
        if let Err(problem) = matches(&document, schema, example) {
            panic!("{id}: {problem}");
        }
    };
    for it in operations(&document) {
        if let Some((schema, examples)) = it.body() {
            for (_, example) in examples {
                judge(it.id, schema, example);
            }
        }
        for parameter in it.parameters(&document) {
            if let Some(example) = parameter.get("example") {
                judge(it.id, &parameter["schema"], example);
            }
        }
        for response in it.responses(&document).values() {
            for media in response["content"].as_object().unwrap().values() {
                if let Some(example) = media.get("example") {
                    judge(it.id, &media["schema"], example);
                }
            }
        }
    }
}
