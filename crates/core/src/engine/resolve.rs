//! What became of an attempt whose result isn't recorded: the evidence, and a person's word where the
//! step itself can't tell. Nothing is started by it; the run is gone on with later.

use std::sync::Arc;

use super::ahead::Ahead;
use super::executor::{Env, Preparation, Prepared, Unreachable};
use super::session::OPEN;
use super::{EngineError, Session, UndoOptions, Verdict};
use crate::run::{Event, NodeId, Outcome, Settler, TaskName, TaskState};
use crate::step::{Change, Output, Resolved, StepError};

/// What is known of an attempt whose result isn't recorded.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The task.
    pub task: TaskName,
    /// The attempt in question.
    pub attempt: u32,
    /// What it was about to change, as it was recorded before.
    pub change: Change,
    /// Whether a process of it is alive on its host.
    pub alive: Result<bool, StepError>,
    /// What the step finds now; none where that wasn't asked, since the attempt is alive or its host can't
    /// be asked.
    pub found: Option<Result<Resolved, StepError>>,
    /// The attempt was to take the task back.
    pub of_undo: bool,
    /// The run is being taken back.
    pub undoing: bool,
}

impl Evidence {
    /// Why a person's word isn't taken, and the next action; none where it is.
    pub fn refusal(&self) -> Option<StepError> {
        let refused = |why: String, hint: &str| Some(StepError::permanent(why).with_hint(hint));
        let go_on = if self.undoing { "`flow undo`" } else { "`flow resume`" };
        let done = if self.of_undo { "taken back" } else { "done" };
        match (&self.alive, &self.found) {
            (Ok(true), _) | (_, Some(Ok(Resolved::Running))) => refused(
                "its attempt is still at work".to_owned(),
                &format!("wait for its end, or end it on the host; {go_on} waits for it too"),
            ),
            (Err(error), _) | (_, Some(Err(error))) => refused(
                format!("what became of it can't be looked at: {error}"),
                "mend that first: nobody's word is taken while the attempt may be alive",
            ),
            (_, Some(Ok(Resolved::Done(_)))) => {
                refused(format!("the step can tell: it was {done}"), &format!("{go_on} goes on from there"))
            }
            (_, Some(Ok(Resolved::NotDone))) if self.of_undo => refused(
                "an undo can be made again, also where it was done: nobody's word is needed".to_owned(),
                "`flow undo` goes on from there",
            ),
            (_, Some(Ok(Resolved::NotDone))) => {
                let hint =
                    if self.undoing { "`flow undo` goes on from there" } else { "`flow resume` does it" };
                refused(format!("the step can tell: it was not {done}"), hint)
            }
            (Ok(false), Some(Ok(Resolved::Unknown(_))) | None) => None,
        }
    }
}

impl Session {
    /// What is known of a task whose outcome isn't.
    pub async fn evidence(&self, task: &str) -> Result<Evidence, EngineError> {
        let node = self.unsettled(task)?;
        let attempt = self.journal.state.attempt(node);
        let of_undo = self.is_undone(node);
        // What is taken back is the difference to how the run found things: its first attempt's change.
        let change = match of_undo {
            true => self.prepare_undo(&UndoOptions::default())?.changes.remove(&node),
            false => self.changes.get(&node).cloned(),
        };
        let change = change.unwrap_or_default();
        let env = self.looking();
        let prepared = match of_undo {
            true => env.prepare_unconditionally(node, attempt).map(Preparation::Go),
            false => env.prepare(node, attempt),
        };
        let looked = match prepared {
            Ok(Preparation::Go(prepared)) => self.look(&env, node, &prepared, &change).await,
            Ok(Preparation::Skip(why)) => {
                let why = format!("it was begun, but its condition is false now: {why}");
                (Ok(false), Some(Ok(Resolved::Unknown(why))))
            }
            Err(error) => (Err(error), None),
        };
        if let Some(fleet) = &self.engine.fleet {
            fleet.close().await;
        }
        let (alive, found) = looked;
        let undoing = self.journal.state.undoing();
        Ok(Evidence { task: TaskName::from_text(task), attempt, change, alive, found, of_undo, undoing })
    }

