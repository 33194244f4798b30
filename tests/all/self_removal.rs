//! If the setting `self-removal` is `code`, a stolen `self` token removes nothing. SECURITY.md 48.

use std::sync::Barrier;
use std::thread;

use totpd::model::{SelfRemoval, UserId};
use totpd::service::{Context, DataDir, KeyFile, Role, Service, SettingsChange};

use crate::binary::{Home, enrolled, now};
use crate::harness::{Answer, Client, Phone, TestServer};
use crate::replacement::phone_of;

pub const NEEDED: Option<&str> = Some("TOTPD-Code1");
pub const WRONG: Option<&str> = Some("EVENT-8isk2");
const USED: Option<&str> = Some("TOTPD-Used1");
const WAIT: Option<&str> = Some("TOTPD-Wait1");
const FIELD: Option<&str> = Some("TOTPD-Field");
const EVENTS: &str = "SELECT count(*) FROM event";

/// Alice with a confirmed authenticator and her `self` token.
pub struct Scene {
    pub server: TestServer,
    pub token: String,
    pub phone: Phone,
}

impl Scene {
    pub fn new(setting: SelfRemoval) -> Self {
        let server = TestServer::start();
        let made = r#"{"userId":"alice"}"#;
        server.ask("POST", "/users", made).expect_status(201);
        let alice: UserId = "alice".parse().unwrap();
        let (token, phone) = (server.token(Role::Own(alice)), server.enrol("alice"));
        let scene = Self {
            server,
            token,
            phone,
        };
        scene.set(setting);
        scene
    }

    pub fn set(&self, setting: SelfRemoval) {
        set(&self.server.service, &self.server, setting);
    }

    fn ask_as(&self, token: &str, method: &str, path: &str, body: &str, headers: &str) -> Answer {
        let headers = format!("Authorization: Bearer {token}\r\n{headers}");
        let target = format!("/resources/v3alpha{path}");
        self.server.raw(method, &target, &headers, body.as_bytes())
    }

    /// Sends a request with only the token.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_as(&self.token, method, path, body, "")
    }

    pub fn ask_with(&self, method: &str, path: &str, body: &str, code: &str) -> Answer {
        let header = format!("Totpd-Code: {code}\r\n");
        self.ask_as(&self.token, method, path, body, &header)
    }

    pub fn code(&self) -> String {
        self.phone.code_at(self.server.now())
    }

    pub fn wrong(&self) -> String {
        self.phone.wrong_at(self.server.now())
    }

    /// Starts an enrolment with the token, and with a code if one is given.
    fn begin(&self, code: Option<&str>) -> Phone {
        let answer = match code {
            None => self.ask("POST", "/users/alice/totp", ""),
            Some(code) => self.ask_with("POST", "/users/alice/totp", "", code),
        };
        phone_of(&answer.expect_status(200))
    }

    /// Confirms an enrolment with only the token.
    fn confirm(&self, phone: &Phone) -> Answer {
        let body = format!("\"{}\"", phone.code_at(self.server.now()));
        self.ask("POST", &verify(phone), &body)
    }

    fn recovery_codes(&self) -> Vec<String> {
        let made = self.server.ask("POST", "/users/alice/recovery_codes", "");
        let json = made.expect_status(200).json();
        let codes = json["codes"].as_array().unwrap();
        let text = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
        codes.iter().map(text).collect()
    }

    /// How many guesses at a one-time code were judged.
    fn guesses(&self) -> i64 {
        let guesses = "SELECT count(*) FROM event WHERE kind = 'totp.code_refused'";
        self.server.count(guesses)
    }
}

fn set(service: &Service, server: &TestServer, setting: SelfRemoval) {
    let change = SettingsChange {
        self_removal: Some(setting),
        ..SettingsChange::default()
    };
    let context = Context::command_line(server.now());
    service.change_settings(&context, change).unwrap();
}

pub fn removal(phone: &Phone) -> String {
    format!("/users/alice/totp/{}", phone.id)
}

fn verify(phone: &Phone) -> String {
    format!("/users/alice/totp/{}/_verify", phone.id)
}

