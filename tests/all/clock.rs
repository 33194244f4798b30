//! What totpd refuses, and what it does not delete, while the clock is wrong. The test moves the clock. SECURITY.md
//! 31, 36.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use totpd::model::{ClockReading, Period, Timestamp, VERSION_DATE, Window};
use totpd::service::{ClockFixSummary, Context, DataDir, KeyFile, Level, Role, Service, Settings};

use crate::binary::Home;
use crate::harness::TestServer;

const HOUR: Duration = Duration::from_hours(1);
pub const DAY: Duration = Duration::from_hours(24);
const KEEP: Duration = Duration::from_hours(400 * 24);
pub const EVENTS: &str = "SELECT count(*) FROM event";
const PENDING: &str = "SELECT count(*) FROM totp WHERE state = 'pending'";

/// A server, and how long its machine has been running.
pub struct Machine {
    pub server: TestServer,
    since_boot: Duration,
    /// The service that deletes expired rows after a restart.
    restarted: Option<Service>,
}

impl Machine {
    pub fn start() -> Self {
        Self {
            server: TestServer::start(),
            since_boot: Duration::from_secs(700),
            restarted: None,
        }
    }

    /// Opens the data directory with a new service, which has observed no earlier time.
    pub fn restart(&mut self) {
        let dir = DataDir::open(self.server.path(), KeyFile::InDataDir).unwrap();
        self.restarted = Some(Service::open(dir).unwrap());
    }

    /// Confirms that the clock is right.
    pub fn fix(&self) -> ClockFixSummary {
        let now = self.server.now();
        let fixed = self.server.service.fix_clock(&Context::command_line(now));
        fixed.unwrap()
    }

    /// The doctor's finding for a check.
    pub fn doctor(&self, check: &str) -> (Level, String) {
        let dir = DataDir::open(self.server.path(), KeyFile::InDataDir).unwrap();
        let findings = dir.examine(self.server.now());
        let found = findings.into_iter().find(|it| it.check == check).unwrap();
        (found.level, found.message)
    }

    /// The number of times later than now, for each column that holds a time, and the number of last steps beyond the
    /// window.
    pub fn dated_ahead(&self) -> [i64; 11] {
        let now = self.server.now().micros();
        let floor = self.server.now().step(Period::ENROLMENT).number() + 1;
        let count = |table: &str, column: &str, than: i64| {
            let sql = format!("SELECT count(*) FROM {table} WHERE {column} > {than}");
            self.server.count(&sql)
        };
        [
            count("event", "at", now),
            count("totp", "last_step", floor),
            count("totp", "created", now),
            count("totp", "changed", now),
            count("totp", "last_used", now),
            count("failure", "judged_at", now),
            count("token", "created", now),
            count("user", "max(created, changed)", now),
            count("recovery_set", "max(created, changed)", now),
            count("organization", "created", now),
            count("instance", "probed_at", now),
        ]
    }

    /// Lets time pass, and deletes expired rows as the server does by itself.
    pub fn pass(&mut self, time: Duration) {
        self.since_boot += time;
        self.server.pass_seconds(time.as_secs().cast_signed());
        let reading = ClockReading {
            now: self.server.now(),
            since_boot: self.since_boot,
        };
        let service = self.restarted.as_ref().unwrap_or(&self.server.service);
        service.tidy(KEEP, reading).unwrap();
    }

    /// Lets an hour pass, in the intervals that a server uses.
    pub fn pass_an_hour(&mut self) {
        for _ in 0..240 {
            self.pass(Duration::from_secs(15));
        }
    }

    /// Sets the wall clock.
    pub fn set_clock(&self, ahead: Duration) {
        self.server.pass_seconds(ahead.as_secs().cast_signed());
    }

    pub fn set_clock_back(&self, by: Duration) {
        self.server.pass_seconds(-by.as_secs().cast_signed());
    }
}

