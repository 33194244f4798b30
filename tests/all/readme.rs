//! The README is correct: its sessions can be pasted twice, and its table for login forms is complete.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use totpd::totp::Secret;

use crate::binary::now;
use crate::harness::{Phone, TestServer};

const README: &str = include_str!("../../README.md");
/// The only file of totpd that contains the ids of refusals.
pub(crate) const STATUS: &str = include_str!("../../src/api/status.rs");

/// Ids that a login form never receives, and why.
const ELSEWHERE: [(&str, &str); 12] = [
    ("COMMAND-syHyCsGmvM", "removing a user"),
    ("COMMAND-G4LOrnjY7q", "locking a user"),
    ("COMMAND-gpBv46Lh9m", "unlocking a user"),
    ("COMMAND-Ob6lR5iFTe", "deactivating a user"),
    ("COMMAND-rQjbBr4J3j", "activating a user"),
    ("COMMAND-Hd9sd", "removing an authenticator"),
    ("TOTPD-Taken", "making a user"),
    ("TOTPD-Org01", "making a user"),
    ("TOTPD-Search", "searching and listing"),
    ("TOTPD-Code1", "a change by a `self` token"),
    ("TOTPD-Large", "a request that no login form makes"),
    ("TOTPD-Slow", "a request that was not sent in time"),
];

/// All ids of refusals in `text`.
pub(crate) fn ids(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '-'));
    let is_id = |it: &&str| {
        let rest = ["COMMAND-", "EVENT-", "TOTPD-", "AUTH-"]
            .iter()
            .find_map(|prefix| it.strip_prefix(prefix));
        rest.is_some_and(|it| it.len() >= 4)
    };
    words.filter(is_id).collect()
}

/// The rows of the README's table for login forms: status and id.
fn rows() -> BTreeSet<(u16, &'static str)> {
    let table = README.split("| HTTP | id | what to do |\n|---|---|---|\n");
    let table = table.last().unwrap().split("\n\n").next().unwrap();
    let row = |line: &'static str| {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let status = cells.next().unwrap().parse().unwrap();
        (status, cells.next().unwrap().trim_matches('`'))
    };
    table.lines().map(row).collect()
}

#[test]
fn the_table_for_login_forms_has_every_id_that_the_code_has() {
    let shown: BTreeSet<&str> = rows().into_iter().map(|(_, id)| id).collect();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.into_iter().map(|(id, _)| id).collect();
    for id in ids(STATUS) {
        assert!(
            shown.contains(id) != elsewhere.contains(id),
            "{id}: a login form meets it, and then it is in the README's table, or it is in this test's list"
        );
    }
    for id in shown {
        assert!(ids(STATUS).contains(id), "{id} is in no code");
    }
}

/// Causes the refusal of each row of the table.
#[test]
fn a_login_form_meets_what_the_table_says() {
    let mut met = BTreeSet::new();
    let server = TestServer::start();
    let alice = server.user("alice");
    let path = format!("/users/{alice}/totp");
    let check = format!("{path}/_check");
    let mut provoke = |token: &str, path: &str, code: &str| {
        let body = if code.is_empty() {
            String::new()
        } else {
            format!("\"{code}\"")
        };
        let answer = server.ask_as(token, "POST", path, &body);
        met.insert((answer.status, answer.text("/details/0/id")));
    };
    let admin = &server.admin;
    provoke(admin, &check, "123456");
    provoke(admin, "/users/7/totp/_check", "123456");
    provoke("totpd_none", &check, "123456");
    let checker = server.token(totpd::service::Role::Checker(None));
    provoke(&checker, &path, "");
    let pending = server.start_enrolment(&alice);
    server.pass_seconds(601);
    let verify = format!("{path}/{}/_verify", pending.id);
    provoke(admin, &verify, &pending.code_at(server.now()));
    let phone = server.enrol(&alice);
    let good = phone.code_at(server.now());
    let verify = format!("{path}/{}/_verify", phone.id);
    provoke(admin, &verify, &good);
    provoke(admin, &check, &format!("{} {}", &good[..3], &good[3..]));
    server.check(&alice, &good).expect_status(200);
    provoke(admin, &check, &good);
    let recover = format!("/users/{alice}/recovery_codes/_check");
    let recovery_code = "0000-0000-0000-0000";
    provoke(admin, &recover, recovery_code);
    let codes = format!("/users/{alice}/recovery_codes");
    server.ask("POST", &codes, "").expect_status(200);
    provoke(admin, &recover, recovery_code);
    for _ in 1..10 {
        server.enrol(&alice);
    }
    provoke(admin, &path, "");
    let bob = server.user("bob");
    let own = server.token(totpd::service::Role::Own(bob.parse().unwrap()));
    let start = format!("/users/{bob}/totp");
    for _ in 0..30 {
        server.ask_as(&own, "POST", &start, "").expect_status(200);
    }
    provoke(&own, &start, "");
    for _ in 0..6 {
        provoke(admin, &check, &phone.wrong_at(server.now()));
    }
    let lock = server.ask("POST", &format!("/users/{alice}/_lock"), "");
    lock.expect_status(200);
    provoke(admin, &check, &good);
    server.service.stop().unwrap();
    provoke(admin, &check, &good);
    let met: BTreeSet<(u16, &str)> = met.iter().map(|(status, id)| (*status, &**id)).collect();
    assert_eq!(met, rows());
}

