//! What an API counts since it was made: requests, how long they took, and how codes were judged. No id and no address is
//! a label (SECURITY.md 42).

use std::time::Duration;

use super::answer::Answer;
use super::status::{Code, Refusal};
use crate::counters::{Counter, Histogram};

/// From half a millisecond, a change on a fast disk, to ten seconds, the longest that a request waits.
const DURATION_BOUNDS_US: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// An enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All values, in order.
            pub(crate) const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// The value in metrics.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            #[expect(clippy::as_conversions, reason = "the position in `ALL`")]
            const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// How a request came.
    Transport {
        Rest => "rest",
        Grpc => "grpc",
        GrpcWeb => "grpc_web",
    }
}

label! {
    /// What a request asked for.
    CallName {
        CreateUser => "CreateUser",
        GetUser => "GetUser",
        SearchUsers => "SearchUsers",
        ListEvents => "ListEvents",
        DeleteUser => "DeleteUser",
        LockUser => "LockUser",
        UnlockUser => "UnlockUser",
        DeactivateUser => "DeactivateUser",
        ActivateUser => "ActivateUser",
        StartTotp => "StartTOTPRegistration",
        ConfirmTotp => "VerifyTOTPRegistration",
        RemoveTotp => "RemoveTOTPAuthenticator",
        CheckTotp => "CheckTOTP",
        ListTotp => "ListTOTP",
        RenameTotp => "RenameTOTP",
        ResyncTotp => "ResyncTOTP",
        GenerateRecoveryCodes => "GenerateRecoveryCodes",
        GetRecoveryCodes => "GetRecoveryCodes",
        CheckRecoveryCode => "CheckRecoveryCode",
        RemoveRecoveryCodes => "RemoveRecoveryCodes",
        CreateInvitation => "CreateInvitation",
        RedeemInvitation => "RedeemInvitation",
        Health => "health",
        Ready => "ready",
        Metrics => "metrics",
        /// Refused before it was known, or no call.
        Other => "other",
    }
}

label! {
    /// How a request ended.
    CodeName {
        Ok => "ok",
        InvalidArgument => "invalid_argument",
        DeadlineExceeded => "deadline_exceeded",
        NotFound => "not_found",
        AlreadyExists => "already_exists",
        PermissionDenied => "permission_denied",
        ResourceExhausted => "resource_exhausted",
        FailedPrecondition => "failed_precondition",
        Unimplemented => "unimplemented",
        Internal => "internal",
        Unavailable => "unavailable",
        Unauthenticated => "unauthenticated",
    }
}

label! {
    /// How a code of `CheckTOTP` was judged.
    CheckResult {
        Accepted => "accepted",
        Wrong => "wrong",
        Used => "used",
        Waiting => "waiting",
        NoneConfirmed => "none_confirmed",
        Inactive => "inactive",
        NotFound => "not_found",
    }
}

label! {
    /// How a code of `CheckRecoveryCode` was judged.
    RecoveryResult {
        Accepted => "accepted",
        /// Wrong or used: the two are not told apart.
        Wrong => "wrong",
        Waiting => "waiting",
        NoneLeft => "none_left",
        Inactive => "inactive",
        NotFound => "not_found",
    }
}

impl From<Code> for CodeName {
    fn from(code: Code) -> Self {
        match code {
            Code::InvalidArgument => Self::InvalidArgument,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::Unimplemented => Self::Unimplemented,
            Code::Internal => Self::Internal,
            Code::Unavailable => Self::Unavailable,
            Code::Unauthenticated => Self::Unauthenticated,
        }
    }
}

type ByCode = [Counter; CodeName::ALL.len()];
type ByCall = [ByCode; CallName::ALL.len()];

/// The counters of one API.
#[derive(Debug)]
pub(crate) struct RequestCounts {
    requests: [ByCall; Transport::ALL.len()],
    durations: [Histogram; CallName::ALL.len()],
    checks: [Counter; CheckResult::ALL.len()],
    recovery_checks: [Counter; RecoveryResult::ALL.len()],
}

impl RequestCounts {
    pub(super) const fn new() -> Self {
        Self {
            requests: [const {
                [const { [const { Counter::new() }; CodeName::ALL.len()] }; CallName::ALL.len()]
            }; Transport::ALL.len()],
            durations: [const { Histogram::new(DURATION_BOUNDS_US) }; CallName::ALL.len()],
            checks: [const { Counter::new() }; CheckResult::ALL.len()],
            recovery_checks: [const { Counter::new() }; RecoveryResult::ALL.len()],
        }
    }

    /// Counts a request that was carried out, `time` after it was parsed.
    pub(super) fn note_answer(
        &self,
        transport: Transport,
        call: CallName,
        answer: &Result<Answer, Refusal>,
        time: Duration,
    ) {
        let code = answer
            .as_ref()
            .map_or_else(|it| it.code.into(), |_| CodeName::Ok);
        self.note(transport, call, code);
        if let Some(durations) = self.durations.get(call.index()) {
            durations.observe_time(time);
        }
        let counter = if call == CallName::CheckTotp {
            self.check_counter(answer)
        } else if call == CallName::CheckRecoveryCode {
            self.recovery_counter(answer)
        } else {
            None
        };
        if let Some(counter) = counter {
            counter.add_one();
        }
    }

