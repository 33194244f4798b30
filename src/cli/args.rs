//! The commands and flags, for clap. Reads nothing itself.

mod serve;
mod users;
mod values;

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Parser, Subcommand, ValueEnum};

pub(super) use serve::Serve;
pub(super) use users::{Invite, Recovery, Totp, User, UserArg};
pub(super) use values::{Lifetime, Moment};
use values::{event_kind, lifetime, moment, public_url};

use crate::formats::{ExportFormat, Format};

/// The default issuer, which authenticator apps show beside the account.
pub(super) const ISSUER: &str = "totpd";

/// Owns the TOTP second factors of the users on one node: enrols, checks, and removes for good.
#[derive(Parser)]
#[command(name = "totpd", version = VERSION.as_str(), disable_help_subcommand = true)]
pub(super) struct Args {
    /// The data directory [default: $STATE_DIRECTORY, else ./totpd-data]
    #[arg(
        long,
        global = true,
        env = "TOTPD_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(super) data_dir: Option<PathBuf>,
    /// The master key, if it is not in the data directory
    #[arg(
        long,
        global = true,
        env = "TOTPD_MASTER_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) master_key: Option<PathBuf>,
    /// The master key that `key rotate` changes to, if --master-key is given
    #[arg(
        long,
        global = true,
        env = "TOTPD_NEXT_MASTER_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(super) next_master_key: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Enrol, check and remove an authenticator over real HTTP, in a temporary directory
    Demo,
    /// Create the data directory: database, master key, first organization, first admin token
    Init(Init),
    /// Serve the API
    Serve(Box<Serve>),
    /// Copy the database, without the master key, to a new file; a server may run meanwhile
    Backup {
        /// The file to create
        file: PathBuf,
    },
    /// Restore a backup; no code of the past is good afterwards
    Restore(Restore),
    /// Check the data directory, and print what is wrong and what to do
    Doctor(Doctor),
    /// Ask the server of this data directory whether it is healthy; status 0 if it is
    Health(Health),
    /// Change the master key
    #[command(subcommand)]
    Key(Key),
    /// Create, list and revoke bearer tokens
    #[command(subcommand)]
    Token(Token),
    /// Create, rename, remove and list organizations
    #[command(subcommand)]
    Org(Org),
    /// Print a link to the administrator's page, good once and for ten minutes
    Open(Open),
    /// Create, list, show, remove, lock, unlock, deactivate, activate and invite users
    #[command(subcommand)]
    User(User),
    /// Show and change settings of the instance
    #[command(subcommand)]
    Settings(Settings),
    /// Enrol, confirm, check, list, rename and remove authenticators
    #[command(subcommand)]
    Totp(Totp),
    /// Generate, count, check and remove recovery codes, which stand in for a lost authenticator
    #[command(subcommand)]
    Recovery(Recovery),
    /// List events: who changed what, when, for whom
    #[command(subcommand)]
    Event(Event),
    /// Import authenticators of another program; a server may run meanwhile
    ///
    /// Users are found by their usernames, without regard to case, or created. An authenticator that the user already
    /// has is not imported twice, so an import that was interrupted can be run again. The code that an authenticator shows
    /// at this moment is not good here, the next one is. Each row that is not imported is reported, and the exit status is
    /// then 1.
    Import(Import),
    /// Export users and their secrets in clear to a new file or a pipe
    ///
    /// A person who reads the file has these second factors. Recovery codes, tokens and pending enrolments are not in it. The
    /// export leaves an event.
    Export(Export),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a man page for each command into a directory
    Man {
        /// The directory, which is created where it is missing
        dir: PathBuf,
    },
}

/// The shells that completions are made for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The version, the features, and the commit that `TOTPD_COMMIT` named at the build.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("TOTPD_COMMIT").filter(|it| !it.is_empty());
    let optional = [
        (cfg!(feature = "grpc"), " grpc"),
        (cfg!(feature = "web"), " web"),
    ];
    let features: String = optional
        .iter()
        .filter_map(|(is_there, name)| is_there.then_some(*name))
        .collect();
    format!(
        "{} (commit {}; features cli{features})",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or("unknown")
    )
});

#[derive(clap::Args)]
pub(super) struct Init {
    /// What authenticator apps show beside the account
    #[arg(long, value_name = "NAME", default_value = ISSUER)]
    pub(super) issuer: String,
    /// Steps of 30 s either side of the current one whose codes are good
    #[arg(long, value_name = "0|1", default_value = "1", value_parser = ["0", "1"])]
    pub(super) window: String,
}

