//! The states of a user: who is locked or inactive checks nothing.

use super::access::Act;
use super::users::{append, details};
use super::{Caller, Details, Expect, Inner, Service};
use crate::error::{Error, Missing, Result, Unfit};
use crate::model::{Timestamp, UserId, UserState};
use crate::store::{Kind, UserRow, WriteTx};

/// A change of state: from which states to which, its event, and what is missing where it does not apply.
struct Change {
    from: &'static [UserState],
    to: UserState,
    kind: Kind,
    missing: Missing,
}

const LOCK: Change = Change {
    from: &[UserState::Active, UserState::Inactive],
    to: UserState::Locked,
    kind: Kind::UserLocked,
    missing: Missing::UserToLock,
};
const DEACTIVATE: Change = Change {
    from: &[UserState::Active],
    to: UserState::Inactive,
    kind: Kind::UserDeactivated,
    missing: Missing::UserToDeactivate,
};
const ACTIVATE: Change = Change {
    from: &[UserState::Inactive],
    to: UserState::Active,
    kind: Kind::UserActivated,
    missing: Missing::UserToActivate,
};

impl Service {
    /// Locks a user that is not locked: it checks nothing until it is unlocked.
    pub fn lock_user(
        &self,
        caller: &Caller,
        expect: &Expect,
        id: &UserId,
        now: Timestamp,
    ) -> Result<Details> {
        self.change(caller, expect, id, now, &LOCK)
    }

    /// Deactivates an active user: it checks nothing until it is activated.
    pub fn deactivate_user(
        &self,
        caller: &Caller,
        expect: &Expect,
        id: &UserId,
        now: Timestamp,
    ) -> Result<Details> {
        self.change(caller, expect, id, now, &DEACTIVATE)
    }

    /// Activates an inactive user.
    pub fn activate_user(
        &self,
        caller: &Caller,
        expect: &Expect,
        id: &UserId,
        now: Timestamp,
    ) -> Result<Details> {
        self.change(caller, expect, id, now, &ACTIVATE)
    }

    /// Makes a locked user active, and ends its wait.
    pub fn unlock_user(
        &self,
        caller: &Caller,
        expect: &Expect,
        id: &UserId,
        now: Timestamp,
    ) -> Result<Details> {
        caller.require(Act::WriteUser, Some(id))?;
        let (inner, caller, expect) = (self.inner.clone(), caller.clone(), expect.clone());
        let id = id.clone();
        self.inner.store.write(now, move |tx| {
            let user = inner.user_in_sight(tx, &caller, &expect, &id, Missing::UserToUnlock)?;
            let unlocked = tx.change_state(&user.id, &[UserState::Locked], UserState::Active)?;
            let cleared = tx.clear_failures(&user.id)?;
            if unlocked || cleared {
                append(tx, Kind::UserUnlocked, &caller, &user)?;
            }
            Ok(after(tx, &user, unlocked))
        })
    }

    fn change(
        &self,
        caller: &Caller,
        expect: &Expect,
        id: &UserId,
        now: Timestamp,
        change: &'static Change,
    ) -> Result<Details> {
        caller.require(Act::WriteUser, Some(id))?;
        let (inner, caller, expect) = (self.inner.clone(), caller.clone(), expect.clone());
        let id = id.clone();
        self.inner.store.write(now, move |tx| {
            let user = inner.user_in_sight(tx, &caller, &expect, &id, change.missing)?;
            if !tx.change_state(&user.id, change.from, change.to)? {
                return Err(Error::NotFound(change.missing));
            }
            append(tx, change.kind, &caller, &user)?;
            Ok(after(tx, &user, true))
        })
    }
}

impl Inner {
    /// Whoever is locked or inactive cannot enrol by its own token; a manager can enrol for it.
    pub(super) fn require_fit_to_enrol(caller: &Caller, user: &UserRow) -> Result<()> {
        if caller.power.user().is_some() && user.state != UserState::Active {
            return Err(Error::Unfit(Unfit::UserNotActive));
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
