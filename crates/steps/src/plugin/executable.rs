//! A plugin's file: whether it may be trusted, and whether it is still the one that was described.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flow_core::step::Origin;
use sha2::{Digest, Sha256};

/// An executable, known by its content.
#[derive(Debug)]
pub(super) struct Executable {
    pub(super) origin: Arc<Origin>,
    seen: Seen,
}

/// What a file's content can't change without.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Executable {
    /// Looks at a file.
    ///
    /// # Errors
    /// Why it isn't run: as a fragment.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let metadata = fs::metadata(path).map_err(|error| unread(&error))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err("it is no executable file".to_owned());
        }
        // Through links: it counts where the file itself lies.
        let real = fs::canonicalize(path).map_err(|error| unread(&error))?;
        trusted(&real, &metadata)?;
        for folder in [path.parent(), real.parent()].into_iter().flatten() {
            trusted(folder, &fs::metadata(folder).map_err(|error| unread(&error))?)?;
        }
        let sha256 = sha256(path)?;
        let origin = Arc::new(Origin { path: path.to_owned(), sha256 });
        Ok(Self { origin, seen: Seen::of(&metadata) })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.origin.path
    }

    /// Whether the file is what it was when it was opened.
    ///
    /// # Errors
    /// It isn't.
    pub(super) fn unchanged(&self) -> Result<(), String> {
        let now = fs::metadata(self.path()).map_err(|error| unread(&error))?;
        if Seen::of(&now) == self.seen || sha256(self.path())? == self.origin.sha256 {
            return Ok(());
        }
        Err("its file has changed since this process read it".to_owned())
    }
}

/// Refuses what somebody else could have written.
fn trusted(path: &Path, metadata: &Metadata) -> Result<(), String> {
    // The owner of a process's folder in /proc is its user.
    let own = fs::metadata("/proc/self").map_err(|error| unread(&error))?.uid();
    if ![0, own].contains(&metadata.uid()) {
        return Err(format!("{} belongs to somebody else (user {})", path.display(), metadata.uid()));
    }
    // In a folder like /tmp nobody can replace what belongs to others.
    let sticky = metadata.is_dir() && metadata.permissions().mode() & 0o1000 != 0;
    if metadata.permissions().mode() & 0o002 != 0 && !sticky {
        return Err(format!("{} can be written by anyone", path.display()));
    }
    Ok(())
}

fn unread(error: &io::Error) -> String {
    format!("it can't be read: {error}")
}

fn sha256(path: &Path) -> Result<String, String> {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(path).map_err(|error| unread(&error))?;
    io::copy(&mut file, &mut hasher).map_err(|error| unread(&error))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
