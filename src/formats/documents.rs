//! JSON documents of other programs: which one a file is, and Keycloak's export of a realm.

use serde::Deserialize;
use serde_json::Value;
use totpd::error::Result;
use totpd::model::Timestamp;
use totpd::service::ImportRow;

use super::fields::{Draft, Fault};
use super::input::{Source, refused};
use super::zitadel::{self, Organizations};
use super::{Format, Place, ReadOptions, Sink};

/// What is read of a document. The members are those of every kind of document.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    // Keycloak.
    realm: Option<Value>,
    users: Option<Vec<KeycloakUser>>,
    // ZITADEL: the response of an export, or the request of an import.
    orgs: Option<Vec<Value>>,
    #[serde(alias = "data_orgs")]
    data_orgs: Option<Organizations>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct KeycloakUser {
    username: Option<String>,
    enabled: Option<bool>,
    credentials: Vec<KeycloakCredential>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct KeycloakCredential {
    r#type: Option<String>,
    user_label: Option<String>,
    created_date: Option<i64>,
    /// JSON in a string.
    secret_data: Option<String>,
    credential_data: Option<String>,
}

#[derive(Deserialize)]
struct SecretData {
    value: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CredentialData {
    sub_type: Option<String>,
    digits: Value,
    period: Value,
    algorithm: Option<String>,
    secret_encoding: Option<String>,
}

/// Reads a document of Keycloak or ZITADEL.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let text = source.whole()?;
    let parsed = if text.trim_start().starts_with('[') {
        // Keycloak exports several realms as a list.
        serde_json::from_str::<Vec<Document>>(&text)
    } else {
        serde_json::from_str(&text).map(|it| vec![it])
    };
    // The library's message may repeat a value.
    let mut documents = parsed.map_err(|error| {
        refused(if error.is_data() {
            format!(
                "line {} of the document is not as Keycloak or ZITADEL writes it",
                error.line()
            )
        } else {
            format!(
                "it is not a complete JSON document; see line {}, column {}",
                error.line(),
                error.column()
            )
        })
    })?;
    let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
        return Err(refused(
            "it holds several realms, or none; import each by itself (--org)",
        ));
    };
    let is_asked = |it: Format| options.format.is_none_or(|asked| asked == it);
    if let Some(organizations) = document.data_orgs.filter(|_| is_asked(Format::Zitadel)) {
        return zitadel::rows(vec![organizations], options, sink);
    }
    if document.orgs.is_some() && is_asked(Format::Zitadel) {
        drop(document.orgs);
        let malformed = |_| refused("it is not as ZITADEL exports organizations");
        let organizations = serde_json::from_str(&text).map_err(malformed)?;
        return zitadel::rows(vec![organizations], options, sink);
    }
    match (document.users, document.realm) {
        (Some(users), Some(_)) if is_asked(Format::Keycloak) => keycloak(users, options, sink),
        _ => Err(refused(
            "it is JSON, and no export of totpd, Keycloak (with users) or ZITADEL",
        )),
    }
}

fn keycloak(users: Vec<KeycloakUser>, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    for (user_index, user) in users.into_iter().enumerate() {
        for (index, credential) in user.credentials.into_iter().enumerate() {
            if credential.r#type.as_deref() != Some("otp") {
                continue;
            }
            let place = Place::Path(format!("users[{user_index}].credentials[{index}]"));
            let is_disabled = user.enabled == Some(false);
            let row = keycloak_row(user.username.clone(), is_disabled, credential, options);
            sink(place, row)?;
        }
    }
    Ok(())
}

fn keycloak_row(
    username: Option<String>,
    is_disabled: bool,
    credential: KeycloakCredential,
    options: &ReadOptions,
) -> Result<ImportRow, Fault> {
    let secret: Option<SecretData> = inner(credential.secret_data.as_deref());
    let secret = secret.ok_or_else(|| Fault::new("its secretData is missing or malformed"))?;
    let data: Option<CredentialData> = inner(credential.credential_data.as_deref());
    let data = data.ok_or_else(|| Fault::new("its credentialData is missing or malformed"))?;
    if data.sub_type.as_deref().is_some_and(|it| it != "totp") {
        return Err(Fault::new("it is HOTP, by counter; only TOTP is taken"));
    }
    let secret = match data.secret_encoding.as_deref() {
        // The characters are the secret, and authenticator apps get their base32.
        None | Some("") => options.secrets.bytes(secret.value.as_bytes())?,
        Some(encoding) if encoding.eq_ignore_ascii_case("base32") => {
            options.secrets.base32(&secret.value)?
        }
        Some(_) => return Err(Fault::new("its secretEncoding is not BASE32")),
    };
    let created = credential.created_date.filter(|it| *it > 0);
    options.finish(Draft {
        username,
        secret: Some(secret),
        algorithm: data.algorithm,
        digits: number(&data.digits),
        period: number(&data.period),
        name: credential.user_label,
        created: created.map(|it| Timestamp::from_micros(it.saturating_mul(1_000))),
        is_disabled,
        ..Draft::default()
    })
}

fn inner<'a, T: Deserialize<'a>>(text: Option<&'a str>) -> Option<T> {
    serde_json::from_str(text?).ok()
}

/// A number, or a text that may be one.
fn number(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(value.to_string())
        }
    }
}
