//! The data directory: what lies in it, who may open it, and how it comes to be.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::{Name, OrgId, Timestamp, require_plausible};
use crate::ownership::{self, Access, Identity, Reach};
use crate::seal::{MasterKey, Sealer, random};
use crate::store::{Instance, Settings, Store};

use super::Service;

const DATABASE: &str = "totpd.db";
const KEY: &str = "master.key";
const LOCK: &str = "lock";
const SERVING: &str = "serving";
/// What totpd opens in the directory, where it is there.
const OWN_FILES: [&str; 7] = [
    DATABASE,
    "totpd.db-wal",
    "totpd.db-shm",
    "totpd.db-journal",
    KEY,
    LOCK,
    SERVING,
];
/// The database while it is being made; a crash leaves this behind and never half a `totpd.db`.
const UNFINISHED: &str = "totpd.db.unfinished";

/// Where the master key is.
#[derive(Debug, Clone)]
pub enum KeyFile {
    /// In the data directory, made by `init`.
    InDataDir,
    /// Where somebody put it; totpd never makes one there.
    Given {
        /// The file.
        path: PathBuf,
        /// Whether its group may read it, as systemd makes credentials.
        group_may_read: bool,
    },
}

/// How often, and how long apart, the lock of a server is tried. `doctor` holds it for a moment to see whether
/// somebody serves.
const SERVING_TRIES: u32 = 10;
const SERVING_TRY_EVERY: Duration = Duration::from_millis(20);

/// A data directory, held with a shared lock as long as this value lives.
pub struct DataDir {
    path: PathBuf,
    key: KeyFile,
    /// Unlocked by the operating system when the process ends, however it ends.
    lock: File,
    /// The lock of the one server of this directory, where this is it.
    serving: Option<File>,
}

impl DataDir {
    /// Whether there is a database or a key in `path`, or nobody can tell: nothing is to be made there then.
    pub fn is_initialised(path: &Path) -> bool {
        let mut names = [DATABASE, KEY].iter();
        names.any(|it| path.join(it).try_exists().unwrap_or(true))
    }

    /// Takes hold of an initialised directory, beside others who use it.
    pub fn open(path: &Path, key: KeyFile) -> Result<Self> {
        require_directory(path)?;
        ownership::warn_of_groups(&require_private(path, &key)?);
        Self::open_to_examine(path, key)
    }

