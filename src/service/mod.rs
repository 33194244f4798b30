//! The calls of the API, each authorized and carried out in one transaction. Programs that need no HTTP embed [`Service`].
//!
//! Knows no statuses, JSON or SQL, and reads no clock: `now` is an argument. See `examples/embed.rs`.

mod access;
mod backup;
mod call;
mod clock;
mod clock_fix;
mod codes;
mod data_dir;
mod doctor;
mod events;
mod export;
mod find;
mod import;
mod invitations;
mod keys;
#[cfg(feature = "server")]
mod observe;
mod organizations;
mod proof;
mod readiness;
mod recovery;
mod replacement;
mod resync;
mod rotation;
mod search;
mod settings;
mod states;
mod tidy;
mod tokens;
mod totps;
mod users;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use access::{Caller, NamedBy, Permission, Role, Target};
pub use backup::{BackupSummary, RestoreOptions, Restored};
pub use call::Context;
pub use clock_fix::ClockFixSummary;
pub use codes::Verdict;
pub use data_dir::{DataDir, GivenKey, KeyFile};
pub use doctor::{Finding, Level};
pub use events::RecordedEvent;
pub use export::{ExportPart, ExportedTotp, ExportedUser};
pub use find::{FoundUser, UserSelector};
pub use import::{
    ImportOptions, ImportOutcome, ImportRefusal, ImportRow, ImportTotp, ImportUser, Importer,
};
pub use invitations::{INVITATION_LIFETIME, Invitation, RedeemedInvitation};
pub use recovery::{NewRecoveryCodes, RecoveryVerdict, RemainingRecoveryCodes};
pub use rotation::KeyRotation;
pub use search::SearchSummary;
pub use settings::{Settings, SettingsChange};
pub use tokens::{NewToken, Token};
pub use totps::Enrolment;
pub use users::{NewUser, NewUsername, Totp, User, Username};

pub use crate::model::UserState as State;

use clock::ClockWatch;
use keys::CurrentKeys;

use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId, Timestamp};
pub use crate::store::ReapplyCounts;
use crate::store::{
    Event, EventKind, Instance, Organization, ReadKind, Store, StoreOptions, WriteTx,
};
use readiness::Readiness;

/// Options for [`Service::open_with`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The most changes that share a commit. With 1 every change waits for its own sync, which is useful for comparison only.
    pub commit_batch: usize,
    /// The time limit of [`Service::user`] and [`Service::search_users`], including their wait for a connection. Reads that
    /// only an administrator may make have no limit.
    pub read_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_batch: COMMIT_BATCH,
            read_timeout: READ_TIMEOUT,
        }
    }
}

/// The default of [`Options::commit_batch`]: large enough that the sync is a small part of the time, small enough that no
/// change waits long.
pub const COMMIT_BATCH: usize = 128;
/// The default of [`Options::read_timeout`]: far longer than a read that uses an index.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server's start waits for readers that keep the WAL from being emptied.
const START_WAIT: Duration = Duration::from_secs(5);
/// The same at a stop. Together with the 8 s of `--stop-timeout` it stays below the 10 s after which containers kill.
const STOP_WAIT: Duration = Duration::from_millis(1_500);
/// The most organizations in one list.
const MAX_LISTED: u32 = 10_000;

/// The common fields of users and authenticators: `zitadel.resources.object.v3alpha.Details`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The id.
    pub id: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub changed: Timestamp,
    /// The organization it belongs to.
    pub owner: OrgId,
}

/// The second factors of the users of one data directory.
///
/// Clones share one database and may be used from any thread.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

/// The state that all clones share.
struct Inner {
    store: Store,
    keys: CurrentKeys,
    instance: Instance,
    clock_watch: Mutex<ClockWatch>,
    readiness: Arc<Readiness>,
    /// The time of the newest event before this process started, or the last time before the clock was doubted.
    last_known_time: Timestamp,
    /// Holds the directory's lock, so that no restore replaces the open database.
    dir: DataDir,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Beside a server the WAL is the server's to empty.
        if !self.dir.is_served_by_another()
            && let Err(error) = self.store.truncate_wal(Duration::ZERO)
        {
            log::warn!("emptying the WAL: {error:?}");
        }
    }
}

/// Whether this thread is in a write transaction. Nothing is logged there, because a log that blocks would hold up every
/// other change; a logger can assert that.
pub fn is_in_write_transaction() -> bool {
    crate::store::is_in_transaction()
}

impl Service {
    /// Opens an initialised data directory.
    pub fn open(dir: DataDir) -> Result<Self> {
        Self::open_with(dir, &Options::default())
    }

