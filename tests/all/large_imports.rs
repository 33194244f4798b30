//! Imports of many rows: killed in progress, while checks run, and their use of memory.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;

use crate::binary::Home;
use crate::import::{S20, app, code_of, import, step_now, write};
use crate::wait;

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    const ROWS: usize = 4_000;
    let (home, _) = Home::init();
    let mut table = "user,secret\n".to_owned();
    for it in 0..ROWS {
        table.push_str(&format!(
            "u{it},{}\n",
            BASE32_NOPAD.encode(format!("a secret of twenty {it:5}").as_bytes())
        ));
    }
    let file = write(&home, "table", table);
    let database = home.data().join("totpd.db");
    let count = |sql: &str| -> usize {
        let database = rusqlite::Connection::open(&database).unwrap();
        let count: i64 = database.query_row(sql, (), |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    };
    let mut first = home
        .command(&["import", &file])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("some rows are there", || {
        count("SELECT count(*) FROM totp") > 300
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let done = count("SELECT count(*) FROM totp");
    assert!(done < ROWS, "it was killed in the middle");
    assert_eq!(
        count("SELECT count(*) FROM user"),
        done,
        "no row is half there"
    );
    let (status, told) = import(&home, &[&file]);
    assert_eq!(status, Some(0));
    assert_eq!(told["imported"], ROWS - done);
    assert_eq!(told["alreadyThere"], done);
    assert_eq!(count("SELECT count(*) FROM totp"), ROWS);
    assert_eq!(
        count("SELECT count(*) FROM event WHERE kind = 'totp.imported'"),
        ROWS
    );
    assert_eq!(count("SELECT count(*) FROM confirmed_totp"), ROWS);
}

/// A table of `rows` rows, each for a different user.
fn large_table(home: &Home, rows: usize) -> String {
    let path: PathBuf = home.dir.path().join("large.csv");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    writeln!(file, "username,secret").unwrap();
    for it in 0..rows {
        let secret = BASE32_NOPAD.encode(format!("secret {it:013}").as_bytes());
        writeln!(file, "user{it},{secret}").unwrap();
    }
    file.flush().unwrap();
    path.to_str().unwrap().to_owned()
}

/// `cargo test --release --test all large_imports::a_hundred_thousand -- --ignored --nocapture`
#[test]
#[ignore = "it measures, with a release build and nothing else running"]
fn a_hundred_thousand_rows_hold_up_no_check() {
    const CALLERS: usize = 3_000;
    let (home, token) = Home::init();
    let secret = |it: usize| BASE32_NOPAD.encode(format!("caller {it:013}").as_bytes());
    let rows: Vec<String> = (0..CALLERS)
        .map(|it| format!("c{it},caller{it},{}\n", secret(it)))
        .collect();
    let table = format!("user_id,username,secret\n{}", rows.concat());
    import(&home, &[&write(&home, "callers", table)]);
    let file = large_table(&home, 100_000);
    let server = home.serve(&[]);
    let mut client = crate::harness::Client::connect(&server.address);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let begun = Instant::now();
    let mut running = home
        .command(&["import", &file])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut took, mut good) = (Vec::new(), 0);
    while running.try_wait().unwrap().is_none() {
        let caller = took.len() % CALLERS;
        let (secret, plain) = (secret(caller), app("", S20));
        let next = code_of(&secret, &plain, step_now(&plain) + 1);
        let target = format!("/resources/v3alpha/users/c{caller}/totp/_check");
        let asked = Instant::now();
        let answer = client.ask("POST", &target, &bearer, format!("\"{next}\"").as_bytes());
        took.push(asked.elapsed());
        good += u32::from(answer.status == 200);
        // This is the pace of the checks. Nothing waits for it.
        thread::sleep(Duration::from_millis(10));
    }
    let whole = begun.elapsed();
    assert!(running.wait().unwrap().success());
    took.sort();
    let slowest = took[took.len() - 1];
    println!(
        "100,000 rows in {whole:?}; {} checks beside it, {good} of them good: median {:?}, slowest {slowest:?}",
        took.len(),
        took[took.len() / 2]
    );
    assert!(whole <= Duration::from_secs(30), "{whole:?}");
    assert!(slowest <= Duration::from_millis(250), "{slowest:?}");
}

/// The peak memory of a command, in KiB.
fn peak_kib(home: &Home, args: &[&str]) -> u64 {
    let mut running = home.command(args).stdout(Stdio::null()).spawn().unwrap();
    let path = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    while running.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
        let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        thread::sleep(Duration::from_millis(1));
    }
    assert!(running.wait().unwrap().success());
    peak
}

/// `cargo test --release --test all large_imports::a_million -- --ignored --nocapture`
#[test]
#[ignore = "it takes minutes"]
fn a_million_rows_take_64_mib_more_at_most() {
    let (home, _) = Home::init();
    let one = write(&home, "one", format!("user,secret\ncaller,{S20}\n"));
    let file = large_table(&home, 1_000_000);
    let idle = peak_kib(&home, &["import", &one]);
    for args in [&["import", "--dry-run", &file][..], &["import", &file]] {
        let peak = peak_kib(&home, args);
        println!("{args:?}: {peak} KiB, of which {idle} KiB for one row");
        assert!(
            peak <= idle + (64 << 10),
            "{peak} KiB, of which {idle} KiB for one row"
        );
    }
}
