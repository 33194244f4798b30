//! The messages of contract §2 as JSON: what comes in, what goes out.
//!
//! Wire types, not domain types: unset fields are left out, unknown ones ignored, both spellings of a
//! field are read (protojson), and `null` is unset.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::model::Name;
use crate::service;

/// Usernames that a user may be given at once. A person has a few; each is a row and an index entry.
const MAX_USERNAMES: usize = 50;

/// `zitadel.resources.object.v3alpha.Details`
#[derive(Serialize)]
pub struct Details {
    id: String,
    created: String,
    changed: String,
    owner: Owner,
}

/// `zitadel.object.v3alpha.Owner`
#[derive(Serialize)]
struct Owner {
    r#type: &'static str,
    id: String,
}

impl From<service::Details> for Details {
    fn from(it: service::Details) -> Self {
        Self {
            id: it.id,
            created: it.created.to_string(),
            changed: it.changed.to_string(),
            owner: Owner {
                r#type: "OWNER_TYPE_ORG",
                id: it.owner.to_string(),
            },
        }
    }
}

/// The answer of every call that has nothing else to say.
#[derive(Serialize)]
pub struct DetailsResponse {
    details: Details,
}

impl From<service::Details> for DetailsResponse {
    fn from(it: service::Details) -> Self {
        Self { details: it.into() }
    }
}

/// `StartTOTPRegistrationResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartResponse {
    details: Details,
    totp_id: String,
    uri: String,
    secret: String,
}

impl From<service::Enrolment> for StartResponse {
    fn from(it: service::Enrolment) -> Self {
        Self {
            totp_id: it.details.id.clone(),
            details: it.details.into(),
            uri: it.uri,
            secret: it.secret.base32(),
        }
    }
}

/// `totpd.v1.CheckTOTPResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResponse {
    details: Details,
    totp_id: String,
}

impl From<service::Details> for CheckResponse {
    fn from(it: service::Details) -> Self {
        Self {
            totp_id: it.id.clone(),
            details: it.into(),
        }
    }
}

/// `GetUserResponse`
#[derive(Serialize)]
pub struct GetUserResponse {
    user: User,
}

impl GetUserResponse {
    /// The answer for this user.
    pub fn of(user: service::User) -> Result<Self> {
        Ok(Self {
            user: User::of(user)?,
        })
    }
}

/// `zitadel.resources.user.v3alpha.GetUser`
#[derive(Serialize)]
pub struct User {
    details: Details,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Schema>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticators: Option<Authenticators>,
    state: &'static str,
}

#[derive(Serialize)]
struct Schema {
    id: String,
}

#[derive(Serialize)]
struct Authenticators {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    usernames: Vec<Username>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    totps: Vec<Totp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the protos'")]
struct Username {
    username_id: String,
    username: String,
    #[serde(skip_serializing_if = "is_false")]
    is_organization_specific: bool,
}

/// `zitadel.resources.user.v3alpha.TOTP`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the protos'")]
pub struct Totp {
    totp_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    is_verified: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_false(it: &bool) -> bool {
    !*it
}

impl From<service::Totp> for Totp {
    fn from(it: service::Totp) -> Self {
        Self {
            totp_id: it.id.to_string(),
            name: it.name.map(|it| it.to_string()),
            is_verified: it.is_confirmed,
        }
    }
}

impl User {
    /// The message for this user.
    pub fn of(it: service::User) -> Result<Self> {
        let data = it.data.as_deref().map(serde_json::from_str).transpose();
        let authenticators = Authenticators {
            usernames: it
                .usernames
                .into_iter()
                .map(|it| Username {
                    username_id: it.id,
                    username: it.username.to_string(),
                    is_organization_specific: it.is_organization_specific,
                })
                .collect(),
            totps: it.totps.into_iter().map(Totp::from).collect(),
        };
        let none = authenticators.usernames.is_empty() && authenticators.totps.is_empty();
        Ok(Self {
            details: it.details.into(),
            schema: it.schema_id.map(|id| Schema { id }),
            data: data.map_err(|error| Error::Bug(format!("stored data: {error}")))?,
            authenticators: (!none).then_some(authenticators),
            state: match it.state {
                service::State::Active => "USER_STATE_ACTIVE",
                service::State::Inactive => "USER_STATE_INACTIVE",
                service::State::Locked => "USER_STATE_LOCKED",
            },
        })
    }
}

/// What the body of an enrolment may say: nothing, or what the authenticator is called (ours).
#[derive(Deserialize, Default)]
struct StartRequest {
    name: Option<String>,
}

/// `zitadel.resources.user.v3alpha.CreateUser`
#[derive(Deserialize)]
struct CreateUser {
    #[serde(rename = "userId", alias = "user_id")]
    user_id: Option<String>,
    #[serde(rename = "schemaId", alias = "schema_id")]
    schema_id: Option<String>,
    data: Option<Map<String, Value>>,
    contact: Option<IgnoredAny>,
    authenticators: Option<SetAuthenticators>,
}

#[derive(Deserialize)]
struct SetAuthenticators {
    usernames: Option<Vec<SetUsername>>,
    password: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct SetUsername {
    username: Option<String>,
    #[serde(rename = "isOrganizationSpecific", alias = "is_organization_specific")]
    is_organization_specific: Option<bool>,
}

/// Reads the body of an enrolment.
pub fn read_start(body: &[u8]) -> Result<Option<Name>> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let request: StartRequest = read(body)?;
    request.name.map(|it| Name::parse("name", &it)).transpose()
}

/// Reads the body of a confirmation or a check: the bare JSON string of a code.
///
/// The parser's own words are left out here: they might repeat the code.
pub fn read_code(body: &[u8]) -> Result<crate::model::Code> {
    let text: zeroize::Zeroizing<String> = serde_json::from_slice(body)
        .map(zeroize::Zeroizing::new)
        .map_err(|_| {
            Error::invalid(
                "body",
                "expected the code as a JSON string, such as \"123456\"",
            )
        })?;
    text.parse()
}

/// Reads the body of `CreateUser`.
pub fn read_create_user(body: &[u8]) -> Result<service::NewUser> {
    let request: CreateUser = read(body)?;
    if request.contact.is_some() {
        return Err(Error::invalid(
            "contact",
            "totpd keeps no contact; leave it out",
        ));
    }
    let authenticators = request.authenticators;
    if authenticators
        .as_ref()
        .is_some_and(|it| it.password.is_some())
    {
        return Err(Error::invalid(
            "authenticators.password",
            "totpd keeps no passwords; leave it out",
        ));
    }
    let usernames = authenticators
        .and_then(|it| it.usernames)
        .unwrap_or_default();
    if usernames.len() > MAX_USERNAMES {
        return Err(Error::invalid(
            "authenticators.usernames",
            "expected at most 50 usernames",
        ));
    }
    let usernames = usernames.into_iter().map(|it| {
        Ok(service::NewUsername {
            username: Name::parse("username", it.username.as_deref().unwrap_or_default())?,
            is_organization_specific: it.is_organization_specific.unwrap_or_default(),
        })
    });
    Ok(service::NewUser {
        id: request.user_id.map(|it| it.parse()).transpose()?,
        schema_id: request
            .schema_id
            .map(|it| Name::parse("schemaId", &it))
            .transpose()?,
        data: request.data.map(|it| Value::Object(it).to_string()),
        usernames: usernames.collect::<Result<_>>()?,
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| Error::invalid("body", error.to_string()))
}
