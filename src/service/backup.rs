//! Backup and restore. A restore keeps every removal and revocation that the replaced database records (SECURITY.md 32).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Context, DataDir, GivenKey, Service, rotation};
use crate::error::{Error, Result};
use crate::model::{Timestamp, require_plausible};
use crate::ownership;
use crate::seal::{KeyRing, Sealer};
use crate::store::{Backup, Event, EventKind, Inspection, ReapplyCounts};
use crate::totp::LONGEST_WAIT;

/// What a backup holds.
#[derive(Debug, Clone)]
pub struct BackupSummary {
    /// When the newest event in it happened.
    pub as_of: Timestamp,
    /// Its size.
    pub bytes: u64,
}

/// What a restore may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreOptions {
    /// Replace an existing database.
    pub replace: bool,
    /// Restore even where no database records the removals, revocations and deletions since the backup.
    pub accept_loss: bool,
}

/// What a restore did.
#[derive(Debug, Clone)]
pub struct Restored {
    /// When the newest event in the backup happened.
    pub as_of: Timestamp,
    /// What the replaced database records and the backup does not.
    pub applied_again: ReapplyCounts,
    /// Whether removals, revocations and deletions since the backup may be undone.
    pub has_loss: bool,
}

impl Service {
    /// Writes a consistent copy of the database to a new private file, beside other calls. The copy does not hold the
    /// master key. Refused while a rotation of the key is unfinished ([`Self::rotate_key`]).
    pub fn back_up(&self, file: &Path) -> Result<BackupSummary> {
        if file.exists() {
            return Err(Error::invalid(
                file.display().to_string(),
                "there is a file of that name already; give another",
            ));
        }
        self.require_no_rotation()?;
        let io = |error: io::Error| {
            Error::invalid(
                file.display().to_string(),
                format!("cannot write the backup: {error}"),
            )
        };
        let temporary = TemporaryFile::create(temporary_name(file)).map_err(io)?;
        self.inner.store.copy_into(&temporary.path)?;
        let copy = Inspection::open(&temporary.path)?;
        if copy.read().key_ids()?.next.is_some() {
            // A rotation has begun meanwhile.
            return Err(rotation::unfinished());
        }
        let as_of = copy.read().newest_event_at()?;
        let bytes = fs::metadata(&temporary.path).map_err(io)?.size();
        temporary.rename_to(file, Replace::Never).map_err(io)?;
        Ok(BackupSummary { as_of, bytes })
    }
}

impl Service {
    /// Puts on record that a backup was made: an event, and the time for metrics. [`Self::back_up`] itself changes nothing,
    /// so that it works where nothing can be written.
    pub fn record_backup(&self, context: &Context) -> Result<()> {
        self.change_as_admin(context, |call, tx| {
            tx.append(&Event {
                kind: EventKind::InstanceBackedUp,
                source: &call.principal.source,
                org: None,
                user: None,
                about: None,
                name: None,
            })?;
            tx.note_backup()
        })
    }
}

impl DataDir {
    /// Restores the backup `file` into this directory, which must be locked exclusively.
    ///
    /// No code of a past step is good afterwards: `last_step` of every authenticator becomes now by its own period, plus its
    /// drift, plus the window.
    /// A backup from before a rotation of the key needs the key of its time ([`Self::with_old_key`]).
    pub fn restore(self, file: &Path, options: RestoreOptions, now: Timestamp) -> Result<Restored> {
        let database = self.database();
        let is_there = database.exists();
        if is_there && !options.replace {
            return Err(Error::invalid(
                database.display().to_string(),
                "there is a database already; say --force to replace it",
            ));
        }
        self.require_key()?;
        let temporary = self.copy_in(file)?;
        let backup = Backup::open(&temporary.path).map_err(|error| with_path(error, file))?;
        let as_of = backup.read().newest_event_at()?;
        self.seal_copy(&backup)?;
        fix_dates_of_copy(&backup, is_there.then_some(&*database), options, now)?;
        let replaced = is_there
            .then(|| backup.compare_with(&database, now))
            .transpose()?;
        let ahead = replaced
            .as_ref()
            .and_then(|it| it.newest_event_ahead_of(now));
        if let Some(newest) = ahead.filter(|_| !options.accept_loss) {
            return Err(Error::invalid(
                "the clock",
                format!(
                    "it says {now}, but an event of {newest} is on record here; set it right, or, if it was ahead at \
                     that time, run `totpd doctor --fix clock` first; where that fails, say --accept-loss"
                ),
            ));
        }
        let has_loss = !replaced.as_ref().is_some_and(|it| it.is_complete);
        if has_loss && !options.accept_loss {
            return Err(Error::invalid(
                file.display().to_string(),
                format!(
                    "no database here records what was removed, revoked or deleted after {as_of}, so the restore would \
                     undo it; say --accept-loss to restore all the same"
                ),
            ));
        }
        let now = replaced.as_ref().map_or(now, |it| it.time_of_restore(now));
        let known = replaced.as_ref().map(|it| (database.as_path(), it));
        let applied_again = backup.finish(known, now)?;
        self.put_in_place(temporary)?;
        Ok(Restored {
            as_of,
            applied_again,
            has_loss,
        })
    }

