//! The owners and modes of the files that totpd opens. SECURITY.md 26.
//!
//! Tests that need files of another owner run only as root. Otherwise they print a message and are skipped.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::binary::Home;

const NOBODY: u32 = 65_534;
/// A group without members.
const GROUP: u32 = 47_110;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can give files to others");
    }
    is_root
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[&**out, err].concat()).into_owned()
}

/// Asserts that every command refuses the directory, and that `doctor` reports the same.
#[track_caller]
fn is_refused(home: &Home, told: &str) {
    home.refuses(&["user", "list"], 1, told);
    home.refuses(&["serve", "--listen", "127.0.0.1:0"], 1, told);
    let examined = home.run(&["doctor"]);
    assert_eq!(examined.status.code(), Some(1), "{}", text(&examined));
    let examined = text(&examined);
    assert!(
        examined
            .lines()
            .any(|it| it.starts_with("wrong files") && it.contains(told)),
        "{examined}"
    );
}

/// The binary in a directory where any user can run it. Runs it as another user and with other groups.
struct Elsewhere {
    dir: tempfile::TempDir,
    binary: PathBuf,
}

impl Elsewhere {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o755);
        let binary = dir.path().join("totpd");
        fs::copy(env!("CARGO_BIN_EXE_totpd"), &binary).unwrap();
        chmod(&binary, 0o755);
        Self { dir, binary }
    }

    /// Runs it as the user `nobody`, in its own group and in [`GROUP`].
    fn run(&self, data: &Path, args: &[&str]) -> Output {
        let ids = ["--reuid", "65534", "--regid", "65534", "--groups"];
        let mut command = Command::new("setpriv");
        command.args(ids).arg(GROUP.to_string()).arg(&self.binary);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.arg("--data-dir").arg(data).args(args);
        crate::wait::output(command.stdin(Stdio::null()))
    }
}

#[test]
fn what_others_can_reach_is_not_opened() {
    for (name, modes, right) in [
        ("totpd.db", [0o644, 0o602, 0o601], 0o600),
        ("master.key", [0o644, 0o604, 0o602], 0o600),
        ("lock", [0o644, 0o666, 0o602], 0o600),
        ("", [0o755, 0o701, 0o1777], 0o700),
    ] {
        let (home, _) = Home::init();
        let path = home.data().join(name);
        for wrong in modes {
            chmod(&path, wrong);
            is_refused(&home, "others can reach it");
            assert_eq!(mode(&path), wrong, "it is told and not changed");
        }
        chmod(&path, right);
        home.json(&["user", "list"]);
    }
}

#[test]
fn a_directory_that_others_can_put_another_in_the_place_of_is_not_opened() {
    let (home, _) = Home::init();
    let above = home.dir.path();
    for wrong in [0o777, 0o703, 0o772] {
        chmod(above, wrong);
        is_refused(&home, "chmod +t");
        chmod(above, wrong | 0o1000);
        home.json(&["user", "list"]);
    }
    chmod(above, 0o777);
    let below = above.join("new/deep");
    let made = home.run(&["init", "--data-dir", below.to_str().unwrap()]);
    assert!(text(&made).contains("chmod +t"), "{}", text(&made));
    assert!(!below.exists());

    // The target of a symbolic link is checked, not only the link.
    chmod(above, 0o700);
    let safe = tempfile::tempdir().unwrap();
    let link = safe.path().join("link");
    std::os::unix::fs::symlink(home.data(), &link).unwrap();
    let list = ["user", "list", "--data-dir", link.to_str().unwrap()];
    home.json(&list);
    chmod(above, 0o777);
    home.refuses(&list, 1, "chmod +t");
}