    /// Takes hold of an initialised directory to examine it, whoever can reach it.
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
        let lock = lock_file(path)?;
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
        })
    }

    /// Opens an initialised directory as its one server. Commands and embedding programs may use it beside.
    ///
    /// For a program that goes on for long: `doctor` then knows that the WAL is looked after.
    pub fn open_to_serve(path: &Path, key: KeyFile) -> Result<Self> {
        let mut dir = Self::open(path, key)?;
        dir.serving = Some(lock_to_serve(path)?);
        Ok(dir)
    }

    /// Takes hold of a directory that nobody else uses, to restore a backup into it; makes it if need be.
    pub fn open_exclusive(path: &Path, key: KeyFile) -> Result<Self> {
        make_directory(path, &key)?;
        ownership::warn_of_groups(&require_private(path, &key)?);
        let lock = lock_file(path)?;
        lock_exclusive(&lock, path)?;
        Ok(Self {
            path: path.to_owned(),
            key,
            lock,
            serving: None,
        })
    }

    /// Makes a new instance with a first organization, and opens it. Touches nothing where there is one, nor while
    /// the clock cannot be right: tokens that are made in 1970 have expired when it is.
    pub fn create(
        path: &Path,
        key: KeyFile,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<(Service, OrgId)> {
        require_plausible(now)?;
        if !Self::is_initialised(path) {
            require_own(path, &key)?;
        }
        make_directory(path, &key)?;
        ownership::warn_of_groups(&require_private(path, &key)?);
        let lock = lock_file(path)?;
        lock_exclusive(&lock, path)?;
        for (name, what) in [(DATABASE, "a database"), (KEY, "a master key")] {
            if path.join(name).exists() {
                let problem = format!(
                    "there is {what} already ({name}); init makes a new one only where neither is"
                );
                return Err(Error::invalid(path.display().to_string(), problem));
            }
        }
        let sealer = Sealer::new(&match &key {
            KeyFile::InDataDir => MasterKey::create(&path.join(KEY))?,
            KeyFile::Given { path, .. } if matches!(path.try_exists(), Ok(false)) => {
                let problem = "there is no key here for the new database to be sealed under; make one of 32 \
                               random bytes, with mode 600";
                return Err(Error::invalid(path.display().to_string(), problem));
            }
            KeyFile::Given {
                path,
                group_may_read,
            } => MasterKey::read(path, *group_may_read)?,
        })?;
        let made = make_database(path, &sealer, settings, now);
        if made.is_err() && matches!(key, KeyFile::InDataDir) {
            // A key that sealed nothing is worth nothing, and in the way of the next try.
            let _gone = fs::remove_file(path.join(KEY));
        }
        let org = made?;
        let shared = lock.try_lock_shared();
        shared.map_err(|_| in_use(path))?;
        let path = path.to_owned();
        let service = Service::open(Self {
            path,
            key,
            lock,
            serving: None,
        })?;
        Ok((service, org))
    }

    pub(super) fn read_key(&self) -> Result<MasterKey> {
        match &self.key {
            KeyFile::InDataDir => MasterKey::read(&self.path.join(KEY), false),
            KeyFile::Given {
                path,
                group_may_read,
            } => MasterKey::read(path, *group_may_read),
        }
    }

    pub(super) fn key_path(&self) -> PathBuf {
        match &self.key {
            KeyFile::InDataDir => self.path.join(KEY),
            KeyFile::Given { path, .. } => path.clone(),
        }
    }

    /// Judges everything in the directory; returns what a group can reach that this process is in.
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

    /// Whether this is the server of the directory.
    pub(super) const fn is_server(&self) -> bool {
        self.serving.is_some()
    }

    /// Whether another process serves the directory, or the same one by another value.
    pub(super) fn is_served_by_another(&self) -> bool {
        if self.is_server() {
            return false;
        }
        let Ok(serving) = File::open(self.path.join(SERVING)) else {
            return false;
        };
        // A shared lock, so that two who ask at once do not see each other.
        let is_free = serving.try_lock_shared().is_ok();
        let _unlocked = serving.unlock();
        !is_free
    }

    /// Upgrades the database by `act` while nobody else uses the directory. Fails where somebody does.
    pub(super) fn upgrade_exclusive<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let in_use = |_| {
            let problem = "the database is of an older version, and another totpd is using it; stop that one (or restart \
                           it, if it is a server), and this one upgrades the database";
            Error::invalid(self.path.display().to_string(), problem)
        };
        // This gives up the shared lock, even where it fails (flock(2)).
        let locked = self.lock.try_lock().map_err(in_use);
        let done = locked.and_then(|()| act());
        let shared = self.lock.try_lock_shared();
        shared.map_err(in_use)?;
        done
    }

    /// Removes what a crash left of a restore: a database on its way that may hold secrets that were removed here.
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
        // Closing is not enough: a child that is being started has the same open file until it is another
        // program, and with it the lock.
        let _unlocked = self.serving.as_ref().map(File::unlock);
        let _unlocked = self.lock.unlock();
    }
}

fn in_use(path: &Path) -> Error {
    Error::invalid(
        path.display().to_string(),
        "another totpd is using this data directory; stop it first",
    )
}

/// Takes the lock of the one server of a directory.
fn lock_to_serve(path: &Path) -> Result<File> {
    let lock = open_lock(path, SERVING)?;
    for _ in 1..SERVING_TRIES {
        if lock.try_lock().is_ok() {
            return Ok(lock);
        }
        thread::sleep(SERVING_TRY_EVERY);
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::invalid(
            path.display().to_string(),
            "another totpd serves this data directory; stop it first",
        )),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

fn lock_exclusive(lock: &File, path: &Path) -> Result<()> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

fn make_database(
    path: &Path,
    sealer: &Sealer,
    settings: &Settings,
    now: Timestamp,
) -> Result<OrgId> {
    let [high, low] = *random::<2>()?;
    // The low bits stand for the machine in every id; a random number serves as well as any.
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
    // With it in one piece: an instance without an organization has nowhere to put a user.
    let organization = Name::from_trusted("Default".to_owned());
    let org = Store::create(&unfinished, &instance, settings, organization, now)?;
    let io = |error: io::Error| cannot("write to", path, &error);
    fs::rename(&unfinished, path.join(DATABASE)).map_err(io)?;
    // The names are on disk too, not only what they stand for.
    File::open(path).and_then(|it| it.sync_all()).map_err(io)?;
    Ok(org)
}

/// Refuses to make an instance among the files of others, which nobody else could reach any more once the
/// directory is narrowed. What a crash or a stop left of totpd's own is none of these.
fn require_own(path: &Path, key: &KeyFile) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else {
        // There is none yet, or whoever makes it says what is wrong.
        return Ok(());
    };
    for entry in entries {
        let entry = entry.map_err(|error| cannot("look into", path, &error))?;
        let (name, file) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let is_key = matches!(key, KeyFile::Given { path, .. } if *path == file);
        let is_ours = [KEY, LOCK, SERVING].contains(&&*name) || name.starts_with(DATABASE);
        // A file system's own directory, where it is mounted here.
        let is_system = name == "lost+found";
        let is_socket = entry.file_type().is_ok_and(|it| it.is_socket());
        if !(is_key || is_ours || is_system || is_socket) {
            let problem = format!(
                "there is something else already ({name}); totpd needs a directory of its own"
            );
            return Err(Error::invalid(path.display().to_string(), problem));
        }
    }
    Ok(())
}

