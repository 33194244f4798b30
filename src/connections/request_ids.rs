//! Which id a request has: the one that a trusted proxy gave it, else one that is made here.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Peer;
use crate::model::RequestId;

/// Makes ids that do not tell how many requests there were: a count under a keyed hash. They are no secrets, so that
/// costs no call of the operating system.
#[derive(Default)]
pub(crate) struct RequestIds {
    keys: [RandomState; 2],
    count: AtomicU64,
}

impl RequestIds {
    /// The id of a request that came from `peer`. `sent` is what its head says, if that is well-formed; only a peer that
    /// is trusted is believed, because an id leads to what is found in the log.
    pub(crate) fn choose(&self, peer: Peer, sent: Option<RequestId>) -> RequestId {
        sent.filter(|_| peer.is_trusted)
            .unwrap_or_else(|| self.make())
    }

    /// A new id.
    pub(crate) fn make(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|it| it.hash_one(count));
        RequestId::of_numbers(high, low)
    }
}
