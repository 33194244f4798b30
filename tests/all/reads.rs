//! Reads while changes run. A slow search is stopped, and delays neither a change nor a read by id. SECURITY.md 37.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use totpd::model::UserId;
use totpd::service::{Context, DataDir, KeyFile, NewUser, Service};

use crate::binary::{Home, Server, now};
use crate::harness::{Client, TestServer};
#[cfg(feature = "grpc")]
use crate::rpc::{Rpc, encode, frame, method, path};
use crate::wait::{self, SetOnDrop};

/// The number of users in the organization that is searched. A search of all of them takes seconds.
const USERS: usize = 60_000;
/// The number of searches that the server runs at once. All others wait for one of these.
const SEARCHES_AT_ONCE: usize = 3;
/// The statuses that a slow search may have, over both transports: found, out of time, and no memory or no permit.
const ALLOWED: [i64; 6] = [200, 429, 503, 0, 8, 14];
const SEARCH: Option<&str> = Some("TOTPD-Search");

/// A search that reads every user and finds none.
fn slow_search() -> Value {
    let filters = (0..90).map(|n| {
        let text = format!("no user {n}");
        json!({"userIdFilter": {"id": text, "method": "TEXT_FILTER_METHOD_CONTAINS"}})
    });
    json!([{"orFilter": {"queries": filters.collect::<Vec<_>>()}}])
}

/// A data directory with many users in one organization and one user, `bob`, in another.
struct Crowd {
    home: Home,
    admin: String,
    /// A manager of the organization with many users.
    manager: String,
    /// A manager of bob's organization.
    other: String,
}

impl Crowd {
    fn new(users: usize) -> Self {
        let (home, admin) = Home::init();
        let orgs = home.json(&["org", "list"]);
        let here = orgs[0]["id"].as_str().unwrap();
        let there = home.json(&["org", "create", "There"]);
        let there = there["id"].as_str().unwrap();
        home.json(&["user", "create", "bob", "--id", "bob", "--org", there]);
        let manager = |org: &str| {
            let made = home.json(&["token", "create", "--role", "manager", "--org", org]);
            made["token"].as_str().unwrap().to_owned()
        };
        let (manager, other) = (manager(here), manager(there));
        let fill = format!(
            "INSERT INTO user (id, id_folded, org_id, state, created, changed)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {users})
             SELECT printf('%018d', i), printf('%018d', i), '{here}', 'active', i, i FROM n"
        );
        let database = Connection::open(home.data().join("totpd.db")).unwrap();
        database.execute_batch(&fill).unwrap();
        Self {
            home,
            admin,
            manager,
            other,
        }
    }

    /// The paths of authenticators to remove. The library creates them in one commit.
    fn totps(&self, count: usize) -> Vec<String> {
        let dir = DataDir::open(&self.home.data(), KeyFile::InDataDir).unwrap();
        let service = Service::open(dir).unwrap();
        let context = Context::command_line(now());
        let mut paths = Vec::new();
        let made = service.run_batch(|| {
            for n in 0..count {
                let new = NewUser {
                    id: Some(format!("removed{n}").parse().unwrap()),
                    ..NewUser::default()
                };
                let made = service.create_user(&context, new).unwrap();
                let user: UserId = made.id.parse().unwrap();
                let begun = service.start_totp(&context, user.clone(), None).unwrap();
                paths.push(format!("/users/{user}/totp/{}", begun.details.id));
            }
        });
        made.unwrap();
        paths
    }
}

/// SECURITY.md 37
#[test]
fn a_search_beyond_its_time_is_told_to_be_narrower() {
    let crowd = Crowd::new(USERS);
    let server = crowd.home.serve(&["--read-timeout", "50ms"]);
    let search = |filters: &Value| {
        let path = "/users/_search";
        server.ask(&crowd.manager, "POST", path, &filters.to_string())
    };
    let refused = search(&slow_search()).expect_error(429, 8, SEARCH);
    assert!(refused.text("/message").contains("narrow"));
    assert_eq!(
        refused.header("retry-after"),
        None,
        "the same search takes as long at any time"
    );
    #[cfg(feature = "grpc")]
    {
        let request = json!({"filters": slow_search()});
        let message = encode(method("SearchUsers").input(), &request);
        let mut rpc = Rpc::connect(&server.address);
        let refused = rpc.call(Some(&crowd.manager), "SearchUsers", &message);
        assert_eq!((refused.code, refused.id.as_deref()), (8, SEARCH));
    }
    let one = json!([{"userIdFilter": {"id": "000000000000000007"}}]);
    let found = search(&one).expect_status(200).json();
    assert_eq!(found["details"]["totalResult"], "1");
    server.kill();
}

