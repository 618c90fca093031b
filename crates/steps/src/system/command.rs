//! `command`: a shell script, for what no other step type does.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flow_core::step::{
    Change, Check, Context, Output, Resolved, Secret, Step, StepError, StepType, UndoError,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{self, AttemptState, Host, HostContext, Reply};
use crate::support::exit_error;

/// Runs a shell script on the host.
///
/// Say how it is known that nothing is left to do, with `creates`, `unless` or `check`, or say
/// `repeatable = true` where running it twice does no harm. Without any of these a run that was
/// interrupted while the script ran stops and asks: a bare command is never guessed to be done.
/// Output: `code`, `stdout`, `stderr`; with `secret_output` only `code`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// A POSIX shell script.
    pub script: String,
    /// A path that the script makes: where it exists, nothing is done. Looked at afterwards too.
    #[serde(default)]
    pub creates: Option<String>,
    /// A script that changes nothing, run as root before: where it exits 0, nothing is done.
    #[serde(default)]
    pub unless: Option<String>,
    /// A script that changes nothing, run as root before and after: it exits 0 once all is as it should be.
    #[serde(default)]
    pub check: Option<String>,
    /// The script may be run again after an interruption. It runs in every run.
    #[serde(default)]
    pub repeatable: bool,
    /// Exit statuses that are no failure. `[0]` by default.
    #[serde(default = "zero")]
    pub accept: Vec<i32>,
    /// Sent on standard input.
    #[serde(default)]
    pub stdin: Option<Secret>,
    /// The directory to run in; the user's home by default.
    #[serde(default)]
    pub directory: Option<String>,
    /// The user to run as; root by default.
    #[serde(default)]
    pub user: Option<String>,
    /// Environment variables. Put secrets here: they stand on no command line.
    #[serde(default)]
    pub environment: BTreeMap<String, Secret>,
    /// Run as a systemd unit that outlives a lost connection. For what takes long.
    #[serde(default)]
    pub detached: bool,
    /// What the script writes is secret, that of `undo` too: it is dropped on the host, and is in no record, on no
    /// screen and in no error. Later steps get the exit status. What they need of it, let the script write into a
    /// file that only root reads.
    #[serde(default)]
    pub secret_output: bool,
    /// A script that takes back what `script` did, or a part of it; for `flow undo`. Run as the same user, in the
    /// same way; it exits 0 where nothing is left to take back. After an interruption it is run again.
    #[serde(default)]
    pub undo: Option<String>,
}

fn zero() -> Vec<i32> {
    vec![0]
}

impl StepType for Command {
    const NAME: &'static str = "command";
    const UNDOABLE: bool = true;
    const UNDO_ARGUMENT: Option<&'static str> = Some("undo");

    fn validate(&self) -> Result<(), String> {
        if self.script.trim().is_empty() {
            return Err("`script` is empty".to_owned());
        }
        if self.undo.as_ref().is_some_and(|undo| undo.trim().is_empty()) {
            return Err("`undo` is empty".to_owned());
        }
        if self.detached && self.stdin.is_some() {
            return Err("`stdin` can't be given to a detached command".to_owned());
        }
        if self.accept.is_empty() {
            return Err("`accept` is empty: no exit status would do".to_owned());
        }
        Ok(())
    }
}

impl Command {
    /// Whether one of the ways to know says that nothing is left to do.
    async fn satisfied(&self, host: &dyn Host, before: bool) -> Result<bool, StepError> {
        let created = async {
            match &self.creates {
                Some(path) => host.stat(path).await.map(|stat| stat.is_some()),
                None => Ok(false),
            }
        };
        let unless = zero_exit(host, self.unless.as_deref().filter(|_| before));
        let check = zero_exit(host, self.check.as_deref());
        let (created, unless, check) = tokio::try_join!(created, unless, check)?;
        Ok(created || unless || check)
    }

    /// A script as this command is run.
    fn command(&self, script: &str) -> host::Command {
        host::Command {
            script: script.to_owned(),
            stdin: None,
            directory: self.directory.clone(),
            user: self.user.clone(),
            environment: self.environment.clone(),
            detached: self.detached,
            silent: self.secret_output,
        }
    }

    fn judge(&self, reply: &Reply) -> Result<Output, StepError> {
        if self.accept.contains(&reply.code) { Ok(self.output(reply)) } else { Err(self.error(reply)) }
    }

