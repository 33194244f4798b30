//! The command line: finding the user that an argument means, environment variables, the output of a first start,
//! commands printed for pasting, and failures after a change was made.

use std::fs;
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use totpd::model::Window;
use totpd::service::{Context, DataDir, KeyFile, Service, SettingsChange};

use crate::binary::{Home, Server, enrolled, now, refused};
use crate::harness::TestServer;
use crate::wait;

fn empty_home() -> Home {
    Home {
        dir: tempfile::tempdir().unwrap(),
    }
}

fn with_environment(home: &Home, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = home.command(args);
    wait::output(command.envs(variables.iter().copied()))
}

fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn owner(document: &serde_json::Value) -> &str {
    document["details"]["owner"]["id"].as_str().unwrap()
}

/// A manager of one organization chooses ids, while the operator names users by username. A text that matches one
/// user's id and another user's username is refused.
#[test]
fn text_that_means_two_users_is_refused() {
    let (home, _) = Home::init();
    let first = home.json(&["org", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = home.json(&["org", "create", "Second"]);
    let second = second["id"].as_str().unwrap();
    home.json(&["user", "create", "carol@example.org"]);
    home.json(&[
        "user",
        "create",
        "mallory",
        "--org",
        second,
        "--id",
        "carol@example.org",
    ]);
    home.json(&["user", "create", "bob"]);
    home.json(&["user", "create", "bob", "--org", second]);
    for user in ["carol@example.org", "bob"] {
        for command in [
            &["totp", "start", user][..],
            &["totp", "remove", user, "--all"],
            &["totp", "list", user],
            &["totp", "check", user, "123456"],
            &["recovery", "generate", user],
            &["recovery", "show", user],
            &["recovery", "check", user, "0000-0000-0000-0000"],
            &["recovery", "remove", user],
            &["user", "lock", user],
            &["user", "remove", user],
            &["token", "create", "--role", "self", "--user", user],
        ] {
            home.refuses(command, 1, "say which with --id, or with --org ID");
        }
        for org in [&*first, second] {
            if (user, org) == ("carol@example.org", second) {
                continue;
            }
            let started = home.json(&["totp", "start", user, "--org", org]);
            assert_eq!(owner(&started), org);
        }
    }
    let by_id = home.json(&["totp", "start", "carol@example.org", "--id"]);
    assert_eq!(owner(&by_id), second);
    let user = ["token", "create", "--role", "self", "--user"];
    let by_name = printed(&home.run(&[&user[..], &["bob", "--org", second]].concat()));
    assert!(by_name.contains(&format!("of organization {second}")));
    let by_id = printed(&home.run(&[&user[..], &["carol@example.org", "--id"]].concat()));
    assert!(by_id.contains(&format!("of organization {second}")));
    let listed = printed(&home.run(&["token", "list"]));
    assert_eq!(
        listed.matches(&format!("of organization {second}")).count(),
        2,
        "{listed}"
    );
    let id = home.json(&["token", "list"])[2]["id"].clone();
    let revoked = printed(&home.run(&["token", "revoke", id.as_str().unwrap()]));
    assert!(revoked.contains(&format!("of organization {second}")));
    home.refuses(&["user", "show", "bob", "--id"], 1, "user not found");
    home.refuses(
        &["user", "show", "mallory", "--org", &first],
        1,
        "user not found",
    );
    home.refuses(
        &["user", "show", "bob", "--org", "7"],
        1,
        "organization not found",
    );

    home.json(&["user", "create", "dora", "--id", "dora"]);
    let removed = printed(&home.run(&["user", "remove", "dora"]));
    assert!(
        removed.contains(&format!("of organization {first}")),
        "{removed}"
    );
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let (home, _) = Home::init();
    let data = home.data();
    let state = [
        ("TOTPD_DATA_DIR", ""),
        ("STATE_DIRECTORY", data.to_str().unwrap()),
        ("CREDENTIALS_DIRECTORY", ""),
        ("TOTPD_MASTER_KEY", ""),
        ("RUST_LOG", ""),
    ];
    printed(&with_environment(&home, &["user", "list"], &state));

    let help = printed(&home.run(&["serve", "--help"]));
    let variables: Vec<&str> = help
        .split("[env: ")
        .skip(1)
        .map(|it| it.split(['=', ']']).next().unwrap())
        .filter(|it| *it != "TOTPD_DATA_DIR" && *it != "TOTPD_MASTER_KEY")
        .collect();
    assert!(variables.len() > 15, "{help}");
    for variable in ["TOTPD_TLS_CERT", "TOTPD_INSECURE_PLAINTEXT", "TOTPD_INIT"] {
        assert!(variables.contains(&variable), "{variable}");
    }
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.envs(variables.iter().map(|it| (it, "")));
    let (server, _) = listening(&mut serve);
    server.kill();
}

/// Starts a server and returns what it printed before it listened.
fn listening(command: &mut Command) -> (Server, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (address, said) = wait::listening(&mut child).unwrap();
    (Server::new(child, &address), said)
}

#[test]
fn a_bad_variable_is_named() {
    let (home, _) = Home::init();
    for (variable, value, told) in [
        ("TOTPD_LISTEN", "8080", "TOTPD_LISTEN"),
        ("TOTPD_TLS_CERT", "cert.pem", "TOTPD_TLS_CERT"),
        ("TOTPD_TLS_KEY", "key.pem", "TOTPD_TLS_KEY"),
        ("TOTPD_WORKERS", "many", "TOTPD_WORKERS"),
        ("TOTPD_STOP_TIMEOUT", "10", "TOTPD_STOP_TIMEOUT"),
        ("TOTPD_INIT", "yes", "expected 1, 0, true or false"),
        ("TOTPD_INSECURE_PLAINTEXT", "on", "TOTPD_INSECURE_PLAINTEXT"),
    ] {
        let output = with_environment(&home, &["serve"], &[(variable, value)]);
        refused(&output, 2, told);
        refused(&output, 2, variable);
    }
    let both = [("TOTPD_LISTEN", "127.0.0.1:0"), ("TOTPD_WORKERS", "2")];
    let output = with_environment(&home, &["serve", "--workers", "none"], &both);
    refused(&output, 2, "--workers");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("TOTPD_"), "the flag is wrong: {said}");
}

#[test]
fn flags_take_one_and_zero_from_the_environment() {
    for (value, is_on) in [("1", true), ("true", true), ("0", false), ("false", false)] {
        let home = empty_home();
        let variables = [("TOTPD_INIT", value), ("TOTPD_LISTEN", "0.0.0.0:0")];
        // The address is refused only after the data directory has been created.
        let output = with_environment(&home, &["serve"], &variables);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(home.data().exists(), is_on, "{value}");
    }
}

#[test]
fn serve_makes_nothing_where_a_path_is_wrong() {
    let home = empty_home();
    // This address is refused late, so a server that wrongly created something would exit too.
    let wrong = ["serve", "--listen", "0.0.0.0:0"];
    home.refuses(&wrong, 1, "--init");
    assert!(!home.data().exists());
    fs::create_dir(home.data()).unwrap();
    home.refuses(&wrong, 1, "volume");
    assert_eq!(fs::read_dir(home.data()).unwrap().count(), 0);

    let init = ["serve", "--listen", "127.0.0.1:0", "--init"];
    let mut serve = home.command(&init);
    let (server, said) = listening(serve.args(["--issuer", "Acme"]));
    assert!(said.contains("totpd token create --role admin"), "{said}");
    assert!(!said.contains("totpd_"), "{said}");
    server.kill();
    assert_eq!(home.json(&["settings", "show"])["issuer"], "Acme");
    let (server, said) = listening(&mut home.command(&init));
    assert_eq!(said, "", "an existing directory is simply served");
    // With a running server too, `init` names the database as the reason, not the server.
    home.refuses(&["init"], 1, "there is a database already");
    server.kill();

    let home = empty_home();
    let issuer = ["serve", "--init", "--issuer", "a:b"];
    home.refuses(&issuer, 1, "colon");
    assert!(!home.data().exists(), "nothing is made before all is read");
}

#[test]
fn serve_on_a_terminal_makes_a_directory_and_shows_the_token_once() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: `script` (util-linux) is not installed");
        return;
    }
    let home = empty_home();
    let line = format!(
        "echo $$; exec {} serve --listen 127.0.0.1:0",
        env!("CARGO_BIN_EXE_totpd")
    );
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]);
    terminal.env("TOTPD_DATA_DIR", home.data());
    terminal.stdin(Stdio::null());
    let (server, said) = listening(&mut terminal);
    let pid = said.lines().next().unwrap().trim().to_owned();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    server.wait();
    assert_eq!(said.matches("totpd_").count(), 1, "{said}");
    assert_eq!(home.json(&["token", "list"]).as_array().unwrap().len(), 1);
}

