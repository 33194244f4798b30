//! Mark 5: what sharing a commit is worth on a disk that takes 5 ms for a sync, as an SD card does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::Load;
use crate::mark::Wire;
use crate::report::{Report, Spread};
use crate::seed::Home;
use crate::server::{Server, Slow, knows};
use crate::verify::Before;

const SOURCE: &str = include_str!("../slow_sync.c");
const SYNC_MS: u32 = 5;
const CONNECTIONS: usize = 64;

const WHAT: &str = "DELETE, 64 connections, every sync slowed to 5 ms";
const TARGET: &str = "≥ 22 × one commit a request, slowed alike";
/// One commit a request.
const SINGLE: &[&str] = &["--commit-batch", "1"];

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants(5) {
        return Ok(());
    }
    let library = match build(bench.dir()) {
        Ok(library) => library,
        Err(error) => {
            report.not_measured(5, WHAT, TARGET, format!("not available: {error}"));
            return Ok(());
        }
    };
    let slow = Some(Slow {
        library: &library,
        sync_ms: SYNC_MS,
    });
    let can_be_single = knows("--commit-batch")?;
    let mut home = Home::init(bench.dir().join("slow"), bench.sizes.order)?;
    let (mut slowed, mut unslowed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..bench.sizes.rounds {
        for (rates, slow) in [(&mut slowed, slow), (&mut unslowed, None)] {
            if can_be_single {
                rates[0].push(removals(bench, report, &mut home, SINGLE, slow)?);
            }
            rates[1].push(removals(bench, report, &mut home, &[], slow)?);
        }
    }
    let shared = Spread::of(slowed[1].iter().copied()).rate();
    if !can_be_single {
        let why =
            format!("not available: serve knows no --commit-batch; with shared commits {shared}");
        report.not_measured(5, WHAT, TARGET, why);
        return Ok(());
    }
    let ratio = |rates: &[Vec<f64>; 2]| {
        Spread::of(rates[1].iter().zip(&rates[0]).map(|(many, one)| many / one))
    };
    let single = |rates: &[Vec<f64>; 2]| Spread::of(rates[0].iter().copied()).rate();
    let gain = ratio(&slowed);
    let reached = format!(
        "{}: {shared} against {}",
        gain.show(1, " ×"),
        single(&slowed)
    );
    report.row(5, WHAT, TARGET, reached, gain.median >= 22.0);
    report.note(format!(
        "64 connections without slowing: {} with shared commits against {} with one commit a request, {}",
        Spread::of(unslowed[1].iter().copied()).rate(),
        single(&unslowed),
        ratio(&unslowed).show(1, " ×")
    ));
    Ok(())
}

/// The rate of one load on a server of its own.
fn removals(
    bench: &Bench,
    report: &mut Report,
    home: &mut Home,
    flags: &[&str],
    slow: Option<Slow<'_>>,
) -> Result<f64> {
    home.fill(bench.sizes.rows)?;
    let server = Server::start(home, flags, slow)?;
    if let Some(slow) = slow
        && !server.has_loaded(slow.library)?
    {
        return Err("the server runs without the library that slows its syncs".into());
    }
    let targets = home.take(usize::try_from(bench.sizes.rows)?);
    let requests: Vec<String> = targets.iter().map(|it| it.removal()).collect();
    let load = Load {
        wire: Wire::Rest,
        address: &server.address,
        token: &home.token,
        requests: &requests,
        connections: CONNECTIONS,
        time: bench.sizes.time,
        pace: None,
        again: false,
    };
    let before = Before::look(&home.database())?;
    let outcome = load.run(bench.dir())?;
    before.removals(&targets, &outcome)?;
    home.give_back(&targets[outcome.sent..]);
    let what = format!(
        "DELETE, {CONNECTIONS} connections{}{}",
        if flags.is_empty() {
            ""
        } else {
            ", one commit a request"
        },
        if slow.is_some() { ", slowed" } else { "" }
    );
    report.answers(&what, &outcome);
    tell(format_args!(
        "{what}: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        outcome.rate(),
        outcome.p50_ms,
        outcome.p99_ms
    ));
    server.stop()?;
    Ok(outcome.rate())
}

/// Builds the library by the compiler that SQLite needs anyway.
fn build(dir: &Path) -> Result<PathBuf> {
    let (source, library) = (dir.join("slow_sync.c"), dir.join("slow_sync.so"));
    std::fs::write(&source, SOURCE)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .map_err(|error| format!("{}: {error}", compiler.display()))?;
    if output.status.success() {
        Ok(library)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}
