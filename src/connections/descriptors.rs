//! How many files this process may have open, and how many connections that allows.

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Limits;

/// What everything but the front end keeps open: the database with its WAL on each of its connections, sockets
/// that listen, the signals' pipe, stderr, and some to spare.
const RESERVED: usize = 64;
/// A connection to a worker: our end, and two handles of tiny_http's end.
const PER_WORKER_CONNECTION: usize = 3;
/// With fewer connections than this totpd does not start.
const FEWEST_CONNECTIONS: usize = 16;

/// Raises the limit as far as the system lets us, and fits the number of connections into it.
pub(crate) fn fit(limits: &mut Limits, worker_connections: usize) -> Result<(), String> {
    let now = getrlimit(Resource::Nofile);
    // Where raising is forbidden the limit stays what it is, and is fitted to.
    let _raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        },
    );
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return Ok(());
    };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let taken = worker_connections
        .saturating_mul(PER_WORKER_CONNECTION)
        .saturating_add(RESERVED);
    let left = files.saturating_sub(taken);
    if left < FEWEST_CONNECTIONS {
        let needed = taken.saturating_add(FEWEST_CONNECTIONS);
        return Err(format!(
            "only {files} files may be open, and {worker_connections} requests at a time need {needed}: raise the limit (ulimit -n, \
             LimitNOFILE=)"
        ));
    }
    if limits.connections > left {
        log::warn!(
            "{files} files may be open: serving {left} connections, not {}",
            limits.connections
        );
        limits.connections = left;
    }
    grow_table(taken.saturating_add(limits.connections));
    Ok(())
}

/// Has the system make its table of our open files as large as it will be.
///
/// It doubles it when it is full, and a process of many threads waits for all processors to notice. Where they
/// are busy that took seconds, and the accepting thread stood still for it.
fn grow_table(files: usize) {
    let highest = i32::try_from(files.saturating_sub(1)).unwrap_or(i32::MAX);
    // Closed at once: the table does not shrink. Where there is no stderr it grows later, as any table does.
    let _closed = fcntl_dupfd_cloexec(std::io::stderr(), highest);
}
