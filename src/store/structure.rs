//! Checks that a file has exactly the tables and indexes of totpd's schema (SECURITY.md 46).
//!
//! A file may come from elsewhere: a changed backup could have a trigger that inserts removed rows again, or lack a
//! table. The expected structure is created in memory from the schema, so that it is written only once. Statements are
//! compared as tokens, because an upgraded file stores them in another form than a new one. The comparison ignores only
//! comments, blanks, and the order of a table's columns and constraints. Litestream's two tables are accepted where the
//! settings name it.

use std::path::Path;
use std::sync::OnceLock;

use rusqlite::Connection;

use super::file::{SCHEMA, refused};
use super::{ReadTx, instance, unavailable};
use crate::error::{Error, Result};

/// A file with a higher id is refused. If the highest possible number is in use, SQLite assigns random ones, and events
/// would lose their order.
const HIGHEST_ID: i64 = i64::MAX - (1 << 56);

/// The tables that Litestream creates in a database that it replicates.
const LITESTREAM: &str = "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
    CREATE TABLE _litestream_lock (id INTEGER);";

/// A table or an index with its statement in comparable form. An index that SQLite creates by itself has no statement.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SchemaObject {
    kind: String,
    name: String,
    table: String,
    statement: Option<Vec<Vec<String>>>,
}

/// Refuses a file that has anything but ordinary tables and indexes. Called before an upgrade, which reads and writes the
/// tables of the file.
pub(super) fn require_tables_and_indexes(connection: &Connection, path: &Path) -> Result<()> {
    const SQL: &str = "SELECT type, name FROM main.sqlite_schema
        WHERE type NOT IN ('table', 'index') OR coalesce(rootpage, 0) < 2 LIMIT 1";
    let found = connection.query_row(SQL, (), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    });
    match found {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(()),
        Err(error) => Err(super::file::open_error(path, &error)),
        Ok((kind, name)) => Err(foreign(path, &unknown(&kind, &name))),
    }
}

/// Refuses a file whose structure is not that of the present version, or that has no ids left.
pub(super) fn require(connection: &Connection, path: &Path) -> Result<()> {
    let may_have_litestream = instance::is_litestreams(connection).unwrap_or(false);
    require_structure(connection, path, may_have_litestream)
}

/// As [`require`], and accepts Litestream's tables whatever the settings say.
pub(super) fn require_beside_litestream(connection: &Connection, path: &Path) -> Result<()> {
    require_structure(connection, path, true)
}

fn require_structure(
    connection: &Connection,
    path: &Path,
    may_have_litestream: bool,
) -> Result<()> {
    let found = read(connection).map_err(|error| super::file::open_error(path, &error))?;
    if let Some(difference) = first_difference(found, may_have_litestream)? {
        return Err(foreign(path, &difference));
    }
    require_free_ids(connection, path)
}

fn foreign(path: &Path, what: &str) -> Error {
    let advice = if what.contains("\"_litestream_") {
        "if Litestream copies it, run `totpd settings set checkpoints=litestream`; else restore a backup"
    } else {
        "restore a backup"
    };
    refused(
        path,
        &format!("this is not a database as totpd makes it: {what}; {advice}"),
    )
}

impl ReadTx<'_> {
    /// Fails if the structure differs from the schema.
    pub(crate) fn require_structure(&self) -> Result<()> {
        self.require_time()?;
        let found = read(self.connection).map_err(unavailable)?;
        let may_have_litestream = instance::is_litestreams(self.connection).unwrap_or(false);
        match first_difference(found, may_have_litestream)? {
            None => Ok(()),
            Some(it) => Err(Error::Unavailable(format!("the database: {it}"))),
        }
    }
}

fn require_free_ids(connection: &Connection, path: &Path) -> Result<()> {
    let number = |sql: &str| {
        let found = connection.query_row(sql, (), |row| row.get::<_, Option<i64>>(0));
        match found {
            Ok(it) => Ok(it),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    };
    let is_too_high = |it: Option<i64>| it.is_some_and(|it| it > HIGHEST_ID);
    if is_too_high(number("SELECT last_id FROM main.instance WHERE one = 1")?) {
        return Err(foreign(path, "its ids are at the end of their range"));
    }
    for part in expected()?.iter().filter(|it| it.has_row_numbers()) {
        let name = &part.name;
        let lowest = number(&format!("SELECT min(rowid) FROM main.\"{name}\""))?;
        let highest = number(&format!("SELECT max(rowid) FROM main.\"{name}\""))?;
        if lowest.is_some_and(|it| it < 1) || is_too_high(highest) {
            let what = format!("the rows of table {name} have numbers that totpd never gives");
            return Err(foreign(path, &what));
        }
    }
    Ok(())
}

impl SchemaObject {
    /// Whether this is a table with row numbers.
    fn has_row_numbers(&self) -> bool {
        let without = ["without".to_owned(), "rowid".to_owned()];
        let statement = self.statement.as_ref();
        self.kind == "table" && !statement.is_some_and(|it| it.iter().any(|it| *it == without))
    }
}

/// The structure of the present version.
fn expected() -> Result<&'static [SchemaObject]> {
    static EXPECTED: OnceLock<Vec<SchemaObject>> = OnceLock::new();
    if let Some(it) = EXPECTED.get() {
        return Ok(it);
    }
    let parts = structure_of(SCHEMA)?;
    Ok(EXPECTED.get_or_init(|| parts))
}