/// As containers mount volumes and keys.
#[test]
fn what_a_group_of_the_process_can_reach_is_taken_with_a_warning() {
    let (home, _) = Home::init();
    let said = |args: &[&str]| {
        let output = home.run(args);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(said(&["user", "list"]), "");
    for (name, shared) in [
        ("master.key", 0o440),
        ("master.key", 0o660),
        ("totpd.db", 0o660),
        ("", 0o2770),
    ] {
        let path = if name.is_empty() {
            home.data()
        } else {
            home.data().join(name)
        };
        let before = mode(&path);
        chmod(&path, shared);
        let warning = said(&["user", "list"]);
        assert_eq!(warning.lines().count(), 1, "{warning}");
        assert!(warning.contains("a group can reach"), "{warning}");
        assert!(warning.contains(path.to_str().unwrap()), "{warning}");
        let found = home.json(&["doctor"]);
        let files = &found.as_array().unwrap()[0];
        assert_eq!(files["check"], "files");
        assert_eq!(files["level"], "warn", "{files}");
        chmod(&path, before);
        // SQLite gives these files the mode of the database, and a process may exit without removing them.
        for beside in ["totpd.db-wal", "totpd.db-shm"].map(|it| home.data().join(it)) {
            if beside.exists() {
                chmod(&beside, 0o600);
            }
        }
    }
    assert_eq!(said(&["user", "list"]), "");
}

#[test]
fn what_belongs_to_another_user_is_not_taken() {
    if !is_root() {
        return;
    }
    // Refused before anything is created: the owner of the directory could replace the database and the key.
    let dir = tempfile::tempdir().unwrap();
    let home = Home { dir };
    fs::create_dir(home.data()).unwrap();
    chown(home.data(), Some(NOBODY), None).unwrap();
    chmod(&home.data(), 0o755);
    home.refuses(&["init"], 1, "belongs to user 65534");
    home.refuses(&["serve", "--init"], 1, "belongs to user 65534");
    home.refuses(&["restore", "/etc/hostname"], 1, "belongs to user 65534");
    assert_eq!(mode(&home.data()), 0o755, "nothing was changed");
    assert_eq!(fs::read_dir(home.data()).unwrap().count(), 0);

    for name in ["", "totpd.db", "master.key", "lock", "totpd.db-wal"] {
        let (home, _) = Home::init();
        let path = home.data().join(name);
        let make = || {
            if !path.exists() {
                fs::write(&path, "").unwrap();
                chmod(&path, 0o600);
            }
        };
        make();
        chown(&path, Some(NOBODY), None).unwrap();
        is_refused(&home, "belongs to user 65534");
        chown(&path, Some(0), Some(GROUP)).unwrap();
        home.json(&["user", "list"]);
        make();
        chown(&path, Some(0), Some(GROUP)).unwrap();
        chmod(&path, 0o750);
        is_refused(&home, "not in that group");
    }
}

/// A volume as Kubernetes' fsGroup sets it up.
#[test]
fn a_volume_of_a_group_that_the_process_is_in_is_taken_or_a_way_out_is_named() {
    if !is_root() {
        return;
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("skipped: there is no setpriv");
        return;
    }
    let elsewhere = Elsewhere::new();
    let volume = elsewhere.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    chown(&volume, Some(0), Some(GROUP)).unwrap();
    chmod(&volume, 0o2775);
    let refused = elsewhere.run(&volume, &["init"]);
    assert_eq!(refused.status.code(), Some(1));
    let below = volume.join("totpd");
    let hint = format!("--data-dir {}", below.display());
    assert!(text(&refused).contains(&hint), "{}", text(&refused));
    let made = elsewhere.run(&below, &["init"]);
    assert!(made.status.success(), "{}", text(&made));
    assert_eq!(mode(&below) & 0o777, 0o700);

    // Where others can replace the directory, the hint would be wrong.
    chmod(&volume, 0o2777);
    let refused = text(&elsewhere.run(&volume, &["init"]));
    assert!(!refused.contains("--data-dir"), "{refused}");

    // A volume closed to others is accepted unchanged. At the second start the files belong to the group too.
    let volume = elsewhere.dir.path().join("closed");
    fs::create_dir(&volume).unwrap();
    chown(&volume, Some(0), Some(GROUP)).unwrap();
    chmod(&volume, 0o2770);
    let made = elsewhere.run(&volume, &["init"]);
    assert!(made.status.success(), "{}", text(&made));
    assert_eq!(mode(&volume), 0o2770);
    for name in ["totpd.db", "master.key", "lock"] {
        let file = volume.join(name);
        assert_eq!(fs::metadata(&file).unwrap().gid(), GROUP);
        chmod(&file, 0o660);
    }
    let listed = elsewhere.run(&volume, &["user", "list"]);
    assert!(listed.status.success(), "{}", text(&listed));
    assert!(text(&listed).contains("a group can reach"));
    let examined = elsewhere.run(&volume, &["doctor"]);
    assert!(examined.status.success(), "{}", text(&examined));
    assert!(text(&examined).contains("warn  files"));
}

/// Opening a FIFO blocks until its other end is open. No command may do that, with or without holding the lock.
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let (home, _) = Home::init();
    let fifo = |path: &Path| {
        let mut made = Command::new("mkfifo");
        made.args(["-m", "600"]).arg(path);
        assert!(made.status().unwrap().success());
    };
    let refuses = |args: &[&str]| {
        let mut command = Command::new("timeout");
        command
            .arg("20")
            .arg(env!("CARGO_BIN_EXE_totpd"))
            .args(args);
        let output = command.arg("--data-dir").arg(home.data()).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output));
        let told = text(&output);
        assert!(told.contains("not a regular file"), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    };
    let other = home.dir.path().join("fifo");
    fifo(&other);
    let fifo_name = other.to_str().unwrap();
    let directory = home.dir.path().to_str().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let cert = home.dir.path().join("cert");
    fs::write(&cert, "").unwrap();
    let cert = cert.to_str().unwrap();
    refuses(&["restore", fifo_name, "--force"]);
    refuses(&["restore", directory, "--force"]);
    refuses(&["restore", "/dev/zero", "--force"]);
    refuses(&["user", "list", "--master-key", fifo_name]);
    refuses(&[&serve[..], &["--tls-cert", fifo_name, "--tls-key", cert]].concat());
    for name in ["totpd.db", "master.key", "lock", "totpd.db-wal"] {
        let path = home.data().join(name);
        let aside = home.dir.path().join("aside");
        let is_there = fs::rename(&path, &aside).is_ok();
        fifo(&path);
        refuses(&["user", "list"]);
        refuses(&serve);
        fs::remove_file(&path).unwrap();
        if is_there {
            fs::rename(&aside, &path).unwrap();
        }
    }
    // A link to a regular file counts as a regular file.
    let (path, moved) = (home.data().join("totpd.db"), home.dir.path().join("moved"));
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    home.json(&["user", "list"]);
    chmod(&moved, 0o644);
    is_refused(&home, "others can reach it");

    fs::remove_file(&path).unwrap();
    fifo(&path);
    is_refused(&home, "not a regular file");
}

#[test]
fn a_tls_key_is_judged_as_the_master_key_is() {
    let (home, _) = Home::init();
    let made = rcgen::generate_simple_self_signed(["totpd.test".to_owned()]).unwrap();
    let (cert, key) = (home.dir.path().join("cert"), home.dir.path().join("key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key_name) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--tls-cert", cert];
    let serve = [&serve[..], &["--tls-key", key_name]].concat();
    let said_at_start = || {
        let mut command = home.command(&serve);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let _stopped = child.kill();
        let said = text(&child.wait_with_output().unwrap());
        assert!(first.starts_with("listening on https://"), "{first}{said}");
        said
    };
    chmod(&key, 0o644);
    home.refuses(&serve, 1, "others can reach it");
    chmod(&key, 0o640);
    let told = said_at_start();
    assert!(told.contains("a group can reach"), "{told}");
    if is_root() {
        chown(&key, Some(0), Some(GROUP)).unwrap();
        home.refuses(&serve, 1, "not in that group");
        chown(&key, Some(NOBODY), Some(0)).unwrap();
        home.refuses(&serve, 1, "belongs to user 65534");
    }
}
