//! The metrics page: where it is served, what it must not contain, and that Prometheus accepts it, the alerts and the
//! dashboard.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use totpd::service::Role;

use crate::binary::Home;
use crate::harness::Client;
use crate::metrics::{get, metrics_address, page, rest, start, value};
use crate::wait::{SetOnDrop, until};

const REST: &str = "/resources/v3alpha";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// SECURITY.md 42
#[test]
fn metrics_hold_no_id_name_code_or_token() {
    let server = start();
    let user = server.user("alice-of-the-test");
    let phone = server.enrol(&user);
    let code = phone.code_at(server.now());
    server.check(&user, &code).expect_status(200);
    let (token_id, token) = server.token_with(Role::Admin, Some(Duration::from_hours(24)));
    server.pass_seconds(60);
    let page = page(&server);
    let secrets = [
        &user,
        &phone.id,
        &server.org,
        &server.admin,
        &token_id,
        &token,
    ];
    for text in secrets
        .into_iter()
        .map(String::as_str)
        .chain(["alice", "127.0.0.1", "Test"])
    {
        assert!(!page.contains(text), "{text} is in\n{page}");
    }
}

#[test]
fn only_their_own_address_has_metrics_and_it_has_nothing_else() {
    let server = start();
    server
        .raw("GET", "/metrics", "", b"")
        .expect_error(404, 5, None);
    let text = get(&server, "/metrics?x=1", "").expect_status(200);
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(text.body.ends_with(b"\n"));
    assert!(text.header("x-request-id").is_some());
    let open = get(
        &server,
        "/metrics",
        "Accept: application/openmetrics-text; version=1.0.0\r\n",
    );
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(kind));
    assert!(open.body.ends_with(b"# EOF\n"));
    for accept in ["Accept: \r\n", "Accept: a/b\r\n", "Accept: \u{fc}\r\n"] {
        let text = get(&server, "/metrics", accept).expect_status(200);
        assert!(text.body.starts_with(b"# HELP totpd_build_info "));
    }
    assert_eq!(
        get(&server, "/debug/healthz", "").expect_status(200).body,
        b"ok"
    );
    assert_eq!(
        get(&server, "/debug/ready", "").expect_status(200).body,
        b"ok"
    );
    let bearer = format!("Authorization: Bearer {}\r\n", server.admin);
    for target in ["/", "/metrics/", &format!("{REST}/users/{}", server.org)] {
        get(&server, target, &bearer).expect_error(404, 5, None);
    }
    let mut client = Client::connect(&metrics_address(&server));
    let head = client.ask("HEAD", "/metrics", "", b"").expect_status(200);
    assert!(
        head.header("content-length")
            .unwrap()
            .parse::<usize>()
            .unwrap()
            > 1_000
    );
    let refused = client
        .ask("POST", "/metrics", "", b"x")
        .expect_error(405, 12, None);
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    client.send(b"no request\r\n\r\n");
    client.answer(false, "").expect_status(400);
}

/// The largest number of scrapers, all of which send half a request or read no answer. The next scrape is still
/// served, and clients notice nothing.
#[test]
fn slow_scrapers_hold_nothing_up() {
    let server = start();
    let address = metrics_address(&server);
    let mut slow: Vec<_> = (0..8).map(|_| Client::connect(&address)).collect();
    for (nth, client) in slow.iter_mut().enumerate() {
        match nth % 2 {
            0 => client.send(b"GET /metrics HTTP/1.1\r\n"),
            _ => client.send(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n"),
        }
    }
    until("there is room for one more", || {
        let mut client = Client::connect(&address);
        let answer = client.try_ask("GET", "/metrics", "", b"");
        answer.is_some_and(|it| it.status == 200)
    });
    server.user("alice");
    server
        .ask("POST", "/users/_search", "[]")
        .expect_status(200);
    // Scrapers do not count as client connections.
    assert_eq!(
        value(&server, r#"totpd_connections{protocol="http1"}"#),
        Some(0.0)
    );
}

/// Needs `promtool`, which is in Debian's package `prometheus`.
#[test]
fn promtool_is_content_with_a_scrape_under_load() {
    let server = start();
    let is_over = AtomicBool::new(false);
    let pages = thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        for nth in 0..4 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let user = server.user(&format!("user-{nth}-{round}"));
                    let phone = server.start_enrolment(&user);
                    server
                        .confirm(&user, &phone, &phone.code_at(server.now()))
                        .expect_status(200);
                    server.remove(&user, &phone).expect_status(200);
                    round += 1;
                }
            });
        }
        let removed = rest("RemoveTOTPAuthenticator", "ok");
        until("the load has begun", || {
            value(&server, &removed).is_some_and(|it| it > 8.0)
        });
        (0..5).map(|_| page(&server)).collect::<Vec<_>>()
    });
    for page in pages {
        promtool(&["check", "metrics"], &page);
    }
}

