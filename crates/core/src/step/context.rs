//! What a step is given to work with: who it is, where it runs, and the typed resources that the
//! program registered. The engine itself knows no hosts or networks; those come as resources.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StepError;
use crate::inventory::Host;
use crate::run::{RunId, TaskName};

/// The name under which one try of one task changes the world.
///
/// Whatever outlives the process that started it (a remote command, a unit) carries it, so that a
/// later process can find it and prove that it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskName,
    /// 1 for the first try.
    pub number: u32,
    /// The epoch of the run's host locks: grows with each process that works on the run.
    pub epoch: u64,
}

impl Attempt {
    /// A name made of letters, digits and dashes only, the same for the same run, task and number.
    ///
    /// Fit for a systemd unit or a file name; ends in a short digest of the task's full name, so
    /// that two tasks never share one.
    pub fn name(&self) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(self.task.as_str().as_bytes());
        let slug: String = self
            .task
            .as_str()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(40)
            .collect();
        // Six bytes: with three, two of some thousand tasks whose names begin the same would share one.
        let digest: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("flow-{}-{slug}-{digest}-{}", self.run, self.number)
    }
}

/// Typed values that a program hands to its steps: hosts, clients, clocks.
#[derive(Clone, Default)]
pub struct Resources(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Resources {
    /// Adds a value, found again by its type. An earlier one of the same type is replaced.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        self.insert_shared(Arc::new(value));
    }

    /// Adds a value that the program keeps using itself.
    pub fn insert_shared<T: Any + Send + Sync>(&mut self, value: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }

    /// The value of that type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|value| value.downcast().ok())
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resources({})", self.0.len())
    }
}

/// Where a step says what it is waiting for. Shown live, never stored.
pub trait Progress: Send + Sync {
    /// Tells the latest state in a short line.
    fn say(&self, text: &str);
}

impl Progress for () {
    fn say(&self, _text: &str) {}
}

/// Renders text with the variables that the task's arguments see.
pub trait Renderer: Send + Sync {
    /// Renders a template. An undefined name is an error.
    fn render(&self, text: &str) -> Result<String, StepError>;
    /// The text of a file that was pinned with the workflow.
    fn file(&self, name: &str) -> Result<String, StepError>;
}

/// What a [`Context`] is made of; public so that step types can be tested by themselves.
pub struct ContextParts {
    /// The attempt under way.
    pub attempt: Attempt,
    /// The host of the task; none for a task at the operator's place.
    pub host: Option<Arc<Host>>,
    /// What the program registered.
    pub resources: Arc<Resources>,
    /// Where progress goes.
    pub progress: Arc<dyn Progress>,
    /// Templates and files.
    pub renderer: Arc<dyn Renderer>,
    /// When the run began, for names that carry a time.
    pub run_started: jiff::Timestamp,
    /// True while only looking, as `flow plan` does.
    pub planning: bool,
}

tokio::task_local! {
    static EARLY: ();
}

/// Whether what asks is a check that is made before its turn ([`Step::early`](super::Step::early)): the run has changed
/// nothing yet, so such checks may share what they are answered.
pub fn is_early() -> bool {
    EARLY.try_with(|()| ()).is_ok()
}

/// A check that is made before its turn: what it asks knows it by [`is_early`].
pub async fn early<T>(check: impl Future<Output = T>) -> T {
    EARLY.scope((), check).await
}

/// What a step works with.
#[derive(Clone)]
pub struct Context(Arc<ContextParts>);

impl Context {
    /// Puts a context together.
    pub fn new(parts: ContextParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The attempt under way.
    pub fn attempt(&self) -> &Attempt {
        &self.0.attempt
    }

    /// The run's id.
    pub fn run(&self) -> &RunId {
        &self.0.attempt.run
    }

    /// When the run began. The same after a resume.
    pub fn run_started(&self) -> jiff::Timestamp {
        self.0.run_started
    }

    /// True while only looking, as `flow plan` does.
    pub fn planning(&self) -> bool {
        self.0.planning
    }

    /// The host of this task as the inventory describes it; none at the operator's place.
    pub fn inventory_host(&self) -> Option<&Arc<Host>> {
        self.0.host.as_ref()
    }

    /// A variable of the task's host.
    pub fn var(&self, name: &str) -> Option<&Value> {
        self.0.host.as_ref()?.vars.get(name)
    }

    /// What the program registered under that type.
    pub fn resource<T: Any + Send + Sync>(&self) -> Result<Arc<T>, StepError> {
        self.0.resources.get::<T>().ok_or_else(|| {
            StepError::permanent(format!("this program has no {}", std::any::type_name::<T>()))
        })
    }

    /// Says what the step is waiting for.
    pub fn progress(&self, text: impl AsRef<str>) {
        self.0.progress.say(text.as_ref());
    }

    /// Renders a template with the variables that the step's arguments see.
    pub fn render(&self, text: &str) -> Result<String, StepError> {
        self.0.renderer.render(text)
    }

    /// The text of a file that was pinned with the workflow.
    pub fn file(&self, name: &str) -> Result<String, StepError> {
        self.0.renderer.file(name)
    }
}
