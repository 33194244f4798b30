//! `totpd user invite` and `totpd open`: links from the command line. SECURITY.md 41.

use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};
#[cfg(feature = "web")]
use totpd::model::Timestamp;

#[cfg(feature = "web")]
use crate::binary::now;
use crate::binary::{Home, Server, refused};
use crate::harness::{Answer, Client};
use crate::wait;

fn code_of(url: &str) -> &str {
    url.split_once("/ui/#").unwrap().1
}

fn redeem(server: &Server, url: &str) -> Answer {
    let body = json!({"code": code_of(url)}).to_string();
    Client::connect(&server.address).ask("POST", "/ui/redeem", "", body.as_bytes())
}

#[cfg(feature = "web")]
#[track_caller]
fn void(server: &Server, url: &str) {
    redeem(server, url).expect_error(401, 16, Some("AUTH-7fs1e"));
}

fn url(document: &Value) -> &str {
    document["url"].as_str().unwrap()
}

/// The number of seconds until a link expires.
#[cfg(feature = "web")]
fn seconds_left(document: &Value) -> i64 {
    let expires: Timestamp = document["expires"].as_str().unwrap().parse().unwrap();
    (expires.micros() - now().micros()) / 1_000_000
}

fn invitations(home: &Home) -> i64 {
    let database = Connection::open(home.data().join("totpd.db")).unwrap();
    let sql = "SELECT count(*) FROM invitation";
    database.query_row(sql, (), |row| row.get(0)).unwrap()
}