    /// Records what a person says became of a task, without going on with the run. It counts only where
    /// nothing of the attempt is alive and the step can't tell: what can be found out goes before what anyone
    /// says.
    pub async fn settle(&mut self, task: &str, verdict: Verdict) -> Result<Evidence, EngineError> {
        let evidence = self.evidence(task).await?;
        if let Some(error) = evidence.refusal() {
            return Err(EngineError::NotSettled { task: evidence.task, error });
        }
        let (task, attempt) = (evidence.task.clone(), evidence.attempt);
        let owner = self.engine.options.owner.clone();
        let by = Settler::Operator(owner.clone());
        let settled = match (verdict, evidence.of_undo) {
            (Verdict::Done, false) => {
                Event::TaskDone { task, attempt, output: Output::empty(), by: Some(by) }
            }
            (Verdict::NotDone, false) => Event::TaskNotDone { task, attempt, by },
            (Verdict::Done, true) => Event::TaskUndone { task, attempt, by: Some(by) },
            (Verdict::NotDone, true) => Event::UndoNotDone { task, attempt, by },
        };
        let state = &self.journal.state;
        let others = state.in_state(TaskState::Unknown).chain(state.in_state(TaskState::UndoUnknown));
        let unknown = others.filter(|node| self.name(*node) != Some(&evidence.task)).count();
        let outcome = if unknown > 0 { Outcome::Undecided } else { Outcome::Interrupted };
        let epoch = self.journal.state.epoch() + 1;
        let begin = match evidence.undoing {
            true => Event::UndoStarted { owner, epoch },
            false => Event::RunResumed { owner, epoch },
        };
        let events = vec![begin, settled, Event::ended(outcome)];
        self.journal.commit(events, &mut Vec::new())?;
        Ok(evidence)
    }

    fn name(&self, node: NodeId) -> Option<&TaskName> {
        self.journal.state.shape().name(node)
    }

    /// Whether a task's last attempt was to take it back.
    fn is_undone(&self, node: NodeId) -> bool {
        matches!(self.journal.state.task(node), TaskState::Undoing | TaskState::UndoUnknown)
    }

    /// The node of a task whose outcome isn't known.
    fn unsettled(&self, task: &str) -> Result<NodeId, EngineError> {
        let state = &self.journal.state;
        let open = |node: &NodeId| OPEN.contains(&state.task(*node));
        if let Some(node) = state.shape().node(&TaskName::from_text(task)).filter(open) {
            return Ok(node);
        }
        let unknown = OPEN.into_iter().flat_map(|s| state.in_state(s));
        let unknown = unknown.filter_map(|node| self.name(node).cloned()).collect();
        Err(EngineError::NotAsked { task: task.to_owned(), unknown })
    }

    /// Whether the attempt is alive, and if it isn't, what the step finds.
    async fn look(
        &self,
        env: &Env,
        node: NodeId,
        prepared: &Prepared,
        change: &Change,
    ) -> (Result<bool, StepError>, Option<Result<Resolved, StepError>>) {
        if let Some(host) = env.task(node).and_then(|task| task.host.clone())
            && let Some(fleet) = &self.engine.fleet
        {
            let met = match fleet.meet(&host).await {
                Ok(identity) => self.refuse_other_machine(&host.name, &identity),
                Err(error) => Err(error),
            };
            if let Err(error) = met {
                return (Err(error), None);
            }
        }
        match env.alive(node, prepared).await {
            Ok(false) if self.is_undone(node) => {
                let output = env.output(node);
                let found = prepared.step.resolve_undo(&prepared.cx, change, output.as_ref()).await;
                (Ok(false), Some(found))
            }
            Ok(false) => (Ok(false), Some(prepared.step.resolve(&prepared.cx, change).await)),
            alive => (alive, None),
        }
    }

    /// What a step needs to look.
    fn looking(&self) -> Env {
        Env {
            plan: Arc::clone(&self.plan),
            outputs: Arc::clone(&self.outputs),
            resources: Arc::clone(&self.engine.resources),
            fleet: self.engine.fleet.clone(),
            run: self.journal.run.clone(),
            started: self.started,
            epoch: self.journal.state.epoch(),
            unreachable: Unreachable::default(),
            notices: self.journal.notifier.clone(),
            planning: false,
            held_to: None,
            ahead: Ahead::none(),
        }
    }
}
