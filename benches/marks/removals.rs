//! Marks 1 to 4, 8 and 11, the first three over gRPC too: removals and checks on a file of ordinary size, in
//! alternation with the floor.

use std::time::Duration;

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::{Load, Part};
use crate::enrolled::Enrolled;
use crate::floor::{Floor, Level};
use crate::load::Outcome;
use crate::mark::{Mark, Wire};
use crate::report::{Report, Spread};
use crate::seed::{Home, Target};
use crate::server::Server;
use crate::verify::Before;

/// What is left of a load is on disk by then, and does not weigh on what is measured next.
const SETTLE: Duration = Duration::from_millis(300);
/// Mark 11: so many reads a second, over so many connections.
const READS_PER_SECOND: u32 = 200;
const READERS: usize = 2;
/// Users that are read.
const READ_USERS: usize = 1_000;
/// Removals of one commit of the upper floor: as many as totpd's commits hold under load.
const FLOOR_BATCH: usize = 32;
/// The marks that are measured over gRPC too, and their connections.
const OVER_GRPC: [(u8, usize); 3] = [(1, 1), (2, 16), (3, 64)];

/// One load of one round.
struct Measured {
    outcome: Outcome,
    /// Of reads beside it.
    reads: Option<Outcome>,
    /// The floor before and after it.
    floor: Level,
    /// Removals a second of the floor with 32 removals a commit, where it was measured.
    floor_32: Option<f64>,
    /// Processor time of the server.
    cpu_s: f64,
}

/// One mark, all rounds.
#[derive(Default)]
struct Series(Vec<Measured>);

impl Series {
    fn spread(&self, of: impl Fn(&Measured) -> f64) -> Spread {
        Spread::of(self.0.iter().map(of))
    }

    fn ratio(&self) -> Spread {
        self.spread(|it| it.outcome.rate() / it.floor.rate)
    }

    /// Ratio, and the rates that it comes from.
    fn show(&self) -> String {
        format!(
            "{}: {} on a floor of {}",
            self.ratio().show(2, " ×"),
            self.spread(|it| it.outcome.rate()).rate(),
            self.spread(|it| it.floor.rate).rate()
        )
    }

    /// Where processor time went, for one request.
    fn cost(&self) -> String {
        let us = |of: fn(&Measured) -> f64| {
            self.spread(|it| of(it) * 1e6 / it.outcome.good() as f64)
                .median
        };
        let (server, load) = (us(|it| it.cpu_s), us(|it| it.outcome.cpu_s));
        format!(
            "{server:.0} µs of processor time a request in the server, {load:.0} µs in the load"
        )
    }
}

#[derive(Default)]
struct All {
    one: Series,
    sixteen: Series,
    sixty_four: Series,
    checks: Series,
    beside_reads: Series,
    over_grpc: [Series; OVER_GRPC.len()],
    idle_mib: Vec<f64>,
    busy_mib: Vec<f64>,
    /// Threads and descriptors of the idle server.
    idle_threads: Vec<f64>,
    idle_descriptors: Vec<f64>,
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let over_grpc = OVER_GRPC.map(|(number, _)| Mark::over_grpc(number));
    if !bench.wants_any(&[1, 2, 3, 4, 8, 11, 13, 14]) && !bench.wants_any(&over_grpc) {
        return Ok(());
    }
    let sizes = &bench.sizes;
    tell(format_args!("seeding {} authenticators", sizes.rows));
    let mut home = Home::init(bench.dir().join("removals"), sizes.order)?;
    home.fill(sizes.rows)?;
    let mut enrolled = None;
    if bench.wants(4) {
        tell(format_args!("enrolling {} authenticators", sizes.phones));
        enrolled = Some(Enrolled::make(&home, sizes.phones)?);
    }
    let mut floor = Floor::make(&bench.dir().join("floor.db"), sizes.rows, sizes.order)?;
    let mut all = All::default();
    for round in 1..=sizes.rounds {
        // All the load comes from one address, and a connection of gRPC counts as four.
        let server = Server::start(&home, &["--max-connections-per-peer", "512"], None)?;
        server.first_answer(&home)?;
        std::thread::sleep(SETTLE);
        all.idle_mib.push(server.rss_mib()?);
        all.idle_threads.push(server.threads()?);
        all.idle_descriptors.push(server.descriptors()?);
        let mut stage = Stage {
            bench,
            report,
            home: &mut home,
            server: &server,
            floor: &mut floor,
            before: None,
            round,
        };
        if bench.wants(1) {
            all.one.0.push(stage.removals(Wire::Rest, 1, false)?);
        }
        if bench.wants(2) {
            all.sixteen.0.push(stage.removals(Wire::Rest, 16, false)?);
        }
        // Marks 4, 8 and 13 are said in terms of mark 3.
        if bench.wants_any(&[3, 4, 8, 13]) {
            let mut measured = stage.removals(Wire::Rest, 64, false)?;
            measured.floor_32 = Some(stage.floor_of_batches()?);
            all.sixty_four.0.push(measured);
            all.busy_mib.push(server.rss_mib()?);
        }
        if let Some(enrolled) = &mut enrolled {
            all.checks.0.push(stage.checks(enrolled)?);
        }
        if bench.wants(11) {
            all.beside_reads
                .0
                .push(stage.removals(Wire::Rest, 64, true)?);
        }
        for (series, (number, connections)) in all.over_grpc.iter_mut().zip(OVER_GRPC) {
            let is_compared = number == 3 && bench.wants(13) && cfg!(feature = "grpc");
            if bench.wants(Mark::over_grpc(number)) || is_compared {
                let measured = stage.removals(Wire::Grpc, connections, false)?;
                series.0.push(measured);
            }
        }
        server.stop()?;
    }
    all.tell(bench, report);
    Ok(())
}

