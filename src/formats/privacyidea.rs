//! privacyIDEA: OATH CSV, and the CSV of its tokenjanitor. Neither has a header, and both are split at each comma.

use totpd::error::Result;
use totpd::totp::Secret;

use super::fields::{Draft, Fault, SecretRule, given};
use super::input::{LINE_BYTES, Source};
use super::{Place, ReadOptions, Sink};

/// The two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// `serial, seed, type, digits, step`; with version 2 behind `user, resolver, realm`.
    Oath { has_user: bool },
    /// `owner, serial, seed, type, digits, step`.
    Janitor,
}

fn fields(line: &str) -> Vec<&str> {
    line.split(',').map(str::trim).collect()
}

fn is_kind(text: Option<&&str>) -> bool {
    text.is_some_and(|it| {
        ["totp", "hotp"]
            .iter()
            .any(|kind| it.eq_ignore_ascii_case(kind))
    })
}

/// The table that a file is, by its first lines.
fn table(head: &str) -> Option<Table> {
    let mut version = None;
    for line in head.lines().map(str::trim).filter(|it| !it.is_empty()) {
        if let Some(comment) = line.strip_prefix('#') {
            let number = comment.trim().to_ascii_lowercase().replace(' ', "");
            version = version.or(number.strip_prefix("version:").map(str::to_owned));
            continue;
        }
        let fields = fields(line);
        return if version.as_deref() == Some("2") && is_kind(fields.get(5)) {
            Some(Table::Oath { has_user: true })
        } else if is_kind(fields.get(2)) {
            Some(Table::Oath { has_user: false })
        } else if is_kind(fields.get(3)) {
            Some(Table::Janitor)
        } else {
            None
        };
    }
    None
}

pub(super) fn is_table(head: &str) -> bool {
    table(head).is_some()
}

/// Reads either table.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let Some(table) = table(source.head()) else {
        let problem = "it is neither OATH CSV nor an export of tokenjanitor; see docs/import.md";
        return Err(super::refused(problem));
    };
    let mut owners = Owners::default();
    while let Some(line) = source.next_line(LINE_BYTES)? {
        let place = Place::Line(line.number);
        let Some(text) = line.text else {
            sink(place, Err(Fault::new("it is not UTF-8")))?;
            continue;
        };
        if text.starts_with('#') {
            continue;
        }
        let row =
            draft(&text, table, &mut owners, options.secrets).and_then(|it| options.finish(it));
        sink(place, row)?;
    }
    Ok(())
}

fn draft(
    line: &str,
    table: Table,
    owners: &mut Owners,
    secrets: SecretRule,
) -> Result<Draft, Fault> {
    let all = fields(line);
    let front = match table {
        Table::Oath { has_user: true } => 3,
        Table::Oath { has_user: false } => 0,
        Table::Janitor => 1,
    };
    let field = |index: usize| {
        all.get(index.saturating_add(front))
            .copied()
            .and_then(given)
    };
    let whose = |index: usize| all.get(index).copied().unwrap_or_default();
    match field(2).map(str::to_ascii_lowercase).as_deref() {
        Some("totp") => {}
        Some("hotp") | None => {
            return Err(Fault::new("it is HOTP, by counter; only TOTP is taken"));
        }
        Some(_) => return Err(Fault::new("its type is not totp")),
    }
    let username = match table {
        Table::Oath { has_user: true } => {
            let (user, realm) = (whose(0), whose(2));
            owners.require_realm(realm)?;
            given(user).map(str::to_owned)
        }
        Table::Oath { has_user: false } => None,
        Table::Janitor => owners.username(whose(0))?,
    };
    let key = field(1).ok_or_else(|| Fault::new("it has no secret"))?;
    let secret = OtpKey(key).secret(secrets)?;
    // Neither table names the hash. privacyIDEA takes it from the length of the secret.
    let algorithm = match secret.base32().len() {
        52 => "sha256",
        103 => "sha512",
        _ => "sha1",
    };
    Ok(Draft {
        username,
        secret: Some(secret),
        algorithm: Some(algorithm.to_owned()),
        digits: field(3).map(str::to_owned),
        period: field(4).filter(|it| *it != "None").map(str::to_owned),
        name: field(0).map(str::to_owned),
        ..Draft::default()
    })
}

/// A secret in hexadecimal, or with `--b32` in base32: lower case tells the one from the other.
pub(super) struct OtpKey<'a>(pub(super) &'a str);

impl OtpKey<'_> {
    pub(super) fn secret(&self, secrets: SecretRule) -> Result<Secret, Fault> {
        let is_hex = |it: u8| it.is_ascii_digit() || matches!(it, b'a'..=b'f');
        let has_base32_only = self.0.bytes().any(|it| it.is_ascii_uppercase());
        let is_upper_hex = self.0.bytes().all(|it| it.is_ascii_hexdigit())
            && self
                .0
                .bytes()
                .any(|it| matches!(it, b'0' | b'1' | b'8' | b'9'));
        if self.0.bytes().all(is_hex) || is_upper_hex || !has_base32_only {
            secrets.hex(self.0)
        } else {
            secrets.base32(self.0)
        }
    }
}

/// The owners of tokens. Users of two realms may have the same name, so a file may hold one realm only.
#[derive(Default)]
pub(super) struct Owners {
    realm: Option<String>,
}

impl Owners {
    /// The username in `login@realm`. `None`: the token has no user.
    pub(super) fn username(&mut self, owner: &str) -> Result<Option<String>, Fault> {
        if matches!(owner, "" | "n/a") {
            return Ok(None);
        }
        let (login, realm) = owner.rsplit_once('@').unwrap_or((owner, ""));
        self.require_realm(realm)?;
        Ok(given(login).map(str::to_owned))
    }

    fn require_realm(&mut self, realm: &str) -> Result<(), Fault> {
        let first = self.realm.get_or_insert_with(|| realm.to_owned());
        if first == realm {
            Ok(())
        } else {
            let reason = "it is of another realm than the first one; export and import each by itself (--org)";
            Err(Fault::new(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_by_their_columns() {
        for (head, expected) in [
            (
                "S1, 00aa, TOTP, 6, 30\n",
                Some(Table::Oath { has_user: false }),
            ),
            (
                "# version: 2\nalice, r, realm, S1, 00aa, totp, 6, 30\n",
                Some(Table::Oath { has_user: true }),
            ),
            (
                "#version:2\n\nalice, r, realm, S1, 00aa, hotp\n",
                Some(Table::Oath { has_user: true }),
            ),
            ("alice@realm, S1, 00aa, totp, 6, 30", Some(Table::Janitor)),
            ("alice,secret,totp2\n", None),
            ("", None),
        ] {
            assert_eq!(table(head), expected, "{head}");
        }
    }

    #[test]
    fn hexadecimal_and_base32_are_told_apart() {
        let rule = SecretRule {
            allows_short: false,
        };
        for (text, bytes) in [
            ("3132333435363738393031323334353637383930", 20),
            ("3132333435363738393031323334353637AABBCC", 20),
            ("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", 20),
            ("abcdefabcdefabcdefabcdefabcdefab", 16),
        ] {
            let secret = OtpKey(text).secret(rule).ok().unwrap();
            assert_eq!(secret.base32().len() * 5 / 8, bytes, "{text}");
        }
    }
}
