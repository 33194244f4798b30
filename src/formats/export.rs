//! What `export` writes: URIs, a table, totpd's own document, and the body of ZITADEL's import.

use std::io::Write;

use totpd::error::{Error, Result};
use totpd::model::{Name, Timestamp};
use totpd::service::{ExportPart, ExportedTotp, ExportedUser};
use totpd::totp::key_uri;

use super::{ExportFormat, own, table, zitadel};

/// Writes users and their authenticators in one format.
pub(crate) struct Exporter<'a> {
    format: ExportFormat,
    out: &'a mut dyn Write,
    issuer: &'a Name,
    organizations: usize,
    users_of_organization: usize,
    without_address: usize,
    pub(crate) users: usize,
    pub(crate) totps: usize,
    /// What is left out of the file, or is otherwise there.
    pub(crate) notes: Vec<String>,
}

/// The error for an output that takes no more.
fn unwritable(error: &std::io::Error) -> Error {
    Error::invalid("--output", format!("cannot be written: {error}"))
}

impl<'a> Exporter<'a> {
    /// Begins an export.
    pub(crate) fn begin(
        format: ExportFormat,
        out: &'a mut dyn Write,
        issuer: &'a Name,
        now: Timestamp,
    ) -> Result<Self> {
        let mut export = Self {
            format,
            out,
            issuer,
            organizations: 0,
            users_of_organization: 0,
            without_address: 0,
            users: 0,
            totps: 0,
            notes: Vec::new(),
        };
        match format {
            ExportFormat::Otpauth => {}
            ExportFormat::Csv => export.write(table::HEADER)?,
            ExportFormat::Json => export.write(&own::head(now))?,
            ExportFormat::Zitadel => export.write(zitadel::HEAD)?,
        }
        Ok(export)
    }

    pub(crate) fn part(&mut self, part: ExportPart) -> Result<()> {
        match part {
            ExportPart::Organization(id, name) => {
                if self.format == ExportFormat::Zitadel {
                    let head = zitadel::organization(&id, &name, self.organizations > 0)?;
                    self.write(&head)?;
                }
                self.organizations = self.organizations.saturating_add(1);
                self.users_of_organization = 0;
                Ok(())
            }
            ExportPart::User(user) => self.user(&user),
        }
    }

    fn user(&mut self, user: &ExportedUser) -> Result<()> {
        let text = match self.format {
            ExportFormat::Otpauth => {
                let uris = user.totps.iter().map(|it| self.uri(user, it));
                uris.collect::<String>()
            }
            ExportFormat::Csv => table::rows(user)?,
            ExportFormat::Json => own::user(user, self.users > 0)?,
            ExportFormat::Zitadel => zitadel::user(
                user,
                self.users_of_organization > 0,
                &mut self.notes,
                &mut self.without_address,
            )?,
        };
        self.users = self.users.saturating_add(1);
        self.users_of_organization = self.users_of_organization.saturating_add(1);
        self.totps = self.totps.saturating_add(user.totps.len());
        self.write(&text)
    }

    fn uri(&self, user: &ExportedUser, totp: &ExportedTotp) -> String {
        let uri = key_uri(
            self.issuer.as_str(),
            account(user),
            &totp.secret,
            totp.parameters,
        );
        format!("{}\n", *uri)
    }

    /// Ends the export. Until then its end is missing, so that a part of it is not taken for all.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.format {
            ExportFormat::Otpauth | ExportFormat::Csv => {}
            ExportFormat::Json => self.write(own::END)?,
            ExportFormat::Zitadel => self.write(if self.organizations > 0 {
                "]}]}}\n"
            } else {
                "]}}\n"
            })?,
        }
        if self.without_address > 0 {
            self.notes.push(format!(
                "users without an e-mail address: {}; ZITADEL requires one, so each has one at totpd.invalid, where no mail arrives",
                self.without_address
            ));
        }
        self.out.flush().map_err(|it| unwritable(&it))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes());
        written.map_err(|it| unwritable(&it))
    }
}

/// The first username, else the id.
pub(super) fn account(user: &ExportedUser) -> &str {
    let first = user.usernames.first();
    first.map_or(user.id.as_str(), |it| it.username.as_str())
}
