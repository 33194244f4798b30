//! Authentication and authorization: roles, permissions and callers.
//!
//! A [`Caller`] holds a credential. Each call turns it into a [`Principal`] inside its own transaction, so a token that
//! was revoked cannot commit a change. What a role can never do is [`Error::Forbidden`], before any row is read. A row
//! that the caller may not see counts as absent. Knows no HTTP and no SQL.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{OrgId, RequestId, Timestamp, UserId};
use crate::seal::token_hash;
use crate::store::{EventSource, ReadTx, TokenRow};

/// What a token may do, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything, on the whole instance.
    Admin,
    /// Users and their authenticators of one organization.
    Manager(OrgId),
    /// Checking codes and recovery codes of the users of one organization, or of all.
    Checker(Option<OrgId>),
    /// Reading one user, enrolling and removing that user's authenticators, and generating and removing recovery codes.
    Own(UserId),
}

impl Role {
    /// The role's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Manager(_) => "manager",
            Self::Checker(_) => "checker",
            Self::Own(_) => "self",
        }
    }

    /// The organization that the role is limited to.
    pub const fn organization(&self) -> Option<&OrgId> {
        match self {
            Self::Manager(org) | Self::Checker(Some(org)) => Some(org),
            Self::Admin | Self::Checker(None) | Self::Own(_) => None,
        }
    }

    /// The user that the role is limited to.
    pub const fn user(&self) -> Option<&UserId> {
        match self {
            Self::Own(user) => Some(user),
            Self::Admin | Self::Manager(_) | Self::Checker(_) => None,
        }
    }

    pub(super) fn of_row(row: &TokenRow) -> Result<Self> {
        match (row.role.as_str(), &row.org, &row.user) {
            ("admin", None, None) => Ok(Self::Admin),
            ("manager", Some(org), None) => Ok(Self::Manager(org.clone())),
            ("checker", org, None) => Ok(Self::Checker(org.clone())),
            ("self", None, Some(user)) => Ok(Self::Own(user.clone())),
            _ => Err(Error::Unavailable(format!(
                "token {} has no role that is known",
                row.id
            ))),
        }
    }
}

/// The credential of a call, not verified yet, and where the call came from.
#[derive(Clone)]
pub struct Caller {
    credential: Credential,
    peer: Option<IpAddr>,
    request_id: Option<RequestId>,
}

#[derive(Clone, Copy)]
enum Credential {
    /// Access to the data directory.
    CommandLine,
    /// The SHA-256 of a bearer token.
    Token([u8; 32]),
}

/// A verified caller. Valid only within the transaction that verified its credential.
pub(super) struct Principal {
    pub(super) role: Role,
    pub(super) source: EventSource,
}

/// What a call does, as far as roles distinguish calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Checks a code or a recovery code.
    Check,
    /// Reads one user.
    ReadUser,
    /// Searches users.
    Search,
    /// Lists events.
    ReadEvents,
    /// Enrols, confirms or removes an authenticator, or generates or removes recovery codes.
    WriteTotp,
    /// Creates or removes a user, or changes its state.
    WriteUser,
}

impl Caller {
    /// The command line. It may do everything, because it can open the data directory.
    pub const fn command_line() -> Self {
        Self {
            credential: Credential::CommandLine,
            peer: None,
            request_id: None,
        }
    }

    /// The holder of this bearer token.
    pub fn of_token(token: &str) -> Self {
        Self {
            credential: Credential::Token(token_hash(token)),
            peer: None,
            request_id: None,
        }
    }

    /// The same caller with the address that the call came from.
    #[must_use]
    pub fn from_peer(mut self, peer: Option<IpAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// The same caller with the id of the request, which events record.
    #[must_use]
    pub fn with_request_id(mut self, request_id: Option<RequestId>) -> Self {
        self.request_id = request_id;
        self
    }

    /// Verifies the credential against the database as the transaction sees it.
    pub(super) fn identify(&self, tx: &ReadTx<'_>, now: Timestamp) -> Result<Principal> {
        let mut principal = match &self.credential {
            Credential::CommandLine => Principal {
                role: Role::Admin,
                source: EventSource::command_line(),
            },
            Credential::Token(hash) => {
                let row = tx.token(hash)?.ok_or(Error::BadToken)?;
                if let Some(expired) = row.expires.filter(|it| *it <= now) {
                    let (id, advice) = (&row.id, "`totpd token create` makes another");
                    return Err(Error::ExpiredToken(format!(
                        "the {} token {id} expired on {expired}; {advice}",
                        row.role
                    )));
                }
                Principal {
                    role: Role::of_row(&row)?,
                    source: EventSource {
                        actor: row.id.to_string(),
                        peer: None,
                        request_id: None,
                    },
                }
            }
        };
        principal.source.peer = self.peer;
        principal.source.request_id.clone_from(&self.request_id);
        Ok(principal)
    }

    /// Whether the credential can expire, so that the clock must be right.
    pub(super) const fn needs_clock(&self) -> bool {
        matches!(self.credential, Credential::Token(_))
    }
}

impl Principal {
    /// Refuses what this role can never do, whatever the call's fields are.
    pub(super) fn require_role(&self, permission: Permission) -> Result<()> {
        let may = match &self.role {
            Role::Admin | Role::Manager(_) => true,
            Role::Checker(_) => permission == Permission::Check,
            Role::Own(_) => matches!(permission, Permission::ReadUser | Permission::WriteTotp),
        };
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Refuses everyone but an administrator.
    pub(super) fn require_admin(&self) -> Result<()> {
        if self.role == Role::Admin {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    /// Refuses a caller that is limited to another user, whether or not `user` exists.
    pub(super) fn require_user(&self, user: &UserId) -> Result<()> {
        match self.role.user() {
            Some(own) if own != user => Err(Error::Forbidden),
            Some(_) | None => Ok(()),
        }
    }
}

impl Role {
    /// Whether the role may see users of that organization.
    pub(super) fn can_see(&self, org: &OrgId) -> bool {
        self.organization().is_none_or(|it| it == org)
    }
}

/// How a request names an instance or an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedBy {
    /// By its id.
    Id(OrgId),
    /// By a domain. totpd stores no domains, so this matches nothing.
    Domain,
}

/// The instance and organization that a call is limited to. A user elsewhere counts as absent.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The instance of the call, if it names one.
    pub instance: Option<NamedBy>,
    /// The organization of the call, if it names one.
    pub organization: Option<NamedBy>,
}

impl Target {
    pub(super) fn is_instance(&self, id: &str) -> bool {
        match &self.instance {
            None => true,
            Some(NamedBy::Id(expected)) => expected.as_str() == id,
            Some(NamedBy::Domain) => false,
        }
    }
}