/// Passes this input to `promtool`, and asserts that it has no complaint.
fn promtool(args: &[&str], input: &str) {
    let started = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        eprintln!("promtool is missing: not checked");
        return;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(
        output.status.success() && told.is_empty(),
        "{told}\n{input}"
    );
}

#[test]
fn the_binary_tells_where_metrics_are_and_counts_the_lines_of_its_log() {
    let (home, _) = Home::init();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    home.refuses(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            &taken,
        ],
        1,
        &format!("cannot listen for metrics on {taken}"),
    );
    home.refuses(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "0.0.0.0:0",
        ],
        1,
        "--insecure-plaintext",
    );
    let path = home.data().with_file_name("metrics.sock");
    let named = format!("unix:{}", path.display());
    let server = home.serve(&["--metrics-listen", &named, "--log-level", "debug"]);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let mut scrape = || {
        stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.write_all(request).unwrap();
        std::io::read_to_string(&mut stream).unwrap()
    };
    server.ask("none", "GET", "/users/1", "").expect_status(401);
    let page = scrape();
    assert!(
        page.contains("totpd_log_lines_total{level=\"debug\"} "),
        "{page}"
    );
    let debug = page
        .lines()
        .find_map(|it| it.strip_prefix("totpd_log_lines_total{level=\"debug\"} "));
    assert!(debug.unwrap().parse::<f64>().unwrap() >= 1.0);
    assert!(page.contains("process_resident_memory_bytes "), "{page}");
    let (status, _) = server.terminate();
    assert_eq!(status, 0);
    assert!(!path.exists());
}

/// The names of all metrics in the tables of `docs/operations.md`.
fn documented() -> BTreeSet<&'static str> {
    let page = include_str!("../../docs/operations.md");
    let rows = page
        .lines()
        .filter(|it| it.starts_with("| `totpd_") || it.starts_with("| `process_"));
    let cells = rows.map(|it| it.split('|').nth(1).unwrap());
    cells
        .flat_map(|it| it.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn each_metric_is_documented() {
    let server = start();
    server.token_with(Role::Admin, Some(Duration::from_hours(24)));
    server.record_backup();
    let page = page(&server);
    let types = page.lines().filter_map(|it| it.strip_prefix("# TYPE "));
    let shown: BTreeSet<&str> = types.map(|it| it.split(' ').next().unwrap()).collect();
    let mut documented = documented();
    // This server has no TLS.
    assert!(documented.remove("totpd_tls_certificate_expiry_timestamp_seconds"));
    assert_eq!(shown, documented);
}

/// The names of metrics in an expression, without the suffixes of histograms.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    let names = words.filter(|it| it.starts_with("totpd_") || it.starts_with("process_"));
    names.map(|it| {
        let parts = ["_bucket", "_count", "_sum"];
        parts
            .iter()
            .find_map(|part| it.strip_suffix(part))
            .unwrap_or(it)
    })
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
    let documented = documented();
    let dashboard: Value =
        serde_json::from_str(include_str!("../../deploy/grafana/totpd.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 15);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(named(expression).count() > 0, "{expression}");
            for name in named(expression) {
                assert!(documented.contains(name), "{name} in {expression}");
            }
        }
    }
    for name in named(include_str!("../../deploy/prometheus/totpd.rules.yml")) {
        assert!(documented.contains(name), "{name} in the alerts");
    }
}

/// Each alert has a row that says what to do. The rest of the test needs `promtool`.
#[test]
fn the_alerts_are_explained_and_fire_when_they_should() {
    let rules = include_str!("../../deploy/prometheus/totpd.rules.yml");
    let page = include_str!("../../docs/operations.md");
    let alerts = rules
        .lines()
        .filter_map(|it| it.trim().strip_prefix("- alert: "));
    let alerts: Vec<_> = alerts.collect();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        assert!(page.contains(&format!("| `{alert}` |")), "{alert}");
    }
    let dir = Path::new(ROOT).join("deploy/prometheus");
    for args in [
        ["check", "rules", "totpd.rules.yml"],
        ["test", "rules", "totpd.tests.yml"],
    ] {
        let Ok(output) = Command::new("promtool")
            .args(args)
            .current_dir(&dir)
            .output()
        else {
            eprintln!("promtool is missing: the alerts are not tested");
            return;
        };
        assert!(output.status.success(), "{output:?}");
    }
}
