//! Checks the owners and modes of files and directories (SECURITY.md 26).
//!
//! Does not know what the files are for.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid, getgroups};

const ROOT: u32 = 0;
const OTHERS: u32 = 0o007;
const OTHERS_WRITE: u32 = 0o002;
const GROUP: u32 = 0o070;
const GROUP_WRITE: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// Who can open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only its owner and root.
    Owner,
    /// Also the members of this group, of which this process is one.
    Group(u32),
}

/// The effective user and the groups of this process.
pub(crate) struct Identity {
    user: u32,
    groups: Vec<u32>,
}

/// Owner, group and mode of a file, from `stat`.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    user: u32,
    group: u32,
    mode: u32,
}

impl From<&Metadata> for Access {
    fn from(it: &Metadata) -> Self {
        Self {
            user: it.uid(),
            group: it.gid(),
            mode: it.mode() & 0o7777,
        }
    }
}

impl Identity {
    pub(crate) fn of_process() -> Self {
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().iter().map(|it| it.as_raw()));
        Self {
            user: geteuid().as_raw(),
            groups,
        }
    }

    pub(crate) const fn is_root(&self) -> bool {
        self.user == ROOT
    }

    /// Whether this process may change the mode of the file.
    pub(crate) fn can_change(&self, it: Access) -> bool {
        self.is_root() || it.user == self.user
    }

    /// Refuses a file that belongs neither to this user nor to root: its owner could change it at any time.
    pub(crate) fn require_owner(&self, it: Access) -> Result<(), String> {
        if it.user == self.user || it.user == ROOT {
            return Ok(());
        }
        let or_root = if self.is_root() { "" } else { " or to root" };
        Err(format!(
            "it belongs to user {}; it must belong to user {}{or_root}: run chown on it",
            it.user, self.user
        ))
    }

    /// Refuses a file that other users, or a group that this process is not in, can open. `private` is the mode that the
    /// message recommends.
    pub(crate) fn require_private(&self, it: Access, private: &str) -> Result<Reach, String> {
        self.require_owner(it)?;
        let (mode, group) = (it.mode, it.group);
        if mode & OTHERS != 0 {
            return Err(format!(
                "others can reach it (mode {mode:04o}); run chmod {private} on it"
            ));
        }
        if mode & GROUP == 0 {
            return Ok(Reach::Owner);
        }
        if !self.groups.contains(&group) {
            return Err(format!(
                "group {group} can reach it (mode {mode:04o}), and this process is not in that group; \
                 run chmod {private} on it"
            ));
        }
        Ok(Reach::Group(group))
    }

    /// Refuses a directory in which others could replace a file of this user. In a sticky directory they cannot. Root's
    /// group counts as root.
    fn require_safe_parent(&self, it: Access) -> Result<(), &'static str> {
        let is_foreign_group = it.group != ROOT && !self.groups.contains(&it.group);
        if it.mode & STICKY != 0 {
            Ok(())
        } else if it.mode & OTHERS_WRITE != 0 {
            Err("others can write to it; run chmod o-w or chmod +t on it")
        } else if it.mode & GROUP_WRITE != 0 && is_foreign_group {
            Err(
                "a group that this process is not in can write to it; run chmod g-w or chmod +t on it",
            )
        } else {
            Ok(())
        }
    }

    /// Checks every directory above `path`, both as given and with symbolic links resolved.
    pub(crate) fn require_safe_parents(&self, path: &Path) -> Result<(), String> {
        for full in [std::path::absolute(path).ok(), path.canonicalize().ok()] {
            let full = full.unwrap_or_default();
            // This process will create the directories that are missing.
            for parent in full.ancestors().skip(1).filter(|it| it.exists()) {
                let metadata = parent.metadata();
                metadata
                    .map_err(|error| format!("its mode cannot be read: {error}"))
                    .and_then(|it| Ok(self.require_safe_parent(Access::from(&it))?))
                    .map_err(|problem| {
                        format!("{} is above it, and {problem}", parent.display())
                    })?;
            }
        }
        Ok(())
    }
}

/// Opens a regular file for reading. Returns the metadata of the opened file.
///
/// Does not block: opening a FIFO for reading would wait for a writer.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(no_wait).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(not_regular())
    }
}

