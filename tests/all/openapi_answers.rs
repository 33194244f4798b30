//! Real answers match `GET /openapi.json`: answers to its examples, answers to each role, and refusals.

use serde_json::Value;
use totpd::service::Role;

use crate::harness::{Answer, TestServer};
use crate::openapi::{Operation, document, operations, with_ids};
use crate::schema::{follow, matches, resolve};

/// The user in the examples.
const ALICE: &str = "alice";

/// A server with the resources that the examples name, and the values that replace those of the examples.
struct Stage {
    server: TestServer,
    /// Texts in the examples, each with the real value.
    real: Vec<(String, String)>,
}

fn example_of(document: &Value, parameter: &str) -> String {
    let parameter = resolve(document, &format!("#/components/parameters/{parameter}"));
    parameter["example"].as_str().unwrap().to_owned()
}

impl Stage {
    /// Creates what the call needs to succeed.
    fn for_call(document: &Value, id: &str) -> Self {
        let server = TestServer::start();
        let mut real = Vec::new();
        if id != "ZITADELUsers_CreateUser" {
            let create = operations(document);
            let create = create.iter().find(|it| it.id == "ZITADELUsers_CreateUser");
            let (_, examples) = create.unwrap().body().unwrap();
            let (_, example) = examples
                .iter()
                .find(|(name, _)| *name == "username")
                .unwrap();
            server
                .ask("POST", "/users", &example.to_string())
                .expect_status(201);
            let phone = if id == "ZITADELUsers_VerifyTOTPRegistration" {
                server.start_enrolment(ALICE)
            } else {
                server.enrol(ALICE)
            };
            real.push((example_of(document, "totpId"), phone.id.clone()));
            real.push(("123456".to_owned(), phone.code_at(server.now())));
            real.push(("654321".to_owned(), phone.code_of(server.now(), 1)));
        }
        if id.starts_with("RecoveryCodeService_") {
            let codes = server.ask("POST", &format!("/users/{ALICE}/recovery_codes"), "");
            let code = codes.expect_status(200).text("/codes/0");
            real.push(("7k3m-q8zt-04xh-pw2c".to_owned(), code.clone()));
            let typed = code.to_uppercase().replace('0', "O").replace('-', " ");
            real.push(("7K3M Q8ZT O4XH PW2C".to_owned(), typed));
        }
        if id == "Invitations_Redeem" {
            let invited = server.ask("POST", &format!("/users/{ALICE}/_invite"), "");
            let url = invited.expect_status(200).text("/url");
            let code = url.split_once('#').unwrap().1.to_owned();
            real.push((
                "q7Wb2nXr0d5YzV1mJc8Lk3TfHs6PgUaEoRi9BvNxC4M".to_owned(),
                code,
            ));
        }
        let before = match id {
            "ZITADELUsers_ActivateUser" => "_deactivate",
            "ZITADELUsers_UnlockUser" => "_lock",
            _ => "",
        };
        if !before.is_empty() {
            let path = format!("/users/{ALICE}/{before}");
            server.ask("POST", &path, "").expect_status(200);
        }
        real.push(("163840776835432705".to_owned(), server.org.clone()));
        Self { server, real }
    }

    fn real(&self, text: &str) -> String {
        let real = self.real.iter();
        real.fold(text.to_owned(), |text, (example, real)| {
            text.replace(example, real)
        })
    }

    fn send(&self, token: Option<&str>, method: &str, target: &str, body: &str) -> Answer {
        let bearer = token.map(|it| format!("Authorization: Bearer {it}\r\n"));
        self.server
            .raw(method, target, &bearer.unwrap_or_default(), body.as_bytes())
    }
}

/// The target of a call with the example values of its parameters.
fn target_of(document: &Value, it: &Operation<'_>) -> String {
    let mut target = with_ids(
        it.path,
        &example_of(document, "id"),
        &example_of(document, "totpId"),
    );
    let mut query = Vec::new();
    for parameter in it.parameters(document) {
        if let (Some("query"), Some(example)) = (parameter["in"].as_str(), parameter.get("example"))
        {
            let example = example
                .as_str()
                .map_or_else(|| example.to_string(), str::to_owned);
            query.push(format!("{}={example}", parameter["name"].as_str().unwrap()));
        }
    }
    if !query.is_empty() {
        target.push_str(&format!("?{}", query.join("&")));
    }
    target
}

/// The bodies of a call's examples. One empty body if there are none.
fn bodies(it: &Operation<'_>) -> Vec<String> {
    let examples = it.body().map(|(_, examples)| examples).unwrap_or_default();
    let mut bodies: Vec<_> = examples.iter().map(|(_, it)| it.to_string()).collect();
    if it.text.pointer("/requestBody/required") != Some(&Value::Bool(true)) {
        bodies.push(String::new());
    }
    bodies
}

