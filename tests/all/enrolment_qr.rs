//! The QR code of an enrolment: `POST …/totp?qr=svg`.

use qrcode::{Color, EcLevel, QrCode};
use serde_json::Value;
use totpd::service::{Context, SettingsChange};

use crate::harness::{Answer, TestServer};

fn start(server: &TestServer, user: &str, query: &str) -> Answer {
    server.ask("POST", &format!("/users/{user}/totp{query}"), "")
}

/// The dark modules of a QR code, row by row, and its size. Parses only the SVG that totpd writes.
fn dark_modules(svg: &str) -> (Vec<(usize, usize)>, usize) {
    let attribute = |name: &str| {
        let from = svg.split(&format!(" {name}='")).nth(1).unwrap();
        from.split('\'').next().unwrap()
    };
    let size = attribute("viewBox").split(' ').nth(3).unwrap();
    let mut dark = Vec::new();
    for row in attribute("d").split('M').skip(1) {
        let (start, runs) = row.split_once('m').unwrap();
        let y = start.strip_prefix("0 ").unwrap();
        let y: usize = y.strip_suffix(".5").unwrap().parse().unwrap();
        let mut x = 0;
        for run in runs.split('m') {
            let (skipped, length) = run.split_once(" 0h").unwrap();
            x += skipped.parse::<usize>().unwrap();
            let end = x + length.parse::<usize>().unwrap();
            dark.extend((x..end).map(|it| (it, y)));
            x = end;
        }
    }
    (dark, size.parse().unwrap())
}

/// SECURITY.md 27
#[test]
fn an_enrolment_answers_with_a_picture_of_its_uri_where_it_is_asked_for() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let answer = start(&server, &alice, "?qr=svg").expect_status(200);
    let (uri, svg) = (answer.text("/uri"), answer.text("/qr"));

    let code = QrCode::with_error_correction_level(&uri, EcLevel::L).unwrap();
    let width = code.width();
    let colors = code.to_colors();
    let dark = colors
        .iter()
        .enumerate()
        .filter(|(_, it)| **it == Color::Dark);
    // The image has a quiet zone of four modules.
    let expected: Vec<_> = dark
        .map(|(at, _)| (at % width + 4, at / width + 4))
        .collect();
    assert_eq!(dark_modules(&svg), (expected, width + 8));

    assert_eq!(svg.matches("<path ").count(), 1);
    for foreign in ["<script", "style=", "href", "<?xml", "<!"] {
        assert!(!svg.contains(foreign), "{svg}");
    }
    assert!(svg.len() < 8 * 1024, "{} bytes", svg.len());
    // The QR code is in this answer and never in a later one.
    let user = server.ask("GET", &format!("/users/{alice}"), "");
    assert!(!String::from_utf8_lossy(&user.expect_status(200).body).contains("svg"));
}

#[test]
fn without_being_asked_for_there_is_no_picture() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let answer = start(&server, &alice, "").expect_status(200);
    assert_eq!(answer.json().get("qr"), None);
}

#[test]
fn another_format_is_refused_and_starts_no_enrolment() {
    let server = TestServer::start();
    let alice = server.user("alice");
    for query in ["?qr=png", "?qr=SVG", "?qr", "?qr=", "?qr=svg&qr=svg"] {
        start(&server, &alice, query).expect_error(400, 3, Some("TOTPD-Field"));
    }
    assert_eq!(server.count("SELECT count(*) FROM totp"), 0);
}

/// At this point the enrolment exists, and no other answer contains its secret.
#[test]
fn a_uri_too_long_for_a_picture_is_answered_without_one() {
    let server = TestServer::start();
    // Each letter takes twelve bytes in the URI. A QR code holds 2,953 bytes.
    let name = "𝒳".repeat(200);
    let long = server.user(&name);
    let issuer = "𝒳".repeat(50).parse().unwrap();
    let context = Context::command_line(server.now());
    let issuer = SettingsChange {
        issuer: Some(issuer),
        ..SettingsChange::default()
    };
    server.service.change_settings(&context, issuer).unwrap();
    let answer = start(&server, &long, "?qr=svg").expect_status(200);
    assert!(answer.text("/uri").len() > 2_953);
    let secret = answer.text("/secret");
    assert_eq!(secret.len(), 32);
    assert_eq!(answer.json().pointer("/qr"), None::<&Value>);
}
