//! Clocks that were wrong, with a clock that is moved by the test. SECURITY.md 31, 35, 36.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use totpd::model::{ClockReading, Period, Timestamp, VERSION_DATE, Window};
use totpd::service::{ClockFixSummary, Context, DataDir, KeyFile, Level, Role, Service, Settings};

use crate::binary::Home;
use crate::harness::TestServer;
use crate::wait::{self, SetOnDrop};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KEEP: Duration = Duration::from_hours(400 * 24);
const EVENTS: &str = "SELECT count(*) FROM event";
const PENDING: &str = "SELECT count(*) FROM totp WHERE state = 'pending'";

/// A server, and how long its machine has been running.
struct Machine {
    server: TestServer,
    since_boot: Duration,
    /// What tidies up, after a restart.
    restarted: Option<Service>,
}

impl Machine {
    fn start() -> Self {
        Self {
            server: TestServer::start(),
            since_boot: Duration::from_secs(700),
            restarted: None,
        }
    }

    /// Lets another process go on, which has seen nothing of the time before.
    fn restart(&mut self) {
        let dir = DataDir::open(self.server.path(), KeyFile::InDataDir).unwrap();
        self.restarted = Some(Service::open(dir).unwrap());
    }

    /// Says that the clock is right.
    fn fix(&self) -> ClockFixSummary {
        let now = self.server.now();
        let fixed = self.server.service.fix_clock(&Context::command_line(now));
        fixed.unwrap()
    }

    /// What the doctor finds.
    fn doctor(&self, check: &str) -> (Level, String) {
        let dir = DataDir::open(self.server.path(), KeyFile::InDataDir).unwrap();
        let findings = dir.examine(self.server.now());
        let found = findings.into_iter().find(|it| it.check == check).unwrap();
        (found.level, found.message)
    }

