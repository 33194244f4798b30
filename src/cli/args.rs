//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgGroup, Parser, Subcommand, ValueEnum};
use totpd::serve::{Cidr, Listen};

/// What authenticator apps show beside the account, if nothing is said.
pub(super) const ISSUER: &str = "totpd";

/// Owns the TOTP second factors of the users on one node: enrols, checks, and removes for good.
#[derive(Parser)]
#[command(name = "totpd", version, disable_help_subcommand = true)]
pub(super) struct Args {
    /// Where the data is [default: $STATE_DIRECTORY, else ./totpd-data]
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
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the whole story over real HTTP in a temporary directory
    Demo,
    /// Make the data directory: database, master key, first organization, first admin token
    Init(Init),
    /// Serve the API
    Serve(Box<Serve>),
    /// Copy everything but the master key into a new file, while totpd serves
    Backup {
        /// The file to make
        file: PathBuf,
    },
    /// Put a backup back; no code of the past is good afterwards
    Restore(Restore),
    /// Look at the data directory, and say what is wrong and what to do
    Doctor(Doctor),
    /// Make, list and revoke bearer tokens
    #[command(subcommand)]
    Token(Token),
    /// Make, rename, remove and list organizations
    #[command(subcommand)]
    Org(Org),
    /// Make, list, show, remove, lock and unlock users
    #[command(subcommand)]
    User(User),
    /// Show and change settings of the instance
    #[command(subcommand)]
    Settings(Settings),
    /// Enrol, confirm, check, list and remove authenticators
    #[command(subcommand)]
    Totp(Totp),
}

#[derive(clap::Args)]
pub(super) struct Init {
    /// What authenticator apps show beside the account
    #[arg(long, value_name = "NAME", default_value = ISSUER)]
    pub(super) issuer: String,
    /// Steps of 30 s either side of the present one whose codes are good
    #[arg(long, value_name = "0|1", default_value = "1", value_parser = ["0", "1"])]
    pub(super) window: String,
}

#[derive(clap::Args)]
pub(super) struct Restore {
    /// The backup
    pub(super) file: PathBuf,
    /// Replace the database that is there; what it knows to be removed stays removed
    #[arg(long)]
    pub(super) force: bool,
    /// Let removals, revocations and deletions since the backup be undone where nobody knows of them
    #[arg(long)]
    pub(super) accept_loss: bool,
}

#[derive(clap::Args)]
pub(super) struct Doctor {
    /// Say that the clock is right now and was ahead before: what is dated later is dated now
    #[arg(long, value_name = "WHAT")]
    pub(super) fix: Option<Fix>,
}

/// What `doctor` can put right.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Fix {
    /// Dates that are later than the clock, which is right
    Clock,
}

