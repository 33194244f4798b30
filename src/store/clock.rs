//! Whether what is older may be deleted by the clock: a doubt is kept in the database, and survives a restart.

use super::{ReadTx, WriteTx};
use crate::error::{Error, Result};
use crate::model::{LONGEST_EVENT_GAP, Timestamp};

/// What the database knows of the clock beside the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockTrust {
    /// The newest event before the clock stood so much later that it may be wrong.
    pub(crate) doubted_from: Option<Timestamp>,
    /// When a person last confirmed the clock.
    pub(crate) confirmed_at: Option<Timestamp>,
}

impl ReadTx<'_> {
    pub(crate) fn clock_trust(&self) -> Result<ClockTrust> {
        const SQL: &str =
            "SELECT clock_doubted_from, clock_confirmed_at FROM instance WHERE one = 1";
        let trust = self.one(SQL, (), |row| {
            let time = |it: Option<i64>| it.map(Timestamp::from_micros);
            Ok(ClockTrust {
                doubted_from: time(row.get(0)?),
                confirmed_at: time(row.get(1)?),
            })
        })?;
        trust.ok_or_else(|| Error::Unavailable("the database holds no instance".to_owned()))
    }
}

impl WriteTx<'_> {
    /// Doubts the clock, unless it is doubted already or a person has confirmed it since.
    pub(crate) fn doubt_clock(&self, from: Timestamp) -> Result<()> {
        const SQL: &str = "UPDATE instance SET clock_doubted_from = ?1
            WHERE one = 1 AND clock_doubted_from IS NULL
            AND (clock_confirmed_at IS NULL OR clock_confirmed_at < ?2)";
        let confirmed_before = self.now().before(LONGEST_EVENT_GAP);
        self.execute(SQL, (from.micros(), confirmed_before.micros()))
            .map(|_| ())
    }

    /// Ends the doubt, where a process has seen the time pass.
    pub(crate) fn trust_clock(&self) -> Result<()> {
        const SQL: &str = "UPDATE instance SET clock_doubted_from = NULL WHERE one = 1";
        self.execute(SQL, ()).map(|_| ())
    }

    /// Doubts the clock where an event follows the one before it only after a long time.
    pub(super) fn doubt_a_gap(&self) -> Result<()> {
        let before = self.newest_event_at;
        if before > Timestamp::NEVER && self.event_at() > before.after(LONGEST_EVENT_GAP) {
            self.doubt_clock(before)?;
        }
        Ok(())
    }
}
