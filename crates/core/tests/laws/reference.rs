//! The rules of a run once more, as plainly as can be: every question is answered by looking at all
//! that has happened. Slow, without counters, and so right where the state machine may not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow_core::run::{Event, Identity, NodeId, Outcome, RunStatus, Shape, TaskState};

use crate::shape::{needs, tasks};

/// A run as a reader of its events would tell it.
pub(crate) struct Reference {
    shape: Arc<Shape>,
    pub(crate) status: RunStatus,
    pub(crate) epoch: u64,
    pub(crate) hosts: BTreeMap<String, Identity>,
    /// Where the tasks stand of which something was heard.
    heard: BTreeMap<NodeId, TaskState>,
    attempts: BTreeMap<NodeId, u32>,
    /// What has passed at some time, even if it was taken back later.
    passed: BTreeSet<NodeId>,
}

impl Reference {
    pub(crate) fn new(shape: Arc<Shape>) -> Self {
        Self {
            shape,
            status: RunStatus::New,
            epoch: 0,
            hosts: BTreeMap::new(),
            heard: BTreeMap::new(),
            attempts: BTreeMap::new(),
            passed: BTreeSet::new(),
        }
    }

    pub(crate) fn state(&self, node: NodeId) -> TaskState {
        let needs_passed = needs(&self.shape, node).is_subset(&self.passed);
        match (self.shape.name(node), self.heard.get(&node)) {
            (Some(_), Some(state)) => *state,
            (Some(_), None) if needs_passed => TaskState::Ready,
            (None, _) if needs_passed => TaskState::Done,
            _ => TaskState::Waiting,
        }
    }

    pub(crate) fn attempt(&self, node: NodeId) -> u32 {
        self.attempts.get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn all_passed(&self) -> bool {
        tasks(&self.shape).all(|node| self.state(node).passes())
    }

    pub(crate) fn ready(&self) -> BTreeSet<NodeId> {
        tasks(&self.shape).filter(|node| self.state(*node) == TaskState::Ready).collect()
    }

    /// Whether it may happen now.
    pub(crate) fn allows(&self, event: &Event) -> bool {
        use TaskState::{Asked, Done, Intended, Ready, UndoFailed, Undoing, Unknown};
        let open = self.status == RunStatus::Open;
        let ended = matches!(self.status, RunStatus::Ended(_));
        let for_good = matches!(self.status, RunStatus::Ended(Outcome::Succeeded | Outcome::Undone));
        let Some(task) = event.task() else {
            return match event {
                Event::RunStarted { epoch, .. } => self.status == RunStatus::New && *epoch == 1,
                Event::RunResumed { epoch, .. } => (open || ended) && !for_good && *epoch == self.epoch + 1,
                Event::HostMet { host, identity } => {
                    open && self.hosts.get(host).is_none_or(|known| known == identity)
                }
                Event::RunEnded { outcome: Outcome::Succeeded } => open && self.all_passed(),
                _ => open,
            };
        };
        let Some(node) = self.shape.node(task).filter(|_| open) else { return false };
        let (state, last) = (self.state(node), self.attempt(node));
        let begun = |attempt: &u32| matches!(state, Intended | Unknown) && *attempt == last;
        match event {
            Event::TaskSkipped { .. } | Event::TaskSatisfied { .. } => state == Ready,
            Event::TaskIntended { attempt, .. } => state == Ready && *attempt == last + 1,
            Event::TaskAsked { attempt, .. } => state == Ready && *attempt == last + 1,
            Event::TaskApproved { attempt, .. } | Event::TaskRejected { attempt, .. } => {
                state == Asked && *attempt == last
            }
            Event::TaskFailed { attempt, .. } if state == Asked => *attempt == last,
            Event::TaskFailed { attempt, .. } => begun(attempt) || (state == Ready && *attempt == last + 1),
            Event::TaskDone { attempt, .. }
            | Event::TaskUnknown { attempt, .. }
            | Event::TaskNotDone { attempt, .. } => begun(attempt),
            Event::UndoIntended { .. } => matches!(state, Done | Undoing | UndoFailed),
            _ => state == Undoing,
        }
    }

    /// Takes in an event that is allowed. Gives the tasks that it makes ready.
    pub(crate) fn take(&mut self, event: &Event) -> BTreeSet<NodeId> {
        let before = self.ready();
        let mut again = BTreeSet::new();
        match event {
            Event::RunStarted { epoch, .. } => (self.status, self.epoch) = (RunStatus::Open, *epoch),
            Event::RunResumed { epoch, .. } => {
                (self.status, self.epoch) = (RunStatus::Open, *epoch);
                // What had failed is as if it was never heard of.
                self.heard.retain(|_, state| *state != TaskState::Failed);
            }
            Event::HostMet { host, identity } => {
                self.hosts.insert(host.clone(), identity.clone());
            }
            Event::RunEnded { outcome } => self.status = RunStatus::Ended(*outcome),
            _ => {}
        }
        if let Some(node) = event.task().and_then(|task| self.shape.node(task)) {
            let (state, attempt) = told(event);
            if let Some(attempt) = attempt {
                self.attempts.insert(node, attempt);
            }
            if state.passes() {
                self.passed.insert(node);
            }
            if state == TaskState::Ready {
                again.insert(node);
            }
            self.heard.insert(node, state);
        }
        &(&self.ready() - &before) | &again
    }
}

/// Where a task stands after an event, and the attempt that the event tells of.
fn told(event: &Event) -> (TaskState, Option<u32>) {
    match event {
        Event::TaskSkipped { .. } => (TaskState::Skipped, None),
        Event::TaskSatisfied { .. } => (TaskState::Satisfied, None),
        Event::TaskIntended { attempt, .. } => (TaskState::Intended, Some(*attempt)),
        Event::TaskAsked { attempt, .. } => (TaskState::Asked, Some(*attempt)),
        Event::TaskApproved { .. } => (TaskState::Satisfied, None),
        Event::TaskRejected { .. } => (TaskState::Failed, None),
        Event::TaskDone { .. } => (TaskState::Done, None),
        Event::TaskFailed { attempt, retry_in_ms: None, .. } => (TaskState::Failed, Some(*attempt)),
        Event::TaskFailed { attempt, .. } => (TaskState::Ready, Some(*attempt)),
        Event::TaskUnknown { .. } => (TaskState::Unknown, None),
        Event::TaskNotDone { .. } => (TaskState::Ready, None),
        Event::UndoIntended { .. } => (TaskState::Undoing, None),
        Event::TaskUndone { .. } => (TaskState::Undone, None),
        _ => (TaskState::UndoFailed, None),
    }
}
