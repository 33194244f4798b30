//! The transport of requests: stopping, which requests wait for which, and the form of refusals. SECURITY.md 34 and
//! 47.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Client, TestServer};
#[cfg(feature = "grpc")]
use crate::wait::{self, SetOnDrop};

/// A container runtime kills after ten seconds, so no client may delay a stop for longer than that.
#[test]
fn requests_of_which_a_part_was_sent_do_not_hold_a_stop_for_more_than_two_seconds() {
    let mut server = TestServer::start();
    let half = b"POST /resources/v3alpha/users HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut http1 = Client::connect(&server.address());
    http1.send(half);
    assert_eq!(http1.answer(false, "the first half").status, 100);
    let mut http2 = TcpStream::connect(server.address()).unwrap();
    if cfg!(feature = "grpc") {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        http2.write_all(preface).unwrap();
        // The HEADERS frame of a call to /x/Y. The stream stays open.
        let head = b"\x83\x86\x41\x01t\x44\x04/x/Y\x5f\x10application/grpc";
        let frame = [&[0, 0, head.len() as u8, 1, 4, 0, 0, 0, 1][..], head].concat();
        http2.write_all(&frame).unwrap();
    }
    // An answer on a connection that was opened later shows that the server has accepted the earlier ones.
    server
        .raw("GET", "/debug/healthz", "", b"")
        .expect_status(200);
    let begun = Instant::now();
    assert!(server.stop(Duration::from_secs(8)));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_500), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(http1.is_closed());
    drop(http2);
}

/// Only the size of a head is limited, not the number of its fields.
#[test]
fn as_many_header_fields_are_read_as_fit_into_the_head() {
    let server = TestServer::start();
    let head = |fields: usize| {
        let fields = "a: b\r\n".repeat(fields);
        format!("GET /debug/healthz HTTP/1.1\r\nHost: t\r\n{fields}\r\n")
    };
    let mut client = Client::connect(&server.address());
    for fields in [62, 2_700] {
        client.send(head(fields).as_bytes());
        client.answer(false, "many fields").expect_status(200);
    }
    client.send(head(2_800).as_bytes());
    client
        .answer(false, "too many bytes")
        .expect_error(431, 8, Some("TOTPD-Large"));
}

/// The front end's own answers have a Date header, and no body in answer to HEAD.
#[test]
fn answers_of_the_front_end_itself_have_a_date_and_to_head_no_body() {
    let server = TestServer::start();
    for head in [
        "HEAD /debug/healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".to_owned(),
        "HEAD / HTTP/1.1\r\n\r\n".to_owned(),
        format!(
            "HEAD / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n",
            "x".repeat(20_000)
        ),
    ] {
        let mut client = Client::connect(&server.address());
        client.send(head.as_bytes());
        let answer = client.answer(true, &head);
        assert!(answer.header("date").is_some_and(|it| it.ends_with(" GMT")));
        assert_ne!(answer.header("content-length"), Some("0"));
        assert!(client.is_closed(), "a body to {head:.60}");
    }
}

