//! The log of the real binary: for people, programs, the journal and fail2ban. Logging never blocks a request.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::{Home, Server, enrolled, now};
use crate::harness::Client;

const USERS: &str = "/users";

/// Returns the log of a server that refused three tokens, made one user wait and created another. Also returns the id
/// of the last request.
fn logged(format: &str, level: &str, to_journal: bool) -> (String, String) {
    let (home, token) = Home::init();
    let (alice, phone) = enrolled(&home);
    let path = home.dir.path().join("log");
    let file = File::create(&path).unwrap();
    let of = file.metadata().unwrap();
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.args(["--log-format", format, "--log-level", level]);
    if to_journal {
        serve.env("JOURNAL_STREAM", format!("{}:{}", of.dev(), of.ino()));
    }
    let server = started(serve, Stdio::from(file));
    for _ in 0..3 {
        server
            .ask("totpd_nobodys", "POST", USERS, "{}")
            .expect_status(401);
    }
    let wrong = format!("\"{}\"", phone.wrong_at(now()));
    for _ in 0..7 {
        server.ask(
            &token,
            "POST",
            &format!("/users/{alice}/totp/_check"),
            &wrong,
        );
    }
    let made = server.ask(&token, "POST", USERS, "{}").expect_status(201);
    let id = made.header("x-request-id").unwrap().to_owned();
    assert_eq!(server.terminate().0, 0);
    (fs::read_to_string(&path).unwrap(), id)
}

/// A server whose log goes to `stderr`.
fn started(mut serve: Command, stderr: Stdio) -> Server {
    let mut child = serve.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let (address, _) = crate::wait::listening(&mut child).unwrap();
    Server::new(child, &address)
}

#[test]
fn each_line_of_json_parses_and_names_request_and_client() {
    let (log, id) = logged("json", "debug", false);
    let lines: Vec<Value> = log
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    for line in &lines {
        for name in ["time", "level", "message", "target"] {
            assert!(line[name].is_string(), "{line}");
        }
    }
    let refused = lines
        .iter()
        .filter(|it| it["message"] == "a token was refused");
    let refused: Vec<&Value> = refused.collect();
    assert_eq!(refused.len(), 3, "{log}");
    assert!(
        refused
            .iter()
            .all(|it| it["level"] == "info" && it["client.address"] == "127.0.0.1")
    );
    let answered = lines
        .iter()
        .find(|it| it["request_id"] == id.as_str())
        .unwrap();
    assert_eq!(answered["level"], "debug");
    assert_eq!(answered["call"], "CreateUser");
    let waits = lines.iter().filter(|it| it["message"] == "a wait began");
    let waits: Vec<&Value> = waits.collect();
    assert_eq!(waits.len(), 1, "{log}");
    assert_eq!(waits[0]["call"], "CheckTOTP");
    let of_user = lines
        .iter()
        .filter(|it| it["user_id"] == waits[0]["user_id"]);
    assert_eq!(of_user.count(), 8, "seven checks and a wait: {log}");
    assert_eq!(answered["http.response.status_code"], 201);
    assert!(answered["duration"].as_f64().unwrap() > 0.0, "{answered}");
}

#[test]
fn the_usual_level_shows_refused_tokens_and_no_requests() {
    let (log, id) = logged("text", "info", false);
    assert_eq!(log.matches("a token was refused").count(), 3, "{log}");
    // Seven wrong codes: the fifth one begins a wait, and the last two are not compared.
    assert_eq!(log.matches("a wait began").count(), 1, "{log}");
    assert!(log.contains("wait_s=30 "), "{log}");
    assert!(!log.contains(&id), "{log}");
    let (log, _) = logged("text", "error", false);
    assert!(log.is_empty(), "{log}");
}

#[test]
fn the_journal_gets_priorities_and_no_second_time() {
    let (log, _) = logged("text", "debug", true);
    assert!(
        log.contains("<6>a token was refused client.address="),
        "{log}"
    );
    assert!(log.contains("<7>POST "), "{log}");
    assert!(log.lines().all(|it| it.starts_with('<')), "{log}");
}

/// SECURITY.md 45: the count is logged even if no other refusal of that address follows.
#[test]
fn refusals_that_are_left_out_are_counted_without_another_one() {
    let (home, _) = Home::init();
    let path = home.dir.path().join("log");
    let serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    let server = started(serve, Stdio::from(File::create(&path).unwrap()));
    let mut client = Client::connect(&server.address);
    let head = "Authorization: Bearer totpd_nobodys\r\n";
    for _ in 0..300 {
        let refused = client.ask("DELETE", "/resources/v3alpha/users/1", head, b"");
        refused.expect_status(401);
    }
    assert_eq!(server.terminate().0, 0);
    let log = fs::read_to_string(&path).unwrap();
    let logged = log.matches("a token was refused").count();
    let counted = log.lines().filter_map(|it| {
        let (before, _) = it.split_once(" more refusals were not logged")?;
        let count = before.rsplit(' ').next()?;
        count.parse::<usize>().ok()
    });
    assert_eq!(logged + counted.sum::<usize>(), 300, "{log}");
}

/// SECURITY.md 45: the log goes to a full pipe that no process reads.
#[test]
fn a_log_that_is_not_read_stops_no_change_and_counts_what_is_lost() {
    let (home, token) = Home::init();
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.args(["--log-level", "debug"]);
    let mut server = started(serve, Stdio::piped());
    let mut client = Client::connect(&server.address);
    let head = format!("Authorization: Bearer {token}\r\n");
    for _ in 0..3_000 {
        let refused = client.ask("DELETE", "/resources/v3alpha/users/1", &head, b"");
        assert_eq!(refused.status, 404);
    }
    server.ask(&token, "POST", USERS, "{}").expect_status(201);
    let mut stderr = server.child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        log
    });
    let mut client = Client::connect(&server.address);
    for _ in 0..100 {
        client.ask("DELETE", "/resources/v3alpha/users/1", &head, b"");
    }
    assert_eq!(server.terminate().0, 0);
    let log = reader.join().unwrap();
    assert!(log.contains(" lines of the log were lost"), "{log:.500}");
}

#[test]
fn fail2ban_finds_the_address_of_each_refused_token_and_each_wait() {
    if Command::new("fail2ban-regex")
        .arg("--version")
        .output()
        .is_err()
    {
        return eprintln!("skipped: there is no fail2ban-regex");
    }
    let filter = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/fail2ban/filter.d/totpd.conf"
    );
    for format in ["text", "json"] {
        let (log, _) = logged(format, "debug", false);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, &log).unwrap();
        let output = Command::new("fail2ban-regex")
            .args(["--out", "ip"])
            .arg(&path)
            .arg(filter)
            .output()
            .unwrap();
        let found = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            found.lines().collect::<Vec<_>>(),
            ["127.0.0.1"; 4],
            "{found} {said}\n{log}"
        );
    }
}
