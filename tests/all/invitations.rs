//! Each invitation link works once. SECURITY.md 41.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use totpd::error::{Error, WrongState};
use totpd::model::UserId;
use totpd::service::{Caller, Context, INVITATION_LIFETIME, Invitation, RedeemedInvitation, Role};

use crate::harness::{TestServer, tidy};
use crate::node::{FORCE, Node};

const DAY: Duration = Duration::from_hours(24);

fn operator(server: &TestServer) -> Context {
    Context::command_line(server.now())
}

fn invite(server: &TestServer, user: &UserId) -> Invitation {
    let invited = server
        .service
        .invite_user(&operator(server), user.clone(), INVITATION_LIFETIME);
    invited.unwrap_or_else(|error| panic!("{error}"))
}

fn redeem(server: &TestServer, code: &str) -> Result<RedeemedInvitation, Error> {
    let service = &server.service;
    service.redeem_invitation(code, None, None, server.now())
}

#[track_caller]
fn refused(server: &TestServer, code: &str) {
    assert!(matches!(redeem(server, code), Err(Error::BadToken)));
}

fn scene() -> (TestServer, UserId) {
    let server = TestServer::start();
    let alice = server.user("alice").parse().unwrap();
    (server, alice)
}

#[test]
fn an_invitation_is_redeemed_once_for_a_token_of_one_hour() {
    let (server, alice) = scene();
    let invitation = invite(&server, &alice);
    assert_eq!(invitation.details.id, alice.to_string());
    assert_eq!(invitation.expires, server.now().after(INVITATION_LIFETIME));
    let code = invitation.code.reveal().to_owned();
    assert_eq!(code.len(), 43, "256 bits");
    let redeemed = redeem(&server, &code).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(redeemed.role, Role::Own(alice.clone()));
    refused(&server, &code);
    let token = redeemed.token.reveal();
    let get = |path: &str| server.ask_as(token, "GET", path, "");
    get(&format!("/users/{alice}")).expect_status(200);
    get("/users/1").expect_error(403, 7, Some("AUTH-AWfge"));
    server.pass_seconds(3_599);
    get(&format!("/users/{alice}")).expect_status(200);
    server.pass_seconds(1);
    get(&format!("/users/{alice}")).expect_error(401, 16, Some("AUTH-7fs1e"));
    for kind in ["invitation.created", "invitation.redeemed", "token.created"] {
        let events = format!(
            "SELECT count(*) FROM event WHERE kind = '{kind}' AND user_id = '{alice}' AND org_id = '{}'",
            server.org
        );
        assert_eq!(server.count(&events), 1, "{kind}");
    }
}

#[test]
fn of_64_that_redeem_one_invitation_one_gets_a_token() {
    let (server, alice) = scene();
    let invitation = invite(&server, &alice);
    let (code, barrier) = (invitation.code.reveal(), Barrier::new(64));
    let redeemed: usize = thread::scope(|scope| {
        let all: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    usize::from(redeem(&server, code).is_ok())
                })
            })
            .collect();
        all.into_iter().map(|it| it.join().unwrap()).sum()
    });
    let tokens = "SELECT count(*) FROM token WHERE role = 'self'";
    assert_eq!((redeemed, server.count(tokens)), (1, 1));
}

#[test]
fn an_invitation_ends_by_time_and_lasts_seven_days_at_most() {
    let (server, alice) = scene();
    let invite_for = |lifetime| {
        server
            .service
            .invite_user(&operator(&server), alice.clone(), lifetime)
    };
    for bad in [Duration::ZERO, 7 * DAY + Duration::from_micros(1)] {
        assert!(matches!(invite_for(bad), Err(Error::Invalid { .. })));
    }
    let invitation = invite_for(7 * DAY).unwrap_or_else(|error| panic!("{error}"));
    server.pass_seconds(7 * 86_400 - 1);
    let rows = "SELECT count(*) FROM invitation";
    tidy(&server.service, 400 * DAY, server.now());
    assert_eq!(server.count(rows), 1);
    server.pass_seconds(1);
    refused(&server, invitation.code.reveal());
    tidy(&server.service, 400 * DAY, server.now());
    assert_eq!(server.count(rows), 0, "it is swept");
}