/// The secret is shown once. Drawing the QR code happens after the commit, so a failure there must not fail the
/// command.
#[test]
fn a_uri_too_long_for_a_picture_is_shown_without_one() {
    let home = empty_home();
    let issuer = "🦀".repeat(200);
    home.json(&["init", "--issuer", &issuer]);
    home.json(&["user", "create", &issuer]);
    let text = printed(&home.run(&["totp", "start", &issuer]));
    assert!(text.contains("otpauth://totp/"), "{text}");
    assert!(text.contains("too long for a QR code"), "{text}");
    let started = home.json(&["totp", "start", &issuer]);
    assert_eq!(started["secret"].as_str().unwrap().len(), 32);
    assert_eq!(
        home.json(&["totp", "list", &issuer])[0]["name"],
        serde_json::Value::Null
    );
}

/// A `;` in a username does not start another command in a shell.
#[test]
fn a_printed_command_means_one_thing_to_a_shell() {
    let home = empty_home();
    let data = home.dir.path().join("my data; touch pwned");
    let at = ["--data-dir", data.to_str().unwrap()];
    let run = |args: &[&str]| home.run(&[&at[..], args].concat());
    printed(&run(&["init"]));
    for user in [
        "o; touch pwned",
        "$(touch pwned)",
        "it's `touch pwned`",
        "-x",
    ] {
        printed(&run(&["user", "create", "--", user]));
        let sheet = printed(&run(&["totp", "start", "--", user]));
        let line = sheet.lines().last().unwrap().trim();
        assert!(line.starts_with("totpd --data-dir "), "{line}");
        let line = line.replace("CODE", "12345");
        let bin = std::path::Path::new(env!("CARGO_BIN_EXE_totpd"));
        let mut shell = Command::new("sh");
        shell.env(
            "PATH",
            format!("{}:/usr/bin:/bin", bin.parent().unwrap().display()),
        );
        shell.current_dir(home.dir.path());
        let output = wait::output(shell.args(["-c", &line]));
        refused(&output, 1, "code: expected 6 to 9 digits");
        assert!(!home.dir.path().join("pwned").exists(), "{line}");
    }
}

