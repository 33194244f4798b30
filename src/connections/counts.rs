//! Connections and requests that were refused before they were carried out, by reason.

use crate::api::status::TransportError;
use crate::counters::Counter;

/// Why a connection, or a request on one, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// All connections were in use.
    Limit,
    /// All connections of its address were in use.
    PeerLimit,
    /// The head was too long.
    Head,
    /// The body was too long.
    Body,
    /// The request was not complete in time.
    Slow,
    /// The bytes were not one request.
    Malformed,
    /// The TLS handshake failed.
    Tls,
}

impl RefusalReason {
    pub(crate) const ALL: [Self; 7] = [
        Self::Limit,
        Self::PeerLimit,
        Self::Head,
        Self::Body,
        Self::Slow,
        Self::Malformed,
        Self::Tls,
    ];

    /// The reason of a transport that refuses what a client sends; `None` where it is not what the client sends.
    const fn of(refusal: TransportError) -> Option<Self> {
        match refusal {
            TransportError::BadFraming(_) | TransportError::Compressed => Some(Self::Malformed),
            TransportError::BodyTooLarge => Some(Self::Body),
            TransportError::HeadTooLarge => Some(Self::Head),
            TransportError::TooSlow => Some(Self::Slow),
            TransportError::AnswerTooLarge
            | TransportError::DeadlinePassed
            | TransportError::Busy
            | TransportError::Stopping
            | TransportError::CommitFailed
            | TransportError::Bug => None,
        }
    }

    /// The value of the label in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::Head => "head",
            Self::Body => "body",
            Self::Slow => "slow",
            Self::Malformed => "malformed",
            Self::Tls => "tls",
        }
    }
}

/// How often there was each reason.
#[derive(Debug)]
pub(crate) struct RefusalCounts([Counter; RefusalReason::ALL.len()]);

impl RefusalCounts {
    pub(super) const fn new() -> Self {
        Self([const { Counter::new() }; RefusalReason::ALL.len()])
    }

    pub(crate) fn note(&self, reason: RefusalReason) {
        let mut all = RefusalReason::ALL.iter().zip(&self.0);
        if let Some((_, counter)) = all.find(|(it, _)| **it == reason) {
            counter.add_one();
        }
    }

    /// Counts what a transport refuses, where that is what the client sent.
    pub(crate) fn note_refusal(&self, refusal: TransportError) {
        if let Some(reason) = RefusalReason::of(refusal) {
            self.note(reason);
        }
    }

    pub(crate) fn read(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        let counted = self.0.iter().map(Counter::get);
        RefusalReason::ALL.into_iter().zip(counted)
    }
}
