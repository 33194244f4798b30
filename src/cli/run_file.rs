//! The file in which a server leaves its addresses for other commands.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use totpd::error::{Error, Result};
use totpd::service::DataDir;

/// The addresses and the URL of a running server, in a private file that is removed when this value is dropped.
pub(super) struct RunFile {
    path: PathBuf,
}

/// What the file says.
#[derive(Serialize, Deserialize)]
pub(super) struct RunDocument {
    pub(super) addresses: Vec<String>,
    /// What links begin with, if the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// Whether the server leaves out the pages to which links lead.
    #[serde(default)]
    pub(super) no_web: bool,
}

impl RunFile {
    pub(super) fn create(data_dir: &Path, document: &RunDocument) -> Result<Self> {
        let path = DataDir::run_file(data_dir);
        let text = serde_json::to_vec(document);
        let text = text.map_err(|error| Error::Bug(error.to_string()))?;
        let cannot = |error: io::Error| {
            Error::invalid(path.display().to_string(), format!("cannot write: {error}"))
        };
        // A new file: a server that was killed has left one, of whatever mode.
        remove(&path).map_err(cannot)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut it| it.write_all(&text));
        written.map_err(cannot)?;
        Ok(Self { path })
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _gone = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the server of this directory has left, if one runs.
pub(super) fn read(data_dir: &Path) -> Option<RunDocument> {
    // A server that was killed has left its file, and its port may be another's now.
    if !DataDir::is_served(data_dir) {
        return None;
    }
    let text = fs::read(DataDir::run_file(data_dir)).ok()?;
    serde_json::from_slice(&text).ok()
}
