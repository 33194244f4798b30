//! Who checkpoints the WAL.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::error::{Error, Result};

/// Who copies the WAL into the database and empties it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpointer {
    /// totpd itself, within 60 s of the last write.
    Own,
    /// Litestream, once it has copied the WAL to its replica. totpd leaves the WAL alone.
    Litestream,
}

impl Checkpointer {
    /// The name in the settings and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Litestream => "litestream",
        }
    }
}

impl Display for Checkpointer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Checkpointer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "own" => Ok(Self::Own),
            "litestream" => Ok(Self::Litestream),
            _ => Err(Error::invalid("checkpoints", "expected own or litestream")),
        }
    }
}
