//! Exports of other programs are imported, and their codes are accepted from the next step on. SECURITY.md 24 and 39.
//!
//! `tests/fixtures/import/README.md` says how each file was made.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use data_encoding::BASE32_NOPAD;
use ring::hmac;
use serde_json::Value;

use crate::binary::{Home, Server, now};

/// The secret of RFC 6238, and longer ones of the same pattern.
pub const S20: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const S32: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA";
const S64: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNA";
/// `12345678901234567890` reversed.
const BACKWARDS: &str = "GA4TQNZWGU2DGMRRGA4TQNZWGU2DGMRR";
/// `abcdefghijabcdefghij`
const ABC: &str = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK";

/// An authenticator as an app holds it.
#[derive(Debug, Clone, Copy)]
pub struct App {
    pub user: &'static str,
    pub secret: &'static str,
    pub hash: &'static str,
    pub digits: usize,
    pub period: i64,
}

pub const fn app(user: &'static str, secret: &'static str) -> App {
    App {
        user,
        secret,
        hash: "SHA1",
        digits: 6,
        period: 30,
    }
}

const fn other(app: App, hash: &'static str, digits: usize, period: i64) -> App {
    App {
        hash,
        digits,
        period,
        ..app
    }
}

/// The code of a step, computed only with HMAC (RFC 4226 §5.3).
pub fn code(app: &App, step: i64) -> String {
    code_of(app.secret, app, step)
}

/// The same with another secret.
pub fn code_of(secret: &str, app: &App, step: i64) -> String {
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let algorithm = match app.hash {
        "SHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "SHA256" => hmac::HMAC_SHA256,
        "SHA512" => hmac::HMAC_SHA512,
        hash => panic!("{hash}"),
    };
    let key = hmac::Key::new(algorithm, &secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let from = usize::from(tag[tag.len() - 1] & 15);
    let number = u32::from_be_bytes(tag[from..from + 4].try_into().unwrap()) & 0x7fff_ffff;
    let code = u64::from(number) % 10_u64.pow(u32::try_from(app.digits).unwrap());
    format!("{code:0width$}", width = app.digits)
}

pub fn step_now(app: &App) -> i64 {
    now().micros() / 1_000_000 / app.period
}

/// Asserts that the codes of `app` up to the step of the import are used up, and that the next one is accepted once.
///
/// `steps` are the steps before and after the import, because a step may end during it.
pub fn expect_next_is_good(
    server: &Server,
    token: &str,
    id: &str,
    app: &App,
    (before, after): (i64, i64),
) {
    let path = format!("/users/{id}/totp/_check");
    let check = |step: i64| {
        let body = format!("\"{}\"", code(app, step));
        server.ask(token, "POST", &path, &body)
    };
    let used = Some("TOTPD-Used1");
    check(before).expect_error(400, 3, used);
    let mut next = before + 1;
    let answer = check(next);
    if answer.status != 200 && after > before {
        answer.expect_error(400, 3, used);
        next = after + 1;
        check(next).expect_status(200);
    } else {
        answer.expect_status(200);
    }
    check(next).expect_error(400, 3, used);
}

pub fn id_of(home: &Home, username: &str) -> String {
    let shown = home.json(&["user", "show", username]);
    shown["user"]["details"]["id"].as_str().unwrap().to_owned()
}

pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    path.join(name).to_str().unwrap().to_owned()
}

/// Imports with `--json`. Any status is allowed.
pub fn import(home: &Home, args: &[&str]) -> (Option<i32>, Value) {
    let output = home.run(&[&["import", "--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {said}"));
    (output.status.code(), told)
}

/// An import file, its content, and how many of its rows are refused.
struct Case {
    file: &'static str,
    args: &'static [&'static str],
    apps: Vec<App>,
    not_taken: i64,
}

fn case(file: &'static str, apps: impl Into<Vec<App>>, not_taken: i64) -> Case {
    Case {
        file,
        args: &[],
        apps: apps.into(),
        not_taken,
    }
}

