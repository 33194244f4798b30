//! The states of a user. Codes of a locked or inactive user are refused.

use super::call::TxContext;
use super::users::details;
use super::{Context, Details, Permission, Service};
use crate::error::{Error, Missing, Result, WrongState};
use crate::model::{UserId, UserState};
use crate::store::{EventKind, UserRow, WriteTx};

/// A change of state, its event, and the error where the user is in none of the states `from`.
struct Change {
    from: &'static [UserState],
    to: UserState,
    kind: EventKind,
    missing: Missing,
}

const LOCK: Change = Change {
    from: &[UserState::Active, UserState::Inactive],
    to: UserState::Locked,
    kind: EventKind::UserLocked,
    missing: Missing::UserToLock,
};
const DEACTIVATE: Change = Change {
    from: &[UserState::Active],
    to: UserState::Inactive,
    kind: EventKind::UserDeactivated,
    missing: Missing::UserToDeactivate,
};
const ACTIVATE: Change = Change {
    from: &[UserState::Inactive],
    to: UserState::Active,
    kind: EventKind::UserActivated,
    missing: Missing::UserToActivate,
};

impl Service {
    /// Locks an active or inactive user: its codes are refused until it is unlocked.
    pub fn lock_user(&self, context: &Context, user: UserId) -> Result<Details> {
        self.change_state(context, user, &LOCK)
    }

    /// Deactivates an active user: its codes are refused until it is activated.
    pub fn deactivate_user(&self, context: &Context, user: UserId) -> Result<Details> {
        self.change_state(context, user, &DEACTIVATE)
    }

    /// Activates an inactive user.
    pub fn activate_user(&self, context: &Context, user: UserId) -> Result<Details> {
        self.change_state(context, user, &ACTIVATE)
    }

    /// Makes a locked user active. Also ends the wait after wrong codes, of an active user too.
    pub fn unlock_user(&self, context: &Context, user: UserId) -> Result<Details> {
        self.change_user(context, Permission::WriteUser, user, |call, tx, user| {
            let user = call.visible_user(tx, user, Missing::UserToUnlock)?;
            let unlocked = tx.change_state(&user, &[UserState::Locked], UserState::Active)?;
            let cleared = tx.clear_failures(&user.id)?;
            if unlocked || cleared {
                call.record(tx, EventKind::UserUnlocked, &user)?;
            }
            Ok(after(tx, &user, unlocked))
        })
    }

    fn change_state(
        &self,
        context: &Context,
        user: UserId,
        change: &'static Change,
    ) -> Result<Details> {
        self.change_user(context, Permission::WriteUser, user, |call, tx, user| {
            let user = call.visible_user(tx, user, change.missing)?;
            if !tx.change_state(&user, change.from, change.to)? {
                return Err(Error::NotFound(change.missing));
            }
            if change.to != UserState::Active {
                tx.void_invitations(Some(&user.id))?;
            }
            call.record(tx, change.kind, &user)?;
            Ok(after(tx, &user, true))
        })
    }
}

impl TxContext<'_> {
    /// Refuses an enrolment by the `self` token of a locked or inactive user. A manager can still enrol for such a user.
    pub(super) fn require_may_enrol(&self, user: &UserRow) -> Result<()> {
        if self.principal.role.user().is_some() && user.state != UserState::Active {
            return Err(Error::WrongState(WrongState::UserNotActive));
        }
        Ok(())
    }
}

fn after(tx: &WriteTx<'_>, user: &UserRow, has_changed: bool) -> Details {
    let mut details = details(user);
    if has_changed {
        details.changed = tx.event_at();
    }
    details
}
