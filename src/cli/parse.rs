//! Parses the command line and the environment into [`Args`], and prints errors about them.
//!
//! clap reads an environment variable as if its flag had been given. This module adds two rules: an empty variable counts
//! as unset, and an error about a value names the variable that it came from.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::args::{self, Args};
use super::output;

/// The arguments, and the flags that a printed command repeats to name the same data directory.
pub(super) struct Parsed {
    pub(super) args: Args,
    /// `--data-dir`, `--master-key` and `--next-master-key` with their values, if they were given as flags.
    pub(super) repeated: Vec<String>,
}

/// Parses the command line. Prints what is wrong with it, and returns the exit status as the error.
pub(super) fn parse() -> Result<Parsed, ExitCode> {
    let words: Vec<OsString> = env::args_os().collect();
    let command = without_variables(command(), &is_empty);
    let read = command.clone().try_get_matches_from(&words);
    let parsed = read.and_then(|matches| {
        Ok(Parsed {
            repeated: repeated(&matches),
            args: Args::from_arg_matches(&matches)?,
        })
    });
    let parsed = parsed.map_err(|error| refuse(&command, &words, error))?;
    let prints_no_document = matches!(
        parsed.args.command,
        args::Command::Serve(_) | args::Command::Demo
    );
    if parsed.args.json && prints_no_document {
        output::print_error("serve and demo take no --json");
        return Err(ExitCode::from(2));
    }
    Ok(parsed)
}

/// The command. Hides `--json` from the help of the subcommands that do not accept it.
fn command() -> Command {
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .hide(true);
    Args::command().mut_subcommands(|it| match it.get_name() {
        "serve" | "demo" => it.arg(json.clone()),
        _ => it,
    })
}

/// The command, which then ignores the environment variables for which `is_off` returns true.
fn without_variables(command: Command, is_off: &dyn Fn(&str) -> bool) -> Command {
    command
        .mut_args(|it| {
            let variable = it.get_env().and_then(|it| it.to_str());
            if variable.is_some_and(is_off) {
                it.env(Resettable::Reset)
            } else {
                it
            }
        })
        .mut_subcommands(|it| without_variables(it, is_off))
}

/// Whether a variable is set but empty. Compose files and service managers write unset variables so.
fn is_empty(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|it| it.is_empty())
}

/// The environment variable that causes the error: without it the error is another one, or none.
fn variable_to_blame(command: &Command, words: &[OsString], error: &clap::Error) -> Option<String> {
    let told = problem(error);
    let mut variables = Vec::new();
    collect_variables(command, &mut variables);
    variables.into_iter().find(|variable| {
        let without = without_variables(command.clone(), &|it| it == variable);
        let read = without.try_get_matches_from(words);
        read.map_or_else(|it| problem(&it) != told, |_| true)
    })
}

/// Collects the environment variables that the command reads and that are set.
fn collect_variables(command: &Command, into: &mut Vec<String>) {
    let set = command
        .get_arguments()
        .filter_map(|it| it.get_env()?.to_str());
    into.extend(
        set.filter(|it| env::var_os(it).is_some())
            .map(str::to_owned),
    );
    for subcommand in command.get_subcommands() {
        collect_variables(subcommand, into);
    }
}

fn repeated(matches: &ArgMatches) -> Vec<String> {
    let flags = [
        ("data_dir", "--data-dir"),
        ("master_key", "--master-key"),
        ("next_master_key", "--next-master-key"),
    ];
    let given = flags
        .iter()
        .filter(|(id, _)| matches.value_source(id) == Some(ValueSource::CommandLine));
    let values = given.filter_map(|(id, flag)| {
        let mut values = matches.get_raw(id)?;
        let value = values.next()?.to_string_lossy().into_owned();
        Some([(*flag).to_owned(), value])
    });
    values.flatten().collect()
}

/// Prints help or a one-line error, and returns the exit status.
fn refuse(command: &Command, words: &[OsString], error: clap::Error) -> ExitCode {
    let error = if error.kind() == ErrorKind::MissingSubcommand {
        // To clap a set variable counts as an argument. Without any typed argument help is shown.
        let typed = without_variables(command.clone(), &|_| true);
        typed.try_get_matches_from(words).err().unwrap_or(error)
    } else {
        error
    };
    if !error.use_stderr() {
        output::print_line(error.to_string().trim_end());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::print_to_stderr(error.to_string().trim_end());
        return ExitCode::from(2);
    }
    let variable = variable_to_blame(command, words, &error);
    let from = variable.map(|it| format!(" (environment variable {it})"));
    // Every other error names the accepted values already.
    let is_unknown = matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
    );
    let advice = if is_unknown { "; see --help" } else { "" };
    let problem = problem(&error);
    output::print_error(&format!("{problem}{}{advice}", from.unwrap_or_default()));
    ExitCode::from(2)
}

/// The error and clap's tip in one line, without the usage.
fn problem(error: &clap::Error) -> String {
    let text = error.to_string();
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|it| !it.starts_with("Usage:") && !it.starts_with("For more"))
        .filter(|it| !it.is_empty());
    let mut line = String::new();
    for part in told {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let (between, part) = match part.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None if line.is_empty() => ("", part),
            None => (" ", part),
        };
        line.push_str(between);
        line.push_str(part);
    }
    line
}
