//! Who may do what, and what is in whose sight.
//!
//! A call brings what was presented, a [`Caller`]. Inside its transaction that becomes a [`Principal`], so that a
//! revoked token is good for nothing that is not committed. "May never" is [`Error::Forbidden`] and is judged before anything is looked up; "not in sight" is the
//! same as "not there" and is judged on the row.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{OrgId, Timestamp, UserId};
use crate::seal::token_hash;
use crate::store::{EventSource, ReadTx, TokenRow};

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything, on the whole instance.
    Admin,
    /// Users and their authenticators of one organization.
    Manager(OrgId),
    /// Checking codes, of one organization's users or of everyone's.
    Checker(Option<OrgId>),
    /// Reading one user, and enrolling and removing that user's authenticators.
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

    /// The organization it is bound to, if it is bound to one.
    pub const fn organization(&self) -> Option<&OrgId> {
        match self {
            Self::Manager(org) | Self::Checker(Some(org)) => Some(org),
            Self::Admin | Self::Checker(None) | Self::Own(_) => None,
        }
    }

    /// The user it is bound to, if it is bound to one.
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

/// Who calls, and from where: what was presented, and not yet whom it stands for. That is judged by each call, inside
/// its own transaction.
#[derive(Clone, Copy)]
pub struct Caller {
    credential: Credential,
    peer: Option<IpAddr>,
}

#[derive(Clone, Copy)]
enum Credential {
    /// The data directory itself.
    CommandLine,
    /// The digest of a bearer token.
    Token([u8; 32]),
}

/// A caller whose credential was judged. It holds for the transaction in which that was done, and no longer.
pub(super) struct Principal {
    pub(super) role: Role,
    pub(super) source: EventSource,
}

/// What a call does, as far as rights tell calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Checks a code.
    Check,
    /// Reads one user.
    ReadUser,
    /// Searches among users.
    Search,
    /// Enrols, confirms or removes an authenticator.
    WriteTotp,
    /// Creates or removes a user, or changes its state.
    WriteUser,
}

impl Caller {
    /// Whoever can open the data directory can do everything with it anyway.
    pub const fn command_line() -> Self {
        Self {
            credential: Credential::CommandLine,
            peer: None,
        }
    }

    /// Whoever holds this bearer token.
    pub fn of_token(token: &str) -> Self {
        Self {
            credential: Credential::Token(token_hash(token)),
            peer: None,
        }
    }

    /// The same caller, seen coming from this address.
    #[must_use]
    pub fn from_peer(mut self, peer: Option<IpAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// Judges the credential as it stands in the transaction's view of the database.
    pub(super) fn identify(&self, tx: &ReadTx<'_>, now: Timestamp) -> Result<Principal> {
        let mut principal = match &self.credential {
            Credential::CommandLine => Principal {
                role: Role::Admin,
                source: EventSource::command_line(),
            },
            Credential::Token(hash) => {
                let row = tx.token(hash)?.ok_or(Error::BadToken)?;
                if let Some(expired) = row.expires.filter(|it| *it <= now) {
                    let (id, way_out) = (&row.id, "`totpd token create` makes another");
                    return Err(Error::ExpiredToken(format!(
                        "the {} token {id} expired on {expired}; {way_out}",
                        row.role
                    )));
                }
                Principal {
                    role: Role::of_row(&row)?,
                    source: EventSource {
                        actor: row.id.to_string(),
                        peer: None,
                    },
                }
            }
        };
        principal.source.peer = self.peer;
        Ok(principal)
    }

    /// Whether what the caller may do ends with time, so that the clock must be right.
    pub(super) const fn needs_clock(&self) -> bool {
        matches!(self.credential, Credential::Token(_))
    }
}

impl Principal {
    /// Refuses what no caller of this role can ever do, whatever the call names. It is judged before the call's fields.
    pub(super) fn require_role(&self, permission: Permission) -> Result<()> {
        let may = match &self.role {
            Role::Admin | Role::Manager(_) => true,
            Role::Checker(_) => permission == Permission::Check,
            Role::Own(_) => matches!(permission, Permission::ReadUser | Permission::WriteTotp),
        };
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Refuses what only an administrator can do: what the whole instance has.
    pub(super) fn require_admin(&self) -> Result<()> {
        if self.role == Role::Admin {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    /// Refuses what this caller can never do to that user, whether or not it exists.
    pub(super) fn require_user(&self, user: &UserId) -> Result<()> {
        match self.role.user() {
            Some(own) if own != user => Err(Error::Forbidden),
            Some(_) | None => Ok(()),
        }
    }
}

impl Role {
    /// Whether things of that organization are in sight at all.
    pub(super) fn can_see(&self, org: &OrgId) -> bool {
        self.organization().is_none_or(|it| it == org)
    }
}

/// How a request names an instance or an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedBy {
    /// By its id.
    Id(OrgId),
    /// By a domain. totpd keeps none, so this names nothing.
    Domain,
}

/// Where the caller expects the user to be; elsewhere counts as not there.
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
