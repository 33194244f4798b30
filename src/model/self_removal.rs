//! What `self` tokens need to change the authenticators of their user.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Whether a `self` token may change what its user logs in with by itself, or only together with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelfRemoval {
    /// The token is enough.
    #[default]
    Allow,
    /// While the user has a confirmed authenticator, a current code or a recovery code is needed too. So a stolen token
    /// removes nothing.
    Code,
}

impl SelfRemoval {
    /// The value of the setting.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Code => "code",
        }
    }
}

impl fmt::Display for SelfRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SelfRemoval {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "allow" => Ok(Self::Allow),
            "code" => Ok(Self::Code),
            _ => Err(Error::invalid("self-removal", "expected allow or code")),
        }
    }
}
