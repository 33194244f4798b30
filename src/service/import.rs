//! Imports authenticators that were confirmed elsewhere, in small transactions beside other calls (SECURITY.md 24, 39).
//!
//! Knows no formats: its rows come from the caller, which has read them.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::call::TxContext;
use super::replacement::{MAX_TOTPS, pending_to_give_way, remove_pending};
use super::users::insert_user;
use super::{Caller, Context, NamedBy, NewUser, NewUsername, Service, Target};
use crate::error::{Error, Result};
use crate::model::{Clock, Drift, Name, OrgId, Timestamp, TotpId, UserId, UserState, fold};
use crate::store::{EventKind, TotpRow, TotpState, UserRow, UsernameRow, WriteTx};
use crate::totp::{Parameters, Secret};

/// The most rows of one transaction.
const SLICE: usize = 1_000;
/// No row is begun in a transaction that has lasted this long.
const SLICE_TIME: Duration = Duration::from_millis(50);
/// How often a transaction is tried again that did not get the database's lock.
const TRIES: u32 = 10;

/// A user, and an authenticator of it if there is one.
pub struct ImportRow {
    /// Whose it is.
    pub user: ImportUser,
    /// The authenticator. `None`: the user has none.
    pub totp: Option<ImportTotp>,
}

/// A user of an import. It is found by its id if it has one, else by its first username; if there is none such, it is
/// created.
#[derive(Clone)]
pub struct ImportUser {
    /// The id.
    pub id: Option<UserId>,
    /// The usernames.
    pub usernames: Vec<NewUsername>,
    /// The state of a user that is created.
    pub state: UserState,
    /// The schema of `data`.
    pub schema_id: Option<Name>,
    /// A JSON object, for a user that is created.
    pub data: Option<String>,
}

/// An authenticator of an import.
pub struct ImportTotp {
    /// The secret.
    pub secret: Secret,
    /// How its codes are computed.
    pub parameters: Parameters,
    /// Its name.
    pub name: Option<Name>,
    /// How far its clock is off, if that is known.
    pub drift: Drift,
    /// When it was created elsewhere. `None` or in the future: now.
    pub created: Option<Timestamp>,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    /// It was imported.
    Imported {
        /// Whether its user was created.
        has_created_user: bool,
        /// Whether it had an authenticator.
        has_totp: bool,
    },
    /// The user has this authenticator already.
    AlreadyThere,
    /// It was not imported.
    Refused(ImportRefusal),
}

/// Why a row was not imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportRefusal {
    /// Neither an id nor a username.
    NoUser,
    /// The user is in another organization.
    OtherOrganization,
    /// Users in several organizations have this username.
    SeveralOrganizations,
    /// The username is one user's username and another's, or another one's id.
    Ambiguous,
    /// The row's id is unknown, and its username is another user's.
    UsernameTaken,
    /// The user has ten authenticators.
    TooMany,
    /// The user has an authenticator with this secret and other parameters.
    OtherParameters,
}

impl fmt::Display for ImportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUser => "it names no user",
            Self::OtherOrganization => "its user is in another organization; --org ID names one",
            Self::SeveralOrganizations => {
                "users of several organizations have this name; --org ID names one"
            }
            Self::Ambiguous => "its username means more than one user, by id or by username",
            Self::UsernameTaken => "its username belongs to a user with another id",
            Self::TooMany => "its user has ten authenticators already",
            Self::OtherParameters => {
                "its user has an authenticator with this secret and other parameters already"
            }
        })
    }
}

/// How rows are imported.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The organization of all users. `None`: the first one.
    pub organization: Option<OrgId>,
    /// Whether nothing is kept.
    pub is_dry_run: bool,
}

/// An import in progress. Each call of [`Self::import`] takes some rows.
///
/// It may end at any row, and be done again from the first one: what is there is not imported twice.
pub struct Importer<'a> {
    service: &'a Service,
    caller: Caller,
    clock: Clock,
    options: ImportOptions,
    /// For a dry run, what earlier rows would have brought.
    seen: Arc<Mutex<Seen>>,
}