#[test]
fn a_removal_by_a_self_token_needs_a_current_code_and_uses_it_up() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let other = server.enrol("alice");
    let before = server.count(EVENTS);
    scene
        .ask("DELETE", &removal(&other), "")
        .expect_error(400, 9, NEEDED);
    assert_eq!(server.count(EVENTS), before, "a refusal leaves no event");
    scene
        .ask_with("DELETE", &removal(&other), "", &scene.wrong())
        .expect_error(400, 3, WRONG);
    let counted = "SELECT in_a_row FROM failure";
    assert_eq!(server.count(counted), 1, "the guess is counted");
    let code = scene.code();
    let gone = scene
        .ask_with("DELETE", &removal(&other), "", &code)
        .expect_status(200);
    assert_eq!(gone.text("/details/id"), other.id);
    // The code is used up, and resets the failures as a check does.
    server.check("alice", &code).expect_error(400, 3, USED);
    assert_eq!(server.count("SELECT count(*) FROM failure"), 0);
    let of_code = format!(
        "SELECT count(*) FROM event WHERE kind = 'totp.checked' AND about_id = '{}'",
        scene.phone.id
    );
    assert_eq!(server.count(&of_code), 1, "that it was used is on record");
    // A missing resource is reported before the code is judged.
    server.pass_seconds(30);
    let code = scene.code();
    scene
        .ask_with("DELETE", &removal(&other), "", &code)
        .expect_error(404, 5, Some("COMMAND-Hd9sd"));
    // The code of the authenticator that is removed is accepted too.
    scene
        .ask_with("DELETE", &removal(&scene.phone), "", &code)
        .expect_status(200);
}

/// No way around the removal succeeds.
#[test]
fn no_detour_leads_a_stolen_token_to_a_code_of_its_own() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let codes = scene.recovery_codes();
    let (before, rows) = (server.count(EVENTS), "SELECT count(*) FROM totp");
    let replacing = format!("/users/alice/totp?replaces={}", scene.phone.id);
    let detours = [
        ("POST", "/users/alice/totp"),
        ("POST", replacing.as_str()),
        ("POST", "/users/alice/recovery_codes"),
        ("DELETE", "/users/alice/recovery_codes"),
    ];
    for (method, path) in detours {
        let refused = scene.ask(method, path, "");
        refused.expect_error(400, 9, NEEDED);
    }
    assert_eq!((server.count(EVENTS), server.count(rows)), (before, 1));
    for (method, path) in detours {
        let refused = scene.ask_with(method, path, "", &scene.wrong());
        refused.expect_error(400, 3, WRONG);
    }
    assert_eq!(server.count(rows), 1);
    server.pass_seconds(30);
    for (method, path) in detours {
        let code = scene.code();
        let done = scene.ask_with(method, path, "", &code);
        done.expect_status(200);
        server.check("alice", &code).expect_error(400, 3, USED);
        server.pass_seconds(30);
    }
    // The earlier codes are replaced, and the new ones are removed.
    let path = "/users/alice/recovery_codes";
    scene
        .ask_with("POST", path, "", &codes[0])
        .expect_error(400, 9, Some("TOTPD-Recov2"));
}

#[test]
fn a_recovery_code_stands_in_for_a_current_code_once() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let codes = scene.recovery_codes();
    let other = server.enrol("alice");
    let spelled = codes[0].to_uppercase().replace('-', " ");
    scene
        .ask_with("DELETE", &removal(&other), "", &spelled)
        .expect_status(200);
    scene
        .ask_with("DELETE", &removal(&scene.phone), "", &codes[0])
        .expect_error(400, 3, Some("TOTPD-Recov1"));
    let counted = "SELECT in_a_row FROM failure";
    assert_eq!(server.count(counted), 1, "a used one is a guess");
    // A user who has lost every phone gets new codes with one of the old ones.
    let path = "/users/alice/recovery_codes";
    scene
        .ask_with("POST", path, "", &codes[1])
        .expect_status(200);
    scene
        .ask_with("DELETE", path, "", &codes[2])
        .expect_error(400, 3, Some("TOTPD-Recov1"));
}

