//! Starts loads in processes of their own, and takes in what they report.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::Result;
use crate::children::Process;
use crate::load::Outcome;
use crate::mark::Wire;

/// A load to start.
pub(crate) struct Load<'a> {
    pub(crate) wire: Wire,
    pub(crate) address: &'a str,
    pub(crate) token: &'a str,
    /// A request a line: method, target, body.
    pub(crate) requests: &'a [String],
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    /// So many a second, and the requests over and over.
    pub(crate) pace: Option<u32>,
    pub(crate) again: bool,
}

impl Load<'_> {
    /// Runs it to its end.
    pub(crate) fn run(&self, dir: &Path) -> Result<Outcome> {
        self.start(dir)?.wait()
    }

    /// Starts it.
    pub(crate) fn start(&self, dir: &Path) -> Result<Part> {
        // Several may run at once.
        let file = dir.join(format!("requests-{}", self.connections));
        let mut text = self.token.to_owned();
        for request in self.requests {
            text.extend(["\n", request]);
        }
        fs::write(&file, text)?;
        let mut command = Command::new(std::env::current_exe()?);
        let part = match self.wire {
            Wire::Rest => "load",
            Wire::Grpc => "load-grpc",
        };
        command.arg(part).arg(&file);
        command.args(["--address", self.address]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--ms", &self.time.as_millis().to_string()]);
        if let Some(pace) = self.pace {
            command.args(["--pace", &pace.to_string()]);
        }
        if self.again {
            command.arg("--again");
        }
        Part::start(command, Some(file))
    }
}

/// A part of this program that runs in a process of its own. It ends when its standard input does, so it
/// does not outlive this one.
pub(crate) struct Part {
    process: Process,
    stdin: Option<ChildStdin>,
    file: Option<PathBuf>,
}

impl Part {
    pub(crate) fn start(mut command: Command, file: Option<PathBuf>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::new(command.spawn()?);
        let stdin = process.child.stdin.take();
        Ok(Self {
            process,
            stdin,
            file,
        })
    }

    /// Its standard output.
    pub(crate) fn stdout(&mut self) -> Result<impl Read + use<>> {
        Ok(self.process.child.stdout.take().ok_or("no output")?)
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> Result<bool> {
        Ok(self.process.child.try_wait()?.is_some())
    }

    /// Tells it to end, and takes its report.
    pub(crate) fn end<T: DeserializeOwned>(mut self) -> Result<T> {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits for its end, and takes its report.
    pub(crate) fn wait<T: DeserializeOwned>(mut self) -> Result<T> {
        let mut said = String::new();
        self.stdout()?.read_to_string(&mut said)?;
        let status = self.process.wait()?;
        if let Some(file) = &self.file {
            fs::remove_file(file)?;
        }
        if status.success() {
            Ok(serde_json::from_str(&said)?)
        } else {
            Err("a load failed".into())
        }
    }
}
