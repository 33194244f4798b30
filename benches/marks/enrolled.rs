//! Authenticators with real secrets, whose codes are good: enrolled and confirmed by the service itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use totpd::model::{Period, Step, TotpId, UserId};
use totpd::service::{Context, DataDir, KeyFile, NewUser, Service, Verdict};
use totpd::totp::{Parameters, Secret, code_at};

use crate::Result;
use crate::machine;
use crate::seed::Home;

/// They wait for each other's commits, so many share one.
const THREADS: usize = 64;
/// How long ago they are confirmed: the code that does it uses its step up, and all before it.
const AGO: Duration = Duration::from_mins(5);

/// The app on a user's phone.
pub(crate) struct Phone {
    pub(crate) user: UserId,
    pub(crate) totp: TotpId,
    secret: Secret,
}

/// All of them. The data directory is not served meanwhile.
pub(crate) struct Enrolled {
    phones: Vec<Phone>,
    /// The newest step that any of them has used.
    used: i64,
}

impl Enrolled {
    pub(crate) fn make(home: &Home, count: usize) -> Result<Self> {
        let service = Service::open(DataDir::open(&home.dir, KeyFile::InDataDir)?)?;
        let (phones, begun) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        thread::scope(|scope| {
            let work = || -> Result<()> {
                while begun.fetch_add(1, Ordering::Relaxed) < count {
                    let phone = enrol(&service)?;
                    phones.lock().map_err(|_| "a thread failed")?.push(phone);
                }
                Ok(())
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .try_for_each(|it| it.join().map_err(|_| "a thread panicked")?)
        })?;
        Ok(Self {
            phones: phones.into_inner()?,
            used: machine::now()?.before(AGO).step(Period::ENROLMENT).number(),
        })
    }

    /// A step whose codes are good now and not used yet, and the phones that can show one. Waits if the
    /// last was a moment ago.
    pub(crate) fn next_step(&mut self) -> Result<(i64, Vec<&Phone>)> {
        let step = loop {
            let present = machine::now()?.step(Period::ENROLMENT).number();
            // One step ahead of the clock is still good.
            if self.used <= present {
                break present.max(self.used + 1);
            }
            thread::sleep(Duration::from_millis(200));
        };
        self.used = step;
        // One in a million has the code of a step before, and is taken for that one.
        let mut phones = Vec::with_capacity(self.phones.len());
        for phone in &self.phones {
            let code = phone.code(step)?;
            if phone.code(step - 1)? != code && phone.code(step - 2)? != code {
                phones.push(phone);
            }
        }
        Ok((step, phones))
    }
}

impl Phone {
    fn code(&self, step: i64) -> Result<String> {
        let code = code_at(&self.secret, Parameters::ENROLMENT, Step::from_number(step))?;
        Ok(code.digits().to_owned())
    }

    /// The request that checks the code of a step.
    pub(crate) fn check(&self, step: i64) -> Result<String> {
        Ok(format!(
            "POST /resources/v3alpha/users/{}/totp/_check \"{}\"",
            self.user,
            self.code(step)?
        ))
    }
}

fn enrol(service: &Service) -> Result<Phone> {
    let now = machine::now()?;
    let context = Context::command_line(now);
    let made = service.create_user(&context, NewUser::default())?;
    let user: UserId = made.id.parse()?;
    let enrolment = service.start_totp(&context, user.clone(), None)?;
    let totp: TotpId = enrolment.details.id.parse()?;
    let secret = enrolment.secret;
    let then = now.before(AGO);
    let code = code_at(&secret, Parameters::ENROLMENT, then.step(Period::ENROLMENT))?;
    let at_that_time = Context::command_line(then);
    match service.confirm_totp(&at_that_time, user.clone(), totp.clone(), code)? {
        Verdict::Accepted(_) => Ok(Phone { user, totp, secret }),
        Verdict::Wrong { .. } | Verdict::Used | Verdict::Wait { .. } => {
            Err("an enrolment was not confirmed".into())
        }
    }
}
