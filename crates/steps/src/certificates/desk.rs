//! Files on the operator's machine.
//!
//! A path begins with `/` or `~/`: a run may be resumed from another directory, so that no path is
//! relative to where flow was started; and a workflow's folder is pinned with its runs, which a CA's
//! key must not be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(super) use flow_core::plan::operator_path as path;
use flow_core::step::StepError;

/// A file's text; none where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, StepError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// The folder of a file, for its owner alone where it isn't there yet.
pub(super) fn make_folder_of(path: &Path) -> Result<(), StepError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed(folder, &error))
}

/// The place beside a file where it is written before it gets its name.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Writes a file beside its place and syncs it. What an earlier try left there is removed.
pub(super) fn write_beside(path: &Path, text: &str, mode: u32) -> Result<(), StepError> {
    let new = beside(path);
    remove(&new)?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| failed(&new, &error))
}

/// Gives what was written beside a place its name. Never replaces what has that name.
pub(super) fn put(path: &Path) -> Result<(), StepError> {
    let new = beside(path);
    fs::hard_link(&new, path).map_err(|error| failed(path, &error))?;
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, &error))?;
    }
    remove(&new)
}

fn remove(path: &Path) -> Result<(), StepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

/// The system's words for an error hold nothing of what is in the file.
fn failed(path: &Path, error: &io::Error) -> StepError {
    StepError::failed(format!("{} at the operator: {error}", path.display()))
}
