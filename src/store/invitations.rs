//! Invitations: links that are good once. Only digests of their codes are stored (SECURITY.md 41).

use super::{ReadTx, WriteTx};
use crate::error::Result;
use crate::model::{Timestamp, UserId};

/// Whom an invitation is for. `None`: the administrator.
pub(crate) type Invited = Option<UserId>;

impl ReadTx<'_> {
    /// Whether there is an invitation with this digest that has not expired.
    pub(crate) fn has_invitation(&self, digest: &[u8; 32], now: Timestamp) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM invitation WHERE digest = ?1 AND expires > ?2";
        let found = self.one(SQL, (digest.as_slice(), now.micros()), |_| Ok(()))?;
        Ok(found.is_some())
    }
}

impl WriteTx<'_> {
    /// Inserts an invitation.
    pub(crate) fn insert_invitation(
        &self,
        digest: &[u8; 32],
        user: Option<&UserId>,
        expires: Timestamp,
    ) -> Result<()> {
        const SQL: &str =
            "INSERT INTO invitation (digest, user_id, created, expires) VALUES (?1, ?2, ?3, ?4)";
        let user = user.map(UserId::as_str);
        let created = self.event_at().micros();
        self.execute(SQL, (digest.as_slice(), user, created, expires.micros()))
            .map(|_| ())
    }

    /// Deletes the invitation with this digest and returns whom it is for, if it has not expired. Of two concurrent
    /// requests with the same code only one finds it.
    pub(crate) fn take_invitation(&self, digest: &[u8; 32]) -> Result<Option<Invited>> {
        const SQL: &str = "DELETE FROM invitation WHERE digest = ?1 AND expires > ?2
            RETURNING user_id";
        self.one(SQL, (digest.as_slice(), self.now().micros()), |row| {
            Ok(row.get::<_, Option<_>>(0)?.map(UserId::from_trusted))
        })
    }

    /// Deletes the invitations of a user, or those for the administrator. Returns whether there were any.
    pub(crate) fn void_invitations(&self, user: Option<&UserId>) -> Result<bool> {
        const SQL: &str = "DELETE FROM invitation WHERE user_id IS ?1";
        Ok(self.execute(SQL, (user.map(UserId::as_str),))? > 0)
    }

    /// Deletes every invitation. A restore calls it: the backup does not know which of them were used since.
    pub(crate) fn void_all_invitations(&self) -> Result<()> {
        self.execute("DELETE FROM invitation", ()).map(|_| ())
    }

    /// Deletes invitations that have expired, at most `slice` of them.
    pub(crate) fn delete_expired_invitations(&self, slice: u32) -> Result<()> {
        const SQL: &str = "DELETE FROM invitation WHERE digest IN (
            SELECT digest FROM invitation WHERE expires <= ?1 ORDER BY expires LIMIT ?2)";
        self.execute(SQL, (self.now().micros(), slice)).map(|_| ())
    }
}
