//! Every way around the removal that a stolen `self` token could try, over every transport. SECURITY.md 48.

use serde_json::{Value, json};
use totpd::model::SelfRemoval;

use crate::harness::Phone;
use crate::rpc::{Outcome, Rpc, encode, method, path};
use crate::self_removal::{NEEDED, Scene, WRONG, removal};
use crate::transports::{web_outcome, web_request};

/// An rpc and its request, and the same over REST: method, path, body.
struct Detour {
    rpc: &'static str,
    request: Value,
    rest: (&'static str, String, String),
}

/// The calls that a thief would try. `begun` is the thief's own pending enrolment, started before the setting was
/// `code`.
fn detours(scene: &Scene, begun: &Phone) -> Vec<Detour> {
    let code = begun.code_at(scene.server.now());
    let detour = |rpc, request, method, path: &str, body: &str| Detour {
        rpc,
        request,
        rest: (method, path.to_owned(), body.to_owned()),
    };
    let alice = || json!({"id": "alice"});
    let at = |phone: &Phone| json!({"id": "alice", "totpId": phone.id});
    let mut confirm = at(begun);
    confirm["code"] = json!(code);
    let verify = format!("{}/_verify", removal(begun));
    let codes = "/users/alice/recovery_codes";
    vec![
        detour(
            "StartTOTPRegistration",
            alice(),
            "POST",
            "/users/alice/totp",
            "",
        ),
        detour(
            "VerifyTOTPRegistration",
            confirm,
            "POST",
            &verify,
            &format!("\"{code}\""),
        ),
        detour("GenerateRecoveryCodes", alice(), "POST", codes, ""),
        detour("RemoveRecoveryCodes", alice(), "DELETE", codes, ""),
        detour(
            "RemoveTOTPAuthenticator",
            at(&scene.phone),
            "DELETE",
            &removal(&scene.phone),
            "",
        ),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Rest,
    Grpc,
    Web,
    WebText,
}

/// Sends the request with each of these codes in a header of its own.
fn ask(scene: &Scene, transport: Transport, detour: &Detour, codes: &[&str]) -> Outcome {
    let mut lines = String::new();
    for code in codes {
        lines.push_str(&format!("Totpd-Code: {code}\r\n"));
    }
    let server = &scene.server;
    let message = || encode(method(detour.rpc).input(), &detour.request);
    match transport {
        Transport::Rest => {
            let (method, path, body) = &detour.rest;
            let headers = format!("Authorization: Bearer {}\r\n{lines}", scene.token);
            let target = format!("/resources/v3alpha{path}");
            let answer = server.raw(method, &target, &headers, body.as_bytes());
            let json = answer.json();
            let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str);
            Outcome {
                code: json["code"].as_i64().unwrap_or_default(),
                message: text("/message").unwrap_or_default().to_owned(),
                id: text("/details/0/id").map(str::to_owned),
                answer: Value::Null,
                retry_after_s: None,
            }
        }
        Transport::Grpc => {
            let bearer = format!("Bearer {}", scene.token);
            let mut headers = vec![
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("authorization", &bearer),
            ];
            headers.extend(codes.iter().map(|it| ("totpd-code", *it)));
            let mut rpc = Rpc::connect(&server.address());
            rpc.call_with(&headers, detour.rpc, &message())
        }
        Transport::Web | Transport::WebText => {
            let is_text = matches!(transport, Transport::WebText);
            let (headers, body) = web_request(is_text, Some(&scene.token), &message());
            let headers = format!("{headers}{lines}");
            let answer = server.raw("POST", &path(detour.rpc), &headers, &body);
            web_outcome(&answer, detour.rpc)
        }
    }
}

#[test]
fn every_detour_needs_a_code_on_every_transport() {
    for transport in [
        Transport::Rest,
        Transport::Grpc,
        Transport::Web,
        Transport::WebText,
    ] {
        let scene = Scene::new(SelfRemoval::Allow);
        let server = &scene.server;
        // The calls need recovery codes that can be removed, and an enrolment that waits to be confirmed.
        let codes = "/users/alice/recovery_codes";
        server.ask("POST", codes, "").expect_status(200);
        let begun = scene.ask("POST", "/users/alice/totp", "");
        let begun = crate::replacement::phone_of(&begun.expect_status(200));
        scene.set(SelfRemoval::Code);
        let state = "SELECT count(*) + (SELECT count(*) FROM recovery_set)
            + 10 * (SELECT count(*) FROM totp WHERE state = 'confirmed') FROM totp";
        let before = server.count(state);
        let told = |outcome: &Outcome| (outcome.code, outcome.id.clone());
        let expected = |code: i64, id: Option<&str>| (code, id.map(str::to_owned));
        for nth in 0..5 {
            let of = &detours(&scene, &begun)[nth];
            let label = format!("{transport:?} {}", of.rpc);
            let refused = ask(&scene, transport, of, &[]);
            assert_eq!(told(&refused), expected(9, NEEDED), "{label}");
            let refused = ask(&scene, transport, of, &[&scene.wrong()]);
            assert_eq!(told(&refused), expected(3, WRONG), "{label}");
            assert!(refused.message.contains("Totpd-Code"), "{label}");
            let field = Some("TOTPD-Field");
            let refused = ask(&scene, transport, of, &["12345"]);
            assert_eq!(told(&refused), expected(3, field), "{label}");
            let code = scene.code();
            let refused = ask(&scene, transport, of, &[&code, &code]);
            assert_eq!(told(&refused), expected(3, field), "{label}");
            if nth == 0 {
                assert_eq!(server.count(state), before, "{label}: nothing was changed");
            }
            let done = ask(&scene, transport, of, &[&code]);
            assert_eq!(told(&done), expected(0, None), "{label}: {done:?}");
            server.pass_seconds(30);
        }
    }
}

/// A page of an origin that is allowed to call over gRPC-Web may send the code.
#[test]
fn a_preflight_allows_the_header() {
    let scene = Scene::new(SelfRemoval::Code);
    let headers = "Origin: https://pages.test\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: totpd-code\r\n";
    let target = path("RemoveTOTPAuthenticator");
    let answer = scene.server.raw("OPTIONS", &target, headers, b"");
    let answer = answer.expect_status(200);
    let allowed = answer.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("totpd-code"), "{allowed}");
}
