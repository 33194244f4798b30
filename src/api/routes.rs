//! Which method and path mean which call.

use super::PAGE_BYTES;
use super::counts::CallName;
use super::status::Refusal;
use crate::service::Permission;
use crate::web;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call<'a> {
    /// `GET /debug/healthz`
    Healthz,
    /// `GET /debug/ready`
    Ready,
    /// `GET /openapi.json`
    OpenApi,
    /// A file of the pages for people, whatever the method
    Page(web::File),
    /// `POST /ui/redeem`
    Redeem,
    /// One of the rpcs
    Rpc(Rpc<'a>),
}

/// An rpc that a request asks for, with the ids still percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rpc<'a> {
    /// `CreateUser`
    CreateUser,
    /// `SearchUsers`
    SearchUsers,
    /// `ListEvents`
    ListEvents,
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
    /// `CheckTOTP`, against all authenticators
    CheckTotp(&'a str),
    /// `ListTOTP`
    ListTotp(&'a str),
    /// An rpc about one authenticator of a user
    OnTotp(&'a str, &'a str, TotpRpc),
    /// `GenerateRecoveryCodes`
    GenerateRecoveryCodes(&'a str),
    /// `GetRecoveryCodes`
    GetRecoveryCodes(&'a str),
    /// `CheckRecoveryCode`
    CheckRecoveryCode(&'a str),
    /// `RemoveRecoveryCodes`
    RemoveRecoveryCodes(&'a str),
    /// `CreateInvitation`
    CreateInvitation(&'a str),
}

/// An rpc about one authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TotpRpc {
    /// `VerifyTOTPRegistration`
    Confirm,
    /// `CheckTOTP`
    Check,
    /// `RenameTOTP`
    Rename,
    /// `ResyncTOTP`
    Resync,
    /// `RemoveTOTPAuthenticator`
    Remove,
}

/// What a request needs to be carried out. Each kind has permits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks whether the process is alive, and needs nothing for it.
    Liveness,
    /// Asks for a file that is part of the binary, and needs nothing for it.
    Page,
    /// Asks whether calls can be carried out. It may wait for the database as long as a probe takes.
    Readiness,
    /// Reads, or is refused by its path.
    Read,
    /// May look through many rows.
    Search,
    /// May change something.
    Change,
}

impl Kind {
    pub(super) const fn of(permission: Permission) -> Self {
        match permission {
            Permission::ReadUser => Self::Read,
            Permission::Search | Permission::ReadEvents => Self::Search,
            Permission::Check | Permission::WriteTotp | Permission::WriteUser => Self::Change,
        }
    }

    /// Memory to reserve before the answer is built. Other answers are short, and few are built at once.
    pub(crate) const fn answer_bytes(self) -> usize {
        match self {
            Self::Search => PAGE_BYTES,
            Self::Liveness | Self::Page | Self::Readiness | Self::Read | Self::Change => 0,
        }
    }
}

impl Call<'_> {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Healthz => Kind::Liveness,
            Self::Ready => Kind::Readiness,
            Self::OpenApi | Self::Page(_) => Kind::Page,
            // A redemption is a read to all who guess: only a code that is known goes on to a change (SECURITY.md 41).
            Self::Redeem => Kind::Read,
            Self::Rpc(rpc) => Kind::of(rpc.permission()),
        }
    }
}

impl Rpc<'_> {
    /// The name of the call in metrics and in the log.
    pub(super) const fn name(self) -> CallName {
        match self {
            Self::CreateUser => CallName::CreateUser,
            Self::SearchUsers => CallName::SearchUsers,
            Self::ListEvents => CallName::ListEvents,
            Self::GetUser(_) => CallName::GetUser,
            Self::DeleteUser(_) => CallName::DeleteUser,
            Self::LockUser(_) => CallName::LockUser,
            Self::UnlockUser(_) => CallName::UnlockUser,
            Self::DeactivateUser(_) => CallName::DeactivateUser,
            Self::ActivateUser(_) => CallName::ActivateUser,
            Self::StartTotp(_) => CallName::StartTotp,
            Self::ListTotp(_) => CallName::ListTotp,
            Self::CheckTotp(_) | Self::OnTotp(_, _, TotpRpc::Check) => CallName::CheckTotp,
            Self::OnTotp(_, _, TotpRpc::Confirm) => CallName::ConfirmTotp,
            Self::OnTotp(_, _, TotpRpc::Rename) => CallName::RenameTotp,
            Self::OnTotp(_, _, TotpRpc::Resync) => CallName::ResyncTotp,
            Self::OnTotp(_, _, TotpRpc::Remove) => CallName::RemoveTotp,
            Self::GenerateRecoveryCodes(_) => CallName::GenerateRecoveryCodes,
            Self::GetRecoveryCodes(_) => CallName::GetRecoveryCodes,
            Self::CheckRecoveryCode(_) => CallName::CheckRecoveryCode,
            Self::RemoveRecoveryCodes(_) => CallName::RemoveRecoveryCodes,
            Self::CreateInvitation(_) => CallName::CreateInvitation,
        }
    }

    /// The permission that the call needs.
    pub(super) const fn permission(self) -> Permission {
        match self {
            Self::GetUser(_) | Self::ListTotp(_) | Self::GetRecoveryCodes(_) => {
                Permission::ReadUser
            }
            Self::SearchUsers => Permission::Search,
            Self::ListEvents => Permission::ReadEvents,
            Self::CreateUser
            | Self::DeleteUser(_)
            | Self::LockUser(_)
            | Self::UnlockUser(_)
            | Self::DeactivateUser(_)
            | Self::ActivateUser(_)
            | Self::CreateInvitation(_) => Permission::WriteUser,
            Self::CheckTotp(_)
            | Self::OnTotp(_, _, TotpRpc::Check)
            | Self::CheckRecoveryCode(_) => Permission::Check,
            Self::StartTotp(_)
            | Self::OnTotp(
                _,
                _,
                TotpRpc::Confirm | TotpRpc::Rename | TotpRpc::Resync | TotpRpc::Remove,
            )
            | Self::GenerateRecoveryCodes(_)
            | Self::RemoveRecoveryCodes(_) => Permission::WriteTotp,
        }
    }
}

