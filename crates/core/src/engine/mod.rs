//! Moves a run forward. The scheduler, a thread of its own, owns the run's state and the store; the
//! executors, tokio tasks, run steps. They talk by messages; no lock is held across I/O.

mod ahead;
mod asking;
mod attempt;
mod clock;
mod control;
mod exchange;
mod executor;
mod fleet;
mod held;
mod history;
mod hosts;
mod notices;
mod past;
mod preview;
mod queue;
mod resolve;
mod scheduler;
mod session;
mod taking_back;
mod undo;
mod way_back;

use std::sync::Arc;

use crate::plan::{Definition, Plan};
use crate::run::{Asked, Illegal, Outcome, Record, RunId, RunState, TaskName};
use crate::step::{Registry, Resources, StepError};
use crate::store::{Signal, StoreError};
use crate::workflow::Diagnostics;

pub use control::Stop;
pub use exchange::{ImportError, Imported, export, import};
pub use fleet::{Fleet, Holder};
pub use notices::Notices;
pub use past::outputs_of;
pub use preview::{Finding, Preview, PreviewTask};
pub use resolve::Evidence;
pub use session::Session;
pub use undo::{UndoAction, UndoOptions, UndoTask};

/// Starts and resumes runs with one set of step types and resources.
#[derive(Clone)]
pub struct Engine {
    pub(crate) registry: Arc<Registry>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) fleet: Option<Arc<dyn Fleet>>,
    pub(crate) options: Options,
}

/// How an engine works.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many tasks are at work at once, over all hosts. 64 by default.
    pub concurrency: usize,
    /// Who works on the run, for people: `user@machine (pid N)`.
    pub owner: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 64, owner: format!("pid {}", std::process::id()) }
    }
}

impl Engine {
    /// An engine with these step types.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry: Arc::new(registry),
            resources: Arc::default(),
            fleet: None,
            options: Options::default(),
        }
    }

    /// Gives steps their resources: hosts, clients.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        self.resources = Arc::new(resources);
        self
    }

    /// Sets how hosts are met and locked. Without it, nothing is locked.
    #[must_use]
    pub fn with_fleet(mut self, fleet: Arc<dyn Fleet>) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// Sets how it works.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The step types.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

/// What is told of a run while it goes on.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A fact, already durable.
    Event(Record),
    /// An attempt at a task began: it is being checked.
    Started {
        /// The task.
        task: TaskName,
        /// 1 for the first.
        attempt: u32,
    },
    /// What a task is waiting for. Not stored.
    Progress {
        /// The task.
        task: TaskName,
        /// A short line.
        text: String,
    },
    /// A task waits for a person's approval; told when it is asked, and again by each process that takes the
    /// run up meanwhile.
    Asks(Asked),
    /// Something worth knowing that is no fact of the run: a lock that is kept, an editing of the
    /// workflow since.
    Note(String),
}

/// What a person says became of an attempt of which nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The effect is there. The task counts as done; it has no outputs.
    Done,
    /// The effect is not there. The task is run again.
    NotDone,
}

/// A run under way in this process.
pub struct RunHandle {
    /// Its id.
    pub id: RunId,
    /// What happens. Ends when the work has ended.
    pub notices: Notices,
    pub(crate) control: control::Control,
    pub(crate) work: tokio::task::JoinHandle<Result<Report, EngineError>>,
}

impl RunHandle {
    /// Asks to stop. [`Stop::Gently`] lets what runs finish; [`Stop::AtOnce`] leaves it.
    pub fn stop(&self, how: Stop) {
        self.control.stop(how);
    }

    /// A handle to stop the run from elsewhere, such as a signal handler.
    pub fn stopper(&self) -> impl Fn(Stop) + Send + Sync + Clone + 'static {
        let control = self.control.clone();
        move |how| control.stop(how)
    }

    /// A handle to answer what waits for approval, such as at a prompt. An answer to what isn't asked counts
    /// for nothing.
    pub fn answerer(&self) -> impl Fn(Signal) + Send + Sync + Clone + 'static {
        let control = self.control.clone();
        move |signal| control.answer(signal)
    }

    /// Waits for the end of the work.
    pub async fn wait(self) -> Result<Report, EngineError> {
        drop(self.notices);
        match self.work.await {
            Ok(result) => result,
            Err(e) => Err(EngineError::Broken(e.to_string())),
        }
    }
}

