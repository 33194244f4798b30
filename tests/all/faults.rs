//! Faults of disks, other processes and power. SECURITY.md 3, 14, 18, 31.
//!
//! The long variants are ignored by default: `cargo test --release -- --ignored`. Those that mount a file system
//! print a message and do nothing if mounting is not allowed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use totpd::model::UserId;
use totpd::service::{Context, DataDir, KeyFile, NewUser, Service, Verdict};

use crate::binary::{Home, Server, now};
use crate::harness::{Client, Phone};
use crate::wait;

const STORE: Option<&str> = Some("TOTPD-Store");

/// Enrols a user with a confirmed authenticator through the library, because the command line would need a process
/// for each.
pub fn enrol(service: &Service, user: &str) -> Phone {
    let before = now().before(Duration::from_mins(1));
    let context = Context::command_line(before);
    let new = NewUser {
        id: Some(user.parse().unwrap()),
        ..NewUser::default()
    };
    service.create_user(&context, new).unwrap();
    let user: UserId = user.parse().unwrap();
    let begun = service.start_totp(&context, user.clone(), None).unwrap();
    let phone = Phone {
        id: begun.details.id,
        secret: begun.secret,
    };
    let (id, code) = (
        phone.id.parse().unwrap(),
        phone.code_at(before).parse().unwrap(),
    );
    let confirmed = service.confirm_totp(&context, user, id, code).unwrap();
    assert!(matches!(confirmed, Verdict::Accepted(_)));
    phone
}

pub fn enrolled(home: &Home, users: &[String]) -> Vec<Phone> {
    let dir = DataDir::open(&home.data(), KeyFile::InDataDir).unwrap();
    let service = Service::open(dir).unwrap();
    users.iter().map(|it| enrol(&service, it)).collect()
}

/// A server, and one user with one authenticator.
fn one_phone(home: &Home) -> (Phone, Server) {
    let phone = enrolled(home, &["alice".to_owned()]).remove(0);
    (phone, home.serve(&[]))
}

fn limit_files(server: &Server, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(Pid::from_child(&server.child)), Resource::Fsize, limit).unwrap();
}

fn ready(server: &Server) -> u16 {
    Client::connect(&server.address)
        .ask("GET", "/debug/ready", "", b"")
        .status
}

/// The result of a readiness probe is shared for a moment, so this waits for the next one.
fn becomes_ready(server: &Server) {
    wait::until("ready by itself", || ready(server) == 200);
}

/// While nothing can be written, changes are refused and reads succeed. Afterwards nothing is lost.
fn refuses_writes_and_recovers(
    token: &str,
    phone: &Phone,
    server: &Server,
    fill: impl FnOnce(),
    clear: impl FnOnce(),
) {
    let (user, totp) = ("/users/alice", format!("/users/alice/totp/{}", phone.id));
    let before = server.ask(token, "GET", user, "").expect_status(200).json();
    becomes_ready(server);
    fill();
    for _ in 0..3 {
        server
            .ask(token, "DELETE", &totp, "")
            .expect_error(503, 14, STORE);
        let code = format!("\"{}\"", phone.code_at(now()));
        server
            .ask(token, "POST", "/users/alice/totp/_check", &code)
            .expect_error(503, 14, STORE);
        let during = server.ask(token, "GET", user, "").expect_status(200);
        assert_eq!(during.json(), before, "nothing refused is there");
    }
    wait::until("not ready", || ready(server) == 503);
    clear();
    becomes_ready(server);
    let code = format!("\"{}\"", phone.code_at(now()));
    server
        .ask(token, "POST", "/users/alice/totp/_check", &code)
        .expect_status(200);
    server.ask(token, "DELETE", &totp, "").expect_status(200);
}

/// SECURITY.md 31: the disk refuses every write, and later accepts them again.
#[test]
fn where_nothing_can_be_written_nothing_is_lost_and_the_same_process_recovers() {
    let (home, token) = Home::init();
    let (phone, server) = one_phone(&home);
    refuses_writes_and_recovers(
        &token,
        &phone,
        &server,
        || limit_files(&server, Some(512)),
        || limit_files(&server, None),
    );
    assert_eq!(server.terminate().0, 0);
    home.json(&["doctor"]);
}

