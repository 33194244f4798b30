//! The files of other programs and of totpd's own, which `import` reads and `export` writes.
//!
//! A reader turns a file into rows, each with its place, and a fault for each row that it cannot take. It knows no
//! users, no database and no clock. Secrets pass through ordinary strings here: the binary's allocator overwrites what is
//! freed.

mod documents;
mod export;
mod fields;
mod input;
mod migration;
mod otpauth;
mod own;
mod pam;
mod privacyidea;
mod pskc;
mod table;
mod yaml;
mod zitadel;

use std::fmt;

use clap::ValueEnum;
use totpd::error::Result;
use totpd::service::ImportRow;

pub(crate) use export::Exporter;
pub(crate) use fields::{Fault, SecretRule};
use input::refused;
pub(crate) use input::{FILE, Source};
pub(crate) use pam::user_of;

/// The formats that are read, by the names that `--format` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `otpauth` URIs, one a line
    Otpauth,
    /// A table whose header names the columns
    Csv,
    /// What `totpd export --format json` writes
    Json,
    /// Keycloak's export of a realm with its users
    Keycloak,
    /// Authelia's export: YAML or CSV
    Authelia,
    /// privacyIDEA: OATH CSV, PSKC, tokenjanitor's CSV and YAML
    Privacyidea,
    /// ~/.google_authenticator, or users.oath
    Pam,
    /// The URIs in the QR codes of Google Authenticator's export
    Migration,
    /// ZITADEL's export with OTP
    Zitadel,
}

/// The formats that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// `otpauth` URIs, one a line
    Otpauth,
    /// A table whose header names the columns
    Csv,
    /// All that an import takes back
    Json,
    /// The body of ZITADEL's POST /admin/v1/import
    Zitadel,
}

/// How a file is written. Several formats are written in several ways, and some in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Uris,
    Table,
    Own,
    Document,
    Yaml,
    TokenTable,
    Pskc,
    PamGoogle,
    PamOath,
    Migration,
}

impl Layout {
    /// Whether files of this format are written so.
    const fn is_of(self, format: Format) -> bool {
        match self {
            Self::Uris => matches!(format, Format::Otpauth),
            Self::Table => matches!(format, Format::Csv | Format::Authelia),
            Self::Own => matches!(format, Format::Json),
            Self::Document => matches!(format, Format::Keycloak | Format::Zitadel),
            Self::Yaml => matches!(format, Format::Authelia | Format::Privacyidea),
            Self::TokenTable | Self::Pskc => matches!(format, Format::Privacyidea),
            Self::PamGoogle | Self::PamOath => matches!(format, Format::Pam),
            Self::Migration => matches!(format, Format::Migration),
        }
    }
}

/// Where a row is in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The number of the line, from 1.
    Line(u64),
    /// The path in a document.
    Path(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// What takes the rows of a file, one after the other.
pub(crate) type Sink<'a> = dyn FnMut(Place, Result<ImportRow, Fault>) -> Result<()> + 'a;

/// How a file is read.
pub(crate) struct ReadOptions {
    /// The format, if it was said.
    pub(crate) format: Option<Format>,
    /// The user of rows that name none.
    pub(crate) user: Option<String>,
    pub(crate) secrets: SecretRule,
}

impl ReadOptions {
    /// The row of a draft. One that names no user is of the user that was said.
    fn finish(&self, mut draft: fields::Draft) -> Result<ImportRow, Fault> {
        if draft.username.is_none() && draft.user_id.is_none() {
            draft.username.clone_from(&self.user);
        }
        draft.finish()
    }
}

/// Reads a file, and hands each of its rows to `sink`. Fails where the file as a whole cannot be read; what came before is
/// with `sink` already.
pub(crate) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let layout = recognize(source.head(), options.format)?;
    match layout {
        Layout::Uris => otpauth::read(source, options, sink),
        Layout::Table => table::read(source, options, sink),
        Layout::Own => own::read(source, options, sink),
        Layout::Document => documents::read(source, options, sink),
        Layout::Yaml => yaml::read(source, options, sink),
        Layout::TokenTable => privacyidea::read(source, options, sink),
        Layout::Pskc => pskc::read(source, options, sink),
        Layout::PamGoogle => pam::read_google(source, options, sink),
        Layout::PamOath => pam::read_oath(source, options, sink),
        Layout::Migration => migration::read(source, options, sink),
    }
}

/// How a file is written, by its beginning.
fn recognize(head: &str, asked: Option<Format>) -> Result<Layout> {
    let mut lines = head.lines().map(str::trim).filter(|it| !it.is_empty());
    let first = lines
        .find(|it| !it.starts_with('#'))
        .unwrap_or_default()
        .to_ascii_lowercase();
    if first.starts_with("<!doctype html") || first.starts_with("<html") {
        return Err(refused(
            "it is an HTML page; was it saved instead of the file?",
        ));
    }
    let found = if first.starts_with(migration::BEGINNING) {
        Layout::Migration
    } else if first.starts_with("otpauth://") || first.starts_with("steam://") {
        Layout::Uris
    } else if own::is_ours(head) {
        Layout::Own
    } else if first.starts_with(['{', '[']) && asked.is_none_or(|it| Layout::Document.is_of(it)) {
        Layout::Document
    } else if first.starts_with('<') {
        Layout::Pskc
    } else if pam::is_google(head) {
        Layout::PamGoogle
    } else if pam::is_oath(head) {
        Layout::PamOath
    } else if privacyidea::is_table(head) {
        Layout::TokenTable
    } else if table::has_header(head) {
        Layout::Table
    } else if first.starts_with("totp_configurations:")
        || first.starts_with("- ")
        || first.starts_with("---")
    {
        Layout::Yaml
    } else if asked == Some(Format::Otpauth) {
        // Secrets in base32 alone.
        Layout::Uris
    } else {
        return Err(refused(
            "its format is not recognized; docs/import.md tells those that are",
        ));
    };
    match asked {
        Some(format) if !found.is_of(format) => {
            Err(refused("it is not of the format that --format says"))
        }
        _ => Ok(found),
    }
}
