//! totpd owns the TOTP second factors of the users on one node: it enrols authenticators, checks codes,
//! and removes an authenticator so that no code of it is ever good again.
//!
//! A program that needs no HTTP embeds [`service::Service`]; `examples/embed.rs` shows how. Without default features the
//! library has only that: the feature `server` adds `api`, `connections` and `serve`, `grpc` adds gRPC, `cli` the binary.
//! The modules from top to bottom; each uses only those below it:
//!
//! | module | job | must not know |
//! |---|---|---|
//! | `serve` | the HTTP/1.1 front end, and tiny_http with its workers behind it | users, authenticators, SQL |
//! | `metrics` | what Prometheus reads: all counts, under their names | sockets, SQL |
//! | `grpc` | the HTTP/2 front end and gRPC, on its own async runtime (feature `grpc`) | users, authenticators, SQL |
//! | `connections` | accepted sockets of both front ends: TLS, limits, connected clients, memory | HTTP, users |
//! | `api` | the wire: messages, routes, statuses | sockets, SQL |
//! | `service` | the calls: permissions and changes, each call in one transaction | HTTP, statuses, JSON, SQL |
//! | `store`, `seal`, `totp` | the database; the master key; TOTP arithmetic | each other, permissions |
//! | `ownership` | owners and modes of files | what the files are for |
//! | `counters`, `log_lines` | counters and histograms without a lock | what they count |
//! | `web` | the pages for people: static files (feature `web`) | requests, users, SQL |
//! | `model`, `error` | ids, codes, times; errors | I/O |

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
mod connections;
mod counters;
pub mod error;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "server")]
mod log_limit;
#[cfg(feature = "server")]
pub mod log_lines;
#[cfg(feature = "server")]
mod metrics;
pub mod model;
mod ownership;
pub mod seal;
#[cfg(feature = "server")]
pub mod serve;
pub mod service;
mod store;
pub mod totp;
#[cfg(feature = "server")]
mod web;
