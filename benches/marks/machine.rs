//! What Linux tells about processes, disks and the machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use totpd::model::Timestamp;

use crate::Result;

/// The unit of times in /proc: Linux gives user space this one whatever its own is.
const TICKS_PER_SECOND: u64 = 100;

pub(crate) fn now() -> Result<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Timestamp::from_micros(i64::try_from(since.as_micros())?))
}

/// The value below which `share` of the sorted values lie.
pub(crate) fn at_share(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    let found = sorted.get(place.saturating_sub(1)).or(sorted.last());
    found.copied().unwrap_or_default()
}

/// Processor time of a process so far, by its number or `self`.
pub(crate) fn cpu_time(process: &str) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; what is counted comes behind it.
    let (_, rest) = text.rsplit_once(')').ok_or("no name in /proc/…/stat")?;
    let field = |at: usize| rest.split_whitespace().nth(at).unwrap_or_default();
    let ticks = field(11).parse::<u64>()? + field(12).parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory of a process in MiB.
pub(crate) fn rss_mib(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
}

/// The type of the filesystem that a directory lies on.
pub(crate) fn filesystem(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let of = mounts.lines().filter_map(|line| {
        let at = line.split(' ').nth(4)?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        dir.starts_with(at).then_some((at.len(), kind))
    });
    // The innermost counts, and of several in one place the last.
    let kind = of.max_by_key(|(length, _)| *length).map(|(_, kind)| kind);
    Ok(kind.unwrap_or("unknown").to_owned())
}

/// One line about the machine, for the table.
pub(crate) fn description(dir: &Path) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|it| {
        let (name, value) = it.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!(
        "{}, {} cores, Linux {}, {}",
        model.unwrap_or("unknown processor"),
        thread::available_parallelism()?,
        kernel.trim(),
        filesystem(dir)?
    ))
}

/// The compiler, if it is where cargo had it from.
pub(crate) fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.map(|it| it.stdout).unwrap_or_default();
    let words = String::from_utf8_lossy(&said);
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
