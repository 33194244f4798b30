//! `totp`: start, confirm, check, list, remove.

use std::env;

use totpd::api::messages;
use totpd::api::status::Refusal;
use totpd::error::{Error, Result};
use totpd::model::Name;
use totpd::service::{Details, Enrolment, Expect, Service, Totp, Verdict};

use super::output::{self, Output};
use super::{args, now, operator, qr};

pub(super) fn run(service: &Service, out: &Output, command: args::Totp) -> Result<()> {
    let (caller, anywhere) = (operator(), Expect::default());
    match command {
        args::Totp::Start { user, name } => {
            let name = name.map(|it| Name::parse("--name", &it)).transpose()?;
            let id = service.find_user(&caller, &user)?;
            let enrolment = service.start_totp(&caller, &anywhere, &id, name, now())?;
            let text = sheet(&enrolment, &user)?;
            out.answer(&messages::StartResponse::from(enrolment), || text)
        }
        args::Totp::Confirm { user, totp, code } => {
            let (totp, code) = (totp.parse()?, code.parse()?);
            let id = service.find_user(&caller, &user)?;
            let verdict = service.confirm_totp(&caller, &anywhere, &id, &totp, &code, now())?;
            let document = messages::DetailsResponse::from(accepted(verdict)?);
            out.answer(&document, || {
                format!("confirmed {totp}: its codes are good from now on")
            })
        }
        args::Totp::Check { user, code } => {
            let code = code.parse()?;
            let id = service.find_user(&caller, &user)?;
            let verdict = service.check_totp(&caller, &anywhere, &id, None, &code, now())?;
            let details = accepted(verdict)?;
            let text = format!("good, by authenticator {}; the code is used up", details.id);
            out.answer(&messages::CheckResponse::from(details), || text)
        }
        args::Totp::List { user } => {
            let id = service.find_user(&caller, &user)?;
            let totps = service.user(&caller, &anywhere, &id, now())?.totps;
            let text = list_of(&totps);
            out.answer(
                &totps
                    .into_iter()
                    .map(messages::Totp::from)
                    .collect::<Vec<_>>(),
                || text,
            )
        }
        args::Totp::Remove {
            user,
            totp: Some(totp),
            ..
        } => {
            let totp = totp.parse()?;
            let id = service.find_user(&caller, &user)?;
            let details = service.remove_totp(&caller, &anywhere, &id, &totp, now())?;
            out.answer(&messages::DetailsResponse::from(details), || {
                removed(&totp.to_string())
            })
        }
        args::Totp::Remove {
            user, totp: None, ..
        } => {
            let id = service.find_user(&caller, &user)?;
            let mut documents = Vec::new();
            let mut lines = Vec::new();
            for totp in service.user(&caller, &anywhere, &id, now())?.totps {
                let details = service.remove_totp(&caller, &anywhere, &id, &totp.id, now())?;
                lines.push(removed(&details.id));
                documents.push(messages::DetailsResponse::from(details));
            }
            if lines.is_empty() {
                lines.push("the user has no authenticator".to_owned());
            }
            out.answer(&documents, || lines.join("\n"))
        }
    }
}

fn removed(id: &str) -> String {
    format!("removed {id}: no code of it is good any more")
}

/// A "no" is a failure of the command: whoever looks at the status alone is not fooled.
fn accepted(verdict: Verdict) -> Result<Details> {
    let refusal = match verdict {
        Verdict::Accepted(details) => return Ok(details),
        Verdict::Wrong => Refusal::wrong_code(),
        Verdict::Used => Refusal::used_code(),
        Verdict::Wait { retry_after_s } => Refusal::wait(retry_after_s),
    };
    Err(Error::invalid("refused", refusal.message))
}

/// What a person does next with a new enrolment.
fn sheet(enrolment: &Enrolment, user: &str) -> Result<String> {
    let colour = output::is_terminal() && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let totp = &enrolment.details.id;
    Ok(format!(
        "{}\n\nauthenticator  {totp}\nsecret         {}\nuri            {}\n\n\
         Scan the code with an authenticator app, or type the secret; neither is shown again. Then, within \
         ten minutes:\n  totpd totp confirm {user} {totp} CODE",
        qr::draw(&enrolment.uri, colour)?,
        enrolment.secret.base32(),
        enrolment.uri,
    ))
}

/// Authenticators as a table.
pub(super) fn list_of(totps: &[Totp]) -> String {
    let row = |it: &Totp| {
        let state = if it.is_confirmed {
            "confirmed"
        } else {
            "pending"
        };
        let name = it
            .name
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        vec![it.id.to_string(), state.to_owned(), name]
    };
    output::table(
        &["AUTHENTICATOR", "STATE", "NAME"],
        &totps.iter().map(row).collect::<Vec<_>>(),
    )
}
