//! `backup`, `restore` and `doctor`.

use std::path::Path;

use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::service::{Context, DataDir, Finding, Level, RestoreOptions, Service};

use super::output::Output;
use super::{DataLocation, args, given_key, now};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackupDocument {
    file: String,
    as_of: String,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestoreDocument {
    file: String,
    as_of: String,
    applied_again: AppliedAgainDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    undone_since: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppliedAgainDocument {
    totps: usize,
    tokens: usize,
    users: usize,
    recovery_codes: usize,
}

#[derive(Serialize)]
struct FindingDocument<'a> {
    check: &'static str,
    level: &'static str,
    message: &'a str,
}

pub(super) fn backup(service: &Service, out: &Output, file: &Path) -> Result<()> {
    let taken = service.back_up(file)?;
    if let Err(error) = service.record_backup(&Context::command_line(now())) {
        log::warn!("the backup is complete, but it was not recorded in the database: {error}");
    }
    let document = BackupDocument {
        file: file.display().to_string(),
        as_of: taken.as_of.to_string(),
        bytes: taken.bytes,
    };
    let done = format!("wrote {}", document.file);
    out.answer_change(&done, &document, || {
        format!(
            "wrote {} ({} KiB), as of {}\n\
             The master key is not in it. Without the key no secret opens: keep a copy of it, in another place.",
            document.file,
            document.bytes >> 10,
            document.as_of
        )
    })
}

pub(super) fn restore(location: &DataLocation, out: &Output, args: &args::Restore) -> Result<()> {
    let options = RestoreOptions {
        replace: args.force,
        accept_loss: args.accept_loss,
    };
    let mut dir = DataDir::open_exclusive(&location.path, location.key.clone())?;
    if let Some(path) = &args.old_key {
        dir = dir.with_old_key(given_key(path.clone()));
    }
    let restored = dir.restore(&args.file, options, now())?;
    let again = restored.applied_again;
    let as_of = restored.as_of.to_string();
    let document = RestoreDocument {
        file: args.file.display().to_string(),
        as_of: as_of.clone(),
        applied_again: AppliedAgainDocument {
            totps: again.totps,
            tokens: again.tokens,
            users: again.users,
            recovery_codes: again.recovery_codes,
        },
        undone_since: restored.has_loss.then_some(as_of),
    };
    let done = format!("restored {}, as of {}", document.file, document.as_of);
    out.answer_change(&done, &document, || {
        let since = if restored.has_loss {
            format!(
                "Removals, revocations and deletions after that moment may be undone: make them again.\n\
                 No recovery code of the backup is good: those of {} users were removed.",
                again.recovery_codes
            )
        } else {
            format!(
                "Applied again: {} authenticators removed, {} tokens revoked, {} users deleted, recovery codes of {} users \
                 replaced or removed since.",
                again.totps, again.tokens, again.users, again.recovery_codes
            )
        };
        format!(
            "{done}\n{since}\nCodes shown up to now are used up; each phone's next but one is good."
        )
    })
}

/// Prints all findings. Fails if one of them is `Wrong`.
pub(super) fn doctor(location: &DataLocation, out: &Output) -> Result<()> {
    let findings = DataDir::open_to_examine(&location.path, location.key.clone())?.examine(now());
    let documents: Vec<_> = findings.iter().map(document).collect();
    out.answer(&documents, || {
        let lines = findings.iter().map(|it| {
            let level = it.level.as_str();
            format!("{level:<5} {:<11} {}", it.check, it.message)
        });
        lines.collect::<Vec<_>>().join("\n")
    })?;
    match findings
        .iter()
        .filter(|it| it.level == Level::Wrong)
        .count()
    {
        0 => Ok(()),
        1 => Err(Error::invalid("doctor", "one thing is wrong")),
        wrong => Err(Error::invalid(
            "doctor",
            format!("{wrong} things are wrong"),
        )),
    }
}

fn document(it: &Finding) -> FindingDocument<'_> {
    FindingDocument {
        check: it.check,
        level: it.level.as_str(),
        message: &it.message,
    }
}
