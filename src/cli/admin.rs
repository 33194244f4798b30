//! `init`, `token` and `org`: the commands that set up an instance.

use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::model::{Name, OrgId, Timestamp, TokenId};
use totpd::seal::BearerToken;
use totpd::service::{DataDir, FoundUser, NewToken, Role, Service, Settings, Token};

use super::args::{self, Lifetime, RoleName, TokenCreate};
use super::output::{self, Output};
use super::{DataLocation, now, operator, users};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitDocument {
    instance_id: String,
    org_id: String,
    token: NewTokenDocument,
}

#[derive(Serialize)]
struct NewTokenDocument {
    id: String,
    token: String,
}

impl NewTokenDocument {
    fn of(id: &TokenId, token: &BearerToken) -> Self {
        Self {
            id: id.to_string(),
            token: token.reveal().to_owned(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenDocument {
    id: String,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl From<&Token> for TokenDocument {
    fn from(it: &Token) -> Self {
        Self {
            id: it.id.to_string(),
            role: it.role.name(),
            name: it.name.as_ref().map(ToString::to_string),
            org_id: it.role.organization().map(ToString::to_string),
            user_id: it.role.user().map(ToString::to_string),
            created: it.created.to_string(),
            expires: it.expires.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
struct OrgDocument {
    id: String,
    name: String,
}

/// Creates the data directory with an instance, and prints its ids and first token.
pub(super) fn init(location: &DataLocation, out: &Output, args: &args::Init) -> Result<()> {
    let settings = Settings {
        issuer: Name::parse_issuer("--issuer", &args.issuer)?,
        window: args.window.parse()?,
        checkpoints: totpd::model::Checkpointer::Own,
        self_removal: totpd::model::SelfRemoval::Allow,
    };
    let (service, org) = DataDir::create(&location.path, location.key.clone(), &settings, now())?;
    let (id, token) = first_token(location, &service)?;
    let document = InitDocument {
        instance_id: service.instance_id().to_owned(),
        org_id: org.to_string(),
        token: NewTokenDocument::of(&id, &token),
    };
    let done = format!(
        "made {} with token {id}; {}",
        location.path.display(),
        another_token(location)
    );
    out.answer_change(&done, &document, || welcome(location, &org, &token))
}

/// Advice where the first token was not created, or may not have been seen.
pub(super) fn another_token(location: &DataLocation) -> String {
    let command = location.command(&["token", "create", "--role", "admin"], &[]);
    format!("`{command}` makes an admin token")
}

/// Creates the first admin token. The error says that the instance exists even though this failed.
pub(super) fn first_token(
    location: &DataLocation,
    service: &Service,
) -> Result<(TokenId, BearerToken)> {
    let name = Name::parse("name", "first")?;
    let lifetime = Some(std::time::Duration::from_hours(365 * 24));
    let new = NewToken {
        role: Role::Admin,
        name: Some(name),
        lifetime,
    };
    service.create_token(&operator(), new).map_err(|error| {
        let made = format!("{} was made, but no token", location.path.display());
        Error::invalid(made, format!("{error}; {}", another_token(location)))
    })
}

/// The text about a new instance, with its token.
pub(super) fn welcome(location: &DataLocation, org: &OrgId, token: &BearerToken) -> String {
    format!(
        "made         {}\norganization {org}\nadmin token  {}\n\
         The token is not shown again. Keep master.key apart from backups of the database.",
        location.path.display(),
        token.reveal()
    )
}

/// `token create`, `token list`, `token revoke`
pub(super) fn token(service: &Service, out: &Output, command: args::Token) -> Result<()> {
    match command {
        args::Token::Create(it) => {
            let (role, user) = role(service, &it)?;
            let name = it.name.map(|it| Name::parse("--name", &it)).transpose()?;
            let lifetime = match it.expires {
                Lifetime::For(it) => Some(it),
                Lifetime::Never => None,
            };
            let new = NewToken {
                role,
                name,
                lifetime,
            };
            let (id, token) = service.create_token(&operator(), new)?;
            let done = format!("made token {id}");
            out.answer_change(&done, &NewTokenDocument::of(&id, &token), || {
                let user = user.map(|it| format!("for    {}\n", users::label(it.id, &it.org)));
                format!(
                    "id     {id}\n{}token  {}\nThe token is not shown again.",
                    user.unwrap_or_default(),
                    token.reveal()
                )
            })
        }
        args::Token::List => {
            let tokens = service.tokens(&operator())?;
            let documents: Vec<TokenDocument> = tokens.iter().map(TokenDocument::from).collect();
            out.answer(&documents, || token_table(&tokens, now()))
        }
        args::Token::Revoke { id } => {
            let token = service.revoke_token(&operator(), id.parse()?)?;
            let user = token.role.user().zip(token.user_org.as_ref());
            let of = user.map(|(id, org)| format!(" of {}", users::label(id, org)));
            let done = format!("revoked {id}{}", of.unwrap_or_default());
            out.answer_change(&done, &TokenDocument::from(&token), || done.clone())
        }
    }
}

/// The role that the flags describe, and the user of a `self` token. Flags that do not apply to the role are refused and
/// not ignored, because the operator expects them to have an effect.
fn role(service: &Service, it: &TokenCreate) -> Result<(Role, Option<FoundUser>)> {
    if let (RoleName::Own, false, Some(user)) = (it.role, it.all_orgs, &it.user) {
        let name = users::selector(user, it.id, it.org.as_deref())?;
        let user = service.find_user(&operator(), &name)?;
        return Ok((Role::Own(user.id.clone()), Some(user)));
    }
    let org = it.org.as_ref().map(|it| it.parse::<OrgId>()).transpose()?;
    let role = match (it.role, org, it.all_orgs, &it.user) {
        (RoleName::Admin, None, false, None) => Role::Admin,
        (RoleName::Manager, Some(org), false, None) => Role::Manager(org),
        (RoleName::Checker, Some(org), false, None) => Role::Checker(Some(org)),
        (RoleName::Checker, None, true, None) => Role::Checker(None),
        (RoleName::Admin, ..) => {
            let problem = "takes no --org, --all-orgs or --user";
            return Err(Error::invalid("--role admin", problem));
        }
        (RoleName::Manager, ..) => {
            let problem = "expected --org ID and no --user";
            return Err(Error::invalid("--role manager", problem));
        }
        (RoleName::Checker, ..) => {
            let problem = "expected --org ID or --all-orgs, and no --user";
            return Err(Error::invalid("--role checker", problem));
        }
        (RoleName::Own, ..) => {
            let problem =
                "expected --user USER, with --id or --org ID where USER means several users";
            return Err(Error::invalid("--role self", problem));
        }
    };
    Ok((role, None))
}

fn token_table(tokens: &[Token], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|it| {
            let bound = it.role.organization().map(|it| format!("org {it}"));
            let user = it.role.user().zip(it.user_org.as_ref());
            let bound = bound.or_else(|| user.map(|(id, org)| users::label(id, org)));
            let expires = match it.expires {
                None => "never".to_owned(),
                Some(at) if at <= now => format!("{at} (expired)"),
                Some(at) => at.to_string(),
            };
            let name = it
                .name
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            vec![
                it.id.to_string(),
                it.role.name().to_owned(),
                bound.unwrap_or_default(),
                expires,
                name,
            ]
        })
        .collect();
    output::table(&["ID", "ROLE", "BOUND TO", "EXPIRES", "NAME"], &rows)
}

/// `org create`, `org list`
pub(super) fn org(service: &Service, out: &Output, command: args::Org) -> Result<()> {
    match command {
        args::Org::Create { name } => {
            let name = Name::parse("NAME", &name)?;
            let id = service.create_organization(&operator(), name.clone())?;
            let document = OrgDocument {
                id: id.to_string(),
                name: name.to_string(),
            };
            let done = format!("made organization {id}");
            out.answer_change(&done, &document, || done.clone())
        }
        args::Org::Rename { id, name } => {
            let name = Name::parse("NAME", &name)?;
            service.rename_organization(&operator(), id.parse()?, name.clone())?;
            let done = format!("renamed organization {id}");
            let name = name.to_string();
            out.answer_change(&done, &OrgDocument { id, name }, || done.clone())
        }
        args::Org::Remove { id } => {
            let name = service.remove_organization(&operator(), id.parse()?)?;
            let done = format!("removed organization {id}");
            let name = name.to_string();
            out.answer_change(&done, &OrgDocument { id, name }, || done.clone())
        }
        args::Org::List => {
            let organizations = service.organizations(&operator())?;
            let documents: Vec<OrgDocument> = organizations
                .iter()
                .map(|(id, name)| OrgDocument {
                    id: id.to_string(),
                    name: name.to_string(),
                })
                .collect();
            out.answer(&documents, || {
                let rows = documents
                    .iter()
                    .map(|it| vec![it.id.clone(), it.name.clone()]);
                output::table(&["ID", "NAME"], &rows.collect::<Vec<_>>())
            })
        }
    }
}