/// Makes the directory, or takes an existing one and narrows it to its owner, if it is not one of others.
fn make_directory(path: &Path, key: &KeyFile) -> Result<()> {
    let identity = Identity::of_process();
    require_parents(&identity, path)?;
    if !path.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| cannot("make", path, &error))?;
    }
    let access = Access::from(&require_directory(path)?);
    identity
        .require_owner(access)
        .map_err(|problem| Error::invalid(path.display().to_string(), problem))?;
    let is_for_totpd = DataDir::is_initialised(path) || require_own(path, key).is_ok();
    // One that a container mounts may be root's. Whether it is closed to others is judged in any case.
    if is_for_totpd && identity.can_change(access) {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|error| cannot("chmod 700", path, &error))?;
    }
    Ok(())
}

/// Refuses a directory, a key or a database that is not this user's or root's, or that others can reach
/// (SECURITY.md 26). Returns what a group can reach that this process is in.
fn require_private(path: &Path, key: &KeyFile) -> Result<Vec<(PathBuf, u32)>> {
    let identity = Identity::of_process();
    require_parents(&identity, path)?;
    let mut shared = Vec::new();
    let access = Access::from(&require_directory(path)?);
    match identity.require_private(access, "700") {
        Ok(Reach::Owner) => {}
        Ok(Reach::Group(group)) => shared.push((path.to_owned(), group)),
        Err(problem) => {
            let hint = subdirectory_hint(&identity, path, access);
            let problem = format!("{problem}{hint}");
            return Err(Error::invalid(path.display().to_string(), problem));
        }
    }
    let names = OWN_FILES.iter().map(|it| path.join(it));
    shared.extend(require_private_files(names)?);
    if let KeyFile::Given {
        path,
        group_may_read: false,
    } = key
    {
        require_parents(&identity, path)?;
        shared.extend(require_private_files([path.clone()].into_iter())?);
    }
    Ok(shared)
}

/// Judges the files of these names that are there.
///
/// The database is looked at and not opened: closing a second descriptor of it would drop the locks that SQLite
/// holds for this process.
fn require_private_files(names: impl Iterator<Item = PathBuf>) -> Result<Vec<(PathBuf, u32)>> {
    let identity = Identity::of_process();
    let mut shared = Vec::new();
    for file in names {
        let wrong = |problem: String| Error::invalid(file.display().to_string(), problem);
        let metadata = match fs::metadata(&file) {
            Ok(it) => it,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(wrong(format!("cannot be looked into: {error}"))),
        };
        if !metadata.is_file() {
            return Err(wrong(ownership::not_regular().to_string()));
        }
        match identity.require_private(Access::from(&metadata), "600") {
            Ok(Reach::Owner) => {}
            Ok(Reach::Group(group)) => shared.push((file, group)),
            Err(problem) => return Err(wrong(problem)),
        }
    }
    Ok(shared)
}

fn require_parents(identity: &Identity, path: &Path) -> Result<()> {
    let judged = identity.require_safe_parents(path);
    judged.map_err(|problem| Error::invalid(path.display().to_string(), problem))
}

/// A way out for a mounted directory whose mode this user cannot change, where there is one.
fn subdirectory_hint(identity: &Identity, path: &Path, access: Access) -> String {
    let below = path.join("totpd");
    let can_make = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if identity.can_change(access) || !can_make || identity.require_safe_parents(&below).is_err() {
        return String::new();
    }
    format!(
        ", or, where that is not yours to change, use a directory below it: --data-dir {}",
        below.display()
    )
}

fn require_directory(path: &Path) -> Result<fs::Metadata> {
    match fs::metadata(path) {
        Ok(it) if !it.is_dir() => Err(Error::invalid(
            path.display().to_string(),
            "this is a file; a data directory is expected",
        )),
        Ok(it) => Ok(it),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::invalid(
            path.display().to_string(),
            "there is no such data directory; run `totpd init` for a new one",
        )),
        Err(error) => Err(cannot("look into", path, &error)),
    }
}

fn lock_file(path: &Path) -> Result<File> {
    open_lock(path, LOCK)
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
