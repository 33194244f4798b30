//! Measures that parsing a request costs time linear in its length, up to every bound. SECURITY.md 44.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unchecked_time_subtraction,
    reason = "a test says what went wrong by panicking, and its numbers are small"
)]

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::call;
use super::http::{Request, Via};
use super::messages::{self, SearchUsersRequest};
use super::path::Query;
use super::{filters, rest};

/// How much the cost may grow from a tenth of a bound to all of it. Linear would be 10.
const MOST: u32 = 15;
const ROUNDS: usize = 30;
const TRIES: usize = 10;
const BODY_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = 16 * 1024;

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn cost(act: impl Fn()) -> Duration {
    let begun = cpu_time();
    act();
    cpu_time() - begun
}

/// Takes the least of many measurements, because other load only adds to them. If the machine is so busy that all of them
/// are too high, measures again.
#[track_caller]
fn is_linear(name: &str, input: impl Fn(usize) -> String, read: impl Fn(&str)) {
    let (few, all) = (input(10), input(100));
    let mut measured = Vec::new();
    for _ in 0..TRIES {
        let (mut of_few, mut of_all) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            of_few = of_few.min(cost(|| read(&few)));
            of_all = of_all.min(cost(|| read(&all)));
        }
        // Below a few microseconds the clock itself is measured.
        if of_all <= of_few.max(Duration::from_micros(2)) * MOST {
            return;
        }
        measured.push((of_few, of_all));
    }
    panic!("{name}: for a tenth and for all {measured:?}");
}

fn many(part: &str, bytes: usize) -> String {
    part.repeat(bytes / part.len())
}

#[test]
fn nothing_that_is_read_costs_worse_than_linear() {
    let filter = r#"{"orFilter":{"queries":[{"notFilter":{"query":{"userIdFilter":{"id":"abc","method":1}}}}]}}"#;
    is_linear(
        "filters",
        |percent| {
            format!(
                "[{}{filter}]",
                format!("{filter},").repeat(33 * percent / 100 - 1)
            )
        },
        |body| {
            let filters = messages::read_filters(body.as_bytes()).unwrap();
            let request = SearchUsersRequest {
                instance: None,
                query: None,
                sorting_column: 0,
                filters,
            };
            black_box(filters::search(&request).unwrap());
        },
    );
    is_linear(
        "empty filters",
        |percent| format!("[{}{{}}]", many("{},", BODY_BYTES * percent / 100)),
        |body| drop(black_box(messages::read_filters(body.as_bytes()))),
    );
    for (name, part, end) in [
        ("data of many values", "0,", "0"),
        ("data of many objects", r#"{"":{}},"#, "0"),
        ("data of deep objects", &deep(), "0"),
        ("data of one text", "x,", "0"),
    ] {
        is_linear(
            name,
            |percent| {
                format!(
                    r#"{{"data":{{"a":[{}{end}]}}}}"#,
                    many(part, BODY_BYTES * percent / 100).replace('x', "1")
                )
            },
            |body| drop(black_box(messages::read_user(body.as_bytes()))),
        );
    }
    is_linear(
        "a user of many members",
        |percent| {
            let members = (0..5_000 * percent / 100).map(|n| format!(r#""{n}":{n},"#));
            format!(r#"{{"data":{{{}"z":0}}}}"#, members.collect::<String>())
        },
        |body| drop(black_box(messages::read_user(body.as_bytes()))),
    );
    is_linear(
        "usernames",
        |percent| {
            let names = (0..50 * percent / 100)
                .map(|n| format!(r#"{{"username":"{}{n}"}}"#, "n".repeat(190)));
            let names = names.collect::<Vec<_>>().join(",");
            format!(r#"{{"authenticators":{{"usernames":[{names}]}}}}"#)
        },
        |body| {
            let user = Some(messages::read_user(body.as_bytes()).unwrap());
            let request = messages::CreateUserRequest {
                instance: None,
                organization: None,
                user,
            };
            black_box(call::create_user(request).unwrap());
        },
    );
}

fn deep() -> String {
    format!(
        "{}{},",
        r#"{"a":"#.repeat(25),
        "0".to_owned() + &"}".repeat(25)
    )
}

#[test]
fn no_path_and_no_query_costs_worse_than_linear() {
    is_linear(
        "parameters",
        |percent| {
            let parameters =
                (0..32 * percent / 100).map(|n| format!("{}{n}=%41%42+", "p".repeat(400)));
            parameters.collect::<Vec<_>>().join("&")
        },
        |query| drop(black_box(Query::read(query).map(|_| ()))),
    );
    is_linear(
        "parameters without number",
        |percent| many("a=1&", HEAD_BYTES * percent / 100),
        |query| drop(black_box(Query::read(query).map(|_| ()))),
    );
    for part in ["a=1&", "%41", "%", "/", "+", "%zz", "&", "="] {
        is_linear(
            "a target",
            |percent| {
                format!(
                    "/resources/v3alpha/users/{}",
                    many(part, HEAD_BYTES * percent / 100)
                )
            },
            |target| {
                black_box(parse("GET", target));
            },
        );
        is_linear(
            "a query",
            |percent| {
                format!(
                    "/resources/v3alpha/users/1?{}",
                    many(part, HEAD_BYTES * percent / 100)
                )
            },
            |target| {
                black_box(parse("GET", target));
            },
        );
    }
}

fn parse(method: &str, target: &str) -> bool {
    let request = Request {
        via: Via::Http,
        method,
        target,
        authorization: None,
        content_type: None,
        origin: None,
        code: None,
        body: b"",
        peer: None,
        request_id: None,
    };
    rest::parse(&request).is_ok()
}
