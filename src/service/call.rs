//! How every call runs: in one transaction, which verifies the caller first.
//!
//! Knows nothing of what single calls do.

use std::sync::Arc;

use super::access::Principal;
use super::{Caller, Inner, NamedBy, Permission, Service, Target};
use crate::error::{Error, Missing, Result};
use crate::model::{OrgId, Proof, Timestamp, UserId};
use crate::store::{Event, EventKind, ReadKind, ReadTx, TotpRow, UserRow, WriteTx};

/// What every call needs besides its own arguments.
#[derive(Clone)]
pub struct Context {
    /// Who calls.
    pub caller: Caller,
    /// The instance and organization that the call is limited to.
    pub target: Target,
    /// The present moment.
    pub now: Timestamp,
    /// The code that a `self` token needs for some changes, where the setting `self-removal` is `code`. It is not looked at
    /// where none is needed.
    pub proof: Option<Proof>,
}

impl Context {
    /// A call that is not limited to an organization.
    pub fn new(caller: Caller, now: Timestamp) -> Self {
        Self {
            caller,
            target: Target::default(),
            now,
            proof: None,
        }
    }

    /// A call of the command line, which may do everything.
    pub fn command_line(now: Timestamp) -> Self {
        Self::new(Caller::command_line(), now)
    }
}

/// A call within its transaction, after its caller was verified.
pub(super) struct TxContext<'a> {
    pub(super) inner: &'a Inner,
    pub(super) principal: Principal,
    pub(super) target: &'a Target,
    pub(super) now: Timestamp,
    pub(super) proof: Option<&'a Proof>,
}

impl Service {
    /// Runs a change that names no user.
    pub(super) fn change<T: Send + 'static>(
        &self,
        context: &Context,
        permission: Permission,
        change: impl FnOnce(&TxContext<'_>, &WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (inner, context) = (Arc::clone(&self.inner), context.clone());
        self.inner.store.write(context.now, move |tx| {
            let call = inner.authorize(tx, &context, permission)?;
            change(&call, tx)
        })
    }

    /// Runs a change that only an administrator may make.
    pub(super) fn change_as_admin<T: Send + 'static>(
        &self,
        context: &Context,
        change: impl FnOnce(&TxContext<'_>, &WriteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (inner, context) = (Arc::clone(&self.inner), context.clone());
        self.inner.store.write(context.now, move |tx| {
            let call = inner.identify_caller(tx, &context)?;
            call.principal.require_admin()?;
            change(&call, tx)
        })
    }

    /// Runs a change that names a user.
    pub(super) fn change_user<T: Send + 'static>(
        &self,
        context: &Context,
        permission: Permission,
        user: UserId,
        change: impl FnOnce(&TxContext<'_>, &WriteTx<'_>, &UserId) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (inner, context) = (Arc::clone(&self.inner), context.clone());
        self.inner.store.write(context.now, move |tx| {
            let call = inner.authorize(tx, &context, permission)?;
            call.principal.require_user(&user)?;
            change(&call, tx, &user)
        })
    }

    /// Runs a read within the limits on requests.
    pub(super) fn read<T>(
        &self,
        context: &Context,
        kind: ReadKind,
        permission: Permission,
        user: Option<&UserId>,
        read: impl FnOnce(&TxContext<'_>, &ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.inner.store.read_for_request(kind, |tx| {
            if context.caller.needs_clock() {
                // A clock that was set back must not make an expired token valid again.
                tx.require_sane_clock(context.now)?;
            }
            let call = self.inner.authorize(tx, context, permission)?;
            user.map_or(Ok(()), |it| call.principal.require_user(it))?;
            read(&call, tx)
        })
    }

    /// Runs a read that only an administrator may make. It has no time limit.
    pub(super) fn read_as_admin<T>(
        &self,
        context: &Context,
        read: impl FnOnce(&ReadTx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.inner.store.read(|tx| {
            if context.caller.needs_clock() {
                tx.require_sane_clock(context.now)?;
            }
            self.inner
                .identify_caller(tx, context)?
                .principal
                .require_admin()?;
            read(tx)
        })
    }

    /// Returns the refusal of a call whose fields are malformed. A bad token or role takes precedence over `malformed`, as
    /// in every other call.
    pub fn refusal(&self, context: &Context, permission: Permission, malformed: Error) -> Error {
        let judged = match permission {
            Permission::ReadUser | Permission::Search | Permission::ReadEvents => {
                let nothing = |_: &TxContext<'_>, _: &ReadTx<'_>| Ok(());
                self.read(context, ReadKind::ById, permission, None, nothing)
            }
            Permission::Check | Permission::WriteTotp | Permission::WriteUser => {
                self.change(context, permission, |_, _| Ok(()))
            }
        };
        judged.err().unwrap_or(malformed)
    }
}