/// Finds the call by method and path. The token is judged later.
pub(super) fn route<'a>(method: &str, path: &'a str) -> Result<Call<'a>, Refusal> {
    if let Some(file) = web::find(path) {
        return Ok(Call::Page(file));
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        [""] => Err(Refusal::no_page()),
        ["debug", "healthz"] => get(method, Call::Healthz),
        ["debug", "ready"] => get(method, Call::Ready),
        ["openapi.json"] => get(method, Call::OpenApi),
        ["ui", "redeem"] => match method {
            "POST" => Ok(Call::Redeem),
            _ => Err(Refusal::method_not_allowed("POST")),
        },
        ["resources", "v3alpha", rest @ ..] => resource(method, rest).map(Call::Rpc),
        ["admin", "v1", "events", "_search"] => match method {
            "POST" => Ok(Call::Rpc(Rpc::ListEvents)),
            _ => Err(Refusal::method_not_allowed("POST")),
        },
        // gRPC and gRPC-Web requests do not get here; these paths have no REST.
        [
            "zitadel.resources.user.v3alpha.ZITADELUsers"
            | "zitadel.admin.v1.AdminService"
            | "totpd.v1.TOTPService"
            | "totpd.v1.RecoveryCodeService"
            | "totpd.v1.InvitationService",
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
        (["users", id, "_invite"], "POST") => Ok(R::CreateInvitation(id)),
        (
            ["users"]
            | [
                "users",
                _,
                "_lock" | "_unlock" | "_deactivate" | "_activate" | "_invite",
            ],
            _,
        ) => Err(Refusal::method_not_allowed("POST")),

        (["users", id, "totp", rest @ ..], _) => totps(method, id, rest),
        (["users", id, "recovery_codes", rest @ ..], _) => recovery_codes(method, id, rest),

        // Calls that ZITADEL documents and totpd does not offer.
        (["users", _, rest @ ..], _) => user_part(method, rest),
        (["idp_intents"], _) => not_offered(method, "POST"),
        (["idp_intents", _], _) => not_offered(method, "GET"),
        _ => Err(Refusal::no_such_path()),
    }
}