    fn check_counter(&self, answer: &Result<Answer, Refusal>) -> Option<&Counter> {
        let result = match answer {
            Ok(_) => CheckResult::Accepted,
            Err(refusal) => check_result(refusal)?,
        };
        self.checks.get(result.index())
    }

    fn recovery_counter(&self, answer: &Result<Answer, Refusal>) -> Option<&Counter> {
        let result = match answer {
            Ok(_) => RecoveryResult::Accepted,
            Err(refusal) => recovery_result(refusal)?,
        };
        self.recovery_checks.get(result.index())
    }

    /// Counts a request that a transport answered by itself.
    pub(crate) fn note(&self, transport: Transport, call: CallName, code: CodeName) {
        if let Some(counter) = self.counter(transport, call, code) {
            counter.add_one();
        }
    }

    fn counter(&self, transport: Transport, call: CallName, code: CodeName) -> Option<&Counter> {
        let calls = self.requests.get(transport.index())?;
        calls.get(call.index())?.get(code.index())
    }

    /// The requests of each kind that there were.
    pub(crate) fn requests(
        &self,
    ) -> impl Iterator<Item = (Transport, CallName, CodeName, u64)> + '_ {
        let calls = Transport::ALL
            .into_iter()
            .flat_map(|transport| CallName::ALL.into_iter().map(move |call| (transport, call)));
        let all = calls.flat_map(|(transport, call)| {
            CodeName::ALL
                .into_iter()
                .map(move |code| (transport, call, code))
        });
        all.filter_map(|(transport, call, code)| {
            let count = self.counter(transport, call, code)?.get();
            (count > 0).then_some((transport, call, code, count))
        })
    }

    /// How long the calls took that there were.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (CallName, &Histogram)> {
        CallName::ALL.into_iter().zip(&self.durations)
    }

    /// How often codes were judged in each way.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (CheckResult, u64)> {
        let counted = self.checks.iter().map(Counter::get);
        CheckResult::ALL.into_iter().zip(counted)
    }

    /// How often recovery codes were judged in each way.
    pub(crate) fn recovery_checks(&self) -> impl Iterator<Item = (RecoveryResult, u64)> {
        let counted = self.recovery_checks.iter().map(Counter::get);
        RecoveryResult::ALL.into_iter().zip(counted)
    }
}

/// How `CheckTOTP` judged the code. `None` where it judged none: the token, a field or the database was the reason.
fn check_result(refusal: &Refusal) -> Option<CheckResult> {
    match refusal.id? {
        "EVENT-8isk2" => Some(CheckResult::Wrong),
        "TOTPD-Used1" => Some(CheckResult::Used),
        "TOTPD-Wait1" => Some(CheckResult::Waiting),
        "COMMAND-SF3fg" => Some(CheckResult::Inactive),
        "COMMAND-3Mif9s" if refusal.code == Code::FailedPrecondition => {
            Some(CheckResult::NoneConfirmed)
        }
        _ if refusal.code == Code::NotFound => Some(CheckResult::NotFound),
        _ => None,
    }
}

/// How `CheckRecoveryCode` judged the code, likewise.
fn recovery_result(refusal: &Refusal) -> Option<RecoveryResult> {
    match refusal.id? {
        "TOTPD-Recov1" => Some(RecoveryResult::Wrong),
        "TOTPD-Wait1" => Some(RecoveryResult::Waiting),
        "TOTPD-Recov2" => Some(RecoveryResult::NoneLeft),
        "COMMAND-SF3fg" => Some(RecoveryResult::Inactive),
        _ if refusal.code == Code::NotFound => Some(RecoveryResult::NotFound),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_label_stands_at_its_index() {
        for (nth, call) in CallName::ALL.into_iter().enumerate() {
            assert_eq!(call.index(), nth);
        }
        for (nth, code) in CodeName::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), nth);
        }
    }

    /// Everything that counting adds to a request of the API, the two readings of the clock included.
    #[test]
    #[ignore = "measures: run it with --release"]
    fn counting_takes_at_most_a_microsecond_of_a_request() {
        const REQUESTS: u32 = 2_000_000;
        let counts = RequestCounts::new();
        let answer = Err(Refusal::wrong_code(None));
        let begun = Instant::now();
        for _ in 0..REQUESTS {
            let parsed = black_box(Instant::now());
            counts.note_answer(
                Transport::Rest,
                CallName::CheckTotp,
                &answer,
                parsed.elapsed(),
            );
        }
        let each = begun.elapsed() / REQUESTS;
        assert!(each <= Duration::from_micros(1), "{each:?}");
        // Shown by `--nocapture` alone.
        std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("counting a request takes {} ns\n", each.as_nanos()).as_bytes(),
        )
        .unwrap();
    }
}