/// Liveness needs no worker.
#[test]
fn healthz_is_answered_while_all_workers_are_stuck() {
    let server = TestServer::start();
    let stuck = server.stuck.lock().unwrap();
    let mut waiting: Vec<_> = (0..16)
        .map(|_| {
            let mut client = Client::connect(&server.address());
            client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
            client
        })
        .collect();
    let begun = Instant::now();
    for method in ["GET", "HEAD"] {
        server
            .raw(method, "/debug/healthz", "", b"")
            .expect_status(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(stuck);
    for client in &mut waiting {
        client.answer(false, "stuck").expect_error(404, 5, None);
    }
}

/// A readiness request waits for the database for at most the time of one probe. Reads have their own permits, so any
/// number of readiness requests does not delay them.
#[test]
fn a_read_is_answered_while_requests_for_readiness_are_stuck() {
    let server = TestServer::start();
    let user = server.user("honest");
    let stuck = server.stuck.lock().unwrap();
    let mut waiting: Vec<_> = (0..16)
        .map(|_| {
            let mut client = Client::connect(&server.address());
            client.send(b"GET /debug/ready?stuck HTTP/1.1\r\nHost: t\r\n\r\n");
            client
        })
        .collect();
    // If readiness took permits of reads, eight of these requests would block this read while they are stuck.
    for _ in 0..16 {
        server
            .ask("GET", &format!("/users/{user}"), "")
            .expect_status(200);
    }
    drop(stuck);
    for client in &mut waiting {
        client.answer(false, "ready").expect_status(200);
    }
}

/// Short changes share a connection to the workers and long changes do not. Each caller gets the answer to its own
/// change.
#[test]
fn changes_of_all_lengths_get_their_own_answers() {
    let server = TestServer::start();
    std::thread::scope(|scope| {
        for client in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = Client::connect(&server.address());
                let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
                for round in 0..12 {
                    let id = format!("u-{client}-{round}");
                    let data = "x".repeat([0, 900, 1_100, 60_000][(client + round) % 4]);
                    let body = format!(r#"{{"userId":"{id}","data":{{"a":"{data}"}}}}"#);
                    let users = "/resources/v3alpha/users";
                    let made = connection.ask("POST", users, &bearer, body.as_bytes());
                    assert_eq!(made.expect_status(201).text("/details/id"), id);
                    let user = format!("{users}/{id}");
                    let read = connection.ask("HEAD", &user, &bearer, b"");
                    assert!(read.expect_status(200).body.is_empty());
                    let gone = connection.ask("DELETE", &user, &bearer, b"");
                    assert_eq!(gone.expect_status(200).text("/details/id"), id);
                }
            });
        }
    });
    assert_eq!(server.count("SELECT count(*) FROM user"), 0);
}

