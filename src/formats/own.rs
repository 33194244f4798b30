//! totpd's own document: all that an import takes back. It is one JSON document with a user on each line, so that a large
//! one is read line by line.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use totpd::error::{Error, Result};
use totpd::model::{Drift, Name, Timestamp};
use totpd::service::{ExportedUser, ImportRow, ImportTotp, ImportUser, NewUsername, State};
use totpd::totp::Parameters;

use super::fields::{self, Fault, SecretRule};
use super::input::{Source, refused};
use super::{Place, ReadOptions, Sink};

/// The longest line: a user with 64 KiB of data, ten authenticators and fifty usernames has less.
const LINE_BYTES: usize = 1 << 20;
/// How a document begins, without white space.
const BEGINNING: &str = "{\"totpd\":";
/// The end. A document without it was cut off.
pub(super) const END: &str = "\n]}\n";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UserDocument<'a> {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    #[serde(default)]
    usernames: Vec<UsernameDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema_id: Option<String>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    state: StateDocument,
    #[serde(default)]
    totps: Vec<TotpDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UsernameDocument {
    username: String,
    #[serde(default)]
    is_organization_specific: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TotpDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    algorithm: String,
    digits: u8,
    period: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    drift: i64,
    secret: String,
    created: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StateDocument {
    Active,
    Inactive,
    Locked,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(drift: &i64) -> bool {
    *drift == 0
}

/// Whether a file begins as a document of totpd does, on one line or laid out anew.
pub(super) fn is_ours(head: &str) -> bool {
    let plain = head.chars().filter(|it| !it.is_whitespace());
    plain.take(BEGINNING.len()).eq(BEGINNING.chars())
}

/// The line before the users.
pub(super) fn head(now: Timestamp) -> String {
    format!("{BEGINNING}1,\"exported\":\"{now}\",\"users\":[")
}

/// The line of a user.
pub(super) fn user(user: &ExportedUser, has_one_before: bool) -> Result<String> {
    let data = user.data.as_deref().map(serde_json::from_str::<&RawValue>);
    let bug = |error: serde_json::Error| Error::Bug(error.to_string());
    let document = UserDocument {
        id: user.id.to_string(),
        organization: Some(user.org.to_string()),
        usernames: user
            .usernames
            .iter()
            .map(|it| UsernameDocument {
                username: it.username.to_string(),
                is_organization_specific: it.is_organization_specific,
            })
            .collect(),
        schema_id: user.schema_id.clone(),
        data: data.transpose().map_err(bug)?,
        state: match user.state {
            State::Active => StateDocument::Active,
            State::Inactive => StateDocument::Inactive,
            State::Locked => StateDocument::Locked,
        },
        totps: user
            .totps
            .iter()
            .map(|it| TotpDocument {
                name: it.name.as_ref().map(ToString::to_string),
                algorithm: it.parameters.algorithm.name().to_owned(),
                digits: it.parameters.digits,
                period: it.parameters.period.seconds(),
                drift: it.drift.steps(),
                secret: it.secret.base32().to_string(),
                created: it.created.to_string(),
            })
            .collect(),
    };
    let text = serde_json::to_string(&document).map_err(bug)?;
    Ok(format!("{}\n{text}", if has_one_before { "," } else { "" }))
}

/// Reads a document.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let first = source.head().lines().next().unwrap_or_default();
    if !first.trim_end().ends_with("\"users\":[") {
        return Err(refused(
            "it is an export of totpd whose lines are not as totpd wrote them: one user on each",
        ));
    }
    let (mut is_complete, mut organization) = (false, None);
    while let Some(line) = source.next_line(LINE_BYTES)? {
        let place = Place::Line(line.number);
        let Some(text) = line.text else {
            sink(place, Err(Fault::new("it is not UTF-8")))?;
            continue;
        };
        if is_ours(&text) {
            require_version(&text)?;
            continue;
        }
        if text == END.trim() {
            is_complete = true;
            continue;
        }
        let document = serde_json::from_str(text.strip_suffix(',').unwrap_or(&text));
        // The library's message may repeat a value.
        let document = document.map_err(|_| Fault::new("it is no user as totpd writes one"));
        let rows = document.and_then(|it: UserDocument<'_>| {
            fields::require_same_organization(&mut organization, it.organization.as_deref())?;
            rows(it, options.secrets)
        });
        match rows {
            Ok(rows) => rows
                .into_iter()
                .try_for_each(|row| sink(place.clone(), row))?,
            Err(fault) => sink(place, Err(fault))?,
        }
    }
    if is_complete {
        Ok(())
    } else {
        Err(refused(
            "its end is missing: it was cut off, and what follows was not imported",
        ))
    }
}

fn require_version(line: &str) -> Result<()> {
    let version = line.strip_prefix(BEGINNING).unwrap_or_default();
    if version.trim_start().starts_with("1,") {
        Ok(())
    } else {
        Err(refused(
            "it is of another version of totpd; use that one, or a newer one",
        ))
    }
}

/// A row for each authenticator of a user, or one for the user alone.
fn rows(
    document: UserDocument<'_>,
    secrets: SecretRule,
) -> Result<Vec<Result<ImportRow, Fault>>, Fault> {
    let usernames = document.usernames.into_iter().map(|it| {
        Ok(NewUsername {
            username: fields::username(&it.username)?,
            is_organization_specific: it.is_organization_specific,
        })
    });
    let user = ImportUser {
        id: Some(fields::user_id(&document.id)?),
        usernames: usernames.collect::<Result<_, _>>()?,
        state: match document.state {
            StateDocument::Active => State::Active,
            StateDocument::Inactive => State::Inactive,
            StateDocument::Locked => State::Locked,
        },
        schema_id: document
            .schema_id
            .as_deref()
            .map(|it| {
                Name::parse("schemaId", it).map_err(|_| Fault::new("its schemaId is malformed"))
            })
            .transpose()?,
        data: document.data.map(fields::data).transpose()?,
    };
    if document.totps.is_empty() {
        return Ok(vec![Ok(ImportRow { user, totp: None })]);
    }
    let row = |it: TotpDocument| {
        Ok(ImportRow {
            user: user.clone(),
            totp: Some(ImportTotp {
                secret: secrets.base32(&it.secret)?,
                parameters: Parameters {
                    algorithm: fields::algorithm(&it.algorithm)?,
                    digits: fields::digits(&it.digits.to_string())?,
                    period: fields::period(&it.period.to_string())?,
                },
                drift: Drift::from_steps(it.drift)
                    .ok_or_else(|| Fault::new("its drift is over 20 steps"))?,
                name: it.name.as_deref().map(fields::totp_name).transpose()?,
                created: Some(fields::time(&it.created)?),
            }),
        })
    };
    Ok(document.totps.into_iter().map(row).collect())
}
