//! The real binary: its demo, its commands, SIGKILL, SIGTERM, and what a full run prints and stores.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use totpd::model::Timestamp;
use totpd::totp::Secret;

use crate::harness::{Answer, Client, Phone};
use crate::wait;

/// A data directory. The real binary runs on it.
pub struct Home {
    pub dir: TempDir,
}

impl Home {
    /// Returns an initialised data directory and its admin token.
    pub fn init() -> (Self, String) {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let made = home.json(&["init", "--issuer", "Test"]);
        (home, made["token"]["token"].as_str().unwrap().to_owned())
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_totpd"));
        command
            .env_clear()
            .env("TOTPD_DATA_DIR", self.data())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        wait::output(&mut self.command(args))
    }

    /// Runs a command with `--json` and returns its output.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asserts that a command fails with this status and prints one line that contains `told`.
    #[track_caller]
    pub fn refuses(&self, args: &[&str], status: i32, told: &str) {
        refused(&self.run(args), status, told);
    }

    pub fn serve(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Server::start(command)
    }
}

#[track_caller]
pub fn refused(output: &Output, status: i32, told: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    assert!(said.contains(told), "{said}");
    assert!(output.stdout.is_empty());
}

pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    /// Runs a command that serves, and waits until it listens.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (address, _) = wait::listening(&mut child).unwrap();
        Self { child, address }
    }

    pub fn new(child: Child, address: &str) -> Self {
        Self {
            child,
            address: address.to_owned(),
        }
    }

    /// Waits until the process has exited by itself.
    pub fn wait(mut self) {
        wait::ended(&mut self.child);
    }

    pub fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        let target = format!("/resources/v3alpha{path}");
        Client::connect(&self.address).ask(method, &target, &bearer, body.as_bytes())
    }

    /// Sends SIGKILL. Dropping the server, as a failing test does, also sends it.
    pub fn kill(self) {
        drop(self);
    }

    /// Sends SIGTERM, and returns the status and everything printed to stderr.
    pub fn terminate(mut self) -> (i32, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = wait::ended(&mut self.child).code().unwrap();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        (status, said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_seconds(since.as_secs().cast_signed())
}

/// Creates a user with a confirmed authenticator, using only the command line. The code of the current step is used.
pub fn enrolled(home: &Home) -> (String, Phone) {
    let user = home.json(&["user", "create", "alice"]);
    let started = home.json(&["totp", "start", "alice", "--name", "Pixel 9"]);
    let phone = Phone {
        id: started["totpId"].as_str().unwrap().to_owned(),
        secret: Secret::from_base32(started["secret"].as_str().unwrap()).unwrap(),
    };
    home.json(&[
        "totp",
        "confirm",
        "alice",
        &phone.id,
        &phone.code_of(now(), -1),
    ]);
    (user["details"]["id"].as_str().unwrap().to_owned(), phone)
}

#[test]
fn the_demo_tells_its_story_and_vouches_for_it() {
    let home = Home {
        dir: tempfile::tempdir().unwrap(),
    };
    let output = home
        .command(&["demo"])
        .env("TMPDIR", home.dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.lines().count() < 60);
    let statuses: Vec<&str> = told
        .lines()
        .filter_map(|it| it.trim().strip_prefix("< HTTP/1.1 ")?.split(' ').next())
        .collect();
    assert_eq!(
        statuses,
        [
            "201", "200", "200", "200", "400", "200", "400", "404", "404"
        ]
    );
    assert!(told.contains("> DELETE /resources/v3alpha/users/"));
    let masked = told.matches("Bearer totpd_…").count();
    assert_eq!(
        told.matches("totpd_").count(),
        masked,
        "no token is shown whole"
    );
    assert_eq!(masked, 1);
    assert_eq!(
        fs::read_dir(home.dir.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

/// SECURITY.md 3 and 18
#[test]
fn what_was_answered_holds_after_sigkill() {
    let (home, token) = Home::init();
    let (alice, phone) = enrolled(&home);
    let check = format!("/users/{alice}/totp/_check");
    let removal = format!("/users/{alice}/totp/{}", phone.id);

    let server = home.serve(&[]);
    let code = format!("\"{}\"", phone.code_of(now(), 0));
    server.ask(&token, "POST", &check, &code).expect_status(200);
    server.kill();
    let server = home.serve(&[]);
    server
        .ask(&token, "POST", &check, &code)
        .expect_error(400, 3, Some("TOTPD-Used1"));
    server
        .ask(&token, "DELETE", &removal, "")
        .expect_status(200);
    server.kill();
    let server = home.serve(&[]);
    let code = format!("\"{}\"", phone.code_of(now(), 1));
    server
        .ask(&token, "POST", &check, &code)
        .expect_error(400, 9, Some("COMMAND-3Mif9s"));
    server
        .ask(&token, "DELETE", &removal, "")
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    let log = fs::metadata(home.data().join("totpd.db-wal")).map_or(0, |it| it.len());
    assert_eq!(log, 0, "a clean stop leaves no log");
}

/// SECURITY.md 27: with every log level enabled.
#[test]
fn a_full_run_prints_and_stores_no_secret_code_or_token() {
    let (home, token) = Home::init();
    let (alice, phone) = enrolled(&home);
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    let log = home.dir.path().join("log");
    let file = fs::File::create(&log).unwrap();
    serve
        .env("RUST_LOG", "trace")
        .stderr(file)
        .stdout(Stdio::piped());
    let mut child = serve.spawn().unwrap();
    let (address, _) = wait::listening(&mut child).unwrap();
    let server = Server::new(child, &address);
    let check = format!("/users/{alice}/totp/_check");
    let (good, wrong) = (phone.code_of(now(), 0), phone.wrong_at(now()));
    let started = server
        .ask(&token, "POST", &format!("/users/{alice}/totp"), "")
        .expect_status(200);
    let pending = started.text("/secret");
    for code in [&good, &good, &wrong] {
        server.ask(&token, "POST", &check, &format!("\"{code}\""));
    }
    server
        .ask("totpd_unknown-token-of-somebody", "POST", &check, "\"123\"")
        .expect_status(401);
    server
        .ask(&token, "POST", &check, &format!("{{\"code\":\"{good}\"}}"))
        .expect_status(400);
    // A code sent along with a change, once valid and once wrong.
    home.json(&["settings", "set", "self-removal=code"]);
    let own = home.json(&["token", "create", "--role", "self", "--user", &alice]);
    let own = own["token"].as_str().unwrap().to_owned();
    let removal = format!("/users/{alice}/totp/{}", phone.id);
    let beside = phone.code_of(now(), 1);
    for (code, status) in [(&wrong, 400), (&beside, 200)] {
        let headers = format!("Authorization: Bearer {own}\r\nTotpd-Code: {code}\r\n");
        let target = format!("/resources/v3alpha{removal}");
        let mut client = Client::connect(&server.address);
        let answer = client.ask("DELETE", &target, &headers, b"");
        answer.expect_status(status);
    }
    // One invitation that is redeemed and one that is not.
    let invite = format!("/users/{alice}/_invite");
    let codes: Vec<String> = (0..2)
        .map(|_| {
            let url = server.ask(&token, "POST", &invite, "").text("/url");
            url.split_once('#').unwrap().1.to_owned()
        })
        .collect();
    let statuses = codes.iter().map(|code| {
        let body = format!("{{\"code\":\"{code}\"}}");
        let mut client = Client::connect(&server.address);
        client.ask("POST", "/ui/redeem", "", body.as_bytes())
    });
    let redeemed: Vec<Answer> = statuses.collect();
    assert_eq!((redeemed[0].status, redeemed[1].status), (401, 200));
    let of_page = redeemed[1].text("/token");
    assert_eq!(server.terminate().0, 0);
    let logged = fs::read_to_string(&log).unwrap();
    assert!(
        logged.contains("DELETE /resources/v3alpha/users/"),
        "the log is on: {logged}"
    );

    let hex = |base32: &str| {
        let bytes = data_encoding::BASE32_NOPAD
            .decode(base32.as_bytes())
            .unwrap();
        data_encoding::HEXLOWER.encode(&bytes)
    };
    let secret = phone.secret.base32().to_string();
    let quoted = [format!("\"{good}\""), format!("\"{wrong}\"")];
    let mut needles = vec![token, own, hex(&secret), secret, hex(&pending), pending];
    needles.extend(["somebody".to_owned(), of_page].into_iter().chain(quoted));
    needles.extend(codes);
    let files = fs::read_dir(home.data())
        .unwrap()
        .map(|it| it.unwrap().path());
    for path in files.chain([log]) {
        let content = fs::read(&path).unwrap();
        for needle in &needles {
            let found = content
                .windows(needle.len())
                .any(|it| it == needle.as_bytes());
            assert!(!found, "{} holds {needle}", path.display());
        }
    }
}

#[test]
fn a_token_is_good_from_its_making_until_it_is_revoked() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let made = home.json(&["token", "create", "--role", "admin", "--name", "ops"]);
    let token = made["token"].as_str().unwrap();
    server.ask(token, "GET", "/users/1", "").expect_status(404);
    let id = made["id"].as_str().unwrap();
    let revoked = home.json(&["token", "revoke", id]);
    assert_eq!(
        (&revoked["id"], &revoked["role"], &revoked["name"]),
        (&made["id"], &"admin".into(), &"ops".into())
    );
    server.ask(token, "GET", "/users/1", "").expect_status(401);
    assert_eq!(server.terminate().0, 0);
}

#[test]
fn every_command_works_beside_a_server_and_speaks_json() {
    let (home, token) = Home::init();
    let server = home.serve(&[]);
    let (alice, phone) = enrolled(&home);
    let shown = home.json(&["user", "show", "alice"]);
    assert_eq!(
        shown,
        server
            .ask(&token, "GET", &format!("/users/{alice}"), "")
            .json()
    );
    assert_eq!(home.json(&["user", "list"])[0], shown["user"]);
    let listed = home.json(&["totp", "list", &alice]);
    let told = server.ask(&token, "GET", &format!("/users/{alice}/totp"), "");
    assert_eq!(listed, told.json()["result"]);
    assert_eq!(listed[0]["totpId"], phone.id.as_str());
    assert_eq!(listed[0]["name"], "Pixel 9");
    assert_eq!(listed[0]["isVerified"], true);
    let code = phone.code_of(now(), 0);
    assert_eq!(
        home.json(&["totp", "check", "alice", &code])["totpId"],
        phone.id.as_str()
    );
    home.refuses(
        &["totp", "check", "alice", &code],
        1,
        "wait for the next code",
    );
    home.refuses(
        &["totp", "check", "alice", &phone.wrong_at(now())],
        1,
        "wrong",
    );
    home.json(&["user", "unlock", "alice"]);
    let org = home.json(&["org", "create", "Second"]);
    assert_eq!(home.json(&["org", "list"])[1], org);
    let org = org["id"].as_str().unwrap();
    home.json(&["user", "create", "alice", "--org", org]);
    home.refuses(&["user", "show", "alice"], 1, "--org ID");
    for args in [
        &["--role", "manager", "--org", org][..],
        &["--role", "checker", "--all-orgs"],
        &["--role", "self", "--user", &alice, "--expires", "90d"],
    ] {
        home.json(&[&["token", "create"], args].concat());
    }
    assert_eq!(home.json(&["token", "list"]).as_array().unwrap().len(), 4);
    assert_eq!(
        home.json(&["totp", "remove", &alice, "--all"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(home.json(&["totp", "list", &alice]), serde_json::json!([]));
    let removed = home.json(&["user", "remove", &alice]);
    assert_eq!(removed["details"]["id"], alice.as_str());
    server
        .ask(&token, "GET", &format!("/users/{alice}"), "")
        .expect_status(404);
    server.kill();
}

#[test]
fn bad_words_on_the_command_line_are_told_in_one_line() {
    let (home, _) = Home::init();
    home.refuses(&["token", "create", "--role", "boss"], 2, "manager");
    home.refuses(&["token", "create", "--role", "manager"], 1, "--org ID");
    home.refuses(&["token", "create", "--role", "checker"], 1, "--all-orgs");
    home.refuses(
        &["token", "create", "--role", "manager", "--org", "7"],
        1,
        "organization not found",
    );
    home.refuses(
        &["token", "create", "--role", "self", "--user", "7"],
        1,
        "user not found",
    );
    home.refuses(
        &["token", "create", "--role", "admin", "--expires", "soon"],
        2,
        "90d",
    );
    home.refuses(&["token", "revoke", "7"], 1, "token not found");
    home.refuses(&["user", "create", "a\nb"], 1, "control characters");
    home.refuses(&["totp", "remove", "alice"], 2, "<TOTP|--all>");
    home.refuses(&["serve", "--listen", "8080"], 2, "127.0.0.1:8080");
    home.refuses(&["serve", "--listen", "0.0.0.0:0"], 1, "TLS");
    home.refuses(&["init"], 1, "already");
    home.refuses(&["nonsense"], 2, "'nonsense'; see --help");
    home.refuses(&["serve", "--nonsense"], 2, "found; see --help");
}

#[test]
fn a_data_directory_that_is_not_right_is_told_in_one_line_and_left_alone() {
    let nowhere = Home {
        dir: tempfile::tempdir().unwrap(),
    };
    nowhere.refuses(&["user", "list"], 1, "totpd init");
    nowhere.refuses(
        &["init", "--master-key", "/nowhere/key"],
        1,
        "32 random bytes",
    );
    fs::remove_dir_all(nowhere.data()).unwrap();
    fs::write(nowhere.data(), "a file").unwrap();
    nowhere.refuses(&["user", "list"], 1, "a data directory is expected");
    nowhere.refuses(&["serve"], 1, "a data directory is expected");

    let broken = |breaks: &dyn Fn(&Path), told: &str| {
        let (home, _) = Home::init();
        breaks(&home.data());
        home.refuses(&["user", "list"], 1, told);
        home.refuses(&["serve", "--listen", "127.0.0.1:0"], 1, told);
        // Files that others can reach are refused before any other check.
        let told = if told == "chmod 600" { told } else { "already" };
        home.refuses(&["init"], 1, told);
    };
    let key = |dir: &Path| dir.join("master.key");
    broken(
        &|it| fs::set_permissions(key(it), Permissions::from_mode(0o644)).unwrap(),
        "chmod 600",
    );
    broken(
        &|it| fs::write(key(it), [7; 31]).unwrap(),
        "exactly 32 bytes",
    );
    broken(
        &|it| fs::write(key(it), [7; 33]).unwrap(),
        "exactly 32 bytes",
    );
    broken(
        &|it| fs::write(key(it), [7; 32]).unwrap(),
        "not the master key",
    );
    broken(&|it| fs::remove_file(key(it)).unwrap(), "put the file back");
    broken(
        &|it| fs::write(it.join("totpd.db"), "x".repeat(9000)).unwrap(),
        "not a database",
    );
    broken(
        &|it| fs::remove_file(it.join("totpd.db")).unwrap(),
        "put the database back, or restore a backup",
    );
}

/// Runs `serve` with this soft and hard limit of open files.
fn serve_with_files(home: &Home, files: u32) -> Command {
    let mut shell = Command::new("sh");
    let line = format!("ulimit -n {files}; exec \"$0\" serve --listen 127.0.0.1:0");
    shell.env_clear().env("TOTPD_DATA_DIR", home.data());
    shell
        .args(["-c", &line, env!("CARGO_BIN_EXE_totpd")])
        .stdin(Stdio::null());
    shell
}

/// SECURITY.md 34
#[test]
fn few_open_files_mean_fewer_connections_or_one_clear_refusal() {
    let (home, _) = Home::init();
    refused(
        &wait::output(&mut serve_with_files(&home, 64)),
        1,
        "LimitNOFILE=",
    );

    let mut command = serve_with_files(&home, 400);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (address, _) = wait::listening(&mut child).unwrap();
    let server = Server::new(child, &address);
    for _ in 0..3 {
        let flood: Vec<_> = (0..400)
            .map(|_| TcpStream::connect(&server.address))
            .collect();
        drop(flood);
    }
    for _ in 0..20 {
        let answer = Client::connect(&server.address).ask("GET", "/debug/ready", "", b"");
        answer.expect_status(200);
    }
    let (status, said) = server.terminate();
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("400 files may be open: serving 285 connections"),
        "{said}"
    );
}

/// The table of open files does not grow under load, because growing it would block the accepting thread.
#[test]
#[cfg(target_os = "linux")]
fn the_table_of_open_files_has_its_size_from_the_start() {
    let (home, _) = Home::init();
    let server = home.serve(&[]);
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let size = status.lines().find_map(|it| it.strip_prefix("FDSize:"));
    let size: u32 = size.unwrap().trim().parse().unwrap();
    assert!(size > 1024, "{size}");
    server.kill();
}

/// Under SIGTERM every change that was made is answered, and every change that was answered is stored.
#[test]
fn sigterm_under_load_loses_nothing_and_leaves_nothing_unanswered() {
    let (home, token) = Home::init();
    home.json(&["user", "create", "alice", "--id", "alice"]);
    let (clients, each) = (16, 200);
    let database = rusqlite::Connection::open(home.data().join("totpd.db")).unwrap();
    let rows = format!(
        "WITH RECURSIVE n (it) AS (SELECT 1 UNION ALL SELECT it + 1 FROM n WHERE it < {})
         INSERT INTO slot SELECT it, randomblob(165) FROM n;
         INSERT INTO totp (id, user_id, org_id, state, slot, algorithm, digits, last_step, created, changed)
         SELECT number, 'alice', (SELECT org_id FROM user), 'confirmed', number, 'SHA1', 6, -1, 1, 1 FROM slot",
        clients * each
    );
    database.execute_batch(&rows).unwrap();
    let server = home.serve(&[]);
    let (address, bearer) = (
        &server.address,
        &format!("Authorization: Bearer {token}\r\n"),
    );
    let pid = server.child.id().to_string();
    let acknowledged = AtomicUsize::new(0);
    let acknowledged = &acknowledged;
    thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                for id in client * each + 1..=(client + 1) * each {
                    let request = format!(
                        "DELETE /resources/v3alpha/users/alice/totp/{id} HTTP/1.1\r\nHost: t\r\n{bearer}\r\n"
                    );
                    let mut answer = [0; 2048];
                    if stream.write_all(request.as_bytes()).is_err() {
                        return;
                    }
                    match stream.read(&mut answer) {
                        Ok(read) if answer[..read].starts_with(b"HTTP/1.1 200 ") => {
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => return,
                    }
                }
            });
        }
        wait::until("a tenth is acknowledged", || {
            acknowledged.load(Ordering::SeqCst) >= clients * each / 10
        });
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    });
    let mut server = server;
    assert_eq!(wait::ended(&mut server.child).code(), Some(0));
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    let count = |sql: &str| -> usize {
        database
            .query_row(sql, (), |row| row.get::<_, u32>(0))
            .unwrap() as usize
    };
    assert_eq!(
        count("SELECT count(*) FROM event WHERE kind = 'totp.removed'"),
        acknowledged
    );
    assert_eq!(
        count("SELECT count(*) FROM totp"),
        clients * each - acknowledged
    );
    assert!(acknowledged < clients * each, "it was stopped under load");
}

/// Contract §6: any failure prints one line that includes the cause.
#[test]
fn a_database_that_cannot_be_used_is_told_in_one_line() {
    let (home, _) = Home::init();
    let database = rusqlite::Connection::open(home.data().join("totpd.db")).unwrap();
    let end = "INSERT INTO event (at, kind, actor) VALUES (4000000000000000, 'x', 'x')";
    database.execute_batch(end).unwrap();
    home.refuses(&["org", "create", "Acme"], 1, "set the clock right");
}

/// Contract §6: status 0 means that the command succeeded. A token that could not be printed is a failure.
#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let (home, _) = Home::init();
    for json in [&[][..], &["--json"]] {
        let mut command = home.command(&["token", "create", "--role", "admin"]);
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command.args(json).stdout(full).output().unwrap();
        refused(&output, 1, "stdout");
    }
}