/// One round.
struct Stage<'a> {
    bench: &'a Bench,
    report: &'a mut Report,
    home: &'a mut Home,
    server: &'a Server,
    floor: &'a mut Floor,
    /// The floor as it was last measured, which is before the load that comes next.
    before: Option<Level>,
    round: u32,
}

impl Stage<'_> {
    fn removals(&mut self, wire: Wire, connections: usize, beside_reads: bool) -> Result<Measured> {
        let (dir, sizes) = (self.bench.dir(), &self.bench.sizes);
        self.home.fill(sizes.rows)?;
        let floor = self.floor_before()?;
        let targets = self.home.take(usize::try_from(sizes.rows)?);
        let targeted = targets.iter();
        let (name, requests): (_, Vec<String>) = match wire {
            Wire::Rest => ("DELETE", targeted.map(|it| it.removal()).collect()),
            Wire::Grpc => (
                "RemoveTOTPAuthenticator",
                targeted.map(|it| it.call_to_remove()).collect(),
            ),
        };
        let load = Load {
            wire,
            address: &self.server.address,
            token: &self.home.token,
            requests: &requests,
            connections,
            time: sizes.time,
            pace: None,
            again: false,
        };
        let before = Before::look(&self.home.database())?;
        let cpu = self.server.cpu_time()?;
        let reading = beside_reads.then(|| self.reading(&targets)).transpose()?;
        let outcome = load.run(dir)?;
        let reads: Option<Outcome> = reading.map(|it| it.end()).transpose()?;
        let cpu_s = self.server.cpu_time()?.saturating_sub(cpu).as_secs_f64();
        before.removals(&targets, &outcome)?;
        self.home.give_back(&targets[outcome.sent..]);
        let what = format!("{name}, connections: {connections}");
        self.report.answers(&what, &outcome);
        if let Some(reads) = &reads {
            self.report.answers("GetUser", reads);
        }
        self.finish(&what, floor, outcome, reads, cpu_s)
    }

    /// Starts reading users, some of whose authenticators are removed meanwhile.
    fn reading(&self, targets: &[Target]) -> Result<Part> {
        let requests: Vec<String> = targets
            .iter()
            .take(READ_USERS)
            .map(|it| it.reading())
            .collect();
        let load = Load {
            wire: Wire::Rest,
            address: &self.server.address,
            token: &self.home.token,
            requests: &requests,
            connections: READERS,
            // It ends with the load that it is beside.
            time: self.bench.sizes.time * 10,
            pace: Some(READS_PER_SECOND),
            again: true,
        };
        load.start(self.bench.dir())
    }

    fn checks(&mut self, enrolled: &mut Enrolled) -> Result<Measured> {
        let floor = self.floor_before()?;
        let (step, phones) = enrolled.next_step()?;
        let requests = phones
            .iter()
            .map(|it| it.check(step))
            .collect::<Result<Vec<_>>>()?;
        let load = Load {
            wire: Wire::Rest,
            address: &self.server.address,
            token: &self.home.token,
            requests: &requests,
            connections: 64,
            time: self.bench.sizes.time,
            pace: None,
            again: false,
        };
        let before = Before::look(&self.home.database())?;
        let cpu = self.server.cpu_time()?;
        let outcome = load.run(self.bench.dir())?;
        let cpu_s = self.server.cpu_time()?.saturating_sub(cpu).as_secs_f64();
        before.checks(&phones, step, &outcome)?;
        self.report.answers("check, 64 connections", &outcome);
        self.finish("check, 64 connections", floor, outcome, None, cpu_s)
    }

    fn floor_before(&mut self) -> Result<Level> {
        if let Some(level) = self.before {
            return Ok(level);
        }
        std::thread::sleep(SETTLE);
        self.floor.measure(self.bench.sizes.floor_time, 1)
    }

    /// The upper floor: what bare SQLite removes in a second where 32 removals share a commit.
    fn floor_of_batches(&mut self) -> Result<f64> {
        let time = self.bench.sizes.floor_time;
        Ok(self.floor.measure(time, FLOOR_BATCH)?.rate)
    }

    fn finish(
        &mut self,
        what: &str,
        before: Level,
        outcome: Outcome,
        reads: Option<Outcome>,
        cpu_s: f64,
    ) -> Result<Measured> {
        std::thread::sleep(SETTLE);
        let after = self.floor.measure(self.bench.sizes.floor_time, 1)?;
        self.before = Some(after);
        let floor = before.between(after);
        tell(format_args!(
            "round {}: {what}: {:.0}/s, {:.2} × a floor of {:.0}/s; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
            self.round,
            outcome.rate(),
            outcome.rate() / floor.rate,
            floor.rate,
            outcome.p50_ms,
            outcome.p99_ms,
            outcome.p999_ms,
            outcome.most_ms
        ));
        Ok(Measured {
            outcome,
            reads,
            floor,
            floor_32: None,
            cpu_s,
        })
    }
}

