//! One table of cases over REST, gRPC, and gRPC-Web in binary and in text. All answers agree.

mod cases;

use serde_json::{Value, json};
use totpd::service::Role;

use crate::harness::{Phone, TestServer};
use crate::rpc::{Outcome, Rpc, encode, frame, method, outcome, path, unframe};
use cases::{Case, bad_calls, calls, nested, with};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Rest,
    Grpc,
    Web,
    WebText,
}

const TRANSPORTS: [Transport; 4] = [
    Transport::Rest,
    Transport::Grpc,
    Transport::Web,
    Transport::WebText,
];

/// A server in a known state, and the values that differ between servers.
struct World {
    /// Dropped before the server, which would wait for this connection.
    rpc: Option<Rpc>,
    server: TestServer,
    transport: Transport,
    words: Vec<(&'static str, String)>,
}

impl World {
    fn new(transport: Transport) -> Self {
        let server = TestServer::start();
        let there = server.organization("Elsewhere");
        for (org, id) in [
            (&server.org, "alice"),
            (&server.org, "bob"),
            (&server.org, "locked"),
            (&server.org, "idle"),
            (&there, "far"),
        ] {
            let body = json!({"userId": id, "schemaId": "s", "data": {"a": ["ü", null, {"b": true}]},
                "authenticators": {"usernames": [{"username": id, "isOrganizationSpecific": true}]}});
            let path = format!("/users?organization.orgId={org}");
            server
                .ask("POST", &path, &body.to_string())
                .expect_status(201);
        }
        let phone = server.enrol("alice");
        let others = server.enrol("locked");
        let pending = server.start_enrolment("alice");
        let codes = server
            .ask("POST", "/users/alice/recovery_codes", "")
            .expect_status(200);
        server
            .ask("POST", "/users/locked/_lock", "")
            .expect_status(200);
        server
            .ask("POST", "/users/idle/_deactivate", "")
            .expect_status(200);
        let org = |it: &str| it.parse().unwrap();
        let tokens = [
            ("{admin}", Role::Admin),
            ("{manager}", Role::Manager(org(&server.org))),
            ("{far manager}", Role::Manager(org(&there))),
            ("{checker}", Role::Checker(None)),
            ("{self}", Role::Own("alice".parse().unwrap())),
            ("{locked self}", Role::Own("locked".parse().unwrap())),
        ];
        let mut words = vec![
            ("{org}", server.org.clone()),
            ("{there}", there),
            ("{phone}", phone.id.clone()),
            ("{pending}", pending.id.clone()),
            ("{others}", others.id.clone()),
            ("{good}", phone.code_at(server.now())),
            ("{third}", phone.code_of(server.now(), 3)),
            ("{fourth}", phone.code_of(server.now(), 4)),
            ("{first}", pending.code_at(server.now())),
            ("{wrong}", wrong(&[&phone, &pending], &server)),
            ("{recovery}", codes.text("/codes/0")),
            ("{other recovery}", codes.text("/codes/1")),
        ];
        words.extend(tokens.map(|(name, role)| (name, server.token(role))));
        let rpc = (transport == Transport::Grpc).then(|| Rpc::connect(&server.address()));
        Self {
            rpc,
            server,
            transport,
            words,
        }
    }

    fn fill(&self, text: &str) -> String {
        let filled = |text: String, (name, word): &(&str, String)| text.replace(name, word);
        self.words.iter().fold(text.to_owned(), filled)
    }

    fn filled(&self, json: &Value) -> Value {
        serde_json::from_str(&self.fill(&json.to_string())).unwrap()
    }

    /// Makes a call, and removes from its outcome the values that differ between servers.
    fn run(&mut self, token: &str, case: &Case) -> Outcome {
        let token = (!token.is_empty()).then(|| self.fill(token));
        let mut outcome = match self.transport {
            Transport::Rest => self.rest(token.as_deref(), case),
            Transport::Grpc => {
                let message = encode(method(case.rpc).input(), &self.filled(&case.request));
                let rpc = self.rpc.as_mut().unwrap();
                rpc.call(token.as_deref(), case.rpc, &message)
            }
            Transport::Web | Transport::WebText => self.web(token.as_deref(), case),
        };
        let mut text = outcome.answer.to_string().replace(".000000Z", "Z");
        if let Some(id) = outcome.answer.get("totpId").and_then(Value::as_str) {
            text = text.replace(id, "{id}");
        }
        for (name, word) in &self.words {
            text = text.replace(word.as_str(), name);
        }
        outcome.answer = serde_json::from_str(&text).unwrap();
        blur(&mut outcome.answer);
        outcome
    }

