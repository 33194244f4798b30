//! Waiting for an event with a time limit. If the event does not occur, the test fails.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than any event takes that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any command takes that exits by itself. A command that wrongly starts a server never exits.
const COMMAND_PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until a condition holds, and fails if it does not within [`PATIENCE`].
#[track_caller]
pub fn until(condition: &str, holds: impl FnMut() -> bool) {
    until_within(PATIENCE, condition, holds);
}

/// The same with another limit.
#[track_caller]
pub fn until_within(limit: Duration, condition: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {condition}");
        // This is only the pause between two checks. The wait ends when the condition holds.
        thread::sleep(LOOK_EVERY);
    }
}

/// Sets a flag when dropped, also by a panic. Otherwise threads that run until the flag is set would keep a failed
/// test from ending.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A slow client: sends one part after another at an even pace until the server closes the connection. Returns how
/// long that took. The pace is the attack, and waits for nothing.
pub fn drip<P: AsRef<[u8]>>(
    stream: &mut impl Write,
    parts: impl IntoIterator<Item = P>,
    pace: Duration,
) -> Duration {
    let begun = Instant::now();
    for part in parts {
        if stream.write_all(part.as_ref()).is_err() {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "it may drip on and on");
        thread::sleep(pace);
    }
    panic!("all of it was taken");
}

/// Runs a command until it exits, and kills it after [`COMMAND_PATIENCE`].
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    let output = told.recv_timeout(COMMAND_PATIENCE).unwrap_or_else(|_| {
        kill_process(pid, Signal::KILL).unwrap();
        panic!("it does not end: {command:?}");
    });
    output.unwrap()
}

/// Waits until a process exits by itself, and kills it if it does not.
#[track_caller]
pub fn ended(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > COMMAND_PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Reads what a server prints until it prints its address. Returns the address and the text before it, or an error if
/// the server exits first.
#[track_caller]
pub fn listening(child: &mut Child) -> Result<(String, String), String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut said = String::new();
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(address) = line.trim().strip_prefix("listening on http://") {
                // Sending fails if the test has already given up.
                let _given_up = tell.send(Ok((address.to_owned(), said)));
                return;
            }
            said.push_str(&line);
            said.push('\n');
        }
        let _given_up = tell.send(Err(format!("it ended without listening: {said}")));
    });
    told.recv_timeout(COMMAND_PATIENCE).unwrap_or_else(|_| {
        child.kill().unwrap();
        panic!("it neither listens nor ends");
    })
}
