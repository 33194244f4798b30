//! Finding out how far the clock of an authenticator is off (RFC 6238 §6).

use super::codes::{Verdict, remaining_wait_s};
use super::totps::{details, find};
use super::{Context, Permission, Service};
use crate::error::{Error, Missing, Result, WrongState};
use crate::model::{Code, TotpId, UserId, UserState};
use crate::store::{EventKind, TotpState};
use crate::totp::match_two_codes;

impl Service {
    /// Finds out how far the clock of a confirmed authenticator is off, by two codes that it showed one after the other.
    ///
    /// Their steps may be up to 20 from the present one. Both must be newer than every code that was used, and both are used
    /// up. Codes that do not match count together as one wrong code, as in [`Self::check_totp`]. A match does not clear the
    /// count of failures: a `self` token could clear it at will by an authenticator of its own, and other roles unlock the
    /// user.
    pub fn resync_totp(
        &self,
        context: &Context,
        user: UserId,
        totp: TotpId,
        codes: [Code; 2],
    ) -> Result<Verdict> {
        self.change_user(
            context,
            Permission::WriteTotp,
            user,
            move |call, tx, user| {
                let user = call.visible_user(tx, user, Missing::User)?;
                let totp = find(tx.totps(&user, call.now)?, &totp, Missing::Totp)?;
                if user.state != UserState::Active {
                    return Err(Error::WrongState(WrongState::UserNotActive));
                }
                if totp.state != TotpState::Confirmed {
                    return Err(Error::WrongState(WrongState::NoneConfirmed));
                }
                if let Some(retry_after_s) = remaining_wait_s(tx, &user.id)? {
                    return Ok(Verdict::Wait { retry_after_s });
                }
                let secret = call.inner.secret(tx, &user, &totp)?;
                let (parameters, drift) = (totp.parameters, totp.drift);
                match match_two_codes(&secret, parameters, drift, &codes, tx.now()) {
                    Some(matched) if tx.claim_two_steps(&user, &totp.id, matched)? => {
                        call.record_totp(tx, EventKind::TotpResynced, &user, Some(&totp))?;
                        Ok(Verdict::Accepted(details(&totp, &user, tx.event_at())))
                    }
                    Some(_) => Ok(Verdict::Used),
                    None => call.count_wrong_code(tx, &user, Some(&totp)),
                }
            },
        )
    }
}
