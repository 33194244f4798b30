//! Memory that requests hold while they are not done: a little for each account, and a rest that all share.
//!
//! With the length of each request bounded and nothing else, hosts that finish none could fill the memory of the machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all accounts of one kind share.
#[derive(Clone)]
pub(crate) struct Pool {
    left: Arc<AtomicUsize>,
    own_bytes: usize,
}

impl Pool {
    /// A pool of so many bytes, beyond `own_bytes` that each account has whatever the others do.
    pub(crate) fn new(own_bytes: usize, shared_bytes: usize) -> Self {
        let left = Arc::new(AtomicUsize::new(shared_bytes));
        Self { left, own_bytes }
    }

    /// One more account.
    pub(crate) fn account(&self) -> Account {
        Account {
            pool: self.clone(),
            held: Mutex::new(0),
        }
    }

    /// How much of what an account holds comes out of what all share.
    const fn beyond(&self, held: usize) -> usize {
        held.saturating_sub(self.own_bytes)
    }
}

/// What one of them holds, until it is given back or this is dropped.
pub(crate) struct Account {
    pool: Pool,
    held: Mutex<usize>,
}

impl Account {
    /// Takes so many bytes more, if there is a place for them.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let will_hold = held.saturating_add(bytes);
        let more = self
            .pool
            .beyond(will_hold)
            .saturating_sub(self.pool.beyond(*held));
        let take = |left: usize| left.checked_sub(more);
        let taken = self
            .pool
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_ok() {
            *held = will_hold;
        }
        taken.is_ok()
    }

    /// Gives so many of them back.
    pub(crate) fn give(&self, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let still_held = held.saturating_sub(bytes);
        let less = self
            .pool
            .beyond(*held)
            .saturating_sub(self.pool.beyond(still_held));
        self.pool.left.fetch_add(less, Ordering::Relaxed);
        *held = still_held;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_all_share_the_rest() {
        let pool = Pool::new(100, 300);
        let greedy = pool.account();
        assert!(greedy.take(100 + 300));
        assert!(!greedy.take(1));
        // Whoever comes now still has its own, and no more than that.
        let modest = pool.account();
        assert!(modest.take(60) && modest.take(40));
        assert!(!modest.take(1));
        greedy.give(10);
        assert!(modest.take(10) && !modest.take(1));
        drop(greedy);
        assert!(modest.take(290) && !modest.take(1));
        drop(modest);
        assert_eq!(pool.left.load(Ordering::Relaxed), 300);
    }
}
