//! The real binary, serving.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::children::Process;
use crate::http::Client;
use crate::machine;
use crate::seed::{Home, TOTPD};

pub(crate) struct Server {
    process: Process,
    pub(crate) address: String,
    started: Instant,
    /// Kept open: writing to a closed pipe would fail in the server.
    _stdout: BufReader<ChildStdout>,
}

/// A library to load before the program, and how many milliseconds it makes a sync take.
#[derive(Clone, Copy)]
pub(crate) struct Slow<'a> {
    pub(crate) library: &'a Path,
    pub(crate) sync_ms: u32,
}

impl Server {
    pub(crate) fn start(home: &Home, flags: &[&str], slow: Option<Slow<'_>>) -> Result<Self> {
        let mut command = Command::new(TOTPD);
        // No setting of the caller's environment gets in.
        command.env_clear().arg("--data-dir").arg(&home.dir);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(slow) = slow {
            command.env("LD_PRELOAD", slow.library);
            command.env("SLOW_SYNC_MS", slow.sync_ms.to_string());
        }
        let started = Instant::now();
        let mut process = Process::new(command.spawn()?);
        let stdout = process.child.stdout.take().ok_or("no output")?;
        let mut stdout = BufReader::new(stdout);
        let address = listening(&mut stdout)?;
        Ok(Self {
            process,
            address,
            started,
            _stdout: stdout,
        })
    }

    /// Asks one thing of the database, and says how long that took since the start.
    pub(crate) fn first_answer(&self, home: &Home) -> Result<Duration> {
        let mut client = Client::connect(&self.address, &home.token)?;
        let target = match home.some(1).first() {
            Some(it) => it.reading(),
            None => "GET /debug/ready".to_owned(),
        };
        let target = target.trim_start_matches("GET ");
        let (status, _) = client.ask("GET", target, "")?;
        let time = self.started.elapsed();
        if status == 200 {
            Ok(time)
        } else {
            Err(format!("the first answer was {status}").into())
        }
    }

    pub(crate) fn rss_mib(&self) -> Result<f64> {
        machine::rss_mib(self.process.child.id())
    }

    pub(crate) fn threads(&self) -> Result<f64> {
        machine::entries(self.process.child.id(), "task")
    }

    pub(crate) fn descriptors(&self) -> Result<f64> {
        machine::entries(self.process.child.id(), "fd")
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        machine::cpu_time(&self.process.child.id().to_string())
    }

    /// Whether a library was in fact loaded before it.
    pub(crate) fn has_loaded(&self, library: &Path) -> Result<bool> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.process.child.id()))?;
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        Ok(maps.contains(name.as_ref()))
    }

    /// Stops it as a service manager would.
    pub(crate) fn stop(mut self) -> Result<()> {
        let status = self.process.stop()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }
}

/// The address that a server prints once it accepts clients.
pub(crate) fn listening(stdout: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    if line.starts_with("metrics on ") {
        line.clear();
        stdout.read_line(&mut line)?;
    }
    let address = line.trim().strip_prefix("listening on http://");
    Ok(address.ok_or("the server did not start")?.to_owned())
}

/// Whether `serve` knows a flag.
pub(crate) fn knows(flag: &str) -> Result<bool> {
    let output = Command::new(TOTPD).args(["serve", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(flag))
}
