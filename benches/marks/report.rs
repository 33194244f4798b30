//! Figures, and the table that they end up in.

use std::fmt::Write;

use crate::Result;
use crate::bench::{Bench, Order, tell};
use crate::load::Outcome;
use crate::machine;
use crate::mark::Mark;
use crate::seed::TOTPD;

/// Values of one figure, a round each: the one in the middle, and the ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (values.first(), values.last());
        let (low, high) = (
            values.get(values.len().saturating_sub(1) / 2),
            values.get(values.len() / 2),
        );
        let or_nothing = |it: Option<&f64>| it.copied().unwrap_or(f64::NAN);
        Self {
            median: f64::midpoint(or_nothing(low), or_nothing(high)),
            least: or_nothing(least),
            most: or_nothing(most),
        }
    }

    /// The median with its unit, and the ends.
    pub(crate) fn show(self, decimals: usize, unit: &str) -> String {
        let Self {
            median,
            least,
            most,
        } = self;
        format!("{median:.decimals$}{unit} ({least:.decimals$}–{most:.decimals$})")
    }

    /// The median of a rate, in whole numbers.
    pub(crate) fn rate(self) -> String {
        format!("{}/s", thousands(self.median))
    }
}

/// A large number as people read it.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct Row {
    mark: Mark,
    what: String,
    target: &'static str,
    reached: String,
    /// Where nothing was to be reached, or nothing was measured, there is nothing to say.
    met: Option<bool>,
}

pub(crate) struct Report {
    machine: String,
    quick: bool,
    order: Order,
    rows: Vec<Row>,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Report {
    pub(crate) const fn new(machine: String, quick: bool, order: Order) -> Self {
        Self {
            machine,
            quick,
            order,
            rows: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(crate) fn row(
        &mut self,
        mark: impl Into<Mark>,
        what: impl Into<String>,
        target: &'static str,
        reached: impl Into<String>,
        met: impl Into<Option<bool>>,
    ) {
        let (mark, what, reached) = (mark.into(), what.into(), reached.into());
        tell(format_args!("mark {mark}: {reached}"));
        self.rows.push(Row {
            mark,
            what,
            target,
            reached,
            met: met.into(),
        });
    }

    /// A mark that could not be measured, and why.
    pub(crate) fn not_measured(
        &mut self,
        mark: u8,
        what: &str,
        target: &'static str,
        why: impl Into<String>,
    ) {
        self.row(mark, what, target, why, None);
    }

    /// A sentence for below the table.
    pub(crate) fn note(&mut self, text: String) {
        tell(&text);
        self.notes.push(text);
    }

    /// What must not happen, whatever the figures are.
    pub(crate) fn problem(&mut self, text: String) {
        tell(&text);
        self.problems.push(text);
    }

    /// Everything but 200 is a problem.
    pub(crate) fn answers(&mut self, what: &str, outcome: &Outcome) {
        if outcome.good() != outcome.sent {
            let statuses = &outcome.statuses;
            self.problem(format!(
                "{what}: not everything was answered with 200: {statuses:?}"
            ));
        }
    }

    /// Mark 10.
    pub(crate) fn binary(&mut self, bench: &Bench) -> Result<()> {
        if bench.wants(10) {
            let mib = std::fs::metadata(TOTPD)?.len() as f64 / 1024.0 / 1024.0;
            let what = "release binary, stripped";
            self.row(10, what, "≤ 8 MiB", format!("{mib:.2} MiB"), mib <= 8.0);
        }
        Ok(())
    }

    /// All of it as Markdown.
    pub(crate) fn table(&mut self, rounds: u32) -> Result<String> {
        self.rows.sort_by_key(|it| it.mark);
        let mut text = String::new();
        let date = machine::now()?.to_string();
        writeln!(text, "{}  ", self.machine)?;
        writeln!(
            text,
            "{}, totpd {}, SQLite {}, {}, {rounds} rounds: median (least–most)",
            date.split('T').next().unwrap_or_default(),
            env!("CARGO_PKG_VERSION"),
            rusqlite::version(),
            machine::compiler()
        )?;
        if self.quick {
            writeln!(text, "\n**Quick form: these figures mean little.**")?;
        }
        if self.order == Order::Neighbours {
            let told = "**Removed in the order of the file, which is cheaper than life.**";
            writeln!(text, "\n{told}")?;
        }
        text.push_str("\n| # | what | mark | reached | met |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let Row {
                mark,
                what,
                target,
                reached,
                ..
            } = row;
            writeln!(text, "| {mark} | {what} | {target} | {reached} | {met} |")?;
        }
        for note in &self.notes {
            write!(text, "\n- {note}")?;
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for problem in &self.problems {
            writeln!(text, "\n**{problem}**")?;
        }
        Ok(text)
    }

    /// A run that saw something wrong has failed, whatever it measured.
    pub(crate) fn verdict(&self) -> Result<()> {
        match self.problems.len() {
            0 => Ok(()),
            count => Err(format!("{count} things were wrong").into()),
        }
    }
}
