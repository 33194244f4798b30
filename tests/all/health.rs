//! `totpd health` asks the server of a data directory, or another server, and reports the result in its exit status.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use rusqlite::Connection;

use crate::binary::{Home, Server};

fn run_file(home: &Home) -> PathBuf {
    home.data().join("run.json")
}

/// Asserts success, and returns the text that is printed for a healthy server.
#[track_caller]
fn is_well(home: &Home, args: &[&str]) -> String {
    let output = home.run(&[&["health"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn health_asks_the_server_of_the_directory() {
    let (home, _) = Home::init();
    home.refuses(&["health"], 1, "no server runs on this data directory");
    let server = home.serve(&[]);
    let address = format!("http://{}", server.address);
    assert_eq!(is_well(&home, &[]), format!("{address} is healthy\n"));
    assert_eq!(
        is_well(&home, &["--ready"]),
        format!("{address} is ready\n")
    );
    let document = home.json(&["health", "--ready"]);
    let expected = serde_json::json!({"status": "ready", "address": address});
    assert_eq!(document, expected);
    let mode = fs::metadata(run_file(&home)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.terminate().0, 0);
    assert!(!run_file(&home).exists(), "removed at a stop");
    home.refuses(&["health", "--ready"], 1, "no server runs");
}

/// Another server may have its port by now and would answer in its place.
#[test]
fn a_server_that_was_killed_is_not_healthy_whatever_it_has_left() {
    let (home, other) = (Home::init().0, Home::init().0);
    home.serve(&[]).kill();
    let server = other.serve(&[]);
    fs::copy(run_file(&other), run_file(&home)).unwrap();
    home.refuses(&["health"], 1, "no server runs");
    is_well(&home, &["--address", &server.address]);
    // Only this user may have written the file that the server leaves.
    fs::set_permissions(run_file(&home), fs::Permissions::from_mode(0o644)).unwrap();
    let next = home.serve(&[]);
    let mode = fs::metadata(run_file(&home)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    is_well(&home, &[]);
    next.kill();
    server.kill();
}

#[test]
fn a_server_that_cannot_write_is_healthy_and_not_ready() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let neighbour = Connection::open(home.data().join("totpd.db")).unwrap();
    neighbour.execute_batch("BEGIN IMMEDIATE").unwrap();
    home.refuses(&["health", "--ready"], 1, "503");
    is_well(&home, &[]);
    neighbour.execute_batch("ROLLBACK").unwrap();
    server.kill();
}

#[test]
fn every_kind_of_address_is_asked() {
    let (home, _) = Home::init();
    let path = |name: &str| home.dir.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["login.test".to_owned()]).unwrap();
    let (cert, key, socket) = (path("cert"), path("key"), path("socket"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let tls = ["--tls-cert", cert.as_str(), "--tls-key", key.as_str()];
    let unix = format!("unix:{socket}");
    for (listen, told) in [
        (&["--listen", "0.0.0.0:0"][..], "https://0.0.0.0:"),
        (&["--listen", "0.0.0.0:0", "--listen", &unix], &unix),
    ] {
        let mut serve = home.command(&["serve"]);
        serve.args(listen).args(tls);
        let server = start(serve, &home);
        let said = is_well(&home, &["--ready"]);
        assert!(said.starts_with(told), "{said}");
        assert_eq!(server.terminate().0, 0);
    }
}

/// Starts a server without plain HTTP.
fn start(mut serve: std::process::Command, home: &Home) -> Server {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let serve = serve.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = serve.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(run_file(home).exists(), "before it says that it listens");
    Server::new(child, line.trim())
}

#[test]
fn what_is_no_healthy_totpd_is_told_in_one_line() {
    let (home, _) = Home::init();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers = [
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.1 503 Service Unavailable\r\n\r\nok",
        "SSH-2.0-OpenSSH\r\n",
        "",
    ];
    thread::scope(|scope| {
        scope.spawn(|| {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                let _read = std::io::Read::read(&mut stream, &mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for _ in answers {
            home.refuses(
                &["health", "--address", &address],
                1,
                "not a totpd that is healthy",
            );
        }
    });
    drop(listener);
    home.refuses(&["health", "--address", &address], 1, "no answer");
    for bad in ["", "nonsense", "ftp://example.org", "unix:", "https://"] {
        home.refuses(&["health", "--address", bad], 1, "no answer");
    }
}
