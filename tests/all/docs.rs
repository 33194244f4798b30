//! The pages in `docs` are correct.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use totpd::api::status::{Code, Refusal, TransportError};
use totpd::error::{Error, Missing, ProofRefusal, WrongState};

use crate::binary::{Home, enrolled};
use crate::readme::{STATUS, ids};

const ERRORS: &str = include_str!("../../docs/errors.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// A row of `docs/errors.md`: the id, the HTTP status, and the gRPC code as number and name.
pub(crate) type Row = (Option<String>, u16, i32, String);

/// Every refusal that can reach a client.
fn refusals() -> Vec<Refusal> {
    let text = String::new;
    let errors = [
        Error::invalid("field", "problem"),
        Error::NoToken,
        Error::BadToken,
        Error::ExpiredToken(text()),
        Error::Forbidden,
        Error::NotFound(Missing::User),
        Error::NotFound(Missing::UserToRemove),
        Error::NotFound(Missing::UserToLock),
        Error::NotFound(Missing::UserToUnlock),
        Error::NotFound(Missing::UserToDeactivate),
        Error::NotFound(Missing::UserToActivate),
        Error::NotFound(Missing::Totp),
        Error::NotFound(Missing::TotpToCheck),
        Error::NotFound(Missing::Organization),
        Error::WrongState(WrongState::AlreadyConfirmed),
        Error::WrongState(WrongState::NoneConfirmed),
        Error::WrongState(WrongState::UserNotActive),
        Error::WrongState(WrongState::TooManyTotps),
        Error::WrongState(WrongState::NoTotpToRecover),
        Error::WrongState(WrongState::NoRecoveryCodes),
        Error::WrongState(WrongState::ProofNeeded),
        Error::ProofRefused(ProofRefusal::WrongCode {
            begins_wait_s: None,
        }),
        Error::ProofRefused(ProofRefusal::WrongRecoveryCode {
            begins_wait_s: None,
        }),
        Error::ProofRefused(ProofRefusal::Used),
        Error::ProofRefused(ProofRefusal::Wait { retry_after_s: 1 }),
        Error::AlreadyExists("id"),
        Error::TooOften { retry_after_s: 1 },
        Error::SearchTooLong,
        Error::Unavailable(text()),
        Error::Bug(text()),
    ];
    let of_transports = [
        TransportError::BadFraming("why"),
        TransportError::BodyTooLarge,
        TransportError::HeadTooLarge,
        TransportError::AnswerTooLarge,
        TransportError::Compressed,
        TransportError::TooSlow,
        TransportError::DeadlinePassed,
        TransportError::Busy,
        TransportError::Stopping,
        TransportError::CommitFailed,
        TransportError::Bug,
    ];
    let others = [
        Refusal::no_such_path(),
        Refusal::no_page(),
        Refusal::method_not_allowed("GET"),
        Refusal::not_offered(),
        Refusal::wrong_code(None),
        Refusal::used_code(),
        Refusal::wrong_recovery_code(None),
        Refusal::wait(1),
    ];
    let errors = errors.into_iter().map(Refusal::from);
    let of_transports = of_transports.into_iter().map(Refusal::from);
    errors.chain(of_transports).chain(others).collect()
}

/// The name of a gRPC code as the specification writes it: `NotFound` is `NOT_FOUND`.
fn grpc_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The rows of the page's table of refusals.
pub(crate) fn rows() -> Vec<Row> {
    let table = ERRORS.split("|---|---|---|---|---|\n").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, http, grpc, when, what_to_do, _] = cells[..] else {
            panic!("{line}: it has not five cells");
        };
        assert!(!when.is_empty() && !what_to_do.is_empty(), "{line}");
        let (number, name) = grpc.split_once(' ').unwrap();
        let id = Some(id.trim_matches('`').to_owned()).filter(|it| it != "none");
        let name = name.trim_matches('`').to_owned();
        (id, http.parse().unwrap(), number.parse().unwrap(), name)
    };
    table.lines().map(row).collect()
}

#[test]
fn the_page_of_errors_has_every_refusal_with_its_statuses() {
    let row = |it: Refusal| {
        let id = it.id.map(str::to_owned);
        (id, it.http, it.code.number(), grpc_name(it.code))
    };
    let in_code: BTreeSet<Row> = refusals().into_iter().map(row).collect();
    let listed = rows();
    let on_page: BTreeSet<Row> = listed.iter().cloned().collect();
    assert_eq!(on_page.len(), listed.len(), "a row is there twice");
    let missing: Vec<_> = in_code.difference(&on_page).collect();
    assert!(missing.is_empty(), "no row in docs/errors.md: {missing:?}");
    let too_many: Vec<_> = on_page.difference(&in_code).collect();
    assert!(too_many.is_empty(), "no refusal is so: {too_many:?}");
}

