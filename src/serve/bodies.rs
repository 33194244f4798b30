//! What long bodies hold of memory, all together.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::api::status::AtTheDoor;

/// What each body may hold by itself: nearly every one is shorter.
const OWN_BYTES: usize = 8 * 1024;
/// What all bodies may hold beyond that: as much as messages of gRPC may. A thousand that are never finished would be
/// eight times as much.
const SHARED_BYTES: usize = 8 * 1024 * 1024;

/// What is left for long bodies.
pub(super) struct Bodies {
    left: AtomicUsize,
}

impl Bodies {
    pub(super) const fn new() -> Self {
        let left = AtomicUsize::new(SHARED_BYTES);
        Self { left }
    }

    /// A share for one body.
    pub(super) const fn share(&self) -> Share<'_> {
        Share {
            of: self,
            beyond: 0,
        }
    }
}

/// What one body holds, until this is dropped.
pub(super) struct Share<'a> {
    of: &'a Bodies,
    beyond: usize,
}

impl Share<'_> {
    /// The body grows to that length, if there is a place for it.
    pub(super) fn grow_to(&mut self, length: usize) -> Result<(), AtTheDoor> {
        let beyond = length.saturating_sub(OWN_BYTES);
        let more = beyond.saturating_sub(self.beyond);
        let take = |left: usize| left.checked_sub(more);
        self.of
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map_err(|_| AtTheDoor::Busy { retry_after_s: 1 })?;
        self.beyond = self.beyond.saturating_add(more);
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.left.fetch_add(self.beyond, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_all_share_the_rest() {
        let bodies = Bodies::new();
        let mut greedy = bodies.share();
        assert_eq!(greedy.grow_to(OWN_BYTES + SHARED_BYTES), Ok(()));
        assert!(greedy.grow_to(OWN_BYTES + SHARED_BYTES + 1).is_err());
        let mut short = bodies.share();
        assert_eq!(short.grow_to(OWN_BYTES), Ok(()));
        assert!(short.grow_to(OWN_BYTES + 1).is_err());
        drop(greedy);
        assert_eq!(short.grow_to(OWN_BYTES + SHARED_BYTES), Ok(()));
        drop(short);
        assert_eq!(bodies.left.load(Ordering::Relaxed), SHARED_BYTES);
    }
}
