//! Who may do what, and what is in whose sight.
//!
//! "May never" is [`Error::Forbidden`] and is judged before anything is looked up; "not in sight" is the
//! same as "not there" and is judged on the row.

use std::net::IpAddr;

use crate::error::{Error, Missing, Result};
use crate::model::{OrgId, UserId};
use crate::store::{ReadTx, Source, TokenRow, UserRow};

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// Everything, on the whole instance.
    Admin,
    /// Users and their authenticators of one organization.
    Manager(OrgId),
    /// Checking codes, of one organization's users or of everyone's.
    Checker(Option<OrgId>),
    /// Reading one user, and enrolling and removing that user's authenticators.
    Own(UserId),
}

impl Power {
    /// The role's name.
    pub const fn role(&self) -> &'static str {
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

/// Who calls, and from where.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) power: Power,
    pub(super) source: Source,
}

/// What a call does, as far as rights tell calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
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
    pub fn command_line() -> Self {
        Self {
            power: Power::Admin,
            source: Source::command_line(),
        }
    }

    /// The same caller, seen coming from this address.
    #[must_use]
    pub fn from_peer(mut self, peer: Option<IpAddr>) -> Self {
        self.source.peer = peer;
        self
    }

    /// Refuses what no caller of this role can ever do, whatever the call names. It is judged before the call's fields.
    pub fn require_role(&self, act: Act) -> Result<()> {
        let may = match &self.power {
            Power::Admin | Power::Manager(_) => true,
            Power::Checker(_) => act == Act::Check,
            Power::Own(_) => matches!(act, Act::ReadUser | Act::WriteTotp),
        };
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Refuses what this caller can never do, whether or not `user` exists.
    pub(super) fn require(&self, act: Act, user: Option<&UserId>) -> Result<()> {
        self.require_role(act)?;
        match self.power.user() {
            Some(own) if user != Some(own) => Err(Error::Forbidden),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn require_admin(&self) -> Result<()> {
        if self.power == Power::Admin {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    /// Whether things of that organization are in sight at all.
    pub(super) fn sees(&self, org: &OrgId) -> bool {
        self.power.organization().is_none_or(|it| it == org)
    }
}

/// How a request names an instance or an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By its id.
    Id(OrgId),
    /// By a domain. totpd keeps none, so this names nothing.
    Domain,
}

/// Where the caller expects the user to be; elsewhere counts as not there.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// The instance of the call, if it names one.
    pub instance: Option<Named>,
    /// The organization of the call, if it names one.
    pub organization: Option<Named>,
}

impl Expect {
    pub(super) fn instance_is(&self, id: &str) -> bool {
        match &self.instance {
            None => true,
            Some(Named::Id(expected)) => expected.as_str() == id,
            Some(Named::Domain) => false,
        }
    }
}

impl super::Inner {
    /// The one organization in which the caller looks and may look, or none where that is all of them.
    pub(super) fn sight<'a>(
        &self,
        caller: &'a Caller,
        expect: &'a Expect,
        missing: Missing,
    ) -> Result<Option<&'a OrgId>> {
        match &expect.organization {
            _ if !expect.instance_is(&self.instance.id) => Err(Error::NotFound(missing)),
            None => Ok(caller.power.organization()),
            Some(Named::Id(id)) if caller.sees(id) => Ok(Some(id)),
            Some(Named::Id(_) | Named::Domain) => Err(Error::NotFound(missing)),
        }
    }

    /// The user, if it exists where the caller looks and may look.
    pub(super) fn user_in_sight(
        &self,
        tx: &ReadTx<'_>,
        caller: &Caller,
        expect: &Expect,
        id: &UserId,
        missing: Missing,
    ) -> Result<UserRow> {
        let org = self.sight(caller, expect, missing)?;
        tx.user(id)?
            .filter(|it| org.is_none_or(|org| *org == it.org))
            .ok_or(Error::NotFound(missing))
    }
}
