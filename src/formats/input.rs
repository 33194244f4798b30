//! The file that an import reads: its beginning, its lines, or all of it, within bounds.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use totpd::error::{Error, Result};

/// The part of a file by which its format is recognized.
const HEAD_BYTES: usize = 64 << 10;
/// The longest line of a list. A URI of Google's export with ten authenticators has 2 KiB.
pub(crate) const LINE_BYTES: usize = 64 << 10;
/// The largest document that is read as a whole: YAML, JSON and XML.
pub(crate) const DOCUMENT_BYTES: u64 = 16 << 20;

/// An open file.
pub(crate) struct Source {
    reader: Box<dyn BufRead>,
    head: String,
    line: u64,
    ends_with_newline: bool,
    /// How many bytes were read. A guard of the reader counts them too.
    read: Rc<Cell<u64>>,
    size: Option<u64>,
    /// What the person should know about the file besides its rows.
    pub(crate) notes: Vec<String>,
}

/// A line of a file.
pub(crate) struct Line {
    pub(crate) number: u64,
    /// `None`: it is not UTF-8.
    pub(crate) text: Option<String>,
}

/// How much of a file was read.
pub(crate) struct Progress {
    read: Rc<Cell<u64>>,
    size: Option<u64>,
}

impl Progress {
    /// In percent, where the size is known.
    pub(crate) fn percent(&self) -> Option<u64> {
        let whole = self.size.filter(|it| *it > 0)?;
        let percent = self.read.get().saturating_mul(100).checked_div(whole)?;
        Some(percent.min(100))
    }
}

/// A reader that counts.
struct Counted<R> {
    inner: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        self.read.set(self.read.get().saturating_add(more));
        Ok(count)
    }
}

/// What errors call a file, whose name is not known here.
pub(crate) const FILE: &str = "FILE";

/// The error for a file that is refused as a whole.
pub(crate) fn refused(problem: impl Into<String>) -> Error {
    Error::invalid(FILE, problem.into())
}

fn unreadable(error: &io::Error) -> Error {
    refused(format!("cannot be read: {error}"))
}

impl Source {
    /// Opens a file or a pipe. Refuses what is no text in UTF-8 by its beginning.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|it| unreadable(&it))?;
        let about = file.metadata().map_err(|it| unreadable(&it))?;
        if about.is_dir() {
            return Err(refused("it is a directory"));
        }
        let size = about.is_file().then_some(about.len());
        Self::of_reader(file, size)
    }

    pub(crate) fn of_reader(inner: impl Read + 'static, size: Option<u64>) -> Result<Self> {
        let read = Rc::new(Cell::new(0));
        let mut inner = Counted {
            inner,
            read: Rc::clone(&read),
        };
        let mut head = Vec::new();
        let most = u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
        let taken = inner.by_ref().take(most).read_to_end(&mut head);
        taken.map_err(|it| unreadable(&it))?;
        let bom: &[u8] = "\u{feff}".as_bytes();
        if head.starts_with(bom) {
            head.drain(..bom.len());
        }
        let text = judge_head(&head)?;
        Ok(Self {
            reader: Box::new(BufReader::new(Cursor::new(head).chain(inner))),
            head: text,
            line: 0,
            ends_with_newline: true,
            read,
            size,
            notes: Vec::new(),
        })
    }

    /// The beginning of the file.
    pub(crate) fn head(&self) -> &str {
        &self.head
    }

    /// Tells how much of the file was read, while it is read.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            read: Rc::clone(&self.read),
            size: self.size,
        }
    }

    /// Whether the last line that was read ends as a line does. If not, the file may have been cut off.
    pub(crate) fn ends_with_newline(&self) -> bool {
        self.ends_with_newline
    }

    /// The next line that is not empty, without its end. Fails if it is longer than `most` bytes.
    pub(crate) fn next_line(&mut self, most: usize) -> Result<Option<Line>> {
        loop {
            let mut bytes = Vec::new();
            let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            let taken = self
                .reader
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut bytes);
            if taken.map_err(|it| unreadable(&it))? == 0 {
                return Ok(None);
            }
            self.line = self.line.saturating_add(1);
            self.ends_with_newline = bytes.ends_with(b"\n");
            if bytes.len() > most {
                let problem = format!("line {} is longer than {} KiB", self.line, most >> 10);
                return Err(refused(problem));
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let text = String::from_utf8(bytes).ok();
            return Ok(Some(Line {
                number: self.line,
                text: text.map(|it| it.trim().to_owned()),
            }));
        }
    }

    /// All of the file, if it is no longer than a document may be.
    pub(crate) fn whole(&mut self) -> Result<String> {
        let large =
            || refused("it is larger than 16 MiB, the most for YAML, JSON and XML; split it");
        if self.size.is_some_and(|it| it > DOCUMENT_BYTES) {
            return Err(large());
        }
        let mut bytes = Vec::new();
        let limit = DOCUMENT_BYTES.saturating_add(1);
        let taken = self.reader.by_ref().take(limit).read_to_end(&mut bytes);
        let taken = taken.map_err(|it| unreadable(&it))?;
        if u64::try_from(taken).is_ok_and(|it| it > DOCUMENT_BYTES) {
            return Err(large());
        }
        String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8"))
    }

    /// The rest of the file for a reader of records, of which none may be longer than `most` bytes.
    pub(crate) fn records(&mut self, most: u64) -> Records<'_> {
        Records {
            reader: &mut *self.reader,
            left: Rc::new(Cell::new(most)),
            most,
        }
    }
}

/// Refuses what is no text in UTF-8. The end may be within a character.
fn judge_head(head: &[u8]) -> Result<String> {
    if head.trim_ascii().is_empty() {
        return Err(refused("it is empty"));
    }
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(refused("it is UTF-16; save it as UTF-8"));
    }
    if head.contains(&0) {
        return Err(refused("it is no text in UTF-8"));
    }
    Ok(String::from_utf8_lossy(head).into_owned())
}

/// A reader that fails where a record is too long, so that a quote which never ends takes no memory.
pub(crate) struct Records<'a> {
    reader: &'a mut dyn BufRead,
    left: Rc<Cell<u64>>,
    most: u64,
}

impl Records<'_> {
    /// A handle that tells the reader of each record that was read.
    pub(crate) fn mark(&self) -> impl Fn() + use<> {
        let (left, most) = (Rc::clone(&self.left), self.most);
        move || left.set(most)
    }
}

impl Read for Records<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(
                "a record is too long; is a quote left open?",
            ));
        }
        let count = self.reader.read(into)?;
        let less = u64::try_from(count).unwrap_or(u64::MAX);
        self.left.set(self.left.get().saturating_sub(less));
        Ok(count)
    }
}