#[test]
fn settings_are_shown_and_set_and_leave_events() {
    let (home, _) = Home::init();
    let shown = serde_json::json!({"issuer": "Test", "window": 1, "checkpoints": "own", "selfRemoval": "allow"});
    assert_eq!(home.json(&["settings", "show"]), shown);
    let set = home.json(&["settings", "set", "issuer=Acme Inc", "window=0"]);
    let both = serde_json::json!({"issuer": "Acme Inc", "window": 0, "checkpoints": "own", "selfRemoval": "allow"});
    assert_eq!(set, both);
    assert_eq!(home.json(&["settings", "show"]), set);
    home.json(&["settings", "set", "window=0"]);
    let events = || -> String {
        let database = Connection::open(home.data().join("totpd.db")).unwrap();
        let sql = "SELECT group_concat(kind) FROM event WHERE kind LIKE 'settings.%'";
        database.query_row(sql, (), |row| row.get(0)).unwrap()
    };
    assert_eq!(events(), "settings.issuer_changed,settings.window_changed");
    for (bad, told) in [
        ("issuer=a:b", "colon"),
        ("issuer=", "empty"),
        ("window=2", "0 or 1"),
        ("windows=1", "there is no such setting"),
        ("checkpoints=none", "own or litestream"),
        ("self-removal=deny", "allow or code"),
        ("selfRemoval=code", "there is no such setting"),
        ("window", "KEY=VALUE"),
    ] {
        home.refuses(&["settings", "set", "issuer=Other", bad], 1, told);
    }
    let twice = ["settings", "set", "self-removal=code", "self-removal=allow"];
    home.refuses(&twice, 1, "given twice");
    let twice = ["settings", "set", "window=1", "window=0"];
    home.refuses(&twice, 1, "given twice");
    assert_eq!(home.json(&["settings", "show"]), set, "nothing was changed");
    home.refuses(&["settings", "set"], 2, "KEY=VALUE");
    for value in ["code", "code", "allow"] {
        let set = home.json(&["settings", "set", &format!("self-removal={value}")]);
        assert_eq!(set["selfRemoval"], value);
    }
    let changes = events();
    let changes = changes.matches("settings.self_removal_changed");
    assert_eq!(changes.count(), 2);
    empty_home().refuses(&["init", "--issuer", "a:b"], 1, "colon");
}