#[cfg(feature = "web")]
#[test]
fn a_person_is_invited_beside_the_server_and_uninvited() {
    let (home, _) = Home::init();
    let alice = home.json(&["user", "create", "alice"]);
    let alice = alice["details"]["id"].as_str().unwrap();
    let server = home.serve(&[]);
    let begins = format!("http://{}/ui/#", server.address);
    let invited = home.json(&["user", "invite", "alice"]);
    assert!(url(&invited).starts_with(&begins), "{invited}");
    assert_eq!(invited["details"]["id"], *alice);
    assert!(
        (3_500..=3_600).contains(&seconds_left(&invited)),
        "{invited}"
    );
    let redeemed = redeem(&server, url(&invited)).expect_status(200);
    assert_eq!(
        (
            redeemed.text("/role").as_str(),
            redeemed.text("/userId").as_str()
        ),
        ("self", alice)
    );
    let path = format!("/users/{alice}");
    server
        .ask(&redeemed.text("/token"), "GET", &path, "")
        .expect_status(200);
    void(&server, url(&invited));
    // In text output the first line is only the link.
    let output = home.run(&["user", "invite", "alice", "--expires", "7d"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let link = text.lines().next().unwrap();
    assert!(link.starts_with(&begins) && text.contains("once"), "{text}");
    let last = home.json(&["user", "invite", "alice", "--expires", "90s"]);
    assert!((1..=90).contains(&seconds_left(&last)), "{last}");
    void(&server, link);
    let revoked = home.json(&["user", "invite", "alice", "--revoke"]);
    assert_eq!(revoked["details"]["id"], *alice);
    void(&server, url(&last));
    home.refuses(
        &["user", "invite", "alice", "--expires", "8d"],
        1,
        "at most 7d",
    );
    home.refuses(
        &["user", "invite", "alice", "--expires", "soon"],
        2,
        "such as 90d",
    );
    home.refuses(&["user", "invite", "bob"], 1, "user not found");
    let both = ["user", "invite", "alice", "--revoke", "--expires", "1h"];
    home.refuses(&both, 2, "cannot be used with");
    home.json(&["user", "lock", "alice"]);
    home.refuses(&["user", "invite", "alice"], 1, "locked or deactivated");
    assert_eq!(invitations(&home), 0);
    assert_eq!(server.terminate().0, 0);
}

#[cfg(feature = "web")]
#[test]
fn the_administrator_opens_the_page_by_a_link() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let first = home.json(&["open"]);
    assert!((500..=600).contains(&seconds_left(&first)), "{first}");
    assert_eq!(first.as_object().unwrap().len(), 2, "{first}");
    let output = home.run(&["open"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let second = text.lines().next().unwrap();
    assert!(second.starts_with(&format!("http://{}/ui/#", server.address)));
    void(&server, url(&first));
    let redeemed = redeem(&server, second).expect_status(200);
    assert_eq!(redeemed.text("/role"), "admin");
    assert!(redeemed.json().get("userId").is_none());
    let token = redeemed.text("/token");
    server
        .ask(&token, "GET", "/users/1", "")
        .expect_error(404, 5, Some("COMMAND-6T2xrOHxTx"));
    void(&server, second);
    assert_eq!(server.terminate().0, 0);
}

#[test]
fn links_begin_with_what_the_server_was_told_or_the_command() {
    let (home, token) = Home::init();
    home.json(&["user", "create", "alice"]);
    for command in [&["open"][..], &["user", "invite", "alice"]] {
        home.refuses(command, 1, "--public-url: no server runs");
    }
    assert_eq!(invitations(&home), 0, "nobody is invited");
    let given = ["open", "--public-url", "https://other.example/"];
    assert!(url(&home.json(&given)).starts_with("https://other.example/ui/#"));

    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.env("TOTPD_PUBLIC_URL", "https://totp.example.org/second/");
    let server = Server::start(serve);
    let begins = "https://totp.example.org/second/ui/#";
    assert!(url(&home.json(&["open"])).starts_with(begins));
    let invited = home.json(&["user", "invite", "alice"]);
    assert!(url(&invited).starts_with(begins), "{invited}");
    let path = format!(
        "/users/{}/_invite",
        invited["details"]["id"].as_str().unwrap()
    );
    let invited = server.ask(&token, "POST", &path, "").expect_status(200);
    assert!(invited.text("/url").starts_with(begins));
    redeem(&server, &invited.text("/url")).expect_status(200);
    let given = home.json(&given);
    assert!(url(&given).starts_with("https://other.example/ui/#"));
    redeem(&server, url(&given)).expect_status(200);
    let run = |command: &mut Command| wait::output(command);
    let mut bad = home.command(&["open"]);
    bad.env("TOTPD_PUBLIC_URL", "https://a@example.org");
    refused(&run(&mut bad), 2, "environment variable TOTPD_PUBLIC_URL");
    assert_eq!(server.terminate().0, 0);
}

/// A server without pages answers a link with 404. An address given with `--public-url` may have a page that redeems
/// the code.
#[test]
fn a_link_to_a_server_without_pages_is_refused_and_to_another_page_warned_of() {
    let (home, _) = Home::init();
    home.json(&["user", "create", "alice"]);
    let no_web: &[&str] = if cfg!(feature = "web") {
        &["--no-web"]
    } else {
        &[]
    };
    let commands = [&["open"][..], &["user", "invite", "alice"]];
    let other = "https://other.example";
    let warned = |command: &[&str]| {
        let output = home.run(&[command, &["--json"]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("warning: the server serves no pages"),
            "{said}"
        );
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(url(&document).starts_with(other), "{document}");
        url(&document).to_owned()
    };
    let server = home.serve(no_web);
    for command in commands {
        home.refuses(command, 1, "--public-url: the server serves no pages");
        assert_eq!(invitations(&home), 0, "nobody is invited");
    }
    for command in commands {
        let link = warned(&[command, &["--public-url", other]].concat());
        redeem(&server, &link).expect_status(200);
    }
    // Revoking links needs no pages.
    home.json(&["user", "invite", "alice", "--revoke"]);
    assert_eq!(server.terminate().0, 0);

    let server = home.serve(&[no_web, &["--public-url", other]].concat());
    for command in commands {
        redeem(&server, &warned(command)).expect_status(200);
    }
    assert_eq!(server.terminate().0, 0);
    // A server with pages causes no warning.
    #[cfg(feature = "web")]
    {
        let server = home.serve(&["--public-url", other]);
        for command in commands {
            assert!(home.run(command).stderr.is_empty());
        }
        assert_eq!(server.terminate().0, 0);
    }
}

/// A browser cannot open a Unix socket.
#[test]
fn without_an_address_that_has_a_url_the_flag_is_named() {
    let (home, _) = Home::init();
    let socket = format!("unix:{}", home.dir.path().join("api").display());
    let mut serve = home.command(&["serve", "--listen", &socket]);
    let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = Server::new(child.unwrap(), "");
    wait::until("the server has left its addresses", || {
        home.run(&["health"]).status.success()
    });
    let told = if cfg!(feature = "web") {
        "--public-url: the server has no address with a URL"
    } else {
        "--public-url: the server serves no pages"
    };
    home.refuses(&["open"], 1, told);
    assert_eq!(invitations(&home), 0);
    assert_eq!(server.terminate().0, 0);
}
