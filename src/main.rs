//! The `totpd` binary: see [`cli`].

mod cli;

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Overwrites all memory of the heap when it is freed. Secrets, codes and tokens pass through buffers of JSON, HTTP and
/// TLS that are not ours to zeroize, and a buffer that grows leaves a copy behind.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    forbid_dumps();
    cli::run()
}

/// Lets the system write no core dump of this process, and no other process of the same user read its memory.
#[cfg(target_os = "linux")]
fn forbid_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // A system that refuses is no reason not to serve.
    let _refused = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(not(target_os = "linux"))]
const fn forbid_dumps() {}
