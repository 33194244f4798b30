//! After a removal no file contains any part of the removed secret. SECURITY.md 21.
//!
//! The tests remove thousands of authenticators in random order, so that pages split and merge, and then search every
//! file.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;
use rusqlite::Connection;
use tempfile::TempDir;
use totpd::model::{Period, Timestamp, TotpId, UserId, Window};
use totpd::service::{
    Context, DataDir, KeyFile, NewUser, RestoreOptions, Service, Settings, Verdict,
};
use totpd::totp::{Parameters, Secret, code_at};

use crate::binary::{Home, enrolled, now};
use crate::forensics::{Found, Sought, sealed_secrets, search};
use crate::harness::{Client, tidy};
use crate::wait;

const START_S: i64 = 1_795_453_575;
/// The number of changes that share a commit, so that thousands take seconds.
const BATCH: usize = 250;

/// Pseudorandom numbers, the same in each run.
struct Random(u64);

impl Random {
    const fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn shuffle<T>(&mut self, of: &mut [T]) {
        for at in (1..of.len()).rev() {
            of.swap(at, self.below(at + 1));
        }
    }
}

/// An enrolment that was started: user, id, secret.
type Begun = (UserId, TotpId, Vec<u8>);

/// A service on its own directory.
struct Scene {
    dir: TempDir,
    service: Option<Service>,
    now: Timestamp,
    random: Random,
}