#[derive(clap::Args)]
pub(super) struct Serve {
    /// Make the data directory where there is none; a terminal needs no such word. It prints no token
    #[arg(long, env = "TOTPD_INIT", action = ArgAction::SetTrue, value_parser = switch)]
    pub(super) init: bool,
    /// What authenticator apps show beside the account, where serve makes the data directory
    #[arg(long, env = "TOTPD_ISSUER", value_name = "NAME")]
    pub(super) issuer: Option<String>,
    /// HOST:PORT (port 0 picks one) or unix:/path; may be given more than once
    #[arg(
        long,
        env = "TOTPD_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        value_delimiter = ','
    )]
    pub(super) listen: Vec<Listen>,
    /// Speak TLS on TCP, with this certificate chain (PEM); read again on SIGHUP
    #[arg(
        long,
        env = "TOTPD_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(super) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(
        long,
        env = "TOTPD_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(super) tls_key: Option<PathBuf>,
    /// A proxy whose X-Forwarded-For counts, as an address or a range; may be given more than once
    #[arg(
        long,
        env = "TOTPD_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(super) trusted_proxy: Vec<Cidr>,
    /// An origin whose pages may call by gRPC-Web, such as https://example.org; may be given more than once
    #[arg(
        long,
        env = "TOTPD_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = origin
    )]
    pub(super) cors_origin: Vec<String>,
    /// The mode of Unix sockets, in octal
    #[arg(long, env = "TOTPD_UNIX_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    pub(super) unix_mode: u32,
    /// Allow plain HTTP on an address that is not loopback
    #[arg(long, env = "TOTPD_INSECURE_PLAINTEXT", action = ArgAction::SetTrue, value_parser = switch)]
    pub(super) insecure_plaintext: bool,
    /// How long requests that were taken may go on after SIGTERM
    #[arg(long, env = "TOTPD_STOP_TIMEOUT", value_name = "TIME", default_value = "8s", value_parser = span)]
    pub(super) stop_timeout: Duration,
    /// How long events are kept
    #[arg(long, env = "TOTPD_KEEP_EVENTS", value_name = "TIME", default_value = "400d", value_parser = span)]
    pub(super) keep_events: Duration,
    /// Changes in progress at once, over all transports; the next ones wait for their turn
    #[arg(long, env = "TOTPD_WORKERS", value_name = "N", default_value = "64",
        value_parser = clap::value_parser!(u16).range(2..=1024))]
    pub(super) workers: u16,
    /// Changes that share one commit, at most; 1 is one commit a request
    #[arg(long, env = "TOTPD_COMMIT_BATCH", value_name = "N", default_value = "128",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) commit_batch: u16,
    /// Connections in all; one of gRPC counts as four
    #[arg(long, env = "TOTPD_MAX_CONNECTIONS", value_name = "N", default_value = "1024",
        value_parser = clap::value_parser!(u16).range(4..))]
    pub(super) max_connections: u16,
    /// Connections of one address; one of gRPC counts as four
    #[arg(long, env = "TOTPD_MAX_CONNECTIONS_PER_PEER", value_name = "N", default_value = "128",
        value_parser = clap::value_parser!(u16).range(4..))]
    pub(super) max_connections_per_peer: u16,
    /// Bytes of a request's head
    #[arg(long, env = "TOTPD_MAX_HEAD_BYTES", value_name = "N", default_value = "16384",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub(super) max_head_bytes: u32,
    /// Bytes of a request's body
    #[arg(long, env = "TOTPD_MAX_BODY_BYTES", value_name = "N", default_value = "65536",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub(super) max_body_bytes: u32,
    /// Requests of a kind (changes, reads, searches) that wait for their turn; a quarter of them may be of one address
    #[arg(long, env = "TOTPD_MAX_WAITING", value_name = "N", default_value = "512",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) max_waiting: u16,
    /// From a request's first byte to its last
    #[arg(long, env = "TOTPD_REQUEST_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(super) request_timeout: Duration,
    /// How long a whole request waits for a worker
    #[arg(long, env = "TOTPD_WAIT_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(super) wait_timeout: Duration,
    /// How long a read may take; a search that takes longer is refused
    #[arg(long, env = "TOTPD_READ_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = span)]
    pub(super) read_timeout: Duration,
    /// How long a client may be silent between requests
    #[arg(long, env = "TOTPD_IDLE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = span)]
    pub(super) idle_timeout: Duration,
    /// How long a client has to take an answer
    #[arg(long, env = "TOTPD_TAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(super) take_timeout: Duration,
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// Make a token; it is shown once
    Create(TokenCreate),
    /// List tokens, without the tokens themselves
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
    /// What you call it
    #[arg(long, value_name = "TEXT")]
    pub(super) name: Option<String>,
    /// How long it lifetime: 90d, 12h, 30m, 45s, or never
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
    /// Make an organization
    Create {
        /// What it is called
        name: String,
    },
    /// Give an organization another name
    Rename {
        /// The organization's id, as `org list` shows it
        id: String,
        /// What it is called from now on
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

#[derive(Subcommand)]
pub(super) enum User {
    /// Make a user
    Create {
        /// Unique within the organization
        username: String,
        /// The organization; the first one if nothing is said
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// The user's id; totpd makes one if nothing is said
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// List users
    List,
    /// Show a user with its authenticators
    Show(UserArg),
    /// Remove a user and everything of it
    Remove(UserArg),
    /// Lock a user: no code of it is good until it is unlocked
    Lock(UserArg),
    /// Make a locked user active, and end a wait
    Unlock(UserArg),
    /// Make an inactive user active
    Activate(UserArg),
    /// Make an active user inactive: no code of it is good until it is activated
    Deactivate(UserArg),
}

/// The user that a command is about.
#[derive(clap::Args)]
pub(super) struct UserArg {
    /// Id or username
    pub(super) user: String,
    /// USER is an id
    #[arg(long, conflicts_with = "org")]
    pub(super) id: bool,
    /// USER is a username of this organization
    #[arg(long, value_name = "ID")]
    pub(super) org: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum Settings {
    /// Show the settings
    Show,
    /// Change settings; a running server follows at once
    Set {
        /// issuer=NAME (in new enrolments), window=0 or window=1
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum Totp {
    /// Begin an enrolment: shows the QR code
    Start {
        #[command(flatten)]
        user: UserArg,
        /// What the authenticator is called
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
    },
    /// Confirm an enrolment with the app's first code
    Confirm {
        #[command(flatten)]
        user: UserArg,
        /// The authenticator's id
        totp: String,
        /// The code the app shows
        code: String,
    },
    /// Check a code; it is used up by that
    Check {
        #[command(flatten)]
        user: UserArg,
        /// The code the app shows
        code: String,
    },
    /// List a user's authenticators
    List(UserArg),
    /// Remove an authenticator for good
    #[command(
        group(ArgGroup::new("which").required(true).args(["totp", "all"])),
        override_usage = "totpd totp remove [OPTIONS] <USER> <TOTP|--all>"
    )]
    Remove {
        #[command(flatten)]
        user: UserArg,
        /// The authenticator's id
        totp: Option<String>,
        /// All of the user's authenticators
        #[arg(long)]
        all: bool,
    },
}

/// How long a token lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    For(Duration),
    Never,
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        Ok(Lifetime::Never)
    } else {
        span(text).map(Lifetime::For)
    }
}

/// Reads an origin as browsers write it (RFC 6454 §6.2): nothing after the port, no default port, no capitals.
fn origin(text: &str) -> Result<String, String> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-.:[]".contains(it);
    let fits = rest.is_some_and(|it| !it.is_empty() && it.chars().all(plain));
    let default_port = text.starts_with("https://") && text.ends_with(":443")
        || text.starts_with("http://") && text.ends_with(":80");
    (fits && !default_port)
        .then(|| text.to_owned())
        .ok_or_else(|| {
            "expected an origin as browsers send it, such as https://example.org".to_owned()
        })
}

