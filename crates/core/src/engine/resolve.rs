//! What became of an attempt whose result isn't recorded: the evidence, and a person's word where the
//! step itself can't tell. Nothing is started by it; the run is gone on with later.

use std::collections::HashMap;
use std::sync::Arc;

use super::executor::{Env, Preparation, Prepared};
use super::{EngineError, Session, Verdict};
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
}

impl Evidence {
    /// Why a person's word isn't taken, and the next action; none where it is.
    pub fn refusal(&self) -> Option<StepError> {
        let refused = |why: String, hint: &str| Some(StepError::permanent(why).with_hint(hint));
        match (&self.alive, &self.found) {
            (Ok(true), _) | (_, Some(Ok(Resolved::Running))) => refused(
                "its attempt is still at work".to_owned(),
                "wait for its end, or end it on the host; `flow resume` waits for it too",
            ),
            (Err(error), _) | (_, Some(Err(error))) => refused(
                format!("what became of it can't be looked at: {error}"),
                "mend that first: nobody's word is taken while the attempt may be alive",
            ),
            (_, Some(Ok(Resolved::Done(_)))) => {
                refused("the step can tell: it was done".to_owned(), "`flow resume` goes on from there")
            }
            (_, Some(Ok(Resolved::NotDone))) => {
                refused("the step can tell: it was not done".to_owned(), "`flow resume` does it")
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
        let change = self.changes.get(&node).cloned().unwrap_or_default();
        let env = self.looking();
        let looked = match env.prepare(node, attempt) {
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
        Ok(Evidence { task: TaskName::from_text(task), attempt, change, alive, found })
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
        let settled = match verdict {
            Verdict::Done => Event::TaskDone { task, attempt, output: Output::empty(), by: Some(by) },
            Verdict::NotDone => Event::TaskNotDone { task, attempt, by },
        };
        let others = self.journal.state.in_state(TaskState::Unknown);
        let unknown = others.filter(|node| self.name(*node) != Some(&evidence.task)).count();
        let outcome = if unknown > 0 { Outcome::Undecided } else { Outcome::Interrupted };
        let epoch = self.journal.state.epoch() + 1;
        let events = vec![Event::RunResumed { owner, epoch }, settled, Event::RunEnded { outcome }];
        self.journal.commit(events, &mut Vec::new())?;
        Ok(evidence)
    }

    fn name(&self, node: NodeId) -> Option<&TaskName> {
        self.journal.state.shape().name(node)
    }

    /// The node of a task whose outcome isn't known.
    fn unsettled(&self, task: &str) -> Result<NodeId, EngineError> {
        let state = &self.journal.state;
        let open = |node: &NodeId| matches!(state.task(*node), TaskState::Unknown | TaskState::Intended);
        if let Some(node) = state.shape().node(&TaskName::from_text(task)).filter(open) {
            return Ok(node);
        }
        let unknown = [TaskState::Unknown, TaskState::Intended].into_iter().flat_map(|s| state.in_state(s));
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
            unreachable: HashMap::new(),
            notices: self.journal.env_notices.clone(),
            planning: false,
            held_to: None,
        }
    }
}