    /// Of each column that holds a time, how many are later than now; and of last steps beyond the window.
    fn dated_ahead(&self) -> [i64; 11] {
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

    /// Lets time pass, and tidies up as the server does by itself.
    fn pass(&mut self, time: Duration) {
        self.since_boot += time;
        self.server.pass_seconds(time.as_secs().cast_signed());
        let reading = ClockReading {
            now: self.server.now(),
            since_boot: self.since_boot,
        };
        let service = self.restarted.as_ref().unwrap_or(&self.server.service);
        service.tidy(KEEP, reading).unwrap();
    }

    /// An hour in the steps of a server.
    fn pass_an_hour(&mut self) {
        for _ in 0..240 {
            self.pass(Duration::from_secs(15));
        }
    }

    /// Sets the wall clock.
    fn set_clock(&self, ahead: Duration) {
        self.server.pass_seconds(ahead.as_secs().cast_signed());
    }

    fn set_clock_back(&self, by: Duration) {
        self.server.pass_seconds(-by.as_secs().cast_signed());
    }
}

/// SECURITY.md 36: for a minute or half an hour, with no request.
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

/// SECURITY.md 36: nobody knows yet whether the clock is right.
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

/// SECURITY.md 36: what is made in 1970 has expired when the clock is right.
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

/// Where the clock is wrong a stop is a stop, and leaves nothing in the log.
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

/// SECURITY.md 36: ahead for hours, over a restart. Nobody but a person can say that it is right.
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
    // An event by that clock ends no doubt, and neither does a restart.
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

/// SECURITY.md 36: after the restart the change looks like the present, and only the gap before it tells of the jump.
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

/// SECURITY.md 36: the doubt ends with its cause, and a quiet month is none.
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

/// SECURITY.md 35: all that has a date, 30 days ahead.
#[test]
fn a_clock_that_was_ahead_is_put_right_and_nothing_is_lost() {
    let ahead = 30 * DAY;
    let machine = Machine::start();
    let (alice, bob) = (machine.server.user("alice"), machine.server.user("bob"));
    let (phone, bobs) = (machine.server.enrol(&alice), machine.server.enrol(&bob));
    let events = machine.server.count(EVENTS);

    machine.set_clock(ahead);
    let then = machine.server.now();
    let used = phone.code_at(then);
    machine.server.check(&alice, &used).expect_status(200);
    let codes = format!("/users/{alice}/recovery_codes");
    machine.server.ask("POST", &codes, "").expect_status(200);
    for _ in 0..7 {
        machine.server.check(&bob, &bobs.wrong_at(then));
    }
    let carol = machine.server.user("carol");
    let pending = machine.server.start_enrolment(&carol);
    let (_, token) = machine.server.token_with(Role::Admin, Some(DAY));
    let org = machine.server.organization("Acme");
    machine
        .server
        .raw("GET", "/debug/ready", "", b"")
        .expect_status(200);
    machine.set_clock_back(ahead);
    machine.server.pass_seconds(60);

    let refused = machine
        .server
        .check(&alice, &phone.code_at(machine.server.now()));
    refused.expect_error(503, 14, Some("TOTPD-Store"));
    let (level, told) = machine.doctor("clock");
    assert_eq!(level, Level::Wrong);
    assert!(told.contains("set it"), "{told}");
    assert!(told.contains("totpd doctor --fix clock"), "{told}");

    let fixed = machine.fix();
    assert_eq!(
        (fixed.totps, fixed.waits, fixed.tokens),
        (1, 1, 1),
        "{fixed:?}"
    );
    // Five guesses count before there is a wait, and readiness writes no event. Organizations count as users.
    assert_eq!((fixed.events, fixed.users), (11, 2), "{fixed:?}");
    assert_eq!(machine.doctor("clock").0, Level::Ok);
    let server = &machine.server;
    assert_eq!(
        server.count(EVENTS),
        events + 11 + 1,
        "and one of the fix itself"
    );
    assert_eq!(machine.dated_ahead(), [0; 11]);
    let kept = "SELECT count(*) FROM event WHERE original_at > at";
    assert_eq!(server.count(kept), 11, "what they were dated first");
    let backward = "SELECT count(*) FROM event AS a JOIN event AS b ON a.id < b.id AND a.at > b.at";
    assert_eq!(server.count(backward), 0, "events never run backwards");

    // The wait begins anew.
    let waits = server.check(&bob, &bobs.code_at(server.now()));
    waits.expect_error(429, 8, Some("TOTPD-Wait1"));
    // Nothing up to the end of the window is good, and then all is.
    for offset in -1..=1 {
        let code = phone.code_of(server.now(), offset);
        let refused = server.check(&alice, &code);
        refused.expect_error(400, 3, Some("TOTPD-Used1"));
    }
    server.pass_seconds(60);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
    server
        .confirm(&carol, &pending, &pending.code_at(server.now()))
        .expect_status(200);
    server
        .check(&bob, &bobs.code_at(server.now()))
        .expect_status(200);
    server.user_in(&org, "dave");
    server
        .ask_as(&token, "GET", &format!("/users/{alice}"), "")
        .expect_status(200);
    server.pass_seconds(86_400);
    server
        .ask_as(&token, "GET", &format!("/users/{alice}"), "")
        .expect_status(401);

    // The code's time comes. So does that of the code before, which nobody used as far as anybody knows.
    let step = then.step(Period::ENROLMENT).number();
    for (code_of, is_good) in [(step - 1, false), (step, false), (step + 1, true)] {
        server.set(Timestamp::from_seconds(code_of * 30 + 1));
        let answer = server.check(&alice, &phone.code_at(server.now()));
        assert_eq!(
            answer.status,
            if is_good { 200 } else { 400 },
            "{}",
            code_of - step
        );
    }
}

/// SECURITY.md 35: so little ahead that totpd serves on, and a little more.
#[test]
fn a_code_that_was_used_minutes_ahead_stays_used() {
    for minutes in [10, 20] {
        let ahead = Duration::from_mins(minutes);
        let machine = Machine::start();
        let alice = machine.server.user("alice");
        let phone = machine.server.enrol(&alice);
        machine.set_clock(ahead);
        let then = machine.server.now();
        machine
            .server
            .check(&alice, &phone.code_at(then))
            .expect_status(200);
        machine.set_clock_back(ahead);
        machine.server.pass_seconds(1);
        machine.fix();
        machine.server.pass_seconds(60);
        let now = machine.server.now();
        if minutes == 20 {
            // The step lies before the first that may have been used.
            machine
                .server
                .check(&alice, &phone.code_at(now))
                .expect_status(200);
        }
        machine.server.set(then);
        let refused = machine.server.check(&alice, &phone.code_at(then));
        refused.expect_error(400, 3, Some("TOTPD-Used1"));
        machine.server.pass_seconds(30);
        let later = machine.server.now();
        machine
            .server
            .check(&alice, &phone.code_at(later))
            .expect_status(200);
    }
}

/// SECURITY.md 35: killed at any moment, it leaves a database that refuses, and the next one puts it right.
#[test]
fn a_fix_that_was_killed_is_run_again() {
    let machine = Machine::start();
    let alice = machine.server.user("alice");
    let phone = machine.server.enrol(&alice);
    machine.set_clock(30 * DAY);
    let then = machine.server.now();
    machine
        .server
        .check(&alice, &phone.code_at(then))
        .expect_status(200);
    let database = Connection::open(machine.server.path().join("totpd.db")).unwrap();
    let many = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO event (at, kind, actor) SELECT {0} + i, 'x', 'x' FROM n;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO token (id, hash, role, created) SELECT i, randomblob(32), 'admin', {0} FROM n;",
        then.micros()
    );
    database.execute_batch(&many).unwrap();
    let now = crate::binary::now().micros();
    let look = || {
        let sql = "SELECT (SELECT at FROM event ORDER BY id DESC LIMIT 1) > ?1,
            (SELECT count(*) FROM event WHERE at > ?1) + (SELECT count(*) FROM token WHERE created > ?1)";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        database
            .query_row::<(bool, i64), _, _>(sql, [now + 3_600_000_000], row)
            .unwrap()
    };
    let (mut killed, all) = (0, look().1);
    // At once, then when so many eighths are left, and then never.
    for left in [8, 6, 4, 2, 0] {
        let mut fix = Command::new(env!("CARGO_BIN_EXE_totpd"));
        fix.env("TOTPD_DATA_DIR", machine.server.path())
            .args(["doctor", "--fix", "clock"])
            .stdout(Stdio::null());
        let mut fix = fix.spawn().unwrap();
        let mut ended = None;
        wait::until("it has come so far", || {
            ended = fix.try_wait().unwrap();
            ended.is_some() || (left > 0 && look().1 <= all * left / 8)
        });
        fix.kill().unwrap();
        fix.wait().unwrap();
        let (refuses, ahead) = look();
        assert_eq!(refuses, ahead > 0, "{ahead} are ahead");
        killed += usize::from(refuses && ahead < all);
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
    }
    assert!(killed > 0, "it was killed in the middle at least once");
    machine.server.set(crate::binary::now());
    machine.server.pass_seconds(1);
    assert_eq!(machine.dated_ahead(), [0; 11]);
    machine.server.pass_seconds(60);
    let code = phone.code_at(machine.server.now());
    machine.server.check(&alice, &code).expect_status(200);
    machine.server.set(then);
    machine
        .server
        .check(&alice, &phone.code_at(then))
        .expect_error(400, 3, Some("TOTPD-Used1"));
}