#[derive(clap::Args)]
pub(super) struct Restore {
    /// The backup file
    pub(super) file: PathBuf,
    /// Replace the existing database; what it records as removed or revoked stays so
    #[arg(long)]
    pub(super) force: bool,
    /// Restore even if removals, revocations and deletions since the backup may be undone
    #[arg(long)]
    pub(super) accept_loss: bool,
    /// The master key of the time of the backup, if the key was rotated since
    #[arg(long, value_name = "FILE")]
    pub(super) old_key: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct Import {
    /// The file
    pub(super) file: PathBuf,
    /// The format of the file [default: told by its content]
    #[arg(long, value_name = "F")]
    pub(super) format: Option<Format>,
    /// The organization of the users [default: the first one]
    #[arg(long, value_name = "ID")]
    pub(super) org: Option<String>,
    /// The user of rows that name none
    #[arg(long, value_name = "USERNAME")]
    pub(super) user: Option<String>,
    /// Say what would happen, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take secrets of 80 to 127 bits too
    #[arg(long)]
    pub(super) allow_short_secrets: bool,
}

#[derive(clap::Args)]
pub(super) struct Export {
    /// The format
    #[arg(long, value_name = "F")]
    pub(super) format: ExportFormat,
    /// Only users of this organization
    #[arg(long, value_name = "ID")]
    pub(super) org: Option<String>,
    /// A file that does not exist yet, a named pipe, or - for stdout if that is a pipe
    #[arg(long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct Health {
    /// Also ask whether the database can be read and written
    #[arg(long)]
    pub(super) ready: bool,
    /// Ask this server instead: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR")]
    pub(super) address: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum Key {
    /// Seal every secret under a new master key; a server may run meanwhile
    ///
    /// The new key takes the place of the old one, which is gone then. If you keep backups that were made before, keep a
    /// copy of the old key for them. If this is interrupted, run it again.
    Rotate,
}

#[derive(clap::Args)]
pub(super) struct Doctor {
    /// Confirm that the clock is right now and was ahead before: dates in the future become now
    #[arg(long, value_name = "WHAT")]
    pub(super) fix: Option<Fix>,
}

/// What `doctor` can correct.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Fix {
    /// Dates that are later than the clock
    Clock,
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// Create a token; it is shown once
    Create(TokenCreate),
    /// List tokens: ids, roles and expiry, not the tokens themselves
    List,
    /// Revoke a token: the next request with it is refused
    Revoke {
        /// The token's id, as `token list` shows it
        id: String,
    },
}

#[derive(clap::Args)]
pub(super) struct TokenCreate {
    /// What the token may do
    #[arg(long)]
    pub(super) role: RoleName,
    /// The organization it is bound to (manager, checker), or whose username USER is (self)
    #[arg(long, value_name = "ID", conflicts_with = "all_orgs")]
    pub(super) org: Option<String>,
    /// Bound to no organization (checker)
    #[arg(long)]
    pub(super) all_orgs: bool,
    /// The user it is bound to, by id or username (self)
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// USER is an id (self)
    #[arg(long, conflicts_with = "org", requires = "user")]
    pub(super) id: bool,
    /// A name for the token
    #[arg(long, value_name = "TEXT")]
    pub(super) name: Option<String>,
    /// The token's lifetime: 90d, 12h, 30m, 45s, or never
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = lifetime)]
    pub(super) expires: Lifetime,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum RoleName {
    /// Everything
    Admin,
    /// Users and authenticators of one organization
    Manager,
    /// Checking codes: what a login form holds
    Checker,
    /// One user's own authenticators
    #[value(name = "self")]
    Own,
}

#[derive(Subcommand)]
pub(super) enum Org {
    /// Create an organization
    Create {
        /// The organization's name
        name: String,
    },
    /// Rename an organization
    Rename {
        /// The organization's id, as `org list` shows it
        id: String,
        /// The new name
        name: String,
    },
    /// Remove an organization that has no users and no tokens
    Remove {
        /// The organization's id, as `org list` shows it
        id: String,
    },
    /// List organizations
    List,
}

#[derive(clap::Args)]
pub(super) struct Open {
    /// The URL at which people reach the server [default: what the running server uses]
    #[arg(long, env = "TOTPD_PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub(super) public_url: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum Settings {
    /// Show the settings
    Show,
    /// Change settings; a running server applies them at once
    Set {
        /// issuer=NAME (in new enrolments), window=0 or window=1, checkpoints=own or checkpoints=litestream
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum Event {
    /// List events, the newest last
    List(EventList),
}

#[derive(clap::Args)]
pub(super) struct EventList {
    /// Only events of this user, by id or username; of a removed user by id
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// USER is an id
    #[arg(long, requires = "user")]
    pub(super) id: bool,
    /// Only events of this kind, such as totp.removed; may be given several times
    #[arg(long, value_name = "KIND", value_parser = event_kind)]
    pub(super) kind: Vec<String>,
    /// Only events after this time (2026-11-23T17:06:19Z), or since so long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Moment>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "follow")]
    pub(super) until: Option<Moment>,
    /// The most events; the newest are listed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// Go on with new events as they come
    #[arg(long)]
    pub(super) follow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
