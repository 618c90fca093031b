//! The facts of a run, as they are stored. Appended, never changed; a format to be careful with.
//!
//! Tasks are named, never numbered. A reader that meets an event kind it doesn't know stops and
//! says that the store was written by a newer version.
//!
//! An event by itself, as the store keeps it, is `{"task_done":{...}}`: it is read without a detour
//! through a tree of values, which tells where a run has a million of them. A record, as people and
//! programs see it, is flat: `{"seq":7,"at":"...","event":"task_done",...}`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TaskName;
use crate::step::{Change, Output, StepError};

/// The words of an event's form. A secret that is one of them can't be told from it, so none may be.
pub(crate) const WORDS: &str = "seq at event owner epoch host identity machine_id key_fingerprint task why output \
    attempt change summary diff data error message detail hint outcome permanent retry_in_ms by step operator at_once \
    run_started run_resumed host_met hosts hosts_chosen task_skipped task_satisfied task_intended task_done task_failed task_unknown \
    task_not_done when reason task_asked task_approved task_rejected undo_started undo_intended task_undone \
    undo_failed undo_unknown undo_not_done task_kept run_interrupted run_ended \
    succeeded failed interrupted undecided refused undone lost";

/// An event with its place in the run and the wall-clock time, which is for people only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Flat", try_from = "Flat")]
pub struct Record {
    /// 1 for the first event of a run, without gaps. This orders events, not the time.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// A record in its flat form.
#[derive(Serialize, Deserialize)]
struct Flat {
    seq: u64,
    at: Timestamp,
    event: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl From<Record> for Flat {
    fn from(Record { seq, at, event }: Record) -> Self {
        let (event, fields) = match serde_json::to_value(event) {
            Ok(Value::Object(one)) => one.into_iter().next().unwrap_or_default(),
            _ => Default::default(),
        };
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { seq, at, event, fields }
    }
}

impl TryFrom<Flat> for Record {
    type Error = serde_json::Error;

    fn try_from(Flat { seq, at, event, fields }: Flat) -> Result<Self, Self::Error> {
        let event = serde_json::from_value(Map::from_iter([(event, Value::Object(fields))]).into())?;
        Ok(Self { seq, at, event })
    }
}

/// Who a host is. Pinned when it is first met; a resume that meets another refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `/etc/machine-id`
    pub machine_id: String,
    /// The fingerprint of its SSH key; empty where it isn't reached over SSH.
    pub key_fingerprint: String,
}

/// How a process's work on a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every task is done, satisfied or skipped.
    Succeeded,
    /// A task failed. The run can be resumed.
    Failed,
    /// The operator stopped it. The run can be resumed.
    Interrupted,
    /// What became of a task can't be told; the operator must say. The run can be resumed.
    Undecided,
    /// It was refused before anything was changed: a host is locked, or isn't the one it was.
    Refused,
    /// Everything that was applied was taken back.
    Undone,
}

/// Who settled what became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settler {
    /// The step's own `resolve`.
    Step,
    /// A person, by name.
    Operator(String),
}

