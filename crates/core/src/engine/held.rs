//! Holds a run to what a saved plan showed: a task whose change is another one at its turn fails before
//! anything is changed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::executor::{Env, Prepared};
use crate::plan::{ShownTask, without_time};
use crate::run::NodeId;
use crate::step::{Change, StepError};

/// Which tasks have begun: from then on what is found of them is the run's own doing.
pub(super) struct HeldTo(Mutex<HashSet<NodeId>>);

impl HeldTo {
    /// `begun`: tasks with an intent of an earlier process.
    pub(super) fn new(begun: impl IntoIterator<Item = NodeId>) -> Self {
        Self(Mutex::new(begun.into_iter().collect()))
    }

    /// An attempt has leave to apply.
    pub(super) fn begun(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    /// Why hosts must not be chosen so; none where they are those that were shown.
    pub(super) fn forbids_choice(env: &Env, node: NodeId, hosts: &[String]) -> Option<StepError> {
        let task = &env.task(node)?.name;
        let shown = env.plan.definition.shown.as_ref()?.tasks.get(task)?;
        shown.forbids(task, &ShownTask::Hosts { hosts: hosts.to_vec() })
    }

    /// Why a change must not be made; none where it is what was shown.
    pub(super) fn forbids(
        &self,
        env: &Env,
        node: NodeId,
        prepared: &Prepared,
        change: &Change,
    ) -> Option<StepError> {
        let shown = env.plan.definition.shown.as_ref()?;
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&node) {
            return None;
        }
        let task = &env.task(node)?.name;
        let mut invariant = prepared.step.invariant(change);
        env.plan.redactor.value(&mut invariant);
        let now = ShownTask::Change {
            summary: env.plan.redactor.text(&change.summary).into_owned(),
            diff: change.diff.as_deref().map(|diff| env.plan.redactor.text(diff).into_owned()),
            invariant: without_time(invariant, env.started),
        };
        shown.tasks.get(task).unwrap_or(&ShownTask::Ok).forbids(task, &now)
    }
}
