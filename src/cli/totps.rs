//! `totp start`, `confirm`, `check`, `list`, `rename`, `resync` and `remove`.

use totpd::api::messages;
use totpd::api::status::Refusal;
use totpd::error::{Error, Missing, Result};
use totpd::model::{Name, TotpId};
use totpd::service::{Details, Enrolment, FoundUser, Service, Totp, Verdict};

use super::output::{self, Output};
use super::{DataLocation, args, operator, qr, users, variable};

pub(super) fn run(
    location: &DataLocation,
    service: &Service,
    out: &Output,
    command: args::Totp,
) -> Result<()> {
    match command {
        args::Totp::Start {
            user,
            name,
            replaces,
        } => start(location, service, out, &user, (name, replaces)),
        args::Totp::Confirm { user, totp, code } => confirm(service, out, &user, (&totp, &code)),
        args::Totp::Check { user, code } => check(service, out, &user, &code),
        args::Totp::List(user) => list(service, out, &user),
        args::Totp::Rename { user, totp, name } => rename(service, out, &user, (&totp, &name)),
        args::Totp::Resync {
            user,
            totp,
            code1,
            code2,
        } => resync(service, out, &user, (&totp, [&code1, &code2])),
        args::Totp::Remove {
            user,
            totp: Some(totp),
            ..
        } => remove(service, out, &user, &totp),
        args::Totp::Remove {
            user, totp: None, ..
        } => remove_all(service, out, &users::find(service, &user)?),
    }
}

fn start(
    location: &DataLocation,
    service: &Service,
    out: &Output,
    user: &args::UserArg,
    (name, replaces): (Option<String>, Option<String>),
) -> Result<()> {
    let name = name.map(|it| Name::parse("--name", &it)).transpose()?;
    let replaces = replaces.map(|it| TotpId::parse("--replaces", &it));
    let replaces = replaces.transpose()?;
    let id = users::find(service, user)?.id;
    let enrolment = match replaces {
        None => service.start_totp(&operator(), id, name)?,
        Some(old) => service.start_totp_replacing(&operator(), id, name, old)?,
    };
    let done = format!("started enrolment {}", enrolment.details.id);
    let text = (!out.json).then(|| enrolment_text(location, &enrolment, user));
    let document = messages::StartResponse::from(enrolment);
    out.answer_change(&done, &document, || text.unwrap_or_default())
}

fn confirm(
    service: &Service,
    out: &Output,
    user: &args::UserArg,
    (totp, code): (&str, &str),
) -> Result<()> {
    let (totp, code): (TotpId, _) = (totp.parse()?, code.parse()?);
    let id = users::find(service, user)?.id;
    let verdict = service.confirm_totp(&operator(), id.clone(), totp.clone(), code)?;
    let details = accepted(verdict)?;
    let done = format!("confirmed {totp} of {}", users::label(&id, &details.owner));
    let document = messages::DetailsResponse::from(details);
    out.answer_change(&done, &document, || {
        format!("{done}: its codes are good from now on")
    })
}

fn check(service: &Service, out: &Output, user: &args::UserArg, code: &str) -> Result<()> {
    let code = code.parse()?;
    let id = users::find(service, user)?.id;
    let verdict = service.check_totp(&operator(), id.clone(), None, code)?;
    let details = accepted(verdict)?;
    let done = format!(
        "good, by authenticator {} of {}; the code is used up",
        details.id,
        users::label(&id, &details.owner)
    );
    let document = messages::CheckResponse::from(details);
    out.answer_change(&done, &document, || done.clone())
}

fn list(service: &Service, out: &Output, user: &args::UserArg) -> Result<()> {
    let id = users::find(service, user)?.id;
    let totps = service.totps(&operator(), &id)?;
    let text = totp_table(&totps);
    let documents = totps.into_iter().map(messages::ListedTotp::from);
    out.answer(&documents.collect::<Vec<_>>(), || text)
}

fn rename(
    service: &Service,
    out: &Output,
    user: &args::UserArg,
    (totp, name): (&str, &str),
) -> Result<()> {
    let totp: TotpId = totp.parse()?;
    let name = Name::parse("NAME", name)?;
    let user = users::find(service, user)?;
    let details = service.rename_totp(&operator(), user.id.clone(), totp, name.clone())?;
    let label = users::label(&user.id, &user.org);
    let done = format!(
        "{} of {label} is now called {:?}",
        details.id,
        name.as_str()
    );
    let document = messages::DetailsResponse::from(details);
    out.answer_change(&done, &document, || done.clone())
}

