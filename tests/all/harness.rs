//! Each test has its own server: port 0, a temporary directory, and a clock that the test moves.
//!
//! Requests go over real sockets. The test states the expected answer. If the answer differs, everything that was
//! sent and received is printed.

use std::io::ErrorKind::WouldBlock;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use totpd::api::Api;
use totpd::api::handler::Observer;
use totpd::model::{Clock, ClockReading, Period, Timestamp, Window};
use totpd::serve::{self, Config, Handler, Limits, Listen, Running};
use totpd::service::{
    COMMIT_BATCH, Context, DataDir, KeyFile, NewToken, Role, Service, Settings,
    is_in_write_transaction,
};
use totpd::totp::{Parameters, Secret, code_at};

use crate::wait::PATIENCE;

/// The time at which each server starts, in the middle of a step.
const START_S: i64 = 1_795_453_575;
/// Enough workers for races, and few enough to start quickly.
const CHANGES: usize = 16;

pub struct TestServer {
    pub service: Service,
    pub dir: TempDir,
    pub org: String,
    pub admin: String,
    running: Option<Running>,
    now_us: Arc<AtomicI64>,
    shared_commits: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    /// While a test holds this lock, a request whose target ends in `stuck` keeps its worker.
    pub stuck: Arc<Mutex<()>>,
    /// A request for this target panics in its worker.
    pub panics: Arc<Mutex<String>>,
    has_pages: bool,
}

impl TestServer {
    /// A server with the default configuration.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Starts a server with another configuration than the default.
    pub fn builder<'a>() -> Builder<'a> {
        Builder {
            window: Window::OneEitherSide,
            has_pages: true,
            change: Box::new(|_| ()),
        }
    }

    fn start_serving(&self, change: Change<'_>) -> Running {
        let mut api = Api::new(self.service.clone(), self.clock());
        if self.has_pages {
            api = api.with_pages();
        }
        #[cfg(feature = "grpc")]
        let api = api.for_origins(vec!["https://pages.test".to_owned()]);
        let shared_commits = Arc::clone(&self.shared_commits);
        let begun = Arc::clone(&self.begun);
        let stuck = Arc::clone(&self.stuck);
        let panics = Arc::clone(&self.panics);
        let observer = Observer {
            on_request: Some(Box::new(move |target| {
                begun.fetch_add(1, Ordering::SeqCst);
                let panics = panics.lock().is_ok_and(|it| *it == target);
                assert!(!panics, "on purpose");
                if target.ends_with("stuck") {
                    drop(stuck.lock());
                }
            })),
            on_batch: Some(Box::new(move || {
                shared_commits.fetch_add(1, Ordering::SeqCst);
            })),
        };
        let handler = Handler::with_observer(api, observer);
        let mut config = Config {
            listen: vec![Listen::Tcp("127.0.0.1:0".to_owned())],
            inherited: Vec::new(),
            public_url: None,
            metrics_listen: None,
            tls: None,
            trusted_proxies: Vec::new(),
            unix_mode: 0o600,
            private_dir: self.dir.path().to_owned(),
            changes_at_once: CHANGES,
            commit_batch: COMMIT_BATCH,
            limits: Limits::default(),
            insecure_plaintext: false,
            on_fatal_error: Box::new(|why| panic!("{why}")),
        };
        change(&mut config);
        serve::start(config, &handler).unwrap()
    }

    pub fn clock(&self) -> Clock {
        let now_us = Arc::clone(&self.now_us);
        Arc::new(move || Timestamp::from_micros(now_us.load(Ordering::SeqCst)))
    }

    pub fn now(&self) -> Timestamp {
        (self.clock())()
    }