fn totps<'a>(method: &str, id: &'a str, path: &[&'a str]) -> Result<Rpc<'a>, Refusal> {
    match (path, method) {
        ([], "GET" | "HEAD") => Ok(Rpc::ListTotp(id)),
        ([], "POST") => Ok(Rpc::StartTotp(id)),
        ([], _) => Err(Refusal::method_not_allowed("GET, HEAD, POST")),
        (["_check"], "POST") => Ok(Rpc::CheckTotp(id)),
        ([totp], "DELETE") => Ok(Rpc::OnTotp(id, totp, TotpRpc::Remove)),
        // The path of the check is also one of an authenticator of that id.
        (["_check"], _) => Err(Refusal::method_not_allowed("DELETE, POST")),
        ([_], _) => Err(Refusal::method_not_allowed("DELETE")),
        ([totp, "_verify"], "POST") => Ok(Rpc::OnTotp(id, totp, TotpRpc::Confirm)),
        ([totp, "_check"], "POST") => Ok(Rpc::OnTotp(id, totp, TotpRpc::Check)),
        ([totp, "_rename"], "POST") => Ok(Rpc::OnTotp(id, totp, TotpRpc::Rename)),
        ([totp, "_resync"], "POST") => Ok(Rpc::OnTotp(id, totp, TotpRpc::Resync)),
        ([_, "_verify" | "_check" | "_rename" | "_resync"], _) => {
            Err(Refusal::method_not_allowed("POST"))
        }
        _ => Err(Refusal::no_such_path()),
    }
}

fn recovery_codes<'a>(method: &str, id: &'a str, path: &[&str]) -> Result<Rpc<'a>, Refusal> {
    match (path, method) {
        ([], "GET" | "HEAD") => Ok(Rpc::GetRecoveryCodes(id)),
        ([], "POST") => Ok(Rpc::GenerateRecoveryCodes(id)),
        ([], "DELETE") => Ok(Rpc::RemoveRecoveryCodes(id)),
        ([], _) => Err(Refusal::method_not_allowed("DELETE, GET, HEAD, POST")),
        (["_check"], "POST") => Ok(Rpc::CheckRecoveryCode(id)),
        (["_check"], _) => Err(Refusal::method_not_allowed("POST")),
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

#[cfg(test)]
mod tests {
    use super::super::{kind, kind_of_grpc};
    use super::*;

    /// Ids may look like the paths of calls.
    #[test]
    fn what_is_a_change_is_told_by_the_call_and_not_by_how_its_path_ends() {
        let users = "/resources/v3alpha/users";
        for (method, target, expected) in [
            ("GET", "/debug/healthz", Kind::Liveness),
            ("GET", "/debug/ready", Kind::Readiness),
            ("POST", "/debug/healthz", Kind::Read),
            ("GET", "/ui/nothing", Kind::Read),
            #[cfg(feature = "web")]
            ("GET", "/ui/?a", Kind::Page),
            #[cfg(feature = "web")]
            ("POST", "/", Kind::Page),
            (
                "POST",
                &format!("{users}/_search?query.limit=1"),
                Kind::Search,
            ),
            ("POST", "/admin/v1/events/_search", Kind::Search),
            ("DELETE", &format!("{users}/_search"), Kind::Change),
            ("GET", &format!("{users}/_search"), Kind::Read),
            ("DELETE", &format!("{users}/Check"), Kind::Change),
            ("DELETE", &format!("{users}/GetUser"), Kind::Change),
            ("DELETE", &format!("{users}/a/totp/Check"), Kind::Change),
            ("GET", &format!("{users}/a/totp"), Kind::Read),
            ("POST", &format!("{users}/a/totp/b/_rename"), Kind::Change),
            ("POST", &format!("{users}/a/totp/b/_resync"), Kind::Change),
            (
                "POST",
                &format!("{users}/a/totp/_check?x=/Check"),
                Kind::Change,
            ),
            ("GET", &format!("{users}/a/recovery_codes"), Kind::Read),
            ("POST", &format!("{users}/a/recovery_codes"), Kind::Change),
            ("DELETE", &format!("{users}/a/recovery_codes"), Kind::Change),
            (
                "POST",
                &format!("{users}/a/recovery_codes/_check"),
                Kind::Change,
            ),
            ("POST", &format!("{users}/a/_invite"), Kind::Change),
            ("POST", "/ui/redeem", Kind::Read),
            ("POST", users, Kind::Change),
            ("POST", "/no/such/path", Kind::Read),
        ] {
            assert_eq!(kind(method, target, None), expected, "{method} {target}");
        }
    }

    #[test]
    fn what_is_a_change_over_grpc_is_told_by_the_call() {
        let service = "/zitadel.resources.user.v3alpha.ZITADELUsers";
        let recovery = "/totpd.v1.RecoveryCodeService";
        for (target, expected) in [
            (format!("{service}/GetUser"), Kind::Read),
            (format!("{service}/SearchUsers"), Kind::Search),
            (format!("{service}/RemoveTOTPAuthenticator"), Kind::Change),
            ("/totpd.v1.TOTPService/CheckTOTP".to_owned(), Kind::Change),
            ("/totpd.v1.TOTPService/ListTOTP".to_owned(), Kind::Read),
            ("/totpd.v1.TOTPService/RenameTOTP".to_owned(), Kind::Change),
            ("/totpd.v1.TOTPService/ResyncTOTP".to_owned(), Kind::Change),
            (format!("{recovery}/GenerateRecoveryCodes"), Kind::Change),
            (format!("{recovery}/GetRecoveryCodes"), Kind::Read),
            (format!("{recovery}/CheckRecoveryCode"), Kind::Change),
            (format!("{recovery}/RemoveRecoveryCodes"), Kind::Change),
            (
                "/totpd.v1.InvitationService/CreateInvitation".to_owned(),
                Kind::Change,
            ),
            (
                "/zitadel.admin.v1.AdminService/ListEvents".to_owned(),
                Kind::Search,
            ),
            ("/grpc.health.v1.Health/Check".to_owned(), Kind::Readiness),
            (format!("{service}/Check"), Kind::Read),
        ] {
            assert_eq!(kind_of_grpc(&target), expected, "{target}");
            let web = Some("application/grpc-web-text; charset=x");
            assert_eq!(kind("POST", &target, web), expected, "{target}");
        }
    }
}