#[test]
fn the_first_command_shows_the_main_job_and_the_second_runs_all_tests() {
    let blocks = README.split("```sh\n").skip(1);
    let commands = blocks.map(|it| it.split("```").next().unwrap().trim_end());
    let first: Vec<_> = commands.take(2).collect();
    assert_eq!(first, ["cargo run --release -- demo", "cargo test"]);
}

/// Runs the README's sessions with the real binary on another port, without building it.
fn paste(dir: &Path, port: u16, times: usize) -> Output {
    let real = README.split("## Try it by hand").nth(1).unwrap();
    let real = real.split("\n## ").next().unwrap();
    let session: String = real
        .split("```sh\n")
        .skip(1)
        .map(|it| it.split("```").next().unwrap())
        .collect();
    assert!(session.contains("8080") && session.contains("cargo build --release"));
    let session = session
        .replace("8080", &port.to_string())
        .replace("cargo build --release", "true")
        .replace("rm qr.svg", "cat qr.svg; rm qr.svg");
    // A session that leaves its server running fails, and must not make this test wait for that server.
    let end = "\nLEFT=$(jobs -p); [ -z \"$LEFT\" ] || { echo LEFT; kill $LEFT; }\n";
    let mut shell = Command::new("timeout");
    shell.args(["60", "bash", "-c", &(session.repeat(times) + end)]);
    shell
        .current_dir(dir)
        .env("PATH", format!("{}/bin:/usr/bin:/bin", dir.display()));
    shell.env_remove("TOTPD_DATA_DIR").stdin(Stdio::null());
    shell.output().unwrap()
}

/// A directory with a built binary, and with an `oathtool` script that runs this test's program.
fn workbench() -> Option<tempfile::TempDir> {
    for tool in ["curl", "bash", "timeout"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("skipped: `{tool}` is not installed");
            return None;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("target/release")).unwrap();
    let binary = dir.path().join("target/release/totpd");
    symlink(env!("CARGO_BIN_EXE_totpd"), binary).unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    let oathtool = dir.path().join("bin/oathtool");
    let script = format!(
        "#!/bin/sh\nOATHTOOL=\"$*\" '{}' --ignored --exact readme::plays_oathtool --nocapture | sed -n 's/^code //p'\n",
        std::env::current_exe().unwrap().display()
    );
    fs::write(&oathtool, script).unwrap();
    fs::set_permissions(oathtool, Permissions::from_mode(0o755)).unwrap();
    Some(dir)
}

#[test]
#[ignore = "it is no test: it is `oathtool` for the one below"]
fn plays_oathtool() {
    let Ok(words) = std::env::var("OATHTOOL") else {
        return;
    };
    let phone = Phone {
        id: String::new(),
        secret: Secret::from_base32(words.split(' ').next_back().unwrap()).unwrap(),
    };
    let next = i64::from(words.contains("now + 30 seconds"));
    println!("\ncode {}", phone.code_of(now(), next));
}

#[test]
fn the_sessions_can_be_pasted_twice() {
    let Some(dir) = workbench() else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port();
    drop(port);
    let output = paste(dir.path(), number, 2);
    let told = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains("AUTH-"), "{told}{said}");
    assert!(!told.contains("LEFT"), "{told}{said}");
    for (told_of, times) in [
        ("<svg xmlns='http://www.w3.org/2000/svg' ", 2),
        ("(COMMAND-3Mif9s)", 2),
        ("(COMMAND-Hd9sd)", 2),
        // For each run: enrolled, confirmed, checked, removed, and the user removed. The session keeps only the QR
        // code of the start.
        ("{\"details\":{\"id\":", 10),
    ] {
        assert_eq!(
            told.matches(told_of).count(),
            times,
            "{told_of}: {told}{said}"
        );
    }
}

#[test]
fn the_sessions_end_where_the_port_is_taken() {
    let Some(dir) = workbench() else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port();
    // Another program has the port and answers no request.
    let silent = std::thread::spawn(move || port.incoming().for_each(drop));
    let output = paste(dir.path(), number, 1);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(124), "it spins: {said}");
    assert!(said.contains("totpd: serve:"), "{said}");
    drop(silent);
}
