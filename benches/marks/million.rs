//! Marks 7 and 9: what a million authenticators in the file change.

use std::time::Duration;

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::Load;
use crate::mark::Wire;
use crate::report::{Report, Spread};
use crate::seed::Home;
use crate::server::Server;
use crate::verify::Before;

/// Removed in one go; before the next, as many are added from outside.
const SLICE: usize = 1_000;
/// The small file holds so many and a slice, and so many after it: a thousand in the middle.
const SMALL: i64 = 500;
const CONNECTIONS: usize = 16;
/// Starts that mark 9 is the median of, at least.
const STARTS: u32 = 5;

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants_any(&[7, 9]) {
        return Ok(());
    }
    let many = bench.sizes.many;
    tell(format_args!("seeding {many} authenticators"));
    let mut large = Home::init(bench.dir().join("large"), bench.sizes.order)?;
    large.fill(many)?;
    if bench.wants(7) {
        compare(bench, report, &mut large)?;
    }
    if bench.wants(9) {
        let mut times = Vec::new();
        for _ in 0..STARTS.max(bench.sizes.rounds) {
            let server = Server::start(&large, &[], None)?;
            times.push(server.first_answer(&large)?.as_secs_f64() * 1e3);
            server.stop()?;
        }
        let time = Spread::of(times);
        let what = format!("serve to first answer, {many} authenticators");
        report.row(
            9,
            what,
            "≤ 100 ms",
            time.show(0, " ms"),
            time.median <= 100.0,
        );
    }
    Ok(())
}

/// Mark 7.
fn compare(bench: &Bench, report: &mut Report, large: &mut Home) -> Result<()> {
    let many = bench.sizes.many;
    let mut small = Home::init(bench.dir().join("small"), bench.sizes.order)?;
    small.fill(SMALL)?;
    let of_large = Server::start(large, &[], None)?;
    let of_small = Server::start(&small, &[], None)?;
    of_large.first_answer(large)?;
    of_small.first_answer(&small)?;
    let (mut pairs, mut growths) = (Vec::new(), Vec::new());
    for round in 1..=bench.sizes.rounds {
        let (mut time_large, mut time_small) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..bench.sizes.slices {
            time_large += slice(bench, report, &of_large, large, many)?;
            time_small += slice(bench, report, &of_small, &mut small, SMALL)?;
        }
        let removed = SLICE as f64 * f64::from(bench.sizes.slices);
        let rates = (
            removed / time_large.as_secs_f64(),
            removed / time_small.as_secs_f64(),
        );
        let growth = of_large.rss_mib()? - of_small.rss_mib()?;
        tell(format_args!(
            "round {round}: {:.0}/s with {many} authenticators, {:.0}/s with about {SLICE}, {growth:.1} MiB more",
            rates.0, rates.1
        ));
        pairs.push(rates);
        growths.push(growth);
    }
    of_large.stop()?;
    of_small.stop()?;
    let ratio = Spread::of(pairs.iter().map(|(large, small)| large / small));
    let growth = Spread::of(growths);
    let reached = format!(
        "{}: {} against {}; {}",
        ratio.show(2, " ×"),
        Spread::of(pairs.iter().map(|it| it.0)).rate(),
        Spread::of(pairs.iter().map(|it| it.1)).rate(),
        growth.show(1, " MiB")
    );
    let what = format!("DELETE, 16 connections, {many} authenticators against {SLICE}");
    let target = "rate ≥ 0.85 ×; RSS growth ≤ 16 MiB";
    let met = ratio.median >= 0.85 && growth.median <= 16.0;
    report.row(7, what, target, reached, met);
    Ok(())
}

/// Removes one slice, and says how long that took.
fn slice(
    bench: &Bench,
    report: &mut Report,
    server: &Server,
    home: &mut Home,
    stay: i64,
) -> Result<Duration> {
    home.fill(stay + i64::try_from(SLICE)?)?;
    let targets = home.take(SLICE);
    let requests: Vec<String> = targets.iter().map(|it| it.removal()).collect();
    let load = Load {
        wire: Wire::Rest,
        address: &server.address,
        token: &home.token,
        requests: &requests,
        connections: CONNECTIONS,
        // A slice is removed whole, however slow the disk is.
        time: Duration::from_mins(1),
        pace: None,
        again: false,
    };
    let before = Before::look(&home.database())?;
    let outcome = load.run(bench.dir())?;
    before.removals(&targets, &outcome)?;
    report.answers("DELETE, 16 connections, a slice", &outcome);
    Ok(Duration::from_secs_f64(outcome.seconds))
}