impl Service {
    /// Begins an import. Only an administrator may do that; each transaction judges it again.
    ///
    /// No code of an imported authenticator is good up to the step of the import: it may have been used elsewhere.
    pub fn importer(&self, caller: Caller, clock: Clock, options: ImportOptions) -> Importer<'_> {
        Importer {
            service: self,
            caller,
            clock,
            options,
            seen: Arc::default(),
        }
    }
}

impl Importer<'_> {
    /// Imports rows in small transactions, and sleeps after each for as long as it took, so that other changes get half of
    /// the time: SQLite's lock is not fair. Returns what happened to each row.
    pub fn import(&mut self, rows: Vec<ImportRow>) -> Result<Vec<ImportOutcome>> {
        let (rows, store) = (Arc::new(rows), &self.service.inner.store);
        let (mut outcomes, mut tries) = (Vec::with_capacity(rows.len()), 0_u32);
        while outcomes.len() < rows.len() {
            let begun = Instant::now();
            match self.import_slice(Arc::clone(&rows), outcomes.len()) {
                Ok(some) => {
                    outcomes.extend(some);
                    tries = 0;
                    store.limit_wal()?;
                }
                // Beside a busy server the lock may be taken for longer than a statement waits.
                Err(Error::Unavailable(_)) if tries < TRIES => tries = tries.saturating_add(1),
                Err(error) => return Err(error),
            }
            thread::sleep(begun.elapsed());
        }
        Ok(outcomes)
    }

    /// Imports some of the rows from `done` on in one transaction, at least one.
    fn import_slice(&self, rows: Arc<Vec<ImportRow>>, done: usize) -> Result<Vec<ImportOutcome>> {
        let mut context = Context::new(self.caller.clone(), (self.clock)());
        context.target = Target {
            organization: self.options.organization.clone().map(NamedBy::Id),
            ..Target::default()
        };
        let (is_dry_run, seen) = (self.options.is_dry_run, Arc::clone(&self.seen));
        let dry_outcomes = Arc::new(Mutex::new(Vec::new()));
        let dry = Arc::clone(&dry_outcomes);
        let written = self.service.change_as_admin(&context, move |call, tx| {
            let begun = Instant::now();
            let org = call.organization_for_new(tx)?;
            let mut outcomes = Vec::new();
            for row in rows.iter().skip(done).take(SLICE) {
                let outcome = import_row(call, tx, &org, row)?;
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes.push(if is_dry_run {
                    seen.judge(row, outcome)
                } else {
                    outcome
                });
                if begun.elapsed() >= SLICE_TIME {
                    break;
                }
            }
            if is_dry_run {
                *dry.lock().unwrap_or_else(PoisonError::into_inner) = outcomes;
                // An error undoes the transaction.
                return Err(Error::Bug(DRY_RUN.to_owned()));
            }
            Ok(outcomes)
        });
        match written {
            Err(Error::Bug(why)) if is_dry_run && why == DRY_RUN => {
                let mut outcomes = dry_outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(std::mem::take(&mut *outcomes))
            }
            other => other,
        }
    }
}

/// The error that ends a transaction of which nothing is to be kept.
const DRY_RUN: &str = "a dry run keeps nothing";

/// What the rows of a dry run would have brought, as digests of eight bytes.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    digests: HashSet<u64>,
}

impl Seen {
    /// What would have happened to a row, had those before it been kept.
    fn judge(&mut self, row: &ImportRow, outcome: ImportOutcome) -> ImportOutcome {
        let Some(totp) = row
            .totp
            .as_ref()
            .filter(|_| !matches!(outcome, ImportOutcome::Refused(_)))
        else {
            return outcome;
        };
        let user = match (&row.user.id, row.user.usernames.first()) {
            (Some(id), _) => (true, id.as_str().to_owned()),
            (None, Some(it)) => (false, fold(it.username.as_str())),
            (None, None) => return outcome,
        };
        let digest = self.hasher.hash_one((&user, key_of(&totp.secret)));
        if !self.digests.insert(digest) {
            return ImportOutcome::AlreadyThere;
        }
        if outcome == ImportOutcome::AlreadyThere {
            return outcome;
        }
        let mut before = (0..MAX_TOTPS).map(|it| self.hasher.hash_one((&user, it)));
        let ImportOutcome::Imported { has_totp, .. } = outcome else {
            return outcome;
        };
        match before.position(|it| self.digests.insert(it)) {
            None => ImportOutcome::Refused(ImportRefusal::TooMany),
            Some(0) => outcome,
            Some(_) => ImportOutcome::Imported {
                has_created_user: false,
                has_totp,
            },
        }
    }
}

