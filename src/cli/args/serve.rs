//! The flags of `serve`. Each can also be set by an environment variable.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;
use totpd::serve::{Cidr, Listen};

use crate::cli::logging::{LogFormat, LogLevel};

use super::values::{mode, origin, public_url, span, switch};

#[derive(clap::Args)]
pub(in crate::cli) struct Serve {
    /// Create the data directory if it does not exist, also without a terminal; prints no token
    #[arg(long, env = "TOTPD_INIT", action = ArgAction::SetTrue, value_parser = switch)]
    pub(in crate::cli) init: bool,
    /// What authenticator apps show beside the account, if serve creates the data directory
    #[arg(long, env = "TOTPD_ISSUER", value_name = "NAME")]
    pub(in crate::cli) issuer: Option<String>,
    /// HOST:PORT (port 0 picks one) or unix:/path; may be given more than once
    #[arg(
        long,
        env = "TOTPD_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        value_delimiter = ','
    )]
    pub(in crate::cli) listen: Vec<Listen>,
    /// The URL at which people reach the server, for links [default: the first address]
    #[arg(long, env = "TOTPD_PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub(in crate::cli) public_url: Option<String>,
    /// Where Prometheus finds metrics, under /metrics: HOST:PORT or unix:/path, best on loopback
    #[arg(long, env = "TOTPD_METRICS_LISTEN", value_name = "ADDR")]
    pub(in crate::cli) metrics_listen: Option<Listen>,
    /// Use TLS on TCP, with this certificate chain (PEM); read again on SIGHUP
    #[arg(
        long,
        env = "TOTPD_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(in crate::cli) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(
        long,
        env = "TOTPD_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(in crate::cli) tls_key: Option<PathBuf>,
    /// A proxy whose X-Forwarded-For is trusted, as an address or a range; may be given more than once
    #[arg(
        long,
        env = "TOTPD_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(in crate::cli) trusted_proxy: Vec<Cidr>,
    /// An origin whose pages may call by gRPC-Web, such as https://example.org; may be given more than once
    #[arg(
        long,
        env = "TOTPD_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = origin
    )]
    pub(in crate::cli) cors_origin: Vec<String>,
    /// Leave out the pages for people, at / and below /ui
    #[arg(long, env = "TOTPD_NO_WEB", action = ArgAction::SetTrue, value_parser = switch)]
    pub(in crate::cli) no_web: bool,
    /// The mode of Unix sockets, in octal
    #[arg(long, env = "TOTPD_UNIX_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    pub(in crate::cli) unix_mode: u32,
    /// Allow plain HTTP on an address that is not loopback
    #[arg(long, env = "TOTPD_INSECURE_PLAINTEXT", action = ArgAction::SetTrue, value_parser = switch)]
    pub(in crate::cli) insecure_plaintext: bool,
    /// The form of the log on stderr
    #[arg(
        long,
        env = "TOTPD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(in crate::cli) log_format: LogFormat,
    /// The least important lines of the log; debug has one for each request
    #[arg(
        long,
        env = "TOTPD_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub(in crate::cli) log_level: LogLevel,
    /// How long requests in progress may take after SIGTERM
    #[arg(long, env = "TOTPD_STOP_TIMEOUT", value_name = "TIME", default_value = "8s", value_parser = span)]
    pub(in crate::cli) stop_timeout: Duration,
    /// How long events are kept
    #[arg(long, env = "TOTPD_KEEP_EVENTS", value_name = "TIME", default_value = "400d", value_parser = span)]
    pub(in crate::cli) keep_events: Duration,
    /// Most changes in progress at once, over all transports; further ones wait
    #[arg(long, env = "TOTPD_WORKERS", value_name = "N", default_value = "64",
        value_parser = clap::value_parser!(u16).range(2..=1024))]
    pub(in crate::cli) workers: u16,
    /// Most changes that share one commit; 1 is one commit a request
    #[arg(long, env = "TOTPD_COMMIT_BATCH", value_name = "N", default_value = "128",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(in crate::cli) commit_batch: u16,
    /// Most connections; a gRPC connection counts as four
    #[arg(long, env = "TOTPD_MAX_CONNECTIONS", value_name = "N", default_value = "1024",
        value_parser = clap::value_parser!(u16).range(4..))]
    pub(in crate::cli) max_connections: u16,
    /// Most connections of one address; a gRPC connection counts as four
    #[arg(long, env = "TOTPD_MAX_CONNECTIONS_PER_PEER", value_name = "N", default_value = "128",
        value_parser = clap::value_parser!(u16).range(4..))]
    pub(in crate::cli) max_connections_per_peer: u16,
    /// Most bytes of a request's head
    #[arg(long, env = "TOTPD_MAX_HEAD_BYTES", value_name = "N", default_value = "16384",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub(in crate::cli) max_head_bytes: u32,
    /// Most bytes of a request's body
    #[arg(long, env = "TOTPD_MAX_BODY_BYTES", value_name = "N", default_value = "65536",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub(in crate::cli) max_body_bytes: u32,
    /// Most requests of a kind (changes, reads, searches) that wait; at most a quarter of them from one address
    #[arg(long, env = "TOTPD_MAX_WAITING", value_name = "N", default_value = "512",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) max_waiting: u16,
    /// How long a request may take from its first byte to its last
    #[arg(long, env = "TOTPD_REQUEST_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(in crate::cli) request_timeout: Duration,
    /// How long a complete request may wait for a worker
    #[arg(long, env = "TOTPD_WAIT_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(in crate::cli) wait_timeout: Duration,
    /// How long a read may take; a search that takes longer is refused
    #[arg(long, env = "TOTPD_READ_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = span)]
    pub(in crate::cli) read_timeout: Duration,
    /// How long a client may be silent between requests
    #[arg(long, env = "TOTPD_IDLE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = span)]
    pub(in crate::cli) idle_timeout: Duration,
    /// How long a client may take to receive an answer
    #[arg(long, env = "TOTPD_TAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(in crate::cli) take_timeout: Duration,
}