/// SECURITY.md 36: the clock is ahead for a minute or for half an hour, and there is no request.
#[test]
fn nothing_is_deleted_on_the_word_of_a_clock_that_jumped() {
    let mut machine = Machine::start();
    let alice = machine.server.user("alice");
    machine.pass_an_hour();
    machine.pass_an_hour();
    machine.server.start_enrolment(&alice);
    let events = machine.server.count(EVENTS);
    for minutes in [1, 30] {
        machine.set_clock(405 * DAY);
        for _ in 0..4 * minutes {
            machine.pass(Duration::from_secs(15));
        }
        machine.set_clock_back(405 * DAY);
        machine.pass(Duration::from_secs(15));
        assert_eq!(machine.server.count(EVENTS), events, "{minutes} minutes");
        assert_eq!(machine.server.count(PENDING), 1, "{minutes} minutes");
    }
    // The clock has been right for an hour, and the enrolment is two hours old.
    machine.pass_an_hour();
    assert_eq!(machine.server.count(PENDING), 0);
    machine.server.user("bob");
}

/// SECURITY.md 36: it is not yet known whether the clock is right.
#[test]
fn nothing_is_deleted_in_the_first_hour_of_a_process() {
    let mut machine = Machine::start();
    let alice = machine.server.user("alice");
    machine.server.start_enrolment(&alice);
    machine.set_clock(20 * DAY);
    machine.pass(Duration::from_secs(15));
    for _ in 0..59 {
        machine.pass(Duration::from_mins(1));
    }
    assert_eq!(machine.server.count(PENDING), 1);
    let expired = "SELECT count(*) FROM event WHERE kind = 'totp.expired'";
    assert_eq!(machine.server.count(expired), 0);
    machine.pass(Duration::from_mins(1));
    assert_eq!(machine.server.count(PENDING), 0);
    assert_eq!(machine.server.count(expired), 1);
}

/// SECURITY.md 36
#[test]
fn an_enrolment_that_begins_by_a_wrong_clock_sweeps_no_other() {
    let machine = Machine::start();
    let (alice, bob) = (machine.server.user("alice"), machine.server.user("bob"));
    let phone = machine.server.start_enrolment(&alice);
    machine.set_clock(Duration::from_mins(12));
    machine.server.start_enrolment(&bob);
    machine.set_clock_back(Duration::from_mins(12));
    let code = phone.code_at(machine.server.now());
    machine
        .server
        .confirm(&alice, &phone, &code)
        .expect_status(200);
}

/// SECURITY.md 36: rows created in 1970 would have expired as soon as the clock is right.
#[test]
fn no_instance_is_made_by_a_clock_before_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        issuer: "Test".parse().unwrap(),
        window: Window::OneEitherSide,
        checkpoints: totpd::model::Checkpointer::Own,
        self_removal: totpd::model::SelfRemoval::Allow,
    };
    let year = 365 * DAY;
    for (now, told) in [
        (Timestamp::from_seconds(60), "1970-01-01"),
        (VERSION_DATE.before(HOUR), "was made on 2026-11-23"),
        (VERSION_DATE.after(21 * year), "20 years"),
    ] {
        let path = dir.path().join("data");
        let refused = DataDir::create(&path, KeyFile::InDataDir, &settings, now);
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains(told), "{refused}");
        assert!(refused.contains("set it right"), "{refused}");
        assert!(!path.exists(), "nothing was made");
    }
    let path = dir.path().join("data");
    assert!(DataDir::create(&path, KeyFile::InDataDir, &settings, VERSION_DATE).is_ok());
}

/// SECURITY.md 36
#[test]
fn a_clock_over_twenty_years_ahead_is_a_fault() {
    let machine = Machine::start();
    let alice = machine.server.user("alice");
    let far = 21 * 365 * DAY;
    machine.set_clock(far);
    let check = machine.server.check(&alice, "123456");
    check.expect_error(503, 14, Some("TOTPD-Store"));
    let refused = machine.server.service.check_clock(machine.server.now());
    assert!(format!("{refused:?}").contains("20 years"), "{refused:?}");
    machine.set_clock_back(far);
    machine.server.user("bob");
}

