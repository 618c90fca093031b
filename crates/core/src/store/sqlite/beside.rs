//! What lies beside the database: who holds which run, and the key of fingerprints.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::run::RunId;
use crate::store::{Claim, StoreError};

/// The path of what lies beside the database: `runs.db` and a suffix.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Locks a run for this process, where no other has it.
pub(super) fn claim(database: &Path, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError> {
    let folder = beside(database, ".locks");
    let path = folder.join(run.as_str());
    let io = |problem: &'static str| {
        let path = path.clone();
        move |source: std::io::Error| StoreError::Io { path, problem, source: source.into() }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io("can't be made"))?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("can't be opened"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            file.read_to_string(&mut owner).map_err(io("can't be read"))?;
            return Err(StoreError::Busy { run: run.clone(), owner: owner.trim().to_owned() });
        }
        Err(TryLockError::Error(e)) => return Err(io("can't be locked")(e)),
    }
    // Who holds it is a courtesy to others: a full disk must not keep a run from going on.
    let _ = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
    Ok(Box::new(FileClaim(file)))
}

/// The key; made where there is none yet.
pub(super) fn fingerprint_key(database: &Path) -> Result<[u8; 32], StoreError> {
    let path = beside(database, ".key");
    let io = |problem: &'static str| {
        let path = path.clone();
        move |source: std::io::Error| StoreError::Io { path, problem, source: source.into() }
    };
    if !path.exists() {
        // Written beside and linked into place: of two processes one wins, and both read the same.
        let fresh = beside(database, &format!(".key.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(io("can't be made"))?;
        file.write_all(&rand::random::<[u8; 32]>())
            .and_then(|()| file.sync_all())
            .map_err(io("can't be written"))?;
        let linked = fs::hard_link(&fresh, &path);
        let _ = fs::remove_file(&fresh);
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io("can't be made")(e));
            }
            _ => {}
        }
    }
    let bytes = fs::read(&path).map_err(io("can't be read"))?;
    bytes.try_into().map_err(|_| StoreError::Damaged { path, what: "the key isn't 32 bytes long".to_owned() })
}

/// An advisory lock on a file beside the store; the kernel drops it with the process. The file stays:
/// removing it would let two processes hold locks on two files of one name.
struct FileClaim(#[expect(dead_code, reason = "held for its lock")] File);

impl Claim for FileClaim {}