/// A new refusal must be added to the list above. The other test compares that list with the page.
#[test]
fn this_test_knows_every_id_and_every_status_of_the_code() {
    let known: BTreeSet<&str> = refusals().iter().filter_map(|it| it.id).collect();
    assert_eq!(known, ids(STATUS));
    let known: BTreeSet<u16> = refusals().iter().map(|it| it.http).collect();
    let numbers = STATUS.split(|it: char| !it.is_ascii_digit());
    let statuses = numbers.filter_map(|it| it.parse().ok());
    let in_code: BTreeSet<u16> = statuses.filter(|it| (400..600).contains(it)).collect();
    assert_eq!(known, in_code);
}

#[test]
fn the_page_of_errors_names_no_other_id() {
    for id in ids(ERRORS) {
        assert!(ids(STATUS).contains(id), "{id} is in no code");
    }
}

/// The HTTP status and the id of each row of a program's table, `"404 COMMAND-Hd9sd"` or `"401"`.
fn outcomes(program: &str) -> Vec<String> {
    let table = program.split("OUTCOMES = ").nth(1).unwrap();
    let table = table.split("\n}").next().unwrap();
    let table = table.split("\n]").next().unwrap();
    let rows = table.lines().filter(|it| it.contains("Outcome."));
    let key = |it: &str| it.split("Outcome.").next().unwrap().to_owned();
    let is_kept = |it: &char| it.is_ascii_alphanumeric() || "- ".contains(*it);
    rows.map(|it| key(it).chars().filter(is_kept).collect::<String>())
        .map(|it| it.trim().trim_end_matches(" None").to_owned())
        .collect()
}

#[test]
fn the_programs_for_applications_know_every_refusal() {
    let row = |(id, http, ..): Row| match id {
        Some(id) => format!("{http} {id}"),
        None => http.to_string(),
    };
    let on_page: BTreeSet<String> = rows().into_iter().map(row).collect();
    for (name, program) in [
        (
            "login.py",
            include_str!("../../examples/integrate/login.py"),
        ),
        (
            "login.mjs",
            include_str!("../../examples/integrate/login.mjs"),
        ),
    ] {
        let known = outcomes(program);
        let set: BTreeSet<String> = known.iter().cloned().collect();
        assert_eq!(known.len(), set.len(), "{name} has a row twice");
        assert_eq!(set, on_page, "{name}");
    }
}

/// The targets of a page's links, except links to other sites.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|it| it.split([')', '#']).next());
    targets.filter(|it| !it.is_empty() && !it.contains("://"))
}

#[test]
fn every_link_of_the_pages_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        pages.extend(Some(path).filter(|it| it.extension().is_some_and(|it| it == "md")));
    }
    let mut found = 0;
    for page in pages {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let target = page.parent().unwrap().join(link);
            assert!(target.exists(), "{}: no {link}", page.display());
            found += 1;
        }
    }
    assert!(found > 30, "{found} were found");
}

/// The block of commands of a page that starts with `begin`.
fn commands<'page>(page: &'page str, begin: &str) -> &'page str {
    let blocks = page.split("```sh\n").skip(1);
    let mut blocks = blocks.map(|it| it.split("```").next().unwrap());
    let found = blocks.find(|it| it.trim_start().starts_with(begin));
    found.unwrap_or_else(|| panic!("no block begins with {begin}"))
}

/// A backup, a test restore, printing the key as text, and typing it in again: pasted twice, into an installation
/// made by hand.
#[test]
fn the_commands_for_backups_can_be_pasted_twice() {
    for tool in ["bash", "base32"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return eprintln!("skipped: `{tool}` is not installed");
        }
    }
    let (home, _) = Home::init();
    enrolled(&home);
    let block = |begin| commands(OPERATIONS, begin);
    let prepare = block("export TOTPD_DATA_DIR");
    let back_up = block("BACKUP=");
    let try_restore = block("install -d -m 700 /dev/shm/try-restore\n( umask 077; cp");
    let print = block("base32 \"$KEY\"");
    let read = block("install -d -m 700 /dev/shm/try-restore\n( umask 077; {");
    let restore = block("command totpd");
    // The key as a person types it: in lower case, with spaces and without padding.
    let typed = "base32 \"$KEY\" | tr A-Z= 'a-z ' | sed 's/..../& /g'";
    let once = format!("{prepare}{back_up}{try_restore}{print}{typed} | {{ {read} }}\n{restore}");
    let dir = home.dir.path().display().to_string();
    // In this test both backups fall into one second, and other tests run at the same time.
    let session = once.replace("/dev/shm/", &format!("{dir}/"));
    let session = ["first", "second"].map(|it| session.replace("%Y%m%dT%H%M%SZ", it));
    let totpd = Path::new(env!("CARGO_BIN_EXE_totpd")).parent().unwrap();
    let output = Command::new("bash")
        .args(["-ec", &session.concat()])
        .current_dir(&dir)
        .env("PATH", format!("{}:/usr/bin:/bin", totpd.display()))
        .env("TOTPD_DATA_DIR", home.data())
        .env("HOME", &dir)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{said}");
    assert_eq!(
        told.matches("secrets     all 1 open").count(),
        4,
        "{told}{said}"
    );
    assert!(!home.dir.path().join("try-restore").exists());
}
