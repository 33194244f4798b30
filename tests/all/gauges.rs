//! Metrics: each gauge shows the current state.

use std::time::Duration;

use totpd::model::Timestamp;
use totpd::service::Role;

use crate::harness::Client;
use crate::metrics::{page, samples, start, value};
use crate::wait::until;

#[test]
fn requests_that_wait_are_told() {
    let server = start();
    let held = server.stuck.lock().unwrap();
    let mut clients: Vec<_> = (0..9).map(|_| Client::connect(&server.address())).collect();
    for client in &mut clients {
        client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    let waiting = r#"totpd_requests_waiting{kind="read"}"#;
    until("one waits", || value(&server, waiting) == Some(1.0));
    assert_eq!(
        value(&server, r#"totpd_workers{kind="read",state="idle"}"#),
        Some(0.0)
    );
    drop(held);
    for client in &mut clients {
        client.answer(false, "").expect_status(404);
    }
    assert_eq!(value(&server, waiting), Some(0.0));
    let waits = r#"totpd_worker_wait_seconds_count{kind="read"}"#;
    assert_eq!(value(&server, waits), Some(9.0));
    let at_once = r#"totpd_worker_wait_seconds_bucket{kind="read",le="0.0"}"#;
    let at_once = value(&server, at_once).or_else(|| {
        value(
            &server,
            r#"totpd_worker_wait_seconds_bucket{kind="read",le="0"}"#,
        )
    });
    assert_eq!(at_once, Some(8.0));
}

#[test]
fn users_authenticators_and_what_expires_are_counted_once_a_minute() {
    let server = start();
    let users = |state: &str| value(&server, &format!(r#"totpd_users{{state="{state}"}}"#));
    let totps = |state: &str| {
        value(
            &server,
            &format!(r#"totpd_authenticators{{state="{state}"}}"#),
        )
    };
    assert_eq!(users("active"), Some(0.0));
    let user = server.user("alice");
    let phone = server.start_enrolment(&user);
    assert_eq!(users("active"), Some(0.0), "not yet");
    server.pass_seconds(60);
    assert_eq!((users("active"), totps("pending")), (Some(1.0), Some(1.0)));
    server
        .confirm(&user, &phone, &phone.code_at(server.now()))
        .expect_status(200);
    server
        .ask("POST", &format!("/users/{user}/_lock"), "")
        .expect_status(200);
    let gone = server.user("bob");
    server
        .ask("POST", &format!("/users/{gone}/_deactivate"), "")
        .expect_status(200);
    server.pass_seconds(60);
    assert_eq!(
        (users("active"), users("locked"), users("inactive")),
        (Some(0.0), Some(1.0), Some(1.0))
    );
    assert_eq!(
        (totps("pending"), totps("confirmed")),
        (Some(0.0), Some(1.0))
    );

    let expiry = r#"totpd_earliest_token_expiry_timestamp_seconds{role="admin"}"#;
    assert_eq!(value(&server, expiry), None, "none expires");
    let expires = |hours: u64| {
        let lifetime = Duration::from_secs(hours * 3_600);
        server.token_with(Role::Admin, Some(lifetime));
        server.now().after(lifetime)
    };
    expires(48);
    let first = expires(24);
    server.pass_seconds(60);
    let seconds = |it: Timestamp| it.since(Timestamp::from_seconds(0)).as_secs_f64();
    let told = value(&server, expiry).unwrap();
    assert!((told - seconds(first)).abs() < 0.001, "{told}");
    // An expired token is not the next one to expire.
    server.pass_seconds(25 * 3_600);
    assert!(value(&server, expiry).unwrap() > seconds(server.now()));
}

#[test]
fn the_last_backup_is_told() {
    let server = start();
    let name = "totpd_last_backup_timestamp_seconds";
    assert_eq!(value(&server, name), None, "none was made");
    let made = server.now();
    server.record_backup();
    server.pass_seconds(60);
    let since_1970 = made.since(Timestamp::from_seconds(0)).as_secs_f64();
    let told = value(&server, name).unwrap();
    assert!((told - since_1970).abs() < 0.001, "{told}");
}

#[test]
fn a_wrong_clock_is_told() {
    let server = start();
    server.user("alice");
    assert_eq!(value(&server, "totpd_clock_fault"), Some(0.0));
    server.pass_seconds(-30 * 86_400);
    assert_eq!(value(&server, "totpd_clock_fault"), Some(1.0));
}

/// Metrics are served even if the database cannot be read.
#[test]
fn a_page_does_not_wait_for_the_database() {
    let server = start();
    page(&server);
    let broken = server.lock();
    broken
        .execute_batch("ALTER TABLE instance RENAME TO gone; COMMIT")
        .unwrap();
    let samples = samples(&server);
    assert_eq!(samples.get("totpd_metrics_read_failed"), Some(&1.0));
    assert_eq!(samples.get("totpd_clock_fault"), None);
    assert!(samples.contains_key("totpd_wal_bytes"));
}
