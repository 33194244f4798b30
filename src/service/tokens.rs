//! Bearer tokens: creating, listing and revoking them. Only the digest of a token is stored.

use std::time::Duration;

use super::{Context, Inner, Role, Service};
use crate::error::{Error, Missing, Result};
use crate::model::{Name, OrgId, Timestamp, TokenId};
use crate::seal::{BearerToken, token_hash};
use crate::store::{Event, EventKind, EventSource, TokenRow, UserRow, WriteTx};

/// The most tokens in one list. The operator creates each of them.
const MAX_LISTED: u32 = 100_000;

/// The fields of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it stands for.
    pub role: Role,
    /// What a person calls it.
    pub name: Option<Name>,
    /// How long the token is valid. `None` means that it never expires.
    pub lifetime: Option<Duration>,
}

/// A token's fields, without the token itself.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What it stands for.
    pub role: Role,
    /// The organization of the user it is bound to.
    pub user_org: Option<OrgId>,
    /// What a person calls it.
    pub name: Option<Name>,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires. `None` means never.
    pub expires: Option<Timestamp>,
}

impl Service {
    /// Creates a token. The token is returned only here.
    pub fn create_token(&self, context: &Context, new: NewToken) -> Result<(TokenId, BearerToken)> {
        let token = BearerToken::new()?;
        let hash = token_hash(token.reveal());
        let id = self.change_as_admin(context, move |call, tx| {
            if let Some(org) = new.role.organization() {
                Inner::require_organization(tx, org.clone())?;
            }
            let user_org = match new.role.user() {
                Some(user) => {
                    let user = tx.user(None, user)?;
                    Some(user.ok_or(Error::NotFound(Missing::User))?.org)
                }
                None => None,
            };
            let id = TokenId::from_trusted(tx.new_id()?);
            let row = insert(tx, id, new, user_org, &hash, &call.principal.source)?;
            Ok(row.id)
        })?;
        Ok((id, token))
    }

    /// All tokens, oldest first.
    pub fn tokens(&self, context: &Context) -> Result<Vec<Token>> {
        let rows = self.read_as_admin(context, |tx| tx.tokens(MAX_LISTED))?;
        rows.into_iter().map(token_of).collect()
    }

    /// Revokes a token: every later transaction refuses it.
    pub fn revoke_token(&self, context: &Context, id: TokenId) -> Result<Token> {
        self.change_as_admin(context, move |call, tx| {
            let row = tx
                .delete_token(&id)?
                .ok_or(Error::NotFound(Missing::Token))?;
            append(tx, EventKind::TokenRevoked, &call.principal.source, &row)?;
            token_of(row)
        })
    }
}

fn token_of(row: TokenRow) -> Result<Token> {
    let role = Role::of_row(&row)?;
    Ok(Token {
        id: row.id,
        role,
        user_org: row.user_org,
        name: row.name,
        created: row.created,
        expires: row.expires,
    })
}

/// Inserts a token and records it. `user_org` is the organization of the user that it is bound to.
pub(super) fn insert(
    tx: &WriteTx<'_>,
    id: TokenId,
    new: NewToken,
    user_org: Option<OrgId>,
    hash: &[u8; 32],
    source: &EventSource,
) -> Result<TokenRow> {
    let row = TokenRow {
        id,
        role: new.role.name().to_owned(),
        org: new.role.organization().cloned(),
        user: new.role.user().cloned(),
        user_org,
        name: new.name,
        created: tx.event_at(),
        expires: new.lifetime.map(|it| tx.now().after(it)),
    };
    tx.insert_token(&row, hash)?;
    append(tx, EventKind::TokenCreated, source, &row)?;
    Ok(row)
}

/// Appends an event about a user, or about the instance.
pub(super) fn append_about(
    tx: &WriteTx<'_>,
    kind: EventKind,
    source: &EventSource,
    user: Option<&UserRow>,
) -> Result<()> {
    tx.append(&Event {
        kind,
        source,
        org: user.map(|it| &it.org),
        user: user.map(|it| &it.id),
        about: None,
        name: None,
    })
}

fn append(tx: &WriteTx<'_>, kind: EventKind, source: &EventSource, token: &TokenRow) -> Result<()> {
    let (org, user) = (
        token.org.as_ref().or(token.user_org.as_ref()),
        token.user.as_ref(),
    );
    tx.append(&Event {
        kind,
        source,
        org,
        user,
        about: Some(token.id.as_str()),
        name: token.name.as_ref(),
    })
}
