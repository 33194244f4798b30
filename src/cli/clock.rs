//! Reading the machine's clocks, and `doctor --fix clock`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use totpd::error::Result;
use totpd::model::{ClockReading, Timestamp};
use totpd::service::{Context, Service};

use super::output::{self, Output};

/// The time of the system's wall clock.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The wall clock, and the time since boot to compare it with.
pub(super) fn clock_reading() -> ClockReading {
    ClockReading {
        now: now(),
        since_boot: since_boot(),
    }
}

/// The time since boot, including sleep where the system counts it.
fn since_boot() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FixDocument {
    now: String,
    events: usize,
    totps: usize,
    waits: usize,
    tokens: usize,
    users: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    void_until: Option<String>,
}

/// Corrects every date in the future.
pub(super) fn fix(service: &Service, out: &Output) -> Result<()> {
    let now = now();
    if !out.json {
        // Printed before the first change, so that a person who sees a wrong time can stop the fix.
        output::print_line(&format!("taking {now} for the present moment"));
    }
    let fixed = service.fix_clock(&Context::command_line(now))?;
    let document = FixDocument {
        now: now.to_string(),
        events: fixed.events,
        totps: fixed.totps,
        waits: fixed.waits,
        tokens: fixed.tokens,
        users: fixed.users,
        void_until: fixed.void_until.map(|it| it.to_string()),
    };
    out.answer(&document, || {
        let void = document.void_until.as_ref().map(|until| {
            format!(
                "\nAuthenticators that were used while the clock was ahead refuse the codes of that time again when it \
                 comes, the last of them until {until}. Enrol anew where that is too long."
            )
        });
        format!(
            "dated now: {} events, {} tokens, {} waits, {} users and organizations\n\
             put back: {} authenticators; codes that were used stay used, and each phone's next but one is good{}",
            document.events,
            document.tokens,
            document.waits,
            document.users,
            document.totps,
            void.unwrap_or_default()
        )
    })
}