fn cases() -> Vec<Case> {
    let (alice, bob, carol) = (app("alice", S20), app("bob", S32), app("carol", S64));
    let bob_of_tokens = other(bob, "SHA256", 8, 60);
    let tokens = [alice, bob_of_tokens];
    let zitadel = [alice, app("bob", BACKWARDS)];
    let authelia = [alice, other(app("bob", S64), "SHA512", 8, 60)];
    let mut all = vec![
        case(
            "pyotp.txt",
            [
                app("alice@example.com", S20),
                bob_of_tokens,
                other(carol, "SHA512", 7, 45),
            ],
            1,
        ),
        case(
            "table.csv",
            [alice, other(app("bob", S64), "SHA512", 8, 60)],
            0,
        ),
        case(
            "keycloak-realm.json",
            [alice, other(app("alice", S32), "SHA256", 8, 60)],
            1,
        ),
        case("authelia.yml", authelia, 0),
        case("authelia.csv", authelia, 0),
        case("privacyidea-oath.csv", tokens, 1),
        case("privacyidea-janitor.csv", tokens, 2),
        case("privacyidea-janitor-b32.csv", tokens, 2),
        case("privacyidea-janitor.yaml", tokens, 2),
        case("privacyidea-janitor-b32.yaml", tokens, 2),
        case("pskc.xml", tokens, 1),
        case(
            "users.oath",
            [alice, other(app("bob", ABC), "SHA1", 8, 60)],
            2,
        ),
        case(
            "google-migration.txt",
            [
                alice,
                other(app("bob", S32), "SHA256", 8, 30),
                app("carol", BACKWARDS),
            ],
            2,
        ),
        case("zitadel-export.json", zitadel, 0),
        case("zitadel-import.json", zitadel, 0),
    ];
    all.push(Case {
        args: &["--user", "zoe"],
        ..case(
            "privacyidea-oath-1.csv",
            [app("zoe", S20), app("zoe", ABC)],
            0,
        )
    });
    all.push(Case {
        args: &["--user", "zoe"],
        ..case(
            "google_authenticator",
            [app("zoe", "AY6F64R5PCF3VZVE6ZDWDTCPCE")],
            0,
        )
    });
    all
}

/// SECURITY.md 39
#[test]
fn what_other_programs_export_goes_in_and_its_next_code_is_good() {
    for it in cases() {
        println!("{}", it.file);
        let (home, token) = Home::init();
        let server = home.serve(&[]);
        let file = fixture(it.file);
        let args = [it.args, &[file.as_str()]].concat();
        let (status, told) = import(&home, &[&["--dry-run"], args.as_slice()].concat());
        assert_eq!(told["dryRun"], true);
        let dry = told.clone();
        assert_eq!(
            home.json(&["user", "list"]),
            Value::from(Vec::<Value>::new())
        );

        let before: Vec<i64> = it.apps.iter().map(step_now).collect();
        let (status_of_import, told) = import(&home, &args);
        let after = it.apps.iter().map(step_now);
        let steps: Vec<(i64, i64)> = before.into_iter().zip(after).collect();
        assert_eq!(status, status_of_import);
        for count in ["imported", "usersCreated", "alreadyThere", "notTaken"] {
            assert_eq!(
                told[count], dry[count],
                "the dry run tells what happens: {count}"
            );
        }
        assert_eq!(told["notTaken"], it.not_taken, "{told}");
        assert_eq!(status, Some(i32::from(it.not_taken > 0)), "{told}");
        for (app, steps) in it.apps.iter().zip(steps) {
            println!("  {app:?}");
            let id = id_of(&home, app.user);
            if it.file.starts_with("zitadel") && app.user == "bob" {
                home.json(&["user", "unlock", "bob"]);
            }
            expect_next_is_good(&server, &token, &id, app, steps);
        }
        let (_, again) = import(&home, &args);
        assert_eq!(again["imported"], 0, "{again}");
        assert_eq!(again["alreadyThere"], told["imported"], "{again}");
        assert_eq!(again["notTaken"], it.not_taken, "{again}");
    }
}