#[test]
fn an_invitation_is_void_after_a_newer_one_and_with_its_user() {
    let (server, alice) = scene();
    let first = invite(&server, &alice);
    let second = invite(&server, &alice);
    refused(&server, first.code.reveal());
    assert!(redeem(&server, second.code.reveal()).is_ok());
    let post = |action: &str| {
        let path = format!("/users/{alice}/{action}");
        server.ask("POST", &path, "").expect_status(200);
    };
    for (end, again) in [("_lock", "_unlock"), ("_deactivate", "_activate")] {
        let invitation = invite(&server, &alice);
        post(end);
        refused(&server, invitation.code.reveal());
        let context = operator(&server);
        let meanwhile = server
            .service
            .invite_user(&context, alice.clone(), INVITATION_LIFETIME);
        assert!(matches!(
            meanwhile,
            Err(Error::WrongState(WrongState::UserNotActive))
        ));
        post(again);
        refused(&server, invitation.code.reveal());
    }
    let revoked = invite(&server, &alice);
    for _ in 0..2 {
        let context = operator(&server);
        let details = server.service.void_invitations(&context, alice.clone());
        assert_eq!(details.unwrap().id, alice.to_string());
        refused(&server, revoked.code.reveal());
    }
    let events = "SELECT count(*) FROM event WHERE kind = 'invitation.revoked'";
    assert_eq!(server.count(events), 1, "what changes nothing leaves none");
    // A new user with the same id is a different user.
    let last = invite(&server, &alice);
    let path = format!("/users/{alice}");
    server.ask("DELETE", &path, "").expect_status(200);
    let again = format!(r#"{{"userId":"{alice}"}}"#);
    server.ask("POST", "/users", &again).expect_status(201);
    refused(&server, last.code.reveal());
}

/// SECURITY.md 20
#[test]
fn only_an_admin_and_the_manager_of_the_organization_invite() {
    let (server, alice) = scene();
    let there = server.organization("Elsewhere");
    let here = server.org.parse().unwrap();
    let invite_as = |role: Role| {
        let token = server.token(role);
        let context = Context::new(Caller::of_token(&token), server.now());
        let service = &server.service;
        let invited = service.invite_user(&context, alice.clone(), INVITATION_LIFETIME);
        let admin = service.invite_administrator(&context);
        (invited.map(|_| ()), admin.map(|_| ()))
    };
    assert!(matches!(invite_as(Role::Admin), (Ok(()), Ok(()))));
    let (invited, admin) = invite_as(Role::Manager(here));
    assert!(matches!((invited, admin), (Ok(()), Err(Error::Forbidden))));
    let (invited, admin) = invite_as(Role::Manager(there.parse().unwrap()));
    assert!(matches!(
        (invited, admin),
        (Err(Error::NotFound(_)), Err(Error::Forbidden))
    ));
    for role in [Role::Checker(None), Role::Own(alice.clone())] {
        let (invited, admin) = invite_as(role);
        assert!(matches!(
            (invited, admin),
            (Err(Error::Forbidden), Err(Error::Forbidden))
        ));
    }
}

#[test]
fn the_administrators_link_is_good_for_ten_minutes_and_once() {
    let (server, alice) = scene();
    let of_user = invite(&server, &alice);
    let link = || {
        let made = server.service.invite_administrator(&operator(&server));
        made.unwrap_or_else(|error| panic!("{error}")).0
    };
    let (first, second) = (link(), link());
    refused(&server, first.reveal());
    let redeemed = redeem(&server, second.reveal()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(redeemed.role, Role::Admin);
    assert_eq!(redeemed.expires, server.now().after(INVITATION_LIFETIME));
    refused(&server, second.reveal());
    let late = link();
    server.pass_seconds(600);
    refused(&server, late.reveal());
    assert!(
        redeem(&server, of_user.code.reveal()).is_ok(),
        "others stay"
    );
}

/// An unknown code does not wait for a writer, and no file contains the code.
#[test]
fn an_unknown_code_is_refused_by_a_read_and_codes_are_not_stored() {
    let (server, alice) = scene();
    let invitation = invite(&server, &alice);
    let held = server.lock();
    let before = std::time::Instant::now();
    for unknown in ["", "nonsense", &"x".repeat(10_000)] {
        refused(&server, unknown);
    }
    assert!(before.elapsed() < Duration::from_secs(2));
    drop(held);
    for file in ["totpd.db", "totpd.db-wal"] {
        let bytes = fs::read(server.path().join(file)).unwrap_or_default();
        let code = invitation.code.reveal().as_bytes();
        assert!(!bytes.windows(code.len()).any(|it| it == code), "{file}");
    }
}

/// SECURITY.md 32: the backup does not know which links were used later.
#[test]
fn no_invitation_outlives_a_restore() {
    let mut node = Node::new();
    let alice = node.user("alice");
    let context = node.context();
    let invited = node
        .service()
        .invite_user(&context, alice, INVITATION_LIFETIME);
    let code = invited.unwrap_or_else(|error| panic!("{error}")).code;
    let backup = node.back_up("backup");
    node.pass_seconds(1);
    assert!(!node.restore(&backup, FORCE).unwrap().has_loss);
    let redeemed = node
        .service()
        .redeem_invitation(code.reveal(), None, None, node.now);
    assert!(matches!(redeemed, Err(Error::BadToken)));
}

/// SECURITY.md 35: a link that was dated ahead stays valid for its intended length.
#[test]
fn an_invitation_by_a_clock_that_was_ahead_keeps_its_length() {
    let (server, alice) = scene();
    server.pass_seconds(30 * 86_400);
    let invitation = invite(&server, &alice);
    server.pass_seconds(-30 * 86_400);
    server.service.fix_clock(&operator(&server)).unwrap();
    let expires = "SELECT expires - created FROM invitation WHERE created <= ";
    let now = server.now();
    assert_eq!(
        server.count(&format!("{expires}{}", now.micros())),
        3_600_000_000
    );
    server.pass_seconds(3_600);
    refused(&server, invitation.code.reveal());
}
