//! `user invite` and `open`: links that are good once.

use std::path::Path;

use serde::Serialize;
use totpd::api::messages::{DetailsResponse, InvitationResponse, invitation_url};
use totpd::error::{Error, Result};
use totpd::service::Service;

use super::output::Output;
use super::{DataLocation, args, operator, output, run_file, users};

#[derive(Serialize)]
struct LinkDocument {
    url: String,
    expires: String,
}

/// `user invite`
pub(super) fn invite(
    location: &DataLocation,
    service: &Service,
    out: &Output,
    args: args::Invite,
) -> Result<()> {
    let user = users::find(service, &args.user)?;
    let label = users::label(&user.id, &user.org);
    if args.revoke {
        let details = service.void_invitations(&operator(), user.id)?;
        let done = format!("no invitation of {label} is good any more");
        return out.answer_change(&done, &DetailsResponse::from(details), || done.clone());
    }
    // Without a URL nothing is changed.
    let base_url = base_url(&location.path, args.public_url)?;
    let invitation = service.invite_user(&operator(), user.id, args.expires)?;
    let expires = invitation.expires;
    let document = InvitationResponse::new(invitation, &base_url);
    let done = format!("invited {label}");
    out.answer_change(&done, &document, || {
        format!(
            "{}\n\nThis link signs {label} in, once, until {expires}. It is not shown again, and no earlier one is good \
             any more.",
            document.url()
        )
    })
}

/// `open`
pub(super) fn open(
    location: &DataLocation,
    service: &Service,
    out: &Output,
    args: args::Open,
) -> Result<()> {
    let base_url = base_url(&location.path, args.public_url)?;
    let (code, expires) = service.invite_administrator(&operator())?;
    let document = LinkDocument {
        url: invitation_url(&base_url, code.reveal()),
        expires: expires.to_string(),
    };
    out.answer_change("made a link", &document, || {
        format!(
            "{}\n\nThis link signs an administrator in, once, until {expires}. It is not shown again, and no earlier one \
             is good any more.",
            document.url
        )
    })
}

/// The URL that links begin with: the given one, or else that of the directory's server.
///
/// A server without pages answers such a link with 404, so its own address is refused. A given URL causes only a warning,
/// because pages of another program may redeem the code there.
fn base_url(data_dir: &Path, given: Option<String>) -> Result<String> {
    let missing = |problem| Error::invalid("--public-url", problem);
    let run = run_file::read(data_dir);
    let no_web = run.as_ref().is_some_and(|it| it.no_web);
    let no_server = run.is_none();
    if let Some(url) = given.or_else(|| run.and_then(|it| it.url)) {
        if no_web {
            output::print_error(
                "warning: the server serves no pages (`--no-web`, or a binary without them), so this link needs a page of your own",
            );
        }
        return Ok(url);
    }
    Err(missing(if no_server {
        "no server runs on this data directory that would know the URL; start one, or give this"
    } else if no_web {
        "the server serves no pages (`--no-web`, or a binary without them), so a link would lead nowhere; start it with \
         pages, or give this for a page of your own"
    } else {
        "the server has no address with a URL; give this"
    }))
}
