//! Imports authenticators that were confirmed elsewhere, in small transactions beside other calls (SECURITY.md 24, 39).
//!
//! Knows no formats: its rows come from the caller, which has read them.

mod row;

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::replacement::MAX_TOTPS;
use super::{Caller, Context, NamedBy, NewUsername, Service, Target};
use crate::error::{Error, Result};
use crate::model::{Clock, Drift, Name, OrgId, Timestamp, UserId, UserState, fold};
use crate::totp::{Parameters, Secret};
use row::{import_row, key_of};

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
/// An import may stop at any row and be run again from the first one. Existing authenticators are not imported twice.
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

/// The error that undoes the transaction of a dry run.
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
