//! What a step is: the contract between the engine and everything that changes the world.
//!
//! A step looks ([`Step::check`]), establishes ([`Step::apply`]), tells after a crash what became of
//! an intent ([`Step::resolve`]) and takes back ([`Step::undo`]). The engine decides when; a step
//! knows nothing of workflows, stores or schedules.

mod context;
mod registry;
mod secret;

pub use context::{Attempt, Context, ContextParts, Progress, Renderer, Resources, early, is_early};
pub use registry::{ArgumentError, MakeStep, Origin, Registry, StepInfo, StepSource, StepType, Undoability};
pub(crate) use secret::MASK;
pub use secret::{Redactor, Secret};

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::workflow::Code;

/// One typed, idempotent unit of work on one host (or at the operator's place).
#[async_trait]
pub trait Step: Send + Sync {
    /// Compares what is there with what this step is to establish. Changes nothing.
    async fn check(&self, cx: &Context) -> Result<Check, StepError>;

    /// What is left to later steps where its host can't be reached, or where `check` fails: for looks whose whole
    /// point is to tell what can't be seen too. By default nothing, and the task fails.
    fn unseen(&self, _why: &StepError) -> Option<Output> {
        None
    }

    /// Establishes it. Called only after `check` said [`Check::Pending`], and after `change` was
    /// made durable as the intent. The engine calls `check` again afterwards.
    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError>;

    /// Whether `check` may be made before its turn: as long as the run has changed nothing, at once with many others.
    ///
    /// True where it compares what is there with what is wanted, and nothing else. What tells how things stand at
    /// just this point of the workflow, such as a position in the WAL, or what runs somebody's own commands, is made in its turn.
    fn early(&self) -> bool {
        false
    }

    /// Whether `check` can tell that `apply` took. False for a bare command, which leaves nothing
    /// to look at: its exit code is then all there is.
    fn verifiable(&self) -> bool {
        true
    }

    /// An intent without a result was found: what became of it?
    ///
    /// Called only once the attempt's processes are proven ended. By default, what `check` says.
    async fn resolve(&self, cx: &Context, _change: &Change) -> Result<Resolved, StepError> {
        Ok(match self.check(cx).await? {
            Check::Satisfied(output) => Resolved::Done(output),
            Check::Pending(_) => Resolved::NotDone,
            Check::Deferred(why) | Check::Refused(why) => Resolved::Unknown(why),
        })
    }

    /// What of a change must be the same again when a saved plan is run, for it to be the change that was
    /// shown. By default its summary and its diff; a step whose words tell what always moves (a
    /// process number, a position, what a wait still misses) gives here what doesn't.
    fn invariant(&self, change: &Change) -> Value {
        serde_json::json!({ "summary": change.summary, "diff": change.diff })
    }

    /// Takes it back, where that can be done.
    ///
    /// `change` is the one of the task's first attempt: what is different from how the run found it.
    /// An apply that failed or was cut short may have done a part of it, and so may an earlier undo:
    /// like `apply`, this can be called again from wherever it was. Refuses, by a permanent error,
    /// where somebody else has changed since what it would put back.
    async fn undo(&self, _cx: &Context, _change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        Err(UndoError::Impossible)
    }

    /// An undo without a result was found: what became of it?
    ///
    /// Called only once the attempt's processes are proven ended. By default [`Resolved::NotDone`]:
    /// [`Step::undo`] is called again. [`Resolved::Done`] means taken back.
    async fn resolve_undo(
        &self,
        _cx: &Context,
        _change: &Change,
        _output: Option<&Output>,
    ) -> Result<Resolved, StepError> {
        Ok(Resolved::NotDone)
    }
}

/// What `check` found.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// It is as it should be; nothing is to be done.
    Satisfied(Output),
    /// This would be done.
    Pending(Change),
    /// It can't be known before an earlier step has run; the text says why.
    Deferred(String),
    /// It must not be done; the text says why. Fails the task without any change.
    Refused(String),
}

/// What became of an intent whose result is not recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// The effect is there.
    Done(Output),
    /// The effect is not there, wholly; it may be tried again.
    NotDone,
    /// It is still going on; ask again.
    Running,
    /// It can't be told; a person must decide. The text says what is missing.
    Unknown(String),
}

/// What a step is about to change: readable by a person, and enough to recognise its effect later.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Change {
    /// One line, such as `running -> stopped`.
    pub summary: String,
    /// A unified diff or other lines, for a person. Secrets are masked by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// What identifies the effect later: an inode, an invocation id, a name with its time.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

impl Change {
    /// A change described by one line.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), ..Self::default() }
    }

    /// Adds the lines of a diff.
    #[must_use]
    pub fn with_diff(mut self, diff: impl Into<String>) -> Self {
        self.diff = Some(diff.into());
        self
    }

    /// Adds what identifies the effect later.
    #[must_use]
    pub fn with_data(mut self, data: impl Serialize) -> Self {
        self.data = serde_json::to_value(data).unwrap_or(Value::Null);
        self
    }

    /// Whether a secret was masked in `data` when it was stored: it can't be put back from there.
    pub fn is_masked(&self) -> bool {
        fn masked(value: &Value) -> bool {
            match value {
                Value::String(text) => text.contains(MASK),
                Value::Array(items) => items.iter().any(masked),
                Value::Object(fields) => {
                    fields.iter().any(|(name, field)| name.contains(MASK) || masked(field))
                }
                _ => false,
            }
        }
        masked(&self.data)
    }

    /// Reads `data` back as what was given to [`Change::with_data`].
    pub fn data<T: serde::de::DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_value(self.data.clone())
            .map_err(|e| StepError::failed(format!("the recorded change can't be read: {e}")))
    }
}

/// What a step leaves to later ones: the fields of `steps.NAME`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Output(pub Map<String, Value>);

impl Output {
    /// No fields.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds one field. A value that can't be written as JSON is `null`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.0.insert(name.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

/// How certain it is that a failed `apply` changed nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ended, and it failed.
    Failed,
    /// The answer was lost: a time-out, a cut connection. The engine settles it by `resolve`.
    Lost,
}

/// Why a step did not do what was asked. Messages are fragments that fit after "failed: ".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepError {
    /// One line: what went wrong.
    pub message: String,
    /// More lines for a person, such as the end of a command's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The next action, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Failed for certain, or lost.
    pub outcome: Outcome,
    /// A retry can't help (bad arguments, a refusal); retries are not spent on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// Its kind, where it has one of its own: `flow::unreachable`. `flow explain` tells more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl StepError {
    /// It ended and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            detail: None,
            hint: None,
            outcome: Outcome::Failed,
            permanent: false,
            code: None,
        }
    }

    /// It failed, and trying again can't help.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::failed(message) }
    }

    /// Nobody knows whether it was done.
    pub fn lost(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Lost, ..Self::failed(message) }
    }

    /// Adds lines for a person.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says of what kind it is.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = Some(code.0.to_owned());
        self
    }

    /// Adds the next action.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StepError {}

/// Why something can't be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// This step type has no undo.
    #[error("it can't be taken back")]
    Impossible,
    /// It was tried and failed.
    #[error(transparent)]
    Failed(#[from] StepError),
}
