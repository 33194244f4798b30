//! The command line: one command a function.
//!
//! Only here are the clock, the environment, the arguments and the signals read. What a command prints is
//! either for a person or, with `--json`, one document in the API's own shape.

mod admin;
mod args;
mod demo;
mod keep;
mod output;
mod qr;
mod serve;
mod totps;
mod users;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use clap::error::ErrorKind;
use totpd::error::{Error, Result};
use totpd::model::Timestamp;
use totpd::service::{Caller, DataDir, KeyFile, Service};

use args::{Args, Command};
use output::Output;

/// The name under which systemd hands the master key over (`LoadCredential=master.key:…`).
const CREDENTIAL: &str = "master.key";

/// Runs the command that the arguments ask for.
pub(crate) fn run() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_target(false)
        .init();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever has the data directory may read what otherwise the log alone says.
            if let Error::Unavailable(inner) | Error::Bug(inner) = &error {
                output::complain(&format!("{error} ({inner})"));
            } else {
                output::complain(&error.to_string());
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: Args) -> Result<()> {
    let home = Home::of(&args);
    let out = Output { json: args.json };
    match args.command {
        Command::Demo => demo::run(),
        Command::Init(it) => admin::init(&home, &out, &it),
        Command::Serve(it) => serve::run(&home, *it),
        Command::Backup { file } => keep::backup(&home.open()?, &out, &file),
        Command::Restore(it) => keep::restore(&home, &out, &it),
        Command::Doctor => keep::doctor(&home, &out),
        Command::Token(it) => admin::token(&home.open()?, &out, it),
        Command::Org(it) => admin::org(&home.open()?, &out, it),
        Command::User(it) => users::run(&home.open()?, &out, it),
        Command::Totp(it) => totps::run(&home.open()?, &out, it),
    }
}

/// Help goes to stdout and is no failure; a wrong use is one line and status 2.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    if !error.use_stderr() {
        output::say(text.trim_end());
        return ExitCode::SUCCESS;
    }
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|it| !it.starts_with("Usage:") && !it.starts_with("For more"));
    let line = told
        .filter(|it| !it.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    // Every other wrong use names what would be right already.
    let is_unknown = matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
    );
    let way_out = if is_unknown { "; see --help" } else { "" };
    output::complain(&format!("{line}{way_out}"));
    ExitCode::from(2)
}

/// The present moment, by the system's clock.
fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Where the data is, and the key to it.
struct Home {
    path: PathBuf,
    key: KeyFile,
}

impl Home {
    fn of(args: &Args) -> Self {
        let state = || env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        let path = args
            .data_dir
            .clone()
            .or_else(state)
            .unwrap_or_else(|| "totpd-data".into());
        let credential =
            env::var_os("CREDENTIALS_DIRECTORY").map(|it| Path::new(&it).join(CREDENTIAL));
        let key = match (&args.master_key, credential.filter(|it| it.exists())) {
            (Some(path), _) => KeyFile::Given {
                path: path.clone(),
                group_may_read: is_credential(path),
            },
            (None, Some(path)) => KeyFile::Given {
                path,
                group_may_read: true,
            },
            (None, None) => KeyFile::InDataDir,
        };
        Self { path, key }
    }

    fn open(&self) -> Result<Service> {
        Service::open(self.take_hold()?)
    }

    fn take_hold(&self) -> Result<DataDir> {
        DataDir::open(&self.path, self.key.clone())
    }
}

/// Whether systemd handed this file over; its group can read it then.
fn is_credential(path: &Path) -> bool {
    env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|it| path.starts_with(it))
}

/// Whoever sits at the command line may do everything.
fn operator() -> Caller {
    Caller::command_line()
}
