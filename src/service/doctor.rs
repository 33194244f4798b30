//! `doctor`: checks a data directory and advises what to do about each fault. Changes nothing.

mod time;

use super::DataDir;
use crate::error::{Error, Result};
use crate::model::{Checkpointer, Timestamp};
use crate::ownership;
use crate::seal::{KeyRing, MasterKey};
use crate::store::{Inspection, KeyIds, wal_bytes};

/// A WAL longer than this is not being checkpointed.
const LONG_WAL_BYTES: u64 = 64 * 1024 * 1024;
/// With less free space than this a busy hour may fill the disk.
const LITTLE_SPACE_BYTES: u64 = 64 * 1024 * 1024;
/// A disk with less than this part of it free is a warning, while there is still time to free space.
const SPACE_WARNING_PART: u64 = 10;
/// The most secrets that a message lists when they cannot be opened.
const NAMED_SECRETS: usize = 3;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Works now, but needs attention before it fails.
    Warn,
    /// A fault.
    Wrong,
}

impl Level {
    /// The level's name in text and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Wrong => "wrong",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// How serious it is.
    pub level: Level,
    /// What the check found and, unless the level is `Ok`, what to do.
    pub message: String,
}

/// The result of a check that found no fault. A fault is an [`Error`].
struct Observation {
    level: Level,
    message: String,
}

impl Observation {
    fn ok(message: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            message: message.into(),
        }
    }

    fn warn(message: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            message: message.into(),
        }
    }
}

impl DataDir {
    /// Checks everything in the directory. Works beside a server.
    pub fn examine(&self, now: Timestamp) -> Vec<Finding> {
        let mut report = Report::default();
        let files = self.files();
        let is_private = files.is_ok();
        report.note("files", files);
        let database = self.database();
        let inspection = if is_private {
            Inspection::open(&database)
        } else {
            Err(Error::invalid(
                "the database",
                "it is not opened while others can reach the files; put that right first",
            ))
        };
        let ids = match &inspection {
            Ok(it) if !it.is_older() => it.read().key_ids().ok(),
            Ok(_) | Err(_) => None,
        };
        report.note("master key", self.master_key(ids));
        let checkpoints = match &inspection {
            Ok(it) if !it.is_older() => it.read().settings().map(|it| it.checkpoints).ok(),
            Ok(_) | Err(_) => None,
        };
        match inspection {
            Ok(inspection) => {
                report.note("database", structure(&inspection));
                if let Some(Ok(ring)) = ids.map(|it| self.key_ring(it)) {
                    report.note("secrets", secrets(&inspection, &ring));
                }
                report.note("usernames", usernames(&inspection));
                report.note("clock", time::clock(&inspection.read(), now));
                report.note("tokens", time::tokens(&inspection.read(), now));
            }
            Err(error) => report.note("database", Err::<Observation, _>(error)),
        }
        report.note(
            "log",
            match checkpoints {
                Some(Checkpointer::Litestream) => Ok(self.replicated_wal()),
                Some(Checkpointer::Own) | None => self.wal(),
            },
        );
        report.note("space", self.space());
        report.findings
    }

    /// Checks that the directory and its files belong to this user or root and that others cannot access them.
    fn files(&self) -> Result<Observation> {
        let shared = self.require_private()?;
        Ok(match ownership::shared_by_groups(&shared) {
            Some(text) => Observation::warn(text),
            None => Observation::ok(format!(
                "{} and all files in it are private",
                self.path().display()
            )),
        })
    }

    /// Checks that the keys that the database names are there, and how far a rotation has come.
    fn master_key(&self, ids: Option<KeyIds>) -> Result<Observation> {
        self.require_key()?;
        let Some(ids) = ids else {
            return Ok(Observation::ok("readable"));
        };
        self.key_ring(ids)?;
        if ids.next.is_some() || self.has_next_key_file() {
            return Ok(Observation::warn(
                "its rotation is unfinished, and backups are refused; wait for `totpd key rotate`, or run it again, which \
                 completes it",
            ));
        }
        let is_named = |it: &MasterKey| it.id() == ids.current;
        match self.given_paths() {
            Some((current, next)) if !self.read_keys()?.current.is_ok_and(|it| is_named(&it)) => {
                Ok(Observation::warn(format!(
                    "its rotation is done: put the key of {} in the place of {}",
                    next.display(),
                    current.display()
                )))
            }
            _ => Ok(Observation::ok("readable")),
        }
    }

    /// Checks that the WAL is emptied in time. Removed secrets may be in it.
    fn wal(&self) -> Result<Observation> {
        let bytes = wal_bytes(&self.database());
        let problem = if bytes > LONG_WAL_BYTES {
            format!(
                "it has {} MiB; stop the program that reads the database for long, and restart totpd",
                bytes >> 20
            )
        } else if bytes > 0 && !self.is_server() && !self.is_served_by_another() {
            format!(
                "it has {bytes} bytes while no server runs, and what was removed may be in them; start totpd, or run \
                 any other command"
            )
        } else {
            return Ok(Observation::ok(format!("{} KiB", bytes >> 10)));
        };
        Err(Error::invalid("the WAL", problem))
    }

    /// Checks the length of a WAL that Litestream empties.
    fn replicated_wal(&self) -> Observation {
        let bytes = wal_bytes(&self.database());
        if bytes > LONG_WAL_BYTES {
            return Observation::warn(format!(
                "it has {} MiB, and Litestream empties it; look whether Litestream runs",
                bytes >> 20
            ));
        }
        Observation::ok(format!(
            "{} KiB; Litestream empties it, and its replica keeps what was removed for as long as its retention says",
            bytes >> 10
        ))
    }

