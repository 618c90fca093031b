//! Where a world is kept: in one JSON file, changed under a file lock and replaced by a rename, so that
//! a process killed at any instruction leaves it before an effect or after it; or in memory.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::error::WorldError;
use super::state::WorldState;

/// Called with the state after every change that a caller made.
type Watch = Box<dyn Fn(&WorldState) + Send + Sync>;

/// A world's place.
#[derive(Debug)]
pub(super) enum Kept {
    File(WorldFile),
    Memory(Memory),
}

impl Kept {
    pub(super) fn in_file(path: PathBuf) -> Self {
        Self::File(WorldFile { path, seen: Mutex::new(None) })
    }

    pub(super) fn in_memory(state: WorldState, watch: Option<Watch>) -> Self {
        Self::Memory(Memory { state: Mutex::new(state), watch })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(file) => &file.path,
            Self::Memory(_) => Path::new(""),
        }
    }

    /// Puts a state in the place of what was there.
    pub(super) fn replace(&self, state: WorldState) -> Result<(), WorldError> {
        match self {
            Self::File(file) => {
                let mut lock = file.lock()?;
                file.write(&mut lock, &state).map(|_| ())
            }
            Self::Memory(memory) => {
                *memory.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
                Ok(())
            }
        }
    }

    /// One turn, alone with the world. The action says whether it has changed anything.
    pub(super) fn transact<T>(
        &self,
        action: impl FnOnce(&mut WorldState) -> (T, bool),
    ) -> Result<T, WorldError> {
        match self {
            Self::File(file) => file.transact(action),
            Self::Memory(memory) => Ok(memory.transact(action)),
        }
    }
}

/// A world in this process.
pub(super) struct Memory {
    state: Mutex<WorldState>,
    watch: Option<Watch>,
}

impl Memory {
    fn transact<T>(&self, action: impl FnOnce(&mut WorldState) -> (T, bool)) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.effects.len();
        let (value, _) = action(&mut state);
        if let Some(watch) = self.watch.as_ref().filter(|_| state.effects.len() > before) {
            watch(&state);
        }
        value
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// A world in a file.
#[derive(Debug)]
pub(super) struct WorldFile {
    path: PathBuf,
    /// The state as last seen, with the file's generation: read again only if that has grown.
    seen: Mutex<Option<(u64, WorldState)>>,
}

impl WorldFile {
    /// One turn under the file's lock: read where another process wrote, act, write where changed.
    fn transact<T>(&self, action: impl FnOnce(&mut WorldState) -> (T, bool)) -> Result<T, WorldError> {
        let mut lock = self.lock()?;
        let generation = self.generation(&mut lock)?;
        // Taken out, so that a panic or an error on the way leaves nothing stale behind.
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = match seen {
            Some((number, state)) if number == generation => state,
            _ => self.read()?,
        };
        let (value, changed) = action(&mut state);
        let generation = if changed { self.write(&mut lock, &state)? } else { generation };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((generation, state));
        Ok(value)
    }

    fn read(&self) -> Result<WorldState, WorldError> {
        let bytes = std::fs::read(&self.path).map_err(|source| self.io(source))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| WorldError::Format { path: self.path.clone(), source })
    }

    /// Replaces the file. The generation grows first: who is killed between the two makes others
    /// read once more than needed, never once less.
    fn write(&self, lock: &mut File, state: &WorldState) -> Result<u64, WorldError> {
        let bytes = serde_json::to_vec(state)
            .map_err(|source| WorldError::Format { path: self.path.clone(), source })?;
        let beside = self.beside("tmp");
        std::fs::write(&beside, bytes).map_err(|source| self.io(source))?;
        let generation = self.generation(lock)? + 1;
        lock.rewind()
            .and_then(|()| lock.write_all(&generation.to_le_bytes()))
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(|source| self.io(source))?;
        Ok(generation)
    }

    /// Held until the file is dropped, or its process dies.
    fn lock(&self) -> Result<File, WorldError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.beside("lock"))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| self.io(source))
    }

    /// How often the file was replaced; kept in the lock file.
    fn generation(&self, lock: &mut File) -> Result<u64, WorldError> {
        let mut bytes = [0; 8];
        lock.rewind().map_err(|source| self.io(source))?;
        match lock.read_exact(&mut bytes) {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(source) => Err(self.io(source)),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    fn io(&self, source: io::Error) -> WorldError {
        WorldError::Io { path: self.path.clone(), source }
    }
}
