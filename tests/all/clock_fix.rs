//! `doctor --fix clock`, for a clock that was ahead and is now right. SECURITY.md 35.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use totpd::model::{Period, Timestamp, VERSION_DATE};
use totpd::service::{Context, Level, Role};

use crate::clock::{DAY, EVENTS, Machine};
use crate::wait::{self, SetOnDrop};

/// SECURITY.md 35: everything that has a date, 30 days ahead.
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
    // Five guesses count before there is a wait. Readiness writes no event. Organizations count as users.
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

    // The wait starts again from the present.
    let waits = server.check(&bob, &bobs.code_at(server.now()));
    waits.expect_error(429, 8, Some("TOTPD-Wait1"));
    // Codes up to the end of the window are refused. Later codes are accepted.
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

    // Set the clock to the time of the used code. The code before it is refused too, because totpd cannot know that
    // it was not used.
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

/// SECURITY.md 35: one clock is ahead by so little that totpd keeps serving, and another by a little more.
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
            // This step lies before the first one whose code may have been used.
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

/// SECURITY.md 35: a fix killed at any moment leaves a database that refuses requests. Running the fix again
/// completes it.
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
    // Kill the fix at once, then when this many eighths of the events are left, and then never.
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

/// SECURITY.md 35: every reader during the fix sees either a database that refuses requests or one that is completely
/// fixed.
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

/// SECURITY.md 35: the clock was ahead twice, and a restore then raises every floor.
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

/// SECURITY.md 35: with a fix, an administrator confirms the present time, and 1970 cannot be the present.
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
