//! totpd owns the TOTP second factors of the users on one node: it enrols authenticators, checks codes,
//! and removes an authenticator so that no code of it is ever good again.
//!
//! A program that wants no HTTP embeds [`service::Service`]; `examples/embed.rs` shows how. The rooms, top
//! to bottom, each using those below it and never one above:
//!
//! | room | what it is for | and what it must not know |
//! |---|---|---|
//! | `serve` | the front door: sockets, limits, the pool of workers | users, authenticators, SQL |
//! | `grpc` | HTTP/2 and gRPC, on a runtime of its own (the feature `grpc`) | users, authenticators, SQL |
//! | `api` | the wire: messages, routes, statuses | sockets, SQL |
//! | `service` | the calls: who may, what happens, in one transaction | HTTP, statuses, JSON, SQL |
//! | `store`, `seal`, `totp` | the file; the master key; the arithmetic | each other, and who may do what |
//! | `memory` | what requests that are not done may hold of it | whose they are |
//! | `model`, `error` | the words; what can go wrong | I/O |

pub mod api;
pub mod error;
#[cfg(feature = "grpc")]
mod grpc;
mod memory;
pub mod model;
pub mod seal;
pub mod serve;
pub mod service;
mod store;
pub mod totp;
