//! How many lines of the log there were of each level. The log is one for the whole process, and so are these counts.

use log::Level;

use crate::counters::Counter;

const LEVELS: [(Level, &str); 5] = [
    (Level::Error, "error"),
    (Level::Warn, "warn"),
    (Level::Info, "info"),
    (Level::Debug, "debug"),
    (Level::Trace, "trace"),
];

static COUNTERS: [Counter; LEVELS.len()] = [const { Counter::new() }; LEVELS.len()];

/// Counts a line of the log. The code that writes the log calls it, once for each line.
pub fn note(level: Level) {
    let mut all = LEVELS.iter().zip(&COUNTERS);
    if let Some((_, counter)) = all.find(|((it, _), _)| *it == level) {
        counter.add_one();
    }
}

/// The number of lines of each level.
pub(crate) fn counts() -> impl Iterator<Item = (&'static str, u64)> {
    let counted = COUNTERS.iter().map(Counter::get);
    LEVELS
        .into_iter()
        .zip(counted)
        .map(|((_, name), count)| (name, count))
}
