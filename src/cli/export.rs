//! `export`: writes every secret in clear, for another instance or another program (SECURITY.md 40).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use totpd::error::{Error, Result};
use totpd::service::Service;

use super::output::{self, Output};
use super::{args, now, operator};
use crate::formats::Exporter;

#[derive(Serialize)]
struct ExportDocument {
    file: String,
    users: usize,
    totps: usize,
}

pub(super) fn run(service: &Service, out: &Output, it: &args::Export) -> Result<()> {
    let organization = it.org.as_deref().map(str::parse).transpose()?;
    let context = operator();
    let issuer = service.settings(&context)?.issuer;
    let mut target = Target::open(&it.output)?;
    let mut export = Exporter::begin(it.format, &mut target.writer, &issuer, now())?;
    service.export(&context, organization, |part| {
        export.part(part)?;
        print_notes(&mut export);
        Ok(())
    })?;
    export.end()?;
    print_notes(&mut export);
    let (users, totps) = (export.users, export.totps);
    let is_stdout = target.is_stdout();
    target.keep()?;
    output::print_error(
        "warning: the export holds every secret in clear, and every reader of it has these second factors: remove it as soon as \
         it is imported",
    );
    if is_stdout {
        return Ok(());
    }
    let document = ExportDocument {
        file: it.output.display().to_string(),
        users,
        totps,
    };
    let done = format!("wrote {}", document.file);
    out.answer_change(&done, &document, || {
        format!("{done}: {totps} authenticators of {users} users")
    })
}

fn print_notes(export: &mut Exporter<'_>) {
    for note in export.notes.drain(..) {
        output::print_error(&format!("note: {note}"));
    }
}

/// Where an export goes: a new private file, which is removed again unless it is kept, or a pipe.
struct Target {
    writer: BufWriter<File>,
    created: Option<PathBuf>,
    is_stdout: bool,
}

fn refused(problem: impl Into<String>) -> Error {
    Error::invalid("--output", problem.into())
}

fn unwritable(error: &io::Error) -> Error {
    refused(format!("cannot be written: {error}"))
}

impl Target {
    fn open(path: &Path) -> Result<Self> {
        let is_stdout = path == "-";
        let of_file = |file: File, created: Option<PathBuf>| Self {
            writer: BufWriter::new(file),
            created,
            is_stdout,
        };
        if is_stdout {
            let stdout = rustix::io::dup(io::stdout()).map_err(|it| unwritable(&it.into()))?;
            let stdout = File::from(stdout);
            let kind = stdout.metadata().map_err(|it| unwritable(&it))?.file_type();
            if !kind.is_fifo() && !kind.is_socket() {
                // A file that the shell has created may be open to others.
                return Err(refused(
                    "stdout is no pipe, and the export holds every secret; name a new file, or pipe it",
                ));
            }
            return Ok(of_file(stdout, None));
        }
        let is_pipe = fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo());
        if is_pipe {
            let file = OpenOptions::new().write(true).open(path);
            return Ok(of_file(file.map_err(|it| unwritable(&it))?, None));
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                refused("it is there already; name a new file")
            } else {
                unwritable(&error)
            }
        })?;
        Ok(of_file(file, Some(path.to_owned())))
    }

    const fn is_stdout(&self) -> bool {
        self.is_stdout
    }

    /// Syncs the file, and lets it stay.
    fn keep(mut self) -> Result<()> {
        self.writer.flush().map_err(|it| unwritable(&it))?;
        if self.created.is_some() {
            let synced = self.writer.get_ref().sync_all();
            synced.map_err(|it| unwritable(&it))?;
            self.created = None;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(path) = &self.created {
            // A part of an export is of no use, and holds secrets.
            let _gone = fs::remove_file(path);
        }
    }
}
