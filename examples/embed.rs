//! totpd inside a program of your own, without any HTTP: enrol, confirm, check, remove.
//!
//! Run it with `cargo run --example embed`; it asserts what it says, and prints nothing if all of it is so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use totpd::error::Result;
use totpd::model::{Name, Timestamp, Window};
use totpd::service::{Caller, DataDir, Expect, KeyFile, NewUser, Settings, Verdict};
use totpd::totp::{Parameters, code_at};

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("totpd-embed-{}", std::process::id()));
    let told = story(&dir);
    // The directory holds a key and a database; a program of yours keeps it.
    let _gone = std::fs::remove_dir_all(&dir);
    told
}

fn story(dir: &std::path::Path) -> Result<()> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or_default());
    let later = now.after(Duration::from_secs(30));

    // Once: a database, a master key and a first organization. Later: `Service::open(DataDir::open(…)?)`.
    let settings = Settings {
        issuer: Name::parse("issuer", "My program")?,
        window: Window::OneEitherSide,
    };
    let (service, _) = DataDir::create(dir, KeyFile::InDataDir, &settings, now)?;

    // Your program is as trusted as the command line. Calls made for a token come from `authenticate`.
    let (caller, anywhere) = (Caller::command_line(), Expect::default());
    let alice = service
        .create_user(&caller, &anywhere, NewUser::default(), now)?
        .id
        .parse()?;

    // Show `enrolment.uri` as a QR code. Here the program plays the authenticator app as well.
    let enrolment = service.start_totp(&caller, &anywhere, &alice, None, now)?;
    let phone = enrolment.details.id.parse()?;
    let code = code_at(&enrolment.secret, Parameters::ENROLLED, now.step())?;
    let confirmed = service.confirm_totp(&caller, &anywhere, &alice, &phone, &code, now)?;
    assert!(
        matches!(confirmed, Verdict::Accepted(_)),
        "the first code confirms"
    );

    // A login. A "no" is a value: look at it, nothing else tells you.
    let code = code_at(&enrolment.secret, Parameters::ENROLLED, later.step())?;
    let check = || service.check_totp(&caller, &anywhere, &alice, None, &code, later);
    assert!(
        matches!(check()?, Verdict::Accepted(_)),
        "a good code is good"
    );
    assert_eq!(check()?, Verdict::Used, "and good once");

    // A lost phone. From the moment this returns no code of it is good.
    service.remove_totp(&caller, &anywhere, &alice, &phone, later)?;
    assert!(check().is_err(), "there is nothing left to check against");
    Ok(())
}

#[test]
fn the_example_runs() {
    main().unwrap();
}
