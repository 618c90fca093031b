//! Taking a run back: what would be taken back, whether that may begin, and its beginning. How it is
//! then driven is the scheduler's business.

use std::collections::{HashMap, HashSet};

use super::session::Session;
use super::{EngineError, RunHandle};
use crate::plan::Plan;
use crate::run::{Event, NodeId, Outcome, Record, RunState, RunStatus, Shape, TaskName, TaskState};
use crate::step::{Change, Undoability};

/// What is left as it is while the rest is taken back.
#[derive(Debug, Clone, Default)]
pub struct UndoOptions {
    /// These tasks, by name.
    pub keep: Vec<String>,
    /// All tasks on these hosts, by their names in the inventory. Such a host is neither reached nor locked, and
    /// keeps the run's lock where it has it.
    pub keep_hosts: Vec<String>,
    /// All that can't be taken back.
    pub keep_impossible: bool,
}

/// What an undo does with a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoAction {
    /// It is taken back.
    TakeBack,
    /// It stays as it is; the text says why.
    Keep(String),
    /// It can't be taken back; the text says why. While there is one, no undo begins.
    Impossible(String),
}

/// A task that an undo is about.
#[derive(Debug, Clone)]
pub struct UndoTask {
    /// The task.
    pub name: TaskName,
    /// Where it stands.
    pub state: TaskState,
    /// What is done with it.
    pub action: UndoAction,
    /// What was changed, in a line.
    pub summary: String,
    /// What stays though it is taken back, as a fragment.
    pub leaves: Option<&'static str>,
}

/// What the scheduler needs for the way back.
pub(super) struct Undo {
    /// What each task's first attempt recorded: the difference to how the run found things.
    pub(super) changes: HashMap<NodeId, Change>,
    pub(super) keep: HashSet<NodeId>,
    pub(super) keep_hosts: HashSet<String>,
    pub(super) keep_impossible: bool,
    /// How often this process has tried to take a task back.
    pub(super) tries: HashMap<NodeId, u32>,
    /// Something failed or is unknown: nothing new is begun.
    pub(super) stopped: bool,
}

impl Undo {
    pub(super) fn new(records: &[Record], shape: &Shape, options: &UndoOptions) -> Self {
        let mut changes = HashMap::new();
        for Record { event, .. } in records {
            if let Event::TaskIntended { task, change, .. } = event
                && let Some(node) = shape.node(task)
            {
                changes.entry(node).or_insert_with(|| change.clone());
            }
        }
        let keep = options.keep.iter().filter_map(|name| shape.node(&TaskName::from_text(name))).collect();
        Self {
            changes,
            keep,
            keep_hosts: options.keep_hosts.iter().cloned().collect(),
            keep_impossible: options.keep_impossible,
            tries: HashMap::new(),
            stopped: false,
        }
    }

    /// What is done with a task that was begun.
    pub(super) fn action(&self, plan: &Plan, state: &RunState, node: NodeId) -> UndoAction {
        let Some(task) = plan.node(node).task() else {
            return UndoAction::Keep("it is no task".to_owned());
        };
        if self.keep.contains(&node) {
            return UndoAction::Keep("as you say".to_owned());
        }
        if task.host.as_ref().is_some_and(|host| self.keep_hosts.contains(&host.name)) {
            return UndoAction::Keep("its host is left as it is".to_owned());
        }
        // A failure is no reason to leave alone what stands before it.
        let failed = matches!(state.task(node), TaskState::Failed | TaskState::Ready | TaskState::Waiting);
        match plan.undoability(task) {
            Undoability::Possible => UndoAction::TakeBack,
            Undoability::Nothing => UndoAction::Keep("it changed nothing".to_owned()),
            Undoability::Kept => UndoAction::Keep("as the workflow says".to_owned()),
            Undoability::Impossible(why) if failed => {
                UndoAction::Keep(format!("it failed, and what it may have left can't be taken back: {why}"))
            }
            Undoability::Impossible(why) if self.keep_impossible => {
                UndoAction::Keep(format!("it can't be taken back: {why}"))
            }
            Undoability::Impossible(why) => UndoAction::Impossible(why),
        }
    }
}

/// Whether something of a task may be there.
pub(super) fn is_left(state: &RunState, node: NodeId) -> bool {
    state.begun(node) && !matches!(state.task(node), TaskState::Undone | TaskState::Kept)
}

/// The pivot that was begun first in the plan's order, where there is one.
pub(super) fn begun_pivot(plan: &Plan, state: &RunState) -> Option<TaskName> {
    plan.order().into_iter().find_map(|index| {
        let task = plan.node(index.index() as NodeId).task()?;
        (state.begun(index.index() as NodeId) && plan.is_pivot(task)).then(|| task.name.clone())
    })
}