    fn output(&self, reply: &Reply) -> Output {
        let output = Output::empty().with("code", reply.code);
        if self.secret_output {
            return output;
        }
        output.with("stdout", reply.text()).with("stderr", reply.error_text())
    }

    fn error(&self, reply: &Reply) -> StepError {
        if !self.secret_output {
            return exit_error(reply);
        }
        StepError::failed(format!("exit status {}", reply.code)).with_hint(
            "what it wrote is secret and was dropped (`secret_output`); run it by hand on the host to see it",
        )
    }

    fn first_line(&self) -> &str {
        self.script.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
    }
}

async fn zero_exit(host: &dyn Host, script: Option<&str>) -> Result<bool, host::HostError> {
    match script {
        Some(script) => host.probe(script).await.map(|reply| reply.success()),
        None => Ok(false),
    }
}

#[async_trait]
impl Step for Command {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        if self.satisfied(&*host, true).await? {
            return Ok(Check::Satisfied(self.output(&Reply::default())));
        }
        let mut change = Change::new(format!("run: {}", self.first_line()));
        if self.script.trim().lines().count() > 1 {
            change = change.with_diff(self.script.trim());
        }
        Ok(Check::Pending(change))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let command = host::Command { stdin: self.stdin.clone(), ..self.command(&self.script) };
        let reply = cx.host().await?.run(cx.attempt(), &command).await?;
        self.judge(&reply)
    }

    async fn undo(&self, cx: &Context, _change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let Some(undo) = &self.undo else { return Err(UndoError::Impossible) };
        let reply = cx.host().await?.run(cx.attempt(), &self.command(undo)).await.map_err(StepError::from)?;
        if reply.success() { Ok(()) } else { Err(self.error(&reply).into()) }
    }

    async fn resolve_undo(
        &self,
        cx: &Context,
        _change: &Change,
        _output: Option<&Output>,
    ) -> Result<Resolved, StepError> {
        Ok(match cx.host().await?.attempt(cx.attempt()).await? {
            AttemptState::Running => Resolved::Running,
            AttemptState::Ended(Some(reply)) if reply.success() => Resolved::Done(Output::empty()),
            _ => Resolved::NotDone,
        })
    }

    fn verifiable(&self) -> bool {
        self.creates.is_some() || self.check.is_some()
    }

    async fn resolve(&self, cx: &Context, _change: &Change) -> Result<Resolved, StepError> {
        let host = cx.host().await?;
        match host.attempt(cx.attempt()).await? {
            AttemptState::Running => return Ok(Resolved::Running),
            // What the command itself answered is the best there is.
            AttemptState::Ended(Some(reply)) => {
                return Ok(self.judge(&reply).map_or(Resolved::NotDone, Resolved::Done));
            }
            AttemptState::Ended(None) | AttemptState::Absent => {}
        }
        if self.satisfied(&*host, true).await? {
            return Ok(Resolved::Done(self.output(&Reply::default())));
        }
        let known = self.verifiable() || self.unless.is_some() || self.repeatable;
        Ok(if known {
            Resolved::NotDone
        } else {
            Resolved::Unknown(format!(
                "nobody can tell whether `{}` ran to its end: it has no `creates`, `unless`, `check` or `repeatable`",
                self.first_line()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{Fault, FaultKind};
    use crate::testing::{Lab, done, pending, satisfied};
    use serde_json::json;

    fn command(with: serde_json::Value) -> Command {
        serde_json::from_value(with).unwrap()
    }

    #[tokio::test]
    async fn what_a_command_creates_says_that_nothing_is_left_to_do() {
        let lab = Lab::bare().await;
        let step = command(json!({ "script": "touch /root/made", "creates": "/root/made" }));
        let (change, output) = lab.establish(&step, &lab.on("patroni1")).await;
        assert_eq!(change.summary, "run: touch /root/made");
        assert_eq!(output.0["code"], 0);
    }

    #[tokio::test]
    async fn an_exit_status_that_is_not_accepted_fails_with_its_words() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = command(json!({ "script": "cat /no/such", "repeatable": true }));
        let error = step.apply(&cx, &Change::default()).await.unwrap_err();
        assert_eq!(error.message, "exit status 1: /no/such: No such file or directory");
        let step = command(json!({ "script": "cat /no/such", "accept": [0, 1] }));
        assert_eq!(step.apply(&cx, &Change::default()).await.unwrap().0["code"], 1);
    }

    #[tokio::test]
    async fn unless_is_looked_at_before_and_check_afterwards_too() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = command(json!({ "script": "touch /root/a", "unless": "test -e /root/a" }));
        pending(step.check(&cx).await.unwrap());
        assert!(!step.verifiable());
        let step = command(json!({ "script": "touch /root/b", "check": "test -e /root/b" }));
        lab.establish(&step, &cx).await;
        assert!(step.verifiable());
    }

    #[tokio::test]
    async fn a_bare_command_that_was_interrupted_is_never_guessed() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let bare = command(json!({ "script": "touch /root/made" }));
        let change = pending(bare.check(&cx).await.unwrap());
        lab.world.inject(Fault::at("patroni1", "run touch", FaultKind::LoseAnswer)).unwrap();
        bare.apply(&cx, &change).await.unwrap_err();
        let Resolved::Unknown(why) = bare.resolve(&cx, &change).await.unwrap() else { panic!("known") };
        assert!(why.contains("touch /root/made"), "{why}");
        let again = command(json!({ "script": "touch /root/made", "repeatable": true }));
        assert_eq!(again.resolve(&cx, &change).await.unwrap(), Resolved::NotDone);
        let created = command(json!({ "script": "touch /root/made", "creates": "/root/made" }));
        done(created.resolve(&cx, &change).await.unwrap());
    }

    #[tokio::test]
    async fn a_detached_command_is_resolved_by_what_it_answered() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = command(json!({ "script": "echo hello", "detached": true }));
        lab.world.inject(Fault::at("patroni1", "run echo", FaultKind::LoseAnswer)).unwrap();
        step.apply(&cx, &Change::default()).await.unwrap_err();
        assert_eq!(done(step.resolve(&cx, &Change::default()).await.unwrap()).0["stdout"], "hello");
    }

    #[tokio::test]
    async fn a_command_is_taken_back_by_the_script_that_it_has_for_that() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let with =
            json!({ "script": "touch /root/made", "creates": "/root/made", "undo": "rm -f /root/made" });
        let step = command(with);
        let (change, output) = lab.establish(&step, &cx).await;
        step.undo(&cx, &change, Some(&output)).await.unwrap();
        pending(step.check(&cx).await.unwrap());
        let failing = command(json!({ "script": "true", "undo": "cat /no/such" }));
        let error = failing.undo(&cx, &change, None).await.unwrap_err();
        assert_eq!(error.to_string(), "exit status 1: /no/such: No such file or directory");
        let without = command(json!({ "script": "true" }));
        assert!(matches!(without.undo(&cx, &change, None).await, Err(UndoError::Impossible)));
    }

    #[tokio::test]
    async fn what_a_command_with_secret_output_writes_is_in_no_output_and_no_error() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        for detached in [false, true] {
            let with = json!({ "script": "echo hello", "secret_output": true, "detached": detached });
            let step = command(with);
            let output = step.apply(&cx, &Change::default()).await.unwrap();
            assert_eq!(output, Output::empty().with("code", 0));
            // Where it was kept, from before or by another program, it isn't taken from there.
            let kept = Reply { code: 0, stdout: b"hello".to_vec(), stderr: b"hello".to_vec() };
            assert_eq!(step.judge(&kept), Ok(output));
            let error = step.judge(&Reply { code: 1, ..kept }).unwrap_err();
            assert_eq!((error.message.as_str(), error.detail), ("exit status 1", None));
            assert!(error.hint.unwrap().contains("secret_output"));
        }
    }

    #[tokio::test]
    async fn the_script_of_several_lines_is_shown_whole() {
        let lab = Lab::bare().await;
        let step = command(json!({ "script": "\ntrue\nfalse\n" }));
        let change = pending(step.check(&lab.on("patroni1")).await.unwrap());
        assert_eq!((change.summary.as_str(), change.diff.as_deref()), ("run: true", Some("true\nfalse")));
        let created = command(json!({ "script": "true", "creates": "/root" }));
        satisfied(created.check(&lab.on("patroni1")).await.unwrap());
    }

    #[test]
    fn standard_input_of_a_detached_command_is_refused() {
        assert!(command(json!({ "script": "x", "stdin": "y", "detached": true })).validate().is_err());
        assert!(command(json!({ "script": " " })).validate().is_err());
    }
}