/// A setting changed on the command line takes effect with the running server's next transaction.
#[test]
fn a_running_server_follows_the_settings() {
    let server = TestServer::start();
    let alice = server.user("alice");
    let phone = server.enrol(&alice);
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
    server.pass_seconds(30);
    let beside = Service::open(DataDir::open(server.path(), KeyFile::InDataDir).unwrap()).unwrap();
    let change = SettingsChange {
        issuer: Some("Beside".parse().unwrap()),
        window: Some(Window::Present),
        checkpoints: None,
        self_removal: None,
    };
    let changed = beside.change_settings(&Context::command_line(server.now()), change);
    assert_eq!(changed.unwrap().window, Window::Present);
    let early = phone.code_of(server.now(), 1);
    server
        .check(&alice, &early)
        .expect_error(400, 3, Some("EVENT-8isk2"));
    server
        .check(&alice, &phone.code_at(server.now()))
        .expect_status(200);
    let started = server.ask("POST", &format!("/users/{alice}/totp"), "");
    assert!(started.text("/uri").contains("issuer=Beside"));
}

/// SECURITY.md 32: a backup taken with the narrow window has no record of codes that were used under the wide one.
#[test]
fn a_restore_reopens_no_code_of_a_wider_window() {
    let (home, _) = Home::init();
    let (_, phone) = enrolled(&home);
    home.json(&["settings", "set", "window=0"]);
    let backup = home.dir.path().join("backup");
    let backup = backup.to_str().unwrap();
    home.json(&["backup", backup]);
    let made = home.json(&["event", "list", "--kind", "instance.backed_up"]);
    assert_eq!(made.as_array().unwrap().len(), 1, "{made}");
    home.json(&["settings", "set", "window=1"]);
    let early = phone.code_of(now(), 1);
    home.json(&["totp", "check", "alice", &early]);
    home.json(&["restore", "--force", backup]);
    home.json(&["settings", "set", "window=1"]);
    home.refuses(&["totp", "check", "alice", &early], 1, "wait for the next");
}

#[test]
fn users_are_locked_unlocked_deactivated_and_activated() {
    let (home, _) = Home::init();
    let alice = home.json(&["user", "create", "alice"]);
    let state = || home.json(&["user", "show", "alice"])["user"]["state"].clone();
    for (command, then) in [
        ("lock", "USER_STATE_LOCKED"),
        ("unlock", "USER_STATE_ACTIVE"),
        ("deactivate", "USER_STATE_INACTIVE"),
        ("activate", "USER_STATE_ACTIVE"),
    ] {
        let changed = home.json(&["user", command, "alice"]);
        assert_eq!(changed["details"]["id"], alice["details"]["id"]);
        assert_eq!(state(), then);
    }
    home.refuses(&["user", "activate", "alice"], 1, "not inactive");
    home.json(&["user", "lock", "alice"]);
    home.refuses(&["user", "lock", "alice"], 1, "locked already");
    home.refuses(&["user", "deactivate", "alice"], 1, "not active");
    home.refuses(&["user", "unlock", "7"], 1, "user not found");
}

