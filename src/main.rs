//! The `totpd` binary: see [`cli`].

mod cli;
mod formats;

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Overwrites heap memory when it is freed. Secrets, codes and tokens pass through buffers of JSON, HTTP and TLS
/// libraries that do not zeroize them, and a buffer that grows leaves a copy behind.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    forbid_dumps();
    cli::run()
}

/// Prevents core dumps of this process, and other processes of the same user from reading its memory.
#[cfg(target_os = "linux")]
fn forbid_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // A failure is not a reason to stop.
    let _refused = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(not(target_os = "linux"))]
const fn forbid_dumps() {}