/// Two enrolments are started while no code can be demanded. When the first one is confirmed, the other must not
/// remain as a way in.
#[test]
fn what_was_begun_without_a_code_needs_one_to_be_confirmed() {
    let scene = Scene::new(SelfRemoval::Allow);
    let server = &scene.server;
    // Started while the setting was `allow`. One of them replaces the phone.
    let begun = scene.begin(None);
    let path = format!("/users/alice/totp?replaces={}", scene.phone.id);
    let replacing = phone_of(&scene.ask("POST", &path, "").expect_status(200));
    let by_admin = server.start_enrolment("alice");
    scene.set(SelfRemoval::Code);
    let with_code = scene.begin(Some(&scene.code()));
    server.pass_seconds(30);
    for phone in [&begun, &replacing] {
        scene.confirm(phone).expect_error(400, 9, NEEDED);
        let body = format!("\"{}\"", phone.code_at(server.now()));
        scene
            .ask_with("POST", &verify(phone), &body, &scene.wrong())
            .expect_error(400, 3, WRONG);
        // A code of the enrolment itself proves nothing.
        let own = phone.code_at(server.now());
        scene
            .ask_with("POST", &verify(phone), &body, &own)
            .expect_error(400, 3, WRONG);
    }
    assert_eq!(server.count("SELECT in_a_row FROM failure"), 4);
    let body = format!("\"{}\"", begun.code_at(server.now()));
    scene
        .ask_with("POST", &verify(&begun), &body, &scene.code())
        .expect_status(200);
    // An enrolment that another role or a code allowed needs no second code.
    scene.confirm(&by_admin).expect_status(200);
    scene.confirm(&with_code).expect_status(200);
    // Another role needs no code either.
    let code = replacing.code_at(server.now());
    server
        .confirm("alice", &replacing, &code)
        .expect_status(200);
}

/// The same with the setting `code` from the beginning: the first two enrolments of a user.
#[test]
fn the_second_of_two_first_enrolments_needs_a_code() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    server.remove("alice", &scene.phone).expect_status(200);
    let (own, stolen) = (scene.begin(None), scene.begin(None));
    scene.confirm(&own).expect_status(200);
    scene.confirm(&stolen).expect_error(400, 9, NEEDED);
    server.pass_seconds(30);
    let body = format!("\"{}\"", stolen.code_at(server.now()));
    let code = own.code_at(server.now());
    scene
        .ask_with("POST", &verify(&stolen), &body, &code)
        .expect_status(200);
}

#[test]
fn what_takes_nothing_away_needs_no_code() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let pending = server.start_enrolment("alice");
    let rename = format!("{}/_rename", removal(&scene.phone));
    scene.ask("POST", &rename, "\"Mine\"").expect_status(200);
    scene.ask("GET", "/users/alice", "").expect_status(200);
    scene.ask("GET", "/users/alice/totp", "").expect_status(200);
    let codes = "/users/alice/recovery_codes";
    scene.ask("GET", codes, "").expect_status(200);
    scene
        .ask("DELETE", &removal(&pending), "")
        .expect_status(200);
    // Without a confirmed authenticator there is nothing to protect.
    server.remove("alice", &scene.phone).expect_status(200);
    let first = scene.begin(None);
    scene.confirm(&first).expect_status(200);
}

/// Other roles may send a code, and so may every role if the setting is `allow`. The code is not judged and stays
/// valid.
#[test]
fn a_code_that_is_not_needed_is_not_used_up() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let manager = server.token(Role::Manager(server.org.parse().unwrap()));
    let remove_as = |token: &str, code: &str| {
        let phone = server.enrol("alice");
        let header = format!("Totpd-Code: {code}\r\n");
        scene
            .ask_as(token, "DELETE", &removal(&phone), "", &header)
            .expect_status(200);
    };
    for token in [&server.admin, &manager] {
        remove_as(token, &scene.wrong());
        let phone = server.enrol("alice");
        let code = scene.code();
        let header = format!("Totpd-Code: {code}\r\n");
        scene
            .ask_as(token, "DELETE", &removal(&phone), "", &header)
            .expect_status(200);
        server.check("alice", &code).expect_status(200);
    }
    scene.set(SelfRemoval::Allow);
    remove_as(&scene.token, &scene.wrong());
    assert_eq!(scene.guesses(), 0);
}

/// A running server applies a change of the setting with its next transaction, whichever process made it.
#[test]
fn the_setting_applies_at_once_and_leaves_an_event() {
    let scene = Scene::new(SelfRemoval::Allow);
    let server = &scene.server;
    let dir = DataDir::open(server.path(), KeyFile::InDataDir).unwrap();
    let beside = Service::open(dir).unwrap();
    let changes = "SELECT count(*) FROM event WHERE kind = 'settings.self_removal_changed'";
    for (round, setting) in [SelfRemoval::Code, SelfRemoval::Code, SelfRemoval::Allow]
        .into_iter()
        .enumerate()
    {
        set(&beside, server, setting);
        let events = if round < 2 { 1 } else { 2 };
        assert_eq!(server.count(changes), events);
        let answer = scene.ask("POST", "/users/alice/totp", "");
        match setting {
            SelfRemoval::Code => answer.expect_error(400, 9, NEEDED),
            SelfRemoval::Allow => answer.expect_status(200),
        };
    }
}

