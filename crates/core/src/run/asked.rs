//! What of a run waits for a person's approval, from its events alone.

use super::{Event, Record, TaskName};

/// A task that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The task.
    pub task: TaskName,
    /// The time that it was asked, from 1.
    pub attempt: u32,
    /// What is asked.
    pub message: String,
    /// When, for people.
    pub since: jiff::Timestamp,
}

impl Asked {
    /// Takes in the next event of a run: `waiting` has what waits for approval after it, in the order in
    /// which it was asked.
    pub fn follow(waiting: &mut Vec<Self>, Record { at, event, .. }: &Record) {
        if let Event::TaskAsked { task, attempt, message } = event {
            let (task, message) = (task.clone(), message.clone());
            waiting.push(Self { task, attempt: *attempt, message, since: *at });
        } else if let Some(task) = event.task().filter(|_| !waiting.is_empty()) {
            waiting.retain(|asked| asked.task != *task);
        }
    }
}
