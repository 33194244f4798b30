//! What Linux tells about processes, disks and the machine.

use std::fs;
use std::ops::Range;
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

/// Processor time of this process, of all its children that have ended, and of the whole machine, so far.
pub(crate) struct Busy {
    ours: u64,
    all: u64,
    idle: u64,
}

impl Busy {
    pub(crate) fn now() -> Result<Self> {
        let ours = stat_fields("self", 11..15)?;
        let text = fs::read_to_string("/proc/stat")?;
        // user, nice, system, idle, waiting for a disk, interrupts of two kinds, stolen.
        let machine: Vec<u64> = text
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ours,
            all: machine.iter().sum(),
            idle: machine.iter().skip(3).take(2).sum(),
        })
    }

    /// Which share of the processors others have taken since.
    pub(crate) fn share_of_others(&self) -> Result<f64> {
        let now = Self::now()?;
        let all = now.all.saturating_sub(self.all);
        let used = all.saturating_sub(now.idle.saturating_sub(self.idle));
        let others = used.saturating_sub(now.ours.saturating_sub(self.ours));
        Ok(others as f64 / all.max(1) as f64)
    }
}

/// Processor time of a process so far, by its number or `self`.
pub(crate) fn cpu_time(process: &str) -> Result<Duration> {
    let ticks = stat_fields(process, 11..13)?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The sum of some fields of a process's line; those from 11 on are times in user space and in the kernel,
/// its own and then its children's.
fn stat_fields(process: &str, fields: Range<usize>) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; what is counted comes behind it.
    let (_, rest) = text.rsplit_once(')').ok_or("no name in /proc/…/stat")?;
    let fields = rest
        .split_whitespace()
        .skip(fields.start)
        .take(fields.len());
    let sum: Result<u64, _> = fields.map(str::parse::<u64>).sum();
    Ok(sum?)
}

/// Resident memory of a process in MiB.
pub(crate) fn rss_mib(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
}

/// How many entries a directory of a process in /proc has: `task` for its threads, `fd` for its descriptors.
pub(crate) fn entries(process: u32, name: &str) -> Result<f64> {
    Ok(fs::read_dir(format!("/proc/{process}/{name}"))?.count() as f64)
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
