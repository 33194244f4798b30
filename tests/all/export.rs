//! An export contains everything that an import reads back, and is written only where the operator asks for it.
//! SECURITY.md 40.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::Home;
use crate::import::{App, S20, app, expect_next_is_good, fixture, id_of, import, step_now};
use crate::wait;

const FORMATS: [&str; 4] = ["otpauth", "csv", "json", "zitadel"];

/// An instance with every kind of user.
fn furnished() -> (Home, String) {
    let (home, token) = Home::init();
    import(&home, &[&fixture("keycloak-realm.json")]);
    import(&home, &[&fixture("pyotp.txt")]);
    home.json(&["user", "create", "no authenticator", "--id", "none"]);
    home.json(&["user", "lock", "carol"]);
    home.json(&["totp", "start", "no authenticator"]);
    (home, token)
}

fn file(home: &Home, name: &str) -> String {
    home.dir.path().join(name).to_str().unwrap().to_owned()
}

fn export(home: &Home, format: &str, more: &[&str]) -> String {
    let path = file(home, format);
    let args = [&["export", "--format", format, "--output", &path], more].concat();
    home.json(&args);
    path
}

const fn bob() -> App {
    App {
        hash: "SHA256",
        digits: 8,
        period: 60,
        ..app(
            "bob",
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA",
        )
    }
}

#[test]
fn what_was_exported_goes_into_a_new_instance_and_the_same_codes_are_good() {
    let (old, _) = furnished();
    for format in FORMATS {
        println!("{format}");
        let path = export(&old, format, &[]);
        let (new, token) = Home::init();
        let server = new.serve(&[]);
        let apps = [app("alice", S20), app("alice@example.com", S20), bob()];
        let before = apps.each_ref().map(step_now);
        let (status, told) = import(&new, &[&path]);
        let after = apps.each_ref().map(step_now);
        assert_eq!(status, Some(0), "{told}");
        // ZITADEL accepts one authenticator per user, with SHA-1, 6 digits and 30 s.
        let fit = if format == "zitadel" { 3 } else { 6 };
        assert_eq!(told["imported"], fit, "{told}");
        for (app, steps) in apps.iter().zip(before.into_iter().zip(after)) {
            if format == "zitadel" && app.user == "bob" {
                continue;
            }
            let id = id_of(&new, app.user);
            if format == "json" && app.user == "bob" {
                // Bob is inactive in the export.
                new.json(&["user", "activate", "bob"]);
            }
            expect_next_is_good(&server, &token, &id, app, steps);
        }
        if format != "otpauth" {
            assert_eq!(id_of(&new, "alice"), id_of(&old, "alice"), "ids stay");
        }
    }
}

#[test]
fn totpds_own_format_keeps_states_names_dates_and_data() {
    let (old, _) = furnished();
    let path = export(&old, "json", &[]);
    let text = fs::read_to_string(&path).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["users"].as_array().unwrap().len(),
        5,
        "one JSON document"
    );
    assert_eq!(text.lines().count(), 7, "and a user on each line");

    let (new, _) = Home::init();
    let (status, told) = import(&new, &[&path]);
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(told["usersCreated"], 5);
    for user in ["alice", "bob", "carol", "no authenticator"] {
        let shown = |home: &Home| {
            let mut user = home.json(&["user", "show", user])["user"].take();
            user["details"].take();
            for username in user["authenticators"]["usernames"].as_array_mut().unwrap() {
                username["usernameId"].take();
            }
            let totps = user.pointer_mut("/authenticators/totps");
            if let Some(totps) = totps.and_then(Value::as_array_mut) {
                totps.retain(|it| it["isVerified"] == true);
                for totp in totps {
                    totp["totpId"].take();
                }
            }
            if user.pointer("/authenticators/totps/0").is_none() {
                let authenticators = user["authenticators"].as_object_mut().unwrap();
                authenticators.remove("totps");
            }
            user
        };
        assert_eq!(shown(&new), shown(&old));
        let dates = |home: &Home| -> Vec<Value> {
            let totps = home.json(&["totp", "list", user]);
            let confirmed = totps
                .as_array()
                .unwrap()
                .iter()
                .filter(|it| it["isVerified"] == true);
            confirmed.map(|it| it["created"].clone()).collect()
        };
        assert_eq!(dates(&new), dates(&old));
    }
    let carol_of = |home: &Home| home.json(&["user", "show", "carol"])["user"]["state"].clone();
    assert_eq!(
        carol_of(&new),
        "USER_STATE_LOCKED",
        "a locked user stays locked"
    );
    let (_, again) = import(&new, &[&path]);
    assert_eq!(
        (&again["imported"], &again["usersCreated"]),
        (&0.into(), &0.into()),
        "{again}"
    );
}

