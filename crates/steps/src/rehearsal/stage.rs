//! Where a rehearsal begins: the hosts of an inventory, bare, and what has happened to them before.

use flow_core::inventory::Inventory;
use flow_core::plan::{Filter, Inputs, NewSecrets, Plan, Request};
use flow_core::run::Outcome;
use flow_core::store::Store;
use flow_core::testing::MemoryStore;
use flow_core::workflow::{Bundle, Code, Diagnostic};

use serde_json::Value;

use super::error::RehearsalError;
use super::process::{Crew, Ended};
use crate::host::sim::{CannedReply, CannedSql, Release, SimWorld, WorldState};

/// A workflow with its params.
#[derive(Clone)]
pub struct Subject {
    /// The workflow with its files.
    pub bundle: Bundle,
    /// What `--set` gives.
    pub inputs: Inputs,
    /// What `--limit` and `--tags` leave.
    pub filter: Filter,
}

/// What has happened to a host before the rehearsal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accident {
    /// A data directory was replaced by a new initdb's: the way to a system ID mismatch.
    Initdb {
        /// The hosts, a pattern.
        hosts: String,
        /// The directory.
        data_dir: String,
    },
    /// A unit has ended, and doesn't come back by itself.
    Stopped {
        /// The hosts, a pattern.
        hosts: String,
        /// The unit.
        unit: String,
    },
    /// A bare host is in its place.
    Replaced {
        /// The hosts, a pattern.
        hosts: String,
    },
    /// Patroni's dynamic configuration was edited, as by `patronictl edit-config`.
    EditedConfig {
        /// What was merged into it; null took a key away.
        patch: Value,
    },
}

/// Where a rehearsal begins.
#[derive(Clone)]
pub struct Stage {
    /// What the hosts run.
    pub release: Release,
    /// The hosts. None of them is contacted.
    pub inventory: Inventory,
    /// The workflows that were run on them before, in order.
    pub after: Vec<Subject>,
    /// What happened to them then.
    pub accidents: Vec<Accident>,
    /// Answers to commands that the simulation doesn't know; the first that fits.
    pub commands: Vec<CannedReply>,
    /// Answers to queries.
    pub queries: Vec<CannedSql>,
}

impl Subject {
    pub(super) fn plan(&self, crew: &Crew) -> Result<Plan, RehearsalError> {
        let request = Request {
            bundle: self.bundle.clone(),
            inventory: crew.inventory.clone(),
            inputs: Inputs { secrets: NewSecrets::OfNames, ..self.inputs.clone() },
            filter: self.filter.clone(),
        };
        let key = MemoryStore::new().fingerprint_key().unwrap_or_default();
        Ok(Plan::new(request, crew.engine.registry(), key)?)
    }
}

impl Stage {
    /// The hosts as they are when the rehearsal begins.
    pub(super) fn build(&self, crew: &Crew) -> Result<WorldState, RehearsalError> {
        let hosts = self.inventory.hosts.values().map(|host| (host.name.clone(), Some(host.address())));
        let mut state = WorldState::bare(self.release, hosts);
        state.settings.strict = true;
        state.replies.clone_from(&self.commands);
        state.sql.clone_from(&self.queries);
        let world = SimWorld::in_memory(state);
        for subject in &self.after {
            let plan = subject.plan(crew)?;
            let workflow = plan.workflow.name.value.clone();
            let ended = crew.start(&world, Box::new(MemoryStore::new()), plan);
            no_answer(&workflow, &world)?;
            match ended {
                Ended::With { outcome: Outcome::Succeeded, .. } => {}
                Ended::With { failures, .. } => {
                    let ended = "a task failed".to_owned();
                    return Err(RehearsalError::Undisturbed { workflow, ended, failures });
                }
                other => {
                    let ended = other.words();
                    return Err(RehearsalError::Undisturbed { workflow, ended, failures: Vec::new() });
                }
            }
        }
        for accident in &self.accidents {
            self.happen(&world, accident)?;
        }
        let mut state = world.state().map_err(|e| accident_failed(&e))?;
        state.effects.clear();
        for host in state.hosts.values_mut() {
            host.attempts.clear();
            host.lock = None;
        }
        Ok(state)
    }

    fn happen(&self, world: &SimWorld, accident: &Accident) -> Result<(), RehearsalError> {
        let hosts = match accident {
            Accident::Initdb { hosts, .. }
            | Accident::Stopped { hosts, .. }
            | Accident::Replaced { hosts } => hosts,
            Accident::EditedConfig { patch } => {
                return world.edit_config(patch).map_err(|e| accident_failed(&e));
            }
        };
        let selected = self.inventory.select(hosts).map_err(|error| {
            let diagnostic = Diagnostic::general(Code::HOSTS, format!("an accident on `{hosts}`: {error}"));
            RehearsalError::Refused(diagnostic.into())
        })?;
        for host in selected {
            let happened = match accident {
                Accident::Initdb { data_dir, .. } => world.initdb(&host, data_dir),
                Accident::Stopped { unit, .. } => world.stop(&host, unit),
                Accident::Replaced { .. } => world.replace(&host),
                Accident::EditedConfig { .. } => Ok(()),
            };
            happened.map_err(|e| accident_failed(&e))?;
        }
        Ok(())
    }
}

fn accident_failed(error: &dyn std::fmt::Display) -> RehearsalError {
    RehearsalError::File { message: format!("an accident can't happen: {error}"), hint: None }
}

/// Refuses where the world was asked what it has no answer to.
pub(super) fn no_answer(workflow: &str, world: &SimWorld) -> Result<(), RehearsalError> {
    let mut unknown = world.unknown();
    // Once is enough, whichever the host.
    unknown.sort_by(|a, b| (a.kind, &a.text, &a.host).cmp(&(b.kind, &b.text, &b.host)));
    unknown.dedup_by(|a, b| a.kind == b.kind && a.text == b.text);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(RehearsalError::NoAnswer { workflow: workflow.to_owned(), unknown })
}