/// A request that is refused before its head is complete is answered in the protocol it used, as far as the head
/// shows it.
#[cfg(feature = "grpc")]
#[test]
fn early_refusals_have_the_form_of_what_was_asked() {
    use totpd::serve::Limits;

    let limits = Limits {
        request_time: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = TestServer::builder().limits(limits).start();
    let web = "POST /x/Y HTTP/1.1\r\nHost: t\r\nOrigin: https://pages.test\r\n\
               Content-Type: application/grpc-web+proto\r\n";
    let cases = [
        (
            format!("X-Long: {}\r\n\r\n", "x".repeat(20_000)),
            8,
            "TOTPD-Large",
        ),
        ("Content-Length: 65537\r\n\r\n".to_owned(), 8, "TOTPD-Large"),
        ("Content-Length: 5, 5\r\n\r\n".to_owned(), 3, "TOTPD-Field"),
        ("Bad Name: x\r\n\r\n".to_owned(), 3, "TOTPD-Field"),
        // Requests that are not complete in time: one in the head, one in the body.
        ("X-Cut: ".to_owned(), 4, "TOTPD-Slow"),
        ("Content-Length: 5\r\n\r\n\0".to_owned(), 4, "TOTPD-Slow"),
    ];
    let clients: Vec<Client> = cases
        .iter()
        .map(|(rest, ..)| {
            let mut client = Client::connect(&server.address());
            client.send(format!("{web}{rest}").as_bytes());
            client
        })
        .collect();
    for ((rest, code, id), mut client) in cases.into_iter().zip(clients) {
        let answer = client.answer(false, &rest).expect_status(200);
        let told = crate::transports::web_outcome(&answer, "GetUser");
        assert_eq!(
            (told.code, told.id.as_deref()),
            (code, Some(id)),
            "{rest:.40}"
        );
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://pages.test"), "{rest:.40}");
        assert!(client.is_closed());
    }
}

/// SECURITY.md 47: a flood of requests without a token from one address causes no refusal for another address.
#[cfg(feature = "grpc")]
#[test]
fn a_flood_of_one_address_turns_away_no_call_of_another() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use protox::prost::bytes::Bytes;

    let server = TestServer::start();
    let address: std::net::SocketAddr = server.address().parse().unwrap();
    let (done, refused) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let flood = {
        let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let mut tasks = Vec::new();
                for connection in 0..32 {
                    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
                    let (send, driver) = h2::client::handshake(socket).await.unwrap();
                    tokio::spawn(driver);
                    for stream in 0..32 {
                        let rpc =
                            ["CheckTOTP", "GetUser", "SearchUsers"][(connection + stream) % 3];
                        let target = format!("http://t{}", crate::rpc::path(rpc));
                        let (send, done, refused) =
                            (send.clone(), Arc::clone(&done), Arc::clone(&refused));
                        tasks.push(tokio::spawn(async move {
                            while !done.load(Ordering::SeqCst) {
                                let Ok(mut send) = send.clone().ready().await else {
                                    return;
                                };
                                let request = http::Request::post(&target)
                                    .header("content-type", "application/grpc")
                                    .body(())
                                    .unwrap();
                                let Ok((response, mut body)) = send.send_request(request, false)
                                else {
                                    return;
                                };
                                let _sent = body.send_data(Bytes::from_static(&[0; 5]), true);
                                if let Ok(response) = response.await
                                    && response
                                        .headers()
                                        .get("grpc-status")
                                        .is_some_and(|it| it == "14")
                                {
                                    refused.fetch_add(1, Ordering::SeqCst);
                                }
                            }
                        }));
                    }
                }
                for task in tasks {
                    task.await.unwrap();
                }
            });
        })
    };
    let over = SetOnDrop(&done);
    wait::until("the flood is refused", || {
        refused.load(Ordering::SeqCst) >= 100
    });
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    let mut honest = Client::connect_from([127, 0, 0, 2], &server.address());
    for nth in 0..10 {
        let body = format!(r#"{{"userId":"u{nth}"}}"#);
        let users = "/resources/v3alpha/users";
        honest
            .ask("POST", users, &bearer, body.as_bytes())
            .expect_status(201);
        honest
            .ask("GET", &format!("{users}/u{nth}"), &bearer, b"")
            .expect_status(200);
        honest
            .ask("GET", "/debug/healthz", "", b"")
            .expect_status(200);
        let search = format!("{users}/_search");
        honest.ask("POST", &search, &bearer, b"").expect_status(200);
    }
    drop(over);
    flood.join().unwrap();
}

/// Counts the threads by name and the open descriptors of an idle server. Both must be few.
#[test]
fn an_idle_server_has_few_threads_and_descriptors_and_each_thread_of_its_own_a_name() {
    let (home, token) = crate::binary::Home::init();
    let server = home.serve(&[]);
    server
        .ask(&token, "POST", "/users", "{}")
        .expect_status(201);
    server
        .ask(&token, "POST", "/users/_search", "")
        .expect_status(200);
    let of_process = std::path::PathBuf::from(format!("/proc/{}", server.child.id()));
    let names: Vec<String> = std::fs::read_dir(of_process.join("task"))
        .unwrap()
        .filter_map(|it| std::fs::read_to_string(it.unwrap().path().join("comm")).ok())
        .map(|it| it.trim().to_owned())
        .collect();
    let descriptors = std::fs::read_dir(of_process.join("fd")).unwrap().count();
    assert!(names.len() <= 45, "{names:?}");
    assert!(descriptors <= 120, "{descriptors}");
    for name in ["accept", "change-0", "read-0", "tidy"] {
        assert!(names.iter().any(|it| it == name), "no {name} in {names:?}");
    }
    let page = include_str!("../../docs/architecture.md");
    for name in &names {
        let kind = name.trim_end_matches(|it: char| it.is_ascii_digit());
        let row = format!("| `{kind}");
        assert!(
            page.contains(&row),
            "no row for {name} in docs/architecture.md"
        );
    }
    server.kill();
}