/// The tasks that are left, each before what it needs.
pub(super) fn left_in_order(plan: &Plan, state: &RunState) -> Vec<NodeId> {
    // The run's own DAG: hosts that were chosen on the way have their order in it.
    let mut order = plan.order_of(state.shape());
    order.reverse();
    order.retain(|&node| is_left(state, node));
    order
}

impl Session {
    /// What [`Session::undo`] would do, in the order in which it would: each task before what it needs.
    /// Reads the store; changes nothing.
    pub fn to_undo(&self, options: &UndoOptions) -> Result<Vec<UndoTask>, EngineError> {
        let undo = self.prepare_undo(options)?;
        let state = self.state();
        let tasks = left_in_order(self.plan(), state).into_iter().filter_map(|node| {
            let action = undo.action(self.plan(), state, node);
            let taken_back = action == UndoAction::TakeBack;
            let task = self.plan().node(node).task().filter(|_| taken_back);
            Some(UndoTask {
                name: state.shape().name(node)?.clone(),
                state: state.task(node),
                action,
                leaves: task.and_then(|task| self.plan().undo_leaves(task)),
                summary: undo.changes.get(&node).map(|change| change.summary.clone()).unwrap_or_default(),
            })
        });
        Ok(tasks.collect())
    }

    /// Takes back what the run has done, in the reverse order of its steps, and nothing that it only found.
    /// What earlier processes left open is settled first. A failure stops it; the next undo goes on.
    ///
    /// # Errors
    /// Before anything is changed: nothing to take back, a pivot that was begun, tasks that can't be taken
    /// back and aren't kept, an unknown task to keep.
    pub fn undo(mut self, options: &UndoOptions) -> Result<RunHandle, EngineError> {
        self.may_undo(options)?;
        self.undo = Some(self.prepare_undo(options)?);
        let owner = self.engine.options.owner.clone();
        let begin = Event::UndoStarted { owner, epoch: self.journal.state.epoch() + 1 };
        let mut free = Vec::new();
        self.journal.commit(vec![begin], &mut free)?;
        self.ready = free;
        Ok(self.work())
    }

    /// Whether [`Session::undo`] would begin.
    ///
    /// # Errors
    /// Those of [`Session::undo`].
    pub fn may_undo(&self, options: &UndoOptions) -> Result<(), EngineError> {
        let run = self.journal.run.clone();
        self.refuse_unknown_names(&options.keep)?;
        self.refuse_unknown_hosts(&options.keep_hosts)?;
        if self.journal.state.status() == RunStatus::Ended(Outcome::Undone) {
            return Err(EngineError::Ended { run, outcome: Outcome::Undone });
        }
        if let Some(task) = begun_pivot(self.plan(), self.state()) {
            return Err(EngineError::Pivoted { run, task });
        }
        let tasks = self.to_undo(options)?;
        // One that was killed right before its end is brought to it.
        if tasks.is_empty() && !self.state().turned_back() {
            return Err(EngineError::NothingToUndo { run });
        }
        let impossible: Vec<(TaskName, String)> = tasks
            .into_iter()
            .filter_map(|task| match task.action {
                UndoAction::Impossible(why) => Some((task.name, why)),
                _ => None,
            })
            .collect();
        if impossible.is_empty() { Ok(()) } else { Err(EngineError::NotUndoable { run, tasks: impossible }) }
    }

    pub(super) fn prepare_undo(&self, options: &UndoOptions) -> Result<Undo, EngineError> {
        let records = self.journal.store.events(&self.journal.run)?;
        Ok(Undo::new(&records, self.state().shape(), options))
    }

    fn refuse_unknown_names(&self, names: &[String]) -> Result<(), EngineError> {
        let shape = self.state().shape();
        match names.iter().find(|name| shape.node(&TaskName::from_text(name)).is_none()) {
            Some(name) => Err(EngineError::NoTask { run: self.journal.run.clone(), task: name.clone() }),
            None => Ok(()),
        }
    }

    fn refuse_unknown_hosts(&self, names: &[String]) -> Result<(), EngineError> {
        let hosts = self.plan().hosts();
        match names.iter().find(|name| !hosts.iter().any(|host| host.name == **name)) {
            Some(name) => Err(EngineError::NoHost {
                run: self.journal.run.clone(),
                host: name.clone(),
                hosts: hosts.iter().map(|host| host.name.clone()).collect(),
            }),
            None => Ok(()),
        }
    }
}
