//! The data directory: its files and locks, and creating a new instance in it. `keys` reads and replaces the files of the
//! master key, `permissions` checks who can access what.

mod keys;
mod permissions;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::{Name, OrgId, Timestamp, require_plausible};
use crate::ownership;
use crate::seal::{MasterKey, Sealer, random};
use crate::store::{Instance, Settings, Store};

use super::Service;
pub use keys::{GivenKey, KeyFile};
use permissions::{
    create_directory, require_directory, require_no_foreign_files, require_private,
    require_private_files,
};

const DATABASE: &str = "totpd.db";
const KEY: &str = "master.key";
const NEXT_KEY: &str = "master.key.next";
const LOCK: &str = "lock";
const SERVING: &str = "serving";
const RUN: &str = "run.json";
/// The files that totpd opens in the directory, if they exist.
const OWN_FILES: [&str; 8] = [
    DATABASE,
    "totpd.db-wal",
    "totpd.db-shm",
    "totpd.db-journal",
    KEY,
    NEXT_KEY,
    LOCK,
    SERVING,
];
/// The temporary name of a new database, so that a crash never leaves an incomplete `totpd.db`.
const UNFINISHED: &str = "totpd.db.unfinished";

/// How often, and how long apart, a start tries to take the server's lock. `doctor` holds it for a moment to find out
/// whether a server runs.
const SERVING_TRIES: u32 = 10;
const SERVING_TRY_EVERY: Duration = Duration::from_millis(20);

/// A data directory, with a shared lock on it until this value is dropped.
pub struct DataDir {
    path: PathBuf,
    key: KeyFile,
    /// The operating system unlocks it when the process ends.
    lock: File,
    /// The exclusive lock of the directory's only server, if this is the server.
    serving: Option<File>,
    /// The master key of an older backup, to restore it.
    pub(super) old_key: Option<GivenKey>,
    /// Whether the database may have Litestream's tables before the settings name it.
    pub(super) expects_litestream: bool,
}

impl DataDir {
    /// Whether `path` holds a database or a key, or this cannot be determined. No instance may be created there then.
    pub fn is_initialised(path: &Path) -> bool {
        let mut names = [DATABASE, KEY, NEXT_KEY].iter();
        names.any(|it| path.join(it).try_exists().unwrap_or(true))
    }

    /// Opens an initialised directory, beside other processes that use it.
    pub fn open(path: &Path, key: KeyFile) -> Result<Self> {
        require_directory(path)?;
        ownership::warn_of_groups(&require_private(path, &key)?);
        Self::open_to_examine(path, key)
    }

