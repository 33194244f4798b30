//! `import`: takes authenticators of another program, or of another totpd.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::model::{Clock, OrgId};
use totpd::service::{Caller, ImportOptions, ImportOutcome, ImportRow, Importer, Service};

use super::output::{self, Output};
use super::{args, now};
use crate::formats::{self, FILE, Fault, Place, ReadOptions, SecretRule, Source};

/// The rows that are read before they are imported.
const BATCH: usize = 1_000;
/// The most refusals that a document lists. Text lists all of them.
const MAX_LISTED: usize = 10_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportDocument {
    dry_run: bool,
    imported: usize,
    users_created: usize,
    already_there: usize,
    not_taken: usize,
    refusals: Vec<RefusalDocument>,
}

#[derive(Serialize)]
struct RefusalDocument {
    at: String,
    reason: String,
}

pub(super) fn run(service: &Service, out: &Output, it: &args::Import) -> Result<()> {
    let organization: Option<OrgId> = it.org.as_deref().map(str::parse).transpose()?;
    let mut source = Source::open(&it.file).map_err(|error| named(error, &it.file))?;
    let options = ReadOptions {
        format: it.format,
        user: it.user.clone().or_else(|| formats::user_of(&it.file)),
        secrets: SecretRule {
            allows_short: it.allow_short_secrets,
        },
    };
    let clock: Clock = Arc::new(now);
    let import_options = ImportOptions {
        organization,
        is_dry_run: it.dry_run,
    };
    let mut import = Import {
        importer: service.importer(Caller::command_line(), clock, import_options),
        is_json: out.json,
        has_progress: !out.json && output::is_terminal(),
        places: Vec::new(),
        rows: Vec::new(),
        handled: 0,
        document: ImportDocument {
            dry_run: it.dry_run,
            imported: 0,
            users_created: 0,
            already_there: 0,
            not_taken: 0,
            refusals: Vec::new(),
        },
    };
    let progress = source.progress();
    let read = formats::read(&mut source, &options, &mut |place, row| {
        import.take(place, row)?;
        if import.rows.len() >= BATCH {
            import.flush()?;
            import.show_progress(progress.percent());
        }
        Ok(())
    });
    // Where the file cannot be read to its end, what came before goes in all the same.
    let flushed = import.flush();
    let done = read.and(flushed);
    import.clear_progress();
    for note in &source.notes {
        output::print_error(&format!("note: {note}"));
    }
    let done = done.map_err(|error| named(error, &it.file));
    if import.handled == 0 && done.is_ok() {
        let problem = "it holds no authenticator";
        return Err(Error::invalid(it.file.display().to_string(), problem));
    }
    let document = &import.document;
    if done.is_err() && document.imported == 0 && document.already_there == 0 {
        return done;
    }
    let not_taken = document.not_taken;
    let summary = import.summary();
    out.answer_change("imported rows", &import.document, || summary)?;
    done?;
    match not_taken {
        0 => Ok(()),
        1 => Err(Error::invalid("import", "one row was not taken")),
        rows => Err(Error::invalid(
            "import",
            format!("{rows} rows were not taken"),
        )),
    }
}

/// The error of a file, with its name.
fn named(error: Error, file: &Path) -> Error {
    if let Error::Invalid { field, problem } = &error
        && field == FILE
    {
        return Error::invalid(file.display().to_string(), problem.clone());
    }
    error
}

/// An import and its report.
struct Import<'a> {
    importer: Importer<'a>,
    is_json: bool,
    has_progress: bool,
    places: Vec<Place>,
    rows: Vec<ImportRow>,
    handled: usize,
    document: ImportDocument,
}

impl Import<'_> {
    fn take(&mut self, place: Place, row: Result<ImportRow, Fault>) -> Result<()> {
        match row {
            Ok(row) => {
                self.places.push(place);
                self.rows.push(row);
            }
            Err(fault) => {
                // What comes before it is reported before it.
                self.flush()?;
                self.handled = self.handled.saturating_add(1);
                self.refuse(&place, &fault.to_string());
            }
        }
        Ok(())
    }

    /// Imports the rows that were read.
    fn flush(&mut self) -> Result<()> {
        let (rows, places) = (
            std::mem::take(&mut self.rows),
            std::mem::take(&mut self.places),
        );
        self.handled = self.handled.saturating_add(rows.len());
        let outcomes = self.importer.import(rows)?;
        for (place, outcome) in places.iter().zip(outcomes) {
            let document = &mut self.document;
            match outcome {
                ImportOutcome::Imported {
                    has_created_user,
                    has_totp,
                } => {
                    let (totps, users) = (usize::from(has_totp), usize::from(has_created_user));
                    document.imported = document.imported.saturating_add(totps);
                    document.users_created = document.users_created.saturating_add(users);
                }
                ImportOutcome::AlreadyThere => {
                    document.already_there = document.already_there.saturating_add(1);
                }
                ImportOutcome::Refused(refusal) => self.refuse(place, &refusal.to_string()),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, place: &Place, reason: &str) {
        self.document.not_taken = self.document.not_taken.saturating_add(1);
        if !self.is_json {
            self.clear_progress();
            output::print_error(&format!("{place}: {reason}"));
        } else if self.document.refusals.len() < MAX_LISTED {
            self.document.refusals.push(RefusalDocument {
                at: place.to_string(),
                reason: reason.to_owned(),
            });
        }
    }

    fn show_progress(&self, percent: Option<u64>) {
        if self.has_progress {
            let percent = percent.map(|it| format!(", {it} %")).unwrap_or_default();
            let _gone = write!(std::io::stdout(), "\r{} rows{percent} ", self.handled);
            let _gone = std::io::stdout().flush();
        }
    }

    fn clear_progress(&self) {
        if self.has_progress && self.handled >= BATCH {
            let _gone = write!(std::io::stdout(), "\r{:40}\r", "");
            let _gone = std::io::stdout().flush();
        }
    }

    fn summary(&self) -> String {
        let it = &self.document;
        let (imported, created) = if it.dry_run {
            ("would be imported", "would be created")
        } else {
            ("imported", "created")
        };
        format!(
            "authenticators {imported}: {}; there already: {}; users {created}: {}; rows not taken: {}{}",
            it.imported,
            it.already_there,
            it.users_created,
            it.not_taken,
            if it.dry_run {
                "\nNothing was written."
            } else if it.imported == 0 {
                ""
            } else {
                "\nThe code of the moment is used up for each of them; the next one is good."
            }
        )
    }
}
