//! Tables: CSV whose header names the columns, of any program, Authelia's and totpd's own among them.

use csv::{ByteRecord, ReaderBuilder};
use totpd::error::{Error, Result};
use totpd::model::Name;
use totpd::service::ExportedUser;

use super::fields::{self, Draft, Fault, SecretRule, given};
use super::input::{Source, refused};
use super::{Place, ReadOptions, Sink, otpauth};

/// The longest record.
const RECORD_BYTES: u64 = 1 << 20;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    UserId,
    Username,
    /// In base32.
    Secret,
    HexSecret,
    /// A URI, or a secret in base32 alone.
    Uri,
    Algorithm,
    Digits,
    Period,
    Name,
    Kind,
    Created,
    /// The organization that totpd exported the user from.
    Organization,
    /// Whose service it is: ours.
    Issuer,
    Other,
}

/// The columns by the names that programs give them, without blanks, hyphens and underscores.
const NAMES: [(Column, &[&str]); 13] = [
    (Column::UserId, &["userid", "uid"]),
    (
        Column::Username,
        &[
            "username",
            "user",
            "login",
            "loginname",
            "loginusername",
            "account",
            "accountname",
            "email",
        ],
    ),
    (
        Column::Secret,
        &[
            "secret",
            "totpsecret",
            "otpsecret",
            "mfasecret",
            "base32",
            "secretbase32",
            "secretkey",
            "key",
            "seed",
        ],
    ),
    (
        Column::HexSecret,
        &["hexseed", "hexsecret", "secrethex", "hexkey"],
    ),
    (
        Column::Uri,
        &[
            "uri",
            "url",
            "otpauth",
            "otpauthuri",
            "otpauthurl",
            "totp",
            "logintotp",
        ],
    ),
    (Column::Algorithm, &["algorithm", "algo", "hash", "hashlib"]),
    (
        Column::Digits,
        &["digits", "otplen", "length", "codelength"],
    ),
    (
        Column::Period,
        &["period", "step", "timestep", "interval", "stepsize"],
    ),
    (
        Column::Name,
        &[
            "name",
            "label",
            "description",
            "device",
            "devicename",
            "userlabel",
        ],
    ),
    (Column::Kind, &["type", "tokentype"]),
    (Column::Created, &["created", "createdat", "creationdate"]),
    (Column::Issuer, &["issuer"]),
    (
        Column::Organization,
        &["organization", "organizationid", "orgid"],
    ),
];

fn column(name: &str) -> Column {
    let kept = name
        .chars()
        .filter(|it| !matches!(it, ' ' | '_' | '-' | '.' | '"'));
    let plain = kept.collect::<String>().to_lowercase();
    let found = NAMES
        .iter()
        .find(|(_, names)| names.contains(&plain.as_str()));
    found.map_or(Column::Other, |(column, _)| *column)
}

/// The separator of a header: the one of three that occurs most.
fn separator(header: &str) -> u8 {
    let count = |it: u8| header.bytes().filter(|byte| *byte == it).count();
    let mut all = [b',', b';', b'\t'];
    // Stable, so that of equals the comma is the last and is taken.
    all.sort_by_key(|it| (count(*it), *it == b','));
    all.last().copied().unwrap_or(b',')
}

fn header(head: &str) -> Option<&str> {
    head.lines().find(|it| !it.trim().is_empty())
}

/// Whether the first line names a column with secrets, and one with users if there are several.
pub(super) fn has_header(head: &str) -> bool {
    let Some(line) = header(head) else {
        return false;
    };
    let columns: Vec<Column> = line
        .split(char::from(separator(line)))
        .map(column)
        .collect();
    is_header(&columns)
}

fn is_header(columns: &[Column]) -> bool {
    let has = |it: Column| columns.contains(&it);
    has(Column::Uri) || has(Column::Secret) || has(Column::HexSecret)
}

/// Reads a table.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    let separator = separator(header(source.head()).unwrap_or_default());
    let records = source.records(RECORD_BYTES);
    let mark = records.mark();
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .from_reader(records);
    let mut record = ByteRecord::new();
    let mut columns: Option<Vec<Column>> = None;
    let mut organization = None;
    loop {
        let is_there = reader.read_byte_record(&mut record);
        // Its message may repeat what is in the file.
        let is_there = is_there.map_err(|error| {
            let line = error
                .position()
                .map_or_else(|| reader.position().line(), csv::Position::line);
            refused(format!(
                "the table cannot be read after line {line}: is a quote left open?"
            ))
        })?;
        if !is_there {
            break;
        }
        mark();
        let place = Place::Line(record.position().map_or(0, csv::Position::line));
        if record.iter().all(|it| it.trim_ascii().is_empty()) {
            continue;
        }
        let Some(known) = &columns else {
            columns = Some(columns_of(&record)?);
            continue;
        };
        let row = draft(&record, known, options.secrets).and_then(|(draft, org)| {
            fields::require_same_organization(&mut organization, org.as_deref())?;
            options.finish(draft)
        });
        sink(place, row)?;
    }
    let unknown = columns.iter().flatten().zip(1_usize..);
    let numbers = unknown
        .filter(|(it, _)| **it == Column::Other)
        .map(|(_, number)| number.to_string());
    let numbers = numbers.collect::<Vec<_>>().join(", ");
    if !numbers.is_empty() {
        source.notes.push(format!(
            "columns that are not known, and are left out: {numbers}"
        ));
    }
    Ok(())
}