    /// Opens an initialised directory for [`Self::examine`], even if others can access it.
    pub fn open_to_examine(path: &Path, key: KeyFile) -> Result<Self> {
        require_directory(path)?;
        let database = path.join(DATABASE);
        match database.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                let problem = if path.join(KEY).exists() {
                    "there is a master key but no database here; put the database back, or restore a backup; if there \
                     never was one, remove the key and run `totpd init`"
                } else {
                    "there is no database here; run `totpd init` for a new one"
                };
                return Err(Error::invalid(path.display().to_string(), problem));
            }
            Err(error) => return Err(cannot("look into", path, &error)),
        }
        let lock = open_lock(path, LOCK)?;
        let taken = |_| {
            let problem = "the data directory is being restored; try again when that is done";
            Error::invalid(path.display().to_string(), problem)
        };
        lock.try_lock_shared().map_err(taken)?;
        Ok(Self {
            path: path.to_owned(),
            key,
            lock,
            serving: None,
            old_key: None,
            expects_litestream: false,
        })
    }

    /// Accepts Litestream's tables in the database, to change the settings to it where it has begun already.
    #[must_use]
    pub fn with_litestream(mut self) -> Self {
        self.expects_litestream = true;
        self
    }

    /// Opens an initialised directory as its only server. Commands and embedding programs can use it at the same time.
    ///
    /// For programs that run for long: commands leave the WAL to the server, `doctor` expects it to empty the WAL, and
    /// `totpd key rotate` refuses a new key that the server does not have.
    pub fn open_to_serve(path: &Path, key: KeyFile) -> Result<Self> {
        let mut dir = Self::open(path, key)?;
        dir.serving = Some(lock_to_serve(path)?);
        Ok(dir)
    }

    /// Locks a directory exclusively, to restore a backup into it. Creates the directory if it does not exist.
    pub fn open_exclusive(path: &Path, key: KeyFile) -> Result<Self> {
        create_directory(path, &key)?;
        ownership::warn_of_groups(&require_private(path, &key)?);
        let lock = open_lock(path, LOCK)?;
        lock_exclusive(&lock, path)?;
        Ok(Self {
            path: path.to_owned(),
            key,
            lock,
            serving: None,
            old_key: None,
            expects_litestream: false,
        })
    }

    /// Creates a new instance with a first organization, and opens it. Fails and changes nothing if there is an instance
    /// already, or if the clock cannot be right: tokens created in 1970 would be expired once the clock is set.
    pub fn create(
        path: &Path,
        key: KeyFile,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<(Service, OrgId)> {
        require_plausible(now)?;
        if !Self::is_initialised(path) {
            require_no_foreign_files(path, &key)?;
        }
        create_directory(path, &key)?;
        ownership::warn_of_groups(&require_private(path, &key)?);
        // Before the lock too: a server that holds the lock is not what is in the way, and stopping it would not help.
        require_no_instance(path)?;
        let lock = open_lock(path, LOCK)?;
        lock_exclusive(&lock, path)?;
        require_no_instance(path)?;
        let sealer = Sealer::new(&match &key {
            KeyFile::InDataDir => MasterKey::create(&path.join(KEY))?,
            KeyFile::Given { current, .. } if matches!(current.path.try_exists(), Ok(false)) => {
                let problem = "there is no key here for the new database to be sealed under; make one of 32 \
                               random bytes, with mode 600";
                return Err(Error::invalid(current.path.display().to_string(), problem));
            }
            KeyFile::Given { current, .. } => current.read()?,
        })?;
        let created = create_database(path, &sealer, settings, now);
        if created.is_err() && matches!(key, KeyFile::InDataDir) {
            // An unused key would make the next attempt fail.
            let _gone = fs::remove_file(path.join(KEY));
        }
        let org = created?;
        let shared = lock.try_lock_shared();
        shared.map_err(|_| in_use(path))?;
        let path = path.to_owned();
        let service = Service::open(Self {
            path,
            key,
            lock,
            serving: None,
            old_key: None,
            expects_litestream: false,
        })?;
        Ok((service, org))
    }

    /// Checks the access to everything in the directory. Returns the files that a group of this process can access.
    pub(super) fn require_private(&self) -> Result<Vec<(PathBuf, u32)>> {
        let mut shared = require_private(&self.path, &self.key)?;
        let cannot = |error: io::Error| cannot("look into", &self.path, &error);
        let mut rest = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let is_own = OWN_FILES.iter().any(|it| entry.file_name() == *it);
            if !is_own && entry.file_type().map_err(cannot)?.is_file() {
                rest.push(entry.path());
            }
        }
        shared.extend(require_private_files(rest.into_iter())?);
        Ok(shared)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    pub(super) fn unfinished(&self) -> PathBuf {
        self.path.join(UNFINISHED)
    }

    /// Whether this value holds the server's lock.
    pub(super) const fn is_server(&self) -> bool {
        self.serving.is_some()
    }

    /// Whether another value holds the server's lock, in this process or in another.
    pub(super) fn is_served_by_another(&self) -> bool {
        !self.is_server() && Self::is_served(&self.path)
    }

    /// Whether a server runs on the directory at `path`.
    pub fn is_served(path: &Path) -> bool {
        let Ok(serving) = File::open(path.join(SERVING)) else {
            return false;
        };
        // A shared lock, so that two concurrent callers do not take each other for a server.
        let is_free = serving.try_lock_shared().is_ok();
        let _unlocked = serving.unlock();
        !is_free
    }

    /// The file in which a server may leave where it is reached.
    pub fn run_file(path: &Path) -> PathBuf {
        path.join(RUN)
    }

    /// Runs `upgrade` with an exclusive lock on the directory. Fails if another process uses it.
    pub(super) fn upgrade_exclusive<T>(&self, upgrade: impl FnOnce() -> Result<T>) -> Result<T> {
        let in_use = |_| {
            let problem = "the database is of an older version, and another totpd is using it; stop that one (or restart \
                           it, if it is a server), and this one upgrades the database";
            Error::invalid(self.path.display().to_string(), problem)
        };
        // Gives up the shared lock even if it fails (flock(2)).
        let locked = self.lock.try_lock().map_err(in_use);
        let done = locked.and_then(|()| upgrade());
        let shared = self.lock.try_lock_shared();
        shared.map_err(in_use)?;
        done
    }

    /// Removes the temporary files of a restore that crashed. They may hold secrets that were removed here.
    pub(super) fn remove_unfinished(&self) -> Result<()> {
        for of in ["", "-wal", "-shm", "-journal"] {
            let file = self.path.join(format!("{UNFINISHED}{of}"));
            if let Err(error) = fs::remove_file(file)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(self.cannot_write(&error));
            }
        }
        Ok(())
    }

    pub(super) fn cannot_write(&self, error: &io::Error) -> Error {
        cannot("write to", &self.path, error)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing is not enough: between fork and exec a child process shares the open file and so keeps the lock.
        let _unlocked = self.serving.as_ref().map(File::unlock);
        let _unlocked = self.lock.unlock();
    }
}