/// Contract §6: an empty directory is accepted and its mode is narrowed. A directory that belongs to others is
/// refused and not changed.
#[test]
fn a_directory_of_others_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mode = || fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("letter"), "to the landlord").unwrap();
    let totpd = |command: &str, file: &[&str]| {
        let mut totpd = Command::new(env!("CARGO_BIN_EXE_totpd"));
        totpd.arg("--data-dir").arg(dir.path()).arg(command);
        wait::output(totpd.args(file))
    };
    refused(&totpd("init", &[]), 1, "letter");
    assert!(!totpd("restore", &["letter"]).status.success());
    assert_eq!(mode(), 0o755);
    fs::remove_file(dir.path().join("letter")).unwrap();
    assert!(totpd("init", &[]).status.success());
    assert_eq!(mode(), 0o700);
}

/// `init` may be killed at any point: if a database exists, it has an organization for users.
#[test]
fn an_instance_is_there_in_one_piece() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let totpd = |args: &[&str]| {
            let mut totpd = Command::new(env!("CARGO_BIN_EXE_totpd"));
            totpd.arg("--data-dir").arg(dir.path()).args(args);
            totpd.stdout(Stdio::piped()).stderr(Stdio::piped());
            totpd
        };
        let mut init = totpd(&["init"]).spawn().unwrap();
        wait::until("there is a database", || {
            dir.path().join("totpd.db").exists()
        });
        init.kill().unwrap();
        init.wait().unwrap();
        let made = wait::output(&mut totpd(&["user", "create", "alice"]));
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
    }
}
