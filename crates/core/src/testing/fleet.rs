//! Hosts that are only names: who they are, their locks, and whether they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::engine::{Fleet, Holder};
use crate::inventory::Host;
use crate::run::Identity;
use crate::step::{Attempt, StepError};

/// A fleet without machines. Every host is there until it is taken away.
#[derive(Default)]
pub struct VirtualFleet(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    locks: BTreeMap<String, Holder>,
    away: BTreeSet<String>,
    replaced: BTreeMap<String, String>,
    alive: BTreeSet<String>,
}

impl VirtualFleet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever asks for the host gets no answer until it is [`bring_back`](Self::bring_back).
    pub fn take_away(&self, host: &str) {
        self.inner().away.insert(host.to_owned());
    }

    /// The host answers again.
    pub fn bring_back(&self, host: &str) {
        self.inner().away.remove(host);
    }

    /// From now on another machine answers under the host's name.
    pub fn replace(&self, host: &str, machine_id: &str) {
        self.inner().replaced.insert(host.to_owned(), machine_id.to_owned());
    }

    /// A command of that attempt is at work, by [`Attempt::name`], until it is [ended](Self::end).
    pub fn begin(&self, attempt: &str) {
        self.inner().alive.insert(attempt.to_owned());
    }

    /// That command has ended.
    pub fn end(&self, attempt: &str) {
        self.inner().alive.remove(attempt);
    }

    /// Who holds a host's lock.
    pub fn holder(&self, host: &str) -> Option<Holder> {
        self.inner().locks.get(host).cloned()
    }
}

#[async_trait]
impl Fleet for VirtualFleet {
    async fn meet(&self, host: &Arc<Host>) -> Result<Identity, StepError> {
        let inner = self.inner();
        if inner.away.contains(&host.name) {
            return Err(StepError::failed(format!("{} can't be reached", host.name)));
        }
        let machine_id = inner.replaced.get(&host.name).unwrap_or(&host.name).clone();
        Ok(Identity { machine_id, key_fingerprint: String::new() })
    }

    async fn lock(&self, host: &Arc<Host>, holder: &Holder) -> Result<(), StepError> {
        let mut inner = self.inner();
        match inner.locks.get(&host.name) {
            Some(held) if held.run != holder.run => {
                Err(StepError::permanent(format!("{} is locked for run {}", host.name, held.run)))
            }
            Some(held) if held.epoch > holder.epoch => {
                Err(StepError::permanent(format!("{} was taken over by a later process", host.name)))
            }
            _ => {
                inner.locks.insert(host.name.clone(), holder.clone());
                Ok(())
            }
        }
    }

    async fn unlock(&self, host: &Arc<Host>, holder: &Holder) -> Result<(), StepError> {
        let mut inner = self.inner();
        if inner.locks.get(&host.name).is_some_and(|held| held.run == holder.run) {
            inner.locks.remove(&host.name);
        }
        Ok(())
    }

    async fn alive(&self, host: &Arc<Host>, attempt: &Attempt) -> Result<bool, StepError> {
        let inner = self.inner();
        if inner.away.contains(&host.name) {
            return Err(StepError::failed(format!("{} can't be reached", host.name)));
        }
        Ok(inner.alive.contains(&attempt.name()))
    }

    async fn close(&self) {}
}