/// SECURITY.md 1: one code allows one change.
#[test]
fn a_code_is_good_for_one_change() {
    let scene = Scene::new(SelfRemoval::Code);
    let code = scene.code();
    let begin = || scene.ask_with("POST", "/users/alice/totp", "", &code);
    begin().expect_status(200);
    begin().expect_error(400, 3, USED);
    let path = "/users/alice/recovery_codes";
    scene
        .ask_with("POST", path, "", &code)
        .expect_error(400, 3, USED);
    assert_eq!(scene.guesses(), 0, "a used one is no guess");
    assert_eq!(scene.server.count("SELECT count(*) FROM totp"), 2);
}

/// SECURITY.md 2
#[test]
fn of_64_removals_with_one_code_one_is_made() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let others: Vec<Phone> = (0..9).map(|_| server.enrol("alice")).collect();
    let headers = format!(
        "Authorization: Bearer {}\r\nTotpd-Code: {}\r\n",
        scene.token,
        scene.code()
    );
    let barrier = Barrier::new(64);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|n| {
                let target = format!("/resources/v3alpha{}", removal(&others[n % 9]));
                let (headers, barrier) = (&headers, &barrier);
                scope.spawn(move || {
                    let mut client = Client::connect(&server.address());
                    barrier.wait();
                    client.ask("DELETE", &target, headers, b"").status
                })
            })
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let made = statuses.iter().filter(|it| **it == 200).count();
    assert_eq!((made, server.count("SELECT count(*) FROM totp")), (1, 9));
}

/// SECURITY.md 11, 13 and 15: all guesses of a user share one wait.
#[test]
fn guesses_with_changes_and_with_checks_share_the_wait() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let guess = || scene.ask_with("DELETE", &removal(&scene.phone), "", &scene.wrong());
    for _ in 0..3 {
        guess().expect_error(400, 3, WRONG);
    }
    for _ in 0..2 {
        server
            .check("alice", &scene.wrong())
            .expect_error(400, 3, WRONG);
    }
    let waits = guess().expect_error(429, 8, WAIT);
    assert_eq!(waits.header("retry-after"), Some("30"));
    let code = scene.code();
    scene
        .ask_with("DELETE", &removal(&scene.phone), "", &code)
        .expect_error(429, 8, WAIT);
    server.check("alice", &code).expect_error(429, 8, WAIT);
    // Nothing was used up during the wait. A request with only the token is told that it needs a code.
    scene
        .ask("DELETE", &removal(&scene.phone), "")
        .expect_error(400, 9, NEEDED);
    server.pass_seconds(30);
    scene
        .ask_with("POST", "/users/alice/totp", "", &code)
        .expect_status(200);
}

/// SECURITY.md 15
#[test]
fn of_200_parallel_guesses_five_are_judged() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let headers = format!(
        "Authorization: Bearer {}\r\nTotpd-Code: {}\r\n",
        scene.token,
        scene.wrong()
    );
    let target = format!("/resources/v3alpha{}", removal(&scene.phone));
    let barrier = Barrier::new(50);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut client = Client::connect(&server.address());
                barrier.wait();
                for _ in 0..4 {
                    let status = client.ask("DELETE", &target, &headers, b"").status;
                    assert!([400, 429].contains(&status), "{status}");
                }
            });
        }
    });
    assert_eq!(scene.guesses(), 5);
    assert_eq!(server.count("SELECT in_a_row FROM failure"), 5);
}

/// SECURITY.md 45: a start that has to wait uses up no code, and a start whose code is refused does not count as one
/// of the thirty.
#[test]
fn a_start_that_has_to_wait_uses_up_no_code() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    scene
        .ask_with("POST", "/users/alice/totp", "", &scene.wrong())
        .expect_error(400, 3, WRONG);
    for _ in 0..30 {
        let begun = scene.begin(Some(&scene.code()));
        scene.ask("DELETE", &removal(&begun), "").expect_status(200);
        server.pass_seconds(30);
    }
    let code = scene.code();
    scene
        .ask_with("POST", "/users/alice/totp", "", &code)
        .expect_error(429, 8, Some("TOTPD-Wait2"));
    server.check("alice", &code).expect_status(200);
}

