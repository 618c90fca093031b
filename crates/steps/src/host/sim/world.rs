//! The world: one turn of it for each call, with the call's faults; and the operator's hand on the
//! machines: reboot, kill, cut. Where it is kept, in a file or in memory, is `kept`'s business.
//!
//! Knows nothing of what the calls do to a host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{WorldError, failed, lost};
use super::fault::{self, Call, Fault, FaultKind};
use super::host::SimHost;
use super::kept::Kept;
use super::state::{CannedReply, CannedSql, Effect, HostState, Release, Unknown, WorldState};
use super::{etcd, patroni, patroni_loop, units};
use crate::host::{Host, HostError, UnitVerb};

/// A world of simulated hosts. Cheap to clone; one that is kept in a file may be open in several processes.
#[derive(Debug, Clone)]
pub struct SimWorld(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Kept,
    /// What was asked of this world that it has no answer to.
    unknown: Mutex<BTreeSet<Unknown>>,
}

/// What a call does after its effect.
enum Next<T, E> {
    Answer(Result<T, E>),
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
        let names = names.into_iter().map(|name| (name.as_ref().to_owned(), None));
        let world = Self::of(Kept::in_file(path.into()));
        world.0.kept.replace(WorldState::bare(release, names))?;
        Ok(world)
    }

    /// A world in memory, as that state has it. It outlives whatever works on it, but not the process.
    pub fn in_memory(state: WorldState) -> Self {
        Self::of(Kept::in_memory(state, None))
    }

    /// The same, with a watch: it is called after every change that a caller made.
    ///
    /// The world waits for it; it must not ask this world for anything but what it is given.
    pub fn watched(state: WorldState, watch: impl Fn(&WorldState) + Send + Sync + 'static) -> Self {
        Self::of(Kept::in_memory(state, Some(Box::new(watch))))
    }

    /// Opens a world that another process may be using too. Fails where there is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, WorldError> {
        let world = Self::of(Kept::in_file(path.into()));
        world.state()?;
        Ok(world)
    }

    fn of(kept: Kept) -> Self {
        Self(Arc::new(Shared { kept, unknown: Mutex::default() }))
    }

    /// Its file; an empty path for one in memory.
    pub fn path(&self) -> &Path {
        self.0.kept.path()
    }

    /// The scripts and queries that it was asked and has no answer to, where its settings are strict.
    pub fn unknown(&self) -> Vec<Unknown> {
        self.0.unknown.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Notes what it has no answer to.
    pub(super) fn note_unknown(&self, unknown: Unknown) {
        self.0.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(unknown);
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

    /// Ends a unit, by hand.
    pub fn stop(&self, name: &str, unit: &str) -> Result<(), WorldError> {
        self.edit_host(name, |_| ())?;
        self.edit(|state| units::verb(state, name, unit, UnitVerb::Stop))?
            .map(drop)
            .map_err(|message| WorldError::Refused { message })
    }

    /// Puts a bare host in the place of one, with its name and its address.
    pub fn replace(&self, name: &str) -> Result<(), WorldError> {
        let bare = |state: &mut WorldState| {
            let address = state.hosts.get(name)?.address.clone();
            let bare = WorldState::bare(state.settings.release, [(name.to_owned(), Some(address))]);
            state.hosts.extend(bare.hosts);
            Some(())
        };
        self.edit(bare)?.ok_or_else(|| WorldError::NoHost { name: name.to_owned() })
    }

    /// Edits every cluster's dynamic configuration, as `patronictl edit-config` does.
    pub fn edit_config(&self, patch: &serde_json::Value) -> Result<(), WorldError> {
        self.edit(|state| super::rest::edit_configs(state, patch))
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
    pub(super) async fn look<T: Send, E: From<HostError>>(
        &self,
        host: &str,
        text: &str,
        action: impl FnOnce(&WorldState) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let next = self.transact(|state| begin(state, host, text, |state| (action(state), false)));
        finish(host, next).await
    }

    /// A call that may change anything. Where it fails, nothing is changed.
    pub(super) async fn act<T: Send, E: From<HostError>>(
        &self,
        host: &str,
        text: &str,
        action: impl FnOnce(&mut WorldState) -> Result<T, E> + Send,
    ) -> Result<T, E> {
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

    fn transact<T>(&self, action: impl FnOnce(&mut WorldState) -> (T, bool)) -> Result<T, WorldError> {
        self.0.kept.transact(action)
    }
}

/// Whether the host can be called at all, what the faults say, and the action where it is reached.
fn begin<T, E: From<HostError>>(
    state: &mut WorldState,
    host: &str,
    text: &str,
    action: impl FnOnce(&mut WorldState) -> (Result<T, E>, bool),
) -> (Next<T, E>, bool) {
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
        return (Next::Answer(Err(unreachable().into())), false);
    }
    let verdict = fault::take(&mut state.faults, host, text);
    let done = |next| (next, verdict.changed);
    match verdict.fires {
        None => {
            let (next, changed) = by_effect(state, host, action);
            (next, changed || verdict.changed)
        }
        Some(FaultKind::Fail(message)) => done(Next::Answer(Err(failed(host, message).into()))),
        Some(FaultKind::LoseRequest) => done(Next::Answer(Err(lost(host, "connection reset").into()))),
        Some(FaultKind::Unreachable) => done(Next::Answer(Err(unreachable().into()))),
        Some(FaultKind::Hang) => done(Next::Hang),
        Some(FaultKind::CrashBefore) => done(Next::Abort),
        Some(FaultKind::LoseAnswer) => {
            // Whether it went well is what the caller doesn't hear.
            let _ = action(state);
            (Next::Answer(Err(lost(host, "connection reset").into())), true)
        }
        Some(FaultKind::Crash) => {
            let _ = action(state);
            (Next::Abort, true)
        }
    }
}

/// Carries the action out; where it turns out to have an effect that a fault waits for, that fires.
fn by_effect<T, E: From<HostError>>(
    state: &mut WorldState,
    host: &str,
    action: impl FnOnce(&mut WorldState) -> (Result<T, E>, bool),
) -> (Next<T, E>, bool) {
    let waits = |fault: &Fault| {
        matches!(fault.call, Call::Effect(_)) && fault.host.as_deref().is_none_or(|name| name == host)
    };
    let Some(index) = state.faults.iter().position(waits) else {
        let (answer, changed) = action(state);
        return (Next::Answer(answer), changed);
    };
    let before = state.clone();
    let (answer, changed) = action(state);
    if state.effects.len() == before.effects.len() {
        return (Next::Answer(answer), changed);
    }
    if let Call::Effect(n) = &mut state.faults[index].call {
        *n = n.saturating_sub(1);
        if *n > 0 {
            return (Next::Answer(answer), true);
        }
    }
    let kind = state.faults.remove(index).kind;
    if !matches!(kind, FaultKind::LoseAnswer | FaultKind::Crash) {
        let faults = std::mem::take(&mut state.faults);
        *state = WorldState { faults, ..before };
    }
    let next = match kind {
        FaultKind::Fail(message) => Next::Answer(Err(failed(host, message).into())),
        FaultKind::LoseRequest | FaultKind::LoseAnswer => {
            Next::Answer(Err(lost(host, "connection reset").into()))
        }
        FaultKind::Unreachable => Next::Answer(Err(HostError::Unreachable {
            host: host.to_owned(),
            address: state.hosts.get(host).map_or_else(String::new, |host| host.address.clone()),
            message: "connection timed out".to_owned(),
            hint: None,
        }
        .into())),
        FaultKind::Hang => Next::Hang,
        FaultKind::Crash | FaultKind::CrashBefore => Next::Abort,
    };
    (next, true)
}

async fn finish<T, E: From<HostError>>(host: &str, next: Result<Next<T, E>, WorldError>) -> Result<T, E> {
    match next.map_err(|error| E::from(failed(host, error.to_string())))? {
        Next::Answer(answer) => answer,
        Next::Hang => std::future::pending().await,
        Next::Abort => std::process::abort(),
    }
}
