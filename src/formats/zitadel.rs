//! ZITADEL's export and import: `ExportDataResponse` and `ImportDataRequest` of its admin API, in JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use totpd::error::{Error, Result};
use totpd::model::{Name, OrgId};
use totpd::service::{ExportedTotp, ExportedUser, State};
use totpd::totp::Parameters;

use super::export::account;
use super::fields::{Draft, Fault};
use super::input::refused;
use super::{Place, ReadOptions, Sink};

/// How the body of an import begins.
pub(super) const HEAD: &str = "{\"dataOrgs\":{\"orgs\":[";

/// What of a document is read. Names are in the form of JSON or of the protos.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Organizations {
    orgs: Vec<OrganizationDocument>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct OrganizationDocument {
    #[serde(alias = "human_users")]
    human_users: Vec<HumanUser>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HumanUser {
    #[serde(alias = "user_id")]
    user_id: String,
    user: UserDocument,
    state: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct UserDocument {
    #[serde(alias = "user_name")]
    user_name: String,
    profile: Map<String, Value>,
    email: Map<String, Value>,
    /// The secret, in spite of its name.
    #[serde(alias = "otp_code")]
    otp_code: String,
}

/// Hands out the users that have an authenticator.
pub(super) fn rows(
    organizations: Vec<Organizations>,
    options: &ReadOptions,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let orgs: Vec<_> = organizations.into_iter().flat_map(|it| it.orgs).collect();
    let with_users = orgs.iter().filter(|it| !it.human_users.is_empty()).count();
    if with_users > 1 {
        return Err(refused(
            "it holds users of several organizations; export and import each by itself (--org)",
        ));
    }
    for (org_index, org) in orgs.into_iter().enumerate() {
        for (index, human) in org.human_users.into_iter().enumerate() {
            if human.user.otp_code.is_empty() {
                continue;
            }
            let place = Place::Path(format!("orgs[{org_index}].humanUsers[{index}]"));
            sink(place, row(human, options))?;
        }
    }
    Ok(())
}

fn row(human: HumanUser, options: &ReadOptions) -> Result<totpd::service::ImportRow, Fault> {
    let state = human.state.as_str().unwrap_or_default();
    let is = |name: &str, number: u64| state == name || human.state.as_u64() == Some(number);
    let draft = Draft {
        user_id: Some(human.user_id),
        username: Some(human.user.user_name),
        secret: Some(options.secrets.base32(&human.user.otp_code)?),
        ..Draft::default()
    };
    let mut row = options.finish(draft)?;
    row.user.state = if is("USER_STATE_LOCKED", 4) {
        State::Locked
    } else if is("USER_STATE_INACTIVE", 2) {
        State::Inactive
    } else {
        State::Active
    };
    row.user.data = profile_data(&human.user.profile, &human.user.email);
    Ok(row)
}

/// The names and the address of a user as an export to ZITADEL finds them again.
fn profile_data(profile: &Map<String, Value>, email: &Map<String, Value>) -> Option<String> {
    let text = |from: &Map<String, Value>, names: [&str; 2]| {
        let value = names.iter().find_map(|it| from.get(*it)?.as_str());
        value.filter(|it| !it.is_empty()).map(Value::from)
    };
    let fields = [
        ("givenName", text(profile, ["firstName", "first_name"])),
        ("familyName", text(profile, ["lastName", "last_name"])),
        ("email", text(email, ["email", "email"])),
    ];
    let fields = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let data: Map<String, Value> = fields.collect();
    (!data.is_empty()).then(|| Value::Object(data).to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportedHuman<'a> {
    user_id: &'a str,
    user: ImportedUser<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportedUser<'a> {
    user_name: &'a str,
    profile: Profile,
    email: Email,
    #[serde(skip_serializing_if = "Option::is_none")]
    otp_code: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    first_name: String,
    last_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Email {
    email: String,
    /// Otherwise ZITADEL sends a mail.
    is_email_verified: bool,
}

/// The beginning of an organization, after the end of the one before.
pub(super) fn organization(id: &OrgId, name: &Name, has_one_before: bool) -> Result<String> {
    let text = |it: &str| serde_json::to_string(it).map_err(|error| Error::Bug(error.to_string()));
    Ok(format!(
        "{}\n{{\"orgId\":{},\"org\":{{\"name\":{}}},\"humanUsers\":[",
        if has_one_before { "]}," } else { "" },
        text(id.as_str())?,
        text(name.as_str())?,
    ))
}

/// A user. Notes which of its authenticators ZITADEL cannot take, and counts those without an address.
pub(super) fn user(
    user: &ExportedUser,
    has_one_before: bool,
    notes: &mut Vec<String>,
    without_address: &mut usize,
) -> Result<String> {
    let is_fit = |it: &&ExportedTotp| it.parameters == Parameters::ENROLMENT;
    let newest = user.totps.iter().rfind(is_fit);
    let left_out = user
        .totps
        .len()
        .saturating_sub(usize::from(newest.is_some()));
    if left_out > 0 {
        notes.push(format!(
            "left out of user {:?}: {left_out} of {} authenticators; ZITADEL takes one, with SHA-1, 6 digits and 30 s",
            user.id.as_str(),
            user.totps.len(),
        ));
    }
    let data: Map<String, Value> = user
        .data
        .as_deref()
        .and_then(|it| serde_json::from_str(it).ok())
        .unwrap_or_default();
    let username = account(user);
    let of_data = |names: &[&str]| find_text(&data, names).unwrap_or_else(|| username.to_owned());
    let mut email = of_data(&["email", "emailAddress", "email_address", "mail"]);
    if !is_address(&email) {
        // A domain that never exists (RFC 2606), so that no mail reaches anybody.
        let kept = user.id.as_str().chars().filter(char::is_ascii_alphanumeric);
        email = format!("user{}@totpd.invalid", kept.take(60).collect::<String>());
        *without_address = without_address.saturating_add(1);
    }
    let human = ImportedHuman {
        user_id: user.id.as_str(),
        user: ImportedUser {
            user_name: username,
            profile: Profile {
                first_name: of_data(&["givenName", "firstName", "given_name", "first_name"]),
                last_name: of_data(&["familyName", "lastName", "family_name", "last_name"]),
            },
            email: Email {
                email,
                is_email_verified: true,
            },
            otp_code: newest.map(|it| it.secret.base32().to_string()),
        },
        state: match user.state {
            State::Active => None,
            State::Inactive => Some("USER_STATE_INACTIVE"),
            State::Locked => Some("USER_STATE_LOCKED"),
        },
    };
    let text = serde_json::to_string(&human).map_err(|error| Error::Bug(error.to_string()))?;
    Ok(format!("{}\n{text}", if has_one_before { "," } else { "" }))
}

/// The first of these members that is a text, at the top or in `profile` or `email`.
fn find_text(data: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let inner = ["profile", "email"]
        .iter()
        .filter_map(|it| data.get(*it)?.as_object());
    let places: Vec<_> = std::iter::once(data).chain(inner).collect();
    let found = names
        .iter()
        .find_map(|name| places.iter().find_map(|it| it.get(*name)?.as_str()));
    found
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
}

/// Whether ZITADEL takes this for an e-mail address.
fn is_address(text: &str) -> bool {
    let is_part =
        |it: &str| !it.is_empty() && !it.contains(|it: char| it == '@' || it.is_whitespace());
    text.split_once('@').is_some_and(|(local, domain)| {
        is_part(local) && is_part(domain) && domain.trim_matches('.').contains('.')
    })
}
