//! One attempt, from its apply to its end: applied, then looked at again; or, where its answer was lost, settled.

use std::time::Duration;

use super::executor::{End, Env, Prepared};
use crate::run::NodeId;
use crate::step::{Change, Check, Outcome, Output, Resolved, StepError};

/// How often a wait is taken up again where what it waited for went away at once.
const WAITS_AGAIN: usize = 5;

/// How long a task that lost its host tries to reach it again before its outcome is called unknown.
pub(super) const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

impl Env {
    pub(super) async fn apply(&self, node: NodeId, prepared: &Prepared, change: &Change) -> End {
        let applied = self.apply_in_time(node, prepared, change).await;
        match applied {
            Ok(output) => self.verify(node, prepared, change, output).await,
            Err(error) if error.outcome == Outcome::Lost => {
                self.settle(node, prepared, change, error, false).await
            }
            Err(error) => End::Failed(error),
        }
    }

    async fn apply_in_time(
        &self,
        node: NodeId,
        prepared: &Prepared,
        change: &Change,
    ) -> Result<Output, StepError> {
        let timeout = self.task(node).and_then(|task| self.plan.steps[task.step].def.timeout);
        let work = prepared.step.apply(&prepared.cx, change);
        match timeout {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                Err(StepError::lost(format!("it took longer than {} s", limit.as_secs_f64())))
            }),
        }
    }

    /// After `apply` comes `check` again. Still pending is a failure, but for what is waited for: a connection that was
    /// cut may be told as one that stands, until it is gone a moment later. That is waited for again.
    async fn verify(&self, node: NodeId, prepared: &Prepared, change: &Change, mut output: Output) -> End {
        if !prepared.step.verifiable() {
            return End::Done(output);
        }
        let mut seen = prepared.step.check(&prepared.cx).await;
        if self.waits(node) {
            for _ in 0..WAITS_AGAIN {
                let Ok(Check::Pending(still)) = &seen else { break };
                match self.apply_in_time(node, prepared, still).await {
                    Ok(again) => output = again,
                    Err(error) if error.outcome == Outcome::Lost => {
                        return self.settle(node, prepared, change, error, false).await;
                    }
                    Err(error) => return End::Failed(error),
                }
                seen = prepared.step.check(&prepared.cx).await;
            }
        }
        match seen {
            Ok(Check::Satisfied(seen)) => End::Done(merge(seen, output)),
            Ok(Check::Pending(still)) => {
                let mut error = StepError::failed(format!("it did not take: {}", still.summary));
                error.detail = still.diff;
                End::Failed(error)
            }
            Ok(Check::Deferred(why) | Check::Refused(why)) => {
                End::Failed(StepError::failed(format!("it did not take: {why}")))
            }
            Err(error) => self.settle(node, prepared, change, error, false).await,
        }
    }

    /// What became of an attempt whose answer was lost. Asks the host until it answers, up to
    /// [`SETTLE_PATIENCE`]; an attempt that is still alive is waited for.
    pub(super) async fn settle(
        &self,
        node: NodeId,
        prepared: &Prepared,
        change: &Change,
        lost: StepError,
        after_crash: bool,
    ) -> End {
        let mut deadline = tokio::time::Instant::now() + SETTLE_PATIENCE;
        let mut pause = Duration::from_millis(100);
        loop {
            let answer = match self.alive(node, prepared).await {
                Ok(true) => Ok(Resolved::Running),
                Ok(false) => prepared.step.resolve(&prepared.cx, change).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Resolved::Done(output)) => return End::Done(output),
                // Within this process it counts as a failed attempt; after a crash it is simply made again.
                Ok(Resolved::NotDone) if after_crash => return End::NotDone,
                Ok(Resolved::NotDone) => return End::Failed(StepError { outcome: Outcome::Failed, ..lost }),
                Ok(Resolved::Unknown(why)) => {
                    return End::Unknown(StepError { detail: Some(lost.message), ..StepError::failed(why) });
                }
                Ok(Resolved::Running) => {
                    prepared
                        .cx
                        .progress("an earlier attempt is still at work on the host; waiting for its end");
                    deadline = tokio::time::Instant::now() + SETTLE_PATIENCE;
                }
                Err(error) if error.permanent || tokio::time::Instant::now() > deadline => {
                    return End::Unknown(StepError { detail: Some(lost.message), ..error });
                }
                Err(error) => prepared.cx.progress(format!("asking what became of it: {error}")),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    pub(super) async fn alive(&self, node: NodeId, prepared: &Prepared) -> Result<bool, StepError> {
        match (&self.fleet, self.task(node).and_then(|task| task.host.as_ref())) {
            (Some(fleet), Some(host)) => fleet.alive(host, prepared.cx.attempt()).await,
            _ => Ok(false),
        }
    }

    /// Whether its step only waits.
    pub(super) fn waits(&self, node: NodeId) -> bool {
        let step = self.task(node).map(|task| &self.plan.steps[task.step].def);
        step.and_then(|step| self.plan.registry.get(&step.uses.value)).is_some_and(|info| info.waits)
    }
}

/// What the check saw, overlaid by what `apply` said.
fn merge(mut seen: Output, said: Output) -> Output {
    seen.0.extend(said.0);
    seen
}
