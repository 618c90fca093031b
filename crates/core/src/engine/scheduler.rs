//! The scheduler: one thread that alone owns a run's state and its store. It takes messages, turns
//! them into events, makes all that came together durable in one commit, and only then lets go on
//! what depends on them: intent before effect, result before dependents.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::asking::Asking;
use super::clock::Clock;
use super::control::{Control, Message, Stop};
use super::executor::{self, End, Env};
use super::notices::Notifier;
use super::queue::Queue;
use super::undo::Undo;
use super::{EngineError, Notice};
use crate::plan::chosen_output;
use crate::run::{Event, NodeId, Outcome, Record, RunState, Settler, TaskName, TaskState};
use crate::step::{Change, Output, StepError};
use crate::store::{Store, StoreError};

/// How long what nobody waits for is kept back, so that it shares a commit.
const MOMENT: Duration = Duration::from_millis(2);

/// Appends events and keeps the state that follows from them.
pub(super) struct Journal {
    pub(super) store: Box<dyn Store>,
    pub(super) state: RunState,
    pub(super) seq: u64,
    pub(super) clock: Clock,
    pub(super) notifier: Notifier,
    pub(super) redactor: Arc<crate::step::Redactor>,
    pub(super) run: crate::run::RunId,
}

impl Journal {
    /// Makes events durable in one commit and tells of them. `ready` gets what they make ready.
    pub(super) fn commit(&mut self, events: Vec<Event>, ready: &mut Vec<NodeId>) -> Result<(), EngineError> {
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            let event = self.masked(event);
            self.seq += 1;
            self.state.apply(&event, ready).map_err(|source| EngineError::History {
                run: self.run.clone(),
                seq: self.seq,
                source,
            })?;
            records.push(Record { seq: self.seq, at: self.clock.now(), event });
        }
        self.store.append(&self.run, &records)?;
        for record in records {
            self.notifier.hold(Notice::Event(record));
        }
        Ok(())
    }

    /// An error with every secret masked: it is told at the run's end, and not only stored.
    pub(super) fn masked_error(&self, error: StepError) -> StepError {
        let mask = |text: String| self.redactor.text(&text).into_owned();
        StepError {
            message: mask(error.message),
            detail: error.detail.map(mask),
            hint: error.hint.map(mask),
            ..error
        }
    }

    /// The event with every secret masked: nothing else is ever stored or shown.
    fn masked(&self, event: Event) -> Event {
        if self.redactor.is_empty() {
            return event;
        }
        let Ok(mut value) = serde_json::to_value(&event) else { return event };
        self.redactor.value(&mut value);
        serde_json::from_value(value).unwrap_or(event)
    }
}

/// How the scheduler's work ended.
pub(super) struct Ended {
    pub(super) journal: Journal,
    pub(super) outcome: Outcome,
    pub(super) errors: HashMap<NodeId, StepError>,
    /// Why a failed run was not taken back, where its workflow asks for that.
    pub(super) not_unwound: Option<String>,
    /// The store failed; what ran was let finish, but its results could not be recorded.
    pub(super) store_error: Option<StoreError>,
}

pub(super) struct Scheduler {
    pub(super) journal: Journal,
    pub(super) env: Arc<Env>,
    pub(super) runtime: Handle,
    pub(super) control: Control,
    pub(super) sender: mpsc::UnboundedSender<Message>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) queue: Queue,
    /// What waits before another attempt, and how long. It holds no one up meanwhile.
    pub(super) delays: HashMap<NodeId, Duration>,
    pub(super) sleeping: HashSet<NodeId>,
    /// Intents found without a result, to be settled first.
    pub(super) unsettled: Vec<(NodeId, Change)>,
    pub(super) working: HashMap<NodeId, Work>,
    pub(super) errors: HashMap<NodeId, StepError>,
    pub(super) stop_told: Option<Stop>,
    /// Once so many tasks have failed, nothing new is started.
    pub(super) max_failures: Option<u32>,
    pub(super) failures: u32,
    /// What waits for a person's approval. It holds no one up meanwhile.
    pub(super) asking: Asking,
    /// Attempts of earlier processes that are still to be settled.
    pub(super) settling: HashSet<NodeId>,
    /// Who works on the run.
    pub(super) owner: String,
    /// The way back, where the run is being taken back.
    pub(super) undo: Option<Undo>,
    pub(super) not_unwound: Option<String>,
}