    fn rest(&self, token: Option<&str>, case: &Case) -> Outcome {
        let (method, path, body) = &case.rest;
        let base = if path.starts_with("/admin/") {
            ""
        } else {
            "/resources/v3alpha"
        };
        let target = format!("{base}{}", self.fill(path));
        let body = if body.is_null() {
            String::new()
        } else {
            self.filled(body).to_string()
        };
        let bearer = token.map_or_else(String::new, |it| format!("Authorization: Bearer {it}\r\n"));
        let answer = self.server.raw(method, &target, &bearer, body.as_bytes());
        let json = answer.json();
        if answer.status < 300 {
            let mut json = json;
            if json.get("remaining").is_some_and(|it| *it == 0) {
                // The library that decodes protobuf omits a 0.
                json.as_object_mut().unwrap().remove("remaining");
            }
            return Outcome {
                code: 0,
                message: String::new(),
                id: None,
                answer: json,
                retry_after_s: None,
            };
        }
        let text = |pointer: &str| {
            json.pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        Outcome {
            code: json["code"].as_i64().unwrap(),
            message: text("/message").unwrap(),
            id: text("/details/0/id"),
            answer: Value::Null,
            retry_after_s: answer.header("retry-after").map(|it| it.parse().unwrap()),
        }
    }

    fn web(&self, token: Option<&str>, case: &Case) -> Outcome {
        let message = encode(method(case.rpc).input(), &self.filled(&case.request));
        let (headers, body) = web_request(self.transport == Transport::WebText, token, &message);
        let answer = self.server.raw("POST", &path(case.rpc), &headers, &body);
        web_outcome(&answer.expect_status(200), case.rpc)
    }
}

pub fn web_request(is_text: bool, token: Option<&str>, message: &[u8]) -> (String, Vec<u8>) {
    let bearer = token.map_or_else(String::new, |it| format!("Authorization: Bearer {it}\r\n"));
    let framed = frame(0, message);
    if is_text {
        let headers =
            format!("{bearer}Content-Type: application/grpc-web-text\r\nX-Grpc-Web: 1\r\n");
        return (headers, data_encoding::BASE64.encode(&framed).into_bytes());
    }
    let headers = format!("{bearer}Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n");
    (headers, framed)
}

pub fn web_outcome(answer: &crate::harness::Answer, rpc: &str) -> Outcome {
    let mut body = answer.body.clone();
    match answer.header("content-type").unwrap() {
        "application/grpc-web-text+proto" => body = data_encoding::BASE64.decode(&body).unwrap(),
        other => assert_eq!(other, "application/grpc-web+proto"),
    }
    let (mut flag, mut frame, mut rest) = unframe(&body);
    let mut message = Vec::new();
    if flag == 0 {
        message = frame;
        (flag, frame, rest) = unframe(&rest);
    }
    assert_eq!((flag, rest.len()), (0x80, 0), "trailers are the last frame");
    let trailers = String::from_utf8(frame).unwrap();
    let trailers = trailers.lines().map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.to_owned())
    });
    outcome(
        &trailers.collect::<Vec<_>>(),
        &message,
        method(rpc).output(),
    )
}

fn wrong(phones: &[&Phone], server: &TestServer) -> String {
    let good: Vec<String> = (-3..=3)
        .flat_map(|n| phones.iter().map(move |it| it.code_of(server.now(), n)))
        .collect();
    (0..1_000)
        .map(|it| format!("{it:06}"))
        .find(|it| !good.contains(it))
        .unwrap()
}

const RANDOM: [&str; 7] = [
    "secret",
    "url",
    "uri",
    "usernameId",
    "requestId",
    "userId",
    "displayName",
];