/// SECURITY.md 31: if a shared commit fails, every caller in it is told so.
#[test]
fn where_a_commit_fails_everyone_in_it_is_told_so() {
    let (home, token) = Home::init();
    let users: Vec<String> = (0..32).map(|it| format!("u{it}")).collect();
    let phones = enrolled(&home, &users);
    let server = home.serve(&[]);
    let statuses = || -> Vec<u16> {
        let begin = Barrier::new(users.len());
        thread::scope(|scope| {
            let removals: Vec<_> = users
                .iter()
                .zip(&phones)
                .map(|(user, phone)| {
                    let path = format!("/users/{user}/totp/{}", phone.id);
                    let (server, token, begin) = (&server, &token, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        server.ask(token, "DELETE", &path, "").status
                    })
                })
                .collect();
            removals.into_iter().map(|it| it.join().unwrap()).collect()
        })
    };
    becomes_ready(&server);
    limit_files(&server, Some(512));
    assert!(statuses().iter().all(|it| *it == 503));
    let database = Connection::open(home.data().join("totpd.db")).unwrap();
    let count = |sql: &str| -> u32 { database.query_row(sql, (), |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM totp"), 32);
    limit_files(&server, None);
    assert!(statuses().iter().all(|it| *it == 200));
    assert_eq!(count("SELECT count(*) FROM totp"), 0);
    let removals = "SELECT count(*) FROM event WHERE kind = 'totp.removed'";
    assert_eq!(count(removals), 32);
    server.kill();
}

/// SECURITY.md 31: the same over gRPC, with all waiting changes in one commit.
#[cfg(feature = "grpc")]
#[test]
fn where_a_commit_of_grpc_fails_everyone_in_it_is_told_so() {
    use crate::rpc::{Rpc, encode, method};

    let (home, token) = Home::init();
    let server = home.serve(&[]);
    let mut rpc = Rpc::connect(&server.address);
    let bearer = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/grpc"),
        ("authorization", bearer.as_str()),
    ];
    let database = Connection::open(home.data().join("totpd.db")).unwrap();
    let users = || -> u32 {
        let sql = "SELECT count(*) FROM user";
        database.query_row(sql, (), |row| row.get(0)).unwrap()
    };
    becomes_ready(&server);
    for (bytes, code, made) in [(Some(512), 14, 0), (None, 0, 31)] {
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begun: Vec<_> = (0..31)
            .map(|_| rpc.begin_call(&headers, "CreateUser", b""))
            .collect();
        // This read is sent after all the changes, so its answer shows that they are waiting.
        let nobody = encode(method("GetUser").input(), &serde_json::json!({"id": "u"}));
        assert_eq!(rpc.call_with(&headers, "GetUser", &nobody).code, 5);
        limit_files(&server, bytes);
        database.execute_batch("ROLLBACK").unwrap();
        for it in begun {
            assert_eq!(rpc.end_call("CreateUser", it).code, code);
        }
        assert_eq!(users(), made);
    }
    server.kill();
}

/// SECURITY.md 31
#[test]
fn a_neighbour_that_locks_the_database_delays_writes_and_nothing_else() {
    let (home, token) = Home::init();
    let (phone, server) = one_phone(&home);
    let totp = format!("/users/alice/totp/{}", phone.id);
    let neighbour = Connection::open(home.data().join("totpd.db")).unwrap();
    neighbour.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (told, answered) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            told.send(server.ask(&token, "DELETE", &totp, "").expect_status(200))
                .unwrap();
        });
        let early = answered.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "not before the lock is gone");
        server
            .ask(&token, "GET", "/users/alice", "")
            .expect_status(200);
        neighbour.execute_batch("ROLLBACK").unwrap();
        answered.recv_timeout(Duration::from_secs(10)).unwrap();
    });
    server.kill();
}

/// SECURITY.md 31: the lock is held longer than a caller should wait.
#[test]
#[ignore = "waits six seconds"]
fn a_neighbour_that_never_lets_go_is_told_about_and_nothing_happens() {
    let (home, token) = Home::init();
    let (phone, server) = one_phone(&home);
    let totp = format!("/users/alice/totp/{}", phone.id);
    let neighbour = Connection::open(home.data().join("totpd.db")).unwrap();
    neighbour.execute_batch("BEGIN IMMEDIATE").unwrap();
    server
        .ask(&token, "DELETE", &totp, "")
        .expect_error(503, 14, STORE);
    neighbour.execute_batch("ROLLBACK").unwrap();
    server.ask(&token, "DELETE", &totp, "").expect_status(200);
    server.kill();
}

/// The answers that clients received before the process was killed.
#[derive(Default)]
struct Told {
    removed: Vec<usize>,
    accepted: Vec<(usize, String)>,
}

