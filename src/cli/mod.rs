//! The command line: one function for each command.
//!
//! Only this module reads the clock, the environment, the arguments and signals. A command prints text for a person or,
//! with `--json`, one document in the API's format. Knows no SQL.

mod admin;
mod args;
mod clock;
mod demo;
mod events;
mod export;
mod health;
mod import;
mod invitations;
mod key;
mod logging;
mod maintenance;
mod output;
mod parse;
mod qr;
mod recovery;
mod reference;
mod run_file;
mod serve;
mod settings;
mod shell;
mod totps;
mod users;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use totpd::error::{Error, Result};
use totpd::service::{Context, DataDir, GivenKey, KeyFile, Service};

use args::Command;
use clock::{clock_reading, now};
use output::Output;
use parse::Parsed;

/// The name of the systemd credential that holds the master key (`LoadCredential=master.key:…`).
const CREDENTIAL: &str = "master.key";
/// The name of the one that holds the key that a rotation changes to.
const NEXT_CREDENTIAL: &str = "master.key.next";

/// Runs the command that the arguments select.
pub(crate) fn run() -> ExitCode {
    let parsed = match parse::parse() {
        Ok(parsed) => parsed,
        Err(status) => return status,
    };
    let queue = match start_log(&parsed.args.command) {
        Ok(queue) => queue,
        Err(error) => {
            output::print_error(&format!("no thread for the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = dispatch(parsed);
    if let Some(queue) = queue {
        queue.flush();
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The inner cause goes only to the log elsewhere. The owner of the data directory may see it.
            if let Error::Unavailable(inner) | Error::Bug(inner) = &error {
                output::print_error(&format!("{error} ({inner})"));
            } else {
                output::print_error(&error.to_string());
            }
            ExitCode::FAILURE
        }
    }
}

fn start_log(command: &Command) -> std::io::Result<Option<logging::LogQueue>> {
    if let Command::Serve(it) = command {
        return logging::start_for_server(it.log_format, it.log_level).map(Some);
    }
    logging::start_for_command();
    Ok(None)
}

fn dispatch(parsed: Parsed) -> Result<()> {
    let location = DataLocation::of(&parsed)?;
    let args = parsed.args;
    let out = Output { json: args.json };
    match args.command {
        Command::Demo => demo::run(),
        Command::Completions { shell } => reference::completions(&out, shell),
        Command::Man { dir } => reference::man(&out, &dir),
        Command::Init(it) => admin::init(&location, &out, &it),
        Command::Serve(it) => serve::run(&location, *it),
        Command::Backup { file } => maintenance::backup(&location.open()?, &out, &file),
        Command::Restore(it) => maintenance::restore(&location, &out, &it),
        Command::Doctor(args::Doctor { fix: None }) => maintenance::doctor(&location, &out),
        Command::Doctor(args::Doctor {
            fix: Some(args::Fix::Clock),
        }) => clock::fix(&location.open()?, &out),
        Command::Health(it) => health::run(&location, &out, &it),
        Command::Key(args::Key::Rotate) => key::rotate(&location.open()?, &out),
        Command::Token(it) => admin::token(&location.open()?, &out, it),
        Command::Org(it) => admin::org(&location.open()?, &out, it),
        Command::Settings(it) => settings::run(&location, &out, it),
        Command::User(it) => users::run(&location, &location.open()?, &out, it),
        Command::Open(it) => invitations::open(&location, &location.open()?, &out, it),
        Command::Recovery(it) => recovery::run(&location.open()?, &out, it),
        Command::Event(it) => events::run(&location.open()?, &out, it),
        Command::Export(it) => export::run(&location.open()?, &out, &it),
        Command::Import(it) => import::run(&location.open()?, &out, &it),
        Command::Totp(it) => totps::run(&location, &location.open()?, &out, it),
    }
}

/// An environment variable. An empty one counts as unset.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|it| !it.is_empty())
}

/// The data directory and the master key that the arguments and the environment name.
struct DataLocation {
    path: PathBuf,
    key: KeyFile,
    /// The flags that named them, for commands that are printed for a person to copy.
    flags: Vec<String>,
}

impl DataLocation {
    fn of(parsed: &Parsed) -> Result<Self> {
        let args = &parsed.args;
        let state = || variable("STATE_DIRECTORY").map(PathBuf::from);
        let path = args
            .data_dir
            .clone()
            .or_else(state)
            .unwrap_or_else(|| "totpd-data".into());
        let credential = |name| {
            let dir = variable("CREDENTIALS_DIRECTORY")?;
            Some(Path::new(&dir).join(name)).filter(|it| it.exists())
        };
        let given = |flag: &Option<PathBuf>, name| {
            let path = flag.clone().or_else(|| credential(name))?;
            Some(given_key(path))
        };
        let key = match given(&args.master_key, CREDENTIAL) {
            Some(current) => KeyFile::Given {
                current,
                next: given(&args.next_master_key, NEXT_CREDENTIAL),
            },
            None if args.next_master_key.is_some() => {
                let problem = "the master key is in the data directory, where `totpd key rotate` makes the next one; \
                               leave this out";
                return Err(Error::invalid("--next-master-key", problem));
            }
            None => KeyFile::InDataDir,
        };
        Ok(Self {
            path,
            key,
            flags: parsed.repeated.clone(),
        })
    }

    /// A command on the same data directory, for a person to paste into a shell.
    fn command(&self, command: &[&str], words: &[&str]) -> String {
        let flags = self.flags.iter().map(String::as_str);
        shell::command(
            &flags.chain(command.iter().copied()).collect::<Vec<_>>(),
            words,
        )
    }

    fn open(&self) -> Result<Service> {
        Service::open(self.open_dir()?)
    }

    fn open_dir(&self) -> Result<DataDir> {
        DataDir::open(&self.path, self.key.clone())
    }
}

/// A key that the arguments or the environment name.
fn given_key(path: PathBuf) -> GivenKey {
    let group_may_read = is_credential(&path);
    GivenKey {
        path,
        group_may_read,
    }
}

/// Whether this file is a systemd credential, which its group may read.
fn is_credential(path: &Path) -> bool {
    variable("CREDENTIALS_DIRECTORY").is_some_and(|it| path.starts_with(it))
}

/// The context of calls by the command line, which may do everything.
fn operator() -> Context {
    Context::command_line(now())
}
