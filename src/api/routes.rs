//! Which path and method mean which call, as a table of contents.

use super::status::Refusal;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call<'a> {
    /// `GET /debug/healthz`
    Healthz,
    /// `GET /debug/ready`
    Ready,
    /// One of the rpcs
    Rpc(Rpc<'a>),
}

/// An rpc that a request asks for, with the ids still as they stand in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rpc<'a> {
    /// `CreateUser`
    CreateUser,
    /// `SearchUsers`
    SearchUsers,
    /// `GetUser`
    GetUser(&'a str),
    /// `DeleteUser`
    DeleteUser(&'a str),
    /// `LockUser`
    LockUser(&'a str),
    /// `UnlockUser`
    UnlockUser(&'a str),
    /// `DeactivateUser`
    DeactivateUser(&'a str),
    /// `ActivateUser`
    ActivateUser(&'a str),
    /// `StartTOTPRegistration`
    StartTotp(&'a str),
    /// `VerifyTOTPRegistration`
    ConfirmTotp(&'a str, &'a str),
    /// `CheckTOTP`, against one authenticator or all
    CheckTotp(&'a str, Option<&'a str>),
    /// `RemoveTOTPAuthenticator`
    RemoveTotp(&'a str, &'a str),
}

/// Whether a request of that method and target may change something, on any transport. What only looks may take
/// its time, and does not hold changes up.
pub fn is_change(method: &str, target: &str) -> bool {
    const LOOK: [&str; 4] = ["/_search", "/GetUser", "/SearchUsers", "/Check"];
    let path = target.split('?').next().unwrap_or_default();
    !matches!(method, "GET" | "HEAD" | "OPTIONS") && !LOOK.iter().any(|it| path.ends_with(it))
}

/// Finds the call. The path alone decides here; no token has been looked at.
pub(super) fn route<'a>(method: &str, path: &'a str) -> Result<Call<'a>, Refusal> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        [""] => Err(Refusal::no_page()),
        ["debug", "healthz"] => get(method, Call::Healthz),
        ["debug", "ready"] => get(method, Call::Ready),
        ["resources", "v3alpha", rest @ ..] => resource(method, rest).map(Call::Rpc),
        // gRPC and gRPC-Web come another way; what is neither is told that this is no REST.
        [
            "zitadel.resources.user.v3alpha.ZITADELUsers" | "totpd.v1.TOTPService",
            rpc,
        ] if !rpc.is_empty() => not_offered(method, "POST"),
        _ => Err(Refusal::no_such_path()),
    }
}

fn resource<'a>(method: &str, path: &[&'a str]) -> Result<Rpc<'a>, Refusal> {
    use Rpc as R;
    match (path, method) {
        (["users"], "POST") => Ok(R::CreateUser),
        (["users", id], "GET" | "HEAD") => Ok(R::GetUser(id)),
        (["users", id], "DELETE") => Ok(R::DeleteUser(id)),
        (["users", "_search"], "POST") => Ok(R::SearchUsers),
        (["users", _], "PATCH") => Err(Refusal::not_offered()),
        // The search's path is also one of a user of that id.
        (["users", "_search"], _) => Err(Refusal::method_not_allowed("DELETE, GET, HEAD, POST")),
        (["users", _], _) => Err(Refusal::method_not_allowed("DELETE, GET, HEAD")),

        (["users", id, "_lock"], "POST") => Ok(R::LockUser(id)),
        (["users", id, "_unlock"], "POST") => Ok(R::UnlockUser(id)),
        (["users", id, "_deactivate"], "POST") => Ok(R::DeactivateUser(id)),
        (["users", id, "_activate"], "POST") => Ok(R::ActivateUser(id)),
        (
            ["users"]
            | [
                "users",
                _,
                "_lock" | "_unlock" | "_deactivate" | "_activate",
            ],
            _,
        ) => Err(Refusal::method_not_allowed("POST")),

        (["users", id, "totp"], "POST") => Ok(R::StartTotp(id)),
        (["users", id, "totp", "_check"], "POST") => Ok(R::CheckTotp(id, None)),
        (["users", id, "totp", totp], "DELETE") => Ok(R::RemoveTotp(id, totp)),
        (["users", id, "totp", totp, "_verify"], "POST") => Ok(R::ConfirmTotp(id, totp)),
        (["users", id, "totp", totp, "_check"], "POST") => Ok(R::CheckTotp(id, Some(totp))),
        (["users", _, "totp"] | ["users", _, "totp", _, "_verify" | "_check"], _) => {
            Err(Refusal::method_not_allowed("POST"))
        }
        (["users", _, "totp", "_check"], _) => Err(Refusal::method_not_allowed("DELETE, POST")),
        (["users", _, "totp", _], _) => Err(Refusal::method_not_allowed("DELETE")),

        // What ZITADEL documents and totpd does not offer.
        (["users", _, rest @ ..], _) => user_part(method, rest),
        (["idp_intents"], _) => not_offered(method, "POST"),
        (["idp_intents", _], _) => not_offered(method, "GET"),
        _ => Err(Refusal::no_such_path()),
    }
}

fn user_part<'a>(method: &str, path: &[&str]) -> Result<Rpc<'a>, Refusal> {
    match path {
        ["email" | "phone"] => not_offered(method, "PUT"),
        ["username" | "password" | "webauthn" | "otp_sms" | "otp_email" | "idps"]
        | ["email" | "phone", "_verify" | "_resend"]
        | ["password", "_reset"]
        | ["webauthn" | "otp_sms" | "otp_email", _, "_verify"] => not_offered(method, "POST"),
        // The registration link's path is also one of an authenticator of that id.
        ["webauthn", "registration_link"] if method == "POST" => Err(Refusal::not_offered()),
        [
            "username" | "webauthn" | "otp_sms" | "otp_email" | "idps",
            _,
        ] => not_offered(method, "DELETE"),
        _ => Err(Refusal::no_such_path()),
    }
}

fn get<'a>(method: &str, call: Call<'a>) -> Result<Call<'a>, Refusal> {
    match method {
        "GET" | "HEAD" => Ok(call),
        _ => Err(Refusal::method_not_allowed("GET, HEAD")),
    }
}

fn not_offered<T>(method: &str, offered: &'static str) -> Result<T, Refusal> {
    Err(if method == offered {
        Refusal::not_offered()
    } else {
        Refusal::method_not_allowed(offered)
    })
}
