//! Tasks that wait for a person's approval. What they ask is an event, and so is the answer, whoever
//! brings it: the handle of this run, or another process by a [`Signal`] in the store.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Notice;
use super::control::Message;
use super::scheduler::{Batch, Scheduler};
use crate::run::{Asked, Event, NodeId, TaskName};
use crate::step::{Output, StepError};
use crate::store::{Answer, Signal};

/// Between two looks for answers of other processes.
const LOOK: Duration = Duration::from_millis(500);

/// What waits for approval.
#[derive(Default)]
pub(super) struct Asking {
    waiting: BTreeMap<NodeId, Asked>,
    /// Reminds the scheduler to look, while anything waits.
    reminder: Option<AbortHandle>,
}

impl Asking {
    /// What an earlier process asked.
    pub(super) fn of(waiting: BTreeMap<NodeId, Asked>) -> Self {
        Self { waiting, reminder: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn remind(&mut self, runtime: &Handle, scheduler: &mpsc::UnboundedSender<Message>) {
        if self.waiting.is_empty() {
            if let Some(reminder) = self.reminder.take() {
                reminder.abort();
            }
        } else if self.reminder.is_none() {
            let scheduler = scheduler.clone();
            let remind = async move {
                while scheduler.send(Message::Look).is_ok() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            self.reminder = Some(runtime.spawn(remind).abort_handle());
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(reminder) = self.reminder.take() {
            reminder.abort();
        }
    }
}

/// What an approval leaves to later steps.
pub(super) fn approval(by: &str, when: jiff::Timestamp) -> Output {
    Output::empty().with("by", by).with("at", when)
}

impl Scheduler {
    /// Tells again what an earlier process asked.
    pub(super) fn ask_again(&mut self) {
        let asked: Vec<NodeId> = self.asking.waiting.keys().copied().collect();
        self.tell_asked(&asked);
    }

    /// A task is to be approved.
    pub(super) fn ask(&mut self, node: NodeId, attempt: u32, message: &str, batch: &mut Batch) {
        let task = self.name(node);
        let message = self.journal.redactor.text(message).into_owned();
        let asked =
            Asked { task: task.clone(), attempt, message: message.clone(), since: jiff::Timestamp::now() };
        self.asking.waiting.insert(node, asked);
        batch.events.push(Event::TaskAsked { task, attempt, message });
        batch.asked.push(node);
    }

    /// Tells of what waits, once it is durable, and sees that answers are looked for.
    pub(super) fn tell_asked(&mut self, nodes: &[NodeId]) {
        for &node in nodes {
            let Some(asked) = self.asking.waiting.get(&node).cloned() else { continue };
            let limit = self.env.task(node).and_then(|task| self.env.plan.steps[task.step].def.timeout);
            if let Some(limit) = limit {
                let (sender, attempt) = (self.sender.clone(), asked.attempt);
                self.runtime.spawn(async move {
                    tokio::time::sleep(limit).await;
                    let _ = sender.send(Message::Expired { node, attempt });
                });
            }
            self.env.notices.hold(Notice::Asks(asked));
        }
        self.asking.remind(&self.runtime, &self.sender);
    }

    /// Takes in the answers that other processes left.
    pub(super) fn look_for_answers(&mut self, batch: &mut Batch) {
        // A store that can't be read now is looked at again soon; that it can't be written is found elsewhere.
        let Ok(signals) = self.journal.store.signals(&self.journal.run) else { return };
        for (number, signal) in signals {
            if batch.answered.contains(&number) {
                continue;
            }
            self.answer(signal, batch);
            batch.answered.push(number);
        }
    }

    /// An answer; one to what isn't asked counts for nothing.
    pub(super) fn answer(&mut self, signal: Signal, batch: &mut Batch) {
        let Signal { task, attempt, by, when, answer } = signal;
        let Some(node) = self.asked(&task, attempt) else { return };
        self.asking.waiting.remove(&node);
        match answer {
            Answer::Approve => {
                batch.outputs.push((node, approval(&by, when)));
                batch.events.push(Event::TaskApproved { task, attempt, by, when });
            }
            Answer::Reject(reason) => {
                let error = rejection(&by, reason.as_deref());
                self.note_failure(node, &error, batch);
                batch.events.push(Event::TaskRejected { task, attempt, by, when, reason });
            }
        }
        self.asking.remind(&self.runtime, &self.sender);
    }

    /// Nobody answered in time.
    pub(super) fn expire(&mut self, node: NodeId, attempt: u32, batch: &mut Batch) {
        let task = self.name(node);
        if self.asked(&task, attempt).is_none() {
            return;
        }
        self.asking.waiting.remove(&node);
        let error = StepError::permanent("nobody approved it in time").with_hint("`flow resume` asks again");
        self.note_failure(node, &error, batch);
        batch.events.push(Event::TaskFailed { task, attempt, error, retry_in_ms: None });
        self.asking.remind(&self.runtime, &self.sender);
    }

    fn asked(&self, task: &TaskName, attempt: u32) -> Option<NodeId> {
        let node = self.env.plan.shape().node(task)?;
        self.asking.waiting.get(&node).filter(|asked| asked.attempt == attempt).map(|_| node)
    }
}

fn rejection(by: &str, reason: Option<&str>) -> StepError {
    let text = match reason {
        Some(reason) => format!("rejected by {by}: {reason}"),
        None => format!("rejected by {by}"),
    };
    StepError::permanent(text).with_hint("`flow resume` asks again")
}
