//! The load: a process of its own that sends prepared requests over keep-alive connections.
//!
//! It shares the cores with the server it drives, so it is cheap: one thread, one `poll` for all
//! connections, bytes made beforehand. It ends by itself, and when the process that started it ends.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::http::{self, Client, PATIENCE};
use crate::machine;

/// What one read takes: an answer fits in.
const READ_BYTES: usize = 8 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The token in the first line, then a request a line: method, target, body
    file: PathBuf,
    #[arg(long)]
    pub(crate) address: String,
    #[arg(long)]
    pub(crate) connections: usize,
    /// No request is begun after so many milliseconds
    #[arg(long)]
    pub(crate) ms: u64,
    /// So many requests a second, and no more
    #[arg(long)]
    pace: Option<u32>,
    /// Begins again at the first request after the last
    #[arg(long)]
    again: bool,
}

impl Args {
    /// The token, and method, target and body of each request.
    pub(crate) fn prepared(&self) -> Result<(String, Vec<[String; 3]>)> {
        let text = std::fs::read_to_string(&self.file)?;
        let mut lines = text.lines();
        let token = lines.next().unwrap_or_default().to_owned();
        let requests: Vec<[String; 3]> = lines
            .map(|line| {
                let mut parts = line.splitn(3, ' ');
                [(); 3].map(|()| parts.next().unwrap_or_default().to_owned())
            })
            .collect();
        if requests.is_empty() {
            return Err("no requests".into());
        }
        Ok((token, requests))
    }
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests that were sent: the first so many of the file.
    pub(crate) sent: usize,
    /// How many answers of each status there were; 0 stands for a connection that broke, and over gRPC 200 for
    /// its status 0.
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// The requests that were not answered with 200, by their place in the file, and what they were told.
    pub(crate) failed: Vec<(usize, u16)>,
    /// From the first byte sent to the last one received.
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) most_ms: f64,
    /// Processor time that this process took meanwhile.
    pub(crate) cpu_s: f64,
}

impl Outcome {
    pub(crate) fn good(&self) -> usize {
        self.statuses.get(&200).copied().unwrap_or(0)
    }

    /// Requests answered with 200 in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.good() as f64 / self.seconds
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (token, lines) = args.prepared()?;
    let requests: Vec<Vec<u8>> = lines
        .iter()
        .map(|[method, target, body]| http::request(method, target, &token, body))
        .collect();
    let streams = (0..args.connections)
        .map(|_| connect(&args.address))
        .collect::<Result<Vec<_>>>()?;
    let outcome = drive(args, &requests, &streams)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// One connection after another, each with an answered request on it: a server whose threads start with
/// connections has started them then, and tiny_http starves those that come in a burst.
fn connect(address: &str) -> Result<TcpStream> {
    let mut client = Client::connect(address, "")?;
    client.ask("GET", "/debug/healthz", "")?;
    let stream = client.into_stream();
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// What is under way on a connection.
struct Line<'a> {
    stream: &'a TcpStream,
    /// The request's place in the file, and since when its sender waits.
    asked: Option<(usize, Instant)>,
    /// A connection that broke is not used again.
    broken: bool,
    answer: Vec<u8>,
}

fn drive(args: &Args, requests: &[Vec<u8>], streams: &[TcpStream]) -> Result<Outcome> {
    let stdin = std::io::stdin();
    let mut fds: Vec<PollFd<'_>> = streams
        .iter()
        .map(|it| PollFd::new(it, PollFlags::IN))
        .collect();
    fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
    let mut lines: Vec<Line<'_>> = streams
        .iter()
        .map(|stream| Line {
            stream,
            asked: None,
            broken: false,
            answer: Vec::with_capacity(READ_BYTES),
        })
        .collect();
    let cpu = machine::cpu_time("self")?;
    let mut schedule = Schedule::new(args, requests.len());
    let mut tally = Tally::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        for line in lines.iter_mut().filter(|it| it.asked.is_none()) {
            line.send_next(&mut schedule, requests, &mut tally);
        }
        let waiting = lines.iter().any(|it| it.asked.is_some());
        if !waiting && schedule.is_over() {
            break;
        }
        if lines.iter().all(|it| it.broken) {
            return Err("every connection broke".into());
        }
        let time = schedule.until_next().min(PATIENCE);
        let ready = poll(&mut fds, Some(&Timespec::try_from(time)?))?;
        if ready == 0 && waiting && time == PATIENCE {
            return Err(format!("no answer for {} s", PATIENCE.as_secs()).into());
        }
        for (line, fd) in lines.iter_mut().zip(&fds) {
            if !fd.revents().is_empty() && line.receive(&mut buffer, &mut tally) {
                line.send_next(&mut schedule, requests, &mut tally);
            }
        }
        // The process that started this has closed its end: it has seen enough, or it has ended.
        if fds.len() > lines.len() && !fds[lines.len()].revents().is_empty() {
            fds.truncate(lines.len());
            schedule.end();
        }
    }
    let seconds = schedule.start.elapsed().as_secs_f64();
    let cpu = machine::cpu_time("self")?.saturating_sub(cpu);
    Ok(tally.into_outcome(&schedule, seconds, cpu))
}

