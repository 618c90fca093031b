//! The scheduler on the way back: whether a failed run turns round by itself, and what is begun when.

use std::sync::Arc;
use std::time::Duration;

use super::asking::Asking;
use super::scheduler::{Batch, Scheduler, Work, poll};
use super::taking_back::{self, Job};
use super::undo::{Undo, UndoOptions, begun_pivot, left_in_order};
use super::{EngineError, Notice, UndoAction};
use crate::run::{Event, NodeId, Outcome, Settler, TaskState};
use crate::step::StepError;
use crate::workflow::OnFailure;

use super::executor::End;

impl Scheduler {
    /// Turns round where the run has failed for good and its workflow says `unwind`. False where it
    /// stops as it is.
    pub(super) fn turn_round(&mut self) -> Result<bool, EngineError> {
        let plan = Arc::clone(&self.env.plan);
        let unwinds = plan.workflow.on_failure.as_ref().is_some_and(|what| what.value == OnFailure::Unwind);
        if !unwinds || self.undo.is_some() || self.outcome() != Outcome::Failed {
            return Ok(false);
        }
        let state = &self.journal.state;
        let left = left_in_order(&plan, state);
        if left.is_empty() {
            return Ok(false);
        }
        if let Some(pivot) = begun_pivot(&plan, state) {
            self.stay(format!("{pivot} was begun, the point of no return: the run can only be resumed"));
            return Ok(false);
        }
        let records = self.journal.store.events(&self.journal.run)?;
        let undo = Undo::new(&records, state.shape(), &UndoOptions::default());
        let impossible = left.iter().find_map(|&node| match undo.action(&plan, state, node) {
            UndoAction::Impossible(why) => Some((state.shape().name(node)?.clone(), why)),
            _ => None,
        });
        if let Some((task, why)) = impossible {
            self.stay(format!("{task} can't be taken back: {why}"));
            return Ok(false);
        }
        let begin = Event::UndoStarted { owner: self.owner.clone(), epoch: state.epoch() };
        let mut free = Vec::new();
        self.journal.commit(vec![begin], &mut free)?;
        // What still waits to be started, tried again or approved is passed over.
        self.asking = Asking::default();
        self.sleeping.clear();
        self.delays.clear();
        self.undo = Some(undo);
        free.into_iter().for_each(|node| self.enqueue(node));
        Ok(true)
    }

    fn stay(&mut self, why: String) {
        let text = format!("what was done is not taken back: {why}");
        self.env.notices.hold(Notice::Note(text));
        self.not_unwound = Some(why);
    }

    pub(super) fn start_undo(&mut self, node: NodeId) {
        let job = self.job(node, self.journal.state.attempt(node) + 1);
        let Some(job) = job.filter(|_| self.journal.state.can_undo(node)) else {
            return self.queue.release(node);
        };
        let work = taking_back::take_back(Arc::clone(&self.env), job, self.sender.clone());
        self.working.insert(node, poll(Box::pin(work)));
    }

    pub(super) fn settle_undo(&mut self, node: NodeId) {
        let Some(job) = self.job(node, self.journal.state.attempt(node)) else { return };
        let work = taking_back::settle(Arc::clone(&self.env), job, self.sender.clone());
        self.working.insert(node, Work::Spawned(self.runtime.spawn(work).abort_handle()));
    }

    fn job(&self, node: NodeId, attempt: u32) -> Option<Job> {
        let undo = self.undo.as_ref()?;
        Some(Job {
            node,
            attempt,
            action: undo.action(&self.env.plan, &self.journal.state, node),
            change: undo.changes.get(&node).cloned().unwrap_or_default(),
        })
    }

    /// Takes in how an attempt to take a task back ended.
    pub(super) fn take_undo_end(&mut self, node: NodeId, attempt: u32, end: End, batch: &mut Batch) {
        let task = self.name(node);
        let event = match end {
            End::Kept(why) => Event::TaskKept { task, why },
            End::Undone => Event::TaskUndone { task, attempt, by: None },
            End::UndoNotDone => Event::UndoNotDone { task, attempt, by: Settler::Step },
            End::UndoUnknown(error) => {
                self.stop_undo(node, &error);
                Event::UndoUnknown { task, attempt, error }
            }
            // An undo can be called again from wherever it was; a lost answer is worth one more try.
            End::UndoLost(error) => self.undo_failed(node, attempt, error, 1),
            End::UndoFailed(error) => self.undo_failed(node, attempt, error, 0),
            _ => return,
        };
        batch.events.push(event);
    }

    fn undo_failed(&mut self, node: NodeId, attempt: u32, error: StepError, extra: u32) -> Event {
        let retry = self.env.task(node).map(|task| self.env.plan.steps[task.step].def.retry);
        let tries = self.undo.as_mut().map_or(0, |undo| {
            let tries = undo.tries.entry(node).or_default();
            *tries += 1;
            *tries
        });
        let again =
            retry.filter(|retry| !error.permanent && self.may_start() && tries <= retry.retries.max(extra));
        let wait: Option<Duration> = again.map(|retry| retry.wait(tries));
        match wait {
            Some(wait) => drop(self.delays.insert(node, wait)),
            None => self.stop_undo(node, &error),
        }
        let retry_in_ms = wait.map(|wait| wait.as_millis() as u64);
        Event::UndoFailed { task: self.name(node), attempt, error, retry_in_ms }
    }

    /// Begins nothing new from here on.
    fn stop_undo(&mut self, node: NodeId, error: &StepError) {
        self.errors.insert(node, error.clone());
        if let Some(undo) = &mut self.undo {
            undo.stopped = true;
        }
    }

    /// A task that an earlier process left open is settled, or can't be: then nothing is taken back.
    pub(super) fn settled(&mut self, end: &End) {
        if let Some(undo) = &mut self.undo {
            undo.stopped |= matches!(end, End::Unknown(_));
        }
    }

    pub(super) fn undo_outcome(&self) -> Outcome {
        let state = &self.journal.state;
        let any = |wanted| state.in_state(wanted).next().is_some();
        if state.all_undone() {
            Outcome::Undone
        } else if any(TaskState::Unknown) || any(TaskState::UndoUnknown) {
            Outcome::Undecided
        } else if self.control.asked().is_some() {
            Outcome::Interrupted
        } else {
            Outcome::Failed
        }
    }

    /// An undo asks for leave.
    pub(super) fn take_undoing(
        &self,
        node: NodeId,
        attempt: u32,
        leave: tokio::sync::oneshot::Sender<()>,
        batch: &mut Batch,
    ) {
        if self.may_start() {
            batch.events.push(Event::UndoIntended { task: self.name(node), attempt });
            batch.leaves.push((node, leave));
        }
    }
}