    fn space(&self) -> Result<Observation> {
        let seen = rustix::fs::statvfs(self.path())
            .map_err(|error| Error::Unavailable(format!("free space: {error}")))?;
        let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
        free_space(bytes(seen.f_bavail), bytes(seen.f_blocks))
    }
}

fn free_space(free: u64, size: u64) -> Result<Observation> {
    let text = format!("{} MiB of {} MiB are free", free >> 20, size >> 20);
    let advice = "make room: on a full disk nothing can be checked or removed";
    if free < LITTLE_SPACE_BYTES {
        return Err(Error::invalid("disk", format!("{text}; {advice}")));
    }
    if free < size.div_ceil(SPACE_WARNING_PART) {
        return Ok(Observation::warn(format!("{text}; {advice}")));
    }
    Ok(Observation::ok(text))
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn note<E: std::borrow::Borrow<Error>>(
        &mut self,
        check: &'static str,
        seen: Result<Observation, E>,
    ) {
        let Observation { level, message } = seen.unwrap_or_else(|error| Observation {
            level: Level::Wrong,
            // The owner of a data directory may read what otherwise only the log says.
            message: if let Error::Unavailable(inner) | Error::Bug(inner) = error.borrow() {
                inner.clone()
            } else {
                error.borrow().to_string()
            },
        });
        self.findings.push(Finding {
            check,
            level,
            message,
        });
    }
}

fn structure(inspection: &Inspection) -> Result<Observation> {
    let problems = inspection.problems()?;
    match problems.first() {
        None if inspection.is_older() => Ok(Observation::warn(
            "whole, and of an older version; the next command or start upgrades it, and doctor sees more then",
        )),
        None => Ok(Observation::ok("whole")),
        Some(first) => Err(Error::invalid(
            "the database",
            format!(
                "{} things are wrong, the first: {first}; stop totpd and restore a backup",
                problems.len()
            ),
        )),
    }
}

/// Checks that usernames are unique. Older versions allowed some that differ in case or normalization alone.
fn usernames(inspection: &Inspection) -> Result<Observation> {
    Ok(match inspection.read().usernames_that_clash()?.as_slice() {
        [] => Observation::ok("unique within each organization"),
        [first, ..] => Observation::warn(format!(
            "some differ in case or normalization alone within one organization, such as {first:?}; commands need --id \
             for such users"
        )),
    })
}

fn secrets(inspection: &Inspection, ring: &KeyRing) -> Result<Observation> {
    let (mut count, mut short, mut unopened) = (0_usize, 0_usize, Vec::new());
    inspection.each_secret(|user, totp, sealed| {
        count = count.saturating_add(1);
        match ring.open(sealed, &user, &totp) {
            Ok(secret) => short = short.saturating_add(usize::from(secret.is_short())),
            Err(_) => unopened.push(format!("{totp} of user {user}")),
        }
    })?;
    inspection.each_recovery_key(|user, set, sealed| {
        count = count.saturating_add(1);
        if ring.open_recovery_key(sealed, &user, &set).is_err() {
            unopened.push(format!("the recovery codes of user {user}"));
        }
    })?;
    if unopened.is_empty() {
        require_sound_slots(inspection)?;
        return Ok(if short == 0 {
            Observation::ok(format!("all {count} open"))
        } else {
            // Only an import takes such a secret, and only as confirmed.
            Observation::warn(format!(
                "all {count} open; {short} of them have under 128 bits: enrol their users anew when you can, and remove \
                 the old authenticators"
            ))
        });
    }
    let named = unopened
        .iter()
        .take(NAMED_SECRETS)
        .cloned()
        .collect::<Vec<_>>();
    Err(Error::invalid(
        "the database",
        format!(
            "{} of {count} secrets do not open ({}); remove what they belong to, or restore a backup",
            unopened.len(),
            named.join(", ")
        ),
    ))
}

/// Refuses secrets without an authenticator or recovery codes, slots that are shared, and recovery codes without an authenticator.
fn require_sound_slots(inspection: &Inspection) -> Result<()> {
    let unnamed = inspection.read().unused_secrets()?;
    if unnamed > 0 {
        let problem = format!(
            "{unnamed} secrets belong to no authenticator and to no recovery codes; take a backup and restore it, which \
             overwrites them"
        );
        return Err(Error::invalid("the database", problem));
    }
    let shared = inspection.read().shared_slots()?;
    if shared > 0 {
        let problem = format!(
            "{shared} authenticators or sets of recovery codes share a slot with another one; remove those that do not \
             open, or restore a backup"
        );
        return Err(Error::invalid("the database", problem));
    }
    let misplaced = inspection.read().misplaced_recovery_sets()?;
    if misplaced > 0 {
        let problem = format!(
            "recovery codes and authenticators do not fit together in {misplaced} places; take a backup and restore it, \
             which puts that right"
        );
        return Err(Error::invalid("the database", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_a_tenth_free_is_named_before_it_is_full() {
        const GIB: u64 = 1 << 30;
        for (free, size, level) in [
            (100 * GIB, 100 * GIB, Some(Level::Ok)),
            (10 * GIB, 100 * GIB, Some(Level::Ok)),
            (10 * GIB - 1, 100 * GIB, Some(Level::Warn)),
            (LITTLE_SPACE_BYTES, 100 * GIB, Some(Level::Warn)),
            (LITTLE_SPACE_BYTES - 1, 100 * GIB, None),
            (LITTLE_SPACE_BYTES - 1, LITTLE_SPACE_BYTES - 1, None),
        ] {
            let seen = free_space(free, size).ok().map(|it| it.level);
            assert_eq!(seen, level, "{free} of {size}");
        }
    }
}