/// A server stops normally while the clock is wrong, and leaves an empty WAL.
#[test]
fn a_server_stops_well_while_the_clock_is_wrong() {
    let (home, token) = Home::init();
    let server = home.serve(&[]);
    let database = Connection::open(home.data().join("totpd.db")).unwrap();
    let ahead = "INSERT INTO event (at, kind, actor) VALUES (2400000000000000, 'x', 'x')";
    database.execute_batch(ahead).unwrap();
    drop(database);
    server
        .ask(&token, "POST", "/users", "{}")
        .expect_error(503, 14, Some("TOTPD-Store"));
    let log = home.data().join("totpd.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert_eq!(fs::metadata(&log).map_or(0, |it| it.len()), 0);

    let server = home.serve(&[]);
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("totpd doctor"), "{said}");
}

/// SECURITY.md 36: the clock is ahead for hours and over a restart. Only an administrator can confirm that it is
/// right.
#[test]
fn nothing_is_deleted_by_a_clock_that_is_far_ahead_until_a_person_confirms_it() {
    let mut machine = Machine::start();
    machine.server.user("alice");
    let events = machine.server.count(EVENTS);
    machine.pass_an_hour();
    machine.set_clock(405 * DAY);
    machine.pass_an_hour();
    machine.pass_an_hour();
    assert_eq!(machine.server.count(EVENTS), events);
    assert_eq!(machine.doctor("clock").0, Level::Warn);
    // Neither an event dated by that clock nor a restart ends the doubt.
    machine.server.user("bob");
    machine.restart();
    machine.pass_an_hour();
    machine.pass_an_hour();
    assert_eq!(machine.server.count(EVENTS), events + 1);
    let (level, told) = machine.doctor("clock");
    assert_eq!(level, Level::Warn);
    assert!(told.contains("totpd doctor --fix clock"), "{told}");

    machine.fix();
    assert_eq!(machine.doctor("clock").0, Level::Ok);
    machine.pass(Duration::from_secs(15));
    assert_eq!(machine.server.count(EVENTS), 2, "what is old now is swept");
}

/// SECURITY.md 36: after the restart the event looks current. Only the gap before it shows the jump.
#[test]
fn a_change_by_a_clock_that_is_far_ahead_and_a_restart_delete_nothing() {
    let mut machine = Machine::start();
    machine.server.user("alice");
    let events = machine.server.count(EVENTS);
    machine.set_clock(405 * DAY);
    machine.server.user("bob");
    machine.restart();
    machine.pass_an_hour();
    machine.pass_an_hour();
    assert_eq!(machine.server.count(EVENTS), events + 1);
    assert_eq!(machine.doctor("clock").0, Level::Warn);
}

/// SECURITY.md 36: the doubt ends when its cause is removed. A month without events causes no doubt.
#[test]
fn a_doubt_of_the_clock_ends_where_the_clock_is_put_right() {
    let mut machine = Machine::start();
    let alice = machine.server.user("alice");
    machine.pass_an_hour();
    machine.set_clock(405 * DAY);
    machine.pass_an_hour();
    machine.pass_an_hour();
    assert_eq!(machine.doctor("clock").0, Level::Warn);
    machine.set_clock_back(405 * DAY);
    machine.pass_an_hour();
    machine.pass_an_hour();
    assert_eq!(machine.doctor("clock").0, Level::Ok);
    machine.server.start_enrolment(&alice);
    for _ in 0..40 {
        machine.pass(DAY);
    }
    assert_eq!(machine.server.count(PENDING), 0);
    machine.server.user("bob");
    machine.pass(Duration::from_secs(15));
    assert_eq!(machine.doctor("clock").0, Level::Ok);
}

/// The doctor names tokens that expire soon, while there is time to replace them.
#[test]
fn the_doctor_tells_of_tokens_that_expire() {
    let machine = Machine::start();
    assert_eq!(machine.doctor("tokens").0, Level::Ok);
    let (soon, _) = machine.server.token_with(Role::Admin, Some(15 * DAY));
    assert_eq!(machine.doctor("tokens").0, Level::Ok);
    machine.server.pass_seconds(86_400 + 1);
    let (level, told) = machine.doctor("tokens");
    assert_eq!(level, Level::Warn, "{told}");
    assert!(told.contains(&format!("token {soon} expires on")), "{told}");
    machine.server.pass_seconds(14 * 86_400);
    let (_, told) = machine.doctor("tokens");
    assert!(told.contains(&format!("token {soon} expired on")), "{told}");
    assert!(told.contains("totpd token create"), "{told}");
}