impl Line<'_> {
    fn send_next(&mut self, schedule: &mut Schedule, requests: &[Vec<u8>], tally: &mut Tally) {
        if self.broken {
            return;
        }
        let Some((place, since)) = schedule.take() else {
            return;
        };
        let bytes = &requests[place % requests.len()];
        self.asked = Some((place, since));
        // Nothing else is under way here, so a request finds room in the socket whole.
        match self.stream.write(bytes) {
            Ok(written) if written == bytes.len() => {}
            _ => self.give_up(tally),
        }
    }

    /// Reads what has come. Returns whether that completed an answer.
    fn receive(&mut self, buffer: &mut [u8], tally: &mut Tally) -> bool {
        match self.stream.read(buffer) {
            Ok(read) if read > 0 => self.answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            _ => {
                self.give_up(tally);
                return false;
            }
        }
        match http::answer(&self.answer) {
            Ok(Some((status, _))) => {
                if let Some((place, since)) = self.asked.take() {
                    tally.count(place, status, since.elapsed());
                }
                self.answer.clear();
                true
            }
            Ok(None) => false,
            Err(_) => {
                self.give_up(tally);
                false
            }
        }
    }

    fn give_up(&mut self, tally: &mut Tally) {
        self.broken = true;
        // Shut down, or `poll` would report it again and again.
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some((place, since)) = self.asked.take() {
            tally.count(place, 0, since.elapsed());
        }
    }
}

/// Which request is next, and when.
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    end: Instant,
    next: usize,
    count: usize,
    every: Option<Duration>,
    over: bool,
}

impl Schedule {
    pub(crate) fn new(args: &Args, requests: usize) -> Self {
        let start = Instant::now();
        Self {
            start,
            end: start + Duration::from_millis(args.ms),
            next: 0,
            count: if args.again { usize::MAX } else { requests },
            every: args.pace.map(|it| Duration::from_secs(1) / it),
            over: false,
        }
    }

    fn due(&self) -> Option<Instant> {
        let every = self.every?;
        Some(self.start + every * u32::try_from(self.next).unwrap_or(u32::MAX))
    }

    /// The next request, if its time has come, and since when it is under way. A paced one is from when it
    /// was due: had it to wait for a free connection, that was the server's doing.
    pub(crate) fn take(&mut self) -> Option<(usize, Instant)> {
        let now = Instant::now();
        self.over |= now >= self.end || self.next >= self.count;
        let since = self.due().unwrap_or(now);
        if self.over || since > now {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, since))
    }

    pub(crate) fn until_next(&self) -> Duration {
        match self.due() {
            Some(due) if !self.over => due.saturating_duration_since(Instant::now()),
            _ => PATIENCE,
        }
    }

    pub(crate) const fn end(&mut self) {
        self.over = true;
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }
}

#[derive(Default)]
pub(crate) struct Tally {
    statuses: BTreeMap<u16, usize>,
    failed: Vec<(usize, u16)>,
    times: Vec<Duration>,
}

impl Tally {
    pub(crate) fn count(&mut self, place: usize, status: u16, time: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        if status != 200 {
            self.failed.push((place, status));
        }
        self.times.push(time);
    }

    pub(crate) fn into_outcome(
        mut self,
        schedule: &Schedule,
        seconds: f64,
        cpu: Duration,
    ) -> Outcome {
        self.times.sort_unstable();
        let ms = |share: f64| machine::at_share(&self.times, share).as_secs_f64() * 1e3;
        let (p50_ms, p99_ms, most_ms) = (ms(0.5), ms(0.99), ms(1.0));
        Outcome {
            sent: schedule.next,
            statuses: self.statuses,
            failed: self.failed,
            seconds,
            p50_ms,
            p99_ms,
            p999_ms: ms(0.999),
            most_ms,
            cpu_s: cpu.as_secs_f64(),
        }
    }
}