/// An executor at work.
///
/// It is polled here first: what needs no I/O, or has only to be given leave, then costs no switch to
/// another thread. Once it waits for anything else it is handed to the runtime.
pub(super) enum Work {
    Held(Pin<Box<dyn Future<Output = ()> + Send>>),
    Spawned(AbortHandle),
    /// It has ended; its message is in the inbox.
    Over,
}

/// What is to be done once a batch of events is durable.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    pub(super) leaves: Vec<(NodeId, oneshot::Sender<()>)>,
    pub(super) outputs: Vec<(NodeId, Output)>,
    /// What began to wait for an approval.
    pub(super) asked: Vec<NodeId>,
    /// Signals that are done with.
    pub(super) answered: Vec<i64>,
    note: Option<String>,
}

impl Scheduler {
    /// Works until nothing more can be done or the operator stops it.
    pub(super) fn work(mut self) -> Result<Ended, EngineError> {
        for (node, change) in std::mem::take(&mut self.unsettled) {
            self.settle(node, change);
        }
        self.ask_again();
        let mut store_error = self.drive()?;
        if store_error.is_none() && self.turn_round()? {
            store_error = self.drive()?;
        }
        let outcome = self.outcome();
        let Self { journal, errors, not_unwound, .. } = self;
        Ok(Ended { journal, outcome, errors, not_unwound, store_error })
    }

