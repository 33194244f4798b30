//! Mark 6: the price of the front end, against the same workers on tiny_http bare.

use std::io::BufReader;
use std::process::Command;

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::{Load, Part};
use crate::mark::Wire;
use crate::report::{Report, Spread};
use crate::seed::Home;
use crate::server::{Server, listening};

/// What `serve` has if it is not told otherwise.
const WORKERS: usize = 64;

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants(6) {
        return Ok(());
    }
    let home = Home::init(bench.dir().join("front_end"), bench.sizes.order)?;
    let server = Server::start(&home, &["--workers", &WORKERS.to_string()], None)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").arg(bench.dir().join("bare"));
    command.args(["--workers", &WORKERS.to_string()]);
    let mut bare = Part::start(command, None)?;
    let mut stdout = BufReader::new(bare.stdout()?);
    let bare_address = listening(&mut stdout)?;

    let (mut sixteen, mut sixty_four) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.rounds {
        for (connections, pairs) in [(16, &mut sixteen), (64, &mut sixty_four)] {
            let mut rate = |what: &str, address: &str| -> Result<f64> {
                let load = Load {
                    wire: Wire::Rest,
                    address,
                    token: "",
                    requests: &["GET /debug/healthz".to_owned()],
                    connections,
                    time: bench.sizes.time,
                    pace: None,
                    again: true,
                };
                let outcome = load.run(bench.dir())?;
                report.answers(what, &outcome);
                tell(format_args!(
                    "{what}, {connections} connections: {:.0}/s, p99 {:.2} ms",
                    outcome.rate(),
                    outcome.p99_ms
                ));
                Ok(outcome.rate())
            };
            let through = rate("healthz through the front end", &server.address)?;
            pairs.push((through, rate("healthz bare", &bare_address)?));
        }
    }
    server.stop()?;
    let price = |pairs: &[(f64, f64)]| {
        Spread::of(
            pairs
                .iter()
                .map(|(through, bare)| (1.0 - through / bare) * 100.0),
        )
    };
    let show = |pairs: &[(f64, f64)]| {
        format!(
            "{}: {} of {}",
            price(pairs).show(0, " %"),
            Spread::of(pairs.iter().map(|it| it.0)).rate(),
            Spread::of(pairs.iter().map(|it| it.1)).rate()
        )
    };
    let met = price(&sixteen).median <= 45.0 && price(&sixty_four).median <= 55.0;
    let reached = format!("{}; {}", show(&sixteen), show(&sixty_four));
    let what = "the front end's price on healthz, 16 and 64 connections";
    report.row(6, what, "≤ 45 %; ≤ 55 %", reached, met);
    Ok(())
}
