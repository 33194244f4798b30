//! The cases: calls of each kind, and calls whose fields are wrong.

use serde_json::{Value, json};

/// A call in both shapes: what stands in braces differs from server to server.
pub struct Case {
    pub rpc: &'static str,
    pub request: Value,
    pub rest: (&'static str, &'static str, Value),
}

fn case(rpc: &'static str, request: Value, method: &'static str, path: &'static str) -> Case {
    Case {
        rpc,
        request,
        rest: (method, path, Value::Null),
    }
}

pub fn with(rpc: &'static str, request: Value, path: &'static str, body: Value) -> Case {
    Case {
        rpc,
        request,
        rest: ("POST", path, body),
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
pub fn calls() -> Vec<Case> {
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
pub fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(true), |it, _| json!({"a": it}))
}

/// What is wrong with the fields, and with nothing else.
pub fn bad_calls() -> Vec<Case> {
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
