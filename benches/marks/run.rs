//! One run: its options, its directory, and the marks one group after another.

use std::path::PathBuf;
use std::time::Duration;

use crate::bench::{Bench, Order, Sizes};
use crate::mark::Mark;
use crate::report::Report;
use crate::{
    Result, beside_searches, children, front_end, machine, million, removals, scraped, slow, soak,
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of everything; a figure is the median of them
    #[arg(long, value_name = "N", default_value = "3",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these marks, such as 1,2,3; g1,g2,g3 are the same over gRPC
    #[arg(long, value_name = "MARKS", value_delimiter = ',')]
    only: Vec<Mark>,
    /// Short and small, to see that everything works: its figures mean little
    #[arg(long)]
    quick: bool,
    /// Remove in the order of the file, where neighbours share pages: the best that can be, not life
    #[arg(long)]
    in_order: bool,
    /// Measure mark 12 too, for so long: 10m, 30s
    #[arg(long, value_name = "TIME", value_parser = span)]
    soak: Option<Duration>,
    /// Measure mark 3 with metrics scraped every second against mark 3 without, and nothing else unless --only names it
    #[arg(long)]
    scraped: bool,
    /// Where to put the data, on the disk to measure [default: target/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the table to this file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let base = options
        .dir
        .clone()
        .unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    std::fs::create_dir_all(&base)?;
    if machine::filesystem(&base)? == "tmpfs" {
        let base = base.display();
        return Err(format!(
            "{base} is in memory, where a sync costs nothing: name a directory on a disk with --dir"
        )
        .into());
    }
    let mut wanted = options.only.clone();
    if wanted.is_empty() && !options.scraped {
        wanted = Mark::by_default();
    }
    if options.soak.is_some() {
        wanted.push(Mark::SOAK.into());
    } else if wanted.contains(&Mark::SOAK.into()) {
        return Err("mark 12 takes as long as --soak says: --soak 10m".into());
    }
    let dir = tempfile::Builder::new()
        .prefix("totpd-marks-")
        .tempdir_in(&base)?;
    children::clean_up_on_signal(dir.path().to_owned())?;
    let bench = Bench {
        dir,
        sizes: sizes(options),
        wanted,
        soak: options.soak,
        scraped: options.scraped,
    };
    let busy = machine::Busy::now()?;
    let mut report = Report::new(
        machine::description(&base)?,
        options.quick,
        bench.sizes.order,
    );
    removals::measure(&bench, &mut report)?;
    scraped::measure(&bench, &mut report)?;
    beside_searches::measure(&bench, &mut report)?;
    slow::measure(&bench, &mut report)?;
    front_end::measure(&bench, &mut report)?;
    million::measure(&bench, &mut report)?;
    report.binary(&bench)?;
    soak::measure(&bench, &mut report)?;
    report.note(format!(
        "others took {:.0} % of the processors meanwhile",
        busy.share_of_others()? * 100.0
    ));
    let table = report.table(options.rounds)?;
    println!("{table}");
    if let Some(file) = &options.out {
        std::fs::write(file, &table)?;
    }
    report.verdict()
}

fn sizes(options: &Options) -> Sizes {
    let rounds = options.rounds;
    let order = if options.in_order {
        Order::Neighbours
    } else {
        Order::Scattered
    };
    if options.quick {
        Sizes {
            rounds,
            order,
            time: Duration::from_secs(1),
            floor_time: Duration::from_millis(500),
            rows: 15_000,
            phones: 8_000,
            many: 100_000,
            slices: 5,
        }
    } else {
        Sizes {
            rounds,
            order,
            time: Duration::from_secs(4),
            floor_time: Duration::from_secs(2),
            rows: 60_000,
            phones: 48_000,
            many: 1_000_000,
            slices: 40,
        }
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with m or s, such as 10m".to_owned();
    let (number, unit_s) = match (text.strip_suffix('m'), text.strip_suffix('s')) {
        (Some(number), _) => (number, 60),
        (_, Some(number)) => (number, 1),
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * unit_s))
}
