//! What every group of marks is handed: its directory, how long and how large, and which marks are wanted.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::mark::Mark;

/// Where those lie that are removed one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Anywhere in the file, as people lose their phones: each has pages of its own.
    Scattered,
    /// One beside the other.
    Neighbours,
}

/// How long and how large.
pub(crate) struct Sizes {
    pub(crate) rounds: u32,
    pub(crate) order: Order,
    /// Of one load.
    pub(crate) time: Duration,
    /// Of one measurement of the floor.
    pub(crate) floor_time: Duration,
    /// Authenticators in an ordinary file.
    pub(crate) rows: i64,
    /// Authenticators whose codes are checked.
    pub(crate) phones: usize,
    /// Authenticators in the large file of marks 7 and 9.
    pub(crate) many: i64,
    /// Slices of mark 7 in a round.
    pub(crate) slices: u32,
}

/// What every group of marks is handed.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) sizes: Sizes,
    pub(crate) wanted: Vec<Mark>,
    pub(crate) soak: Option<Duration>,
    /// Whether mark 3 is measured with scrapes too.
    pub(crate) scraped: bool,
}

impl Bench {
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn wants(&self, mark: impl Into<Mark>) -> bool {
        self.wanted.contains(&mark.into())
    }

    /// Whether all marks are measured.
    pub(crate) fn is_whole(&self) -> bool {
        Mark::by_default().iter().all(|it| self.wants(*it))
    }

    pub(crate) fn wants_any<M: Into<Mark> + Copy>(&self, marks: &[M]) -> bool {
        marks.iter().any(|it| self.wants(*it))
    }
}

/// Prints the progress.
pub(crate) fn tell(what: impl Display) {
    eprintln!("{what}");
}