/// SECURITY.md 37: another process locks the database, and 64 clients without a token ask for readiness.
#[test]
fn probes_of_a_locked_database_hold_up_neither_health_nor_a_read() {
    let server = TestServer::start();
    server.user("alice");
    let address = &server.address();
    let _locked = server.lock();
    let (answered, is_answered) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..64 {
            let answered = answered.clone();
            scope.spawn(move || {
                let begun = Instant::now();
                let answer = Client::connect(address).ask("GET", "/debug/ready", "", b"");
                answered.send((answer.status, begun.elapsed())).unwrap();
            });
        }
        let (mut probes, mut health, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        while probes.len() < 64 {
            let begun = Instant::now();
            let alive = Client::connect(address).ask("GET", "/debug/healthz", "", b"");
            health.push(begun.elapsed());
            assert_eq!(alive.status, 200);
            let begun = Instant::now();
            server.ask("GET", "/users/unknown", "").expect_status(404);
            reads.push(begun.elapsed());
            probes.extend(is_answered.try_iter());
        }
        let longest = probes.iter().map(|it| it.1).max().unwrap();
        assert!(probes.iter().all(|it| it.0 == 503), "{probes:?}");
        health.sort();
        let (health, read) = (health[health.len() / 2], reads.iter().max().unwrap());
        println!("healthz {health:?} (median), longest read {read:?}, longest probe {longest:?}");
        // The rule says 50 ms for a release build. Other tests run at the same time.
        let limit = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });
        assert!(health <= limit, "{health:?}");
        assert!(*read <= Duration::from_secs(2), "{read:?}");
        assert!(longest <= Duration::from_secs(3), "{longest:?}");
    });
}

/// What a client measured while slow searches ran.
struct Met {
    removals: Vec<Duration>,
    reads: Vec<Duration>,
}

impl Met {
    fn removal_p99(&mut self) -> Duration {
        self.removals.sort();
        self.removals[self.removals.len() * 99 / 100]
    }

    fn longest_read(&self) -> Duration {
        self.reads.iter().copied().max().unwrap()
    }
}

/// Removes authenticators one after another, and reads bob with a token of his organization, while each of
/// `searchers` keeps searching.
fn beside_searches<S: FnMut() -> Option<i64>>(
    crowd: &Crowd,
    server: &Server,
    searchers: usize,
    searcher: impl Fn() -> S + Sync,
    removals: &[String],
) -> Met {
    let (is_over, answered) = (&AtomicBool::new(false), AtomicUsize::new(0));
    let mut met = Met {
        removals: Vec::new(),
        reads: Vec::new(),
    };
    thread::scope(|scope| {
        let over = SetOnDrop(is_over);
        for _ in 0..searchers {
            scope.spawn(|| {
                let mut search = searcher();
                while !is_over.load(Ordering::SeqCst) {
                    let status = search();
                    answered.fetch_add(1, Ordering::SeqCst);
                    let is_allowed = status.map(|it| ALLOWED.contains(&it));
                    let is_over = || is_over.load(Ordering::SeqCst);
                    assert!(is_allowed.unwrap_or_else(is_over), "{status:?}");
                }
            });
        }
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        let other = bearer(&crowd.other);
        let reading = scope.spawn(move || {
            let mut client = Client::connect(&server.address);
            let mut took = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let begun = Instant::now();
                client
                    .ask("GET", "/resources/v3alpha/users/bob", &other, b"")
                    .expect_status(200);
                took.push(begun.elapsed());
            }
            took
        });
        let mut client = Client::connect(&server.address);
        let bearer = bearer(&crowd.admin);
        for path in removals {
            let begun = Instant::now();
            client
                .ask("DELETE", &format!("/resources/v3alpha{path}"), &bearer, b"")
                .expect_status(200);
            met.removals.push(begun.elapsed());
        }
        wait::until("a second round of searches", || {
            answered.load(Ordering::SeqCst) > SEARCHES_AT_ONCE
        });
        drop(over);
        met.reads = reading.join().unwrap();
        // The searches that still wait for a permit would take as long again.
        kill_process(Pid::from_child(&server.child), Signal::KILL).unwrap();
    });
    met
}