/// SECURITY.md 4: a malformed code is refused for every role and changes nothing. Two codes in one request are
/// ambiguous.
#[test]
fn a_code_has_one_spelling_and_one_place() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    let (other, pending) = (server.enrol("alice"), server.start_enrolment("alice"));
    let before = server.count(EVENTS);
    let confirm = (verify(&pending), "\"123456\"");
    let calls = [
        ("DELETE", removal(&other).as_str(), ""),
        ("POST", "/users/alice/totp", ""),
        ("POST", confirm.0.as_str(), confirm.1),
        ("POST", "/users/alice/recovery_codes", ""),
        ("DELETE", "/users/alice/recovery_codes", ""),
    ]
    .map(|(method, path, body)| (method, path.to_owned(), body));
    let code = scene.code();
    let long = "1".repeat(100);
    for (method, path, body) in &calls {
        for malformed in [
            "",
            "12345",
            "1234567890",
            "123 456",
            "+12345",
            "abcdef",
            &long,
        ] {
            for token in [&scene.token, &server.admin] {
                let header = format!("Totpd-Code: {malformed}\r\n");
                let refused = scene.ask_as(token, method, path, body, &header);
                let refused = refused.expect_error(400, 3, FIELD);
                let told = refused.text("/message");
                assert!(told.starts_with("Totpd-Code: expected"), "{told}");
            }
        }
        let twice = format!("Totpd-Code: {code}\r\ntotpd-code: {code}\r\n");
        let refused = scene.ask_as(&scene.token, method, path, body, &twice);
        refused.expect_error(400, 3, FIELD);
    }
    assert_eq!(server.count(EVENTS), before);
    // Calls that take no code ignore it.
    scene
        .ask_with("GET", "/users/alice", "", "nonsense")
        .expect_status(200);
    // The token and the role are checked first.
    let header = "Totpd-Code: 12345\r\n";
    let checker = server.token(Role::Checker(None));
    scene
        .ask_as(&checker, "DELETE", &removal(&other), "", header)
        .expect_error(403, 7, Some("AUTH-AWfge"));
    scene
        .ask_as("nonsense", "DELETE", &removal(&other), "", header)
        .expect_error(401, 16, Some("AUTH-7fs1e"));
}

/// No code of a locked user is judged.
#[test]
fn no_code_of_a_locked_user_is_judged() {
    let scene = Scene::new(SelfRemoval::Code);
    let server = &scene.server;
    server
        .ask("POST", "/users/alice/_lock", "")
        .expect_status(200);
    let code = scene.code();
    for path in [removal(&scene.phone), removal(&scene.phone)] {
        scene
            .ask_with("DELETE", &path, "", &code)
            .expect_error(400, 9, Some("COMMAND-SF3fg"));
        scene
            .ask("DELETE", &path, "")
            .expect_error(400, 9, Some("COMMAND-SF3fg"));
    }
    server
        .ask("POST", "/users/alice/_unlock", "")
        .expect_status(200);
    server.check("alice", &code).expect_status(200);
}

/// SECURITY.md 3
#[test]
fn a_code_that_was_used_for_a_removal_is_used_after_sigkill() {
    let (home, token) = Home::init();
    let (alice, phone) = enrolled(&home);
    home.json(&["settings", "set", "self-removal=code"]);
    let own = home.json(&["token", "create", "--role", "self", "--user", &alice]);
    let own = own["token"].as_str().unwrap();
    let code = phone.code_of(now(), 1);
    let headers = format!("Authorization: Bearer {own}\r\nTotpd-Code: {code}\r\n");
    let totps = format!("/resources/v3alpha/users/{alice}/totp");
    let server = home.serve(&[]);
    let begin = |address: &str| Client::connect(address).ask("POST", &totps, &headers, b"");
    begin(&server.address).expect_status(200);
    server.kill();
    let server = home.serve(&[]);
    begin(&server.address).expect_error(400, 3, USED);
    let check = format!("/users/{alice}/totp/_check");
    server
        .ask(&token, "POST", &check, &format!("\"{code}\""))
        .expect_error(400, 3, USED);
    assert_eq!(server.terminate().0, 0);
}
