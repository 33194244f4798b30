//! Judging codes: the wait before, the comparison, and the use or the failure that it leaves (SECURITY.md 1, 11).
//!
//! Knows no calls. Who may ask, and of whom, is judged before.

use std::time::Duration;

use super::call::TxContext;
use super::totps::details;
use super::{Details, Inner};
use crate::error::Result;
use crate::model::{Code, UserId, Window};
use crate::store::{EventKind, TotpRow, UserRow, WriteTx};
use crate::totp::{Match, Secret, match_code, wait_after};

/// The result of checking a code. A refused code is a value and not an error, because an error would roll back the count
/// of failures.
#[must_use = "a code that was not accepted is no error: look at the verdict"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The code was good. That it was used is committed.
    Accepted(Details),
    /// The code was wrong, and counted.
    Wrong {
        /// The length of the wait that this code began, in seconds.
        begins_wait_s: Option<u64>,
    },
    /// The code was right, but it or a later one was used before. It does not count as wrong.
    Used,
    /// The user has to wait after too many wrong codes. The code was not compared.
    Wait {
        /// The seconds until codes are compared again.
        retry_after_s: u64,
    },
}

impl Inner {
    /// The step within the window that `code` belongs to. A secret that cannot be opened is an error, and counts neither as
    /// a wrong code nor as a good one.
    pub(super) fn find_step(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        totp: &TotpRow,
        code: &Code,
        window: Window,
    ) -> Result<Option<Match>> {
        let secret = self.secret(tx, user, totp)?;
        let (parameters, drift) = (totp.parameters, totp.drift);
        Ok(match_code(
            &secret,
            parameters,
            drift,
            window,
            code,
            tx.now(),
        ))
    }

    /// The secret of an authenticator.
    pub(super) fn secret(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        totp: &TotpRow,
    ) -> Result<Secret> {
        let sealed = tx.sealed_secret(totp.slot)?;
        self.unseal(tx, &sealed, &user.id, &totp.id)
    }
}

impl TxContext<'_> {
    /// Judges a code against confirmed authenticators, and uses it up or counts the failure. The caller must not turn the
    /// verdict into an error, which would roll back the count. `named` is the authenticator that the call names, for the
    /// event of a failure.
    pub(super) fn use_code(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        confirmed: &[&TotpRow],
        code: &Code,
        named: Option<&TotpRow>,
    ) -> Result<Verdict> {
        if let Some(retry_after_s) = remaining_wait_s(tx, &user.id)? {
            return Ok(Verdict::Wait { retry_after_s });
        }
        let window = tx.settings()?.window;
        let mut was_good = false;
        for it in confirmed {
            let Some(matched) = self.inner.find_step(tx, user, it, code, window)? else {
                continue;
            };
            if tx.claim_step(user, &it.id, matched)? {
                tx.clear_failures(&user.id)?;
                self.record_totp(tx, EventKind::TotpChecked, user, Some(it))?;
                return Ok(Verdict::Accepted(details(it, user, tx.event_at())));
            }
            was_good = true;
        }
        if was_good {
            return Ok(Verdict::Used);
        }
        self.count_wrong_code(tx, user, named)
    }

    /// Counts a wrong code. The verdict is returned only after the count is committed.
    pub(super) fn count_wrong_code(
        &self,
        tx: &WriteTx<'_>,
        user: &UserRow,
        totp: Option<&TotpRow>,
    ) -> Result<Verdict> {
        tx.count_failure(&user.id)?;
        self.record_totp(tx, EventKind::CodeRefused, user, totp)?;
        let begins_wait_s = remaining_wait_s(tx, &user.id)?;
        Ok(Verdict::Wrong { begins_wait_s })
    }
}

/// The seconds until the user's codes are compared again, if the user has to wait.
pub(super) fn remaining_wait_s(tx: &WriteTx<'_>, user: &UserId) -> Result<Option<u64>> {
    let Some(failures) = tx.failures(user)? else {
        return Ok(None);
    };
    if failures.judged_at > tx.now() {
        // The clock was set back. The wait starts again, because otherwise it would last longer than its length.
        tx.clamp_failure_times()?;
    }
    let passed = tx.now().since(failures.judged_at);
    let left = wait_after(failures.in_a_row).saturating_sub(passed);
    Ok((!left.is_zero()).then_some(whole_seconds(left)))
}

/// Rounds up, so that a client that waits this long is not too early.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
}