impl Inner {
    /// Verifies the caller and that its role has this permission.
    fn authorize<'a>(
        &'a self,
        tx: &ReadTx<'_>,
        context: &'a Context,
        permission: Permission,
    ) -> Result<TxContext<'a>> {
        let call = self.identify_caller(tx, context)?;
        call.principal.require_role(permission)?;
        Ok(call)
    }

    /// Verifies the caller's credential. Does not check its role.
    fn identify_caller<'a>(
        &'a self,
        tx: &ReadTx<'_>,
        context: &'a Context,
    ) -> Result<TxContext<'a>> {
        Ok(TxContext {
            inner: self,
            principal: context.caller.identify(tx, context.now)?,
            target: &context.target,
            now: context.now,
            proof: context.proof.as_ref(),
        })
    }
}

impl TxContext<'_> {
    /// Whether the call is meant for this instance.
    pub(super) fn is_for_this_instance(&self) -> bool {
        self.target.is_instance(&self.inner.instance.id)
    }

    /// The organization that the call is limited to, by its target or by the caller's role. `None` means all of them.
    pub(super) fn visible_organization(&self, missing: Missing) -> Result<Option<&OrgId>> {
        let role = &self.principal.role;
        match &self.target.organization {
            _ if !self.is_for_this_instance() => Err(Error::NotFound(missing)),
            None => Ok(role.organization()),
            Some(NamedBy::Id(id)) if role.can_see(id) => Ok(Some(id)),
            Some(NamedBy::Id(_) | NamedBy::Domain) => Err(Error::NotFound(missing)),
        }
    }

    /// The user, if it exists and the caller may see it.
    pub(super) fn visible_user(
        &self,
        tx: &ReadTx<'_>,
        id: &UserId,
        missing: Missing,
    ) -> Result<UserRow> {
        let org = self.visible_organization(missing)?;
        tx.user(org, id)?.ok_or(Error::NotFound(missing))
    }

    /// Appends an event about a user.
    pub(super) fn record(&self, tx: &WriteTx<'_>, kind: EventKind, user: &UserRow) -> Result<()> {
        tx.append(&Event {
            kind,
            source: &self.principal.source,
            org: Some(&user.org),
            user: Some(&user.id),
            about: None,
            name: None,
        })
    }

    /// Appends an event about a user's authenticator.
    pub(super) fn record_totp(
        &self,
        tx: &WriteTx<'_>,
        kind: EventKind,
        user: &UserRow,
        totp: Option<&TotpRow>,
    ) -> Result<()> {
        tx.append(&Event {
            kind,
            source: &self.principal.source,
            org: Some(&user.org),
            user: Some(&user.id),
            about: totp.map(|it| it.id.as_str()),
            name: totp.and_then(|it| it.name.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::model::{Name, TotpId, Window};
    use crate::service::{DataDir, KeyFile, NewToken, NewUser, Role, Settings};

    struct Scene {
        _dir: tempfile::TempDir,
        service: Service,
        operator: Context,
        user: UserId,
        totp: TotpId,
        token_id: crate::model::TokenId,
        /// A call with a manager's token.
        manager: Context,
    }

    fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_seconds(1_795_453_575);
        let settings = Settings {
            issuer: Name::parse("issuer", "Test").unwrap(),
            window: Window::OneEitherSide,
            checkpoints: crate::model::Checkpointer::Own,
            self_removal: crate::model::SelfRemoval::Allow,
        };
        let path = dir.path().join("data");
        let (service, org) = DataDir::create(&path, KeyFile::InDataDir, &settings, now).unwrap();
        let operator = Context::command_line(now);
        let made = service.create_user(&operator, NewUser::default()).unwrap();
        let user: UserId = made.id.parse().unwrap();
        let begun = service.start_totp(&operator, user.clone(), None).unwrap();
        let new = NewToken {
            role: Role::Manager(org),
            name: None,
            lifetime: None,
        };
        let (token_id, token) = service.create_token(&operator, new).unwrap();
        Scene {
            _dir: dir,
            manager: Context::new(Caller::of_token(token.reveal()), now),
            totp: begun.details.id.parse().unwrap(),
            service,
            operator,
            user,
            token_id,
        }
    }

    impl Scene {
        fn removal(&self) -> Result<super::super::Details> {
            let (user, totp) = (self.user.clone(), self.totp.clone());
            self.service.remove_totp(&self.manager, user, totp)
        }

        fn totps(&self) -> usize {
            let user = self.service.user(&self.operator, &self.user);
            user.unwrap().totps.len()
        }
    }

    /// SECURITY.md 28 and 37
    #[test]
    fn a_token_that_is_revoked_while_its_change_waits_is_good_for_nothing() {
        let scene = &scene();
        let (held, is_held) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let sql = "DELETE FROM token WHERE role = 'manager'";
                scene.service.inner.store.run_before_waiting(1, held, sql);
            });
            is_held.recv().unwrap();
            let removal = scene.removal();
            assert!(matches!(removal, Err(Error::BadToken)), "{removal:?}");
        });
        assert_eq!(scene.totps(), 1, "nothing was removed");
    }

    /// SECURITY.md 28: the revocation is not even committed yet.
    #[test]
    fn a_token_that_is_revoked_earlier_in_the_same_commit_is_good_for_nothing() {
        let scene = scene();
        let committed = scene.service.run_batch(|| {
            let id = scene.token_id.clone();
            scene.service.revoke_token(&scene.operator, id).unwrap();
            let removal = scene.removal();
            assert!(matches!(removal, Err(Error::BadToken)), "{removal:?}");
        });
        committed.unwrap();
        assert_eq!(scene.totps(), 1);
    }

    /// The token comes first, then the role, then the fields.
    #[test]
    fn a_malformed_call_is_judged_by_its_token_and_role_first() {
        let scene = scene();
        let refusal = |context, permission| {
            let malformed = Error::invalid("field", "expected another");
            scene.service.refusal(context, permission, malformed)
        };
        let unknown = Context::new(Caller::of_token("unknown"), scene.operator.now);
        let self_token = NewToken {
            role: Role::Own(scene.user.clone()),
            name: None,
            lifetime: None,
        };
        let (_, token) = scene
            .service
            .create_token(&scene.operator, self_token)
            .unwrap();
        let own = Context::new(Caller::of_token(token.reveal()), scene.operator.now);
        for permission in [Permission::ReadUser, Permission::WriteTotp] {
            assert!(matches!(refusal(&unknown, permission), Error::BadToken));
            assert!(matches!(refusal(&own, permission), Error::Invalid { .. }));
        }
        for permission in [
            Permission::Search,
            Permission::ReadEvents,
            Permission::WriteUser,
            Permission::Check,
        ] {
            assert!(matches!(refusal(&unknown, permission), Error::BadToken));
            assert!(matches!(refusal(&own, permission), Error::Forbidden));
        }
    }
}