/// The secret as HMAC takes it: zeros at its end change no code (RFC 2104 §2).
fn key_of(secret: &Secret) -> &[u8] {
    let bytes = secret.bytes();
    let zeros = bytes.iter().rev().take_while(|it| **it == 0).count();
    bytes
        .get(..bytes.len().saturating_sub(zeros))
        .unwrap_or_default()
}

/// Imports one row, or says why not. Nothing is changed where it is refused.
fn import_row(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    org: &OrgId,
    row: &ImportRow,
) -> Result<ImportOutcome> {
    let found = match find_user(call, tx, org, &row.user)? {
        Ok(found) => found,
        Err(refusal) => return Ok(ImportOutcome::Refused(refusal)),
    };
    let Some(new) = &row.totp else {
        if found.is_some() {
            return Ok(ImportOutcome::AlreadyThere);
        }
        create_user(call, tx, org, &row.user)?;
        return Ok(ImportOutcome::Imported {
            has_created_user: true,
            has_totp: false,
        });
    };
    let (user, has_created_user) = match found {
        Some(user) => {
            if let Some(outcome) = make_way(call, tx, &user, new)? {
                return Ok(outcome);
            }
            (user, false)
        }
        None => (create_user(call, tx, org, &row.user)?, true),
    };
    insert_totp(call, tx, &user, new)?;
    Ok(ImportOutcome::Imported {
        has_created_user,
        has_totp: true,
    })
}

/// Removes the pending authenticators of a user that give way to `new`, or says why it is not imported.
///
/// A pending one with the same secret is among them: once that was confirmed, each code would be good twice.
fn make_way(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    user: &UserRow,
    new: &ImportTotp,
) -> Result<Option<ImportOutcome>> {
    let mut totps = tx.totps(user, call.now)?;
    let same = find_same(call, tx, user, &totps, new)?;
    let same = same.map(|it| totps.remove(it));
    if let Some(same) = same.as_ref().filter(|it| it.state == TotpState::Confirmed) {
        return Ok(Some(if same.parameters == new.parameters {
            ImportOutcome::AlreadyThere
        } else {
            ImportOutcome::Refused(ImportRefusal::OtherParameters)
        }));
    }
    let pending = match pending_to_give_way(&totps, None) {
        Ok(pending) => pending,
        Err(Error::WrongState(_)) => {
            return Ok(Some(ImportOutcome::Refused(ImportRefusal::TooMany)));
        }
        Err(error) => return Err(error),
    };
    for it in same.iter().chain(pending) {
        remove_pending(tx, user, it)?;
    }
    Ok(None)
}

