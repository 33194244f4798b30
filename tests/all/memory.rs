//! Copies of a removed secret in the memory of the real binary.

use std::fs::{self, File};
use std::io::BufRead;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use totpd::model::{Period, Timestamp};
use totpd::totp::{Parameters, Secret, code_at};

use crate::binary::{Home, Server};

/// tiny_http writes answers through a buffer that lives as long as its connection, and the standard library copies
/// them through a buffer on the stack of the thread that responds. totpd can overwrite neither. The answer that shows
/// a secret contains it twice.
const ALLOWED: usize = 4;

/// How often `needle` occurs in the writable memory of the process. `None` if the system does not allow reading it.
fn copies(server: &Server, needle: &[u8]) -> Option<usize> {
    let id = server.child.id();
    let memory = File::open(format!("/proc/{id}/mem")).ok()?;
    let maps = fs::read(format!("/proc/{id}/maps")).ok()?;
    let mut count = 0;
    for line in maps.lines() {
        let line = line.unwrap();
        let mut fields = line.split(' ');
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let address = |it| u64::from_str_radix(it, 16).unwrap();
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // A range may have been unmapped in the meantime.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            count += places(&bytes, needle);
        }
    }
    Some(count)
}

/// How often `needle` occurs in `bytes`. Most pages are empty and are skipped.
fn places(bytes: &[u8], needle: &[u8]) -> usize {
    let page = [0; 4096];
    let filled = bytes
        .chunks(page.len())
        .enumerate()
        .filter(|(_, it)| **it != page[..it.len()]);
    let starts = filled.flat_map(|(number, it)| {
        let start = number * page.len();
        (start..start + it.len()).filter(|at| bytes[*at..].starts_with(needle))
    });
    starts.count()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

/// SECURITY.md 27
#[test]
fn memory_holds_a_removed_secret_at_most_in_the_last_answer_of_a_connection() {
    let (home, admin) = Home::init();
    let server = home.serve(&[]);
    let user = server
        .ask(&admin, "POST", "/users", "{}")
        .expect_status(201)
        .text("/details/id");
    let totps = format!("/users/{user}/totp");
    let started = server.ask(&admin, "POST", &totps, "").expect_status(200);
    let (id, secret) = (started.text("/totpId"), started.text("/secret"));
    let code = code_at(
        &Secret::from_base32(&secret).unwrap(),
        Parameters::ENROLMENT,
        now().step(Period::ENROLMENT),
    );
    let code = format!("\"{}\"", code.unwrap().digits());
    server
        .ask(&admin, "POST", &format!("{totps}/{id}/_verify"), &code)
        .expect_status(200);
    server
        .ask(&admin, "DELETE", &format!("{totps}/{id}"), "")
        .expect_status(200);

    let removed = Instant::now();
    let mut left = copies(&server, secret.as_bytes());
    while left.is_some_and(|it| it > ALLOWED) && removed.elapsed() < Duration::from_secs(10) {
        left = copies(&server, secret.as_bytes());
    }
    match left {
        None => eprintln!("skipped: this system lets nobody look into the memory of a process"),
        Some(left) => assert!(left <= ALLOWED, "{left} copies of the secret are left"),
    }
}

/// SECURITY.md 27: the /proc files of such a process belong to root. Root can read everything, so as root the test
/// runs the binary as the user `nobody`.
#[test]
fn no_other_process_of_the_user_reads_the_memory() {
    const NOBODY: u32 = 65_534;
    let home = Home {
        dir: tempfile::tempdir().unwrap(),
    };
    // Other users may not be able to reach the build directory.
    let binary = home.dir.path().join("totpd");
    fs::copy(env!("CARGO_BIN_EXE_totpd"), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        for path in [home.dir.path(), &binary] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let command = |args: &[&str]| {
        let mut command = Command::new(&binary);
        command.env_clear().env("TOTPD_DATA_DIR", home.data());
        command.args(args).stdin(Stdio::null());
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let made = crate::wait::output(&mut command(&["init"]));
    assert!(made.status.success(), "{made:?}");
    let server = Server::start(command(&["serve", "--listen", "127.0.0.1:0"]));
    let memory = format!("/proc/{}/mem", server.child.id());
    assert_eq!(fs::metadata(memory).unwrap().uid(), 0);
    server.kill();
}
