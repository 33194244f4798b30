//! The most memory that one client can make the real binary use while an honest client is served. SECURITY.md 44, 45.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::binary::{Home, Server};
use crate::harness::Client;
use crate::rpc::Rpc;
use crate::wait::{self, SetOnDrop};

const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// A field of `/proc/<pid>/status`, in bytes.
fn memory(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find(|it| it.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A server, its admin token, and 400 users whose 65 KB of data hold as many objects as allowed, nested thirty deep.
fn prepared() -> (Home, Server, String, String) {
    let (home, admin) = Home::init();
    let checker = home.json(&["token", "create", "--role", "checker", "--all-orgs"]);
    let deep = format!("{}0{}", r#"{"":"#.repeat(28), "}".repeat(28));
    let data = format!(
        r#"{{"a":[{}0]}}"#,
        format!("{deep},").repeat(65_000 / (deep.len() + 1))
    );
    let database = Connection::open(home.data().join("totpd.db")).unwrap();
    let org: String = database
        .query_row("SELECT id FROM organization", (), |row| row.get(0))
        .unwrap();
    for n in 0..400 {
        let insert = "INSERT INTO user (id, id_folded, org_id, data, created, changed)
             VALUES (?1, ?1, ?2, ?3, 1, 1)";
        let row = (format!("u{n}"), &org, &data);
        database.execute(insert, row).unwrap();
    }
    drop(database);
    let server = home.serve(&[]);
    let checker = checker["token"].as_str().unwrap().to_owned();
    (home, server, admin, checker)
}

/// Runs `attack` while a client reads one user repeatedly. Asserts that each of these reads is answered.
fn withstands(name: &str, attack: impl Fn(&Server, &str, &str)) {
    let (home, server, admin, checker) = prepared();
    home.json(&["user", "create", "honest", "--id", "honest"]);
    let bearer = format!("Authorization: Bearer {admin}\r\n");
    let honest = || {
        let mut client = Client::connect_from([127, 0, 0, 2], &server.address);
        let answer = client.ask("GET", "/resources/v3alpha/users/honest", &bearer, b"");
        answer.expect_status(200);
    };
    honest();
    let idle = memory(&server, "VmRSS");
    let is_over = &AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let over = SetOnDrop(is_over);
        let reader = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !is_over.load(Ordering::SeqCst) {
                let begun = Instant::now();
                honest();
                slowest = slowest.max(begun.elapsed());
            }
            slowest
        });
        attack(&server, &admin, &checker);
        drop(over);
        reader.join().unwrap()
    });
    let most = memory(&server, "VmHWM").saturating_sub(idle);
    println!(
        "{name}: {} MiB beyond idle, an honest read took {slowest:?}",
        most >> 20
    );
    assert!(most <= MOST_BYTES, "{name}: {} MiB beyond idle", most >> 20);
}

/// The server runs three searches at once, so eight clients need several rounds.
#[test]
fn pages_of_the_largest_users_take_little_memory() {
    withstands("pages over REST", |server, admin, _| {
        let bearer = format!("Authorization: Bearer {admin}\r\n");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = Client::connect(&server.address);
                    let target = "/resources/v3alpha/users/_search?query.limit=1000";
                    let page = client.ask("POST", target, &bearer, b"[]");
                    assert!([200, 429, 503].contains(&page.status), "{}", page.status);
                });
            }
        });
    });
    withstands("pages over gRPC", |server, admin, _| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = Rpc::connect(&server.address);
                    // A protobuf message: `query.limit` is 1,000.
                    let message = [0x12, 0x03, 0x10, 0xe8, 0x07];
                    let bearer = format!("Bearer {admin}");
                    let headers = [
                        ("content-type", "application/grpc"),
                        ("te", "trailers"),
                        ("authorization", bearer.as_str()),
                    ];
                    let path = crate::rpc::path("SearchUsers");
                    let frame = crate::rpc::frame(0, &message);
                    let (_, _, trailers) = client.raw(&path, &headers, &frame).unwrap();
                    let status = trailers.iter().find(|(it, _)| it == "grpc-status").unwrap();
                    assert!(
                        ["0", "8", "14"].contains(&status.1.as_str()),
                        "{}",
                        status.1
                    );
                });
            }
        });
    });
}

#[test]
fn a_hundred_clients_that_take_no_page_hold_little_memory() {
    withstands("pages that nobody reads", |server, admin, _| {
        let head = format!(
            "POST /resources/v3alpha/users/_search?query.limit=1000 HTTP/1.1\r\nHost: test\r\n\
             Authorization: Bearer {admin}\r\nContent-Length: 2\r\n\r\n[]"
        );
        let mut answered = Vec::new();
        let clients: Vec<TcpStream> = (0..100)
            .map(|_| {
                let mut client = TcpStream::connect(&server.address).unwrap();
                client.write_all(head.as_bytes()).unwrap();
                client
            })
            .collect();
        // At this point each client has the first byte of a page or of a refusal, so the server does no more work for
        // them.
        for client in clients {
            client.set_read_timeout(Some(wait::PATIENCE)).unwrap();
            assert_eq!(client.peek(&mut [0]).unwrap(), 1);
            answered.push(client);
        }
    });
}

#[test]
fn a_body_of_empty_messages_takes_little_memory() {
    withstands("empty messages", |server, admin, checker| {
        let filters = format!("[{}{{}}]", "{},".repeat(21_000));
        let names = format!(
            r#"{{"authenticators":{{"usernames":[{}{{}}]}}}}"#,
            "{},".repeat(21_000)
        );
        let values = format!(r#"{{"data":{{"a":[{}0]}}}}"#, r#"{"":0},"#.repeat(9_000));
        let ask = |token: &str, path: &str, body: &str, status: u16| {
            let bearer = format!("Authorization: Bearer {token}\r\n");
            let mut client = Client::connect(&server.address);
            let target = format!("/resources/v3alpha/{path}");
            let answer = client.ask("POST", &target, &bearer, body.as_bytes());
            assert_eq!(answer.status, status, "{path}");
        };
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        ask(checker, "users/_search", &filters, 403);
                        ask(admin, "users/_search", &filters, 400);
                        ask(checker, "users", &names, 403);
                        ask(admin, "users", &names, 400);
                        ask(admin, "users", &values, 400);
                    }
                });
            }
        });
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = Rpc::connect(&server.address);
                    for _ in 0..4 {
                        let filters = b"\x22\x00".repeat(32_000);
                        let told = client.call(Some(checker), "SearchUsers", &filters);
                        assert_eq!(told.code, 7);
                        let told = client.call(Some(admin), "SearchUsers", &filters);
                        assert_eq!(told.code, 3);
                    }
                });
            }
        });
    });
}