impl All {
    fn tell(&self, bench: &Bench, report: &mut Report) {
        if bench.wants(1) {
            let more = self.one.spread(|it| it.outcome.p50_ms - it.floor.p50_ms);
            let reached = format!(
                "{}; p50 above its by {}",
                self.one.show(),
                more.show(2, " ms")
            );
            let met = self.one.ratio().median >= 0.4 && more.median <= 0.3;
            let target = "≥ 0.4 × floor 1; p50 within 0.3 ms of floor 1's";
            report.row(1, "DELETE, 1 connection", target, reached, met);
        }
        if bench.wants(2) {
            let met = self.sixteen.ratio().median >= 2.5;
            let (what, target) = ("DELETE, 16 connections", "≥ 2.5 × floor 1");
            report.row(2, what, target, self.sixteen.show(), met);
        }
        if bench.wants(3) {
            let p50 = self.sixty_four.spread(|it| it.outcome.p50_ms);
            let p99 = self.sixty_four.spread(|it| it.outcome.p99_ms);
            let p999 = self.sixty_four.spread(|it| it.outcome.p999_ms);
            let of_32 = self
                .sixty_four
                .spread(|it| it.outcome.rate() / it.floor_32.unwrap_or(f64::NAN));
            let near_tail = self
                .sixty_four
                .spread(|it| it.outcome.p99_ms / it.outcome.p50_ms);
            let far_tail = self
                .sixty_four
                .spread(|it| it.outcome.p999_ms / it.outcome.p50_ms);
            let reached = format!(
                "{}; {} floor 32; p50 {}, p99 {}, p99.9 {}: {} and {} of p50",
                self.sixty_four.show(),
                of_32.show(2, " ×"),
                p50.show(1, " ms"),
                p99.show(1, " ms"),
                p999.show(1, " ms"),
                near_tail.show(1, " ×"),
                far_tail.show(1, " ×")
            );
            let met = self.sixty_four.ratio().median >= 3.0
                && of_32.median >= 0.55
                && near_tail.median <= 3.0
                && far_tail.median <= 6.0;
            let target = "≥ 3 × floor 1, ≥ 0.55 × floor 32; p99 ≤ 3 × p50, p99.9 ≤ 6 × p50";
            report.row(3, "DELETE, 64 connections", target, reached, met);
        }
        if bench.wants(4) {
            let rates = self.checks.0.iter().zip(&self.sixty_four.0);
            let ratio = Spread::of(rates.map(|(it, of)| it.outcome.rate() / of.outcome.rate()));
            let rate = self.checks.spread(|it| it.outcome.rate());
            let reached = format!("{}: {}", ratio.show(2, " ×"), rate.rate());
            let what = "check of a good code, 64 connections";
            let met = ratio.median >= 0.8;
            report.row(4, what, "≥ 0.8 × mark 3's rate", reached, met);
        }
        if bench.wants(8) {
            let idle = Spread::of(self.idle_mib.iter().copied());
            let busy = Spread::of(self.busy_mib.iter().copied());
            let reached = format!("{}; {}", idle.show(1, " MiB"), busy.show(1, " MiB"));
            let met = idle.median <= 12.0 && busy.median <= 40.0;
            let what = "memory: idle; after mark 3";
            report.row(8, what, "≤ 12 MiB; ≤ 40 MiB", reached, met);
        }
        if bench.wants(11) {
            let p99 = self
                .beside_reads
                .spread(|it| it.reads.as_ref().map_or(f64::NAN, |it| it.p99_ms));
            let rate = self.beside_reads.spread(|it| it.outcome.rate());
            let reached = format!("{} beside {}", p99.show(1, " ms"), rate.rate());
            let what = format!("GetUser p99, {READS_PER_SECOND} a second beside mark 3's load");
            report.row(11, what, "≤ 10 ms", reached, p99.median <= 10.0);
        }
        self.tell_costs(bench, report);
        self.tell_over_grpc(report);
        let rest = [&self.one, &self.sixteen, &self.sixty_four, &self.checks];
        let costs = (1_u8..).map(Mark::from).zip(rest);
        let over_grpc = OVER_GRPC.map(|(number, _)| Mark::over_grpc(number));
        for (mark, series) in costs.chain(over_grpc.into_iter().zip(&self.over_grpc)) {
            if !series.0.is_empty() {
                report.note(format!("mark {mark}: {}", series.cost()));
            }
        }
    }

