//! `recovery generate`, `show`, `check` and `remove`.

use totpd::api::messages;
use totpd::api::status::Refusal;
use totpd::error::{Error, Result};
use totpd::service::{NewRecoveryCodes, RecoveryVerdict, RemainingRecoveryCodes, Service};

use super::output::Output;
use super::{args, operator, users};

pub(super) fn run(service: &Service, out: &Output, command: args::Recovery) -> Result<()> {
    let context = operator();
    match command {
        args::Recovery::Generate(user) => {
            let user = users::find(service, &user)?;
            let generated = service.generate_recovery_codes(&context, user.id.clone())?;
            let label = users::label(&user.id, &user.org);
            let done = format!("generated recovery codes of {label}");
            let text = (!out.json).then(|| codes_text(&label, &generated));
            let document = messages::RecoveryCodesResponse::from(generated);
            out.answer_change(&done, &document, || text.unwrap_or_default())
        }
        args::Recovery::Show(user) => {
            let user = users::find(service, &user)?;
            let remaining = service.recovery_codes(&context, &user.id)?;
            let label = users::label(&user.id, &user.org);
            let text = match remaining.remaining {
                0 => format!("{label} has no recovery codes"),
                left => format!(
                    "{label} has {left} recovery codes, generated {}",
                    remaining.details.created
                ),
            };
            out.answer(&messages::RemainingResponse::from(remaining), || text)
        }
        args::Recovery::Check { user, code } => {
            let code = code.parse()?;
            let user = users::find(service, &user)?;
            let verdict = service.check_recovery_code(&context, user.id.clone(), code)?;
            let remaining = accepted(verdict)?;
            let done = format!(
                "good, a recovery code of {}; it is used up, and {} are left",
                users::label(&user.id, &user.org),
                remaining.remaining
            );
            let document = messages::RemainingResponse::from(remaining);
            out.answer_change(&done, &document, || done.clone())
        }
        args::Recovery::Remove(user) => {
            let user = users::find(service, &user)?;
            let removed = service.remove_recovery_codes(&context, user.id.clone())?;
            let label = users::label(&user.id, &user.org);
            let done =
                format!("removed the recovery codes of {label}: none of them is good any more");
            let document = messages::DetailsResponse::from(removed);
            out.answer_change(&done, &document, || done.clone())
        }
    }
}

fn codes_text(label: &str, generated: &NewRecoveryCodes) -> String {
    let codes = generated.codes.iter().map(|it| format!("  {}", *it.text()));
    let codes = codes.collect::<Vec<_>>().join("\n");
    format!(
        "recovery codes of {label}:\n\n{codes}\n\n\
         Each is good once, in the place of a code. They are not shown again, and no earlier one is good any more."
    )
}

/// Turns a refused code into an error, so that the exit status tells it too.
fn accepted(verdict: RecoveryVerdict) -> Result<RemainingRecoveryCodes> {
    let refusal = match verdict {
        RecoveryVerdict::Accepted(remaining) => return Ok(remaining),
        RecoveryVerdict::Refused { begins_wait_s } => Refusal::wrong_recovery_code(begins_wait_s),
        RecoveryVerdict::Wait { retry_after_s } => Refusal::wait(retry_after_s),
    };
    Err(Error::invalid("refused", refusal.message))
}
