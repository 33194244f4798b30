//! Which marks there are, and what each is measured over.

use std::fmt;
use std::str::FromStr;

/// What a load speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wire {
    Rest,
    /// Known in a build without gRPC too, to be refused in words.
    Grpc,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    number: u8,
    wire: Wire,
}

impl Mark {
    /// The last one.
    const LAST: u8 = 15;
    /// The one that takes as long as `--soak` says.
    pub(crate) const SOAK: u8 = 12;
    /// Up to here they are measured over gRPC as well.
    const LAST_OVER_GRPC: u8 = 3;

    /// A mark as it is measured over gRPC.
    pub(crate) const fn over_grpc(number: u8) -> Self {
        Self {
            number,
            wire: Wire::Grpc,
        }
    }

    /// The marks that are measured when none is named: all but the one that takes as long as it is told.
    pub(crate) fn by_default() -> Vec<Self> {
        let over_grpc = (1..=Self::LAST_OVER_GRPC).map(Self::over_grpc);
        let over_grpc = over_grpc.filter(|_| cfg!(feature = "grpc"));
        let all = (1..=Self::LAST).filter(|it| *it != Self::SOAK);
        all.map(Self::from).chain(over_grpc).collect()
    }
}

impl From<u8> for Mark {
    fn from(number: u8) -> Self {
        Self {
            number,
            wire: Wire::Rest,
        }
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, wire, last) = match text.strip_prefix('g') {
            Some(digits) => (digits, Wire::Grpc, Self::LAST_OVER_GRPC),
            None => (text, Wire::Rest, Self::LAST),
        };
        if wire == Wire::Grpc && !cfg!(feature = "grpc") {
            return Err("this build knows no gRPC".to_owned());
        }
        let number = digits.parse().ok().filter(|it| (1..=last).contains(it));
        let number = number.ok_or("expected 1 to 15, or g1 to g3 for those over gRPC")?;
        Ok(Self { number, wire })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match self.wire {
            Wire::Rest => write!(f, "{number}"),
            Wire::Grpc => write!(f, "{number} (gRPC)"),
        }
    }
}
