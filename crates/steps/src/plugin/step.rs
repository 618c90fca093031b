//! A step whose work a plugin does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Attempt, Change, Check, Context, Output, Resolved, Step, StepError, UndoError};
use serde_json::{Map, Value};

use super::calls::HostCalls;
use super::executable::Executable;
use super::process::{self, ATTEMPT, Question, Trouble};
use super::wire::{self, ApplyAnswer, CheckAnswer, ResolveAnswer, StepDescription, UndoAnswer, Work};
use crate::host::HostContext;

/// One step of a plugin's type.
pub(super) struct PluginStep {
    pub(super) executable: Arc<Executable>,
    pub(super) about: Arc<StepDescription>,
    pub(super) arguments: Map<String, Value>,
}

impl PluginStep {
    /// Asks the plugin. An answer that was lost while it may have changed something is `Lost`.
    async fn ask<T: for<'de> serde::Deserialize<'de>>(
        &self,
        cx: &Context,
        verb: &'static str,
        change: Option<&Change>,
        output: Option<&Output>,
    ) -> Result<T, StepError> {
        let changing = matches!(verb, "apply" | "undo");
        self.executable
            .unchanged()
            .map_err(|why| StepError::permanent(self.told(&why)).with_hint("`flow resume` reads it again"))?;
        let attempt = cx.attempt();
        let name = attempt.name();
        let question = Question {
            executable: self.executable.path(),
            verb,
            work: Some(Work {
                step: &self.about.name,
                arguments: &self.arguments,
                task: attempt.task.as_str(),
                host: cx.inventory_host().map(|host| host.name.as_str()),
                run: attempt.run.as_str(),
                attempt: &name,
                planning: cx.planning(),
                change,
                output,
            }),
            limit: Duration::from_secs(u64::from(if changing {
                self.about.change_seconds
            } else {
                self.about.look_seconds
            })),
            attempt: changing.then_some(name.as_str()),
        };
        let calls = HostCalls { cx, verb, may_change: changing };
        let answered = process::ask(question, &calls).await;
        let answer = answered.and_then(|answer| Ok(wire::answer(verb, answer)?));
        answer.map_err(|trouble| self.error(trouble, changing))
    }

    fn error(&self, trouble: Trouble, changing: bool) -> StepError {
        match trouble {
            Trouble::NotStarted(why) => StepError::failed(self.told(&why)),
            Trouble::Failed(failure) => failure.into(),
            Trouble::Host(error) => error,
            Trouble::Misbehaved { message, detail, always } => {
                let message = self.told(&message);
                // What it did before is anyone's guess: `resolve` settles it.
                let error = if changing { StepError::lost(message) } else { StepError::failed(message) };
                StepError { detail, permanent: always && !changing, ..error }
            }
        }
    }

    fn told(&self, what: &str) -> String {
        format!("the plugin {}: {what}", self.executable.path().display())
    }

    /// Proves that the run still holds the host: a plugin may act on it past flow, too.
    async fn fence(&self, cx: &Context) -> Result<(), StepError> {
        if cx.inventory_host().is_some() {
            cx.host().await?.fence(cx.attempt()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Step for PluginStep {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let answer: CheckAnswer = self.ask(cx, "check", None, None).await?;
        if self.about.read_only && matches!(answer, CheckAnswer::Pending(_)) {
            let message = self.told("it says that there is something to do, of a type that only looks");
            return Err(StepError::permanent(message));
        }
        Ok(answer.into())
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        self.fence(cx).await?;
        let ApplyAnswer::Done(output) = self.ask(cx, "apply", Some(change), None).await?;
        Ok(output)
    }

    fn verifiable(&self) -> bool {
        self.about.verifiable
    }

    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        if still_alive(cx.attempt()) {
            return Ok(Resolved::Running);
        }
        if self.about.resolves {
            let answer: ResolveAnswer = self.ask(cx, "resolve", Some(change), None).await?;
            return Ok(answer.into());
        }
        Ok(match self.check(cx).await? {
            Check::Satisfied(output) => Resolved::Done(output),
            Check::Pending(_) if self.about.verifiable => Resolved::NotDone,
            Check::Pending(_) => Resolved::Unknown(self.told("it has no way to tell whether it took")),
            Check::Deferred(why) | Check::Refused(why) => Resolved::Unknown(why),
        })
    }

    async fn undo(&self, cx: &Context, change: &Change, output: Option<&Output>) -> Result<(), UndoError> {
        if !self.about.undoable {
            return Err(UndoError::Impossible);
        }
        self.fence(cx).await?;
        let UndoAnswer::Undone = self.ask(cx, "undo", Some(change), output).await?;
        Ok(())
    }
}

/// Whether a process of that attempt lives on this machine, left behind by a flow that was killed.
/// It is known by its environment, which whatever it starts inherits.
fn still_alive(attempt: &Attempt) -> bool {
    let wanted = format!("{ATTEMPT}={}", attempt.name());
    let carries = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|process| process.path()).any(|process| carries(&process))
}