    /// Opens an initialised data directory with options.
    pub fn open_with(dir: DataDir, options: &Options) -> Result<Self> {
        dir.require_key()?;
        let store_options = StoreOptions {
            commit_batch: options.commit_batch.max(1),
            read_timeout: options.read_timeout,
            expects_litestream: dir.expects_litestream,
        };
        dir.remove_unfinished()?;
        let open = || Store::open(&dir.database(), &store_options);
        let store = if Store::needs_upgrade(&dir.database())? {
            // An older totpd would go on with statements of a version that is no more.
            dir.upgrade_exclusive(open)?
        } else {
            open()?
        };
        empty_old_wal(&dir, &store)?;
        let (instance, key_ids, last_known_time) = store.read(|tx| {
            let doubted_from = tx.clock_trust()?.doubted_from;
            Ok((
                tx.instance()?,
                tx.key_ids()?,
                doubted_from.unwrap_or(tx.newest_event_at()?),
            ))
        })?;
        let keys = CurrentKeys::new(dir.key_ring(key_ids)?);
        dir.announce_keys()?;
        let inner = Inner {
            store,
            keys,
            instance,
            clock_watch: Mutex::default(),
            readiness: Readiness::new(),
            last_known_time,
            dir,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The instance's id.
    pub fn instance_id(&self) -> &str {
        &self.inner.instance.id
    }

    /// The role of a bearer token that is neither unknown, expired nor revoked. For display only: every call verifies its
    /// caller again.
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Role> {
        let caller = Caller::of_token(token);
        let principal = self.inner.store.read_for_request(ReadKind::ById, |tx| {
            tx.require_sane_clock(now)?;
            caller.identify(tx, now)
        })?;
        Ok(principal.role)
    }

    /// Runs `calls`, whose changes on this thread share one commit. What they return holds only once this has returned `Ok`;
    /// after an error nothing was changed. Do not call [`Self::ready`] in here: its probe would wait for this commit.
    pub fn run_batch(&self, calls: impl FnOnce()) -> Result<()> {
        self.inner.store.run_batch(calls)
    }

    /// Fails unless a read and a committed write work. Callers share the result of one probe, and wait for it for at most a
    /// second.
    pub fn ready(&self, now: Timestamp) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let probe = move || {
            let read = inner.store.read(|tx| {
                tx.require_structure()?;
                tx.instance().map(|_| ())
            });
            let both = read.and_then(|()| inner.store.write(now, |tx| tx.probe()));
            if let Err(error) = &both {
                log::warn!("not ready: {error:?}");
            }
            both.is_ok()
        };
        match self.inner.readiness.is_ready(probe) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Unavailable("not ready".to_owned())),
            Err(error) => Err(Error::Unavailable(format!("no thread: {error}"))),
        }
    }

    /// Checkpoints the WAL and truncates it, so that it holds no removed secret. The service does this by itself within 60 s
    /// of the last write. Fails if a reader keeps the database open for too long. Does nothing where the settings leave the
    /// WAL to Litestream.
    pub fn truncate_wal(&self) -> Result<()> {
        self.inner.store.truncate_wal(STOP_WAIT)
    }

    /// Refuses further changes and empties the WAL. Call it last, before the program ends. If it fails, removed secrets may
    /// still be in the WAL.
    pub fn stop(&self) -> Result<()> {
        self.inner.store.refuse_changes();
        self.truncate_wal().map_err(|error| {
            if let Error::Unavailable(why) = error {
                Error::Unavailable(format!("what was removed may still be in the WAL: {why}"))
            } else {
                error
            }
        })
    }

    /// Creates an organization.
    pub fn create_organization(&self, context: &Context, name: Name) -> Result<OrgId> {
        self.change_as_admin(context, move |call, tx| {
            let organization = Organization {
                id: OrgId::from_trusted(tx.new_id()?),
                name,
            };
            tx.insert_organization(&organization)?;
            tx.append(&Event {
                kind: EventKind::OrganizationCreated,
                source: &call.principal.source,
                org: Some(&organization.id),
                user: None,
                about: Some(organization.id.as_str()),
                name: Some(&organization.name),
            })?;
            Ok(organization.id)
        })
    }

    /// All organizations, oldest first.
    pub fn organizations(&self, context: &Context) -> Result<Vec<(OrgId, Name)>> {
        let rows = self.read_as_admin(context, |tx| tx.organizations(MAX_LISTED))?;
        Ok(rows.into_iter().map(|it| (it.id, it.name)).collect())
    }
}

/// Empties the WAL that a crash or an upgrade left. A server does not start with removed secrets in it; a command runs
/// all the same.
fn empty_old_wal(dir: &DataDir, store: &Store) -> Result<()> {
    if dir.is_server() {
        return store.truncate_wal(START_WAIT);
    }
    if !dir.is_served_by_another()
        && let Err(error) = store.truncate_wal(Duration::ZERO)
    {
        log::warn!("emptying the WAL: {error:?}");
    }
    Ok(())
}

impl Inner {
    /// Returns the id if such an organization exists.
    fn require_organization(tx: &WriteTx<'_>, id: OrgId) -> Result<OrgId> {
        if tx.organization_exists(&id)? {
            Ok(id)
        } else {
            Err(Error::NotFound(Missing::Organization))
        }
    }
}
