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

/// The tasks that wait for approval after these events, in the order in which they were asked.
pub fn asked<'r>(records: impl IntoIterator<Item = &'r Record>) -> Vec<Asked> {
    let mut waiting: Vec<Asked> = Vec::new();
    for Record { at, event, .. } in records {
        match event {
            Event::TaskAsked { task, attempt, message } => waiting.push(Asked {
                task: task.clone(),
                attempt: *attempt,
                message: message.clone(),
                since: *at,
            }),
            other => {
                if let Some(task) = other.task().filter(|_| !waiting.is_empty()) {
                    waiting.retain(|asked| asked.task != *task);
                }
            }
        }
    }
    waiting
}
