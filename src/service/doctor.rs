//! Whether a data directory is in order, and what to do where it is not. Changes nothing.

mod time;

use std::path::Path;

use super::DataDir;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::ownership;
use crate::seal::Sealer;
use crate::store::{Inspection, wal_bytes};

/// A log longer than this is not being looked after.
const LONG_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// With less room than this the next busy hour may find the disk full.
const LITTLE_SPACE_BYTES: u64 = 64 * 1024 * 1024;
/// A disk with less than one part in so many free is named while there is still time to make room.
const SPACE_WARNING_PART: u64 = 10;
/// Secrets that are named one by one when they do not open.
const NAMED_SECRETS: usize = 3;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In order.
    Ok,
    /// Works now. Somebody should look at it before it no longer does.
    Warn,
    /// Not in order.
    Wrong,
}

impl Level {
    /// The word for it, in text and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Wrong => "wrong",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How serious it is.
    pub level: Level,
    /// What was seen and, where it is not in order, what to do.
    pub message: String,
}

/// What a check saw where nothing is wrong. What is wrong is an error.
struct Seen {
    level: Level,
    message: String,
}

impl Seen {
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
    /// Looks at everything in the directory. Works beside a server.
    pub fn examine(&self, now: Timestamp) -> Vec<Finding> {
        let mut report = Report::default();
        let files = self.files();
        let is_private = files.is_ok();
        report.note("files", files);
        let sealer = self.read_key().and_then(|key| Sealer::new(&key));
        report.note("master key", sealer.as_ref().map(|_| Seen::ok("readable")));
        let database = self.database();
        let inspection = if is_private {
            Inspection::open(&database)
        } else {
            Err(Error::invalid(
                "the database",
                "it is not opened while others can reach the files; put that right first",
            ))
        };
        match inspection {
            Ok(inspection) => {
                report.note("database", whole(&inspection));
                if let Ok(sealer) = &sealer
                    && !inspection.is_older()
                {
                    report.note("secrets", secrets(&inspection, sealer, &self.key_path()));
                }
                report.note("usernames", usernames(&inspection));
                report.note("clock", time::clock(&inspection.read(), now));
                report.note("tokens", time::tokens(&inspection.read(), now));
            }
            Err(error) => report.note("database", Err::<Seen, _>(error)),
        }
        report.note("log", self.wal());
        report.note("space", self.space());
        report.findings
    }

    /// Whether directory, key and database are this user's or root's, and closed to others.
    fn files(&self) -> Result<Seen> {
        let shared = self.require_private()?;
        Ok(match ownership::shared_by_groups(&shared) {
            Some(text) => Seen::warn(text),
            None => Seen::ok(format!(
                "{} and all files in it are private",
                self.path().display()
            )),
        })
    }

    /// Whether the WAL is looked after. What was removed may be in it.
    fn wal(&self) -> Result<Seen> {
        let bytes = wal_bytes(&self.database());
        let problem = if bytes > LONG_LOG_BYTES {
            format!(
                "it has {} MiB; stop whatever reads the database for long, and restart totpd",
                bytes >> 20
            )
        } else if bytes > 0 && !self.is_server() && !self.is_served_by_another() {
            format!(
                "it has {bytes} bytes while nobody serves, and what was removed may be in them; start totpd, or run \
                 any other command"
            )
        } else {
            return Ok(Seen::ok(format!("{} KiB", bytes >> 10)));
        };
        Err(Error::invalid("the log", problem))
    }

    fn space(&self) -> Result<Seen> {
        let seen = rustix::fs::statvfs(self.path())
            .map_err(|error| Error::Unavailable(format!("free space: {error}")))?;
        let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
        free_space(bytes(seen.f_bavail), bytes(seen.f_blocks))
    }
}

fn free_space(free: u64, size: u64) -> Result<Seen> {
    let text = format!("{} MiB of {} MiB are free", free >> 20, size >> 20);
    let advice = "make room: on a full disk nothing can be checked or removed";
    if free < LITTLE_SPACE_BYTES {
        return Err(Error::invalid("disk", format!("{text}; {advice}")));
    }
    if free < size.div_ceil(SPACE_WARNING_PART) {
        return Ok(Seen::warn(format!("{text}; {advice}")));
    }
    Ok(Seen::ok(text))
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn note<E: std::borrow::Borrow<Error>>(&mut self, check: &'static str, seen: Result<Seen, E>) {
        let Seen { level, message } = seen.unwrap_or_else(|error| Seen {
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

fn whole(inspection: &Inspection) -> Result<Seen> {
    let problems = inspection.problems()?;
    match problems.first() {
        None if inspection.is_older() => Ok(Seen::warn(
            "whole, and of an older version; the next command or start upgrades it, and doctor sees more then",
        )),
        None => Ok(Seen::ok("whole")),
        Some(first) => Err(Error::invalid(
            "the database",
            format!(
                "{} things are wrong, the first: {first}; stop totpd and restore a backup",
                problems.len()
            ),
        )),
    }
}

/// Whether all usernames keep the rule that they are unique. Those that are older than the rule stay.
fn usernames(inspection: &Inspection) -> Result<Seen> {
    Ok(match inspection.read().usernames_that_clash()?.as_slice() {
        [] => Seen::ok("unique within each organization"),
        [first, ..] => Seen::warn(format!(
            "some differ in case or normalization alone within one organization, such as {first:?}; commands need --id \
             for such users"
        )),
    })
}

fn secrets(inspection: &Inspection, sealer: &Sealer, key: &Path) -> Result<Seen> {
    if inspection.read().instance()?.key_id != *sealer.key_id() {
        return Err(Error::invalid(
            key.display().to_string(),
            "this is not the master key that the database was sealed under; put the right one back",
        ));
    }
    let (mut count, mut shut) = (0_usize, Vec::new());
    inspection.each_secret(|user, totp, sealed| {
        count = count.saturating_add(1);
        if sealer.open(sealed, &user, &totp).is_err() {
            shut.push(format!("{totp} of user {user}"));
        }
    })?;
    if shut.is_empty() {
        require_sound_slots(inspection)?;
        return Ok(Seen::ok(format!("all {count} open")));
    }
    let named = shut.iter().take(NAMED_SECRETS).cloned().collect::<Vec<_>>();
    Err(Error::invalid(
        "the database",
        format!(
            "{} of {count} secrets do not open ({}); remove these authenticators, or restore a backup",
            shut.len(),
            named.join(", ")
        ),
    ))
}

/// Refuses secrets that belong to no authenticator, and authenticators that share a slot.
fn require_sound_slots(inspection: &Inspection) -> Result<()> {
    let unnamed = inspection.read().unused_secrets()?;
    if unnamed > 0 {
        let problem = format!(
            "{unnamed} secrets belong to no authenticator; take a backup and restore it, which overwrites them"
        );
        return Err(Error::invalid("the database", problem));
    }
    let shared = inspection.read().shared_slots()?;
    if shared > 0 {
        let problem = format!(
            "{shared} authenticators share a slot with another one; remove those that do not open, or restore a backup"
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