#[test]
fn an_organization_is_renamed_and_removed_only_when_it_is_empty() {
    let (home, _) = Home::init();
    let first = home.json(&["org", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    home.refuses(&["org", "remove", &first], 1, "the last one");
    let second = home.json(&["org", "create", "Second"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let renamed = serde_json::json!({"id": second, "name": "Branch"});
    assert_eq!(home.json(&["org", "rename", &second, "Branch"]), renamed);
    assert_eq!(home.json(&["org", "list"])[1], renamed);
    home.json(&["user", "create", "bob", "--org", &second]);
    home.refuses(&["org", "remove", &second], 1, "users: 1");
    home.json(&["user", "remove", "bob"]);
    let token = home.json(&["token", "create", "--role", "manager", "--org", &second]);
    home.refuses(&["org", "remove", &second], 1, "tokens bound to it: 1");
    home.json(&["token", "revoke", token["id"].as_str().unwrap()]);
    assert_eq!(home.json(&["org", "remove", &second]), renamed);
    assert_eq!(home.json(&["org", "list"]).as_array().unwrap().len(), 1);
    home.refuses(&["org", "remove", &second], 1, "organization not found");
    home.refuses(
        &["org", "rename", &second, "x"],
        1,
        "organization not found",
    );
    home.refuses(&["org", "rename", &first, "a\nb"], 1, "control characters");
}

#[test]
fn a_first_contact_is_shown_the_way() {
    let home = empty_home();
    for (args, listed) in [
        (&[][..], "doctor"),
        (&["user"], "deactivate"),
        (&["settings"], "show"),
    ] {
        let output = home.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            said.contains("Usage: totpd") && said.contains(listed),
            "{said}"
        );
    }
    home.refuses(&["usr", "list"], 2, "'user'");
    home.refuses(&["serve", "--lisen", "127.0.0.1:0"], 2, "'--listen'");
    for command in ["serve", "demo"] {
        let help = printed(&home.run(&[command, "--help"]));
        assert!(!help.contains("--json"), "{help}");
        for args in [[command, "--json"], ["--json", command]] {
            home.refuses(&args, 2, "take no --json");
        }
    }
    assert!(printed(&home.run(&["user", "list", "--help"])).contains("--json"));
    let server = TestServer::builder().without_pages().start();
    let told = server.raw("GET", "/", "", b"");
    assert!(
        told.expect_error(404, 5, None)
            .text("/message")
            .contains("README")
    );
}

/// The log shows no health request that no client made.
#[test]
fn the_log_shows_no_request_that_nobody_made() {
    let (home, _) = Home::init();
    let log = home.dir.path().join("log");
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut child = serve
        .env("RUST_LOG", "debug")
        .stderr(fs::File::create(&log).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (address, _) = wait::listening(&mut child).unwrap();
    let server = Server::new(child, &address);
    server.ask("", "GET", "/users/7", "").expect_status(401);
    assert_eq!(server.terminate().0, 0);
    let logged = fs::read_to_string(&log).unwrap();
    assert!(
        logged.contains("GET /resources/v3alpha/users/7 -> 401"),
        "{logged}"
    );
    assert_eq!(logged.matches(" -> ").count(), 1, "{logged}");
}

/// Contract §6: the status is 1, and the error names the change that was made.
#[test]
fn a_change_whose_answer_nobody_gets_is_told() {
    let (home, _) = Home::init();
    let create = ["token", "create", "--role", "admin"];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut closed = home.command(&create);
    refused(&closed.stdout(writer).output().unwrap(), 1, "made token");
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for (args, done) in [
        (&create[..], "made token"),
        (&["user", "create", "alice"], "made user"),
        (&["totp", "start", "alice"], "started enrolment"),
        (&["totp", "remove", "alice", "--all"], "removed"),
        (&["settings", "set", "window=0"], "set window=0"),
    ] {
        let output = home.command(args).stdout(full()).output().unwrap();
        refused(&output, 1, done);
        refused(&output, 1, "the answer cannot be written");
    }
    let home = empty_home();
    let output = home.command(&["init"]).stdout(full()).output().unwrap();
    refused(&output, 1, "totpd token create --role admin");
}

#[test]
fn an_authenticator_is_renamed_and_listed_with_its_last_use() {
    let (home, _) = Home::init();
    home.json(&["user", "create", "alice"]);
    let started = home.json(&["totp", "start", "alice"]);
    let id = started["totpId"].as_str().unwrap();
    let renamed = home.json(&["totp", "rename", "alice", id, "Pixel  9"]);
    assert_eq!(renamed["details"]["id"], id);
    let listed = home.json(&["totp", "list", "alice"]);
    assert_eq!(listed[0]["name"], "Pixel  9");
    assert_eq!(listed[0]["created"], renamed["details"]["created"]);
    assert!(listed[0].get("lastUsed").is_none(), "{listed}");
    let text = printed(&home.run(&["totp", "list", "alice"]));
    assert!(text.contains("LAST USED"), "{text}");
    assert!(text.contains("\"Pixel  9\""), "{text}");
    let told = printed(&home.run(&["totp", "rename", "alice", id, "Pixel 9"]));
    assert!(told.contains(id), "{told}");
    assert!(told.contains("Pixel 9"), "{told}");
    home.refuses(&["totp", "rename", "alice", "1", "Pixel 9"], 1, "not found");
    home.refuses(&["totp", "rename", "alice", id, ""], 1, "NAME");
    home.refuses(&["totp", "rename", "alice", id], 2, "NAME");
    let kinds = home.json(&["event", "list", "--kind", "totp.renamed"]);
    assert_eq!(kinds.as_array().unwrap().len(), 2, "{kinds}");
}

#[test]
fn an_authenticator_is_resynchronized_by_two_codes() {
    let (home, _) = Home::init();
    let (_, phone) = enrolled(&home);
    let id = &phone.id;
    let [first, second, third] = [2, 3, 4].map(|it| phone.code_of(now(), it));
    let done = home.json(&["totp", "resync", "alice", id, &first, &second]);
    assert_eq!(done["details"]["id"], id.as_str());
    let again = ["totp", "resync", "alice", id, &first, &second];
    home.refuses(&again, 1, "used already");
    home.refuses(
        &["totp", "resync", "alice", "1", &first, &second],
        1,
        "not found",
    );
    home.refuses(&["totp", "resync", "alice", id, &first], 2, "CODE2");
    home.refuses(
        &["totp", "resync", "alice", id, &first, "12"],
        1,
        "6 to 9 digits",
    );
    let checked = home.json(&["totp", "check", "alice", &third]);
    assert_eq!(checked["totpId"], id.as_str());
}

/// The completions and man pages that a package installs. Printing them needs no data directory.
#[test]
fn completions_man_pages_and_the_version_are_printed() {
    let home = empty_home();
    for (shell, mark) in [
        ("bash", "complete -F _totpd"),
        ("zsh", "#compdef totpd"),
        ("fish", "complete -c totpd"),
    ] {
        let output = home.run(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains(mark), "{shell}");
        assert!(script.contains("rotate"), "{shell}: all commands");
    }
    home.refuses(&["completions", "csh"], 2, "csh");
    let dir = home.dir.path().join("man");
    fs::write(&dir, "a file").unwrap();
    home.refuses(
        &["man", dir.to_str().unwrap()],
        1,
        "cannot write the man pages",
    );
    let dir = home.dir.path().join("new/man");
    home.json(&["man", dir.to_str().unwrap()]);
    home.json(&["man", dir.to_str().unwrap()]);
    for page in ["totpd.1", "totpd-serve.1", "totpd-totp-remove.1"] {
        let text = fs::read_to_string(dir.join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    let version = home.run(&["--version"]).stdout;
    let version = String::from_utf8(version).unwrap();
    assert!(version.starts_with(concat!("totpd ", env!("CARGO_PKG_VERSION"), " (commit ")));
    let features = version.split_once("features cli").unwrap().1;
    assert_eq!(features.contains(" grpc"), cfg!(feature = "grpc"));
    assert_eq!(features.contains(" web"), cfg!(feature = "web"));
    assert!(!home.data().exists());
}