/// SECURITY.md 3 and 18, killed at random moments under load.
fn killed_under_load(rounds: u32) {
    let (home, token) = Home::init();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for round in 0..rounds {
        let users: Vec<String> = (0..160).map(|it| format!("r{round}-{it}")).collect();
        let phones = enrolled(&home, &users);
        let server = home.serve(&[]);
        let pid = Pid::from_child(&server.child);
        let (address, begin) = (&server.address, &Barrier::new(17));
        let (users, phones, bearer) = (&users, &phones, &bearer);
        let answered = &AtomicUsize::new(0);
        let told: Vec<Told> = thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|client| {
                    scope.spawn(move || {
                        begin.wait();
                        load(address, bearer, users, phones, client, answered)
                    })
                })
                .collect();
            begin.wait();
            // Each round kills at another moment. Together they cover the whole load.
            let moment = (round as usize % 10 * 7 + 1) * users.len() / 80;
            wait::until("so many are answered", || {
                answered.load(Ordering::SeqCst) >= moment
            });
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            clients.into_iter().map(|it| it.join().unwrap()).collect()
        });
        drop(server);
        let server = home.serve(&[]);
        home.json(&["doctor"]);
        for it in told {
            for at in it.removed {
                let path = format!("/users/{}/totp/{}", users[at], phones[at].id);
                server
                    .ask(&token, "DELETE", &path, "")
                    .expect_error(404, 5, Some("COMMAND-Hd9sd"));
            }
            for (at, code) in it.accepted {
                let path = format!("/users/{}/totp/_check", users[at]);
                let again = server.ask(&token, "POST", &path, &format!("\"{code}\""));
                assert_ne!(again.status, 200, "round {round}: {} again", users[at]);
            }
        }
        server.kill();
    }
}

/// Removes and checks its own users until the server is gone.
fn load(
    address: &str,
    bearer: &str,
    users: &[String],
    phones: &[Phone],
    client: usize,
    answered: &AtomicUsize,
) -> Told {
    let mut told = Told::default();
    let mut connection = Client::connect(address);
    for at in (client..users.len()).step_by(16) {
        let base = format!("/resources/v3alpha/users/{}/totp", users[at]);
        if client.is_multiple_of(2) {
            let target = format!("{base}/{}", phones[at].id);
            match connection.try_ask("DELETE", &target, bearer, b"") {
                Some(answer) => told.removed.extend((answer.status == 200).then_some(at)),
                None => break,
            }
        } else {
            let code = phones[at].code_at(now());
            let body = format!("\"{code}\"");
            let target = format!("{base}/_check");
            match connection.try_ask("POST", &target, bearer, body.as_bytes()) {
                Some(answer) if answer.status == 200 => told.accepted.push((at, code)),
                Some(_) => {}
                None => break,
            }
        }
        answered.fetch_add(1, Ordering::SeqCst);
    }
    told
}

#[test]
fn nothing_acknowledged_is_lost_to_sigkill_under_load() {
    killed_under_load(2);
}

#[test]
#[ignore = "twenty rounds"]
fn nothing_acknowledged_is_lost_to_sigkill_under_load_in_20_rounds() {
    killed_under_load(20);
}

/// A file system of four MiB, unmounted on drop. `None` if mounting is not allowed.
struct SmallDisk<'a> {
    at: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(at);
        let mounted = mount.output().is_ok_and(|it| it.status.success());
        if !mounted {
            eprintln!("mounting is not allowed here: nothing was tried");
        }
        mounted.then_some(Self { at })
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", how]).arg(self.at);
        assert!(mount.status().unwrap().success(), "{how}");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.at).status();
    }
}

/// SECURITY.md 31
#[test]
#[ignore = "mounts a file system"]
fn on_a_full_disk_nothing_is_lost_and_the_same_process_recovers() {
    let home = Home {
        dir: tempfile::tempdir().unwrap(),
    };
    let data = home.data();
    let Some(_disk) = SmallDisk::mount(&data) else {
        return;
    };
    let made = home.json(&["init"]);
    let token = made["token"]["token"].as_str().unwrap();
    let (phone, server) = one_phone(&home);
    let filler = data.join("filler");
    let fill = || {
        let chunk = [0; 4096];
        let mut file = fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    };
    let clear = || fs::remove_file(&filler).unwrap();
    refuses_writes_and_recovers(token, &phone, &server, fill, clear);
    assert_eq!(server.terminate().0, 0);
}

/// SECURITY.md 31
#[test]
#[ignore = "mounts a file system"]
fn a_disk_that_is_read_only_is_refused_in_one_line() {
    let home = Home {
        dir: tempfile::tempdir().unwrap(),
    };
    let data = home.data();
    let Some(disk) = SmallDisk::mount(&data) else {
        return;
    };
    home.json(&["init"]);
    disk.remount("remount,ro");
    home.refuses(
        &["serve", "--listen", "127.0.0.1:0"],
        1,
        "Read-only file system",
    );
    home.refuses(&["user", "create", "alice"], 1, "Read-only file system");
    disk.remount("remount,rw");
    assert_eq!(home.serve(&[]).terminate().0, 0);
}
