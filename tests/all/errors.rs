//! Every refusal that a client can receive.

use totpd::service::Role;

use crate::harness::TestServer;
use crate::wait;

/// Method, path and body, then the expected status, code and id.
type Row<'a> = (&'a str, &'a str, &'a str, u16, i64, Option<&'a str>);

const FIELD: Option<&str> = Some("TOTPD-Field");

#[test]
fn every_refusal_has_its_status_code_and_id() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let (pending, totps) = (
        server.start_enrolment(&alice),
        format!("/users/{alice}/totp"),
    );
    let wrong = format!("\"{}\"", phone.wrong_at(server.now()));
    let user = r#"{"authenticators":{"usernames":[{"username":"alice"}]}}"#;
    let taken = format!(r#"{{"userId":"{alice}"}}"#);
    let unknown = "COMMAND-6T2xrOHxTx";
    let codes = format!("/users/{alice}/recovery_codes");
    server.ask("POST", &codes, "").expect_status(200);
    let (code, bob) = ("\"0000-0000-0000-0000\"", server.user("bob"));
    let bobs_codes = format!("/users/{bob}/recovery_codes");
    let verify_confirmed = format!("{totps}/{}/_verify", phone.id);
    let check_pending = format!("{totps}/{}/_check", pending.id);
    let elsewhere = format!("{totps}?organization.orgId=1");
    let domain = format!("{totps}?organization.orgDomain=example.org");
    let instance = format!("/users/{alice}?instance.id=1");
    let instance_domain = format!("/users/{alice}?instance.domain=x");
    // The order of the checks: path, token, role, fields, id, existence, state, wait, code.
    let table: &[Row<'_>] = &[
        ("GET", "/users/nobody", "", 404, 5, Some(unknown)),
        (
            "DELETE",
            "/users/nobody",
            "",
            404,
            5,
            Some("COMMAND-syHyCsGmvM"),
        ),
        ("POST", "/users/nobody/totp", "", 404, 5, Some(unknown)),
        (
            "POST",
            "/users/nobody/totp?replaces=1",
            "",
            404,
            5,
            Some(unknown),
        ),
        (
            "POST",
            &format!("{totps}?replaces=1"),
            "",
            404,
            5,
            Some("COMMAND-Hd9sd"),
        ),
        (
            "POST",
            &format!("{totps}?replaces={}", pending.id),
            "",
            404,
            5,
            Some("COMMAND-Hd9sd"),
        ),
        ("GET", "/users/nobody/totp", "", 404, 5, Some(unknown)),
        ("GET", &elsewhere, "", 404, 5, Some(unknown)),
        (
            "POST",
            "/users/nobody/totp/1/_rename",
            "\"Pixel 9\"",
            404,
            5,
            Some(unknown),
        ),
        (
            "POST",
            &format!("{totps}/1/_rename"),
            "\"Pixel 9\"",
            404,
            5,
            Some("COMMAND-Hd9sd"),
        ),
        (
            "POST",
            "/users/nobody/totp/1/_resync",
            "[\"123456\",\"654321\"]",
            404,
            5,
            Some(unknown),
        ),
        (
            "POST",
            &format!("{totps}/1/_resync"),
            "[\"123456\",\"654321\"]",
            404,
            5,
            Some("COMMAND-Hd9sd"),
        ),
        ("GET", &format!("{totps}/1/_resync"), "", 405, 12, None),
        (
            "POST",
            "/users/nobody/recovery_codes",
            "",
            404,
            5,
            Some(unknown),
        ),
        (
            "GET",
            "/users/nobody/recovery_codes",
            "",
            404,
            5,
            Some(unknown),
        ),
        (
            "DELETE",
            "/users/nobody/recovery_codes",
            "",
            404,
            5,
            Some(unknown),
        ),
        (
            "POST",
            "/users/nobody/recovery_codes/_check",
            code,
            404,
            5,
            Some(unknown),
        ),
        ("POST", "/users/nobody/_invite", "", 404, 5, Some(unknown)),
        ("DELETE", &bobs_codes, "", 400, 9, Some("TOTPD-Recov2")),
        ("POST", &bobs_codes, "", 400, 9, Some("COMMAND-3Mif9s")),
        (
            "POST",
            &format!("{bobs_codes}/_check"),
            code,
            400,
            9,
            Some("TOTPD-Recov2"),
        ),
        (
            "POST",
            &format!("{codes}/_check"),
            code,
            400,
            3,
            Some("TOTPD-Recov1"),
        ),
        ("PUT", &codes, "", 405, 12, None),
        ("GET", &format!("{codes}/_check"), "", 405, 12, None),
        ("POST", &format!("{codes}/1"), "", 404, 5, None),
        ("DELETE", &totps, "", 405, 12, None),
        ("PUT", &format!("{totps}/1/_rename"), "", 405, 12, None),
        (
            "POST",
            "/users/nobody/totp/1/_verify",
            &wrong,
            404,
            5,
            Some(unknown),
        ),
        (
            "POST",
            "/users/nobody/totp/_check",
            &wrong,
            404,
            5,
            Some(unknown),
        ),
        ("DELETE", "/users/nobody/totp/1", "", 404, 5, Some(unknown)),
        (
            "DELETE",
            &format!("{totps}/1"),
            "",
            404,
            5,
            Some("COMMAND-Hd9sd"),
        ),
        (
            "POST",
            &format!("{totps}/1/_verify"),
            &wrong,
            404,
            5,
            Some("COMMAND-3Mif9s"),
        ),
        (
            "POST",
            &format!("{totps}/1/_check"),
            &wrong,
            404,
            5,
            Some("COMMAND-3Mif9s"),
        ),
        (
            "POST",
            &verify_confirmed,
            &wrong,
            400,
            9,
            Some("COMMAND-qx4ls"),
        ),
        (
            "POST",
            &check_pending,
            &wrong,
            400,
            9,
            Some("COMMAND-3Mif9s"),
        ),
        (
            "POST",
            &format!("{totps}/_check"),
            &wrong,
            400,
            3,
            Some("EVENT-8isk2"),
        ),
        ("POST", "/users", user, 409, 6, Some("TOTPD-Taken")),
        ("POST", "/users", &taken, 409, 6, Some("TOTPD-Taken")),
        (
            "POST",
            "/users?organization.orgId=1",
            "{}",
            404,
            5,
            Some("TOTPD-Org01"),
        ),
        (
            "POST",
            "/users?organization.orgDomain=x",
            "{}",
            404,
            5,
            Some("TOTPD-Org01"),
        ),
        ("POST", &elsewhere, "", 404, 5, Some(unknown)),
        ("POST", &domain, "", 404, 5, Some(unknown)),
        ("GET", &instance, "", 404, 5, Some(unknown)),
        ("GET", &instance_domain, "", 404, 5, Some(unknown)),
        ("GET", "/nothing", "", 404, 5, None),
        ("GET", "", "", 404, 5, None),
        (
            "POST",
            "/users/nobody/_lock",
            "",
            404,
            5,
            Some("COMMAND-G4LOrnjY7q"),
        ),
        (
            "POST",
            "/users/nobody/_unlock",
            "",
            404,
            5,
            Some("COMMAND-gpBv46Lh9m"),
        ),
        (
            "POST",
            "/users/nobody/_deactivate",
            "",
            404,
            5,
            Some("COMMAND-Ob6lR5iFTe"),
        ),
        (
            "POST",
            "/users/nobody/_activate",
            "",
            404,
            5,
            Some("COMMAND-rQjbBr4J3j"),
        ),
        (
            "POST",
            "/users/_search?instance.id=1",
            "",
            404,
            5,
            Some(unknown),
        ),
        ("PUT", "/users", "", 405, 12, None),
        ("PUT", "/users/_search", "", 405, 12, None),
        ("GET", &format!("/users/{alice}/_lock"), "", 405, 12, None),
        ("POST", &format!("/users/{alice}"), "", 405, 12, None),
    ];
    for (method, path, body, status, code, id) in table {
        server
            .ask(method, path, body)
            .expect_error(*status, *code, *id);
    }
    for target in [
        "/ui/nothing",
        "/debug/metrics",
        "/resources",
        "/resources/v3alpha/",
        "/favicon.ico",
    ] {
        server
            .raw("GET", target, "", b"")
            .expect_error(404, 5, None);
    }
    server
        .raw("DELETE", "/debug/healthz", "", b"")
        .expect_error(405, 12, None);
}

