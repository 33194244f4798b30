//! `serve`: opens the data directory, starts the server, waits for a signal, stops both.

use std::os::fd::OwnedFd;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use totpd::api::Api;
use totpd::error::{Error, Result};
use totpd::model::{Name, Window};
use totpd::serve::{self, Config, Handler, Limits, Running, TlsFiles};
use totpd::service::{DataDir, Options, Service, Settings};

use super::run_file::{RunDocument, RunFile};
use super::{DataLocation, admin, args, clock_reading, now, operator, output};

/// How often expired enrolments and old events are deleted.
const TIDY_EVERY: Duration = Duration::from_secs(15);

pub(super) fn run(location: &DataLocation, args: args::Serve) -> Result<()> {
    let service = open_or_init(location, &args)?;
    if let Err(Error::Unavailable(why)) = service.check_clock(now()) {
        log::error!("nothing is served until this is put right: {why}");
    }
    let signals = watch_signals()?;
    let config = config(location, &args)?;
    let api = Api::new(service.clone(), Arc::new(now));
    let api = api.for_origins(args.cors_origin);
    let no_web = args.no_web || !cfg!(feature = "web");
    let api = if no_web { api } else { api.with_pages() };
    let handler = Handler::of(api);
    let running = serve::start(config, &handler)
        .map_err(|error| Error::invalid("serve", error.to_string()))?;
    start_tidying(&service, &handler, args.keep_events)?;
    // Without pages a link to this server's address leads nowhere. A given URL may have pages of another program.
    let url = if no_web {
        args.public_url
    } else {
        running.base_url().map(str::to_owned)
    };
    let addresses = running.addresses().iter().map(ToString::to_string);
    let document = RunDocument {
        addresses: addresses.collect(),
        url,
        no_web,
    };
    let run_file = announce(location, &running, &document)?;

    let signals = wait_for_stop(signals, &running);
    log::info!("stopping");
    drop(run_file);
    tell_systemd(&NotifyState::Stopping);
    exit_at_second_signal(signals);
    let answered = running.stop(args.stop_timeout);
    handler.log_all_left_out();
    if !answered {
        log::warn!("not every request was answered in time");
    }
    // Empties the WAL, which may hold removed secrets.
    service.stop()
}

fn watch_signals() -> Result<Signals> {
    let failed = |error| Error::Bug(format!("signals: {error}"));
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    // With a handler, a write beyond the file size limit fails instead of ending the process.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    Ok(signals)
}

fn config(location: &DataLocation, args: &args::Serve) -> Result<Config> {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let inherited = inherited()?;
    Ok(Config {
        // Sockets that systemd has opened replace `--listen`.
        listen: if inherited.is_empty() {
            args.listen.clone()
        } else {
            Vec::new()
        },
        inherited,
        public_url: args.public_url.clone(),
        metrics_listen: args.metrics_listen.clone(),
        tls: tls.map(|(cert, key)| TlsFiles {
            group_may_read: super::is_credential(&key),
            cert,
            key,
        }),
        trusted_proxies: args.trusted_proxy.clone(),
        unix_mode: args.unix_mode,
        private_dir: location.path.clone(),
        changes_at_once: args.workers.into(),
        commit_batch: args.commit_batch.into(),
        limits: Limits {
            connections: args.max_connections.into(),
            connections_per_peer: args.max_connections_per_peer.into(),
            head_bytes: usize::try_from(args.max_head_bytes).unwrap_or(usize::MAX),
            body_bytes: usize::try_from(args.max_body_bytes).unwrap_or(usize::MAX),
            request_time: args.request_timeout,
            answer_time: args.wait_timeout,
            idle_time: args.idle_timeout,
            take_time: args.take_timeout,
            waiting: args.max_waiting.into(),
            ..Limits::default()
        },
        insecure_plaintext: args.insecure_plaintext,
        on_fatal_error: Box::new(|why| {
            output::print_error(&format!("cannot serve any more: {why}"));
            process::exit(1)
        }),
    })
}

/// Tells other commands, the terminal and systemd that the server is ready, and at which addresses.
fn announce(location: &DataLocation, running: &Running, document: &RunDocument) -> Result<RunFile> {
    let run_file = RunFile::create(&location.path, document)?;
    if let Some(address) = running.metrics_address() {
        output::print_line(&format!("metrics on {address}"));
    }
    for address in running.addresses() {
        output::print_line(&format!("listening on {address}"));
    }
    tell_systemd(&NotifyState::Ready);
    Ok(run_file)
}