/// How the work of this process on a run ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub outcome: Outcome,
    /// Where every task stands.
    pub state: RunState,
    /// What failed or is unknown, in the order of the plan.
    pub failures: Vec<(TaskName, StepError)>,
    /// The workflow's `[outputs]`, secrets masked; empty unless it succeeded.
    pub outputs: serde_json::Map<String, serde_json::Value>,
    /// Why a failed run was not taken back, though its workflow says `on_failure = "unwind"`.
    pub not_unwound: Option<String>,
    /// Hosts whose lock this run keeps, since it must be gone on with.
    pub locks_kept: Vec<String>,
}

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The workflow, the inventory or the params are wrong.
    #[error("{0}")]
    Refused(Diagnostics),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored events make no sense.
    #[error("run {run} can't be gone on with: event {seq}: {source}")]
    History {
        /// The run.
        run: RunId,
        /// The event's number.
        seq: u64,
        /// What is wrong with it.
        source: Illegal,
    },
    /// The pinned definition can't be read.
    #[error("run {run} can't be gone on with: its definition can't be read: {message}")]
    Definition {
        /// The run.
        run: RunId,
        /// What is wrong.
        message: String,
    },
    /// A destructive workflow wasn't confirmed.
    #[error("this run has destructive steps and was not confirmed")]
    Unconfirmed {
        /// The name that must be given.
        name: String,
    },
    /// The run has ended for good.
    #[error("run {run} has ended: {outcome:?}")]
    Ended {
        /// The run.
        run: RunId,
        /// How.
        outcome: Outcome,
    },
    /// Something of the run was taken back, so it can't go forward.
    #[error("run {run} is being taken back: it can't be resumed")]
    TurnedBack {
        /// The run.
        run: RunId,
    },
    /// The run has changed nothing, or nothing of it is left.
    #[error("run {run} has changed nothing: there is nothing to take back")]
    NothingToUndo {
        /// The run.
        run: RunId,
    },
    /// The point of no return is behind the run.
    #[error("run {run} can't be taken back: {task} was begun, the point of no return")]
    Pivoted {
        /// The run.
        run: RunId,
        /// The pivot.
        task: TaskName,
    },
    /// What was done by these tasks can't be taken back, and nobody said that it may stay.
    #[error("run {run} can't be taken back as a whole; nothing was changed")]
    NotUndoable {
        /// The run.
        run: RunId,
        /// The tasks and why, each before what it needs.
        tasks: Vec<(TaskName, String)>,
    },
    /// The run has no task of that name.
    #[error("run {run} has no task `{task}`")]
    NoTask {
        /// The run.
        run: RunId,
        /// The name that was given.
        task: String,
    },
    /// The run has nothing on a host of that name.
    #[error("run {run} has no host `{host}`")]
    NoHost {
        /// The run.
        run: RunId,
        /// The name that was given.
        host: String,
        /// Its hosts.
        hosts: Vec<String>,
    },
    /// A person's word on a task isn't taken.
    #[error("{task} is not settled by hand: {error}")]
    NotSettled {
        /// The task.
        task: TaskName,
        /// Why, with the next action.
        error: StepError,
    },
    /// A verdict on a task of which it isn't asked.
    #[error("{task} is not among the tasks whose outcome is unknown")]
    NotAsked {
        /// The name that was given.
        task: String,
        /// Those that are.
        unknown: Vec<TaskName>,
    },
    /// Before anything was changed, a host was found locked, unreachable or another machine.
    #[error("{error}")]
    Host {
        /// The run, recorded as refused.
        run: RunId,
        /// Why, with the next action.
        error: Box<StepError>,
    },
    /// A defect of the engine itself.
    #[error("the engine broke: {0}; the run can be resumed")]
    Broken(String),
}

impl From<Diagnostics> for EngineError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Refused(diagnostics)
    }
}

/// Reads a pinned definition.
pub fn read_definition(run: &RunId, text: &str) -> Result<Definition, EngineError> {
    serde_json::from_str(text)
        .map_err(|e| EngineError::Definition { run: run.clone(), message: e.to_string() })
}

pub(crate) type SharedPlan = Arc<Plan>;
