//! Who can access the data directory and its files: the checks, and creating the directory private (SECURITY.md 26).
//!
//! Opens no file.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{DATABASE, DataDir, KEY, KeyFile, LOCK, OWN_FILES, RUN, SERVING, cannot};
use crate::error::{Error, Result};
use crate::ownership::{self, Access, Identity, Reach};

/// Refuses a directory that holds files of other programs. They would become inaccessible when totpd makes the directory
/// private. Files that an earlier totpd left are accepted.
pub(super) fn require_no_foreign_files(path: &Path, key: &KeyFile) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else {
        // The directory does not exist, or creating it reports what is wrong.
        return Ok(());
    };
    for entry in entries {
        let entry = entry.map_err(|error| cannot("look into", path, &error))?;
        let (name, file) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let is_key = key.given().any(|it| it.path == file);
        let is_ours = [LOCK, SERVING, RUN].contains(&&*name)
            || [DATABASE, KEY].iter().any(|it| name.starts_with(it));
        // The file system's own directory, where one is mounted here.
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

/// Creates the directory, or makes an existing one private if it holds no files of other programs.
pub(super) fn create_directory(path: &Path, key: &KeyFile) -> Result<()> {
    let identity = Identity::of_process();
    require_parents(&identity, path)?;
    if !path.exists() {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|error| cannot("create", path, &error))?;
    }
    let access = Access::from(&require_directory(path)?);
    identity
        .require_owner(access)
        .map_err(|problem| Error::invalid(path.display().to_string(), problem))?;
    let is_for_totpd = DataDir::is_initialised(path) || require_no_foreign_files(path, key).is_ok();
    // A directory that a container mounts may belong to root. `require_private` checks its mode in any case.
    if is_for_totpd && identity.can_change(access) {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|error| cannot("chmod 700", path, &error))?;
    }
    Ok(())
}

/// Refuses a directory, key or database that does not belong to this user or root, or that others can access
/// (SECURITY.md 26). Returns the files that a group of this process can access, with that group.
pub(super) fn require_private(path: &Path, key: &KeyFile) -> Result<Vec<(PathBuf, u32)>> {
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
    for it in key.given().filter(|it| !it.group_may_read) {
        require_parents(&identity, &it.path)?;
        shared.extend(require_private_files([it.path.clone()].into_iter())?);
    }
    Ok(shared)
}

/// Checks those of these files that exist.
///
/// Does not open them: closing another descriptor of the database would drop SQLite's locks of this process.
pub(super) fn require_private_files(
    names: impl Iterator<Item = PathBuf>,
) -> Result<Vec<(PathBuf, u32)>> {
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

/// Advice for a mounted directory whose mode this user cannot change: a directory below it, where that would work.
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

pub(super) fn require_directory(path: &Path) -> Result<fs::Metadata> {
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
