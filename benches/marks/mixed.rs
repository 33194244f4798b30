//! The mixed load of mark 12: enrol, confirm, guess wrong, check, check again, read, remove, remove again.
//!
//! Each call depends on the answers before it, so this load is no list of prepared requests; it is a process
//! of its own all the same. It ends by itself, and when its standard input does.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use totpd::model::{Period, Step};
use totpd::totp::{Parameters, Secret, code_at};

use crate::Result;
use crate::http::Client;
use crate::machine;

const CONNECTIONS: usize = 16;
/// Users of one connection, one after another.
const USERS: usize = 50;
/// Wrong answers that are told word for word; the rest only count.
const TOLD: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    address: String,
    #[arg(long)]
    token: String,
    #[arg(long)]
    ms: u64,
}

/// What was answered, and answered as it should be.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) started: usize,
    pub(crate) confirmed: usize,
    pub(crate) refused: usize,
    pub(crate) checked: usize,
    pub(crate) removed: usize,
    pub(crate) requests: usize,
    pub(crate) wrong: usize,
    pub(crate) told: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    static OVER: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Relaxed);
    });
    let end = Instant::now() + Duration::from_millis(args.ms);
    let goes_on = || Instant::now() < end && !OVER.load(Ordering::Relaxed);
    let mut all = Counts::default();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| Caller::connect(args)?.call_while(goes_on)))
            .collect();
        for thread in threads {
            all.add(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(())
    })?;
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}

impl Counts {
    fn add(&mut self, it: Self) {
        self.started += it.started;
        self.confirmed += it.confirmed;
        self.refused += it.refused;
        self.checked += it.checked;
        self.removed += it.removed;
        self.requests += it.requests;
        self.wrong += it.wrong;
        self.told.extend(it.told);
        self.told.truncate(TOLD);
    }
}

/// One connection.
struct Caller {
    client: Client,
    counts: Counts,
}

impl Caller {
    fn connect(args: &Args) -> Result<Self> {
        Ok(Self {
            client: Client::connect(&args.address, &args.token)?,
            counts: Counts::default(),
        })
    }

    fn call_while(mut self, goes_on: impl Fn() -> bool) -> Result<Counts> {
        let mut users = Vec::new();
        for _ in 0..USERS {
            let (_, body) = self.client.ask("POST", "/resources/v3alpha/users", "{}")?;
            let made: Value = serde_json::from_slice(body)?;
            let id = made.pointer("/details/id").and_then(Value::as_str);
            users.push(id.ok_or("no user was made")?.to_owned());
        }
        for user in users.iter().cycle() {
            if !goes_on() {
                break;
            }
            self.life(&format!("/resources/v3alpha/users/{user}"))?;
        }
        Ok(self.counts)
    }

    /// An authenticator from its enrolment to its end.
    fn life(&mut self, user: &str) -> Result<()> {
        let all = format!("{user}/totp");
        let Some(begun) = self.expect("POST", &all, "", 200, "totpId")? else {
            return Ok(());
        };
        self.counts.started += 1;
        let text = |name: &str| begun.get(name).and_then(Value::as_str).unwrap_or_default();
        let one = format!("{all}/{}", text("totpId"));
        let (check, verify) = (format!("{all}/_check"), format!("{one}/_verify"));
        if let Some([first, second, wrong]) = codes(text("secret"))? {
            let good = self.expect("POST", &verify, &first, 200, "details")?;
            self.counts.confirmed += usize::from(good.is_some());
            let no = self.expect("POST", &check, &wrong, 400, "EVENT-8isk2")?;
            self.counts.refused += usize::from(no.is_some());
            let good = self.expect("POST", &check, &second, 200, "details")?;
            self.counts.checked += usize::from(good.is_some());
            self.expect("POST", &check, &second, 400, "TOTPD-Used1")?;
        }
        self.expect("GET", user, "", 200, text("totpId"))?;
        let gone = self.expect("DELETE", &one, "", 200, "details")?;
        self.counts.removed += usize::from(gone.is_some());
        self.expect("DELETE", &one, "", 404, "COMMAND-Hd9sd")?;
        self.expect("POST", &check, "\"000000\"", 400, "COMMAND-3Mif9s")?;
        Ok(())
    }

    /// Asks, and gives the answer if it is the one that it should be.
    fn expect(
        &mut self,
        method: &str,
        target: &str,
        body: &str,
        status: u16,
        word: &str,
    ) -> Result<Option<Value>> {
        self.counts.requests += 1;
        let (got, answer) = self.client.ask(method, target, body)?;
        let text = String::from_utf8_lossy(answer);
        if got == status && text.contains(word) {
            return Ok(Some(serde_json::from_str(&text)?));
        }
        self.counts.wrong += 1;
        if self.counts.told.len() < TOLD {
            let told = format!("{method} {target}: {got} {text}, expected {status} {word}");
            self.counts.told.push(told);
        }
        Ok(None)
    }
}

/// The code of this step, that of the next, and one that is wrong; unless two of those near are the same by
/// chance, which no server can tell apart.
fn codes(secret: &str) -> Result<Option<[String; 3]>> {
    let (secret, step) = (
        Secret::from_base32(secret)?,
        machine::now()?.step(Period::ENROLMENT).number(),
    );
    let mut near = Vec::new();
    for it in step - 1..=step + 3 {
        let code = code_at(&secret, Parameters::ENROLMENT, Step::from_number(it))?;
        near.push(format!("\"{}\"", code.digits()));
    }
    let wrong = (0..10)
        .map(|it| format!("\"{it:06}\""))
        .find(|it| !near.contains(it))
        .ok_or("every code is good")?;
    let (first, second) = (near[1].clone(), near[2].clone());
    near.sort_unstable();
    near.dedup();
    Ok((near.len() == 5).then_some([first, second, wrong]))
}