/// Waits for a signal to stop, and reads the TLS certificate again at each SIGHUP. Returns the signals for a second one.
fn wait_for_stop(mut signals: Signals, running: &Running) -> Signals {
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        match running.reload_tls() {
            Ok(true) => log::info!("certificate and key were read again"),
            Ok(false) => log::info!("SIGHUP: TLS is off, no certificate was read"),
            Err(error) => log::error!("{error}"),
        }
    }
    signals
}

/// Starts the thread that ends the process at a second signal.
fn exit_at_second_signal(mut signals: Signals) {
    let second = thread::Builder::new()
        .name("second-signal".to_owned())
        .spawn(move || {
            let _second = signals.forever().find(|it| *it != SIGHUP);
            process::exit(1)
        });
    if let Err(error) = second {
        log::warn!("no thread for a second signal: {error}");
    }
}

/// The sockets that systemd has opened for this process (`LISTEN_FDS`).
fn inherited() -> Result<Vec<OwnedFd>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..given.len() {
        sockets.push(
            match (given.take_unix_listener(at), given.take_tcp_listener(at)) {
                (Ok(Some(it)), _) => it.into(),
                (_, Ok(Some(it))) => it.into(),
                _ => {
                    return Err(Error::invalid(
                        "LISTEN_FDS",
                        "expected stream sockets, TCP or Unix",
                    ));
                }
            },
        );
    }
    Ok(sockets)
}

/// Reports the state to systemd, if it started this process.
fn tell_systemd(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        log::debug!("telling systemd: {error}");
    }
}

/// Starts the thread that deletes expired enrolments and old events, and tells what the log has left out.
fn start_tidying(service: &Service, handler: &Arc<Handler>, keep_events: Duration) -> Result<()> {
    // Records the first clock reading, which later ones are compared with.
    service.tidy(keep_events, clock_reading())?;
    let (service, handler) = (service.clone(), Arc::clone(handler));
    thread::Builder::new()
        .name("tidy".to_owned())
        .spawn(move || tidy(&service, &handler, keep_events))
        .map_err(|error| Error::Unavailable(format!("no thread: {error}")))?;
    Ok(())
}

fn tidy(service: &Service, handler: &Handler, keep_events: Duration) {
    loop {
        thread::sleep(TIDY_EVERY);
        handler.log_left_out();
        if let Err(error) = service.tidy(keep_events, clock_reading()) {
            log::warn!("tidying up: {error:?}");
        }
    }
}

/// Opens the data directory. Creates a new one only on a terminal or with `--init`, because a mistyped path or an
/// unmounted volume must not look like a healthy, empty instance.
fn open_or_init(location: &DataLocation, args: &args::Serve) -> Result<Service> {
    let issuer = args.issuer.as_deref();
    let issuer = issuer.map(|it| Name::parse_issuer("--issuer", it));
    let issuer = issuer.transpose()?;
    if !DataDir::is_initialised(&location.path) {
        if !args.init && !output::is_terminal() {
            let problem = "there is no database here, and serve makes one only on a terminal or with --init; is the \
                           path right, and the volume mounted?";
            return Err(Error::invalid(location.path.display().to_string(), problem));
        }
        init(location, issuer.clone(), args.init)?;
    }
    let options = Options {
        commit_batch: args.commit_batch.into(),
        read_timeout: args.read_timeout,
    };
    let dir = DataDir::open_to_serve(&location.path, location.key.clone())?;
    let service = Service::open_with(dir, &options)?;
    let settings = service.settings(&operator())?;
    if let Some(issuer) = issuer.filter(|it| *it != settings.issuer) {
        log::warn!(
            "the issuer is {:?}, not {:?} as --issuer says: `totpd settings set issuer=NAME` changes it",
            settings.issuer.as_str(),
            issuer.as_str()
        );
    }
    Ok(service)
}

fn init(location: &DataLocation, issuer: Option<Name>, is_silent: bool) -> Result<()> {
    let settings = Settings {
        issuer: issuer.map_or_else(|| Name::parse_issuer("--issuer", args::ISSUER), Ok)?,
        window: Window::OneEitherSide,
        checkpoints: totpd::model::Checkpointer::Own,
        self_removal: totpd::model::SelfRemoval::Allow,
    };
    let (service, org) = DataDir::create(&location.path, location.key.clone(), &settings, now())?;
    if is_silent {
        // Without a terminal the output may go to a log file, where a token would stay.
        let path = location.path.display();
        output::print_line(&format!("made {path}; {}", admin::another_token(location)));
    } else {
        let (_, token) = admin::first_token(location, &service)?;
        output::print_line(&admin::welcome(location, &org, &token));
    }
    Ok(())
}
