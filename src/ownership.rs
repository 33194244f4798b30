//! Whose a file or directory is, and who else can reach it (SECURITY.md 26).
//!
//! Knows users, groups and modes. Does not know what the files are for.

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

/// Who besides its owner can reach a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nobody.
    Owner,
    /// The members of this group. This process is one of them.
    Group(u32),
}

/// The user and the groups that this process acts as.
pub(crate) struct Identity {
    user: u32,
    groups: Vec<u32>,
}

/// Owner, group and mode, as `stat` tells them.
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

    /// Whether this process may change the mode of a file of that owner.
    pub(crate) fn can_change(&self, it: Access) -> bool {
        self.is_root() || it.user == self.user
    }

    /// Refuses what belongs neither to this user nor to root. Its owner could change it at any time.
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

    /// Refuses what others can reach: other users, or the members of a group that this process is not in.
    /// `private` is the mode that would be right.
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

    /// Refuses a directory in which others could put another file in the place of ours. In a sticky one they
    /// cannot. Root's own group counts as root.
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

    /// Judges every directory above `path`: as it was given, and where symbolic links lead.
    pub(crate) fn require_safe_parents(&self, path: &Path) -> Result<(), String> {
        for whole in [std::path::absolute(path).ok(), path.canonicalize().ok()] {
            let whole = whole.unwrap_or_default();
            // What is not there yet will be made by this process.
            for parent in whole.ancestors().skip(1).filter(|it| it.exists()) {
                let metadata = parent.metadata();
                metadata
                    .map_err(|error| format!("cannot be looked into: {error}"))
                    .and_then(|it| Ok(self.require_safe_parent(Access::from(&it))?))
                    .map_err(|problem| {
                        format!("{} is above it, and {problem}", parent.display())
                    })?;
            }
        }
        Ok(())
    }
}

/// Opens a regular file for reading, with what is known of the very file that was opened.
///
/// Opening anything else for reading could wait for ever, as a FIFO does.
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

/// What is said of a FIFO, a device or a directory where a file is expected.
pub(crate) fn not_regular() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "this is not a regular file, and nothing else is taken",
    )
}

/// Opens a private file: regular, this user's or root's, and closed to others.
///
/// systemd hands credentials over with an access control list, whose mask shows as the mode of the group: where
/// `is_credential`, a group that may read is none.
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

/// Tells once of files that a group can reach. The process is in the group, so it may be meant.
pub(crate) fn warn_of_groups(shared: &[(PathBuf, u32)]) {
    if let Some(text) = shared_by_groups(shared) {
        log::warn!("{text}");
    }
}

/// Which files a group can reach, as a sentence; nothing where there are none.
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
        for (it, told) in [
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
            let judged = ours.require_private(it, "600");
            let text = format!("{} {} {:o}: {judged:?}", it.user, it.group, it.mode);
            match told {
                Ok(reach) => assert_eq!(judged, Ok(reach), "{text}"),
                Err(told) => assert!(judged.unwrap_err().contains(told), "{text}"),
            }
        }
        let root = Identity {
            user: 0,
            groups: vec![0],
        };
        let nobodys = root
            .require_private(access(65_534, 0, 0o600), "600")
            .unwrap_err();
        assert!(!nobodys.contains("or to root"), "{nobodys}");
    }

    /// SECURITY.md 26
    #[test]
    fn what_others_can_write_is_no_parent_unless_it_is_sticky() {
        let ours = Identity {
            user: 1000,
            groups: vec![1000, 2000],
        };
        for (it, is_taken) in [
            (access(0, 0, 0o755), true),
            (access(0, 0, 0o1777), true),
            (access(0, 0, 0o777), false),
            (access(0, 0, 0o775), true),
            (access(0, 2000, 0o2775), true),
            (access(0, 50, 0o2775), false),
            (access(0, 50, 0o3775), true),
            (access(1000, 1000, 0o702), false),
        ] {
            let judged = ours.require_safe_parent(it);
            assert_eq!(judged.is_ok(), is_taken, "{} {:o}", it.group, it.mode);
        }
    }
}
