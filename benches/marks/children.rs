//! Processes and files that must not be left behind, however the run ends.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Result;

/// Those that live.
static LIVING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
/// Longer than totpd takes to stop: its own limit is 10 s.
const STOP: Duration = Duration::from_secs(15);

fn living() -> MutexGuard<'static, Vec<Pid>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On Ctrl-C or SIGTERM: kills the children and removes the directory.
pub(crate) fn clean_up_on_signal(dir: PathBuf) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for pid in living().iter() {
                let _gone = kill_process(*pid, Signal::KILL);
            }
            let _gone = std::fs::remove_dir_all(&dir);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// A child process that is killed when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pid: Pid,
}

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        let pid = Pid::from_child(&child);
        living().push(pid);
        Self { child, pid }
    }

    /// Tells it to stop, waits, and says how it ended.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        kill_process(self.pid, Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Some(status) = self.child.try_wait()? {
                self.forget();
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(format!("the server did not stop within {} s", STOP.as_secs()).into())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait()?;
        self.forget();
        Ok(status)
    }

    /// A process id that is not ours any more may soon be another process's.
    fn forget(&self) {
        living().retain(|it| *it != self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.forget();
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
