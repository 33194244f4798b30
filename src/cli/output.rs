//! What commands print: lines and tables for people, one document for programs.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use totpd::error::{Error, Result};

/// How to answer.
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints the document, or what `text` makes for a person.
    pub(super) fn answer(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        if self.json {
            let document = serde_json::to_string(document);
            print_answer(&document.map_err(|error| Error::Bug(error.to_string()))?)
        } else {
            print_answer(&text())
        }
    }

    /// The same after a change, of which `done` says what it was. An answer that nobody gets must not pass for a
    /// failed change, nor for a good one: a token or a secret is shown once.
    pub(super) fn answer_change(
        &self,
        done: &str,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        let text = if self.json {
            let document = serde_json::to_string(document);
            document.map_err(|error| Error::Bug(format!("{done}, but no answer: {error}")))?
        } else {
            text()
        };
        writeln!(io::stdout().lock(), "{text}").map_err(|error| {
            let problem = format!("{done}, but the answer cannot be written: {error}");
            Error::invalid("stdout", problem)
        })
    }
}

/// The text of a cell. Columns stand two blanks apart: text with two blanks in a row, or with a blank that is not U+0020,
/// could pass for several cells, and is quoted.
fn cell(text: &str) -> String {
    let is_odd = |it: char| it != ' ' && (it.is_whitespace() || it.is_control());
    if text.contains("  ") || text.contains(is_odd) || text.starts_with('"') {
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

/// Columns under their heads, as wide as they need to be.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|it| (*it).to_owned()).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|it| cell(it)).collect())
        .collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(&rows).collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|it| it.get(column))
            .map(|it| it.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An answer on stdout. A reader that closes the pipe early has seen enough; a full disk is a failure.
fn print_answer(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::invalid(
            "stdout",
            format!("the answer cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}

/// One text on stdout, beside other work that goes on whether or not anybody reads it.
pub(super) fn print_line(text: &str) {
    let _gone = writeln!(io::stdout().lock(), "{text}");
}

/// One line on stderr. A control character in what was typed is shown, not sent to the terminal.
pub(super) fn print_error(text: &str) {
    let mut line = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '\n' => line.push(' '),
            it if it.is_control() => line.extend(it.escape_default()),
            it => line.push(it),
        }
    }
    let _gone = writeln!(io::stderr().lock(), "totpd: {line}");
}

/// One text on stderr, as it is.
pub(super) fn print_to_stderr(text: &str) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person looks at stdout.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_forges_a_column() {
        for plain in ["", "Pixel 9", "née", "o'neil", "a\\b", "two \"words\""] {
            assert_eq!(cell(plain), plain);
        }
        for (odd, quoted) in [
            ("phone  confirmed", "\"phone  confirmed\""),
            ("a\u{a0}b", "\"a\\u{a0}b\""),
            ("a\u{3000}b", "\"a\\u{3000}b\""),
            ("a\tb", "\"a\\tb\""),
            ("\"a  b\"", "\"\\\"a  b\\\"\""),
            ("\"a\"", "\"\\\"a\\\"\""),
        ] {
            assert_eq!(cell(odd), quoted);
        }
    }
}
