//! The code that a `self` token needs beside itself, where the setting `self-removal` is `code` (SECURITY.md 48).
//!
//! It is needed for each change that could take a user's authenticators away, and for each that leads there: with a
//! stolen `self` token an attacker could otherwise enrol another phone and use its code, or generate recovery codes and use
//! one. The code is judged and used up in the transaction of the change.

use super::RecoveryVerdict;
use super::call::TxContext;
use super::codes::Verdict;
use super::totps::Limited;
use crate::error::{Error, Missing, ProofRefusal, Result, WrongState};
use crate::model::{Proof, SelfRemoval, TotpId, UserId, UserState};
use crate::store::{TotpRow, TotpState, UserRow, WriteTx};

impl TxContext<'_> {
    /// Whether the caller needs a code for changes of its user's authenticators, if one of them is confirmed. Reads nothing
    /// for other callers than `self` tokens.
    pub(super) fn may_need_proof(&self, tx: &WriteTx<'_>) -> Result<bool> {
        let is_self = self.principal.role.user().is_some();
        Ok(is_self && tx.settings()?.self_removal == SelfRemoval::Code)
    }

    /// Whether the caller needs a code for a change of a user with these authenticators.
    pub(super) fn needs_proof(&self, tx: &WriteTx<'_>, totps: &[TotpRow]) -> Result<bool> {
        let is_confirmed = |it: &TotpRow| it.state == TotpState::Confirmed;
        Ok(totps.iter().any(is_confirmed) && self.may_need_proof(tx)?)
    }

    /// Whether an enrolment that starts now was allowed by a code or by another role. Call it after the code was judged.
    pub(super) fn is_proven(&self, tx: &WriteTx<'_>, totps: &[TotpRow]) -> Result<bool> {
        Ok(self.principal.role.user().is_none() || self.needs_proof(tx, totps)?)
    }

    /// Judges the code that a removal needs, and uses it up. Returns the refusal, if it is refused. Removing a pending
    /// authenticator needs none, because it can check nothing.
    pub(super) fn prove_removal<T>(
        &self,
        tx: &WriteTx<'_>,
        user: &UserId,
        totp: &TotpId,
    ) -> Result<Option<Limited<T>>> {
        if !self.may_need_proof(tx)? {
            return Ok(None);
        }
        let user = self.visible_user(tx, user, Missing::User)?;
        let totps = tx.totps(&user, self.now)?;
        let found = totps.iter().find(|it| it.id == *totp);
        let found = found.ok_or(Error::NotFound(Missing::Totp))?;
        match found.state {
            TotpState::Pending => Ok(None),
            TotpState::Confirmed => self.prove(tx, &user, &totps),
        }
    }

    /// Judges the code of a change that needs one, and uses it up. Returns the refusal, if it is refused. The caller must
    /// return it as a value: an error would roll back the count of failures.
    pub(super) fn prove<T>(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        totps: &[TotpRow],
    ) -> Result<Option<Limited<T>>> {
        let refusal = match self.require_proof(user)? {
            Proof::Code(code) => {
                let confirmed = totps.iter().filter(|it| it.state == TotpState::Confirmed);
                let confirmed: Vec<&TotpRow> = confirmed.collect();
                match self.use_code(tx, user, &confirmed, code, None)? {
                    Verdict::Accepted(_) => None,
                    Verdict::Used => Some(ProofRefusal::Used),
                    Verdict::Wrong { begins_wait_s } => {
                        Some(ProofRefusal::WrongCode { begins_wait_s })
                    }
                    Verdict::Wait { retry_after_s } => Some(ProofRefusal::Wait { retry_after_s }),
                }
            }
            Proof::RecoveryCode(code) => {
                let verdict = self.use_recovery_code(tx, user, code)?;
                match verdict.ok_or(Error::WrongState(WrongState::NoRecoveryCodes))? {
                    RecoveryVerdict::Accepted(_) => None,
                    RecoveryVerdict::Refused { begins_wait_s } => {
                        Some(ProofRefusal::WrongRecoveryCode { begins_wait_s })
                    }
                    RecoveryVerdict::Wait { retry_after_s } => {
                        Some(ProofRefusal::Wait { retry_after_s })
                    }
                }
            }
        };
        Ok(refusal.map(Limited::Refused))
    }

    /// The code that came with the call. Codes of users who are locked or inactive are not judged, as in a check.
    fn require_proof(&self, user: &UserRow) -> Result<&Proof> {
        if user.state != UserState::Active {
            return Err(Error::WrongState(WrongState::UserNotActive));
        }
        self.proof.ok_or(Error::WrongState(WrongState::ProofNeeded))
    }

    /// Records that a `self` token begins a change for which it may need a code. Returns the refusal, if it must wait or
    /// the code is refused. A change that has to wait uses up no code, and one whose code is refused does not count.
    pub(super) fn begin_proven_change<T>(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        totps: &[TotpRow],
    ) -> Result<Option<Limited<T>>> {
        let needs_proof = self.needs_proof(tx, totps)?;
        if needs_proof {
            self.require_proof(user)?;
        }
        let is_self = self.principal.role.user().is_some();
        if is_self && let Some(wait) = tx.self_change_wait(&user.id)? {
            return Ok(Some(Limited::Wait(wait)));
        }
        if needs_proof && let Some(refused) = self.prove(tx, user, totps)? {
            return Ok(Some(refused));
        }
        if is_self {
            tx.record_self_change(&user.id)?;
        }
        Ok(None)
    }
}