/// Fails if there is a database or a key, because a new key would open none of the existing secrets.
fn require_no_instance(path: &Path) -> Result<()> {
    for (name, what) in [
        (DATABASE, "a database"),
        (KEY, "a master key"),
        (NEXT_KEY, "a master key"),
    ] {
        if path.join(name).exists() {
            let problem = format!(
                "there is {what} already ({name}); init makes a new one only where neither is"
            );
            return Err(Error::invalid(path.display().to_string(), problem));
        }
    }
    Ok(())
}

fn in_use(path: &Path) -> Error {
    Error::invalid(
        path.display().to_string(),
        "another totpd is using this data directory; stop it first",
    )
}

/// Takes the server's lock on a directory.
fn lock_to_serve(path: &Path) -> Result<File> {
    let lock = open_lock(path, SERVING)?;
    for _ in 1..SERVING_TRIES {
        if lock.try_lock().is_ok() {
            return emptied(lock, path);
        }
        thread::sleep(SERVING_TRY_EVERY);
    }
    match lock.try_lock() {
        Ok(()) => emptied(lock, path),
        Err(TryLockError::WouldBlock) => Err(Error::invalid(
            path.display().to_string(),
            "another totpd serves this data directory; stop it first",
        )),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

/// Removes what an earlier server has written into its lock file.
fn emptied(lock: File, path: &Path) -> Result<File> {
    let emptied = lock.set_len(0);
    emptied.map_err(|error| cannot("write to", path, &error))?;
    Ok(lock)
}

fn lock_exclusive(lock: &File, path: &Path) -> Result<()> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

fn create_database(
    path: &Path,
    sealer: &Sealer,
    settings: &Settings,
    now: Timestamp,
) -> Result<OrgId> {
    let [high, low] = *random::<2>()?;
    // The low bits of every id identify the machine. A random number is enough.
    let machine = i64::from(u16::from_be_bytes([high, low]).max(1));
    let first = crate::store::next_id(machine, now)?;
    let instance = Instance {
        id: first.to_string(),
        key_id: *sealer.key_id(),
        last_id: first,
    };
    let unfinished = path.join(UNFINISHED);
    if let Err(error) = fs::remove_file(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(cannot("write to", path, &error));
    }
    // Created in the same transaction: without an organization there is no place for users.
    let organization = Name::from_trusted("Default".to_owned());
    let org = Store::create(&unfinished, &instance, settings, organization, now)?;
    let io = |error: io::Error| cannot("write to", path, &error);
    fs::rename(&unfinished, path.join(DATABASE)).map_err(io)?;
    // Syncs the directory, so that the new name survives a crash.
    File::open(path).and_then(|it| it.sync_all()).map_err(io)?;
    Ok(org)
}

fn open_lock(path: &Path, name: &str) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A FIFO of that name would wait for a reader for ever.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path.join(name))
        .map_err(|error| cannot("write to", path, &error))
}

fn cannot(act: &str, path: &Path, error: &io::Error) -> Error {
    Error::invalid(
        path.display().to_string(),
        format!("cannot {act} the data directory: {error}"),
    )
}