/// The error for a FIFO, a device or a directory where a file is expected.
pub(crate) fn not_regular() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "this is not a regular file, and nothing else is taken",
    )
}

/// Opens a private file: a regular file of this user or root that others cannot open.
///
/// systemd passes credentials with an access control list, whose mask appears as the group's mode. So with
/// `is_credential` a group that may read is ignored.
pub(crate) fn open_private(path: &Path, is_credential: bool) -> io::Result<(File, Reach)> {
    let (file, metadata) = open_regular(path)?;
    let mut access = Access::from(&metadata);
    if is_credential && access.mode & GROUP == 0o040 {
        access.mode &= !GROUP;
    }
    let reach = Identity::of_process().require_private(access, "600");
    let reach = reach.map_err(|problem| io::Error::new(io::ErrorKind::InvalidInput, problem))?;
    Ok((file, reach))
}

/// Logs one warning about files that a group can open. This process is in the group, so that may be intended.
pub(crate) fn warn_of_groups(shared: &[(PathBuf, u32)]) {
    if let Some(text) = shared_by_groups(shared) {
        log::warn!("{text}");
    }
}

/// A sentence that lists the files that a group can open. `None` if there are none.
pub(crate) fn shared_by_groups(shared: &[(PathBuf, u32)]) -> Option<String> {
    let names = shared
        .iter()
        .map(|(it, group)| format!("{} (group {group})", it.display()));
    let names = names.collect::<Vec<_>>().join(", ");
    let text = || format!("a group can reach {names}; where that is not meant, run chmod g= on it");
    (!shared.is_empty()).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn access(user: u32, group: u32, mode: u32) -> Access {
        Access { user, group, mode }
    }

    /// SECURITY.md 26
    #[test]
    fn a_file_is_ours_or_roots_and_closed_to_others() {
        let ours = Identity {
            user: 1000,
            groups: vec![1000, 2000],
        };
        for (it, expected) in [
            (access(1000, 1000, 0o600), Ok(Reach::Owner)),
            (access(0, 0, 0o400), Ok(Reach::Owner)),
            (access(1000, 1000, 0o660), Ok(Reach::Group(1000))),
            (access(0, 2000, 0o440), Ok(Reach::Group(2000))),
            (access(0, 2000, 0o2770), Ok(Reach::Group(2000))),
            (access(1000, 3000, 0o640), Err("not in that group")),
            (access(1000, 0, 0o640), Err("not in that group")),
            (access(1001, 1000, 0o600), Err("belongs to user 1001")),
            (access(1000, 1000, 0o604), Err("others can reach it")),
            (access(1000, 1000, 0o602), Err("others can reach it")),
            (access(1000, 1000, 0o701), Err("others can reach it")),
            (access(0, 2000, 0o2775), Err("others can reach it")),
        ] {
            let result = ours.require_private(it, "600");
            let text = format!("{} {} {:o}: {result:?}", it.user, it.group, it.mode);
            match expected {
                Ok(reach) => assert_eq!(result, Ok(reach), "{text}"),
                Err(expected) => assert!(result.unwrap_err().contains(expected), "{text}"),
            }
        }
        let root = Identity {
            user: 0,
            groups: vec![0],
        };
        let refused = root
            .require_private(access(65_534, 0, 0o600), "600")
            .unwrap_err();
        assert!(!refused.contains("or to root"), "{refused}");
    }

    /// SECURITY.md 26
    #[test]
    fn what_others_can_write_is_no_parent_unless_it_is_sticky() {
        let ours = Identity {
            user: 1000,
            groups: vec![1000, 2000],
        };
        for (it, is_accepted) in [
            (access(0, 0, 0o755), true),
            (access(0, 0, 0o1777), true),
            (access(0, 0, 0o777), false),
            (access(0, 0, 0o775), true),
            (access(0, 2000, 0o2775), true),
            (access(0, 50, 0o2775), false),
            (access(0, 50, 0o3775), true),
            (access(1000, 1000, 0o702), false),
        ] {
            let result = ours.require_safe_parent(it);
            assert_eq!(result.is_ok(), is_accepted, "{} {:o}", it.group, it.mode);
        }
    }
}