#[test]
fn what_else_a_file_says_is_kept() {
    let (home, _) = Home::init();
    import(&home, &[&fixture("keycloak-realm.json")]);
    let totps = home.json(&["totp", "list", "ALICE"]);
    assert_eq!(totps[0]["name"], "Alice's phone");
    assert_eq!(totps[0]["created"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(totps[0]["isVerified"], true);
    assert_eq!(totps[1]["name"], "Tablet");
    let bob = home.json(&["user", "show", "bob"]);
    assert_eq!(
        bob["user"]["state"], "USER_STATE_INACTIVE",
        "as in Keycloak"
    );

    let (home, _) = Home::init();
    import(&home, &[&fixture("zitadel-export.json")]);
    let bob = home.json(&["user", "show", "bob"]);
    assert_eq!(bob["user"]["state"], "USER_STATE_LOCKED");
    assert_eq!(bob["user"]["details"]["id"], "200000000000000002");
    assert_eq!(bob["user"]["data"]["email"], "bob@example.com");
    let kinds = |user: &str| -> Vec<String> {
        let events = home.json(&["event", "list", "--user", user]);
        let events = events.as_array().unwrap().iter();
        events
            .map(|it| it["type"]["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        kinds("bob"),
        ["user.human.added", "user.locked", "totpd.totp.imported"]
    );

    let home_of = |user: &str| {
        let (home, _) = Home::init();
        let dir = home.dir.path().join(user);
        fs::create_dir(&dir).unwrap();
        let file = dir.join(".google_authenticator");
        fs::copy(fixture("google_authenticator"), &file).unwrap();
        let (status, told) = import(&home, &[file.to_str().unwrap()]);
        assert_eq!((status, &told["imported"]), (Some(0), &Value::from(1)));
        home
    };
    id_of(&home_of("yan"), "yan");
}

pub fn write(home: &Home, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = home.dir.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn text_is_read_with_a_mark_with_carriage_returns_and_through_a_pipe() {
    let (home, _) = Home::init();
    let marked = format!("\u{feff}username,secret\r\nalice,{S20}\r\n\r\nbob,{S32}\r\n");
    let (status, told) = import(&home, &[&write(&home, "marked", marked)]);
    assert_eq!(
        (status, &told["imported"]),
        (Some(0), &Value::from(2)),
        "{told}"
    );
    let mut piped = home.command(&["import", "--json", "/dev/stdin"]);
    let mut piped = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let uri = format!("otpauth://totp/carol?secret={S64}\n");
    piped
        .stdin
        .take()
        .unwrap()
        .write_all(uri.as_bytes())
        .unwrap();
    let Output { status, stdout, .. } = piped.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stdout));
    id_of(&home, "carol");
}

#[test]
fn users_are_found_without_regard_to_case_and_never_in_another_organization() {
    let (home, _) = Home::init();
    let other = home.json(&["org", "create", "Other"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    home.json(&["user", "create", "Alice", "--id", "a"]);
    home.json(&["user", "create", "both", "--id", "first"]);
    home.json(&["user", "create", "both", "--id", "second", "--org", &other]);
    home.json(&["user", "create", "theirs", "--id", "t", "--org", &other]);
    home.json(&["user", "create", "a"]);
    let table =
        format!("user,secret\nALICE,{S20}\nboth,{S20}\ntheirs,{S20}\nfirst,{S32}\na,{S20}\n");
    let file = write(&home, "table", table);
    let (_, told) = import(&home, &[&file]);
    assert_eq!(told["usersCreated"], 0, "{told}");
    let reasons: Vec<_> = told["refusals"].as_array().unwrap().iter().collect();
    for (line, reason) in [
        (3, "several organizations"),
        (4, "another organization"),
        (6, "more than one user"),
    ] {
        let at = format!("line {line}");
        let is_told =
            |it: &&&Value| it["at"] == at && it["reason"].as_str().unwrap().contains(reason);
        assert!(reasons.iter().any(|it| is_told(&it)), "{told}");
    }
    assert_eq!(reasons.len(), 3, "{told}");
    assert_eq!(
        home.json(&["totp", "list", "--id", "a"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let of_first = home.json(&["totp", "list", "--id", "first"]);
    assert_eq!(of_first.as_array().unwrap().len(), 1, "found by its id");

    let (_, told) = import(&home, &["--org", &other, &file]);
    assert_eq!(told["notTaken"], 0, "{told}");
    assert_eq!(
        told["usersCreated"], 3,
        "alice, first and a are new there: {told}"
    );

    // A row with a user id means exactly that user.
    let table =
        format!("user_id,user,secret\na,Alice,{S32}\nb,Alice,{S32}\nt,theirs,{S32}\nc,new,{S32}\n");
    let (_, told) = import(&home, &[&write(&home, "ids", table)]);
    assert_eq!(
        (&told["imported"], &told["usersCreated"]),
        (&2.into(), &1.into()),
        "{told}"
    );
    assert_eq!(id_of(&home, "new"), "c");
    let table = format!("user_id,user,organization,secret\nd,d,1,{S32}\ne,e,2,{S32}\n");
    let (_, told) = import(&home, &[&write(&home, "two", table)]);
    assert_eq!(
        (&told["imported"], &told["notTaken"]),
        (&1.into(), &1.into()),
        "{told}"
    );
}

/// SECURITY.md 1, 30: each authenticator exists once, because otherwise its codes would be accepted twice.
#[test]
fn an_authenticator_is_imported_once_and_a_user_has_ten() {
    let (home, token) = Home::init();
    let alice = app("alice", S20);
    // HMAC treats this as the same key, because it pads with zeros.
    let padded = BASE32_NOPAD.encode(b"12345678901234567890\0");
    let mut table = "user,secret,digits\n".to_owned();
    for (user, secret, digits) in [
        ("alice", S20, ""),
        ("ALICE", S20, "6"),
        ("alice", &padded, ""),
        ("alice", S20, "8"),
    ] {
        table.push_str(&format!("{user},{secret},{digits}\n"));
    }
    let before = step_now(&alice);
    let (_, told) = import(&home, &[&write(&home, "twice", table)]);
    let steps = (before, step_now(&alice));
    assert_eq!(
        (&told["imported"], &told["alreadyThere"], &told["notTaken"]),
        (&1.into(), &2.into(), &1.into()),
        "{told}"
    );
    let server = home.serve(&[]);
    expect_next_is_good(&server, &token, &id_of(&home, "alice"), &alice, steps);

    let secret = |it: u8| BASE32_NOPAD.encode(&[it; 20]);
    let rows: Vec<String> = (1..=12)
        .map(|it| format!("alice,{},\n", secret(it)))
        .collect();
    let table = format!("user,secret,digits\n{}", rows.concat());
    let file = write(&home, "many", table);
    let (_, dry) = import(&home, &["--dry-run", &file]);
    home.json(&["totp", "start", "alice"]);
    let (_, told) = import(&home, &[&file]);
    assert_eq!(
        (&told["imported"], &told["notTaken"]),
        (&9.into(), &3.into()),
        "the pending one gave way: {told}"
    );
    assert_eq!(dry["imported"], 9, "{dry}");

    // A secret must not match a pending authenticator's either: after its confirmation both would accept the same
    // code.
    home.json(&["user", "create", "bob"]);
    let started = home.json(&["totp", "start", "bob"]);
    let file = write(
        &home,
        "bob",
        format!("user,secret\nbob,{}\n", started["secret"].as_str().unwrap()),
    );
    let (_, told) = import(&home, &[&file]);
    assert_eq!(told["imported"], 1, "{told}");
    let totps = home.json(&["totp", "list", "bob"]);
    assert_eq!(totps.as_array().unwrap().len(), 1, "{totps}");
    assert_eq!(totps[0]["isVerified"], true);
}

/// The example of docs/import.md runs, and prints what the page says. A second import uses up no code and reports
/// none.
#[test]
fn the_example_of_the_page_prints_what_the_page_says() {
    let page = include_str!("../../docs/import.md");
    let (command, rest) = page
        .split_once("```sh\nprintf '")
        .unwrap()
        .1
        .split_once("' > table.csv")
        .unwrap();
    let told = rest
        .split_once("```text\n")
        .unwrap()
        .1
        .split_once("```")
        .unwrap()
        .0;
    let (home, _) = Home::init();
    let file = write(&home, "table.csv", command.replace("\\n", "\n"));
    let import = || {
        let output = home.run(&["import", &file]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(import(), told);
    let again =
        "authenticators imported: 0; there already: 2; users created: 0; rows not taken: 0\n";
    assert_eq!(import(), again);
}
