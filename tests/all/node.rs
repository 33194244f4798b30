//! A data directory with a clock of its own, and no server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use totpd::error::Result;
use totpd::model::{Timestamp, UserId, Window};
use totpd::service::{
    Context, DataDir, KeyFile, Level, NewUser, RestoreOptions, Restored, Service, Settings, Verdict,
};

use crate::harness::Phone;

pub const START_S: i64 = 1_795_453_575;
pub const FORCE: RestoreOptions = RestoreOptions {
    replace: true,
    accept_loss: false,
};
/// A data directory, the service that is open on it if any, and a clock.
pub struct Node {
    pub dir: TempDir,
    pub service: Option<Service>,
    pub now: Timestamp,
}

impl Node {
    pub fn new() -> Self {
        let (dir, now) = (
            tempfile::tempdir().unwrap(),
            Timestamp::from_seconds(START_S),
        );
        let settings = Settings {
            issuer: "Test".parse().unwrap(),
            window: Window::OneEitherSide,
            checkpoints: totpd::model::Checkpointer::Own,
            self_removal: totpd::model::SelfRemoval::Allow,
        };
        let made = DataDir::create(dir.path(), KeyFile::InDataDir, &settings, now);
        Self {
            service: Some(made.unwrap().0),
            dir,
            now,
        }
    }

    /// An empty directory with the same master key.
    pub fn elsewhere(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(
            self.dir.path().join("master.key"),
            dir.path().join("master.key"),
        )
        .unwrap();
        Self {
            dir,
            service: None,
            now: self.now,
        }
    }

    pub fn pass_seconds(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    pub fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn back_up(&self, name: &str) -> PathBuf {
        let file = self.file(name);
        self.service().back_up(&file).unwrap();
        file
    }

    /// Restores a backup and opens the result.
    pub fn restore(&mut self, file: &Path, options: RestoreOptions) -> Result<Restored> {
        self.service = None;
        let open = || DataDir::open_exclusive(self.dir.path(), KeyFile::InDataDir);
        let restored = open().and_then(|it| it.restore(file, options, self.now));
        if let Ok(dir) = DataDir::open(self.dir.path(), KeyFile::InDataDir) {
            self.service = Service::open(dir).ok();
        }
        restored
    }

    /// The context of an operator's calls at the present time.
    pub fn context(&self) -> Context {
        Context::command_line(self.now)
    }

    pub fn user(&self, id: &str) -> UserId {
        let new = NewUser {
            id: Some(id.parse().unwrap()),
            ..NewUser::default()
        };
        let made = self.service().create_user(&self.context(), new);
        made.unwrap().id.parse().unwrap()
    }

    /// Enrols and confirms an authenticator. One step passes.
    pub fn enrol(&mut self, user: &UserId) -> Phone {
        let phone = self.begin(user);
        let confirmed = self.confirm(user, &phone, &phone.code_at(self.now));
        assert!(matches!(confirmed, Ok(Verdict::Accepted(_))));
        self.pass_seconds(30);
        phone
    }

    /// Starts an enrolment.
    pub fn begin(&self, user: &UserId) -> Phone {
        let begun = self
            .service()
            .start_totp(&self.context(), user.clone(), None)
            .unwrap();
        Phone {
            id: begun.details.id,
            secret: begun.secret,
        }
    }

    pub fn confirm(&self, user: &UserId, phone: &Phone, code: &str) -> Result<Verdict> {
        let (id, code) = (phone.id.parse().unwrap(), code.parse().unwrap());
        self.service()
            .confirm_totp(&self.context(), user.clone(), id, code)
    }

    pub fn check(&self, user: &UserId, code: &str) -> Result<Verdict> {
        let code = code.parse().unwrap();
        self.service()
            .check_totp(&self.context(), user.clone(), None, code)
    }

    pub fn remove(&self, user: &UserId, phone: &Phone) {
        let id = phone.id.parse().unwrap();
        self.service()
            .remove_totp(&self.context(), user.clone(), id)
            .unwrap();
    }

    pub fn remove_user(&self, user: &UserId) {
        self.service()
            .remove_user(&self.context(), user.clone())
            .unwrap();
    }

    pub fn has_user(&self, user: &UserId) -> bool {
        self.service().user(&self.context(), user).is_ok()
    }

    pub fn totps(&self, user: &UserId) -> Vec<String> {
        let user = self.service().user(&self.context(), user);
        let totps = user.unwrap().totps;
        totps.into_iter().map(|it| it.id.to_string()).collect()
    }

    pub fn is_content(&self) -> bool {
        if let Some(service) = &self.service {
            service.truncate_wal().unwrap();
        }
        let dir = DataDir::open_to_examine(self.dir.path(), KeyFile::InDataDir).unwrap();
        dir.examine(self.now)
            .iter()
            .all(|it| it.level != Level::Wrong)
    }

    pub fn complaint(&self, check: &str) -> String {
        let dir = DataDir::open_to_examine(self.dir.path(), KeyFile::InDataDir).unwrap();
        let found = dir.examine(self.now);
        let of = found
            .iter()
            .find(|it| it.check == check && it.level == Level::Wrong);
        of.unwrap_or_else(|| panic!("{found:?}")).message.clone()
    }
}
