//! What the system tells about this process: the `process_` metrics that all programs have.
//!
//! Reads `/proc/self` alone, which a service may always do. Where it is missing these metrics are too.

use std::fmt;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::page::Page;
use super::{number, seconds, whole};
use crate::model::Timestamp;

const KIB: f64 = 1024.0;

pub(super) fn encode(page: &mut Page<'_>, started: Timestamp) -> fmt::Result {
    let help = "When the server started, by its own clock";
    page.gauge("process_start_time_seconds", help, seconds(started))?;
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u64::try_from(used.tv_nsec).map_or(0.0, whole) / 1e9;
    let used = u64::try_from(used.tv_sec).map_or(0.0, whole) + nanos;
    page.counter("process_cpu_seconds", "Processor time", used)?;
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One is that of the directory itself.
        let open = number(open.count().saturating_sub(1));
        page.gauge("process_open_fds", "Open file descriptors", open)?;
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.gauge(
            "process_max_fds",
            "The most open file descriptors",
            whole(most),
        )?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, name, help, unit) in [
        (
            "VmSize:",
            "process_virtual_memory_bytes",
            "Virtual memory",
            KIB,
        ),
        (
            "VmRSS:",
            "process_resident_memory_bytes",
            "Resident memory",
            KIB,
        ),
        ("Threads:", "process_threads", "Threads", 1.0),
    ] {
        if let Some(value) = field_of(&status, field) {
            page.gauge(name, help, value * unit)?;
        }
    }
    Ok(())
}

/// The number of a field of `/proc/self/status`.
fn field_of(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|it| it.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}
