//! Black-box tests of what totpd promises. They are one binary, and each test has its own server.
#![expect(
    unreachable_pub,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::format_push_string,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and its numbers are small"
)]

mod access;
mod addresses;
mod api_page;
mod architecture;
#[cfg(feature = "grpc")]
mod attacks;
mod bad_input;
mod binary;
#[cfg(feature = "grpc")]
mod bounds;
mod carrying;
mod cli;
mod clock;
mod clock_fix;
mod codes;
#[cfg(feature = "grpc")]
mod detours;
mod docs;
mod drift;
mod enrolment_qr;
mod errors;
mod events;
mod export;
mod faketime;
mod faults;
mod forensics;
#[cfg(feature = "grpc")]
mod frames;
mod front_end;
mod gauges;
mod gone;
mod guessing;
mod harness;
mod health;
#[cfg(feature = "grpc")]
mod http2;
#[cfg(feature = "grpc")]
mod http2_memory;
mod import;
mod import_refusals;
mod invitation_commands;
mod invitation_links;
mod invitations;
mod keep;
mod large_imports;
mod list;
mod litestream;
mod logs;
mod memory;
mod metrics;
mod names;
mod network;
mod node;
mod openapi;
mod openapi_answers;
mod ownership;
mod pages;
mod parameters;
mod protos;
mod readme;
mod reads;
mod recovery;
mod recovery_files;
mod recovery_restores;
mod refused_connections;
mod removal;
mod replacement;
mod request_ids;
mod restore;
mod rotation;
#[cfg(feature = "grpc")]
mod rpc;
mod schema;
mod scrapes;
mod search;
mod secrets;
mod self_removal;
mod starts;
mod states;
mod structure;
#[cfg(feature = "grpc")]
mod transports;
mod wait;
mod wal;
#[cfg(feature = "grpc")]
mod web;
