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
            print(&document.map_err(|error| Error::Bug(error.to_string()))?)
        } else {
            print(&text())
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

/// Columns under their heads, as wide as they need to be.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|it| (*it).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(rows).collect();
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
fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::invalid(
            "stdout",
            format!("the answer cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}

/// One text on stdout, beside other work that goes on whether or not anybody reads it.
pub(super) fn say(text: &str) {
    let _gone = writeln!(io::stdout().lock(), "{text}");
}

/// One line on stderr. A control character in what was typed is shown, not sent to the terminal.
pub(super) fn complain(text: &str) {
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
pub(super) fn say_on_stderr(text: &str) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person looks at stdout.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