    /// Names the master key of the time of an older backup, for [`Self::restore`] to open its secrets with.
    #[must_use]
    pub fn with_old_key(mut self, key: GivenKey) -> Self {
        self.old_key = Some(key);
        self
    }

    /// Seals the secrets of a copy anew if it takes an older key to open them.
    fn seal_copy(&self, backup: &Backup) -> Result<()> {
        let ids = backup.read().key_ids()?.all();
        let keys = self.read_keys()?;
        if ids.iter().all(|it| keys.with_id(*it).is_some()) {
            return Ok(());
        }
        let current = keys.current?;
        let Some(old) = &self.old_key else {
            return Err(Error::invalid(
                self.key_path().display().to_string(),
                "this is not the master key that the backup was sealed under; put the right one there, or, if the key was \
                 rotated since, give the older one with --old-key FILE",
            ));
        };
        let old_key = old.read()?;
        let ring = KeyRing::new([&current, &old_key].into_iter().chain(&keys.next))?;
        if ids.iter().any(|it| ring.sealer(*it).is_none()) {
            return Err(Error::invalid(
                old.path.display().to_string(),
                "this is not the key that the backup was sealed under",
            ));
        }
        let new = Sealer::new(&current)?;
        backup.seal_under(current.id(), |row| {
            let sealed = rotation::seal_anew(row, &ring, &new);
            sealed.inspect_err(|error| log::warn!("{error:?}")).ok()
        })
    }

    /// Copies a backup into the directory under a temporary name.
    fn copy_in(&self, file: &Path) -> Result<TemporaryFile> {
        let read = |error: io::Error| {
            Error::invalid(
                file.display().to_string(),
                format!("cannot read the backup: {error}"),
            )
        };
        let (mut from, _) = ownership::open_regular(file).map_err(read)?;
        let temporary = TemporaryFile::create(self.unfinished());
        let temporary = temporary.map_err(|error| self.cannot_write(&error))?;
        io::copy(&mut from, &mut &temporary.file).map_err(read)?;
        Ok(temporary)
    }

    fn put_in_place(&self, temporary: TemporaryFile) -> Result<()> {
        let database = self.database();
        remove_wal(&database).map_err(|error| self.cannot_write(&error))?;
        temporary
            .rename_to(&database, Replace::Always)
            .map_err(|error| self.cannot_write(&error))
    }
}

/// Corrects the dates in a copy that was written while the clock was ahead (SECURITY.md 35). If the replaced database
/// was corrected, its correction applies. Otherwise a person has to confirm, because the clock may be wrong now instead.
fn fix_dates_of_copy(
    backup: &Backup,
    replaced: Option<&Path>,
    options: RestoreOptions,
    now: Timestamp,
) -> Result<()> {
    let known = match replaced {
        Some(replaced) => backup.corrected_time_in(replaced, now)?,
        None => None,
    };
    if let Some(to) = known {
        return backup.correct_times(to, now);
    }
    let newest = backup.read().newest_event_at()?;
    if newest <= now.after(LONGEST_WAIT) {
        return Ok(());
    }
    if !options.accept_loss {
        let problem = format!(
            "it says {now}, but an event of {newest} is in the backup; set it right, or say --accept-loss if it is right \
             and was ahead at that time"
        );
        return Err(Error::invalid("the clock", problem));
    }
    require_plausible(now)?;
    backup.correct_times(now, now)
}

/// A private file under a temporary name. Dropping it removes the file unless it was renamed.
struct TemporaryFile {
    path: PathBuf,
    file: File,
    is_renamed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    Always,
    Never,
}

impl TemporaryFile {
    /// Creates the file and removes what a crash left of an earlier one.
    fn create(path: PathBuf) -> io::Result<Self> {
        remove(&path)?;
        remove_wal(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path)?;
        Ok(Self {
            path,
            file,
            is_renamed: false,
        })
    }

    /// Syncs the file, gives it its final name, and syncs the directory.
    fn rename_to(mut self, name: &Path, replace: Replace) -> io::Result<()> {
        self.file.sync_all()?;
        if replace == Replace::Never && name.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.path, name)?;
        self.is_renamed = true;
        let dir = name.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(dir.unwrap_or_else(|| Path::new("."))).and_then(|it| it.sync_all())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_renamed {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Names the file that the caller gave instead of the temporary copy, whose name means nothing to a person.
fn with_path(error: Error, file: &Path) -> Error {
    if let Error::Invalid { problem, .. } = error {
        Error::invalid(file.display().to_string(), problem)
    } else {
        error
    }
}

/// Removes the WAL and journal of an old database, which SQLite would otherwise apply to the new one.
fn remove_wal(database: &Path) -> io::Result<()> {
    ["-wal", "-shm", "-journal"].iter().try_for_each(|of| {
        let mut name = database.as_os_str().to_owned();
        name.push(of);
        remove(Path::new(&name))
    })
}

/// Removes a file, if it exists.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn temporary_name(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}
