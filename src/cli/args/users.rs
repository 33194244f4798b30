//! The commands about users, their authenticators and their recovery codes.

use std::time::Duration;

use clap::{ArgGroup, Subcommand};

use super::values::{public_url, span};

#[derive(Subcommand)]
pub(in crate::cli) enum User {
    /// Create a user
    Create {
        /// Unique within the organization
        username: String,
        /// The organization [default: the first one]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// The user's id [default: totpd chooses one]
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// List users
    List,
    /// Show a user with its authenticators
    Show(UserArg),
    /// Remove a user with its authenticators, usernames and `self` tokens
    Remove(UserArg),
    /// Lock a user: its codes are refused until it is unlocked
    Lock(UserArg),
    /// Make a locked user active, and end a wait after wrong codes
    Unlock(UserArg),
    /// Make an inactive user active
    Activate(UserArg),
    /// Make an active user inactive: its codes are refused until it is activated
    Deactivate(UserArg),
    /// Print a link to the user's own page, good once; it replaces earlier ones
    Invite(Invite),
}

#[derive(clap::Args)]
pub(in crate::cli) struct Invite {
    #[command(flatten)]
    pub(in crate::cli) user: UserArg,
    /// How long the link is good, at most 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    pub(in crate::cli) expires: Duration,
    /// Print none, and make earlier ones void
    #[arg(long, conflicts_with = "expires")]
    pub(in crate::cli) revoke: bool,
    /// The URL at which people reach the server [default: what the running server uses]
    #[arg(long, env = "TOTPD_PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub(in crate::cli) public_url: Option<String>,
}

/// The user that a command is about.
#[derive(clap::Args)]
pub(in crate::cli) struct UserArg {
    /// Id or username
    pub(in crate::cli) user: String,
    /// USER is an id
    #[arg(long, conflicts_with = "org")]
    pub(in crate::cli) id: bool,
    /// USER is a username of this organization
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) org: Option<String>,
}

#[derive(Subcommand)]
pub(in crate::cli) enum Totp {
    /// Start an enrolment and show its QR code
    Start {
        #[command(flatten)]
        user: UserArg,
        /// A name for the authenticator
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// A confirmed authenticator that confirming the new one removes; until then it stays good
        #[arg(long, value_name = "TOTP")]
        replaces: Option<String>,
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
    /// Check a code; a good one cannot be used again
    Check {
        #[command(flatten)]
        user: UserArg,
        /// The code the app shows
        code: String,
    },
    /// List a user's authenticators
    List(UserArg),
    /// Give an authenticator another name
    Rename {
        #[command(flatten)]
        user: UserArg,
        /// The authenticator's id
        totp: String,
        /// Its new name
        name: String,
    },
    /// Find out how far an authenticator's clock is off, by two codes that follow each other; both are used up
    Resync {
        #[command(flatten)]
        user: UserArg,
        /// The authenticator's id
        totp: String,
        /// The code the app shows
        code1: String,
        /// The code the app shows next
        code2: String,
    },
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

#[derive(Subcommand)]
pub(in crate::cli) enum Recovery {
    /// Generate ten recovery codes, which replace all earlier ones; they are shown once
    Generate(UserArg),
    /// Show how many recovery codes a user has left
    Show(UserArg),
    /// Check a recovery code; a good one cannot be used again
    Check {
        #[command(flatten)]
        user: UserArg,
        /// The code; hyphens, blanks and case do not matter
        code: String,
    },
    /// Remove all of a user's recovery codes
    Remove(UserArg),
}
