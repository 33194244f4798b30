//! The files of two PAM modules: `~/.google_authenticator` of pam_google_authenticator, and `users.oath` of pam_oath.

use std::path::Path;

use totpd::error::Result;

use super::fields::{Draft, Fault, given};
use super::input::{LINE_BYTES, Source, refused};
use super::{Place, ReadOptions, Sink};

/// The user whose home directory has this file.
pub(crate) fn user_of(file: &Path) -> Option<String> {
    let is_ours = file
        .file_name()
        .is_some_and(|it| it == ".google_authenticator");
    let home = file.parent()?.file_name()?.to_str()?;
    is_ours.then(|| home.to_owned())
}

/// Whether a file begins as that of pam_google_authenticator: a secret, and options behind `" `.
pub(super) fn is_google(head: &str) -> bool {
    let mut lines = head.lines().map(str::trim_end);
    let secret = lines.next().unwrap_or_default();
    let is_secret = secret.len() >= 16 && secret.bytes().all(|it| it.is_ascii_alphanumeric());
    is_secret && lines.next().is_some_and(|it| it.starts_with("\" "))
}

/// Reads the one secret of a file of pam_google_authenticator. Its emergency codes are not taken.
pub(super) fn read_google(
    source: &mut Source,
    options: &ReadOptions,
    sink: &mut Sink<'_>,
) -> Result<()> {
    if options.user.is_none() {
        return Err(refused(
            "it does not say whose it is: pass --user NAME (a file ~NAME/.google_authenticator needs none)",
        ));
    }
    let (mut secret, mut has_time, mut has_counter, mut period) = (None, false, false, None);
    while let Some(line) = source.next_line(LINE_BYTES)? {
        let text = line.text.unwrap_or_default();
        if secret.is_none() {
            secret = Some(text);
            continue;
        }
        let Some(option) = text.strip_prefix("\" ") else {
            continue;
        };
        let (name, value) = option.split_once(' ').unwrap_or((option, ""));
        match name {
            "TOTP_AUTH" => has_time = true,
            "HOTP_COUNTER" => has_counter = true,
            "STEP_SIZE" => period = given(value).map(str::to_owned),
            _ => {}
        }
    }
    let row = if has_time && !has_counter {
        options
            .secrets
            .base32(&secret.unwrap_or_default())
            .and_then(|it| {
                options.finish(Draft {
                    secret: Some(it),
                    period,
                    ..Draft::default()
                })
            })
    } else {
        Err(Fault::new("it is HOTP, by counter; only TOTP is taken"))
    };
    source
        .notes
        .push("emergency codes are not taken; totpd has recovery codes of its own".to_owned());
    sink(Place::Line(1), row)
}

/// Whether a file begins as `users.oath` does.
pub(super) fn is_oath(head: &str) -> bool {
    let mut lines = head
        .lines()
        .map(str::trim)
        .filter(|it| !it.is_empty() && !it.starts_with('#'));
    lines.next().is_some_and(|it| {
        let mut words = it.split_whitespace();
        words.next().is_some_and(|it| it.starts_with("HOTP")) && words.count() >= 3
    })
}

/// Reads `users.oath`: `HOTP/T30/6 user pin secret`, and what pam_oath adds behind.
pub(super) fn read_oath(
    source: &mut Source,
    options: &ReadOptions,
    sink: &mut Sink<'_>,
) -> Result<()> {
    while let Some(line) = source.next_line(LINE_BYTES)? {
        let place = Place::Line(line.number);
        let Some(text) = line.text else {
            sink(place, Err(Fault::new("it is not UTF-8")))?;
            continue;
        };
        if text.starts_with('#') {
            continue;
        }
        sink(
            place,
            oath(&text, options).and_then(|it| options.finish(it)),
        )?;
    }
    Ok(())
}

fn oath(line: &str, options: &ReadOptions) -> Result<Draft, Fault> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (kind, user, _pin, secret) = (word(), word(), word(), word());
    let mut parts = kind.split('/');
    if parts.next() != Some("HOTP") {
        return Err(Fault::new("it does not begin as a line of pam_oath does"));
    }
    let Some(Some(period)) = parts.next().map(|it| it.strip_prefix('T')) else {
        return Err(Fault::new("it is HOTP, by counter; only TOTP is taken"));
    };
    if secret.is_empty() {
        return Err(Fault::new("it has no secret"));
    }
    Ok(Draft {
        username: Some(user.to_owned()),
        secret: Some(options.secrets.hex(secret)?),
        period: Some(period.to_owned()),
        digits: parts.next().map(str::to_owned),
        ..Draft::default()
    })
}
