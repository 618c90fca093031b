//! What a plugin answers to each verb.

use flow_core::step::{Change, Check, Output, Resolved};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Nonsense;

/// What `describe` answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Description {
    /// The version of the protocol that it speaks.
    pub flow: u32,
    /// Its step types.
    pub steps: Vec<StepDescription>,
    /// What else it is made of: files by their path relative to the executable's folder.
    #[serde(default)]
    pub files: Vec<String>,
}

/// One step type as a plugin describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct StepDescription {
    /// The name used in workflows.
    pub name: String,
    /// Grows when the meaning of the arguments or of a recorded change does.
    pub version: u32,
    /// What it is for; the first paragraph is its summary.
    pub doc: String,
    /// JSON schema of the arguments: an object.
    pub schema: Map<String, Value>,
    /// Wants `--confirm`.
    #[serde(default)]
    pub destructive: bool,
    /// It knows `undo`.
    #[serde(default)]
    pub undoable: bool,
    /// It only looks.
    #[serde(default)]
    pub read_only: bool,
    /// It knows `resolve`; else `check` is asked.
    #[serde(default)]
    pub resolves: bool,
    /// `check` tells whether `apply` took.
    #[serde(default = "yes")]
    pub verifiable: bool,
    /// How long `check` and `resolve` may take, in seconds.
    #[serde(default = "look_seconds")]
    pub look_seconds: u32,
    /// How long `apply` and `undo` may take, in seconds.
    #[serde(default = "change_seconds")]
    pub change_seconds: u32,
}

fn yes() -> bool {
    true
}

fn look_seconds() -> u32 {
    60
}

fn change_seconds() -> u32 {
    3600
}

/// The answer to `check`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckAnswer {
    /// As it should be.
    Satisfied(Output),
    /// To be done.
    Pending(Change),
    /// Not to be known yet.
    Deferred(String),
    /// Must not be done.
    Refused(String),
}

impl From<CheckAnswer> for Check {
    fn from(answer: CheckAnswer) -> Self {
        match answer {
            CheckAnswer::Satisfied(output) => Self::Satisfied(output),
            CheckAnswer::Pending(change) => Self::Pending(change),
            CheckAnswer::Deferred(why) => Self::Deferred(why),
            CheckAnswer::Refused(why) => Self::Refused(why),
        }
    }
}

/// The answer to `apply`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyAnswer {
    /// It is done.
    Done(Output),
}

/// The answer to `resolve`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolveAnswer {
    /// The effect is there.
    Done(Output),
    /// It is not there, wholly.
    NotDone,
    /// It is still going on.
    Running,
    /// It can't be told.
    Unknown(String),
}

impl From<ResolveAnswer> for Resolved {
    fn from(answer: ResolveAnswer) -> Self {
        match answer {
            ResolveAnswer::Done(output) => Self::Done(output),
            ResolveAnswer::NotDone => Self::NotDone,
            ResolveAnswer::Running => Self::Running,
            ResolveAnswer::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// The answer to `undo`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoAnswer {
    /// It was taken back.
    Undone,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it.
pub fn answer<T: for<'de> Deserialize<'de>>(verb: &str, value: Value) -> Result<T, Nonsense> {
    serde_json::from_value(value)
        .map_err(|error| Nonsense::NoMessage(format!("the answer to `{verb}`: {error}")))
}