/// SECURITY.md 35: whoever looks while it goes on sees a database that refuses, or one that is right.
#[test]
fn a_fix_of_many_events_puts_the_newest_right_last_of_all() {
    let machine = Machine::start();
    let alice = machine.server.user("alice");
    machine.server.enrol(&alice);
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO event (at, kind, actor) SELECT 1800000000000000 + i, 'x', 'x' FROM n";
    let path = machine.server.path().join("totpd.db");
    let database = Connection::open(&path).unwrap();
    database.execute_batch(many).unwrap();
    let now = machine.server.now().micros();
    let is_done = &AtomicBool::new(false);
    let refusing = thread::scope(|scope| {
        let done = SetOnDrop(is_done);
        let watcher = scope.spawn(move || {
            let mut refusing = 0;
            while !is_done.load(Ordering::SeqCst) {
                let sql = "SELECT (SELECT at FROM event ORDER BY id DESC LIMIT 1) > ?1,
                    (SELECT count(*) FROM event WHERE at > ?1)";
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                let (refuses, ahead): (bool, i64) = database.query_row(sql, [now], row).unwrap();
                assert_eq!(refuses, ahead > 0, "{ahead} are ahead");
                refusing += usize::from(refuses && ahead < 5_000);
            }
            refusing
        });
        assert_eq!(machine.fix().events, 5_000);
        drop(done);
        watcher.join().unwrap()
    });
    assert!(refusing > 0, "it was seen half done");
    assert_eq!(machine.dated_ahead(), [0; 11]);
}

