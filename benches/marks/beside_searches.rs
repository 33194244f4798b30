//! Mark 15: removals of one client beside searches that take as long as they may.

use data_encoding::HEXLOWER;
use prost::Message;
use serde_json::json;

use crate::Result;
use crate::bench::{Bench, tell};
use crate::driver::Load;
use crate::load::Outcome;
use crate::mark::Wire;
use crate::report::{Report, Spread};
use crate::seed::Home;
use crate::server::Server;
use crate::verify::Before;

/// Searches under way at once, all with one token.
const SEARCHES: usize = 12;
/// Filters of one search: none matches, so each is held against every user.
const FILTERS: usize = 90;

const SEARCH: &str = "/zitadel.resources.user.v3alpha.ZITADELUsers/SearchUsers";
/// `TEXT_FILTER_METHOD_CONTAINS`
const CONTAINS: i32 = 4;

#[derive(Message)]
struct Search {
    #[prost(message, repeated, tag = "4")]
    filters: Vec<Filter>,
}

#[derive(Message)]
struct Filter {
    #[prost(message, optional, tag = "1")]
    or: Option<Filters>,
    #[prost(message, optional, tag = "4")]
    user_id: Option<UserId>,
}

#[derive(Message)]
struct Filters {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Filter>,
}

#[derive(Message)]
struct UserId {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int32, tag = "2")]
    method: i32,
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants(15) {
        return Ok(());
    }
    let mut home = Home::init(bench.dir().join("searched"), bench.sizes.order)?;
    tell(format_args!("seeding {} users", bench.sizes.rows));
    home.fill(bench.sizes.rows)?;
    let manager = home.manager()?;
    let wires: &[Wire] = if cfg!(feature = "grpc") {
        &[Wire::Rest, Wire::Grpc]
    } else {
        &[Wire::Rest]
    };
    for wire in wires {
        let mut beside = Vec::new();
        for _ in 0..bench.sizes.rounds {
            let flags = ["--max-connections-per-peer", "512"];
            let server = Server::start(&home, &flags, None)?;
            server.first_answer(&home)?;
            let alone = removals(bench, report, &mut home, &server)?;
            let request = search(*wire);
            let load = Load {
                wire: *wire,
                address: &server.address,
                token: &manager,
                requests: &[request],
                connections: SEARCHES,
                // They end with the removals that they are beside.
                time: bench.sizes.time * 10,
                pace: None,
                again: true,
            };
            let searches = load.start(bench.dir())?;
            let removed = removals(bench, report, &mut home, &server)?;
            let answered: Outcome = searches.end()?;
            tell(format_args!(
                "{:.0}/s alone, {:.0}/s beside searches, p99 {:.1} ms; searches by status: {:?}",
                alone.rate(),
                removed.rate(),
                removed.p99_ms,
                answered.statuses
            ));
            beside.push((removed.rate() / alone.rate(), removed.p99_ms));
            server.stop()?;
        }
        let ratio = Spread::of(beside.iter().map(|(ratio, _)| *ratio));
        let p99 = Spread::of(beside.iter().map(|(_, p99)| *p99));
        let reached = format!("{}; p99 {}", ratio.show(2, " ×"), p99.show(1, " ms"));
        let met = ratio.median >= 0.3 && p99.median <= 100.0;
        let over = match wire {
            Wire::Rest => "REST",
            Wire::Grpc => "gRPC",
        };
        let what = format!("DELETE, 1 connection, beside {SEARCHES} slow searches over {over}");
        let target = "≥ 0.3 × its rate alone; p99 ≤ 100 ms; no error";
        report.row(15, what, target, reached, met);
    }
    Ok(())
}

fn removals(
    bench: &Bench,
    report: &mut Report,
    home: &mut Home,
    server: &Server,
) -> Result<Outcome> {
    home.fill(bench.sizes.rows)?;
    let targets = home.take(usize::try_from(bench.sizes.rows)?);
    let requests: Vec<String> = targets.iter().map(|it| it.removal()).collect();
    let load = Load {
        wire: Wire::Rest,
        address: &server.address,
        token: &home.token,
        requests: &requests,
        connections: 1,
        time: bench.sizes.time,
        pace: None,
        again: false,
    };
    let before = Before::look(&home.database())?;
    let outcome = load.run(bench.dir())?;
    before.removals(&targets, &outcome)?;
    home.give_back(targets.get(outcome.sent..).unwrap_or_default());
    report.answers("DELETE beside searches", &outcome);
    Ok(outcome)
}

/// A search that is held against every user, as a line of a load's file.
fn search(wire: Wire) -> String {
    let texts = (0..FILTERS).map(|it| format!("none{it}"));
    match wire {
        Wire::Rest => {
            let queries: Vec<_> = texts
                .map(|id| json!({"userIdFilter": {"id": id, "method": "TEXT_FILTER_METHOD_CONTAINS"}}))
                .collect();
            let body = json!([{"orFilter": {"queries": queries}}]);
            format!("POST /resources/v3alpha/users/_search {body}")
        }
        Wire::Grpc => {
            let method = CONTAINS;
            let queries = texts.map(|id| Filter {
                or: None,
                user_id: Some(UserId { id, method }),
            });
            let or = Filters {
                queries: queries.collect(),
            };
            let filters = vec![Filter {
                or: Some(or),
                user_id: None,
            }];
            let message = HEXLOWER.encode(&Search { filters }.encode_to_vec());
            format!("POST {SEARCH} {message}")
        }
    }
}
