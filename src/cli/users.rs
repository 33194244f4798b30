//! `user create`, `list`, `show`, `remove`, `lock`, `unlock`, `activate` and `deactivate`; `invite` is in `invitations`.

use std::fmt::Display;

use totpd::api::messages;
use totpd::error::Result;
use totpd::model::{Name, OrgId, UserId};
use totpd::service::{
    Context, Details, FoundUser, NamedBy, NewUser, NewUsername, Service, State, Target, User,
    UserSelector,
};

use super::output::{self, Output};
use super::{DataLocation, args, invitations, operator};

pub(super) fn run(
    location: &DataLocation,
    service: &Service,
    out: &Output,
    command: args::User,
) -> Result<()> {
    let context = operator();
    match command {
        args::User::Create { username, org, id } => {
            let organization = org.map(|it| it.parse().map(NamedBy::Id)).transpose()?;
            let username = Name::parse("USERNAME", &username)?;
            let new = NewUser {
                id: id.map(|it| it.parse()).transpose()?,
                usernames: vec![NewUsername {
                    username,
                    is_organization_specific: false,
                }],
                ..NewUser::default()
            };
            let target = Target {
                instance: None,
                organization,
            };
            let details = service.create_user(&Context { target, ..context }, new)?;
            answer_change(out, details, |it| format!("made {it}"))
        }
        args::User::List => list(service, out),
        args::User::Show(user) => {
            let id = find(service, &user)?.id;
            let user = service.user(&context, &id)?;
            let text = user_text(&user);
            out.answer(&messages::GetUserResponse::of(user)?, || text)
        }
        args::User::Remove(user) => {
            let id = find(service, &user)?.id;
            let details = service.remove_user(&context, id.clone())?;
            answer_change(out, details, |it| format!("removed {it}"))
        }
        args::User::Lock(user) => {
            let id = find(service, &user)?.id;
            let details = service.lock_user(&context, id.clone())?;
            answer_change(out, details, |it| format!("{it} is locked"))
        }
        args::User::Unlock(user) => {
            let id = find(service, &user)?.id;
            let details = service.unlock_user(&context, id.clone())?;
            answer_change(out, details, |it| {
                format!("{it} is unlocked and need not wait")
            })
        }
        args::User::Activate(user) => {
            let id = find(service, &user)?.id;
            let details = service.activate_user(&context, id.clone())?;
            answer_change(out, details, |it| format!("{it} is active"))
        }
        args::User::Deactivate(user) => {
            let id = find(service, &user)?.id;
            let details = service.deactivate_user(&context, id.clone())?;
            answer_change(out, details, |it| format!("{it} is inactive"))
        }
        args::User::Invite(it) => invitations::invite(location, service, out, it),
    }
}

/// Finds the user that the arguments name.
pub(super) fn find(service: &Service, it: &args::UserArg) -> Result<FoundUser> {
    let name = selector(&it.user, it.id, it.org.as_deref())?;
    service.find_user(&operator(), &name)
}

/// The selector that USER, `--id` and `--org` describe.
pub(super) fn selector(user: &str, is_id: bool, org: Option<&str>) -> Result<UserSelector> {
    match org {
        Some(org) => Ok(UserSelector::Username(
            org.parse()?,
            Name::for_lookup("USER", user)?,
        )),
        None if is_id => Ok(UserSelector::Id(UserId::for_lookup(user)?)),
        None => Ok(UserSelector::Any(user.to_owned())),
    }
}

/// A user in messages. Includes the organization, because ids and usernames can be alike in two of them.
pub(super) fn label(id: impl Display, org: &OrgId) -> String {
    format!("user {id} of organization {org}")
}

/// Prints the answer to a change of a user. `done` builds its text from the user's label.
fn answer_change(
    out: &Output,
    details: Details,
    done: impl FnOnce(String) -> String,
) -> Result<()> {
    let done = done(label(&details.id, &details.owner));
    out.answer_change(&done, &messages::DetailsResponse::from(details), || {
        done.clone()
    })
}

fn list(service: &Service, out: &Output) -> Result<()> {
    let (mut documents, mut rows) = (Vec::new(), Vec::new());
    service.each_user(&operator(), |user| {
        if out.json {
            documents.push(messages::User::of(user)?);
        } else {
            rows.push(vec![
                user.details.id.clone(),
                names(&user),
                state(&user).to_owned(),
                user.totps
                    .iter()
                    .filter(|it| it.is_confirmed)
                    .count()
                    .to_string(),
                user.details.owner.to_string(),
            ]);
        }
        Ok(())
    })?;
    out.answer(&documents, || {
        output::table(&["ID", "USERNAME", "STATE", "TOTP", "ORGANIZATION"], &rows)
    })
}

fn user_text(user: &User) -> String {
    let details = &user.details;
    let rows = vec![
        vec!["username".to_owned(), names(user)],
        vec!["state".to_owned(), state(user).to_owned()],
        vec!["organization".to_owned(), details.owner.to_string()],
        vec!["created".to_owned(), details.created.to_string()],
    ];
    let text = output::table(&["id", &details.id], &rows);
    if user.totps.is_empty() {
        text
    } else {
        format!("{text}\n\n{}", super::totps::totp_table(&user.totps))
    }
}

fn names(user: &User) -> String {
    user.usernames
        .iter()
        .map(|it| it.username.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

const fn state(user: &User) -> &'static str {
    match user.state {
        State::Active => "active",
        State::Inactive => "inactive",
        State::Locked => "locked",
    }
}
