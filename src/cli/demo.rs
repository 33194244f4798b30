//! `demo`: enrols, checks and removes an authenticator over real HTTP, in a temporary directory. Fails if an answer has
//! another status than expected.
//!
//! It uses a clock of its own, so that it does not wait 30 seconds for the next code.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;
use totpd::api::Api;
use totpd::error::{Error, Result};
use totpd::model::{Name, Period, Timestamp, Window};
use totpd::serve::{self, Config, Handler, Limits, Listen, Running};
use totpd::service::{COMMIT_BATCH, Context, DataDir, KeyFile, NewToken, Role, Settings};
use totpd::totp::{Parameters, Secret, code_at};

use super::{now, output};

/// Changes in progress at once. The demo has one client.
const CHANGES: usize = 6;
/// The length of a TOTP step.
const STEP: Duration = Duration::from_secs(30);

pub(super) fn run() -> Result<()> {
    let dir = TemporaryDir::new();
    let story = tell(&dir.0);
    drop(dir);
    story?;
    output::print_line(
        "\nThat is the promise: when DELETE has answered 200, no code of that authenticator is good any more.",
    );
    if cfg!(feature = "web") {
        output::print_line(
            "\nThe same by clicking: run `totpd init` and `totpd serve`, then `totpd open` in another terminal, and open the link that it \
             prints. `totpd user invite USER` prints one for a user.",
        );
    }
    Ok(())
}

/// The clock of the system, set forward by the steps that were skipped.
#[derive(Clone, Default)]
struct DemoClock {
    later_us: Arc<AtomicI64>,
}

impl DemoClock {
    fn now(&self) -> Timestamp {
        let later_us = self.later_us.load(Ordering::Relaxed);
        Timestamp::from_micros(now().micros().saturating_add(later_us))
    }

    fn skip_step(&self) {
        let step_us = i64::try_from(STEP.as_micros()).unwrap_or_default();
        self.later_us.fetch_add(step_us, Ordering::Relaxed);
    }
}

/// Starts a server with a new database. Returns it with a client of it.
fn start(dir: &Path, clock: &DemoClock) -> Result<(Running, Client)> {
    let settings = Settings {
        issuer: Name::parse("issuer", "Demo")?,
        window: Window::OneEitherSide,
        checkpoints: totpd::model::Checkpointer::Own,
        self_removal: totpd::model::SelfRemoval::Allow,
    };
    let (service, _) = DataDir::create(dir, KeyFile::InDataDir, &settings, clock.now())?;
    let new = NewToken {
        role: Role::Admin,
        name: None,
        lifetime: None,
    };
    let (_, token) = service.create_token(&Context::command_line(clock.now()), new)?;
    let clock = clock.clone();
    let handler = Handler::of(Api::new(service, Arc::new(move || clock.now())));
    let config = Config {
        listen: vec![Listen::Tcp("127.0.0.1:0".to_owned())],
        inherited: Vec::new(),
        public_url: None,
        metrics_listen: None,
        tls: None,
        trusted_proxies: Vec::new(),
        unix_mode: 0o600,
        private_dir: dir.to_owned(),
        changes_at_once: CHANGES,
        commit_batch: COMMIT_BATCH,
        limits: Limits::default(),
        insecure_plaintext: false,
        on_fatal_error: Box::new(output::print_error),
    };
    let running =
        serve::start(config, &handler).map_err(|it| Error::invalid("demo", it.to_string()))?;
    let address = running.addresses().first().map(ToString::to_string);
    let client = Client {
        address: address.unwrap_or_default(),
        token: token.reveal().to_owned(),
    };
    Ok((running, client))
}

fn tell(dir: &Path) -> Result<()> {
    let clock = DemoClock::default();
    let (running, client) = start(dir, &clock)?;
    output::print_line(&format!(
        "totpd is listening on {}, its data in {}",
        client.address,
        dir.display()
    ));
    output::print_line(
        "Every request carries `Authorization: Bearer totpd_…`, and below you see it go over the wire.",
    );

    output::print_line("\n1. A user.");
    let body = r#"{"authenticators":{"usernames":[{"username":"alice"}]}}"#;
    let user = client.ask("POST", "/users", body, 201)?;
    let user = text(&user, "/details/id")?;

    output::print_line(
        "\n2. Alice scans the secret with her phone, and types the first code to confirm.",
    );
    let totps = format!("/users/{user}/totp");
    let enrolment = client.ask("POST", &totps, r#"{"name":"Pixel 9"}"#, 200)?;
    let phone = format!("{totps}/{}", text(&enrolment, "/totpId")?);
    let secret = Secret::from_base32(&text(&enrolment, "/secret")?)?;
    let code = || -> Result<String> {
        let step = clock.now().step(Period::ENROLMENT);
        let code = code_at(&secret, Parameters::ENROLMENT, step)?;
        Ok(format!("\"{}\"", code.digits()))
    };
    client.ask("POST", &format!("{phone}/_verify"), &code()?, 200)?;

    output::print_line("\n3. Half a minute later she logs in. Her code is good, once.");
    clock.skip_step();
    let typed = code()?;
    client.ask("POST", &format!("{totps}/_check"), &typed, 200)?;
    client.ask("POST", &format!("{totps}/_check"), &typed, 400)?;

    output::print_line("\n4. The phone is lost. One call removes its authenticator.");
    client.ask("DELETE", &phone, "", 200)?;

    output::print_line("\n5. The person who found it has the next code, and it is refused.");
    clock.skip_step();
    client.ask("POST", &format!("{totps}/_check"), &code()?, 400)?;
    client.ask("POST", &format!("{phone}/_check"), &code()?, 404)?;

    output::print_line("\n6. Gone is gone.");
    client.ask("DELETE", &phone, "", 404)?;
    running.stop(Duration::from_secs(5));
    Ok(())
}

fn text(document: &Value, pointer: &str) -> Result<String> {
    let text = document.pointer(pointer).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| Error::invalid("demo", format!("the answer has no {pointer}")))
}

/// A client that prints its requests and their answers.
struct Client {
    address: String,
    token: String,
}

impl Client {
    /// Sends a request on a new connection and prints it with its answer. Fails unless the answer has this status.
    fn ask(&self, method: &str, path: &str, body: &str, status: u16) -> Result<Value> {
        let failed = |why: String| Error::invalid("demo", why);
        let address = self.address.trim_start_matches("http://");
        let path = format!("/resources/v3alpha{path}");
        let shown = if body.is_empty() {
            String::new()
        } else {
            format!("  {body}")
        };
        output::print_line(&format!("   > {method} {path}{shown}"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let mut answer = String::new();
        let sent = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)
        });
        sent.map_err(|error| failed(format!("no answer: {error}")))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let line = head.lines().next().unwrap_or_default();
        let document: Value = serde_json::from_str(body).unwrap_or_default();
        let told = document
            .pointer("/message")
            .and_then(Value::as_str)
            .unwrap_or(body);
        output::print_line(&format!("   < {line}  {told}"));
        if line.split(' ').nth(1) == Some(&status.to_string()) {
            Ok(document)
        } else {
            Err(failed(format!(
                "expected {status}, and the answer was {line}"
            )))
        }
    }
}

/// A directory that is removed when dropped.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> Self {
        Self(env::temp_dir().join(format!("totpd-demo-{}", process::id())))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{}: {error}", self.0.display());
        }
    }
}
