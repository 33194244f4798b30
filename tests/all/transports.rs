//! One table of cases through REST, gRPC and gRPC-Web, binary and as text: all say the same.

use serde_json::{Value, json};
use totpd::service::Role;

use crate::harness::{Phone, TestServer};
use crate::rpc::{Outcome, Rpc, encode, frame, method, outcome, path, unframe};

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

/// A call in both shapes: what stands in braces differs from server to server.
struct Case {
    rpc: &'static str,
    request: Value,
    rest: (&'static str, &'static str, Value),
}

fn case(rpc: &'static str, request: Value, method: &'static str, path: &'static str) -> Case {
    Case {
        rpc,
        request,
        rest: (method, path, Value::Null),
    }
}

fn with(rpc: &'static str, request: Value, path: &'static str, body: Value) -> Case {
    Case {
        rpc,
        request,
        rest: ("POST", path, body),
    }
}

/// A server in a known state, and what its own words are.
struct World {
    /// Gone before the server is, which would wait for it.
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

    /// Makes a call and takes out of its outcome what differs from server to server.
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
                // The library that decodes protobuf leaves a 0 out.
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

/// Takes out what is made at random: secrets, and ids of usernames, requests and the tokens that made an event.
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

fn resync(totp: &str, codes: [&str; 2]) -> Case {
    let request = json!({"id": "alice", "totpId": totp, "codes": codes});
    let path = match totp {
        "{phone}" => "/users/alice/totp/{phone}/_resync",
        "{pending}" => "/users/alice/totp/{pending}/_resync",
        _ => "/users/alice/totp/{others}/_resync",
    };
    with("ResyncTOTP", request, path, json!(codes))
}

/// A call of each kind, on a user and an authenticator of one's own organization.
fn calls() -> Vec<Case> {
    let user = |id: &str| json!({"id": id});
    let totp = |totp: &str, code: &str| json!({"id": "alice", "totpId": totp, "code": code});
    vec![
        case("GetUser", user("alice"), "GET", "/users/alice"),
        case("ListTOTP", user("alice"), "GET", "/users/alice/totp"),
        with(
            "RenameTOTP",
            json!({"id": "alice", "totpId": "{phone}", "name": "Pixel 9"}),
            "/users/alice/totp/{phone}/_rename",
            json!("Pixel 9"),
        ),
        with(
            "RenameTOTP",
            json!({"id": "alice", "totpId": "{others}", "name": "Mine"}),
            "/users/alice/totp/{others}/_rename",
            json!("Mine"),
        ),
        case("ListTOTP", user("alice"), "GET", "/users/alice/totp"),
        case("ListTOTP", user("bob"), "GET", "/users/bob/totp"),
        case("ListTOTP", user("far"), "GET", "/users/far/totp"),
        with(
            "SearchUsers",
            json!({"query": {"limit": 3, "desc": true}, "sortingColumn": "FIELD_NAME_ID",
                "filters": [{"notFilter": {"query": {"stateFilter": {"state": "USER_STATE_LOCKED"}}}}]}),
            "/users/_search?query.limit=3&query.desc=true&sortingColumn=FIELD_NAME_ID",
            json!([{"notFilter": {"query": {"stateFilter": {"state": "USER_STATE_LOCKED"}}}}]),
        ),
        with(
            "CheckTOTP",
            totp("{phone}", "{wrong}"),
            "/users/alice/totp/{phone}/_check",
            json!("{wrong}"),
        ),
        with(
            "CheckTOTP",
            json!({"id": "alice", "code": "{good}"}),
            "/users/alice/totp/_check",
            json!("{good}"),
        ),
        with(
            "CheckTOTP",
            json!({"id": "alice", "code": "{good}"}),
            "/users/alice/totp/_check",
            json!("{good}"),
        ),
        resync("{phone}", ["{third}", "{wrong}"]),
        resync("{phone}", ["{third}", "{fourth}"]),
        resync("{phone}", ["{third}", "{fourth}"]),
        resync("{pending}", ["{third}", "{fourth}"]),
        resync("{others}", ["{third}", "{fourth}"]),
        with(
            "VerifyTOTPRegistration",
            totp("{pending}", "{wrong}"),
            "/users/alice/totp/{pending}/_verify",
            json!("{wrong}"),
        ),
        with(
            "VerifyTOTPRegistration",
            totp("{pending}", "{first}"),
            "/users/alice/totp/{pending}/_verify",
            json!("{first}"),
        ),
        with(
            "VerifyTOTPRegistration",
            totp("{pending}", "{first}"),
            "/users/alice/totp/{pending}/_verify",
            json!("{first}"),
        ),
        case(
            "GetRecoveryCodes",
            user("alice"),
            "GET",
            "/users/alice/recovery_codes",
        ),
        case(
            "GetRecoveryCodes",
            user("bob"),
            "GET",
            "/users/bob/recovery_codes",
        ),
        recover("alice", "{recovery}"),
        recover("alice", "{recovery}"),
        recover("bob", "{recovery}"),
        recover("far", "{recovery}"),
        case(
            "GenerateRecoveryCodes",
            user("alice"),
            "POST",
            "/users/alice/recovery_codes",
        ),
        recover("alice", "{other recovery}"),
        case(
            "GenerateRecoveryCodes",
            user("bob"),
            "POST",
            "/users/bob/recovery_codes",
        ),
        case(
            "GenerateRecoveryCodes",
            user("locked"),
            "POST",
            "/users/locked/recovery_codes",
        ),
        invite("alice", ""),
        invite("bob", "7d"),
        invite("far", "90m"),
        invite("locked", "1h"),
        case(
            "RemoveRecoveryCodes",
            user("alice"),
            "DELETE",
            "/users/alice/recovery_codes",
        ),
        case(
            "RemoveRecoveryCodes",
            user("alice"),
            "DELETE",
            "/users/alice/recovery_codes",
        ),
        case(
            "StartTOTPRegistration",
            user("alice"),
            "POST",
            "/users/alice/totp",
        ),
        case(
            "RemoveTOTPAuthenticator",
            json!({"id": "alice", "totpId": "{phone}"}),
            "DELETE",
            "/users/alice/totp/{phone}",
        ),
        case(
            "RemoveTOTPAuthenticator",
            json!({"id": "alice", "totpId": "{phone}"}),
            "DELETE",
            "/users/alice/totp/{phone}",
        ),
        case("LockUser", user("alice"), "POST", "/users/alice/_lock"),
        with(
            "CheckTOTP",
            json!({"id": "alice", "code": "{good}"}),
            "/users/alice/totp/_check",
            json!("{good}"),
        ),
        case(
            "StartTOTPRegistration",
            user("alice"),
            "POST",
            "/users/alice/totp",
        ),
        case("LockUser", user("alice"), "POST", "/users/alice/_lock"),
        case("UnlockUser", user("alice"), "POST", "/users/alice/_unlock"),
        case(
            "DeactivateUser",
            user("alice"),
            "POST",
            "/users/alice/_deactivate",
        ),
        case(
            "DeactivateUser",
            user("alice"),
            "POST",
            "/users/alice/_deactivate",
        ),
        case(
            "ActivateUser",
            user("alice"),
            "POST",
            "/users/alice/_activate",
        ),
        case(
            "ActivateUser",
            user("alice"),
            "POST",
            "/users/alice/_activate",
        ),
        with(
            "CreateUser",
            json!({"organization": {"orgId": "{org}"},
                "user": {"userId": "new", "schemaId": "s", "data": {"x": "y"},
                    "authenticators": {"usernames": [{"username": "new"}]}}}),
            "/users?organization.orgId={org}",
            json!({"userId": "new", "schemaId": "s", "data": {"x": "y"},
                "authenticators": {"usernames": [{"username": "new"}]}}),
        ),
        case("GetUser", user("new"), "GET", "/users/new"),
        with(
            "CreateUser",
            json!({"user": {"userId": "new"}}),
            "/users",
            json!({"userId": "new"}),
        ),
        case("DeleteUser", user("new"), "DELETE", "/users/new"),
        case("DeleteUser", user("new"), "DELETE", "/users/new"),
        case(
            "UnlockUser",
            user("nobody"),
            "POST",
            "/users/nobody/_unlock",
        ),
        case("GetUser", user("far"), "GET", "/users/far"),
        case(
            "DeleteUser",
            json!({"id": "bob", "organization": {"orgId": "{there}"}}),
            "DELETE",
            "/users/bob?organization.orgId={there}",
        ),
        case(
            "DeleteUser",
            json!({"id": "bob", "organization": {"orgDomain": "x"}}),
            "DELETE",
            "/users/bob?organization.orgDomain=x",
        ),
        case(
            "GetUser",
            json!({"id": "bob", "instance": {"domain": "x"}}),
            "GET",
            "/users/bob?instance.domain=x",
        ),
        events(json!({"aggregateId": "alice", "asc": true, "limit": 3})),
        events(
            json!({"aggregateTypes": ["user"], "eventTypes": ["user.human.mfa.otp.verified"], "sequence": "2",
            "resourceOwner": "{org}", "range": {"since": "2026-01-01T00:00:00Z"}}),
        ),
        events(json!({"from": "2026-01-01T00:00:00.000001Z", "editorUserId": "nobody"})),
        with("SetPassword", json!({}), "/users/alice/password", json!({})),
        case("PatchUser", json!({}), "PATCH", "/users/alice"),
    ]
}

fn invite(id: &str, expires: &str) -> Case {
    let path = match id {
        "alice" => "/users/alice/_invite",
        "bob" => "/users/bob/_invite",
        "locked" => "/users/locked/_invite",
        _ => "/users/far/_invite",
    };
    let request = json!({"id": id, "expires": expires});
    with(
        "CreateInvitation",
        request,
        path,
        json!({"expires": expires}),
    )
}

fn recover(id: &str, code: &str) -> Case {
    let path = match id {
        "alice" => "/users/alice/recovery_codes/_check",
        "bob" => "/users/bob/recovery_codes/_check",
        _ => "/users/far/recovery_codes/_check",
    };
    let request = json!({"id": id, "code": code});
    with("CheckRecoveryCode", request, path, json!(code))
}

/// The request is the same in both shapes.
fn events(request: Value) -> Case {
    let body = request.clone();
    with("ListEvents", request, "/admin/v1/events/_search", body)
}

/// So many objects in each other, and something in the innermost.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(true), |it, _| json!({"a": it}))
}

