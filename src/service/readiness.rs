//! Whether the database can be read and written right now: many ask, one probe at a time finds out.
//!
//! A probe writes, and a write waits where another process holds the database. So it runs on a thread of its own, no
//! lock is held meanwhile, and a caller waits for its answer for a bounded time only.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer is shared: five probes a second at most.
const SHARED_FOR: Duration = Duration::from_millis(200);
/// How long after the start of a probe callers wait for its answer. Then they are told that the database is not ready.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where the probe before failed: a database that is locked for long must not take the threads that reads
/// need, one second after another.
const PATIENCE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The thread calls SQLite and nothing deep.
const STACK_BYTES: usize = 256 * 1024;

/// The latest answer, and the probe that is under way.
pub(super) struct Readiness {
    state: Mutex<State>,
    /// Notified when a probe ends.
    ended: Condvar,
}

struct State {
    latest: Option<Answer>,
    /// When the probe began that has not ended yet.
    probe_since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Answer {
    at: Instant,
    is_ready: bool,
}

impl Readiness {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                latest: None,
                probe_since: None,
            }),
            ended: Condvar::new(),
        })
    }

    /// Returns the answer of the latest probe, or of one that runs `probe` where that is too old. Returns `false` where
    /// there is no answer in time.
    pub(super) fn ask(
        self: &Arc<Self>,
        probe: impl FnOnce() -> bool + Send + 'static,
    ) -> io::Result<bool> {
        let mut state = self.lock();
        if let Some(answer) = state.latest
            && answer.at.elapsed() < SHARED_FOR
        {
            return Ok(answer.is_ready);
        }
        let since = if let Some(since) = state.probe_since {
            since
        } else {
            let since = *state.probe_since.insert(Instant::now());
            // Where no thread can be started the probe ends at once, and that takes the lock.
            drop(state);
            self.start(probe)?;
            state = self.lock();
            since
        };
        let has_failed = state.latest.is_some_and(|it| !it.is_ready);
        let patience = if has_failed {
            PATIENCE_AFTER_FAILURE
        } else {
            PATIENCE
        };
        let left = patience.saturating_sub(since.elapsed());
        let (state, _) = self
            .ended
            .wait_timeout_while(state, left, |it| it.probe_since == Some(since))
            .unwrap_or_else(PoisonError::into_inner);
        let has_ended = state.probe_since != Some(since);
        Ok(has_ended && state.latest.is_some_and(|it| it.is_ready))
    }

    fn start(self: &Arc<Self>, probe: impl FnOnce() -> bool + Send + 'static) -> io::Result<()> {
        let end = EndOfProbe {
            readiness: Arc::clone(self),
            is_ready: false,
        };
        thread::Builder::new()
            .name("readiness".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let mut end = end;
                // What the probe holds of the service is gone before anyone hears of its answer.
                end.is_ready = probe();
            })
            .map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Announces a probe's answer when dropped: a probe that panics has failed.
struct EndOfProbe {
    readiness: Arc<Readiness>,
    is_ready: bool,
}

impl Drop for EndOfProbe {
    fn drop(&mut self) {
        let mut state = self.readiness.lock();
        state.probe_since = None;
        state.latest = Some(Answer {
            at: Instant::now(),
            is_ready: self.is_ready,
        });
        drop(state);
        self.readiness.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// SECURITY.md 37
    #[test]
    fn one_probe_at_a_time_answers_all_and_nobody_waits_for_one_that_hangs() {
        let readiness = Readiness::new();
        let probes = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let ask = || {
            let (probes, released) = (Arc::clone(&probes), Arc::clone(&released));
            readiness
                .ask(move || {
                    probes.fetch_add(1, Ordering::SeqCst);
                    released.lock().unwrap().recv_timeout(LONG).is_ok()
                })
                .unwrap()
        };
        let begun = Instant::now();
        thread::scope(|scope| {
            let asking: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
            for it in asking {
                assert!(!it.join().unwrap(), "the probe has not ended");
            }
        });
        assert!(!ask(), "who comes late waits for nothing");
        assert!(begun.elapsed() < LONG / 2);
        assert_eq!(probes.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        let has_ended = |it: &mut State| it.probe_since.is_some();
        let state = readiness.ended.wait_while(readiness.lock(), has_ended);
        drop(state.unwrap());
        assert!(ask(), "the answer is shared");
        assert_eq!(probes.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_probe_that_panics_has_failed_and_the_next_one_is_asked() {
        let readiness = Readiness::new();
        assert!(!readiness.ask(|| panic!("on purpose")).unwrap());
        thread::sleep(SHARED_FOR);
        assert!(readiness.ask(|| true).unwrap());
    }
}