/// One fact of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    RunStarted {
        /// `user@machine (pid N)`
        owner: String,
        /// 1.
        epoch: u64,
    },
    /// A later process took the run up. Tasks that had failed are ready again.
    RunResumed {
        /// `user@machine (pid N)`
        owner: String,
        /// One more than the last.
        epoch: u64,
    },
    /// A host was met for the first time.
    HostMet {
        /// The inventory's name.
        host: String,
        /// Who it is.
        identity: Identity,
    },
    /// It was decided on which hosts a step works, and in which order.
    HostsChosen {
        /// The task that chooses: `STEP:hosts`.
        task: TaskName,
        /// The hosts, in the order of work.
        hosts: Vec<String>,
    },
    /// The task's condition is false.
    TaskSkipped {
        /// The task.
        task: TaskName,
        /// The condition.
        why: String,
    },
    /// `check` found it as it should be. Nothing was changed.
    TaskSatisfied {
        /// The task.
        task: TaskName,
        /// What it leaves to later tasks.
        output: Output,
    },
    /// `apply` is about to be called.
    TaskIntended {
        /// The task.
        task: TaskName,
        /// 1 for the first attempt.
        attempt: u32,
        /// What is about to be changed.
        change: Change,
    },
    /// The effect is there.
    TaskDone {
        /// The task.
        task: TaskName,
        /// The attempt that did it.
        attempt: u32,
        /// What it leaves to later tasks.
        output: Output,
        /// Who settled it, where the attempt itself left no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Settler>,
    },
    /// It ended without the effect.
    TaskFailed {
        /// The task.
        task: TaskName,
        /// The attempt that failed.
        attempt: u32,
        /// Why.
        error: StepError,
        /// It will be tried again after so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
    /// Nobody knows whether the effect is there.
    TaskUnknown {
        /// The task.
        task: TaskName,
        /// The attempt in question.
        attempt: u32,
        /// What is known.
        error: StepError,
    },
    /// It was settled that the attempt had no effect; the task is ready again.
    TaskNotDone {
        /// The task.
        task: TaskName,
        /// The attempt in question.
        attempt: u32,
        /// Who says so.
        by: Settler,
    },
    /// It waits for a person's approval.
    TaskAsked {
        /// The task.
        task: TaskName,
        /// 1 for the first time.
        attempt: u32,
        /// What is asked.
        message: String,
    },
    /// A person approved it.
    TaskApproved {
        /// The task.
        task: TaskName,
        /// The time that it was asked.
        attempt: u32,
        /// `user@machine`
        by: String,
        /// When the person said so; it may have been recorded later.
        when: Timestamp,
    },
    /// A person refused it.
    TaskRejected {
        /// The task.
        task: TaskName,
        /// The time that it was asked.
        attempt: u32,
        /// `user@machine`
        by: String,
        /// When the person said so; it may have been recorded later.
        when: Timestamp,
        /// Why, in the person's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// From here on the run is taken back, by this process or a later one.
    UndoStarted {
        /// `user@machine (pid N)`
        owner: String,
        /// One more than the last; the same where the process that ran it takes it back by itself.
        epoch: u64,
    },
    /// `undo` is about to be called.
    UndoIntended {
        /// The task.
        task: TaskName,
        /// One more than the task's last attempt, of whichever kind: no two share a number.
        attempt: u32,
    },
    /// It was taken back.
    TaskUndone {
        /// The task.
        task: TaskName,
        /// The attempt that did it.
        attempt: u32,
        /// Who settled it, where the attempt itself left no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Settler>,
    },
    /// It could not be taken back.
    UndoFailed {
        /// The task.
        task: TaskName,
        /// The attempt that failed.
        attempt: u32,
        /// Why.
        error: StepError,
        /// It will be tried again after so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
    /// Nobody knows whether it was taken back.
    UndoUnknown {
        /// The task.
        task: TaskName,
        /// The attempt in question.
        attempt: u32,
        /// What is known.
        error: StepError,
    },
    /// It was settled that the attempt left something to take back; it is made again.
    UndoNotDone {
        /// The task.
        task: TaskName,
        /// The attempt in question.
        attempt: u32,
        /// Who says so.
        by: Settler,
    },
    /// It is left as it is, so that what stands before it can be taken back.
    TaskKept {
        /// The task.
        task: TaskName,
        /// Why.
        why: String,
    },
    /// The operator asked to stop.
    RunInterrupted {
        /// False: what runs may finish. True: what runs is stopped.
        at_once: bool,
    },
    /// This process's work on the run ended.
    RunEnded {
        /// How.
        outcome: Outcome,
        /// Why, where no task says it: the hosts couldn't be taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<StepError>,
    },
}

impl Event {
    /// The end of a process's work, of which the tasks say why.
    pub fn ended(outcome: Outcome) -> Self {
        Self::RunEnded { outcome, error: None }
    }

    /// Whether it is a step of the way back: from the first of them on the run can't be resumed.
    pub fn is_of_undo(&self) -> bool {
        matches!(
            self,
            Self::UndoIntended { .. }
                | Self::TaskUndone { .. }
                | Self::UndoFailed { .. }
                | Self::UndoUnknown { .. }
                | Self::UndoNotDone { .. }
                | Self::TaskKept { .. }
        )
    }

    /// The task it is about.
    pub fn task(&self) -> Option<&TaskName> {
        match self {
            Self::HostsChosen { task, .. }
            | Self::TaskSkipped { task, .. }
            | Self::TaskSatisfied { task, .. }
            | Self::TaskIntended { task, .. }
            | Self::TaskDone { task, .. }
            | Self::TaskFailed { task, .. }
            | Self::TaskUnknown { task, .. }
            | Self::TaskNotDone { task, .. }
            | Self::TaskAsked { task, .. }
            | Self::TaskApproved { task, .. }
            | Self::TaskRejected { task, .. }
            | Self::UndoIntended { task, .. }
            | Self::TaskUndone { task, .. }
            | Self::UndoFailed { task, .. }
            | Self::UndoUnknown { task, .. }
            | Self::UndoNotDone { task, .. }
            | Self::TaskKept { task, .. } => Some(task),
            Self::RunStarted { .. }
            | Self::RunResumed { .. }
            | Self::UndoStarted { .. }
            | Self::HostMet { .. }
            | Self::RunInterrupted { .. }
            | Self::RunEnded { .. } => None,
        }
    }
}