/// Removes random values: secrets, and ids of usernames, requests and the tokens that caused an event.
fn blur(json: &mut Value) {
    match json {
        Value::Array(all) => all.iter_mut().for_each(blur),
        Value::Object(fields) => {
            for (name, value) in fields {
                if RANDOM.contains(&name.as_str()) {
                    assert!(value.is_string());
                    *value = Value::Bool(true);
                }
                if name == "codes" {
                    *value = Value::from(value.as_array().unwrap().len());
                }
                blur(value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Parsers of protobuf allow a hundred nested messages. Data that one transport accepts must be readable over all.
#[test]
fn the_deepest_data_is_read_on_every_transport() {
    let server = TestServer::start();
    let user = json!({"userId": "deep", "data": nested(30)}).to_string();
    server.ask("POST", "/users", &user).expect_status(201);
    let mut rpc = Rpc::connect(&server.address());
    for (call, pointer, request) in [
        ("GetUser", "/user/data", json!({"id": "deep"})),
        ("SearchUsers", "/result/0/data", json!({})),
    ] {
        let request = encode(method(call).input(), &request);
        let outcome = rpc.call(Some(&server.admin), call, &request);
        assert_eq!(outcome.answer.pointer(pointer), Some(&nested(30)));
    }
}

fn all_say_the_same(token: &str, cases: &[Case]) -> Vec<Outcome> {
    let told = TRANSPORTS.map(|transport| {
        let mut world = World::new(transport);
        let run = cases.iter().map(|it| world.run(token, it));
        run.collect::<Vec<_>>()
    });
    for (transport, outcomes) in TRANSPORTS.iter().zip(&told).skip(1) {
        for ((case, rest), other) in cases.iter().zip(&told[0]).zip(outcomes) {
            assert_eq!(
                rest, other,
                "{token} {} {}: {transport:?}",
                case.rpc, case.request
            );
        }
    }
    told.into_iter().next().unwrap()
}

#[test]
fn every_call_by_every_role_comes_to_the_same_on_every_transport() {
    for token in [
        "{admin}",
        "{manager}",
        "{far manager}",
        "{checker}",
        "{self}",
        "{locked self}",
        "nonsense",
        "",
    ] {
        let outcomes = all_say_the_same(token, &calls());
        let went_well = outcomes.iter().filter(|it| it.code == 0).count();
        let expected = match token {
            "{admin}" => 32,
            "{manager}" => 29,
            "{checker}" => 3,
            _ => continue,
        };
        assert_eq!(went_well, expected, "{token}: {outcomes:#?}");
    }
}

/// A role that may never make the call is told so whatever its fields are. Every other role is told about the fields.
#[test]
fn a_bad_field_is_told_after_the_role_and_in_the_same_words() {
    const OWN: [&str; 10] = [
        "GetUser",
        "ListTOTP",
        "RenameTOTP",
        "ResyncTOTP",
        "StartTOTPRegistration",
        "VerifyTOTPRegistration",
        "RemoveTOTPAuthenticator",
        "GenerateRecoveryCodes",
        "GetRecoveryCodes",
        "RemoveRecoveryCodes",
    ];
    let calls = bad_calls();
    for token in ["{admin}", "{manager}", "{checker}", "{self}"] {
        for (case, outcome) in calls.iter().zip(all_say_the_same(token, &calls)) {
            let may = match token {
                "{checker}" => ["CheckTOTP", "CheckRecoveryCode"].contains(&case.rpc),
                "{self}" => OWN.contains(&case.rpc),
                _ => true,
            };
            let expected = if may {
                (3, Some("TOTPD-Field"))
            } else {
                (7, Some("AUTH-AWfge"))
            };
            let told = (outcome.code, outcome.id.as_deref());
            assert_eq!(told, expected, "{token} {} {}", case.rpc, case.request);
        }
    }
    for outcome in all_say_the_same("", &calls) {
        assert_eq!((outcome.code, outcome.id), (16, None));
    }
}

#[test]
fn a_wait_says_how_long_on_every_transport() {
    let check = || {
        with(
            "CheckTOTP",
            json!({"id": "alice", "code": "{wrong}"}),
            "/users/alice/totp/_check",
            json!("{wrong}"),
        )
    };
    let cases: Vec<Case> = (0..6).map(|_| check()).collect();
    let outcomes = all_say_the_same("{checker}", &cases);
    assert_eq!(outcomes[4].id.as_deref(), Some("EVENT-8isk2"));
    let last = &outcomes[5];
    assert_eq!(
        (last.code, last.id.as_deref(), last.retry_after_s),
        (8, Some("TOTPD-Wait1"), Some(30))
    );
}
