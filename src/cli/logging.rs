//! The log: lines for people or for machines, on stderr, which keep no request waiting.
//!
//! A server's lines go through a queue to a thread of their own: where stderr is a pipe that is not read, lines are lost
//! and counted, and changes go on.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use env_logger::{Builder, Target};
use log::kv::{Error as KvError, Key, Value, VisitSource};
use log::{Level, Record};
use serde::Serializer;
use serde::ser::SerializeMap;
use totpd::service::is_in_write_transaction;

use super::clock::now;
use super::variable;

/// Lines that wait to be written, and their bytes.
const QUEUED_LINES: usize = 1_024;
const QUEUED_BYTES: usize = 1024 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts the log of a command: its few lines are written at once.
pub(super) fn start_for_command() {
    builder(LogFormat::Text, LogLevel::Warn).init();
}

/// Starts the log of a server.
pub(super) fn start_for_server(format: LogFormat, level: LogLevel) -> io::Result<LogQueue> {
    let (lines_tx, lines_rx) = sync_channel(QUEUED_LINES);
    let shared = Arc::new(Shared::default());
    let writer = Arc::clone(&shared);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&lines_rx, &writer, format))?;
    let queue = LogQueue { lines_tx, shared };
    builder(format, level)
        .target(Target::Pipe(Box::new(queue.clone())))
        .init();
    Ok(queue)
}

fn builder(format: LogFormat, level: LogLevel) -> Builder {
    // RUST_LOG tells modules apart; who sets it knows why.
    let filters = variable("RUST_LOG").map_or_else(
        || level.as_str().to_owned(),
        |it| it.to_string_lossy().into_owned(),
    );
    let to_journal = is_journal();
    let mut builder = Builder::new();
    builder.parse_filters(&filters).format(move |out, record| {
        debug_assert!(
            !is_in_write_transaction(),
            "a line is logged in a write transaction: {}",
            record.args()
        );
        totpd::log_lines::note(record.level());
        out.write_all(&line_of(format, to_journal, &now().to_string(), record))
    });
    builder
}

/// Whether stderr is the journal of systemd, which tells by device and inode.
fn is_journal() -> bool {
    let Some(named) = variable("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|it| named.to_string_lossy() == format!("{}:{}", it.dev(), it.ino()))
}

/// A record as a line.
fn line_of(format: LogFormat, to_journal: bool, time: &str, record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    if to_journal {
        // sd-daemon(3): priorities of syslog.
        let priority: &[u8] = match record.level() {
            Level::Error => b"<3>",
            Level::Warn => b"<4>",
            Level::Info => b"<6>",
            Level::Debug | Level::Trace => b"<7>",
        };
        line.extend_from_slice(priority);
    }
    match format {
        LogFormat::Json => {
            if json_of(&mut line, time, record).is_err() {
                // Text and numbers: serializing them cannot fail.
                line.clear();
            }
        }
        LogFormat::Text => text_of(&mut line, to_journal, time, record),
    }
    line.push(b'\n');
    line
}

fn json_of(line: &mut Vec<u8>, time: &str, record: &Record<'_>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("time", time)?;
    map.serialize_entry("level", &record.level().as_str().to_ascii_lowercase())?;
    map.serialize_entry("message", &record.args().to_string())?;
    map.serialize_entry("target", record.target())?;
    for (name, value) in fields_of(record) {
        map.serialize_entry(&name, &value)?;
    }
    map.end()
}

fn text_of(line: &mut Vec<u8>, to_journal: bool, time: &str, record: &Record<'_>) {
    let mut text = String::new();
    if !to_journal {
        text = format!("[{time} {:<5}] ", record.level());
    }
    // A line break in a message forges no line.
    for it in record.args().to_string().chars() {
        if it.is_control() {
            text.extend(it.escape_default());
        } else {
            text.push(it);
        }
    }
    for (name, value) in fields_of(record) {
        text.push(' ');
        text.push_str(&name);
        text.push('=');
        text.push_str(&value.to_string());
    }
    line.extend_from_slice(text.as_bytes());
}

/// The fields of a record, as JSON: text in quotes, numbers without.
fn fields_of(record: &Record<'_>) -> Vec<(String, serde_json::Value)> {
    let mut fields = Fields(Vec::new());
    // Collecting them cannot fail.
    let _collected = record.key_values().visit(&mut fields);
    fields.0
}

struct Fields(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let whole = value.to_u64().map(serde_json::Value::from);
        let number = whole.or_else(|| value.to_f64().map(serde_json::Value::from));
        let value = number.unwrap_or_else(|| value.to_string().into());
        self.0.push((key.as_str().to_owned(), value));
        Ok(())
    }
}

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Shared {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The way of lines to the thread that writes them.
#[derive(Clone)]
pub(super) struct LogQueue {
    lines_tx: SyncSender<Entry>,
    shared: Arc<Shared>,
}

impl LogQueue {
    /// Waits until what was logged is written, for a second at most.
    pub(super) fn flush(&self) {
        let (done_tx, done_rx) = sync_channel(1);
        if self.lines_tx.try_send(Entry::Flush(done_tx)).is_ok() {
            let _in_time = done_rx.recv_timeout(FLUSH_TIME);
        }
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let held = self.shared.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = held.saturating_add(line.len()) <= QUEUED_BYTES;
        if !fits || self.lines_tx.try_send(Entry::Line(line.to_vec())).is_err() {
            self.shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines_rx: &Receiver<Entry>, shared: &Shared, format: LogFormat) {
    let to_journal = is_journal();
    let mut stderr = io::stderr();
    for entry in lines_rx {
        let line = match entry {
            Entry::Flush(done) => {
                let _gone = done.send(());
                continue;
            }
            Entry::Line(line) => line,
        };
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message =
                format_args!("{lost} lines of the log were lost: it was not read in time");
            let record = Record::builder()
                .level(Level::Warn)
                .target("totpd")
                .args(message)
                .build();
            let told = line_of(format, to_journal, &now().to_string(), &record);
            // A log that cannot be written is not a reason to stop.
            let _unwritten = stderr.write_all(&told);
        }
        let _unwritten = stderr.write_all(&line);
        shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
    }
}