/// The user of a row, if there is one, or why the row is refused.
fn find_user(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    org: &OrgId,
    it: &ImportUser,
) -> Result<Result<Option<UserRow>, ImportRefusal>> {
    if let Some(id) = &it.id {
        return match tx.user(None, id)? {
            Some(user) if user.org == *org => Ok(Ok(Some(user))),
            Some(_) => Ok(Err(ImportRefusal::OtherOrganization)),
            None => are_free(tx, org, &it.usernames).map(|are| {
                if are {
                    Ok(None)
                } else {
                    Err(ImportRefusal::UsernameTaken)
                }
            }),
        };
    }
    let Some(first) = it.usernames.first() else {
        return Ok(Err(ImportRefusal::NoUser));
    };
    let is_org_named = call.target.organization.is_some();
    let named = tx.users_named(&first.username, is_org_named.then_some(org))?;
    let (ours, others): (Vec<_>, Vec<_>) = named.into_iter().partition(|it| it.org == *org);
    let refusal = match (ours.len(), others.len()) {
        (0 | 1, 0) => None,
        (0, 1) => Some(ImportRefusal::OtherOrganization),
        (_, 0) => Some(ImportRefusal::Ambiguous),
        _ => Some(ImportRefusal::SeveralOrganizations),
    };
    if let Some(refusal) = refusal {
        return Ok(Err(refusal));
    }
    let by_name = ours.into_iter().next().map(|it| it.id);
    let by_id = match UserId::for_lookup(first.username.as_str()) {
        Ok(id) => tx.user(Some(org), &id)?,
        Err(_) => None,
    };
    match (by_name, by_id) {
        (Some(name), Some(user)) if user.id != name => Ok(Err(ImportRefusal::Ambiguous)),
        (_, Some(user)) => Ok(Ok(Some(user))),
        (Some(name), None) => Ok(Ok(tx.user(Some(org), &name)?)),
        (None, None) if are_free(tx, org, &it.usernames)? => Ok(Ok(None)),
        (None, None) => Ok(Err(ImportRefusal::UsernameTaken)),
    }
}

/// Whether no user of the organization has one of these usernames, and no two of them are equal.
fn are_free(tx: &WriteTx<'_>, org: &OrgId, usernames: &[NewUsername]) -> Result<bool> {
    let mut folded = HashSet::new();
    for it in usernames {
        if !folded.insert(fold(it.username.as_str()))
            || !tx.users_named(&it.username, Some(org))?.is_empty()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which of a user's authenticators has this secret.
fn find_same(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    user: &UserRow,
    totps: &[TotpRow],
    new: &ImportTotp,
) -> Result<Option<usize>> {
    for (index, totp) in totps.iter().enumerate() {
        let sealed = tx.sealed_secret(totp.slot)?;
        let secret = call.inner.unseal(tx, &sealed, &user.id, &totp.id)?;
        if key_of(&secret) == key_of(&new.secret) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn create_user(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    org: &OrgId,
    it: &ImportUser,
) -> Result<UserRow> {
    let new = NewUser {
        id: it.id.clone(),
        schema_id: it.schema_id.clone(),
        data: it.data.clone(),
        usernames: Vec::new(),
    };
    let user = insert_user(tx, org, &new)?;
    for it in &it.usernames {
        let row = UsernameRow {
            id: tx.new_id()?,
            username: it.username.clone(),
            is_organization_specific: it.is_organization_specific,
        };
        tx.insert_username(&user, &row)?;
    }
    call.record(tx, EventKind::UserCreated, &user)?;
    let kind = match it.state {
        UserState::Active => return Ok(user),
        UserState::Inactive => EventKind::UserDeactivated,
        UserState::Locked => EventKind::UserLocked,
    };
    tx.change_state(&user, &[UserState::Active], it.state)?;
    call.record(tx, kind, &user)?;
    Ok(user)
}

/// Inserts a confirmed authenticator. Its floor is the present step (SECURITY.md 39).
fn insert_totp(
    call: &TxContext<'_>,
    tx: &WriteTx<'_>,
    user: &UserRow,
    new: &ImportTotp,
) -> Result<()> {
    let id = TotpId::from_trusted(tx.new_id()?);
    let sealed = call.inner.seal(tx, &new.secret, &user.id, &id)?;
    let totp = TotpRow {
        slot: tx.fill_slot(&sealed)?,
        id,
        name: new.name.clone(),
        state: TotpState::Confirmed,
        parameters: new.parameters,
        drift: new.drift,
        created: new.created.unwrap_or(tx.event_at()).min(tx.event_at()),
        last_used: None,
        replaces: None,
        is_proven: true,
    };
    let floor = tx.now().step(new.parameters.period).shifted(new.drift);
    tx.insert_totp(user, &totp, floor)?;
    call.record_totp(tx, EventKind::TotpImported, user, Some(&totp))
}
