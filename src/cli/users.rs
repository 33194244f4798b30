//! `user`: make, list, show, remove, unlock.

use totpd::api::messages;
use totpd::error::Result;
use totpd::model::Name;
use totpd::service::{Expect, Named, NewUser, NewUsername, Service, State, User};

use super::output::{self, Output};
use super::{args, now, operator};

pub(super) fn run(service: &Service, out: &Output, command: args::User) -> Result<()> {
    let (caller, anywhere) = (operator(), Expect::default());
    match command {
        args::User::Create { username, org, id } => {
            let organization = org.map(|it| it.parse().map(Named::Id)).transpose()?;
            let username = Name::parse("USERNAME", &username)?;
            let new = NewUser {
                id: id.map(|it| it.parse()).transpose()?,
                usernames: vec![NewUsername {
                    username,
                    is_organization_specific: false,
                }],
                ..NewUser::default()
            };
            let expect = Expect {
                instance: None,
                organization,
            };
            let details = service.create_user(&caller, &expect, new, now())?;
            let text = format!("made user {}", details.id);
            out.answer(&messages::DetailsResponse::from(details), || text)
        }
        args::User::List => list(service, out),
        args::User::Show { user } => {
            let id = service.find_user(&caller, &user)?;
            let user = service.user(&caller, &anywhere, &id, now())?;
            let text = card(&user);
            out.answer(&messages::GetUserResponse::of(user)?, || text)
        }
        args::User::Remove { user } => {
            let id = service.find_user(&caller, &user)?;
            let details = service.remove_user(&caller, &anywhere, &id, now())?;
            out.answer(&messages::DetailsResponse::from(details), || {
                format!("removed user {id}")
            })
        }
        args::User::Unlock { user } => {
            let id = service.find_user(&caller, &user)?;
            let details = service.unlock_user(&caller, &anywhere, &id, now())?;
            let text = || format!("user {id} is unlocked and need not wait");
            out.answer(&messages::DetailsResponse::from(details), text)
        }
    }
}

fn list(service: &Service, out: &Output) -> Result<()> {
    let (mut documents, mut rows) = (Vec::new(), Vec::new());
    service.each_user(&operator(), now(), |user| {
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

fn card(user: &User) -> String {
    let details = &user.details;
    let rows = vec![
        vec!["username".to_owned(), names(user)],
        vec!["state".to_owned(), state(user).to_owned()],
        vec!["organization".to_owned(), details.owner.to_string()],
        vec!["created".to_owned(), details.created.to_string()],
    ];
    let card = output::table(&["id", &details.id], &rows);
    if user.totps.is_empty() {
        card
    } else {
        format!("{card}\n\n{}", super::totps::list_of(&user.totps))
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
