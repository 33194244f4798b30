//! Taking a copy of everything, and putting one back so that nothing that ended begins again (SECURITY.md 32).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{DataDir, Service};
use crate::error::{Error, Result};
use crate::model::{Step, Timestamp, Window, require_plausible};
use crate::ownership;
use crate::seal::Sealer;
use crate::store::{Backup, Inspection, ReapplyCounts};
use crate::totp::LONGEST_WAIT;

/// A copy that was taken.
#[derive(Debug, Clone)]
pub struct BackupSummary {
    /// The newest change that is in it.
    pub as_of: Timestamp,
    /// Its size.
    pub bytes: u64,
}

/// What a restore is allowed to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreOptions {
    /// Replace a database that is there.
    pub replace: bool,
    /// Let removals, revocations and deletions be undone that nobody here knows of.
    pub accept_loss: bool,
}

/// A copy that was put back.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The newest change that was in it.
    pub as_of: Timestamp,
    /// What the replaced database knew and the copy did not.
    pub applied_again: ReapplyCounts,
    /// Whether whatever was removed, revoked or deleted since may be undone now.
    pub has_loss: bool,
}

impl Service {
    /// Writes everything as of one moment into a new private file, while others go on. The master key is not
    /// in it.
    pub fn back_up(&self, file: &Path) -> Result<BackupSummary> {
        if file.exists() {
            return Err(Error::invalid(
                file.display().to_string(),
                "there is a file of that name already; give another",
            ));
        }
        let io = |error: io::Error| {
            Error::invalid(
                file.display().to_string(),
                format!("cannot write the backup: {error}"),
            )
        };
        let temporary = TemporaryFile::create(temporary_name(file)).map_err(io)?;
        self.inner.store.copy_into(&temporary.path)?;
        let as_of = Inspection::open(&temporary.path)?
            .read()
            .newest_event_at()?;
        let bytes = fs::metadata(&temporary.path).map_err(io)?.size();
        temporary.rename_to(file, Replace::Never).map_err(io)?;
        Ok(BackupSummary { as_of, bytes })
    }
}

impl DataDir {
    /// Puts the backup `file` into this directory, which nobody else may be using.
    ///
    /// No code of the past is good afterwards: every authenticator's floor is now plus the window.
    pub fn restore(self, file: &Path, options: RestoreOptions, now: Timestamp) -> Result<Restored> {
        let database = self.database();
        let is_there = database.exists();
        if is_there && !options.replace {
            return Err(Error::invalid(
                database.display().to_string(),
                "there is a database already; say --force to replace it",
            ));
        }
        let sealer = Sealer::new(&self.read_key()?)?;
        let temporary = self.copy_in(file)?;
        let backup = Backup::open(&temporary.path).map_err(|error| with_path(error, file))?;
        let instance = backup.read().instance()?;
        let as_of = backup.read().newest_event_at()?;
        if instance.key_id != *sealer.key_id() {
            return Err(Error::invalid(
                self.key_path().display().to_string(),
                "this is not the master key that the backup was sealed under; put the right one there",
            ));
        }
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
                    "nobody here knows what was removed, revoked or deleted after {as_of}; it would be good \
                     again from then on: say --accept-loss to go on"
                ),
            ));
        }
        let now = replaced.as_ref().map_or(now, |it| it.time_of_restore(now));
        let floor = floor(now);
        let known = replaced.as_ref().map(|it| (database.as_path(), it));
        let applied_again = backup.finish(known, floor, now)?;
        self.put_in_place(temporary)?;
        Ok(Restored {
            as_of,
            applied_again,
            has_loss,
        })
    }

    /// Copies a backup into the directory under a name that nobody opens.
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

/// The last step of which a code may be used at this moment. The window may have been wider here than it was when
/// the backup was made.
fn floor(now: Timestamp) -> Step {
    let window = i64::from(Window::OneEitherSide.steps());
    Step::from_number(now.step().number().saturating_add(window))
}

/// Puts right a copy that was dated by a clock that was ahead (SECURITY.md 35). The database that it replaces knows to
/// which moment, if the same was put right there. Else a person has to say so: the clock may as well be wrong now.
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
        return backup.correct_times(to, floor(now));
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
    backup.correct_times(now, floor(now))
}

/// A private file that is not yet what it is to become, and is gone if it never does.
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
    /// Makes the file anew; what a crash left of an earlier one goes.
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

    /// Puts the file on disk under its name, at once or not at all.
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

/// What is wrong with the copy is told of the file that somebody gave; of the copy's name nobody knows.
fn with_path(error: Error, file: &Path) -> Error {
    if let Error::Invalid { problem, .. } = error {
        Error::invalid(file.display().to_string(), problem)
    } else {
        error
    }
}

/// A log that stayed behind belongs to the old database of that name and must not meet the new one.
fn remove_wal(database: &Path) -> io::Result<()> {
    ["-wal", "-shm", "-journal"].iter().try_for_each(|of| {
        let mut name = database.as_os_str().to_owned();
        name.push(of);
        remove(Path::new(&name))
    })
}

/// Removes a file, if it is there.
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
