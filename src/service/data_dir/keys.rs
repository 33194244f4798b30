//! The files of the master key and of the next one, and what a rotation does with them (SECURITY.md 43).
//!
//! The next key of a data directory is in `master.key.next` from before the database names it until it takes the place of
//! `master.key`. So at every moment each key that the database names is in one of the two files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{DataDir, KEY, NEXT_KEY, SERVING};
use crate::error::{Error, Result};
use crate::seal::{KeyId, KeyRing, MasterKey};
use crate::store::KeyIds;

/// Where the master key is.
#[derive(Debug, Clone)]
pub enum KeyFile {
    /// In the data directory. `init` creates it, and a rotation the next one.
    InDataDir,
    /// Elsewhere. totpd never creates one there.
    Given {
        /// The key.
        current: GivenKey,
        /// The key that a rotation changes to, or has changed to.
        next: Option<GivenKey>,
    },
}

/// The file of a key outside the data directory.
#[derive(Debug, Clone)]
pub struct GivenKey {
    /// The file's path.
    pub path: PathBuf,
    /// Whether its group may read it, as with systemd's credentials.
    pub group_may_read: bool,
}

impl GivenKey {
    pub(in crate::service) fn read(&self) -> Result<MasterKey> {
        MasterKey::read(&self.path, self.group_may_read)
    }
}

impl KeyFile {
    /// The files outside the data directory.
    pub(super) fn given(&self) -> impl Iterator<Item = &GivenKey> {
        let (current, next) = match self {
            Self::InDataDir => (None, None),
            Self::Given { current, next } => (Some(current), next.as_ref()),
        };
        current.into_iter().chain(next)
    }
}

/// The keys in the files.
pub(in crate::service) struct Keys {
    /// The master key. Its file may be wrong if only the next key is needed.
    pub(in crate::service) current: Result<MasterKey>,
    pub(in crate::service) next: Option<MasterKey>,
}

impl Keys {
    /// The key with this id.
    pub(in crate::service) fn with_id(&self, id: KeyId) -> Option<&MasterKey> {
        let keys = self.current.iter().chain(&self.next);
        keys.into_iter().find(|it| it.id() == id)
    }

    fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.current.iter().chain(&self.next).map(MasterKey::id)
    }
}

/// What a server can find while it runs, as it writes into its lock file.
const FOLLOWS_DATA_DIR: &str = "the keys in the data directory";

impl DataDir {
    /// Reads the keys. The next one first: when it takes the place of the other meanwhile, both reads find it.
    pub(in crate::service) fn read_keys(&self) -> Result<Keys> {
        let next = match &self.key {
            KeyFile::InDataDir => read_next(&self.path.join(NEXT_KEY))?,
            KeyFile::Given { next, .. } => next.as_ref().map(GivenKey::read).transpose()?,
        };
        let current = match &self.key {
            KeyFile::InDataDir => MasterKey::read(&self.path.join(KEY), false),
            KeyFile::Given { current, .. } => current.read(),
        };
        Ok(Keys { current, next })
    }

    /// Fails if there is no key at all.
    pub(in crate::service) fn require_key(&self) -> Result<()> {
        let keys = self.read_keys()?;
        match keys.next {
            Some(_) => Ok(()),
            None => keys.current.map(|_| ()),
        }
    }

    /// The sealers of the keys that a database names. Fails if one of them is in no file.
    pub(in crate::service) fn key_ring(&self, ids: KeyIds) -> Result<KeyRing> {
        let keys = self.read_keys()?;
        let named = ids.all();
        let found: Vec<_> = named.iter().filter_map(|it| keys.with_id(*it)).collect();
        if found.len() == named.len() {
            return KeyRing::new(found);
        }
        keys.current?;
        Err(Error::invalid(
            self.key_path().display().to_string(),
            match (ids.next, &self.key) {
                (None, _) => {
                    "this is not the master key that the database was sealed under; put the right one back"
                        .to_owned()
                }
                (Some(_), KeyFile::InDataDir) => format!(
                    "the database is sealed under two keys while the master key is rotated, and one of them is neither here \
                     nor in {NEXT_KEY}; put it back"
                ),
                (Some(_), KeyFile::Given { .. }) => format!(
                    "the database is sealed under two keys while the master key is rotated, and one of them is missing; \
                     give the new one with --next-master-key, or as the credential {NEXT_KEY}"
                ),
            },
        ))
    }

    pub(in crate::service) fn key_path(&self) -> PathBuf {
        match &self.key {
            KeyFile::InDataDir => self.path.join(KEY),
            KeyFile::Given { current, .. } => current.path.clone(),
        }
    }

    /// The files of both keys outside the data directory, if there are two.
    pub(in crate::service) fn given_paths(&self) -> Option<(&Path, &Path)> {
        match &self.key {
            KeyFile::Given {
                current,
                next: Some(next),
            } => Some((&current.path, &next.path)),
            KeyFile::InDataDir | KeyFile::Given { next: None, .. } => None,
        }
    }