/// SECURITY.md 35: one time after another, and by a restore, which raises every floor.
#[test]
fn what_was_used_in_two_futures_stays_used_in_both() {
    let machine = Machine::start();
    let (alice, bob) = (machine.server.user("alice"), machine.server.user("bob"));
    let (phone, bobs) = (machine.server.enrol(&alice), machine.server.enrol(&bob));
    let mut futures = Vec::new();
    for days in [10, 3] {
        machine.set_clock(days * DAY);
        let then = machine.server.now();
        machine
            .server
            .check(&alice, &phone.code_at(then))
            .expect_status(200);
        futures.push(then);
        let floor = then.step(Period::ENROLMENT).number() + 1;
        let restored = format!(
            "UPDATE totp SET last_step = {floor} WHERE user_id = '{bob}';
             INSERT INTO event (at, kind, actor) VALUES ({}, 'instance.restored', 'command-line')",
            then.micros()
        );
        let database = Connection::open(machine.server.path().join("totpd.db")).unwrap();
        database.execute_batch(&restored).unwrap();
        machine.set_clock_back(days * DAY);
        machine.server.pass_seconds(60);
        assert_eq!(machine.fix().totps, 2);
        machine.server.pass_seconds(60);
        for (user, phone) in [(&alice, &phone), (&bob, &bobs)] {
            let code = phone.code_at(machine.server.now());
            machine.server.check(user, &code).expect_status(200);
        }
    }
    futures.reverse();
    for then in futures {
        machine.server.set(then);
        for (user, phone) in [(&alice, &phone), (&bob, &bobs)] {
            let refused = machine.server.check(user, &phone.code_at(then));
            refused.expect_error(400, 3, Some("TOTPD-Used1"));
        }
    }
    machine.server.pass_seconds(60);
    for (user, phone) in [(&alice, &phone), (&bob, &bobs)] {
        let code = phone.code_at(machine.server.now());
        machine.server.check(user, &code).expect_status(200);
    }
}

/// SECURITY.md 35: a fix is a person's word about the present, and 1970 is not the present.
#[test]
fn no_fix_takes_a_clock_that_cannot_be_right() {
    let machine = Machine::start();
    machine.server.user("alice");
    let before = machine.server.count("SELECT sum(at) FROM event");
    for now in [
        Timestamp::from_seconds(5),
        VERSION_DATE.after(21 * 365 * DAY),
    ] {
        machine.server.set(now);
        let context = Context::command_line(now);
        let refused = machine.server.service.fix_clock(&context);
        assert!(refused.unwrap_err().to_string().contains("set it right"));
        assert_eq!(machine.doctor("clock").0, Level::Wrong);
    }
    assert_eq!(machine.server.count("SELECT sum(at) FROM event"), before);
}

/// The doctor names tokens while there is time to make new ones.
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
