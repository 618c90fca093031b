//! Takes one task back, or, for an undo that was found without a result, settles what became of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::UndoAction;
use super::attempt::SETTLE_PATIENCE;
use super::control::Message;
use super::executor::{End, Env, Prepared, panicked};

use crate::run::NodeId;
use crate::step::{Change, Check, Outcome, Output, Resolved, StepError, UndoError};

/// An attempt to take a task back.
pub(super) struct Job {
    pub(super) node: NodeId,
    pub(super) attempt: u32,
    pub(super) action: UndoAction,
    pub(super) change: Change,
}

/// Takes a task back.
pub(super) async fn take_back(env: Arc<Env>, job: Job, scheduler: mpsc::UnboundedSender<Message>) {
    let work = AssertUnwindSafe(env.take_back(&job, &scheduler)).catch_unwind();
    let end = work.await.unwrap_or_else(|panic| End::UndoFailed(panicked(&*panic)));
    let _ = scheduler.send(Message::Finished { node: job.node, attempt: job.attempt, end });
}

/// Settles an undo that was found without a result.
pub(super) async fn settle(env: Arc<Env>, job: Job, scheduler: mpsc::UnboundedSender<Message>) {
    let work = AssertUnwindSafe(async {
        let lost = StepError::lost("the process that took it back ended before the result was recorded");
        match env.prepare_unconditionally(job.node, job.attempt) {
            Ok(prepared) => env.settle_undo(&job, &prepared, lost, true).await,
            Err(error) => End::UndoUnknown(error),
        }
    })
    .catch_unwind();
    let end = work.await.unwrap_or_else(|panic| End::UndoUnknown(panicked(&*panic)));
    let _ = scheduler.send(Message::Finished { node: job.node, attempt: job.attempt, end });
}

impl Env {
    async fn take_back(&self, job: &Job, scheduler: &mpsc::UnboundedSender<Message>) -> End {
        match &job.action {
            UndoAction::Keep(why) => return End::Kept(why.clone()),
            UndoAction::Impossible(why) => {
                return End::UndoFailed(StepError::permanent(format!("it can't be taken back: {why}")));
            }
            UndoAction::TakeBack => {}
        }
        // No condition is looked at: it was true, or nothing would have been begun.
        let prepared = match self.prepare_unconditionally(job.node, job.attempt) {
            Ok(prepared) => prepared,
            Err(error) => return End::UndoFailed(error),
        };
        let (leave, granted) = oneshot::channel();
        let _ = scheduler.send(Message::Undoing { node: job.node, attempt: job.attempt, leave });
        if granted.await.is_err() {
            return End::NotStarted;
        }
        self.undo(job, &prepared).await
    }

    async fn undo(&self, job: &Job, prepared: &Prepared) -> End {
        let output = self.output(job.node);
        let timeout = self.task(job.node).and_then(|task| self.plan.steps[task.step].def.timeout);
        let work = prepared.step.undo(&prepared.cx, &job.change, output.as_ref());
        let undone = match timeout {
            None => work.await,
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(undone) => undone,
                Err(_) => {
                    Err(StepError::lost(format!("it took longer than {} s", limit.as_secs_f64())).into())
                }
            },
        };
        match undone {
            Ok(()) => verify(prepared).await,
            Err(UndoError::Impossible) => {
                End::UndoFailed(StepError::permanent(UndoError::Impossible.to_string()))
            }
            Err(UndoError::Failed(error)) if error.outcome == Outcome::Lost => {
                self.settle_undo(job, prepared, error, false).await
            }
            Err(UndoError::Failed(error)) => End::UndoFailed(error),
        }
    }

    /// What became of an undo whose answer was lost. Asks the host until it answers, for a while; an
    /// attempt that is still alive is waited for.
    async fn settle_undo(&self, job: &Job, prepared: &Prepared, lost: StepError, after_crash: bool) -> End {
        let output = self.output(job.node);
        let mut deadline = tokio::time::Instant::now() + SETTLE_PATIENCE;
        let mut pause = Duration::from_millis(100);
        loop {
            let answer = match self.alive(job.node, prepared).await {
                Ok(true) => Ok(Resolved::Running),
                Ok(false) => prepared.step.resolve_undo(&prepared.cx, &job.change, output.as_ref()).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Resolved::Done(_)) => return End::Undone,
                Ok(Resolved::NotDone) if after_crash => return End::UndoNotDone,
                Ok(Resolved::NotDone) => {
                    return End::UndoLost(StepError { outcome: Outcome::Failed, ..lost });
                }
                Ok(Resolved::Unknown(why)) => {
                    let detail = Some(lost.message);
                    return End::UndoUnknown(StepError { detail, ..StepError::failed(why) });
                }
                Ok(Resolved::Running) => {
                    prepared
                        .cx
                        .progress("an earlier attempt is still at work on the host; waiting for its end");
                    deadline = tokio::time::Instant::now() + SETTLE_PATIENCE;
                }
                Err(error) if error.permanent || tokio::time::Instant::now() > deadline => {
                    return End::UndoUnknown(StepError { detail: Some(lost.message), ..error });
                }
                Err(error) => prepared.cx.progress(format!("asking what became of it: {error}")),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    pub(super) fn output(&self, node: NodeId) -> Option<Output> {
        self.outputs.get(node as usize).cloned()
    }
}

/// After `undo` comes `check`: still satisfied is a failure. What can't be looked at any more, such as a
/// service that is gone by now, is taken at the undo's word.
async fn verify(prepared: &Prepared) -> End {
    if !prepared.step.verifiable() {
        return End::Undone;
    }
    match prepared.step.check(&prepared.cx).await {
        Ok(Check::Satisfied(_)) => {
            End::UndoFailed(StepError::failed("it did not take: all is still as the step made it"))
        }
        _ => End::Undone,
    }
}
