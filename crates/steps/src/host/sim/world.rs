//! The world's file: locked, read, changed, replaced. Also the calls by way of it, with their faults,
//! and the operator's hand on the machines: reboot, kill, cut.
//!
//! Knows nothing of what the calls do to a host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{WorldError, failed, lost};
use super::fault::{self, Fault, FaultKind};
use super::host::SimHost;
use super::state::{CannedReply, CannedSql, Effect, HostState, Release, WorldState};
use super::{etcd, patroni, patroni_loop, units};
use crate::host::{Host, HostError};

/// A world of simulated hosts, kept in one file. Cheap to clone; several processes may have it open.
#[derive(Debug, Clone)]
pub struct SimWorld(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// The state as last seen, with the file's generation: read again only if that has grown.
    seen: Mutex<Option<(u64, WorldState)>>,
}

/// What a call does after its effect.
enum Next<T> {
    Answer(Result<T, HostError>),
    Hang,
    Abort,
}

impl SimWorld {
    /// Makes a world of bare hosts of that release. A world that was there is replaced.
    ///
    /// The hosts' addresses are 198.18.0.11 and on, in order. Fails where the file can't be written.
    pub fn create<N: AsRef<str>>(
        path: impl Into<PathBuf>,
        release: Release,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, WorldError> {
        let mut state = WorldState::default();
        state.settings.release = release;
        for name in names {
            let host = HostState::bare(state.hosts.len());
            state.hosts.insert(name.as_ref().to_owned(), host);
        }
        for name in state.host_names() {
            units::boot(&mut state, &name);
        }
        let world = Self::at(path.into());
        let mut lock = world.lock()?;
        world.write(&mut lock, &state)?;
        Ok(world)
    }

    /// Opens a world that another process may be using too. Fails where there is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, WorldError> {
        let world = Self::at(path.into());
        world.state()?;
        Ok(world)
    }

    fn at(path: PathBuf) -> Self {
        Self(Arc::new(Shared { path, seen: Mutex::new(None) }))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A host by its name, whether the world has it or not: one that is missing can't be reached.
    pub fn host(&self, name: &str) -> Arc<dyn Host> {
        Arc::new(SimHost::new(self.clone(), name))
    }

    /// The state as it is now.
    pub fn state(&self) -> Result<WorldState, WorldError> {
        self.transact(|state| (state.clone(), false))
    }

    /// Changes the state by hand, as an accident or a person at the machine would; not an effect.
    ///
    /// Afterwards etcd and Patroni react to it.
    pub fn edit<T>(&self, change: impl FnOnce(&mut WorldState) -> T) -> Result<T, WorldError> {
        self.transact(|state| {
            let value = change(state);
            patroni_loop::settle(state);
            (value, true)
        })
    }

    /// Changes one host by hand.
    pub fn edit_host<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut HostState) -> T,
    ) -> Result<T, WorldError> {
        self.edit(|state| state.hosts.get_mut(name).map(change))?
            .ok_or_else(|| WorldError::NoHost { name: name.to_owned() })
    }

    /// Places a fault.
    pub fn inject(&self, fault: Fault) -> Result<(), WorldError> {
        self.edit(|state| state.faults.push(fault))
    }

    /// Adds an answer to scripts; later ones go before earlier ones.
    pub fn reply(&self, reply: CannedReply) -> Result<(), WorldError> {
        self.edit(|state| state.replies.insert(0, reply))
    }

    /// Adds an answer to queries; later ones go before earlier ones.
    pub fn rows(&self, rows: CannedSql) -> Result<(), WorldError> {
        self.edit(|state| state.sql.insert(0, rows))
    }

    /// Every change that callers made, in order.
    pub fn effects(&self) -> Result<Vec<Effect>, WorldError> {
        self.transact(|state| (state.effects.clone(), false))
    }

    /// Replaces a data directory by a new initdb's, by hand: the accident behind a system ID mismatch.
    pub fn initdb(&self, name: &str, data_dir: &str) -> Result<(), WorldError> {
        self.edit_host(name, |_| ())?;
        self.edit(|state| {
            let identifier = patroni::next_identifier(state);
            let major = patroni::default_major(state.settings.release);
            let host = state.host_mut(name)?;
            host.files.remove_tree(data_dir);
            patroni::write_data_directory(host, data_dir, major, identifier)
        })?
        .map_err(|message| WorldError::Refused { message })
    }

    /// Pulls a host's network cable.
    pub fn cut(&self, name: &str) -> Result<(), WorldError> {
        self.edit_host(name, |host| host.cut = true)
    }

    /// Plugs it in again.
    pub fn heal(&self, name: &str) -> Result<(), WorldError> {
        self.edit_host(name, |host| host.cut = false)
    }

    /// Ends a host abruptly; its disk stays.
    pub fn kill(&self, name: &str) -> Result<(), WorldError> {
        self.edit_host(name, units::power_off)
    }

    /// Boots a host: what is enabled and not masked starts.
    pub fn boot(&self, name: &str) -> Result<(), WorldError> {
        self.edit_host(name, |_| ())?;
        self.edit(|state| {
            units::boot(state, name);
            etcd::settle(state);
        })
    }

    /// Ends a host abruptly and boots it again.
    pub fn reboot(&self, name: &str) -> Result<(), WorldError> {
        self.kill(name)?;
        self.boot(name)
    }

    /// A call that changes nothing.
    pub(super) async fn look<T: Send>(
        &self,
        host: &str,
        text: &str,
        action: impl FnOnce(&WorldState) -> Result<T, HostError> + Send,
    ) -> Result<T, HostError> {
        let next = self.transact(|state| begin(state, host, text, |state| (action(state), false)));
        finish(host, next).await
    }

    /// A call that may change anything. Where it fails, nothing is changed.
    pub(super) async fn act<T: Send>(
        &self,
        host: &str,
        text: &str,
        action: impl FnOnce(&mut WorldState) -> Result<T, HostError> + Send,
    ) -> Result<T, HostError> {
        let next = self.transact(|state| {
            begin(state, host, text, |state| {
                let before = state.clone();
                let answer = action(state);
                if answer.is_ok() {
                    patroni_loop::settle(state);
                } else {
                    *state = before;
                }
                let changed = answer.is_ok();
                (answer, changed)
            })
        });
        finish(host, next).await
    }

    /// One turn under the file's lock: read where another process wrote, act, write where changed.
    fn transact<T>(&self, action: impl FnOnce(&mut WorldState) -> (T, bool)) -> Result<T, WorldError> {
        let mut lock = self.lock()?;
        let generation = self.generation(&mut lock)?;
        // Taken out, so that a panic or an error on the way leaves nothing stale behind.
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = match seen {
            Some((number, state)) if number == generation => state,
            _ => self.read()?,
        };
        let (value, changed) = action(&mut state);
        let generation = if changed { self.write(&mut lock, &state)? } else { generation };
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((generation, state));
        Ok(value)
    }

    fn read(&self) -> Result<WorldState, WorldError> {
        let bytes = std::fs::read(&self.0.path).map_err(|source| self.io(source))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| WorldError::Format { path: self.0.path.clone(), source })
    }

    /// Replaces the file. The generation grows first: who is killed between the two makes others
    /// read once more than needed, never once less.
    fn write(&self, lock: &mut File, state: &WorldState) -> Result<u64, WorldError> {
        let bytes = serde_json::to_vec(state)
            .map_err(|source| WorldError::Format { path: self.0.path.clone(), source })?;
        let beside = self.beside("tmp");
        std::fs::write(&beside, bytes).map_err(|source| self.io(source))?;
        let generation = self.generation(lock)? + 1;
        lock.rewind()
            .and_then(|()| lock.write_all(&generation.to_le_bytes()))
            .and_then(|()| std::fs::rename(&beside, &self.0.path))
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
        let mut name = self.0.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    fn io(&self, source: io::Error) -> WorldError {
        WorldError::Io { path: self.0.path.clone(), source }
    }
}

