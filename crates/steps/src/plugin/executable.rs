//! A plugin's files: whether they may be trusted, and whether they are still the ones that were described.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flow_core::step::Origin;
use sha2::{Digest, Sha256};

/// The most files that a plugin may be made of.
const MOST_FILES: usize = 1000;

/// An executable with what else it is made of, known by their content.
#[derive(Debug)]
pub(super) struct Executable {
    pub(super) origin: Arc<Origin>,
    /// The executable first.
    files: Vec<Pinned>,
}

/// A file, known by its content.
#[derive(Debug)]
struct Pinned {
    path: PathBuf,
    sha256: String,
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

impl Pinned {
    /// Reads a file that nobody else could have written.
    fn open(path: &Path, metadata: &Metadata) -> Result<Self, String> {
        // Through links: it counts where the file itself lies.
        let real = fs::canonicalize(path).map_err(|error| unread(&error))?;
        trusted(&real, metadata)?;
        for folder in [path.parent(), real.parent()].into_iter().flatten() {
            trusted(folder, &fs::metadata(folder).map_err(|error| unread(&error))?)?;
        }
        Ok(Self { path: path.to_owned(), sha256: sha256(path)?, seen: Seen::of(metadata) })
    }

    fn unchanged(&self) -> Result<bool, String> {
        let now = fs::metadata(&self.path).map_err(|error| unread(&error))?;
        Ok(Seen::of(&now) == self.seen || sha256(&self.path)? == self.sha256)
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
        let pinned = Pinned::open(path, &metadata)?;
        let (path, sha256) = (path.to_owned(), pinned.sha256.clone());
        let origin = Arc::new(Origin { path, sha256, files: BTreeMap::new() });
        Ok(Self { origin, files: vec![pinned] })
    }

    /// The same with what else it is made of, by paths relative to the folder that the executable itself lies in.
    ///
    /// # Errors
    /// A path that leads elsewhere, or a file that isn't there or may not be trusted.
    pub(super) fn made_of(mut self, files: &[String]) -> Result<Self, String> {
        if files.len() > MOST_FILES {
            return Err(format!("it names more than {MOST_FILES} files"));
        }
        let real = fs::canonicalize(self.path()).map_err(|error| unread(&error))?;
        let folder = real.parent().unwrap_or(Path::new("/"));
        let mut pinned = BTreeMap::new();
        for name in files {
            let within = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
            if name.is_empty() || !within(Path::new(name)) {
                return Err(format!("`{name}`, which it is made of, is no path below its folder"));
            }
            let of_it = |why: String| format!("`{name}`, which it is made of: {why}");
            let path = folder.join(name);
            let metadata = fs::metadata(&path).map_err(|error| of_it(unread(&error)))?;
            if !metadata.is_file() {
                return Err(of_it("it is no file".to_owned()));
            }
            for above in path.ancestors().skip(1).take_while(|above| above.starts_with(folder)) {
                let metadata = fs::metadata(above).map_err(|error| of_it(unread(&error)))?;
                trusted(above, &metadata).map_err(of_it)?;
            }
            let file = Pinned::open(&path, &metadata).map_err(of_it)?;
            pinned.insert(name.clone(), file.sha256.clone());
            self.files.push(file);
        }
        let origin = Origin { files: pinned, ..Origin::clone(&self.origin) };
        Ok(Self { origin: Arc::new(origin), ..self })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.origin.path
    }

    /// Whether its files are what they were when they were opened.
    ///
    /// # Errors
    /// They aren't.
    pub(super) fn unchanged(&self) -> Result<(), String> {
        for file in &self.files {
            if file.unchanged()? {
                continue;
            }
            return Err(match file.path == *self.path() {
                true => "its file has changed since this process read it".to_owned(),
                false => {
                    format!(
                        "{}, which it is made of, has changed since this process read it",
                        file.path.display()
                    )
                }
            });
        }
        Ok(())
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