fn structure_of(schema: &str) -> Result<Vec<SchemaObject>> {
    let fresh = Connection::open_in_memory().map_err(unavailable)?;
    fresh.execute_batch(schema).map_err(unavailable)?;
    read(&fresh).map_err(unavailable)
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<SchemaObject>> {
    const SQL: &str = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema";
    let mut statement = connection.prepare_cached(SQL)?;
    let rows = statement.query_map((), |row| {
        let sql: Option<String> = row.get(3)?;
        Ok(SchemaObject {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            statement: sql.map(|it| comparable(&it)),
        })
    })?;
    let mut parts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    parts.sort_unstable();
    Ok(parts)
}

/// Describes the first difference from the expected structure.
fn first_difference(
    mut found: Vec<SchemaObject>,
    may_have_litestream: bool,
) -> Result<Option<String>> {
    let expected = expected()?;
    if found == expected {
        return Ok(None);
    }
    if may_have_litestream {
        let litestreams = structure_of(LITESTREAM)?;
        found.retain(|it| !litestreams.contains(it));
        if found == expected {
            return Ok(None);
        }
    }
    let is_named =
        |it: &SchemaObject, other: &SchemaObject| it.kind == other.kind && it.name == other.name;
    let known = |it: &&SchemaObject| expected.iter().any(|other| is_named(it, other));
    if let Some(it) = found.iter().find(|it| !known(it)) {
        return Ok(Some(unknown(&it.kind, &it.name)));
    }
    // Tables come first, because a missing table lacks its indexes too.
    let differs = expected.iter().rev().find_map(|it| {
        let other = found.iter().find(|other| is_named(it, other));
        match other {
            None => Some(format!("the {} {} is missing", it.kind, it.name)),
            Some(other) if other != it => {
                Some(format!("the {} {} is another one", it.kind, it.name))
            }
            Some(_) => None,
        }
    });
    Ok(Some(differs.unwrap_or_else(|| {
        "something is there more than once".to_owned()
    })))
}

fn unknown(kind: &str, name: &str) -> String {
    format!("the {kind} {name:?} is not one of totpd's")
}

/// A statement in the form that is compared. For a table: the tokens before its columns; its columns and constraints,
/// sorted; its options, sorted. For an index: all tokens in order.
fn comparable(sql: &str) -> Vec<Vec<String>> {
    let tokens = tokens(sql);
    if tokens.get(1).is_none_or(|it| it != "table") {
        return vec![tokens];
    }
    let (mut head, mut body, mut options) = (Vec::new(), vec![Vec::new()], vec![Vec::new()]);
    let (mut depth, mut has_body) = (0_u32, false);
    for token in tokens {
        let outer = depth;
        match token.as_str() {
            "(" => depth = depth.saturating_add(1),
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (outer, depth, has_body) {
            // The parenthesis before the columns.
            (0, 1, false) => has_body = true,
            (1, 0, true) => {}
            (0, _, false) => head.push(token),
            (0, _, true) => add(&mut options, token, true),
            _ => add(&mut body, token, outer == 1 && depth == 1),
        }
    }
    body.sort_unstable();
    options.sort_unstable();
    let border = || vec![vec!["(".to_owned()]];
    [vec![head], border(), body, border(), options].concat()
}

/// Adds a token to the last of `parts`. A comma outside parentheses begins a new part.
fn add(parts: &mut Vec<Vec<String>>, token: String, is_outermost: bool) {
    if is_outermost && token == "," {
        parts.push(Vec::new());
    } else if let Some(part) = parts.last_mut() {
        part.push(token);
    }
}

/// The tokens of a statement as SQLite's tokenizer splits it, without comments and blanks. Words are in lower case. A
/// table's name loses the quotes that a renaming adds.
fn tokens(sql: &str) -> Vec<String> {
    if sql.contains('\0') {
        // SQLite stops at a NUL. No statement of the schema has one.
        return vec![sql.to_owned()];
    }
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ' ' | '\t' | '\n' | '\x0C' | '\r' => {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            '-' if rest.starts_with("--") => {
                rest = rest
                    .find('\n')
                    .and_then(|it| rest.get(it..))
                    .unwrap_or_default();
                continue;
            }
            '/' if rest.starts_with("/*") => {
                let inner = rest.get(2..).unwrap_or_default();
                let end = inner.find("*/").map(|it| it.saturating_add(2));
                rest = end.and_then(|it| inner.get(it..)).unwrap_or_default();
                continue;
            }
            '\'' | '"' | '`' => quoted_length(rest, first),
            '[' => rest.find(']').map_or(rest.len(), |it| it.saturating_add(1)),
            it if is_word_character(it) => {
                rest.find(|it| !is_word_character(it)).unwrap_or(rest.len())
            }
            it => it.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        let follows_table = tokens
            .last()
            .is_some_and(|it| ["table", "references", "on"].contains(&it.as_str()));
        let inner = token.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        tokens.push(match inner {
            Some(name) if follows_table && name.chars().all(is_word_character) => {
                name.to_ascii_lowercase()
            }
            _ if first == '\'' || first == '"' || first == '`' || first == '[' => token.to_owned(),
            _ => token.to_ascii_lowercase(),
        });
        rest = after;
    }
    tokens
}

fn is_word_character(it: char) -> bool {
    it.is_ascii_alphanumeric() || it == '_' || it == '$' || !it.is_ascii()
}

/// The length of the quoted token at the start of `text`. A quote inside is doubled.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut inside = text.char_indices().skip(1).peekable();
    while let Some((at, it)) = inside.next() {
        if it == quote && inside.next_if(|(_, next)| *next == quote).is_none() {
            return at.saturating_add(1);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