/// Whether the host can be called at all, what the faults say, and the action where it is reached.
fn begin<T>(
    state: &mut WorldState,
    host: &str,
    text: &str,
    action: impl FnOnce(&mut WorldState) -> (Result<T, HostError>, bool),
) -> (Next<T>, bool) {
    let (address, connected) = match state.hosts.get(host) {
        Some(known) => (known.address.clone(), known.connected()),
        None => (host.to_owned(), false),
    };
    let unreachable = || HostError::Unreachable {
        host: host.to_owned(),
        address: address.clone(),
        message: "connection timed out".to_owned(),
        hint: None,
    };
    if !connected {
        return (Next::Answer(Err(unreachable())), false);
    }
    let verdict = fault::take(&mut state.faults, host, text);
    let done = |next| (next, verdict.changed);
    match verdict.fires {
        None => {
            let (answer, changed) = action(state);
            (Next::Answer(answer), changed || verdict.changed)
        }
        Some(FaultKind::Fail(message)) => done(Next::Answer(Err(failed(host, message)))),
        Some(FaultKind::LoseRequest) => done(Next::Answer(Err(lost(host, "connection reset")))),
        Some(FaultKind::Unreachable) => done(Next::Answer(Err(unreachable()))),
        Some(FaultKind::Hang) => done(Next::Hang),
        Some(FaultKind::CrashBefore) => done(Next::Abort),
        Some(FaultKind::LoseAnswer) => {
            // Whether it went well is what the caller doesn't hear.
            let _ = action(state);
            (Next::Answer(Err(lost(host, "connection reset"))), true)
        }
        Some(FaultKind::Crash) => {
            let _ = action(state);
            (Next::Abort, true)
        }
    }
}

async fn finish<T>(host: &str, next: Result<Next<T>, WorldError>) -> Result<T, HostError> {
    match next.map_err(|error| failed(host, error.to_string()))? {
        Next::Answer(answer) => answer,
        Next::Hang => std::future::pending().await,
        Next::Abort => std::process::abort(),
    }
}