    /// Marks 13 and 14: what a request costs over REST against gRPC, and what an idle server holds.
    fn tell_costs(&self, bench: &Bench, report: &mut Report) {
        let [.., grpc] = &self.over_grpc;
        if bench.wants(13) && !grpc.0.is_empty() {
            let cost = |it: &Measured| it.cpu_s * 1e6 / it.outcome.good() as f64;
            let pairs = self.sixty_four.0.iter().zip(&grpc.0);
            let ratio = Spread::of(pairs.map(|(rest, grpc)| cost(rest) / cost(grpc)));
            let (rest, grpc) = (self.sixty_four.spread(cost), grpc.spread(cost));
            let reached = format!(
                "{}: {} against {}",
                ratio.show(2, " ×"),
                rest.show(0, " µs"),
                grpc.show(0, " µs")
            );
            let what = "processor time of a removal, REST against gRPC, 64 connections";
            report.row(13, what, "≤ 1.35 ×", reached, ratio.median <= 1.35);
        }
        if bench.wants(14) {
            let threads = Spread::of(self.idle_threads.iter().copied());
            let descriptors = Spread::of(self.idle_descriptors.iter().copied());
            let reached = format!("{}; {}", threads.show(0, ""), descriptors.show(0, ""));
            let met = threads.median <= 45.0 && descriptors.median <= 120.0;
            let what = "threads and descriptors, idle";
            report.row(14, what, "≤ 45; ≤ 120", reached, met);
        }
    }

    /// What is measured over gRPC, beside what is over REST. It has no marks of its own.
    fn tell_over_grpc(&self, report: &mut Report) {
        let rest = [&self.one, &self.sixteen, &self.sixty_four];
        for ((series, rest), (number, connections)) in
            self.over_grpc.iter().zip(rest).zip(OVER_GRPC)
        {
            if series.0.is_empty() {
                continue;
            }
            let ms = |of: fn(&Outcome) -> f64| series.spread(|it| of(&it.outcome)).show(1, " ms");
            let mut reached = format!(
                "{}; p50 {}, p99 {}, p99.9 {}",
                series.show(),
                ms(|it| it.p50_ms),
                ms(|it| it.p99_ms),
                ms(|it| it.p999_ms)
            );
            if !rest.0.is_empty() {
                let rates = series.0.iter().zip(&rest.0);
                let ratio = rates.map(|(it, of)| it.outcome.rate() / of.outcome.rate());
                let ratio = Spread::of(ratio).show(2, " ×");
                reached = format!("{reached}; {ratio} the rate over REST");
            }
            let plural = if connections == 1 { "" } else { "s" };
            let what = format!("RemoveTOTPAuthenticator, {connections} connection{plural}");
            report.row(
                Mark::over_grpc(number),
                what,
                "none of its own",
                reached,
                None,
            );
        }
    }
}
