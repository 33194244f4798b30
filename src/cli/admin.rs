//! `init`, `token` and `org`: what whoever runs the node does once or seldom.

use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::model::{Name, OrgId, Timestamp, TokenId};
use totpd::seal::BearerToken;
use totpd::service::{DataDir, NewToken, Power, Service, Settings, Token};

use super::args::{self, Lifetime, Role, TokenCreate};
use super::output::{self, Output};
use super::{Home, now, operator};

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
            role: it.power.role(),
            name: it.name.as_ref().map(ToString::to_string),
            org_id: it.power.organization().map(ToString::to_string),
            user_id: it.power.user().map(ToString::to_string),
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

/// Makes the data directory and says what is in it.
pub(super) fn init(home: &Home, out: &Output, args: &args::Init) -> Result<()> {
    let settings = Settings {
        issuer: Name::parse("--issuer", &args.issuer)?,
        window: args.window.parse()?,
    };
    let (service, org) = DataDir::create(&home.path, home.key.clone(), &settings, now())?;
    let (id, token) = first_token(&service)?;
    let document = InitDocument {
        instance_id: service.instance_id().to_owned(),
        org_id: org.to_string(),
        token: NewTokenDocument::of(&id, &token),
    };
    out.answer(&document, || welcome(home, &org, &token))
}

/// The first admin token of a new instance.
pub(super) fn first_token(service: &Service) -> Result<(TokenId, BearerToken)> {
    let name = Name::parse("name", "first")?;
    let lasts = Some(std::time::Duration::from_hours(365 * 24));
    let new = NewToken {
        power: Power::Admin,
        name: Some(name),
        lasts,
    };
    service.create_token(&operator(), new, now())
}

/// What a person is told about a new instance, once.
pub(super) fn welcome(home: &Home, org: &OrgId, token: &BearerToken) -> String {
    format!(
        "made         {}\norganization {org}\nadmin token  {}\n\
         The token is not shown again. Keep master.key apart from backups of the database.",
        home.path.display(),
        token.reveal()
    )
}

/// `token create`, `token list`, `token revoke`
pub(super) fn token(service: &Service, out: &Output, command: args::Token) -> Result<()> {
    match command {
        args::Token::Create(it) => {
            let power = power(service, &it)?;
            let name = it.name.map(|it| Name::parse("--name", &it)).transpose()?;
            let lasts = match it.expires {
                Lifetime::For(it) => Some(it),
                Lifetime::Never => None,
            };
            let new = NewToken { power, name, lasts };
            let (id, token) = service.create_token(&operator(), new, now())?;
            out.answer(&NewTokenDocument::of(&id, &token), || {
                format!(
                    "id     {id}\ntoken  {}\nThe token is not shown again.",
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
            let token = service.revoke_token(&operator(), &id.parse()?, now())?;
            out.answer(&TokenDocument::from(&token), || format!("revoked {id}"))
        }
    }
}

/// What the flags say the token stands for. Flags that the role has no use for are refused, not ignored:
/// whoever gave them believed in them.
fn power(service: &Service, it: &TokenCreate) -> Result<Power> {
    let org = it.org.as_ref().map(|it| it.parse::<OrgId>()).transpose()?;
    match (it.role, org, it.all_orgs, &it.user) {
        (Role::Admin, None, false, None) => Ok(Power::Admin),
        (Role::Admin, ..) => Err(Error::invalid(
            "--role admin",
            "takes no --org, --all-orgs or --user",
        )),
        (Role::Manager, Some(org), false, None) => Ok(Power::Manager(org)),
        (Role::Manager, ..) => Err(Error::invalid(
            "--role manager",
            "expected --org ID and no --user",
        )),
        (Role::Checker, Some(org), false, None) => Ok(Power::Checker(Some(org))),
        (Role::Checker, None, true, None) => Ok(Power::Checker(None)),
        (Role::Checker, ..) => Err(Error::invalid(
            "--role checker",
            "expected --org ID or --all-orgs, and no --user",
        )),
        (Role::Own, None, false, Some(user)) => {
            Ok(Power::Own(service.find_user(&operator(), user)?))
        }
        (Role::Own, ..) => Err(Error::invalid(
            "--role self",
            "expected --user USER and no organization",
        )),
    }
}

fn token_table(tokens: &[Token], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|it| {
            let bound = it.power.organization().map(|it| format!("org {it}"));
            let bound = bound.or_else(|| it.power.user().map(|it| format!("user {it}")));
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
                it.power.role().to_owned(),
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
            let id = service.create_organization(&operator(), name.clone(), now())?;
            let document = OrgDocument {
                id: id.to_string(),
                name: name.to_string(),
            };
            out.answer(&document, || format!("made organization {id}"))
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