fn resync(
    service: &Service,
    out: &Output,
    user: &args::UserArg,
    (totp, [first, second]): (&str, [&str; 2]),
) -> Result<()> {
    let totp: TotpId = totp.parse()?;
    let codes = [first.parse()?, second.parse()?];
    let id = users::find(service, user)?.id;
    let verdict = service.resync_totp(&operator(), id.clone(), totp, codes)?;
    let details = accepted(verdict)?;
    let user = users::label(&id, &details.owner);
    let done = format!(
        "resynchronized {} of {user}; both codes are used up",
        details.id
    );
    let document = messages::DetailsResponse::from(details);
    out.answer_change(&done, &document, || done.clone())
}

fn remove(service: &Service, out: &Output, user: &args::UserArg, totp: &str) -> Result<()> {
    let totp: TotpId = totp.parse()?;
    let user = users::find(service, user)?;
    let details = service.remove_totp(&operator(), user.id.clone(), totp)?;
    let done = removed(&details.id, &user);
    let document = messages::DetailsResponse::from(details);
    out.answer_change(&done, &document, || done.clone())
}

/// Removes each authenticator in its own transaction. If one fails, the output still lists those removed before.
fn remove_all(service: &Service, out: &Output, user: &FoundUser) -> Result<()> {
    let context = operator();
    let (mut documents, mut lines) = (Vec::new(), Vec::new());
    let mut remove = |totp: &TotpId| {
        match service.remove_totp(&context, user.id.clone(), totp.clone()) {
            Ok(details) => {
                lines.push(removed(&details.id, user));
                documents.push(messages::DetailsResponse::from(details));
                Ok(())
            }
            // It was removed concurrently.
            Err(Error::NotFound(Missing::Totp)) => Ok(()),
            Err(error) => Err(error),
        }
    };
    let totps = service.user(&context, &user.id)?.totps;
    let outcome = totps.iter().try_for_each(|it| remove(&it.id));
    if outcome.is_err() && lines.is_empty() {
        return outcome;
    }
    if lines.is_empty() {
        lines.push("the user has no authenticator".to_owned());
    }
    let text = lines.join("\n");
    out.answer_change(&text, &documents, || text.clone())?;
    outcome
}

fn removed(id: &str, user: &FoundUser) -> String {
    let user = users::label(&user.id, &user.org);
    format!("removed {id} of {user}: no code of it is good any more")
}

/// Turns a refused code into an error, so that the exit status tells it too.
fn accepted(verdict: Verdict) -> Result<Details> {
    let refusal = match verdict {
        Verdict::Accepted(details) => return Ok(details),
        Verdict::Wrong { begins_wait_s } => Refusal::wrong_code(begins_wait_s),
        Verdict::Used => Refusal::used_code(),
        Verdict::Wait { retry_after_s } => Refusal::wait(retry_after_s),
    };
    Err(Error::invalid("refused", refusal.message))
}

/// The text about a new enrolment: QR code, secret, and the command that confirms it. A URI that is too long for a QR
/// code is no error, because the enrolment exists and its secret is shown only here.
fn enrolment_text(location: &DataLocation, enrolment: &Enrolment, user: &args::UserArg) -> String {
    let colour = output::is_terminal() && variable("NO_COLOR").is_none();
    let picture = qr::draw(&enrolment.uri, colour);
    let how = if picture.is_some() {
        "Scan the code with an authenticator app, or type the secret"
    } else {
        "The URI is too long for a QR code: type the secret into an authenticator app"
    };
    let picture = picture.map(|it| format!("{it}\n\n")).unwrap_or_default();
    let details = &enrolment.details;
    let mut command = vec!["totp", "confirm"];
    command.extend(user.id.then_some("--id"));
    command.extend(user.org.iter().flat_map(|it| ["--org", it.as_str()]));
    format!(
        "{picture}authenticator  {}\norganization   {}\nsecret         {}\nuri            {}\n\n\
         {how}; neither is shown again. Then, within ten minutes:\n  {}",
        details.id,
        details.owner,
        *enrolment.secret.base32(),
        *enrolment.uri,
        location.command(&command, &[&user.user, &details.id, "CODE"]),
    )
}

/// Authenticators as a table.
pub(super) fn totp_table(totps: &[Totp]) -> String {
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
        let used = it.last_used.map(|it| it.to_string()).unwrap_or_default();
        vec![it.id.to_string(), state.to_owned(), used, name]
    };
    output::table(
        &["AUTHENTICATOR", "STATE", "LAST USED", "NAME"],
        &totps.iter().map(row).collect::<Vec<_>>(),
    )
}