    /// Starts what can be started and takes in what comes of it, until nothing is at work any more. Gives
    /// the store's error where results could not be recorded.
    fn drive(&mut self) -> Result<Option<StoreError>, EngineError> {
        let mut store_error = None;
        loop {
            if store_error.is_none() {
                self.start_ready();
            }
            let to_come = !self.sleeping.is_empty() || !self.asking.is_empty();
            let none_to_come = !to_come || store_error.is_some() || !self.may_start();
            if self.working.is_empty() && none_to_come {
                break;
            }
            let mut batch = Batch::default();
            let told = self.take_all(&mut batch, store_error.is_some());
            self.hand_over(&batch);
            if !told {
                self.journal.notifier.hand_over();
                let Some(first) = self.inbox.blocking_recv() else { break };
                self.take(first, &mut batch, store_error.is_some());
                self.take_all(&mut batch, store_error.is_some());
            }
            self.gather(&mut batch, store_error.is_some());
            self.note_stop(&mut batch);
            match self.finish(batch) {
                Err(EngineError::Store(error)) if store_error.is_none() => store_error = Some(error),
                Err(EngineError::Store(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
            if self.control.asked() == Some(Stop::AtOnce) {
                for work in self.working.values() {
                    if let Work::Spawned(handle) = work {
                        handle.abort();
                    }
                }
                break;
            }
        }
        self.journal.notifier.hand_over();
        Ok(store_error)
    }

    pub(super) fn outcome(&self) -> Outcome {
        let state = &self.journal.state;
        if self.undo.is_some() {
            return self.undo_outcome();
        }
        if state.all_passed() {
            Outcome::Succeeded
        } else if state.in_state(TaskState::Unknown).next().is_some() {
            Outcome::Undecided
        } else if self.control.asked().is_some() {
            Outcome::Interrupted
        } else {
            Outcome::Failed
        }
    }

    /// Whether anything new may be started.
    pub(super) fn may_start(&self) -> bool {
        let more = match &self.undo {
            // Nothing is taken back before all is settled, nor after a failure.
            Some(undo) => self.settling.is_empty() && !undo.stopped,
            None => self.max_failures.is_none_or(|most| self.failures < most),
        };
        self.control.asked().is_none() && more
    }

    fn start_ready(&mut self) {
        // A gate lets by what failed: what an earlier process left at work behind it is settled before
        // that is tried again, or more would be at work at once than `serial` says.
        if !self.settling.is_empty() && self.journal.state.shape().has_gates() {
            return;
        }
        while self.may_start() {
            let Some(node) = self.queue.pop() else { break };
            if self.undo.is_some() {
                self.start_undo(node);
                continue;
            }
            let attempt = self.journal.state.attempt(node) + 1;
            if let Some(task) = self.env.task(node) {
                self.env.notices.hold(Notice::Started { task: task.name.clone(), attempt });
            }
            let work = executor::run(Arc::clone(&self.env), node, attempt, self.sender.clone());
            self.working.insert(node, poll(Box::pin(work)));
        }
    }

    /// A task is ready: at once, or after the wait before another attempt.
    pub(super) fn enqueue(&mut self, node: NodeId) {
        let Some(delay) = self.delays.remove(&node).filter(|delay| !delay.is_zero()) else {
            self.queue.push(node);
            return;
        };
        self.sleeping.insert(node);
        let sender = self.sender.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = sender.send(Message::Due { node });
        });
    }

    fn settle(&mut self, node: NodeId, change: Change) {
        let attempt = self.journal.state.attempt(node);
        self.settling.insert(node);
        self.queue.take(node);
        if matches!(self.journal.state.task(node), TaskState::Undoing | TaskState::UndoUnknown) {
            return self.settle_undo(node);
        }
        let work = executor::settle(Arc::clone(&self.env), node, attempt, change, self.sender.clone());
        self.working.insert(node, Work::Spawned(self.runtime.spawn(work).abort_handle()));
    }

    /// Hands to the runtime whatever waits for anything but leave.
    fn hand_over(&mut self, batch: &Batch) {
        for (node, work) in &mut self.working {
            let asks = batch.leaves.iter().any(|(asking, _)| asking == node);
            if !asks && matches!(work, Work::Held(_)) {
                *work = spawn(&self.runtime, std::mem::replace(work, Work::Over));
            }
        }
    }

    /// Takes all messages that are there. False where there was none.
    fn take_all(&mut self, batch: &mut Batch, store_broken: bool) -> bool {
        let mut told = false;
        while let Ok(next) = self.inbox.try_recv() {
            self.take(next, batch, store_broken);
            told = true;
        }
        told
    }

    /// What was only found as it should be, and lets nothing start yet, waits a moment for what others at work find:
    /// all of it then shares a commit. Lost, it would be found again.
    fn gather(&mut self, batch: &mut Batch, store_broken: bool) {
        let until = tokio::time::Instant::now() + MOMENT;
        while !store_broken && self.may_wait(batch) {
            let next = tokio::time::timeout_at(until, self.inbox.recv());
            let Ok(Some(message)) = self.runtime.block_on(next) else { return };
            self.take(message, batch, store_broken);
            self.take_all(batch, store_broken);
        }
    }

    fn may_wait(&self, batch: &Batch) -> bool {
        let only_found = |event: &Event| matches!(event, Event::TaskSatisfied { .. });
        !self.working.is_empty()
            && !batch.events.is_empty()
            && batch.leaves.is_empty()
            && batch.events.iter().all(only_found)
            && !self.journal.state.would_free(batch.outputs.iter().map(|(node, _)| *node))
    }

    pub(super) fn name(&self, node: NodeId) -> TaskName {
        self.env.task(node).map_or_else(|| TaskName::from_text(""), |task| task.name.clone())
    }

    fn take(&mut self, message: Message, batch: &mut Batch, store_broken: bool) {
        match message {
            Message::Stop => {}
            Message::Pending { node, attempt, change, leave } => {
                // After a stop, or where the intent can't be recorded, `leave` is dropped: no effect
                // without a durable intent.
                if self.may_start() && !store_broken {
                    batch.events.push(Event::TaskIntended { task: self.name(node), attempt, change });
                    batch.leaves.push((node, leave));
                }
            }
            Message::Undoing { node, attempt, leave } => {
                if !store_broken {
                    self.take_undoing(node, attempt, leave, batch);
                }
            }
            Message::Finished { node, attempt, end } => {
                self.working.remove(&node);
                self.settling.remove(&node);
                self.queue.release(node);
                self.settled(&end);
                self.take_end(node, attempt, end, batch);
            }
            Message::Answer(signal) => self.answer(signal, batch),
            Message::Look => self.look_for_answers(batch),
            Message::Expired { node, attempt } => self.expire(node, attempt, batch),
            Message::Due { node } => {
                if self.sleeping.remove(&node) {
                    self.queue.push(node);
                }
            }
        }
    }

    fn take_end(&mut self, node: NodeId, attempt: u32, end: End, batch: &mut Batch) {
        let task = self.name(node);
        match end {
            End::NotStarted => {}
            End::Asks(message) => self.ask(node, attempt, &message, batch),
            End::Skipped(why) => batch.events.push(Event::TaskSkipped { task, why }),
            End::Chosen(hosts) => {
                batch.outputs.push((node, chosen_output(&hosts)));
                batch.events.push(Event::HostsChosen { task, hosts });
            }
            End::Satisfied(output) => {
                batch.outputs.push((node, output.clone()));
                batch.events.push(Event::TaskSatisfied { task, output });
            }
            End::Done(output) => {
                batch.outputs.push((node, output.clone()));
                batch.events.push(Event::TaskDone { task, attempt, output, by: None });
            }
            End::NotDone => batch.events.push(Event::TaskNotDone { task, attempt, by: Settler::Step }),
            End::Unknown(error) => {
                let error = self.journal.masked_error(error);
                self.note_failure(node, &error, batch);
                batch.events.push(Event::TaskUnknown { task, attempt, error });
            }
            End::Failed(error) => {
                let error = self.journal.masked_error(error);
                let backoff = self.backoff(node, attempt, &error);
                match backoff {
                    Some(backoff) => {
                        self.delays.insert(node, backoff);
                    }
                    None => self.note_failure(node, &error, batch),
                }
                let retry_in_ms = backoff.map(|backoff| backoff.as_millis() as u64);
                batch.events.push(Event::TaskFailed { task, attempt, error, retry_in_ms });
            }
            end => self.take_undo_end(node, attempt, end, batch),
        }
    }

    pub(super) fn note_failure(&mut self, node: NodeId, error: &StepError, batch: &mut Batch) {
        self.errors.insert(node, error.clone());
        self.failures += 1;
        if self.max_failures == Some(self.failures) {
            batch.note = Some(match self.failures {
                1 => "a task failed, so nothing new is started (`max_failures` is 1)".to_owned(),
                n => format!("{n} tasks failed, so nothing new is started (`max_failures` is {n})"),
            });
        }
    }

    /// The wait before the next attempt; none where there is none.
    fn backoff(&self, node: NodeId, attempt: u32, error: &StepError) -> Option<Duration> {
        let task = self.env.task(node)?;
        let retry = self.env.plan.steps[task.step].def.retry;
        // Attempts of earlier processes count too: a run that is resumed again and again gets one each.
        if error.permanent || attempt > retry.retries || !self.may_start() {
            return None;
        }
        Some(retry.wait(attempt))
    }

    fn note_stop(&mut self, batch: &mut Batch) {
        let asked = self.control.asked();
        if asked > self.stop_told {
            self.stop_told = asked;
            batch.events.push(Event::RunInterrupted { at_once: asked == Some(Stop::AtOnce) });
        }
    }

    /// Makes the batch durable, then lets go on what waited for it.
    fn finish(&mut self, batch: Batch) -> Result<(), EngineError> {
        if !batch.events.is_empty() {
            let mut ready = Vec::new();
            self.journal.commit(batch.events, &mut ready)?;
            // Outputs are set as they were stored, masked, so that a resumed run sees the same.
            for (node, mut output) in batch.outputs {
                output.0.values_mut().for_each(|value| self.journal.redactor.value(value));
                self.env.ahead.known(node, &output);
                self.env.outputs.set(node, output);
            }
            for node in ready {
                self.enqueue(node);
            }
            if let Some(note) = batch.note {
                self.env.notices.hold(Notice::Note(note));
            }
        }
        self.tell_asked(&batch.asked);
        for number in batch.answered {
            self.journal.store.take_off(&self.journal.run, number)?;
        }
        for (node, leave) in batch.leaves {
            let _ = leave.send(());
            if let Some(work @ Work::Held(_)) = self.working.get_mut(&node) {
                let polled = match std::mem::replace(work, Work::Over) {
                    Work::Held(held) => poll(held),
                    other => other,
                };
                *work = spawn(&self.runtime, polled);
            }
        }
        Ok(())
    }
}

/// Lets an executor go on here as far as it gets at once.
pub(super) fn poll(mut work: Pin<Box<dyn Future<Output = ()> + Send>>) -> Work {
    // No one is woken: the runtime polls it again when it is handed over, or it is polled here again.
    match work.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(()) => Work::Over,
        Poll::Pending => Work::Held(work),
    }
}

fn spawn(runtime: &Handle, work: Work) -> Work {
    match work {
        Work::Held(held) => Work::Spawned(runtime.spawn(held).abort_handle()),
        other => other,
    }
}
