//! Readiness: one probe at a time tests whether the database can be read and written, and all callers share its result.
//!
//! A probe writes, and a write waits while another process locks the database. So the probe runs on its own thread, holds
//! no lock, and callers wait for its result for a bounded time.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a result is shared. This limits probes to five a second.
const RESULT_LIFETIME: Duration = Duration::from_millis(200);
/// How long after the start of a probe callers wait for its result. After that the database counts as not ready.
const WAIT: Duration = Duration::from_secs(1);
/// The same after a probe that failed. While a database is locked for long, callers must not keep the threads that
/// reads need.
const WAIT_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Enough for the thread's calls into SQLite.
const STACK_BYTES: usize = 256 * 1024;

/// The latest result and the current probe.
pub(super) struct Readiness {
    state: Mutex<State>,
    /// Notified at the end of a probe.
    ended: Condvar,
}

struct State {
    latest: Option<ProbeResult>,
    /// When the current probe began. `None` between probes.
    probe_since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct ProbeResult {
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

    /// Returns the result of the latest probe. Where that is too old, runs `probe` or waits for the one that runs already.
    /// Returns `false` if there is no result in time.
    pub(super) fn is_ready(
        self: &Arc<Self>,
        probe: impl FnOnce() -> bool + Send + 'static,
    ) -> io::Result<bool> {
        let mut state = self.lock();
        if let Some(result) = state.latest
            && result.at.elapsed() < RESULT_LIFETIME
        {
            return Ok(result.is_ready);
        }
        let since = if let Some(since) = state.probe_since {
            since
        } else {
            let since = *state.probe_since.insert(Instant::now());
            // If no thread can be started, `EndOfProbe` is dropped at once and takes the lock.
            drop(state);
            self.start(probe)?;
            state = self.lock();
            since
        };
        let has_failed = state.latest.is_some_and(|it| !it.is_ready);
        let wait = if has_failed { WAIT_AFTER_FAILURE } else { WAIT };
        let left = wait.saturating_sub(since.elapsed());
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
                // `probe` drops its reference to the service before the result is announced.
                end.is_ready = probe();
            })
            .map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Announces a probe's result when dropped, so that a probe that panics has failed.
struct EndOfProbe {
    readiness: Arc<Readiness>,
    is_ready: bool,
}

impl Drop for EndOfProbe {
    fn drop(&mut self) {
        let mut state = self.readiness.lock();
        state.probe_since = None;
        state.latest = Some(ProbeResult {
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
                .is_ready(move || {
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
        assert!(!readiness.is_ready(|| panic!("on purpose")).unwrap());
        thread::sleep(RESULT_LIFETIME);
        assert!(readiness.is_ready(|| true).unwrap());
    }
}
