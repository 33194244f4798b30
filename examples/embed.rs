//! totpd as a library, without HTTP: enrol, confirm, check, remove.
//!
//! `cargo run --example embed` prints what happens. `cargo run --example embed --no-default-features` builds it without
//! the server and the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use totpd::error::{Error, Result};
use totpd::model::{Code, Name, Period, Timestamp, UserId, Window};
use totpd::service::{Context, DataDir, KeyFile, NewUser, Service, Settings, Verdict};
use totpd::totp::{Parameters, code_at};

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("totpd-embed-{}", std::process::id()));
    let told = story(&dir);
    // The directory holds a key and a database; a program of yours keeps it.
    let _gone = std::fs::remove_dir_all(&dir);
    told
}

/// What a login form calls. A refused code is a value and not an error, so that it is counted: only `Accepted` lets the
/// user in.
fn may_log_in(service: &Service, now: Timestamp, user: &UserId, code: &Code) -> Result<bool> {
    // Your program is as trusted as the command line. Use `Caller::of_token` to call on behalf of a token's holder.
    let context = Context::command_line(now);
    match service.check_totp(&context, user.clone(), None, code.clone()) {
        Ok(Verdict::Accepted(_)) => {
            say("the code is good, and used up");
            Ok(true)
        }
        Ok(Verdict::Wrong { .. }) => {
            say("the code is wrong, and counted");
            Ok(false)
        }
        Ok(Verdict::Used) => {
            say("the code was used before: wait for the next one");
            Ok(false)
        }
        Ok(Verdict::Wait { retry_after_s }) => {
            say(&format!("too many wrong codes: wait {retry_after_s} s"));
            Ok(false)
        }
        // There is nothing to check against, or the user is locked.
        Err(Error::NotFound(_) | Error::WrongState(_)) => {
            say("there is no authenticator to check against");
            Ok(false)
        }
        Err(error) => Err(error),
    }
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
        checkpoints: totpd::model::Checkpointer::Own,
        self_removal: totpd::model::SelfRemoval::Allow,
    };
    let (service, _) = DataDir::create(dir, KeyFile::InDataDir, &settings, now)?;
    let context = Context::command_line(now);
    let made = service.create_user(&context, NewUser::default())?;
    let alice: UserId = made.id.parse()?;
    say(&format!("made user {alice}"));

    // Show `enrolment.uri` as a QR code. Here the program plays the authenticator app as well.
    let enrolment = service.start_totp(&context, alice.clone(), None)?;
    let phone = enrolment.details.id.parse()?;
    let code_of = |it: Timestamp| {
        code_at(
            &enrolment.secret,
            Parameters::ENROLMENT,
            it.step(Period::ENROLMENT),
        )
    };
    match service.confirm_totp(&context, alice.clone(), phone, code_of(now)?)? {
        Verdict::Accepted(details) => say(&format!("confirmed authenticator {}", details.id)),
        refused @ (Verdict::Wrong { .. } | Verdict::Used | Verdict::Wait { .. }) => {
            return Err(Error::invalid(
                "code",
                format!("not confirmed: {refused:?}"),
            ));
        }
    }

    let code = code_of(later)?;
    assert!(may_log_in(&service, later, &alice, &code)?, "a good code");
    assert!(
        !may_log_in(&service, later, &alice, &code)?,
        "the same again"
    );
    let other = code_of(now.before(Duration::from_hours(1)))?;
    assert!(!may_log_in(&service, later, &alice, &other)?, "an old code");

    // A lost phone. From the moment this returns no code of it is good.
    let phone = enrolment.details.id.parse()?;
    service.remove_totp(&Context::command_line(later), alice.clone(), phone)?;
    say("removed the authenticator");
    assert!(!may_log_in(&service, later, &alice, &code)?, "afterwards");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn say(what: &str) {
    println!("{what}");
}

#[test]
fn the_example_runs() {
    main().unwrap();
}
