//! Events: one row for every change of state, written in the same transaction as the change.

use std::net::IpAddr;

use super::{ReadTx, WriteTx};
use crate::error::Result;
use crate::model::{Name, OrgId, RequestId, Timestamp, UserId};

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    InstanceCreated,
    InstanceRestored,
    InstanceRestoredWithLoss,
    InstanceBackedUp,
    ClockConfirmed,
    KeyRotationStarted,
    KeyRotated,
    OrganizationCreated,
    OrganizationRenamed,
    OrganizationRemoved,
    IssuerChanged,
    WindowChanged,
    CheckpointsChanged,
    SelfRemovalChanged,
    UserCreated,
    UserRemoved,
    UserLocked,
    UserUnlocked,
    UserDeactivated,
    UserActivated,
    TotpStarted,
    TotpImported,
    TotpsExported,
    TotpConfirmed,
    TotpRenamed,
    TotpChecked,
    TotpResynced,
    TotpRemoved,
    TotpExpired,
    CodeRefused,
    RecoveryGenerated,
    RecoveryRemoved,
    RecoveryChecked,
    RecoveryRefused,
    InvitationCreated,
    InvitationRedeemed,
    InvitationRevoked,
    TokenCreated,
    TokenRevoked,
}

impl EventKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 39] = [
        Self::InstanceCreated,
        Self::InstanceRestored,
        Self::InstanceRestoredWithLoss,
        Self::InstanceBackedUp,
        Self::ClockConfirmed,
        Self::KeyRotationStarted,
        Self::KeyRotated,
        Self::OrganizationCreated,
        Self::OrganizationRenamed,
        Self::OrganizationRemoved,
        Self::IssuerChanged,
        Self::WindowChanged,
        Self::CheckpointsChanged,
        Self::SelfRemovalChanged,
        Self::UserCreated,
        Self::UserRemoved,
        Self::UserLocked,
        Self::UserUnlocked,
        Self::UserDeactivated,
        Self::UserActivated,
        Self::TotpStarted,
        Self::TotpImported,
        Self::TotpsExported,
        Self::TotpConfirmed,
        Self::TotpRenamed,
        Self::TotpChecked,
        Self::TotpResynced,
        Self::TotpRemoved,
        Self::TotpExpired,
        Self::CodeRefused,
        Self::RecoveryGenerated,
        Self::RecoveryRemoved,
        Self::RecoveryChecked,
        Self::RecoveryRefused,
        Self::InvitationCreated,
        Self::InvitationRedeemed,
        Self::InvitationRevoked,
        Self::TokenCreated,
        Self::TokenRevoked,
    ];

    /// The name of the kind, in the database and in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::InstanceCreated => "instance.created",
            Self::InstanceRestored => "instance.restored",
            Self::InstanceRestoredWithLoss => "instance.restored_with_loss",
            Self::InstanceBackedUp => "instance.backed_up",
            Self::ClockConfirmed => "instance.clock_confirmed",
            Self::KeyRotationStarted => "instance.key_rotation_started",
            Self::KeyRotated => "instance.key_rotated",
            Self::OrganizationCreated => "organization.created",
            Self::OrganizationRenamed => "organization.renamed",
            Self::OrganizationRemoved => "organization.removed",
            Self::IssuerChanged => "settings.issuer_changed",
            Self::WindowChanged => "settings.window_changed",
            Self::CheckpointsChanged => "settings.checkpoints_changed",
            Self::SelfRemovalChanged => "settings.self_removal_changed",
            Self::UserCreated => "user.created",
            Self::UserRemoved => "user.removed",
            Self::UserLocked => "user.locked",
            Self::UserUnlocked => "user.unlocked",
            Self::UserDeactivated => "user.deactivated",
            Self::UserActivated => "user.activated",
            Self::TotpStarted => "totp.started",
            Self::TotpImported => "totp.imported",
            Self::TotpsExported => "totp.exported",
            Self::TotpConfirmed => "totp.confirmed",
            Self::TotpRenamed => "totp.renamed",
            Self::TotpChecked => "totp.checked",
            Self::TotpResynced => "totp.resynced",
            Self::TotpRemoved => "totp.removed",
            Self::TotpExpired => "totp.expired",
            Self::CodeRefused => "totp.code_refused",
            Self::RecoveryGenerated => "recovery.generated",
            Self::RecoveryRemoved => "recovery.removed",
            Self::RecoveryChecked => "recovery.checked",
            Self::RecoveryRefused => "recovery.code_refused",
            Self::InvitationCreated => "invitation.created",
            Self::InvitationRedeemed => "invitation.redeemed",
            Self::InvitationRevoked => "invitation.revoked",
            Self::TokenCreated => "token.created",
            Self::TokenRevoked => "token.revoked",
        }
    }
}

/// Who made the change, and from where.
#[derive(Debug, Clone)]
pub(crate) struct EventSource {
    /// A token's id, `command-line`, or `totpd` for what totpd does by itself.
    pub(crate) actor: String,
    /// The address that the request came from.
    pub(crate) peer: Option<IpAddr>,
    /// The request, if it was one.
    pub(crate) request_id: Option<RequestId>,
}

impl EventSource {
    /// The command line. It needs no token, since its user can open the data directory.
    pub(crate) fn command_line() -> Self {
        Self {
            actor: "command-line".to_owned(),
            peer: None,
            request_id: None,
        }
    }

    /// totpd itself, for changes that no caller asked for.
    pub(crate) fn totpd() -> Self {
        Self {
            actor: "totpd".to_owned(),
            peer: None,
            request_id: None,
        }
    }
}

/// An event to append. Its time is the transaction's.
pub(crate) struct Event<'a> {
    pub(crate) kind: EventKind,
    pub(crate) source: &'a EventSource,
    pub(crate) org: Option<&'a OrgId>,
    pub(crate) user: Option<&'a UserId>,
    /// The authenticator, set of recovery codes, token or organization that it is about.
    pub(crate) about: Option<&'a str>,
    /// The name of that, at this time.
    pub(crate) name: Option<&'a Name>,
}

impl ReadTx<'_> {
    /// The time of the newest event. Times never decrease, so the event with the highest id is the newest.
    pub(crate) fn newest_event_at(&self) -> Result<Timestamp> {
        const SQL: &str = "SELECT at FROM event ORDER BY id DESC LIMIT 1";
        let at = self.one(SQL, (), |row| row.get(0).map(Timestamp::from_micros))?;
        Ok(at.unwrap_or(Timestamp::NEVER))
    }
}

impl WriteTx<'_> {
    pub(crate) fn append(&self, event: &Event<'_>) -> Result<()> {
        const SQL: &str =
            "INSERT INTO event (at, kind, actor, peer, org_id, user_id, about_id, request_id, about_name)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let row = (
            self.event_at().micros(),
            event.kind.as_str(),
            &event.source.actor,
            event.source.peer.map(|it| it.to_string()),
            event.org.map(OrgId::as_str),
            event.user.map(UserId::as_str),
            event.about,
            event.source.request_id.as_ref().map(RequestId::as_str),
            event.name.map(Name::as_str),
        );
        self.execute(SQL, row)?;
        self.events.note(event.kind);
        self.doubt_clock_after_gap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that the list leaves out is not counted.
    #[test]
    fn the_list_of_kinds_has_each_of_them() {
        let named = include_str!("events.rs").matches(" => \"").count();
        assert_eq!(EventKind::ALL.len(), named);
    }
}
