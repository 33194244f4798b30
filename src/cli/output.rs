//! Printing: text and tables for people, one JSON document for programs.

use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use totpd::error::{Error, Result};

/// The format of a command's answer.
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints the document as JSON, or the text that `text` returns.
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

    /// Prints one line of an answer that goes on. Returns whether it was taken: a closed pipe is not an error.
    pub(super) fn line(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<bool> {
        let line = if self.json {
            let document = serde_json::to_string(document);
            document.map_err(|error| Error::Bug(error.to_string()))?
        } else {
            text()
        };
        write_line(&line)
    }

    /// The same after a change, which `done` describes. If the answer cannot be written, the error says that the change was
    /// made: the operator must know, and a token or secret in the answer is lost.
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

/// The text of a table cell. Columns are two spaces apart, so text that could look like several cells is quoted: two
/// spaces in a row, or other whitespace than U+0020.
fn cell(text: &str) -> String {
    let is_odd = |it: char| it != ' ' && (it.is_whitespace() || it.is_control());
    if text.contains("  ") || text.contains(is_odd) || text.starts_with('"') {
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

/// A table with a head line, its columns aligned.
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

/// Prints an answer to stdout. A closed pipe is not an error, because the reader wanted no more; a full disk is one.
fn print_answer(text: &str) -> Result<()> {
    write_line(text).map(|_| ())
}

/// Writes a line to stdout. Returns whether there was a reader.
fn write_line(text: &str) -> Result<bool> {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::invalid(
            "stdout",
            format!("the answer cannot be written: {error}"),
        )),
    }
}

/// Whether stdout still has a reader, as far as the system tells.
pub(super) fn has_reader() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    let told = poll(&mut polled, Some(&at_once));
    told.is_err() || polled.iter().all(|it| !it.revents().intersects(gone))
}

/// A value in a line of `name=value`: quoted where it could be read as more than one.
pub(super) fn word(text: &str) -> String {
    let is_odd = |it: char| it.is_whitespace() || it.is_control() || it == '"';
    if text.is_empty() || text.contains(is_odd) {
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

/// Prints a line to stdout and ignores errors, for text that other work must not depend on.
pub(super) fn print_line(text: &str) {
    let _gone = writeln!(io::stdout().lock(), "{text}");
}

/// Prints one line to stderr. Escapes control characters, which the terminal would interpret.
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

/// Prints text to stderr unchanged.
pub(super) fn print_to_stderr(text: &str) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// Whether stdout is a terminal.
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