    /// Moves the clock forward, or back if negative.
    pub fn pass_seconds(&self, seconds: i64) {
        self.now_us.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// Sets the clock.
    pub fn set(&self, now: Timestamp) {
        self.now_us.store(now.micros(), Ordering::SeqCst);
    }

    pub fn address(&self) -> String {
        let bound = self.running.as_ref().unwrap().addresses()[0].to_string();
        bound.split_once("://").unwrap().1.to_owned()
    }

    /// The running front end.
    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Stops the server, and returns whether all requests were answered.
    pub fn stop(&mut self, within: Duration) -> bool {
        self.running.take().unwrap().stop(within)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn token(&self, role: Role) -> String {
        self.token_with(role, None).1
    }

    /// Creates a token. Returns its id and the token.
    pub fn token_with(&self, role: Role, lifetime: Option<Duration>) -> (String, String) {
        let new = NewToken {
            role,
            name: None,
            lifetime,
        };
        let (id, token) = self
            .service
            .create_token(&Context::command_line(self.now()), new)
            .unwrap();
        (id.to_string(), token.reveal().to_owned())
    }

    pub fn record_backup(&self) {
        let context = Context::command_line(self.now());
        self.service.record_backup(&context).unwrap();
    }

    pub fn organization(&self, name: &str) -> String {
        let context = Context::command_line(self.now());
        self.service
            .create_organization(&context, name.parse().unwrap())
            .unwrap()
            .to_string()
    }

    /// Sends one request as the admin, below `/resources/v3alpha`.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_as(&self.admin, method, path, body)
    }

    pub fn ask_as(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        self.raw(
            method,
            &format!("/resources/v3alpha{path}"),
            &bearer,
            body.as_bytes(),
        )
    }

    pub fn raw(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        Client::connect(&self.address()).ask(method, target, headers, body)
    }

    /// Creates a user and returns its id.
    pub fn user(&self, username: &str) -> String {
        self.user_in(&self.org, username)
    }

    pub fn user_in(&self, org: &str, username: &str) -> String {
        let body = format!(r#"{{"authenticators":{{"usernames":[{{"username":"{username}"}}]}}}}"#);
        let path = format!("/users?organization.orgId={org}");
        self.ask("POST", &path, &body)
            .expect_status(201)
            .text("/details/id")
    }

    /// Starts an enrolment.
    pub fn start_enrolment(&self, user: &str) -> Phone {
        let answer = self
            .ask("POST", &format!("/users/{user}/totp"), "")
            .expect_status(200);
        Phone {
            id: answer.text("/totpId"),
            secret: Secret::from_base32(&answer.text("/secret")).unwrap(),
        }
    }

    /// Enrols and confirms an authenticator, and moves the clock to the next step.
    pub fn enrol(&self, user: &str) -> Phone {
        let phone = self.start_enrolment(user);
        self.confirm(user, &phone, &phone.code_at(self.now()))
            .expect_status(200);
        self.pass_seconds(30);
        phone
    }

    pub fn confirm(&self, user: &str, phone: &Phone, code: &str) -> Answer {
        let path = format!("/users/{user}/totp/{}/_verify", phone.id);
        self.ask("POST", &path, &format!("\"{code}\""))
    }

    pub fn check(&self, user: &str, code: &str) -> Answer {
        self.ask(
            "POST",
            &format!("/users/{user}/totp/_check"),
            &format!("\"{code}\""),
        )
    }

    pub fn remove(&self, user: &str, phone: &Phone) -> Answer {
        self.ask("DELETE", &format!("/users/{user}/totp/{}", phone.id), "")
    }

    /// How many requests have begun to run. A change counts before it waits for the database.
    #[cfg(feature = "grpc")]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// How many commits were shared by several requests.
    pub fn shared_commits(&self) -> usize {
        self.shared_commits.load(Ordering::SeqCst)
    }

    /// Prevents all writes until the returned connection is dropped.
    pub fn lock(&self) -> Connection {
        let neighbour = Connection::open(self.path().join("totpd.db")).unwrap();
        neighbour.execute_batch("BEGIN IMMEDIATE").unwrap();
        neighbour
    }

    /// The number that a statement selects from the database.
    pub fn count(&self, sql: &str) -> i64 {
        let path = self.path().join("totpd.db");
        Connection::open(path)
            .unwrap()
            .query_row(sql, (), |row| row.get(0))
            .unwrap()
    }
}

type Change<'a> = Box<dyn FnOnce(&mut Config) + 'a>;

/// The configuration of a server that differs from the default.
#[must_use]
pub struct Builder<'a> {
    window: Window,
    has_pages: bool,
    change: Change<'a>,
}

impl<'a> Builder<'a> {
    pub fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    pub fn without_pages(self) -> Self {
        Self {
            has_pages: false,
            ..self
        }
    }

    pub fn limits(self, limits: Limits) -> Self {
        self.config(|config| config.limits = limits)
    }

    pub fn config(self, change: impl FnOnce(&mut Config) + 'a) -> Self {
        let before = self.change;
        let change: Change<'a> = Box::new(|config| {
            before(config);
            change(config);
        });
        Self { change, ..self }
    }

    pub fn start(self) -> TestServer {
        OutsideTransactions::watch();
        let dir = tempfile::tempdir().unwrap();
        let now_us = Arc::new(AtomicI64::new(START_S * 1_000_000));
        let settings = Settings {
            issuer: "Test".parse().unwrap(),
            window: self.window,
            checkpoints: totpd::model::Checkpointer::Own,
            self_removal: totpd::model::SelfRemoval::Allow,
        };
        let at = Timestamp::from_seconds(START_S);
        let (service, org) =
            DataDir::create(dir.path(), KeyFile::InDataDir, &settings, at).unwrap();
        let mut server = TestServer {
            service,
            dir,
            org: org.to_string(),
            admin: String::new(),
            running: None,
            now_us,
            shared_commits: Arc::default(),
            begun: Arc::default(),
            stuck: Arc::default(),
            panics: Arc::new(Mutex::new("/panic".to_owned())),
            has_pages: self.has_pages,
        };
        server.admin = server.token(Role::Admin);
        server.running = Some(server.start_serving(self.change));
        server
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(5));
        }
    }
}

/// Deletes expired rows as at the end of an hour in which the clock ran evenly.
pub fn tidy(service: &Service, keep_events: Duration, now: Timestamp) {
    // An hour ago an event may still be in the future, and then nothing is deleted.
    let _begun = service.tidy(keep_events, even(now.before(Duration::from_hours(1))));
    service.tidy(keep_events, even(now)).unwrap();
}

