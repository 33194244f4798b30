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
}

/// What one connection holds.
pub(crate) struct Share {
    budget: MemoryBudget,
    own_bytes: usize,
    held: Mutex<usize>,
}

impl Share {
    /// Reserves memory for one request; `None` if the budget has not that much left.
    pub(crate) fn lease(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let lease = Lease {
            share: Arc::clone(self),
            bytes: AtomicUsize::new(0),
        };
        lease.grow(bytes).then_some(lease)
    }

    fn change(&self, to: impl FnOnce(usize) -> usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let will_hold = to(*held);
        let shared = |held: usize| held.saturating_sub(self.own_bytes);
        let (before, after) = (shared(*held), shared(will_hold));
        let left = &self.budget.left;
        let more = after.saturating_sub(before);
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| {
            it.checked_sub(more)
        });
        if taken.is_err() {
            return false;
        }
        left.fetch_add(before.saturating_sub(after), Ordering::Relaxed);
        *held = will_hold;
        true
    }
}

/// What one request holds, until this is dropped.
pub(crate) struct Lease {
    share: Arc<Share>,
    bytes: AtomicUsize,
}

impl Lease {
    /// Reserves more bytes, if the budget has them.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let grown = self.share.change(|held| held.saturating_add(bytes));
        if grown {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        grown
    }

    /// Keeps `bytes` instead of what was reserved. Returns `false`, and keeps that, if the budget does not have them.
    pub(crate) fn resize(&self, bytes: usize) -> bool {
        let held = self.bytes.load(Ordering::Relaxed);
        let resized = self
            .share
            .change(|all| all.saturating_sub(held).saturating_add(bytes));
        if resized {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
        resized
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.share.change(|held| held.saturating_sub(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_has_its_own_bytes_and_all_share_the_rest() {
        let budget = MemoryBudget::new(300);
        let greedy = budget.share(100);
        let all = greedy.lease(100 + 300).unwrap();
        assert!(greedy.lease(1).is_none());
        // Another share still has its own bytes, and no more than those.
        let modest = budget.share(100);
        let lease = modest.lease(60).unwrap();
        assert!(lease.grow(40));
        assert!(!lease.grow(1));
        drop(all);
        assert!(lease.grow(300) && !lease.grow(1));
        drop(lease);
        // An answer keeps what it takes of what was reserved for it.
        let lease = modest.lease(400).unwrap();
        assert!(greedy.lease(101).is_none());
        assert!(lease.resize(150) && !lease.resize(401));
        assert!(greedy.lease(100 + 250).is_some());
        drop(lease);
        assert_eq!(budget.left.load(Ordering::Relaxed), 300);
    }
}
