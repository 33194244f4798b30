//! Invitations: links that a person redeems once for a token of one hour (SECURITY.md 41).
//!
//! Knows no addresses: the caller makes the link of the code.

use std::net::IpAddr;
use std::time::Duration;

use super::access::Role;
use super::tokens::{self, NewToken};
use super::{Context, Details, Permission, Service, users};
use crate::error::{Error, Missing, Result, WrongState};
use crate::model::{RequestId, Timestamp, TokenId, UserId, UserState};
use crate::seal::{BearerToken, InvitationCode, token_hash};
use crate::store::{EventKind, EventSource, Invited, ReadKind, WriteTx};

/// How long an invitation is good unless the caller says otherwise.
pub const INVITATION_LIFETIME: Duration = Duration::from_hours(1);
/// The longest that an invitation can be good.
const LONGEST_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// How long an invitation to the administrator's page is good.
const ADMIN_LIFETIME: Duration = Duration::from_mins(10);
/// How long the token is good that an invitation is redeemed for.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// A new invitation. No other call returns its code.
pub struct Invitation {
    /// The user's id and organization, and when it was created and invited.
    pub details: Details,
    /// The code, which the link carries in its fragment.
    pub code: InvitationCode,
    /// When it expires.
    pub expires: Timestamp,
}

/// What an invitation was redeemed for.
pub struct RedeemedInvitation {
    /// The token. It is returned only here.
    pub token: BearerToken,
    /// What it stands for: one user, or the administrator.
    pub role: Role,
    /// When it expires.
    pub expires: Timestamp,
}

impl Service {
    /// Invites a user to the page about its own authenticators. The invitation replaces earlier ones of the user, is good
    /// once and for `lifetime`, seven days at most, and is void when the user is removed, locked or deactivated.
    pub fn invite_user(
        &self,
        context: &Context,
        user: UserId,
        lifetime: Duration,
    ) -> Result<Invitation> {
        if lifetime.is_zero() || lifetime > LONGEST_LIFETIME {
            return Err(self.refusal(
                context,
                Permission::WriteUser,
                Error::invalid("expires", "expected at least a second and at most 7d"),
            ));
        }
        let code = InvitationCode::new()?;
        let digest = code.digest();
        let (details, expires) = self.change_user(
            context,
            Permission::WriteUser,
            user,
            move |call, tx, user| {
                let user = call.visible_user(tx, user, Missing::User)?;
                if user.state != UserState::Active {
                    return Err(Error::WrongState(WrongState::UserNotActive));
                }
                tx.void_invitations(Some(&user.id))?;
                let expires = tx.now().after(lifetime);
                tx.insert_invitation(&digest, Some(&user.id), expires)?;
                call.record(tx, EventKind::InvitationCreated, &user)?;
                let details = Details {
                    changed: tx.event_at(),
                    ..users::details(&user)
                };
                Ok((details, expires))
            },
        )?;
        Ok(Invitation {
            details,
            code,
            expires,
        })
    }

    /// Voids the invitations of a user.
    pub fn void_invitations(&self, context: &Context, user: UserId) -> Result<Details> {
        self.change_user(context, Permission::WriteUser, user, |call, tx, user| {
            let user = call.visible_user(tx, user, Missing::User)?;
            if tx.void_invitations(Some(&user.id))? {
                call.record(tx, EventKind::InvitationRevoked, &user)?;
            }
            Ok(users::details(&user))
        })
    }

    /// Invites the administrator to the administrator's page, for ten minutes. The invitation replaces earlier ones.
    pub fn invite_administrator(&self, context: &Context) -> Result<(InvitationCode, Timestamp)> {
        let code = InvitationCode::new()?;
        let digest = code.digest();
        let expires = self.change_as_admin(context, move |call, tx| {
            tx.void_invitations(None)?;
            let expires = tx.now().after(ADMIN_LIFETIME);
            tx.insert_invitation(&digest, None, expires)?;
            let source = &call.principal.source;
            tokens::append_about(tx, EventKind::InvitationCreated, source, None)?;
            Ok(expires)
        })?;
        Ok((code, expires))
    }

    /// Redeems an invitation for a token of one hour. Needs no token. Of any number of requests with one code, one is
    /// answered with a token. An unknown code is refused by a read, so guessing holds up no change.
    pub fn redeem_invitation(
        &self,
        code: &str,
        peer: Option<IpAddr>,
        request_id: Option<RequestId>,
        now: Timestamp,
    ) -> Result<RedeemedInvitation> {
        let digest = token_hash(code);
        let is_known = self.inner.store.read_for_request(ReadKind::ById, |tx| {
            tx.require_sane_clock(now)?;
            tx.has_invitation(&digest, now)
        })?;
        if !is_known {
            return Err(Error::BadToken);
        }
        let token = BearerToken::new()?;
        let hash = token_hash(token.reveal());
        let (role, expires) = self.inner.store.write(now, move |tx| {
            let invited = tx.take_invitation(&digest)?.ok_or(Error::BadToken)?;
            let id = TokenId::from_trusted(tx.new_id()?);
            // The holder of the new token did it.
            let source = EventSource {
                actor: id.to_string(),
                peer,
                request_id,
            };
            insert_redeemed(tx, id, &hash, &source, invited)
        })?;
        Ok(RedeemedInvitation {
            token,
            role,
            expires,
        })
    }
}

/// Inserts the token that an invitation is redeemed for, and records both.
fn insert_redeemed(
    tx: &WriteTx<'_>,
    id: TokenId,
    hash: &[u8; 32],
    source: &EventSource,
    invited: Invited,
) -> Result<(Role, Timestamp)> {
    let user = match &invited {
        Some(user) => Some(tx.user(None, user)?.ok_or(Error::BadToken)?),
        None => None,
    };
    tokens::append_about(tx, EventKind::InvitationRedeemed, source, user.as_ref())?;
    let new = NewToken {
        role: invited.map_or(Role::Admin, Role::Own),
        name: None,
        lifetime: Some(TOKEN_LIFETIME),
    };
    let role = new.role.clone();
    let org = user.map(|it| it.org);
    let row = tokens::insert(tx, id, new, org, hash, source)?;
    Ok((role, row.expires.unwrap_or(row.created)))
}