#[test]
fn what_is_documented_and_not_offered_is_501_without_a_token() {
    let server = TestServer::start();
    let table = [
        ("PATCH", ""),
        ("PUT", "/email"),
        ("POST", "/email/_verify"),
        ("POST", "/email/_resend"),
        ("PUT", "/phone"),
        ("POST", "/phone/_verify"),
        ("POST", "/phone/_resend"),
        ("POST", "/username"),
        ("DELETE", "/username/1"),
        ("POST", "/password"),
        ("POST", "/password/_reset"),
        ("POST", "/webauthn"),
        ("POST", "/webauthn/registration_link"),
        ("POST", "/webauthn/1/_verify"),
        ("DELETE", "/webauthn/1"),
        ("POST", "/otp_sms"),
        ("POST", "/otp_sms/1/_verify"),
        ("DELETE", "/otp_sms/1"),
        ("POST", "/otp_email"),
        ("POST", "/otp_email/1/_verify"),
        ("DELETE", "/otp_email/1"),
        ("POST", "/idps"),
        ("DELETE", "/idps/1"),
    ];
    for (method, path) in table {
        let target = format!("/resources/v3alpha/users/7{path}");
        server
            .raw(method, &target, "", b"")
            .expect_error(501, 12, None);
        let refused = server
            .raw("TRACE", &target, "", b"")
            .expect_error(405, 12, None);
        assert!(refused.header("allow").is_some(), "{path}");
    }
    for (method, target) in [
        ("POST", "/resources/v3alpha/idp_intents"),
        ("GET", "/resources/v3alpha/idp_intents/1"),
        (
            "POST",
            "/zitadel.resources.user.v3alpha.ZITADELUsers/GetUser",
        ),
        ("POST", "/totpd.v1.TOTPService/CheckTOTP"),
        ("POST", "/totpd.v1.TOTPService/RenameTOTP"),
        ("POST", "/totpd.v1.TOTPService/ResyncTOTP"),
        ("POST", "/totpd.v1.RecoveryCodeService/CheckRecoveryCode"),
        ("POST", "/totpd.v1.InvitationService/CreateInvitation"),
        ("POST", "/zitadel.admin.v1.AdminService/ListEvents"),
        ("POST", "/zitadel.admin.v1.AdminService/ListOrgs"),
    ] {
        server
            .raw(method, target, "", b"")
            .expect_error(501, 12, None);
    }
}

