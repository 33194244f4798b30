//! The memory that requests may hold until they are answered: a little for each connection, and a rest that all share.
//!
//! The length of each request is limited, but without this budget many unfinished ones could fill the machine's memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all connections share.
#[derive(Clone)]
pub(crate) struct MemoryBudget {
    left: Arc<AtomicUsize>,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let left = Arc::new(AtomicUsize::new(bytes));
        Self { left }
    }

    /// The share of one connection. It has `own_bytes` whatever the others hold.
    pub(crate) fn share(&self, own_bytes: usize) -> Arc<Share> {
        Arc::new(Share {
            budget: self.clone(),
            own_bytes,
            held: Mutex::new(0),
        })
    }

    /// The share of a connection with one request at a time, as the lease of that request. Nothing is reserved yet.
    pub(crate) fn single(&self, own_bytes: usize) -> Lease {
        Lease::of(self.share(own_bytes))
    }
}

/// What one connection holds.
pub(crate) struct Share {
    budget: MemoryBudget,
    own_bytes: usize,
    held: Mutex<usize>,
}

impl Share {
    /// Reserves memory for one request; `None` if the budget has not that much left.
    #[cfg(feature = "grpc")]
    pub(crate) fn lease(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let mut lease = Lease::of(Arc::clone(self));
        lease.resize(bytes).then_some(lease)
    }
}

/// What one request holds, until this is dropped.
pub(crate) struct Lease {
    share: Arc<Share>,
    bytes: usize,
}

impl Lease {
    const fn of(share: Arc<Share>) -> Self {
        Self { share, bytes: 0 }
    }

    /// Reserves more bytes, if the budget has them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.resize(self.bytes.saturating_add(bytes))
    }

    /// Reserves `bytes` instead of what was reserved. Returns `false`, and keeps that, if the budget does not have them.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        let share = &self.share;
        let mut held = share.held.lock().unwrap_or_else(PoisonError::into_inner);
        let will_hold = held.saturating_sub(self.bytes).saturating_add(bytes);
        let beyond_own = |bytes: usize| bytes.saturating_sub(share.own_bytes);
        let (before, after) = (beyond_own(*held), beyond_own(will_hold));
        let left = &share.budget.left;
        let more = after.saturating_sub(before);
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| {
            it.checked_sub(more)
        });
        if taken.is_err() {
            return false;
        }
        left.fetch_add(before.saturating_sub(after), Ordering::Relaxed);
        *held = will_hold;
        self.bytes = bytes;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_has_its_own_bytes_and_all_share_the_rest() {
        let budget = MemoryBudget::new(300);
        let greedy = budget.share(100);
        let mut all = Lease::of(Arc::clone(&greedy));
        assert!(all.resize(100 + 300) && !Lease::of(Arc::clone(&greedy)).grow(1));
        // Another share still has its own bytes, and no more than those.
        let mut lease = budget.single(100);
        assert!(lease.grow(60) && lease.grow(40) && !lease.grow(1));
        drop(all);
        assert!(lease.grow(300) && !lease.grow(1));
        // An answer keeps what it takes of what was reserved for it.
        let mut other = Lease::of(greedy);
        assert!(!other.resize(101));
        assert!(lease.resize(150) && !lease.resize(401) && other.resize(100 + 250));
        drop((lease, other));
        assert_eq!(budget.left.load(Ordering::Relaxed), 300);
    }
}
