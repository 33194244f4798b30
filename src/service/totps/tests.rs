//! Authenticators that were not enrolled here, as an import inserts them.

use super::*;
use crate::model::{Checkpointer, Period, SelfRemoval, TotpId, Window};
use crate::service::{DataDir, KeyFile, Level, NewUser, Settings};
use crate::totp::Algorithm;

/// RFC 6238 Appendix B, a time that a clock may have.
const RFC_TIME_S: i64 = 2_000_000_000;

fn service(now: Timestamp) -> (tempfile::TempDir, Service) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        issuer: "Test".parse().unwrap(),
        window: Window::Present,
        checkpoints: Checkpointer::Own,
        self_removal: SelfRemoval::Allow,
    };
    let (service, _) = DataDir::create(dir.path(), KeyFile::InDataDir, &settings, now).unwrap();
    (dir, service)
}

/// Inserts a confirmed authenticator of a new user.
fn insert(service: &Service, now: Timestamp, secret: Secret, parameters: Parameters) -> UserId {
    let context = Context::command_line(now);
    let user = service.create_user(&context, NewUser::default()).unwrap();
    let id: UserId = user.id.parse().unwrap();
    let key = id.clone();
    let inserted = service.change_user(
        &context,
        Permission::WriteTotp,
        id.clone(),
        move |call, tx, _| {
            let user = call.visible_user(tx, &key, Missing::User)?;
            let id = TotpId::from_trusted(tx.new_id()?);
            let sealed = call.inner.seal(tx, &secret, &user.id, &id)?;
            let totp = TotpRow {
                slot: tx.fill_slot(&sealed)?,
                id,
                name: None,
                state: TotpState::Confirmed,
                parameters,
                drift: Drift::NONE,
                created: tx.event_at(),
                last_used: None,
                replaces: None,
                is_proven: true,
            };
            tx.insert_totp(
                &user,
                &totp,
                now.before(Duration::from_mins(10)).step(parameters.period),
            )
        },
    );
    inserted.unwrap();
    id
}

/// SECURITY.md 9: RFC 6238 Appendix B through a check.
#[test]
fn codes_of_other_hashes_and_lengths_are_good_once() {
    let now = Timestamp::from_seconds(RFC_TIME_S);
    let (_dir, service) = service(now);
    let digits = b"1234567890".repeat(7);
    for (algorithm, length, code) in [
        (Algorithm::Sha1, 20, "69279037"),
        (Algorithm::Sha256, 32, "90698825"),
        (Algorithm::Sha512, 64, "38618901"),
    ] {
        let secret = Secret::from_bytes(&digits[..length]).unwrap();
        let parameters = Parameters {
            algorithm,
            digits: 8,
            period: Period::ENROLMENT,
        };
        let user = insert(&service, now, secret, parameters);
        let check = || {
            let context = Context::command_line(now);
            service.check_totp(&context, user.clone(), None, code.parse().unwrap())
        };
        assert!(
            matches!(check().unwrap(), Verdict::Accepted(_)),
            "{algorithm:?}"
        );
        assert_eq!(check().unwrap(), Verdict::Used, "{algorithm:?}");
    }
}

/// SECURITY.md 24
#[test]
fn a_short_secret_checks_codes_and_doctor_counts_it() {
    let now = Timestamp::from_seconds(RFC_TIME_S);
    let (dir, service) = service(now);
    let doctor = || {
        let dir = DataDir::open(dir.path(), KeyFile::InDataDir).unwrap();
        let found = dir
            .examine(now)
            .into_iter()
            .find(|it| it.check == "secrets");
        let found = found.unwrap();
        (found.level, found.message)
    };
    for length in [10, 15, 16] {
        let bytes = vec![7; length];
        let secret = || Secret::from_bytes_or_short(&bytes).unwrap();
        let user = insert(&service, now, secret(), Parameters::ENROLMENT);
        let step = now.step(Period::ENROLMENT);
        let code = crate::totp::code_at(&secret(), Parameters::ENROLMENT, step).unwrap();
        let checked = service.check_totp(&Context::command_line(now), user, None, code);
        assert!(matches!(checked.unwrap(), Verdict::Accepted(_)), "{length}");
    }
    let (level, message) = doctor();
    assert_eq!(level, Level::Warn);
    assert!(message.contains("all 3 open; 2 of them"), "{message}");
}