#[test]
fn the_order_of_judgement_is_path_token_role_fields_id() {
    let server = TestServer::start();
    let target = "/resources/v3alpha/users/%zz/totp/1/_verify";
    server
        .raw("PUT", target, "", b"{")
        .expect_error(405, 12, None);
    let refused = server
        .raw("POST", target, "", b"{")
        .expect_error(401, 16, None);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let no_bearer = "Authorization: Basic eDp5\r\n";
    let refused =
        server
            .raw("POST", target, no_bearer, b"{")
            .expect_error(401, 16, Some("AUTH-7fs1e"));
    let told = String::from_utf8_lossy(&refused.body);
    assert!(told.contains("Authorization: Bearer TOKEN"), "{told}");
    let unknown = "Authorization: Bearer nonsense\r\n";
    server
        .raw("POST", target, unknown, b"{")
        .expect_error(401, 16, Some("AUTH-7fs1e"));
    // A role that may never make the call is told nothing about its fields.
    let checker = server.token(Role::Checker(None));
    let forbidden = Some("AUTH-AWfge");
    server
        .ask_as(&checker, "POST", "/users/%zz/totp/1/_verify", "{")
        .expect_error(403, 7, forbidden);
    server
        .ask_as(&checker, "POST", "/users/_search?a=1&a=1", "{")
        .expect_error(403, 7, forbidden);
    // A token whose role may make the call, but not for this user, is told about the fields first.
    let alice = server.user("alice");
    let own = server.token(Role::Own(alice.parse().unwrap()));
    server
        .ask_as(&own, "POST", "/users/nobody/totp/1/_verify", "{")
        .expect_error(400, 3, FIELD);
    server
        .ask_as(&own, "POST", "/users/nobody/totp/1/_verify", "\"123456\"")
        .expect_error(403, 7, forbidden);
    server
        .ask("POST", "/users/%zz/totp/1/_verify", "{")
        .expect_error(400, 3, FIELD);
    for no_json in ["", "<user/>"] {
        let refused = server.ask("POST", "/users", no_json);
        let refused = refused.expect_error(400, 3, FIELD);
        let told = String::from_utf8_lossy(&refused.body);
        assert!(told.contains("body: expected JSON"), "{told}");
    }
}

#[test]
fn health_needs_no_token_and_readiness_writes() {
    let server = TestServer::start();
    let healthz = server
        .raw("GET", "/debug/healthz", "", b"")
        .expect_status(200);
    assert_eq!(healthz.body, b"ok");
    let probed = "SELECT probed_at FROM instance";
    assert_eq!(server.count(probed), 0);
    assert_eq!(
        server
            .raw("GET", "/debug/ready", "", b"")
            .expect_status(200)
            .body,
        b"ok"
    );
    assert_eq!(server.count(probed), server.now().micros());
    assert!(
        server
            .raw("HEAD", "/debug/ready", "", b"")
            .expect_status(200)
            .body
            .is_empty()
    );
    server.pass_seconds(-901);
    // The result of a probe is shared for a fifth of a second.
    let ready = || server.raw("GET", "/debug/ready", "", b"");
    wait::until("another answer", || ready().status != 200);
    ready().expect_error(503, 14, Some("TOTPD-Store"));
}

/// SECURITY.md 31
#[test]
fn a_clock_that_cannot_be_right_is_a_fault_and_no_yes() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    let code = phone.code_at(server.now());
    server.pass_seconds(-901 - 30);
    server
        .check(&alice, &code)
        .expect_error(503, 14, Some("TOTPD-Store"));
    server
        .remove(&alice, &phone)
        .expect_error(503, 14, Some("TOTPD-Store"));
    server.pass_seconds(901 + 30);
    server.check(&alice, &code).expect_status(200);
}