fn searches_over_rest(removal_p99: Duration, longest_read: Duration) {
    let crowd = Crowd::new(USERS);
    let removals = crowd.totps(300);
    let server = crowd.home.serve(&[]);
    let body = slow_search().to_string();
    let bearer = format!("Authorization: Bearer {}\r\n", crowd.manager);
    let searcher = || {
        let mut client = Client::connect(&server.address);
        let (bearer, body) = (&bearer, &body);
        move || {
            let target = "/resources/v3alpha/users/_search";
            let answer = client.try_ask("POST", target, bearer, body.as_bytes());
            answer.map(|it| i64::from(it.status))
        }
    };
    let mut met = beside_searches(&crowd, &server, 12, searcher, &removals);
    let (p99, longest) = (met.removal_p99(), met.longest_read());
    println!("12 searches over REST: removal p99 {p99:?}, longest read {longest:?}");
    assert!(p99 <= removal_p99, "{p99:?}");
    assert!(longest <= longest_read, "{longest:?}");
}

#[cfg(feature = "grpc")]
fn searches_over_grpc(removal_p99: Duration, longest_read: Duration) {
    let crowd = Crowd::new(USERS);
    let removals = crowd.totps(300);
    let server = crowd.home.serve(&[]);
    let request = json!({"filters": slow_search()});
    let message = frame(0, &encode(method("SearchUsers").input(), &request));
    let bearer = format!("Bearer {}", crowd.manager);
    let searcher = || {
        let mut rpc = Rpc::connect(&server.address);
        let (bearer, message) = (&bearer, &message);
        move || {
            let headers = [
                ("content-type", "application/grpc"),
                ("authorization", bearer.as_str()),
            ];
            let (_, _, trailers) = rpc.raw(&path("SearchUsers"), &headers, message).ok()?;
            let status = trailers.iter().find(|it| it.0 == "grpc-status")?;
            status.1.parse().ok()
        }
    };
    let mut met = beside_searches(&crowd, &server, 28, searcher, &removals);
    let (p99, longest) = (met.removal_p99(), met.longest_read());
    println!("28 searches over gRPC: removal p99 {p99:?}, longest read {longest:?}");
    assert!(p99 <= removal_p99, "{p99:?}");
    assert!(longest <= longest_read, "{longest:?}");
}

/// SECURITY.md 37, with limits that also hold on a busy machine.
#[test]
fn slow_searches_over_rest_hold_up_no_change_and_no_read_by_id() {
    searches_over_rest(Duration::from_secs(1), Duration::from_secs(3));
}

/// SECURITY.md 37, with the same limits.
#[cfg(feature = "grpc")]
#[test]
fn slow_searches_over_grpc_hold_up_no_change_and_no_read_by_id() {
    searches_over_grpc(Duration::from_secs(1), Duration::from_secs(3));
}

/// SECURITY.md 37
#[test]
#[ignore = "its bounds hold on a quiet machine and for a release build"]
fn slow_searches_over_rest_hold_up_a_removal_for_100_ms_at_most() {
    searches_over_rest(Duration::from_millis(100), Duration::from_millis(500));
}

/// SECURITY.md 37
#[cfg(feature = "grpc")]
#[test]
#[ignore = "its bounds hold on a quiet machine and for a release build"]
fn slow_searches_over_grpc_hold_up_a_removal_for_100_ms_at_most() {
    searches_over_grpc(Duration::from_millis(100), Duration::from_millis(500));
}
