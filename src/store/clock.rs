//! The doubt about the clock: while it lasts, nothing is deleted by age (SECURITY.md 36). It is kept in the database, so
//! that it survives a restart.

use super::{ReadTx, WriteTx};
use crate::error::{Error, Result};
use crate::model::{LONGEST_EVENT_GAP, Timestamp};

/// What the database records about the clock, apart from events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockTrust {
    /// The time of the last event before the clock moved so far ahead that it may be wrong.
    pub(crate) doubted_from: Option<Timestamp>,
    /// When a person last confirmed that the clock is right.
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
    /// Records a doubt about the clock, unless there is one or a person has confirmed the clock recently.
    pub(crate) fn doubt_clock(&self, from: Timestamp) -> Result<()> {
        const SQL: &str = "UPDATE instance SET clock_doubted_from = ?1
            WHERE one = 1 AND clock_doubted_from IS NULL
            AND (clock_confirmed_at IS NULL OR clock_confirmed_at < ?2)";
        let confirmed_before = self.now().before(LONGEST_EVENT_GAP);
        self.execute(SQL, (from.micros(), confirmed_before.micros()))
            .map(|_| ())
    }

    /// Ends the doubt. For a process that has seen the time pass.
    pub(crate) fn trust_clock(&self) -> Result<()> {
        const SQL: &str = "UPDATE instance SET clock_doubted_from = NULL WHERE one = 1";
        self.execute(SQL, ()).map(|_| ())
    }

    /// Records a doubt if this transaction's event is very much later than the one before it.
    pub(super) fn doubt_clock_after_gap(&self) -> Result<()> {
        let before = self.newest_event_at;
        if before > Timestamp::NEVER && self.event_at() > before.after(LONGEST_EVENT_GAP) {
            self.doubt_clock(before)?;
        }
        Ok(())
    }
}