    /// Whether a rotation has left the file of the next key in the data directory.
    pub(in crate::service) fn has_next_key_file(&self) -> bool {
        matches!(self.key, KeyFile::InDataDir)
            && self.path.join(NEXT_KEY).try_exists().unwrap_or(true)
    }

    /// The key for a rotation to change to. Creates it in the data directory; one that is there already is taken.
    pub(in crate::service) fn next_key(&self, keys: Keys) -> Result<MasterKey> {
        if let Some(key) = keys.next {
            return Ok(key);
        }
        if matches!(self.key, KeyFile::Given { .. }) {
            let problem = format!(
                "the master key is not in the data directory, so make the new one yourself, of 32 random bytes, with mode \
                 600; give it to the server and to this command with --next-master-key, or as the credential {NEXT_KEY}"
            );
            return Err(Error::invalid(
                self.key_path().display().to_string(),
                problem,
            ));
        }
        // Under another name first, so that a kill never leaves a part of a key.
        let unfinished = self.path.join(format!("{NEXT_KEY}.unfinished"));
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.cannot_write(&error));
            }
            _ => {}
        }
        let key = MasterKey::create(&unfinished)?;
        fs::rename(&unfinished, self.path.join(NEXT_KEY))
            .and_then(|()| self.sync())
            .map_err(|error| self.cannot_write(&error))?;
        Ok(key)
    }

    /// Puts the next key in the data directory in the place of the master key, which is gone with that. Changes nothing
    /// unless the next key is the one with this id.
    pub(in crate::service) fn put_next_key_in_place(&self, id: KeyId) -> Result<()> {
        let is_next = |it: &MasterKey| it.id() == id;
        if !self.has_next_key_file() || !self.read_keys()?.next.as_ref().is_some_and(is_next) {
            return Ok(());
        }
        fs::rename(self.path.join(NEXT_KEY), self.path.join(KEY))
            .and_then(|()| self.sync())
            .map_err(|error| self.cannot_write(&error))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path).and_then(|it| it.sync_all())
    }

    /// Writes into the server's lock file which keys the server can find while it runs.
    pub(in crate::service) fn announce_keys(&self) -> Result<()> {
        let Some(serving) = &self.serving else {
            return Ok(());
        };
        let text = match &self.key {
            KeyFile::InDataDir => FOLLOWS_DATA_DIR.to_owned(),
            KeyFile::Given { .. } => {
                let ids = self.read_keys()?;
                ids.ids().map(hex).collect::<Vec<_>>().join("\n")
            }
        };
        let mut file = serving;
        file.write_all(text.as_bytes())
            .map_err(|error| self.cannot_write(&error))
    }

    /// Fails if the directory's server cannot find this key: it would refuse every code from the first secret on that is
    /// sealed under it.
    pub(in crate::service) fn require_server_finds(&self, key: KeyId) -> Result<()> {
        if !self.is_served_by_another() {
            return Ok(());
        }
        let serving = self.path.join(SERVING);
        let text = fs::read_to_string(&serving).unwrap_or_default();
        let finds = match &self.key {
            KeyFile::InDataDir => text == FOLLOWS_DATA_DIR,
            KeyFile::Given { .. } => text.lines().any(|it| it == hex(key)),
        };
        if finds {
            return Ok(());
        }
        let problem = match &self.key {
            KeyFile::InDataDir => {
                "the server that runs here was given its key by name and would not find the new one; start it without \
                 --master-key, and run this again"
                    .to_owned()
            }
            KeyFile::Given { .. } => format!(
                "the server that runs here does not have the new key; start it with --next-master-key, or with the \
                 credential {NEXT_KEY}, and run this again"
            ),
        };
        Err(Error::invalid(self.path.display().to_string(), problem))
    }

    /// Keeps other rotations from running here until the value is dropped.
    pub(in crate::service) fn lock_for_rotation(&self) -> Result<RotationLock> {
        let dir = File::open(&self.path).map_err(|error| self.cannot_write(&error))?;
        dir.try_lock().map_err(|_| {
            let problem =
                "the master key is being rotated by another totpd; wait until that is done";
            Error::invalid(self.path.display().to_string(), problem)
        })?;
        Ok(RotationLock(dir))
    }
}

/// An exclusive lock on the directory itself, which nothing else locks. No file is needed for it.
pub(in crate::service) struct RotationLock(File);

impl Drop for RotationLock {
    fn drop(&mut self) {
        // Closing is not enough: between fork and exec a child process shares the open file and so keeps the lock.
        let _unlocked = self.0.unlock();
    }
}

/// Reads the next key in the data directory, if there is one.
fn read_next(path: &Path) -> Result<Option<MasterKey>> {
    match MasterKey::read(path, false) {
        // Or another process has put it in its place meanwhile.
        Err(_) if matches!(path.try_exists(), Ok(false)) => Ok(None),
        key => key.map(Some),
    }
}

fn hex(id: KeyId) -> String {
    data_encoding::HEXLOWER.encode(&id)
}