impl Scene {
    fn new() -> Self {
        let (dir, now) = (
            tempfile::tempdir().unwrap(),
            Timestamp::from_seconds(START_S),
        );
        let settings = Settings {
            issuer: "Test".parse().unwrap(),
            window: Window::OneEitherSide,
            checkpoints: totpd::model::Checkpointer::Own,
            self_removal: totpd::model::SelfRemoval::Allow,
        };
        let made = DataDir::create(dir.path(), KeyFile::InDataDir, &settings, now);
        Self {
            service: Some(made.unwrap().0),
            dir,
            now,
            random: Random(0x2545_F491_4F6C_DD1D),
        }
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    /// Calls `act` for each of `these`, with many calls in one commit.
    fn each<T>(&self, these: &[T], mut act: impl FnMut(&Service, &T)) {
        let service = self.service();
        for part in these.chunks(BATCH) {
            let all = || part.iter().for_each(|it| act(service, it));
            service.run_batch(all).unwrap();
        }
    }

    fn users(&mut self, prefix: &str, count: usize) -> Vec<UserId> {
        let ids = (0..count).map(|it| format!("{prefix}{it}").parse().unwrap());
        let mut ids: Vec<UserId> = ids.collect();
        self.random.shuffle(&mut ids);
        let now = self.now;
        self.each(&ids, |service, id| {
            let new = NewUser {
                id: Some(id.clone()),
                ..NewUser::default()
            };
            let context = Context::command_line(now);
            service.create_user(&context, new).unwrap();
        });
        ids
    }

    /// Starts two enrolments for each user, in random order.
    fn begin(&mut self, users: &[UserId]) -> Vec<Begun> {
        let mut twice: Vec<_> = users.iter().chain(users).cloned().collect();
        self.random.shuffle(&mut twice);
        let (mut begun, now) = (Vec::new(), self.now);
        self.each(&twice, |service, user| {
            let context = Context::command_line(now);
            let it = service.start_totp(&context, user.clone(), None).unwrap();
            let secret = BASE32_NOPAD.decode(it.secret.base32().as_bytes()).unwrap();
            begun.push((user.clone(), it.details.id.parse().unwrap(), secret));
        });
        self.random.shuffle(&mut begun);
        begun
    }

    /// Confirms them. Their rows become longer, and where a page is full, cells move to another page.
    fn confirm(&self, these: &[Begun]) {
        let now = self.now;
        self.each(these, |service, (user, totp, secret)| {
            let code = present_code(secret, now).parse().unwrap();
            let context = Context::command_line(now);
            let confirmed = service.confirm_totp(&context, user.clone(), totp.clone(), code);
            assert!(matches!(confirmed, Ok(Verdict::Accepted(_))));
        });
    }

    fn remove(&self, these: &[Begun]) {
        let now = self.now;
        self.each(these, |service, (user, totp, _)| {
            let context = Context::command_line(now);
            let removed = service.remove_totp(&context, user.clone(), totp.clone());
            removed.unwrap();
        });
    }

    fn remove_users(&self, users: &[UserId]) {
        let now = self.now;
        self.each(users, |service, user| {
            let context = Context::command_line(now);
            service.remove_user(&context, user.clone()).unwrap();
        });
    }

    /// The secrets of these authenticators, as the files hold them now, for a later search.
    fn sought(&self, begun: &[Begun]) -> Vec<Sought> {
        sought(self.dir.path(), begun)
    }

    fn slots(&self) -> i64 {
        let database = Connection::open(self.dir.path().join("totpd.db")).unwrap();
        let count = "SELECT count(*) FROM slot";
        database.query_row(count, (), |row| row.get(0)).unwrap()
    }

    fn search(&self, sought: &[Sought]) -> Found {
        self.service().truncate_wal().unwrap();
        let key = fs::read(self.dir.path().join("master.key")).unwrap();
        search(self.dir.path(), &key, sought)
    }

    /// Asserts that no file contains a removed secret, and that the search finds each remaining secret once.
    fn expect_gone(&self, removed: &[Sought], left: &[Sought]) {
        let found = self.search(removed);
        assert!(found.is_nothing(), "removed {}: {found:?}", removed.len());
        let found = self.search(left);
        assert_eq!(found.vouched_for, left.len(), "{found:?}");
        assert_eq!(found.opened, left.len(), "{found:?}");
    }
}

fn present_code(secret: &[u8], now: Timestamp) -> String {
    let secret = Secret::from_bytes(secret).unwrap();
    let code = code_at(&secret, Parameters::ENROLMENT, now.step(Period::ENROLMENT)).unwrap();
    code.digits().to_owned()
}

fn sought(dir: &Path, begun: &[Begun]) -> Vec<Sought> {
    let mut sealed = sealed_secrets(&dir.join("totpd.db"));
    let mut of = |(user, totp, secret): &Begun| Sought {
        user: user.to_string(),
        totp: totp.to_string(),
        secret: secret.clone(),
        sealed: sealed.remove(totp.as_str()).unwrap(),
    };
    begun.iter().map(&mut of).collect()
}

/// Removal of authenticators and of users, expiry, reused slots, a backup, and a restored backup.
#[test]
fn nothing_of_a_removed_secret_is_in_any_file() {
    gone(256);
}

#[test]
#[ignore = "ten thousand authenticators, and a search of every byte"]
fn nothing_of_a_removed_secret_is_in_any_file_of_many() {
    gone(4_096);
}

fn gone(count: usize) {
    let mut scene = Scene::new();
    let users = scene.users("u", count);
    let begun = scene.begin(&users);
    let (first, second) = begun.split_at(begun.len() / 2);
    let mut removed = scene.sought(first);
    let mut left = scene.sought(second);
    scene.confirm(first);
    // More users are enrolled in between.
    let more = scene.users("v", count / 2);
    let mut of_users = Vec::new();
    for (part, more) in first.chunks(16).zip(more.chunks(8)) {
        scene.remove(part);
        of_users.extend(scene.begin(more));
    }
    removed.extend(scene.sought(&of_users));
    scene.remove_users(&more);
    scene.expect_gone(&removed, &left);

    // A copy of the database, without a WAL beside it.
    let copy = tempfile::tempdir().unwrap();
    let backup = copy.path().join("backup");
    scene.service().back_up(&backup).unwrap();
    let key = fs::read(scene.dir.path().join("master.key")).unwrap();
    let found = search(copy.path(), &key, &left);
    assert_eq!(found.opened, left.len(), "each once: {found:?}");
    restored_and_emptied(&backup, &key, second);

    // New secrets reuse the slots of removed ones, and the earlier enrolments expire.
    let slots = scene.slots();
    let late = scene.users("w", count / 4);
    scene.now = scene.now.after(Duration::from_mins(11));
    for _ in 0..=begun.len() / 500 {
        tidy(scene.service(), Duration::from_hours(24), scene.now);
    }
    removed.append(&mut left);
    let late = scene.begin(&late);
    let left = scene.sought(&late);
    scene.expect_gone(&removed, &left);
    assert_eq!(scene.slots(), slots, "they are used again");
}

/// Restores a backup into its own directory, removes everything, and searches there.
fn restored_and_emptied(backup: &Path, key: &[u8], begun: &[Begun]) {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::new();
    scene.service = None;
    scene.dir = dir;
    let path = scene.dir.path().to_owned();
    write_private(&path.join("master.key"), key);
    let options = RestoreOptions {
        replace: false,
        accept_loss: true,
    };
    let open = DataDir::open_exclusive(&path, KeyFile::InDataDir).unwrap();
    open.restore(backup, options, scene.now).unwrap();
    let open = DataDir::open(&path, KeyFile::InDataDir).unwrap();
    scene.service = Some(Service::open(open).unwrap());
    let sought = scene.sought(begun);
    scene.expect_gone(&[], &sought);
    scene.remove(begun);
    scene.expect_gone(&sought, &[]);
}

fn write_private(file: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// On the real binary over HTTP: 16 connections remove half of 20,000 authenticators of 10,000 users in random order
/// while they enrol others. The files are searched after a stop, after a kill and the next start, and after an idle
/// minute.
#[test]
#[ignore = "twenty thousand authenticators over HTTP, and a minute of rest"]
fn nothing_of_10_000_removed_secrets_is_left_by_a_stop_a_kill_or_a_rest() {
    const USERS: usize = 10_000;
    let (home, token) = Home::init();
    let key = fs::read(home.data().join("master.key")).unwrap();
    let server = home.serve(&[]);
    let users: Vec<String> = (0..USERS).map(|it| format!("u{it}")).collect();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut tasks: Vec<_> = users.iter().map(|it| Task::Create(it.clone())).collect();
    random.shuffle(&mut tasks);
    run(&server.address, &token, &tasks);
    let mut tasks: Vec<_> = users
        .iter()
        .chain(&users)
        .map(|it| Task::Enrol(it.clone()))
        .collect();
    random.shuffle(&mut tasks);
    let mut begun = run(&server.address, &token, &tasks);
    random.shuffle(&mut begun);
    let confirm = |(user, totp, secret): &Begun| {
        Task::Confirm(user.to_string(), totp.to_string(), secret.clone())
    };
    let tasks: Vec<_> = begun.iter().map(confirm).collect();
    run(&server.address, &token, &tasks);
    let (gone, left) = begun.split_at(begun.len() / 2);
    let left = sought(&home.data(), left);

    let (mut removed, mut server) = (Vec::new(), Some(server));
    for (round, part) in gone.chunks(gone.len().div_ceil(3)).enumerate() {
        let running = server.take().unwrap();
        removed.extend(sought(&home.data(), part));
        let removals = part
            .iter()
            .map(|(user, totp, _)| Task::Remove(user.to_string(), totp.to_string()));
        let mut tasks: Vec<_> = removals.collect();
        let others = users.iter().skip(round).step_by(3);
        tasks.extend(others.map(|it| Task::Enrol(it.clone())));
        random.shuffle(&mut tasks);
        run(&running.address, &token, &tasks);
        let wal = fs::metadata(home.data().join("totpd.db-wal")).map_or(0, |it| it.len());
        let how = match round {
            0 => {
                assert_eq!(running.terminate().0, 0);
                "SIGTERM"
            }
            1 => {
                running.kill();
                server = Some(home.serve(&[]));
                "SIGKILL and the next start"
            }
            _ => {
                let wal = home.data().join("totpd.db-wal");
                wait::until_within(Duration::from_mins(1), "an empty WAL", || {
                    fs::metadata(&wal).map_or(0, |it| it.len()) == 0
                });
                server = Some(running);
                "a rest"
            }
        };
        let begun = Instant::now();
        let found = search(&home.data(), &key, &removed);
        println!(
            "{how} (WAL of {} KiB before): {} removed; {found:?} in {:.1} s",
            wal >> 10,
            removed.len(),
            begun.elapsed().as_secs_f64()
        );
        assert!(found.is_nothing(), "{how}: {found:?}");
        server = server.or_else(|| Some(home.serve(&[])));
    }
    let found = search(&home.data(), &key, &left);
    assert_eq!(
        (found.opened, found.vouched_for),
        (left.len(), left.len()),
        "the search finds what is there"
    );
    assert_eq!(server.unwrap().terminate().0, 0);
    home.json(&["doctor"]);
}

enum Task {
    Create(String),
    Enrol(String),
    Confirm(String, String, Vec<u8>),
    Remove(String, String),
}

/// Runs all tasks over 16 connections and returns the started enrolments. Each connection takes the next task.
fn run(address: &str, token: &str, tasks: &[Task]) -> Vec<Begun> {
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (next, begun) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                let mut ask = |method: &str, path: &str, body: &str| {
                    let target = format!("/resources/v3alpha/users{path}");
                    client.ask(method, &target, &bearer, body.as_bytes())
                };
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match task {
                        Task::Create(user) => {
                            let body = format!(r#"{{"userId":"{user}"}}"#);
                            ask("POST", "", &body).expect_status(201);
                        }
                        Task::Enrol(user) => {
                            let answer =
                                ask("POST", &format!("/{user}/totp"), "").expect_status(200);
                            let secret = answer.text("/secret");
                            let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
                            let id = answer.text("/totpId").parse().unwrap();
                            begun
                                .lock()
                                .unwrap()
                                .push((user.parse().unwrap(), id, secret));
                        }
                        Task::Confirm(user, totp, secret) => {
                            let body = format!("\"{}\"", present_code(secret, now()));
                            let path = format!("/{user}/totp/{totp}/_verify");
                            ask("POST", &path, &body).expect_status(200);
                        }
                        Task::Remove(user, totp) => {
                            ask("DELETE", &format!("/{user}/totp/{totp}"), "").expect_status(200);
                        }
                    }
                }
            });
        }
    });
    begun.into_inner().unwrap()
}