/// A reading of clocks that have run evenly since 1970.
pub fn even(now: Timestamp) -> ClockReading {
    ClockReading {
        now,
        since_boot: now.since(Timestamp::from_seconds(0)),
    }
}

/// A logger that panics if a line is logged inside a write transaction, and drops all other lines. SECURITY.md 45
struct OutsideTransactions;

impl OutsideTransactions {
    fn watch() {
        // Only the first test sets it.
        if log::set_logger(&Self).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    }
}

impl log::Log for OutsideTransactions {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args();
        assert!(
            !is_in_write_transaction(),
            "logged in a transaction: {line}"
        );
    }

    fn flush(&self) {}
}

/// The data of an authenticator app.
pub struct Phone {
    pub id: String,
    pub secret: Secret,
}

impl Phone {
    pub fn code_at(&self, now: Timestamp) -> String {
        self.code_of(now, 0)
    }

    /// The code that is `offset` steps from now.
    pub fn code_of(&self, now: Timestamp, offset: i64) -> String {
        let step = totpd::model::Step::from_number(now.step(Period::ENROLMENT).number() + offset);
        code_at(&self.secret, Parameters::ENROLMENT, step)
            .unwrap()
            .digits()
            .to_owned()
    }

    /// A code that is valid at no step near now.
    pub fn wrong_at(&self, now: Timestamp) -> String {
        let good: Vec<String> = (-3..=3).map(|it| self.code_of(now, it)).collect();
        (0..1_000)
            .map(|it| format!("{it:06}"))
            .find(|it| !good.contains(it))
            .unwrap()
    }
}

/// A connection that stays open.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// A client with this source address.
    pub fn connect_from(own: [u8; 4], address: &str) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own = SocketAddr::from((own, 0));
        socket.bind(&own.into()).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        socket.connect(&address.into()).unwrap();
        Self::on(socket.into())
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The server may already have refused and closed.
        let _refused = self.stream.write_all(bytes);
    }

    pub fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let asked = self.put(method, target, headers, body);
        self.answer(method == "HEAD", &asked)
    }

    /// The same, for a server that may stop at any moment.
    pub fn try_ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Option<Answer> {
        let asked = self.put(method, target, headers, body);
        self.try_answer(false, &asked).ok()
    }

    fn put(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> String {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{headers}");
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = request.clone().into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes);
        format!("{request}{}", String::from_utf8_lossy(body))
    }

    /// Reads one answer.
    pub fn answer(&mut self, to_head: bool, asked: &str) -> Answer {
        self.try_answer(to_head, asked)
            .unwrap_or_else(|error| panic!("no answer ({error}) to:\n{asked:.2000}"))
    }

    fn try_answer(&mut self, to_head: bool, asked: &str) -> std::io::Result<Answer> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
            asked: asked.to_owned(),
        };
        if !to_head && status != 100 {
            let length = answer.header("content-length").unwrap().parse().unwrap();
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// Reads until the server closes the connection.
    pub fn read_rest(&mut self, into: &mut Vec<u8>) -> std::io::Result<usize> {
        self.stream.read_to_end(into)
    }

    /// Whether the server neither sends a byte nor closes for this long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let silent = self
            .stream
            .peek(&mut [0])
            .is_err_and(|it| it.kind() == WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// Whether the server closes without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        matches!(self.stream.read_to_end(&mut rest), Ok(0))
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    asked: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    pub fn text(&self, pointer: &str) -> String {
        let json = self.json();
        let text = json.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| self.fail(&format!("no {pointer}")))
            .to_owned()
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        if self.status != status {
            self.fail(&format!("expected {status}"));
        }
        assert_eq!(
            self.header("cache-control"),
            Some("no-store"),
            "{}",
            self.head
        );
        assert_eq!(
            self.header("x-content-type-options"),
            Some("nosniff"),
            "{}",
            self.head
        );
        self
    }

    /// Asserts all parts of a refusal: status, code, id, and both copies of the message.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: i64, id: Option<&str>) -> Self {
        let it = self.expect_status(status);
        let json = it.json();
        assert_eq!(
            it.header("content-type"),
            Some("application/json"),
            "{}",
            it.head
        );
        let field = |pointer: &str| json.pointer(pointer).cloned().unwrap_or_default();
        if field("/code") != code {
            it.fail(&format!("expected code {code}"));
        }
        let message = field("/message").as_str().unwrap().to_owned();
        match id {
            None if json.get("details").is_some() => it.fail("expected no details"),
            None => assert!(!message.is_empty()),
            Some(id) => {
                if field("/details/0/id") != id {
                    it.fail(&format!("expected id {id}"));
                }
                let kind = "type.googleapis.com/zitadel.v1.ErrorDetail";
                assert_eq!(field("/details/0/@type"), Value::from(kind));
                let sentence = field("/details/0/message").as_str().unwrap().to_owned();
                assert_eq!(message, format!("{sentence} ({id})"));
            }
        }
        it
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        let body = String::from_utf8_lossy(&self.body);
        panic!(
            "{why}; asked:\n{:.3000}\nanswered:\n{}{body}",
            self.asked, self.head
        )
    }
}