#[test]
fn the_body_for_zitadel_has_one_authenticator_of_each_user_and_the_rest_is_told() {
    let (home, _) = furnished();
    import(
        &home,
        &[&fixture("zitadel-export.json"), "--org", &{
            let made = home.json(&["org", "create", "Other"]);
            made["id"].as_str().unwrap().to_owned()
        }],
    );
    let path = file(&home, "body");
    let output = home.run(&["export", "--format", "zitadel", "--output", &path]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("left out of user").count(), 3, "{said}");
    assert!(!said.contains("GEZD"), "{said}");
    let body: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let orgs = body["dataOrgs"]["orgs"].as_array().unwrap();
    assert_eq!(orgs.len(), 2);
    assert_eq!(orgs[1]["org"]["name"], "Other");
    let bob = &orgs[1]["humanUsers"][1];
    assert_eq!(bob["state"], "USER_STATE_LOCKED");
    assert_eq!(bob["user"]["profile"]["lastName"], "Baker");
    assert_eq!(bob["user"]["email"]["email"], "bob@example.com");
    assert_eq!(bob["user"]["email"]["isEmailVerified"], true);
    for user in orgs
        .iter()
        .flat_map(|it| it["humanUsers"].as_array().unwrap())
    {
        let email = user["user"]["email"]["email"].as_str().unwrap();
        assert!(email.contains('@'), "{email}");
    }
    let of_first = export(
        &home,
        "json",
        &["--org", orgs[0]["orgId"].as_str().unwrap()],
    );
    assert!(!fs::read_to_string(of_first).unwrap().contains("Baker"));
}

/// SECURITY.md 40
#[test]
fn an_export_goes_to_a_new_private_file_or_a_pipe_and_leaves_an_event() {
    let (home, _) = furnished();
    let events = || -> usize {
        let events = home.json(&["event", "list", "--kind", "totp.exported"]);
        events.as_array().unwrap().len()
    };
    let path = export(&home, "json", &[]);
    assert_eq!(events(), 1);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    home.refuses(
        &["export", "--format", "csv", "--output", &path],
        1,
        "there already",
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    let link = home.dir.path().join("link");
    std::os::unix::fs::symlink(home.dir.path().join("elsewhere"), &link).unwrap();
    let link = link.to_str().unwrap();
    home.refuses(
        &["export", "--format", "csv", "--output", link],
        1,
        "there already",
    );
    home.refuses(
        &["export", "--format", "csv", "--output", "/dev/tty"],
        1,
        "there already",
    );
    home.refuses(
        &["export", "--format", "csv", "--output", "/nowhere/file"],
        1,
        "cannot be written",
    );
    assert_eq!(events(), 1, "what is refused leaves none");
    let unknown = file(&home, "unknown");
    let args = [
        "export", "--format", "csv", "--org", "1", "--output", &unknown,
    ];
    home.refuses(&args, 1, "organization not found");
    assert!(!Path::new(&unknown).exists(), "no part of a file is left");

    let output = home.run(&["export", "--format", "otpauth", "--output", "-"]);
    let (text, said) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(text.lines().count(), 6);
    assert!(
        text.lines()
            .all(|it| it.starts_with("otpauth://totp/Test:")),
        "{text}"
    );
    assert!(
        said.contains("warning: the export holds every secret in clear"),
        "{said}"
    );
    assert_eq!(events(), 2);

    // A file opened by the shell may be readable by others.
    let redirected = fs::File::create(file(&home, "redirected")).unwrap();
    let mut command = home.command(&["export", "--format", "otpauth", "--output", "-"]);
    let status = command.stdout(redirected).stderr(Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(1));
    assert_eq!(fs::read(file(&home, "redirected")).unwrap(), b"");

    // A terminal is refused too.
    let totpd = format!(
        "{} export --format otpauth --output -",
        env!("CARGO_BIN_EXE_totpd")
    );
    let typescript = file(&home, "typescript");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &totpd, &typescript]);
    script
        .env("TOTPD_DATA_DIR", home.data())
        .stdin(Stdio::null());
    let shown = wait::output(&mut script);
    let said = String::from_utf8_lossy(&shown.stdout);
    assert!(said.contains("stdout is no pipe"), "{said}");
    assert!(!said.contains("otpauth://"), "{said}");
    assert_eq!(events(), 2);
}
