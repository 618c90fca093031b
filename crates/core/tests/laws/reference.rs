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
    /// Of these an attempt was begun at some time.
    begun: BTreeSet<NodeId>,
    /// An undo was started, and no resume since.
    pub(crate) undoing: bool,
    /// Something was taken back or kept, or it was tried.
    pub(crate) turned: bool,
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
            begun: BTreeSet::new(),
            undoing: false,
            turned: false,
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

    /// Something of the task may be there.
    fn is_left(&self, node: NodeId) -> bool {
        self.begun.contains(&node) && !matches!(self.state(node), TaskState::Undone | TaskState::Kept)
    }

    /// It may be taken back next: nothing that needs it, by whichever way, is left or at work.
    pub(crate) fn can_undo(&self, node: NodeId) -> bool {
        use TaskState::{Intended, UndoUnknown, Undoing, Unknown};
        let at_work = matches!(self.state(node), Intended | Unknown | Undoing | UndoUnknown);
        let mut behind: Vec<NodeId> = self.shape.after(node).to_vec();
        while let Some(next) = behind.pop() {
            if self.is_left(next) {
                return false;
            }
            behind.extend(self.shape.after(next));
        }
        self.undoing && self.is_left(node) && !at_work
    }

    pub(crate) fn all_undone(&self) -> bool {
        self.undoing && tasks(&self.shape).all(|node| !self.is_left(node))
    }

    /// What is to be started next, on whichever way.
    pub(crate) fn ready(&self) -> BTreeSet<NodeId> {
        if self.undoing {
            return tasks(&self.shape).filter(|node| self.can_undo(*node)).collect();
        }
        tasks(&self.shape).filter(|node| self.state(*node) == TaskState::Ready).collect()
    }

    /// Whether it may happen now.
    pub(crate) fn allows(&self, event: &Event) -> bool {
        use TaskState::{Asked, Intended, Ready, UndoUnknown, Undoing, Unknown};
        let open = self.status == RunStatus::Open;
        let ended = matches!(self.status, RunStatus::Ended(_));
        let for_good = matches!(self.status, RunStatus::Ended(Outcome::Succeeded | Outcome::Undone));
        let Some(task) = event.task() else {
            return match event {
                Event::RunStarted { epoch, .. } => self.status == RunStatus::New && *epoch == 1,
                Event::RunResumed { epoch, .. } => {
                    (open || ended) && !for_good && !self.turned && *epoch == self.epoch + 1
                }
                Event::UndoStarted { epoch, .. } => {
                    let undone = self.status == RunStatus::Ended(Outcome::Undone);
                    let next = *epoch == self.epoch + 1 || (open && *epoch == self.epoch);
                    (open || ended) && !undone && next
                }
                Event::HostMet { host, identity } => {
                    open && self.hosts.get(host).is_none_or(|known| known == identity)
                }
                Event::RunEnded { outcome: Outcome::Succeeded, .. } => {
                    open && self.all_passed() && !self.undoing
                }
                Event::RunEnded { outcome: Outcome::Undone, .. } => open && self.all_undone(),
                _ => open,
            };
        };
        let Some(node) = self.shape.node(task).filter(|_| open) else { return false };
        let (state, last) = (self.state(node), self.attempt(node));
        let begun = |attempt: &u32| matches!(state, Intended | Unknown) && *attempt == last;
        let ready = state == Ready && !self.undoing;
        let asked = |attempt: &u32| state == Asked && !self.undoing && *attempt == last;
        let undo_begun = |attempt: &u32| matches!(state, Undoing | UndoUnknown) && *attempt == last;
        match event {
            Event::TaskSkipped { .. } | Event::TaskSatisfied { .. } => ready,
            Event::TaskIntended { attempt, .. } => ready && *attempt == last + 1,
            Event::TaskAsked { attempt, .. } => ready && *attempt == last + 1,
            Event::TaskApproved { attempt, .. } | Event::TaskRejected { attempt, .. } => asked(attempt),
            Event::TaskFailed { attempt, .. } => {
                begun(attempt) || asked(attempt) || (ready && *attempt == last + 1)
            }
            Event::TaskDone { attempt, .. }
            | Event::TaskUnknown { attempt, .. }
            | Event::TaskNotDone { attempt, .. } => begun(attempt),
            Event::UndoIntended { attempt, .. } => self.can_undo(node) && *attempt == last + 1,
            Event::UndoFailed { attempt, .. } => {
                undo_begun(attempt) || (self.can_undo(node) && *attempt == last + 1)
            }
            Event::TaskUndone { attempt, .. }
            | Event::UndoUnknown { attempt, .. }
            | Event::UndoNotDone { attempt, .. } => undo_begun(attempt),
            _ => self.can_undo(node),
        }
    }

    /// Takes in an event that is allowed. Gives the tasks that it makes ready.
    pub(crate) fn take(&mut self, event: &Event) -> BTreeSet<NodeId> {
        let mut before = self.ready();
        let mut again = BTreeSet::new();
        match event {
            Event::RunStarted { epoch, .. } => (self.status, self.epoch) = (RunStatus::Open, *epoch),
            Event::RunResumed { epoch, .. } => {
                (self.status, self.epoch) = (RunStatus::Open, *epoch);
                // What the way back made ready was told to nobody; whoever resumes looks for it.
                if std::mem::take(&mut self.undoing) {
                    before = self.ready();
                }
                // What had failed is as if it was never heard of.
                self.heard.retain(|_, state| *state != TaskState::Failed);
            }
            Event::UndoStarted { epoch, .. } => {
                (self.status, self.epoch, self.undoing) = (RunStatus::Open, *epoch, true);
                before.clear();
            }
            Event::HostMet { host, identity } => {
                self.hosts.insert(host.clone(), identity.clone());
            }
            Event::RunEnded { outcome, .. } => self.status = RunStatus::Ended(*outcome),
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
            if state == TaskState::Ready && !self.undoing {
                again.insert(node);
            }
            self.turned |= event.is_of_undo();
            if let Event::TaskIntended { .. } = event {
                self.begun.insert(node);
            }
            self.heard.insert(node, state);
            // It can be taken back all along, but is told again only where it is made again at once.
            if let Event::UndoFailed { retry_in_ms, .. } = event {
                match retry_in_ms {
                    Some(_) => drop(before.remove(&node)),
                    None => drop(before.insert(node)),
                }
            }
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
        Event::UndoIntended { attempt, .. } => (TaskState::Undoing, Some(*attempt)),
        Event::TaskUndone { .. } => (TaskState::Undone, None),
        Event::UndoFailed { attempt, .. } => (TaskState::UndoFailed, Some(*attempt)),
        Event::UndoUnknown { .. } => (TaskState::UndoUnknown, None),
        Event::UndoNotDone { .. } => (TaskState::UndoFailed, None),
        _ => (TaskState::Kept, None),
    }
}
