//! Mark 12: a mixed load for as long as one likes, while memory and log are watched.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::Part;
use crate::mixed::Counts;
use crate::report::Report;
use crate::seed::Home;
use crate::server::Server;
use crate::verify::{Before, agree};

const WHAT: &str = "mixed load";
const TARGET: &str = "RSS flat within 10 %, WAL ≤ 64 MiB, no error";
const WAL_MIB: f64 = 64.0;
const GROWTH: f64 = 1.1;

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let Some(time) = bench.soak else {
        if bench.is_whole() {
            report.not_measured(12, WHAT, TARGET, "not run; use --soak 10m");
        }
        return Ok(());
    };
    let home = Home::init(bench.dir().join("soak"), bench.sizes.order)?;
    let server = Server::start(&home, &[], None)?;
    let before = Before::look(&home.database())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["mixed", "--address", &server.address]);
    command.args(["--token", &home.token]);
    command.args(["--ms", &time.as_millis().to_string()]);
    let mut load = Part::start(command, None)?;

    // In the first quarter caches fill and threads come to be.
    let (start, warm_up) = (Instant::now(), time / 4);
    let (mut warm, mut most, mut wal) = (0.0_f64, 0.0_f64, 0.0_f64);
    let mut told = Duration::ZERO;
    while !load.is_over()? {
        thread::sleep(Duration::from_secs(1));
        let (rss, log) = (server.rss_mib()?, log_mib(&home));
        wal = wal.max(log);
        let of = if start.elapsed() < warm_up {
            &mut warm
        } else {
            &mut most
        };
        *of = of.max(rss);
        if start.elapsed() >= told {
            told += Duration::from_secs(30);
            let passed = start.elapsed().as_secs();
            tell(format_args!(
                "{passed} s: RSS {rss:.1} MiB, WAL {log:.1} MiB"
            ));
        }
    }
    let counts: Counts = load.wait()?;
    for (kind, answered) in [
        ("totp.started", counts.started),
        ("totp.confirmed", counts.confirmed),
        ("totp.code_refused", counts.refused),
        ("totp.checked", counts.checked),
        ("totp.removed", counts.removed),
    ] {
        agree(kind, before.count(kind)?, answered)?;
    }
    server.stop()?;
    for it in &counts.told {
        report.problem(format!("{WHAT}: {it}"));
    }
    let reached = format!(
        "{:.1} min, {} requests at {:.0}/s: RSS {warm:.1} MiB warm, {most:.1} MiB at most after; WAL {wal:.1} MiB at most; {} errors",
        time.as_secs_f64() / 60.0,
        counts.requests,
        counts.requests as f64 / time.as_secs_f64(),
        counts.wrong
    );
    let met = most <= warm * GROWTH && wal <= WAL_MIB && counts.wrong == 0;
    report.row(12, WHAT, TARGET, reached, met);
    Ok(())
}

fn log_mib(home: &Home) -> f64 {
    let mut path = home.database().into_os_string();
    path.push("-wal");
    std::fs::metadata(path).map_or(0, |it| it.len()) as f64 / 1024.0 / 1024.0
}