/// Reads what a variable of the environment says of a flag.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("expected 1, 0, true or false".to_owned()),
    }
}

/// Reads the mode of a file.
fn mode(text: &str) -> Result<u32, String> {
    let digits =
        (3..=4).contains(&text.len()) && text.bytes().all(|it| (b'0'..=b'7').contains(&it));
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|it| digits && *it <= 0o777);
    mode.ok_or_else(|| "expected three octal digits, such as 660".to_owned())
}

/// Reads a length of time: a number and one of d, h, m, s, ms.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with d, h, m, s or ms, such as 90d".to_owned();
    // `ms` stands before the units that it ends or begins with.
    let (number, unit_ms) = [
        ("ms", 1),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ]
    .into_iter()
    .find_map(|(unit, milliseconds)| Some((text.strip_suffix(unit)?, milliseconds)))
    .ok_or_else(wrong)?;
    let number: u64 = Some(number)
        .filter(|it| it.bytes().all(|it| it.is_ascii_digit()))
        .and_then(|it| it.parse().ok())
        .filter(|it| *it > 0)
        .ok_or_else(wrong)?;
    // A century is longer than any of these is meant, and far from the end of any clock.
    number
        .checked_mul(unit_ms)
        .filter(|it| *it <= 36_500 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected at most 36500d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn an_origin_is_what_a_browser_would_send() {
        for good in [
            "https://example.org",
            "http://localhost:3000",
            "http://[::1]:8080",
        ] {
            assert_eq!(origin(good).unwrap(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "example.org",
            "https://",
            "https://example.org/",
            "https://example.org:443",
            "http://example.org:80",
            "https://Example.org",
            "ftp://example.org",
            "https://a\r\nb",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_of_time_are_read_strictly() {
        assert_eq!(span("90d").unwrap(), Duration::from_hours(90 * 24));
        assert_eq!(span("45s").unwrap(), Duration::from_secs(45));
        assert_eq!(span("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(lifetime("never").unwrap(), Lifetime::Never);
        for bad in [
            "",
            "d",
            "90",
            "-1d",
            "+1d",
            "1.5h",
            "1w",
            "0s",
            "36501d",
            "99999999999999999999d",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
