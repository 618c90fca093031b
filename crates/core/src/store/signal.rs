//! What any process may ask of a run. It is kept beside the run's events until the process that works on
//! the run turns it into one; where none does, until a later one takes the run up.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::TaskName;

/// A person's answer to a task that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The task.
    pub task: TaskName,
    /// The time that it was asked; an answer to an earlier one counts for nothing.
    pub attempt: u32,
    /// `user@machine`
    pub by: String,
    /// When.
    pub when: Timestamp,
    /// What was said.
    pub answer: Answer,
}

/// Yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It may go on.
    Approve,
    /// It must not, for this reason.
    Reject(Option<String>),
}