/// Asserts that the description allows the status, the headers and the body of an answer.
fn expect_described(document: &Value, it: &Operation<'_>, answer: &Answer) {
    let what = format!("{}: {}", it.id, String::from_utf8_lossy(&answer.body));
    let responses = it.responses(document);
    let response = responses.get(&answer.status);
    let response = response.unwrap_or_else(|| panic!("{} is not described; {what}", answer.status));
    let content = response["content"].as_object().unwrap();
    let (content_type, media) = content.iter().next().unwrap();
    assert_eq!(
        answer.header("content-type"),
        Some(content_type.as_str()),
        "{what}"
    );
    for (name, header) in response
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let is_required = follow(document, header)["required"] == true;
        assert!(
            !is_required || answer.header(name).is_some(),
            "{name}; {what}"
        );
    }
    // The description does not describe its own members, so it is compared as text.
    if it.path == "/openapi.json" {
        return;
    }
    let body = if content_type == "application/json" {
        answer.json()
    } else {
        Value::String(String::from_utf8(answer.body.clone()).unwrap())
    };
    if let Err(problem) = matches(document, &media["schema"], &body) {
        panic!("{problem}; {what}");
    }
}

#[test]
fn every_example_is_accepted_and_answered_as_described() {
    let document = document();
    for it in operations(&document) {
        for body in bodies(&it) {
            let stage = Stage::for_call(&document, it.id);
            let target = stage.real(&target_of(&document, &it));
            let token = it.roles().map(|_| stage.server.admin.as_str());
            let answer = stage.send(token, &it.method, &target, &stage.real(&body));
            assert!(
                matches!(answer.status, 200 | 201),
                "{} {body}: {answer:?}",
                it.id
            );
            expect_described(&document, &it, &answer);
        }
    }
}

#[test]
fn refusals_of_each_call_are_as_described() {
    let document = document();
    for it in operations(&document)
        .iter()
        .filter(|it| it.roles().is_some())
    {
        let stage = Stage::for_call(&document, it.id);
        let target = target_of(&document, it);
        let (admin, long) = (Some(stage.server.admin.as_str()), "a".repeat(201));
        let body = stage.real(&bodies(it)[0]);
        let with_path = |user: &str, totp: &str| with_ids(it.path, user, totp);
        let totp = &stage.real(&example_of(&document, "totpId"));
        for (token, target, body) in [
            (None, target.clone(), body.as_str()),
            (Some("unknown"), target.clone(), &body),
            (admin, with_path("nobody", "1"), &body),
            (admin, with_path(ALICE, "1"), &body),
            (admin, with_path(&long, &long), &body),
            (admin, with_path(ALICE, totp) + "?instance.id=1", &body),
            (
                admin,
                with_path(ALICE, totp) + "?organization.orgId=1",
                &body,
            ),
            (admin, with_path(ALICE, totp), "\"000000\""),
            (admin, with_path(ALICE, totp), "\"0000-0000-0000-0000\""),
            (admin, with_path(ALICE, totp), "{"),
            (admin, target.clone(), &body),
            (admin, target.clone(), &body),
        ] {
            let answer = stage.send(token, &it.method, &target, body);
            expect_described(&document, it, &answer);
        }
    }
}

#[test]
fn the_roles_of_each_call_are_those_described() {
    let document = document();
    for it in operations(&document) {
        let Some(allowed) = it.roles() else { continue };
        let stage = Stage::for_call(&document, it.id);
        let server = &stage.server;
        if it.id == "ZITADELUsers_CreateUser" {
            server
                .ask("POST", "/users", r#"{"userId":"alice"}"#)
                .expect_status(201);
        }
        let org = || server.org.parse().unwrap();
        // The admin is last, because deleting a user deletes its `self` token too.
        for (name, role) in [
            ("checker", Role::Checker(Some(org()))),
            ("self", Role::Own(ALICE.parse().unwrap())),
            ("manager", Role::Manager(org())),
            ("admin", Role::Admin),
        ] {
            let token = server.token(role);
            let body = stage.real(&bodies(&it)[0]);
            let target = stage.real(&target_of(&document, &it));
            let answer = stage.send(Some(&token), &it.method, &target, &body);
            assert_eq!(
                answer.status != 403,
                allowed.contains(&name),
                "{name} {}: {answer:?}",
                it.id
            );
            expect_described(&document, &it, &answer);
            if name == "manager" && it.id == "ZITADELUsers_DeleteUser" {
                break;
            }
        }
    }
}
