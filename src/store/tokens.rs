//! Bearer tokens: their digests, roles and expiry. The tokens themselves are not stored.

use rusqlite::Row;

use super::{ReadTx, WriteTx};
use crate::error::Result;
use crate::model::{Name, OrgId, Timestamp, TokenId, UserId};

/// A token's row, without its digest.
pub(crate) struct TokenRow {
    pub(crate) id: TokenId,
    /// `admin`, `manager`, `checker` or `self`.
    pub(crate) role: String,
    pub(crate) org: Option<OrgId>,
    pub(crate) user: Option<UserId>,
    /// The organization of that user.
    pub(crate) user_org: Option<OrgId>,
    pub(crate) name: Option<Name>,
    pub(crate) created: Timestamp,
    pub(crate) expires: Option<Timestamp>,
}

fn token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        id: TokenId::from_trusted(row.get(0)?),
        role: row.get(1)?,
        org: row.get::<_, Option<String>>(2)?.map(OrgId::from_trusted),
        user: row.get::<_, Option<String>>(3)?.map(UserId::from_trusted),
        name: row.get::<_, Option<String>>(4)?.map(Name::from_trusted),
        created: Timestamp::from_micros(row.get(5)?),
        expires: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_micros),
        user_org: row.get::<_, Option<String>>(7)?.map(OrgId::from_trusted),
    })
}

impl ReadTx<'_> {
    /// The token with this digest. It may have expired.
    pub(crate) fn token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>> {
        // Each call looks its token up, and does not need the organization of the user.
        const SQL: &str =
            "SELECT id, role, org_id, user_id, name, created, expires, NULL FROM token
            WHERE hash = ?1";
        self.one(SQL, (hash.as_slice(),), token)
    }

    /// The number of tokens that expire by `until`, and the first `named` of them.
    pub(crate) fn tokens_expiring(
        &self,
        until: Timestamp,
        named: u32,
    ) -> Result<(u32, Vec<TokenRow>)> {
        const COUNT: &str = "SELECT count(*) FROM token WHERE expires <= ?1";
        const SQL: &str =
            "SELECT id, role, org_id, user_id, name, created, expires, NULL FROM token
            WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
        let count = self.one(COUNT, (until.micros(),), |row| row.get(0))?;
        let tokens = self.all(SQL, (until.micros(), named), token)?;
        Ok((count.unwrap_or_default(), tokens))
    }

    /// Tokens in the order of creation, at most `limit`.
    pub(crate) fn tokens(&self, limit: u32) -> Result<Vec<TokenRow>> {
        const SQL: &str = "SELECT id, role, org_id, user_id, name, created, expires,
            (SELECT org_id FROM user WHERE user.id = token.user_id) FROM token ORDER BY CAST(id AS INTEGER) LIMIT ?1";
        self.all(SQL, (limit,), token)
    }
}

impl WriteTx<'_> {
    pub(crate) fn insert_token(&self, it: &TokenRow, hash: &[u8; 32]) -> Result<()> {
        const SQL: &str =
            "INSERT INTO token (id, hash, role, org_id, user_id, name, created, expires)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let row = (
            it.id.as_str(),
            hash.as_slice(),
            &it.role,
            it.org.as_ref().map(OrgId::as_str),
            it.user.as_ref().map(UserId::as_str),
            it.name.as_ref().map(Name::as_str),
            it.created.micros(),
            it.expires.map(Timestamp::micros),
        );
        self.execute(SQL, row).map(|_| ())
    }

    pub(crate) fn delete_token(&self, id: &TokenId) -> Result<Option<TokenRow>> {
        const SQL: &str = "DELETE FROM token WHERE id = ?1
            RETURNING id, role, org_id, user_id, name, created, expires,
            (SELECT org_id FROM user WHERE user.id = token.user_id)";
        self.one(SQL, (id.as_str(),), token)
    }
}
