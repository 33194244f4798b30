//! totpd owns the TOTP second factors of the users on one node: it enrols authenticators, checks codes,
//! and removes an authenticator so that no code of it is ever good again.
//!
//! A program that wants no HTTP embeds [`service::Service`]; `examples/embed.rs` shows how. Without default features there
//! is nothing else: `server` adds `api`, `connections` and `serve`, `grpc` adds gRPC, `cli` the binary. The rooms, top
//! to bottom, each using those below it and never one above:
//!
//! | room | what it is for | and what it must not know |
//! |---|---|---|
//! | `serve` | the front end of HTTP/1.1, and tiny_http with its workers behind it | users, authenticators, SQL |
//! | `grpc` | HTTP/2 and gRPC, on a runtime of its own (the feature `grpc`) | users, authenticators, SQL |
//! | `connections` | accepted sockets for both: TLS, limits, who is connected, memory | HTTP, users |
//! | `api` | the wire: messages, routes, statuses | sockets, SQL |
//! | `service` | the calls: who may, what happens, in one transaction | HTTP, statuses, JSON, SQL |
//! | `store`, `seal`, `totp` | the file; the master key; the arithmetic | each other, and who may do what |
//! | `ownership` | whose a file is, and who else can reach it | what the file is for |
//! | `model`, `error` | the words; what can go wrong | I/O |

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
mod connections;
pub mod error;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "server")]
mod log_limit;
pub mod model;
mod ownership;
pub mod seal;
#[cfg(feature = "server")]
pub mod serve;
pub mod service;
mod store;
pub mod totp;
