//! Mark 3 while metrics are scraped every second, against mark 3 without, in alternating pairs. `--scraped` alone runs it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::Load;
use crate::load::Outcome;
use crate::mark::Wire;
use crate::report::{Report, Spread};
use crate::seed::Home;
use crate::server::Server;
use crate::verify::Before;

const CONNECTIONS: usize = 64;
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// How often the scraper looks whether the load is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What the rate with scrapes must be of the rate without.
const LEAST: f64 = 0.95;

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.scraped {
        return Ok(());
    }
    let mut home = Home::init(bench.dir().join("scraped"), bench.sizes.order)?;
    tell(format_args!("seeding {} authenticators", bench.sizes.rows));
    home.fill(bench.sizes.rows)?;
    let socket = bench.dir().join("metrics.sock");
    let listen = format!("unix:{}", socket.display());
    let mut ratios = Vec::new();
    let mut pages = 0;
    for round in 1..=bench.sizes.rounds {
        // The same server with the same flags: only the scrapes differ. Which comes first alternates.
        let flags = [
            "--max-connections-per-peer",
            "512",
            "--metrics-listen",
            &listen,
        ];
        let server = Server::start(&home, &flags, None)?;
        server.first_answer(&home)?;
        let mut rates = [0.0; 2];
        let order = if round % 2 == 0 {
            [true, false]
        } else {
            [false, true]
        };
        for is_scraped in order {
            let (outcome, scrapes) =
                removals(bench, &mut home, &server, is_scraped.then_some(&*socket))?;
            report.answers("DELETE beside scrapes", &outcome);
            rates[usize::from(is_scraped)] = outcome.rate();
            pages += scrapes;
        }
        server.stop()?;
        let [without, with] = rates;
        tell(format_args!(
            "round {round}: {without:.0}/s without scrapes, {with:.0}/s with"
        ));
        ratios.push(with / without);
    }
    let ratio = Spread::of(ratios);
    let reached = format!("{}; {pages} pages", ratio.show(2, " ×"));
    let what = "DELETE, 64 connections, metrics scraped every second";
    report.row(3, what, "≥ 0.95 × without", reached, ratio.median >= LEAST);
    Ok(())
}

/// One load, and how many pages were scraped meanwhile.
fn removals(
    bench: &Bench,
    home: &mut Home,
    server: &Server,
    socket: Option<&Path>,
) -> Result<(Outcome, u32)> {
    home.fill(bench.sizes.rows)?;
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
    let (is_over, pages) = (AtomicBool::new(false), AtomicU32::new(0));
    let outcome = thread::scope(|scope| {
        let scraper = socket.map(|it| scope.spawn(|| scrape(it, &is_over, &pages)));
        let outcome = load.run(bench.dir());
        is_over.store(true, Ordering::Relaxed);
        if let Some(scraper) = scraper {
            scraper.join().map_err(|_| "the scraper panicked")??;
        }
        outcome
    })?;
    before.removals(&targets, &outcome)?;
    home.give_back(targets.get(outcome.sent..).unwrap_or_default());
    Ok((outcome, pages.into_inner()))
}

/// Scrapes at once and then every second, until the load is over.
fn scrape(socket: &Path, is_over: &AtomicBool, pages: &AtomicU32) -> Result<()> {
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if Instant::now() < next {
            thread::sleep(LOOK_EVERY);
            continue;
        }
        next += SCRAPE_EVERY;
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200 ") || !answer.contains("totpd_commits_total") {
            return Err(format!("a scrape was answered: {answer:.200}").into());
        }
        pages.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
