//! A process of a rehearsal: an engine of its own on a runtime of its own, that has no I/O at all. What
//! outlives it are the simulated hosts and the store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flow_core::engine::{Engine, EngineError, Notice, Options, RunHandle, Stop, UndoOptions, Verdict};
use flow_core::inventory::Inventory;
use flow_core::plan::Plan;
use flow_core::run::{Asked, Outcome, RunId, TaskName};
use flow_core::step::{Resources, StepError};
use flow_core::store::{Answer, Signal, Store};

use super::Rehearsed;
use crate::fleet::HostFleet;
use crate::host::Hosts;
use crate::host::sim::SimWorld;

/// How long a process that was told to stop may take to do so.
const TO_STOP: Duration = Duration::from_secs(10);

/// What all processes of a rehearsal share.
pub(super) struct Crew {
    /// The step types.
    pub(super) engine: Engine,
    pub(super) inventory: Inventory,
    pub(super) patience: Duration,
}

/// How a process ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    With { outcome: Outcome, failures: Vec<(TaskName, StepError)> },
    /// It was stopped: it took longer than the crew's patience. What it was waiting for.
    Stuck(String),
    /// It was refused, or broke.
    Error(String),
}

impl Ended {
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::With { outcome, .. } => Some(*outcome),
            Self::Stuck(_) | Self::Error(_) => None,
        }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::With { outcome: Outcome::Succeeded, .. } => "it succeeded".to_owned(),
            Self::With { outcome, failures } => {
                let told: Vec<String> =
                    failures.iter().map(|(task, error)| format!("{task}: {error}")).collect();
                let outcome = match outcome {
                    Outcome::Undecided => "what became of a task can't be told",
                    Outcome::Interrupted => "it was interrupted",
                    Outcome::Refused => "it was refused",
                    Outcome::Undone => "it was taken back",
                    _ => "a task failed",
                };
                if told.is_empty() { outcome.to_owned() } else { format!("{outcome}: {}", told.join("; ")) }
            }
            Self::Stuck(waiting) => waiting.clone(),
            Self::Error(message) => message.clone(),
        }
    }
}

/// How a run is taken up again.
#[derive(Default)]
pub(super) struct TakingUp<'a> {
    /// What a person says became of a task.
    pub(super) verdict: Option<(&'a TaskName, Verdict)>,
    /// The longest time for each attempt at a task.
    pub(super) timeout: Option<(&'a TaskName, Duration)>,
    /// It isn't resumed but taken back.
    pub(super) back: Option<&'a UndoOptions>,
}

impl Crew {
    fn engine(&self, world: &SimWorld) -> Engine {
        let world = world.clone();
        let hosts = Arc::new(Hosts::with_factory(Arc::new(move |entry| Ok(world.host(&entry.name)))));
        let mut resources = Resources::default();
        resources.insert_shared(Arc::clone(&hosts));
        resources.insert(Rehearsed);
        // One task at a time: what comes when is then the same in every run.
        let mut options = Options { owner: "flow test".to_owned(), ..Options::default() };
        options.concurrency = 1;
        self.engine
            .clone()
            .with_resources(resources)
            .with_fleet(Arc::new(HostFleet(hosts)))
            .with_options(options)
    }

    /// Starts a run and lets it go to its end.
    pub(super) fn start(&self, world: &SimWorld, store: Box<dyn Store>, mut plan: Plan) -> Ended {
        plan.hurry(None);
        self.work(async || {
            let confirmed = plan.confirmation()?;
            self.engine(world).start(plan, store, confirmed.as_deref())
        })
    }

    /// Takes a run up and lets it go to its end, on either way.
    pub(super) fn resume(
        &self,
        world: &SimWorld,
        store: Box<dyn Store>,
        run: &RunId,
        how: &TakingUp<'_>,
    ) -> Ended {
        self.work(async || {
            let mut session = self.engine(world).open(store, run, Some(&self.inventory))?;
            session.hurry(how.timeout.map(|(task, limit)| (task.as_str(), limit)));
            if let Some((task, verdict)) = how.verdict {
                match session.settle(task.as_str(), verdict).await {
                    // Where it can be found out, nobody is asked.
                    Ok(_) | Err(EngineError::NotSettled { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match how.back {
                Some(options) => session.undo(options),
                None => session.resume(),
            }
        })
    }

    fn work(&self, begin: impl AsyncFnOnce() -> Result<RunHandle, EngineError>) -> Ended {
        // Timers only: whoever asked this runtime for a socket would be refused.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return Ended::Error(format!("the runtime can't be started: {error}")),
        };
        let ended = runtime.block_on(async {
            let mut handle = match begin().await {
                Ok(handle) => handle,
                Err(error) => return Ended::Error(error.to_string()),
            };
            let stop = handle.stopper();
            let approve = handle.answerer();
            let mut waiting = BTreeMap::new();
            let work = async {
                while let Some(notice) = handle.notices.recv().await {
                    if let Notice::Asks(asked) = &notice {
                        approve(approval(asked));
                    }
                    note(&mut waiting, notice);
                }
                handle.wait().await
            };
            let mut work = Box::pin(work);
            let result = match tokio::time::timeout(self.patience, &mut work).await {
                Ok(result) => result,
                Err(_) => {
                    stop(Stop::AtOnce);
                    let _ = tokio::time::timeout(TO_STOP, &mut work).await;
                    drop(work);
                    return Ended::Stuck(stuck(self.patience, &waiting));
                }
            };
            match result {
                Ok(report) => Ended::With { outcome: report.outcome, failures: report.failures },
                Err(error) => Ended::Error(error.to_string()),
            }
        });
        runtime.shutdown_background();
        ended
    }
}

/// In a rehearsal everything is approved.
fn approval(asked: &Asked) -> Signal {
    Signal {
        task: asked.task.clone(),
        attempt: asked.attempt,
        by: "rehearsal".to_owned(),
        when: jiff::Timestamp::UNIX_EPOCH,
        answer: Answer::Approve,
    }
}

/// Keeps what each task at work last said of itself.
fn note(waiting: &mut BTreeMap<String, String>, notice: Notice) {
    match notice {
        Notice::Started { task, .. } => {
            waiting.insert(task.to_string(), "at work".to_owned());
        }
        Notice::Progress { task, text } => {
            waiting.insert(task.to_string(), text);
        }
        Notice::Event(record) => {
            use flow_core::run::Event::{TaskDone, TaskFailed, TaskNotDone, TaskSatisfied, TaskSkipped};
            if let TaskDone { task, .. }
            | TaskFailed { task, .. }
            | TaskNotDone { task, .. }
            | TaskSatisfied { task, .. }
            | TaskSkipped { task, .. } = &record.event
            {
                waiting.remove(task.as_str());
            }
        }
        Notice::Asks(_) | Notice::Note(_) => {}
    }
}

fn stuck(patience: Duration, waiting: &BTreeMap<String, String>) -> String {
    let tasks: Vec<String> = waiting.iter().map(|(task, text)| format!("{task}: {text}")).collect();
    format!("it has not ended after {} s: {}", patience.as_secs(), tasks.join("; "))
}