/// The columns that the header names.
fn columns_of(record: &ByteRecord) -> Result<Vec<Column>> {
    let name = |it: &[u8]| column(String::from_utf8_lossy(it).trim());
    let columns: Vec<Column> = record.iter().map(name).collect();
    if !is_header(&columns) {
        return Err(refused(
            "line 1 is no header that names a column `secret`, `hexseed` or `uri`; see docs/import.md",
        ));
    }
    for (index, column) in columns.iter().enumerate() {
        let before = columns.iter().take(index);
        if *column != Column::Other && before.into_iter().any(|it| it == column) {
            let number = index.saturating_add(1);
            return Err(refused(format!(
                "column {number} names what an earlier one does"
            )));
        }
    }
    Ok(columns)
}

/// The fields of a record, and the organization that it names.
fn draft(
    record: &ByteRecord,
    columns: &[Column],
    secrets: SecretRule,
) -> Result<(Draft, Option<String>), Fault> {
    if record.len() < columns.len() {
        return Err(Fault::new("it has fewer fields than the header"));
    }
    if record.len() > columns.len() {
        return Err(Fault::new("it has more fields than the header"));
    }
    let mut fields = Vec::with_capacity(columns.len());
    for (column, bytes) in columns.iter().zip(record) {
        let text = str::from_utf8(bytes).map_err(|_| Fault::new("it is not UTF-8"))?;
        fields.extend(given(text).map(|it| (*column, it)));
    }
    let field = |column: Column| {
        fields
            .iter()
            .find(|(it, _)| *it == column)
            .map(|(_, text)| *text)
    };
    if field(Column::Kind).is_some_and(|it| !it.eq_ignore_ascii_case("totp")) {
        return Err(Fault::new("its type is not totp"));
    }
    let mut draft = match field(Column::Uri) {
        Some(uri) => otpauth::entry(uri, secrets)?,
        None => Draft::default(),
    };
    match (field(Column::Secret), field(Column::HexSecret)) {
        (Some(_), Some(_)) => return Err(Fault::new("it has two secrets")),
        (Some(_), None) | (None, Some(_)) if draft.secret.is_some() => {
            return Err(Fault::new("it has two secrets"));
        }
        (Some(base32), None) => draft.secret = Some(secrets.base32(base32)?),
        (None, Some(hex)) => draft.secret = Some(secrets.hex(hex)?),
        (None, None) => {}
    }
    // What a column says comes before what the URI says.
    for (column, into) in [
        (Column::UserId, &mut draft.user_id),
        (Column::Username, &mut draft.username),
        (Column::Algorithm, &mut draft.algorithm),
        (Column::Digits, &mut draft.digits),
        (Column::Period, &mut draft.period),
        (Column::Name, &mut draft.name),
    ] {
        if let Some(text) = field(column) {
            *into = Some(text.to_owned());
        }
    }
    draft.created = field(Column::Created).map(fields::time).transpose()?;
    Ok((draft, field(Column::Organization).map(str::to_owned)))
}

/// The header of an export.
pub(super) const HEADER: &str =
    "user_id,username,organization,name,algorithm,digits,period,secret,created\n";

/// The records of a user.
pub(super) fn rows(user: &ExportedUser) -> Result<String> {
    let bug = |error: csv::Error| Error::Bug(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    let username = user.usernames.first().map_or("", |it| it.username.as_str());
    for it in &user.totps {
        let record = [
            user.id.as_str(),
            username,
            user.org.as_str(),
            it.name.as_ref().map_or("", Name::as_str),
            it.parameters.algorithm.name(),
            &it.parameters.digits.to_string(),
            &it.parameters.period.seconds().to_string(),
            &it.secret.base32(),
            &it.created.to_string(),
        ];
        writer.write_record(record).map_err(bug)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| Error::Bug(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Error::Bug(error.utf8_error().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_their_usual_names() {
        for (name, expected) in [
            ("User Name", Column::Username),
            ("login_username", Column::Username),
            ("TOTP-Secret", Column::Secret),
            ("hexseed", Column::HexSecret),
            ("login_totp", Column::Uri),
            ("time_step", Column::Period),
            ("user_id", Column::UserId),
            ("favourite colour", Column::Other),
        ] {
            assert_eq!(column(name), expected, "{name}");
        }
    }

    #[test]
    fn the_separator_is_the_one_that_the_header_uses() {
        for (header, expected) in [
            ("user,secret", b','),
            ("user;secret;a,b", b';'),
            ("user\tsecret", b'\t'),
            ("secret", b','),
        ] {
            assert_eq!(separator(header), expected, "{header}");
        }
        assert!(has_header("username,secret\n"));
        assert!(has_header("\n\"issuer\";\"username\";\"secret\"\n"));
        assert!(!has_header("alice,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n"));
        assert!(!has_header("name,address\nalice,secret\n"));
    }
}