/// Parsers of protobuf give up at a hundred messages in each other: whatever one transport takes in, all can give.
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

/// What is wrong with the fields, and with nothing else.
fn bad_calls() -> Vec<Case> {
    let long = "x".repeat(201);
    let user = |it: Value| with("CreateUser", json!({"user": it.clone()}), "/users", it);
    let filter = |it: Value| {
        let filters = json!([it]);
        with(
            "SearchUsers",
            json!({"filters": filters}),
            "/users/_search",
            filters.clone(),
        )
    };
    let check = |it: &str| {
        let request = json!({"id": "alice", "code": it});
        with("CheckTOTP", request, "/users/alice/totp/_check", json!(it))
    };
    let rename = |it: &str| {
        let request = json!({"id": "alice", "totpId": "{phone}", "name": it});
        let path = "/users/alice/totp/{phone}/_rename";
        with("RenameTOTP", request, path, json!(it))
    };
    vec![
        case("GetUser", json!({}), "GET", "/users/"),
        case(
            "GetUser",
            json!({"id": "alice", "instance": {"id": ""}}),
            "GET",
            "/users/alice?instance.id=",
        ),
        case("LockUser", json!({"id": ""}), "POST", "/users//_lock"),
        case(
            "RemoveTOTPAuthenticator",
            json!({"id": "alice"}),
            "DELETE",
            "/users/alice/totp/",
        ),
        case(
            "StartTOTPRegistration",
            json!({"id": "alice", "instance": {"id": ""}}),
            "POST",
            "/users/alice/totp?instance.id=",
        ),
        case("ListTOTP", json!({}), "GET", "/users//totp"),
        rename(""),
        rename(" Pixel"),
        rename("a\nb"),
        rename(&long),
        resync("{phone}", ["{good}", "12345"]),
        resync("{phone}", [" 123456", "654321"]),
        case(
            "GenerateRecoveryCodes",
            json!({}),
            "POST",
            "/users//recovery_codes",
        ),
        case(
            "GetRecoveryCodes",
            json!({"id": "alice", "instance": {"id": ""}}),
            "GET",
            "/users/alice/recovery_codes?instance.id=",
        ),
        case(
            "RemoveRecoveryCodes",
            json!({}),
            "DELETE",
            "/users//recovery_codes",
        ),
        invite("alice", "soon"),
        invite("alice", "0s"),
        invite("alice", "7d1s"),
        invite("alice", "8d"),
        recover("alice", ""),
        recover("alice", "123456"),
        recover("alice", "0000-0000-0000-000u"),
        user(json!({"contact": {}})),
        user(json!({"authenticators": {"password": {}}})),
        user(json!({"authenticators": {"usernames": [{}]}})),
        user(json!({"authenticators": {"usernames": [{"username": long}]}})),
        user(json!({"userId": ""})),
        user(json!({"schemaId": "a\nb"})),
        user(json!({"data": nested(31)})),
        check("12345"),
        check("1234567890"),
        check(" 123456"),
        check(""),
        events(json!({"eventTypes": vec!["a"; 101]})),
        filter(json!({})),
        filter(json!({"orFilter": {}})),
        filter(json!({"emailFilter": {}})),
        filter(json!({"stateFilter": {}})),
        filter(json!({"usernameFilter": {"username": long}})),
        with(
            "SearchUsers",
            json!({"query": {"limit": 1001}}),
            "/users/_search?query.limit=1001",
            json!([]),
        ),
        with(
            "SearchUsers",
            json!({"sortingColumn": "FIELD_NAME_EMAIL"}),
            "/users/_search?sortingColumn=FIELD_NAME_EMAIL",
            json!([]),
        ),
    ]
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

/// A role that may never make the call is told so whatever its fields are; all others are told of the fields.
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
