//! The real binary under a faked clock that changes while it runs. SECURITY.md 31, 35, 36.
//!
//! libfaketime fakes only the wall clock. The time since boot continues normally, as on a machine whose clock is set.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use totpd::model::{Timestamp, VERSION_DATE};

use crate::binary::{Home, Server, enrolled, now, refused};

const MINUTE_S: i64 = 60;
const DAY_S: i64 = 86_400;

/// A data directory, the real binary, and a clock for all its processes.
struct Machine {
    home: Home,
    library: PathBuf,
    ahead_s: i64,
}

impl Machine {
    /// Returns a machine with an initialised directory, and its token. `None` if libfaketime is not installed.
    fn init() -> Option<(Self, String)> {
        let (home, token) = Home::init();
        let machine = Self::around(home)?;
        Some((machine, token))
    }

    fn around(home: Home) -> Option<Self> {
        let Some(library) = library() else {
            println!("skipped: libfaketime is not here; install the package faketime");
            return None;
        };
        let mut machine = Self {
            home,
            library,
            ahead_s: 0,
        };
        machine.set_ahead(0);
        Some(machine)
    }

    fn offset(&self) -> PathBuf {
        self.home.dir.path().join("faketime")
    }

    /// Sets the wall clock this many seconds ahead of the real one.
    fn set_ahead(&mut self, seconds: i64) {
        self.ahead_s = seconds;
        let fresh = self.home.dir.path().join("faketime.fresh");
        fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
        // A running process may read the file at any moment, so it is replaced atomically.
        fs::rename(&fresh, self.offset()).unwrap();
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(now().micros() + self.ahead_s * 1_000_000)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.offset())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        crate::wait::output(&mut self.command(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn serve(&self) -> Server {
        Server::start(self.command(&["serve", "--listen", "127.0.0.1:0"]))
    }

    /// The level and the message of one line of the doctor's output.
    fn doctor(&self, check: &str) -> (String, String) {
        let output = self.run(&["doctor", "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found.as_array().unwrap();
        let line = found.iter().find(|it| it["check"] == check).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("level"), text("message"))
    }

    /// Asserts that the doctor names both ways to correct a clock.
    fn expect_both_ways(&self) {
        let (level, told) = self.doctor("clock");
        assert_eq!(level, "wrong");
        assert!(told.contains("set it"), "{told}");
        assert!(told.contains("totpd doctor --fix clock"), "{told}");
        assert_eq!(self.run(&["doctor"]).status.code(), Some(1));
    }

    fn events(&self) -> i64 {
        let database = rusqlite::Connection::open(self.home.data().join("totpd.db")).unwrap();
        let sql = "SELECT count(*) FROM event";
        database.query_row(sql, (), |row| row.get(0)).unwrap()
    }
}

/// Where Debian and its derivatives install libfaketime, on any architecture.
fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut files = places.map(|it| it.path().join("faketime/libfaketimeMT.so.1"));
    files.find(|it| it.exists())
}

/// Waits until the server's log contains `told`.
fn wait_for(log: &mut impl BufRead, told: &str) {
    let mut line = String::new();
    while !line.contains(told) {
        line.clear();
        let read = log.read_line(&mut line).unwrap();
        assert!(read > 0, "the log ended without {told:?}");
    }
}

/// SECURITY.md 35: the clock is 30 days ahead for a moment, and a change is made then.
#[test]
fn thirty_days_ahead_with_a_change_are_put_right_beside_the_server() {
    let Some((mut machine, token)) = Machine::init() else {
        return;
    };
    let (alice, phone) = enrolled(&machine.home);
    let check = format!("/users/{alice}/totp/_check");
    let server = machine.serve();
    machine.set_ahead(30 * DAY_S);
    let then = machine.now();
    let used = format!("\"{}\"", phone.code_at(then));
    server.ask(&token, "POST", &check, &used).expect_status(200);
    server
        .ask(&token, "POST", "/users", "{}")
        .expect_status(201);

    machine.set_ahead(0);
    let (method, path) = ("DELETE", format!("/users/{alice}/totp/{}", phone.id));
    let refused_503 = server.ask(&token, method, &path, "");
    refused_503.expect_error(503, 14, Some("TOTPD-Store"));
    let removal = machine.run(&["totp", "remove", "alice", &phone.id]);
    refused(&removal, 1, "totpd doctor");
    machine.expect_both_ways();

    let events = machine.events();
    let fixed = machine.json(&["doctor", "--fix", "clock"]);
    assert_eq!((&fixed["events"], &fixed["totps"]), (&2.into(), &1.into()));
    assert_eq!(machine.events(), events + 1, "nothing is lost");
    assert_eq!(machine.doctor("clock").0, "ok");
    assert!(machine.run(&["doctor"]).status.success());
    server
        .ask(&token, "POST", "/users", "{}")
        .expect_status(201);
    let listed = machine.json(&["totp", "list", "alice"]).to_string();
    assert!(listed.contains(&phone.id), "{listed}");
    // A minute passes, and codes are accepted again.
    machine.set_ahead(90);
    let code = format!("\"{}\"", phone.code_at(machine.now()));
    server.ask(&token, "POST", &check, &code).expect_status(200);
    // The 30 days pass.
    machine.set_ahead(30 * DAY_S);
    server
        .ask(&token, "POST", &check, &used)
        .expect_error(400, 3, Some("TOTPD-Used1"));
    machine.set_ahead(30 * DAY_S + 90);
    let code = format!("\"{}\"", phone.code_at(machine.now()));
    server.ask(&token, "POST", &check, &code).expect_status(200);

    machine.set_ahead(90);
    server
        .ask(&token, "POST", "/users", "{}")
        .expect_status(503);
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("totpd doctor"), "{said}");
}

/// SECURITY.md 36: until the server notices the jump. There is no request.
#[test]
fn four_hundred_days_ahead_without_a_request_delete_nothing() {
    let Some((mut machine, token)) = Machine::init() else {
        return;
    };
    enrolled(&machine.home);
    let events = machine.events();
    let mut server = machine.serve();
    let mut log = BufReader::new(server.child.stderr.take().unwrap());
    machine.set_ahead(405 * DAY_S);
    wait_for(&mut log, "the clock jumped ahead by");
    machine.set_ahead(0);
    wait_for(&mut log, "the clock jumped back by");
    assert_eq!(machine.events(), events);
    server
        .ask(&token, "POST", "/users", "{}")
        .expect_status(201);
    assert_eq!(machine.doctor("clock").0, "ok");
    server.kill();
}

/// SECURITY.md 35: a code was accepted while the clock was 20 minutes ahead.
#[test]
fn a_code_that_was_accepted_twenty_minutes_ahead_stays_used() {
    let Some((mut machine, token)) = Machine::init() else {
        return;
    };
    let (alice, phone) = enrolled(&machine.home);
    let check = format!("/users/{alice}/totp/_check");
    let server = machine.serve();
    machine.set_ahead(20 * MINUTE_S);
    let used = format!("\"{}\"", phone.code_at(machine.now()));
    server.ask(&token, "POST", &check, &used).expect_status(200);
    machine.set_ahead(0);
    server.ask(&token, "POST", &check, &used).expect_status(503);
    machine.expect_both_ways();
    let told = machine.run(&["doctor", "--fix", "clock"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.starts_with("taking 2"), "{told}");
    assert!(told.contains("put back: 1 authenticator"), "{told}");
    machine.set_ahead(20 * MINUTE_S);
    server
        .ask(&token, "POST", &check, &used)
        .expect_error(400, 3, Some("TOTPD-Used1"));
    server.kill();
}

/// SECURITY.md 31: the clock is behind the newest recorded time. Setting the clock is enough.
#[test]
fn a_clock_that_is_behind_serves_nothing_until_it_is_set() {
    let Some((mut machine, token)) = Machine::init() else {
        return;
    };
    let (alice, phone) = enrolled(&machine.home);
    let check = format!("/users/{alice}/totp/_check");
    machine.set_ahead(-DAY_S);
    let server = machine.serve();
    server
        .ask(&token, "POST", &check, "\"123456\"")
        .expect_status(503);
    machine.expect_both_ways();
    machine.set_ahead(0);
    assert_eq!(machine.doctor("clock").0, "ok");
    let code = format!("\"{}\"", phone.code_of(machine.now(), 0));
    server.ask(&token, "POST", &check, &code).expect_status(200);
    // A clock before the release date of this version cannot be confirmed.
    machine.set_ahead(VERSION_DATE.micros() / 1_000_000 - now().micros() / 1_000_000 - DAY_S);
    let fix = machine.run(&["doctor", "--fix", "clock", "--json"]);
    refused(&fix, 1, "set it right");
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("nothing is served until this is put right"),
        "{said}"
    );
}

/// SECURITY.md 36: a machine without a battery starts in 1970, and learns the time later.
#[test]
fn a_machine_that_starts_in_1970_makes_nothing_and_serves_nothing() {
    let home = Home {
        dir: tempfile::tempdir().unwrap(),
    };
    let Some(mut machine) = Machine::around(home) else {
        return;
    };
    let in_1970 = 100 - now().micros() / 1_000_000;
    machine.set_ahead(in_1970);
    for command in [
        &["init"][..],
        &["serve", "--init", "--listen", "127.0.0.1:0"],
    ] {
        refused(&machine.run(command), 1, "set it right");
        assert!(!machine.home.data().exists());
    }
    machine.set_ahead(0);
    let made = machine.json(&["init"]);
    let token = made["token"]["token"].as_str().unwrap();
    machine.set_ahead(in_1970);
    let server = machine.serve();
    server.ask(token, "POST", "/users", "{}").expect_status(503);
    assert_eq!(machine.doctor("clock").0, "wrong");
    machine.set_ahead(0);
    server.ask(token, "POST", "/users", "{}").expect_status(201);
    assert_eq!(machine.doctor("clock").0, "ok");
    // The token was valid for a year.
    machine.set_ahead(366 * DAY_S);
    server
        .ask(token, "POST", "/users", "{}")
        .expect_error(401, 16, Some("AUTH-7fs1e"));
    let (level, told) = machine.doctor("tokens");
    assert_eq!(level, "warn");
    assert!(told.contains("expired on"), "{told}");
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("refused: the admin token"), "{said}");
    assert!(said.contains("totpd token create"), "{said}");
}