#[test]
fn a_secret_that_belongs_to_nobody_is_found_by_the_doctor_and_ended_by_a_restore() {
    let (home, _) = Home::init();
    enrolled(&home);
    let sql = |sql: &str| {
        let database = Connection::open(home.data().join("totpd.db")).unwrap();
        database.execute_batch(sql).unwrap();
    };
    let wrong = || {
        let output = home.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    sql("INSERT INTO slot SELECT number + 1, secret FROM slot");
    let told = wrong();
    assert!(
        told.contains("1 secrets belong to no authenticator"),
        "{told}"
    );
    let backup = |name: &str| home.dir.path().join(name).to_str().unwrap().to_owned();
    let (stray, shared) = (backup("stray"), backup("shared"));
    home.json(&["backup", &stray]);
    home.json(&["restore", &stray, "--force"]);
    home.json(&["doctor"]);

    sql(
        "CREATE TEMP TABLE other AS SELECT * FROM totp; UPDATE other SET id = 'x'; INSERT INTO totp SELECT * FROM other",
    );
    home.json(&["backup", &shared]);
    home.refuses(&["restore", &shared, "--force"], 1, "share a slot");
    let told = wrong();
    assert!(
        told.contains("do not open") || told.contains("share a slot"),
        "{told}"
    );
}
