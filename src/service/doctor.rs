//! Whether a data directory is in order, and what to do where it is not. Changes nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::DataDir;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::seal::Sealer;
use crate::store::{Examined, log_bytes};
use crate::totp::LONGEST_WAIT;

/// A log longer than this is not being looked after.
const LONG_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// With less room than this the next busy hour may find the disk full.
const LITTLE_SPACE_BYTES: u64 = 64 * 1024 * 1024;
/// Secrets that are named one by one when they do not open.
const NAMED_SECRETS: usize = 3;

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// Whether it is in order.
    pub is_ok: bool,
    /// What was seen and, where it is not in order, what to do.
    pub message: String,
}

impl DataDir {
    /// Looks at everything in the directory. Works beside a server.
    pub fn examine(&self, now: Timestamp) -> Vec<Finding> {
        let mut report = Report::default();
        report.note("files", self.files());
        let sealer = self.read_key().and_then(|key| Sealer::new(&key));
        report.note("master key", sealer.as_ref().map(|_| "readable".to_owned()));
        let database = self.database();
        match Examined::open(&database) {
            Ok(examined) => {
                report.note("database", whole(&examined));
                if let Ok(sealer) = &sealer {
                    report.note("secrets", secrets(&examined, sealer, &self.key_path()));
                }
                report.note("clock", clock(&examined, now));
            }
            Err(error) => report.note("database", Err::<String, _>(error)),
        }
        report.note("log", log(&database));
        report.note("space", self.space());
        report.findings
    }

    /// Whether the directory and what lies in it are private, and nothing else lies in it.
    fn files(&self) -> Result<String> {
        let path = self.path();
        let wrong =
            |name: &Path, problem: String| Error::invalid(name.display().to_string(), problem);
        let io = |error: std::io::Error| wrong(path, format!("cannot be looked into: {error}"));
        let mode = fs::metadata(path).map_err(io)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(wrong(
                path,
                format!("others can look into it (mode {mode:04o}); run chmod 700 on it"),
            ));
        }
        let mut count = 0_usize;
        for entry in fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let metadata = fs::symlink_metadata(entry.path()).map_err(io)?;
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_file() && mode & 0o077 != 0 {
                let problem = format!("others can read it (mode {mode:04o}); run chmod 600 on it");
                return Err(wrong(&entry.path(), problem));
            }
            count = count.saturating_add(1);
        }
        Ok(format!(
            "{} with {count} files, all private",
            path.display()
        ))
    }

    fn space(&self) -> Result<String> {
        let seen = rustix::fs::statvfs(self.path())
            .map_err(|error| Error::Unavailable(format!("free space: {error}")))?;
        let free = seen.f_bavail.saturating_mul(seen.f_frsize);
        let text = format!("{} MiB are free", free >> 20);
        if free < LITTLE_SPACE_BYTES {
            let problem =
                format!("{text}; make room, for on a full disk nothing can be checked or removed");
            return Err(Error::invalid("disk", problem));
        }
        Ok(text)
    }
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn note<E: std::borrow::Borrow<Error>>(
        &mut self,
        check: &'static str,
        seen: Result<String, E>,
    ) {
        let is_ok = seen.is_ok();
        let message = seen.unwrap_or_else(|error| {
            // Whoever looks at a data directory may read what otherwise the log alone says.
            if let Error::Unavailable(inner) | Error::Bug(inner) = error.borrow() {
                inner.clone()
            } else {
                error.borrow().to_string()
            }
        });
        self.findings.push(Finding {
            check,
            is_ok,
            message,
        });
    }
}

fn whole(examined: &Examined) -> Result<String> {
    let problems = examined.problems()?;
    match problems.first() {
        None => Ok("whole".to_owned()),
        Some(first) => Err(Error::invalid(
            "the database",
            format!(
                "{} things are wrong, the first: {first}; stop totpd and restore a backup",
                problems.len()
            ),
        )),
    }
}

fn secrets(examined: &Examined, sealer: &Sealer, key: &Path) -> Result<String> {
    if examined.read().instance()?.key_id != *sealer.key_id() {
        return Err(Error::invalid(
            key.display().to_string(),
            "this is not the master key that the database was sealed under; put the right one back",
        ));
    }
    let (mut count, mut shut) = (0_usize, Vec::new());
    examined.each_secret(|user, totp, sealed| {
        count = count.saturating_add(1);
        if sealer.open(sealed, &user, &totp).is_err() {
            shut.push(format!("{totp} of user {user}"));
        }
    })?;
    if shut.is_empty() {
        return Ok(format!("all {count} open"));
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

fn clock(examined: &Examined, now: Timestamp) -> Result<String> {
    let newest = examined.read().newest_event_at()?;
    if now.after(LONGEST_WAIT) < newest {
        return Err(Error::invalid(
            "the clock",
            format!(
                "it says {now}, but an event of {newest} is on record; until it is right nothing is served: set it"
            ),
        ));
    }
    Ok(format!("{now}, and no event is later"))
}

fn log(database: &Path) -> Result<String> {
    let bytes = log_bytes(database);
    if bytes > LONG_LOG_BYTES {
        return Err(Error::invalid(
            "the log",
            format!(
                "it has {} MiB; stop whatever reads the database for long, and restart totpd",
                bytes >> 20
            ),
        ));
    }
    Ok(format!("{} KiB", bytes >> 10))
}
