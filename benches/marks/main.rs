//! The benchmark: what totpd does in a second, as ratios to what bare SQLite does on the same disk.
//!
//! `cargo bench --bench marks` runs it, `cargo bench --bench marks -- --help` tells its options.
//!
//! It seeds data directories, starts the real binary, drives it over real sockets from a process of its own
//! (this program again, see `load`), measures the floor in alternation with it, looks into the database
//! whether what was answered is what happened, and prints a table. What the machine does meanwhile is in
//! every figure, so it asserts nothing about time: it fails where an answer was wrong or a promise was not
//! kept, and nowhere else.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "it counts and divides small numbers, and printing is what it is for"
)]

mod bare;
mod bench;
mod beside_searches;
mod children;
mod driver;
mod enrolled;
mod floor;
mod front_end;
mod http;
mod load;
#[cfg(feature = "grpc")]
mod load_grpc;
mod machine;
mod mark;
mod million;
mod mixed;
mod removals;
mod report;
mod run;
mod scraped;
mod seed;
mod server;
mod slow;
mod soak;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Whatever goes wrong ends the run, in one line that says what it was.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Measures the marks of totpd and prints them as a table.
#[derive(Parser)]
#[command(name = "cargo bench --bench marks --", disable_help_subcommand = true)]
struct Args {
    /// What `cargo bench` passes and `cargo test` does not.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(flatten)]
    options: run::Options,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program does in a process of its own.
#[derive(Subcommand)]
enum Part {
    /// Sends prepared requests and says how long they took
    #[command(hide = true)]
    Load(load::Args),
    /// Does the same over gRPC
    #[cfg(feature = "grpc")]
    #[command(hide = true)]
    LoadGrpc(load::Args),
    /// Serves without the front end, for comparison
    #[command(hide = true)]
    Bare(bare::Args),
    /// Sends a mixture of calls, each of which depends on the answers before it
    #[command(hide = true)]
    Mixed(mixed::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.part {
        Some(Part::Load(args)) => load::run(&args),
        #[cfg(feature = "grpc")]
        Some(Part::LoadGrpc(args)) => load_grpc::run(&args),
        Some(Part::Bare(args)) => bare::run(&args),
        Some(Part::Mixed(args)) => mixed::run(&args),
        None if args.bench => run::run(&args.options),
        None => {
            println!("nothing is measured here: cargo bench --bench marks");
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
