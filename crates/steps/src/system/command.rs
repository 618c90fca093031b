//! `command`: a shell script, for what no other step type does.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{self, AttemptState, Host, HostContext, Reply};
use crate::support::exit_error;

/// Runs a shell script on the host.
///
/// Say how it is known that nothing is left to do, with `creates`, `unless` or `check`, or say
/// `repeatable = true` where running it twice does no harm. Without any of these a run that was
/// interrupted while the script ran stops and asks: a bare command is never guessed to be done.
/// Output: `code`, `stdout`, `stderr`.
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
}

fn zero() -> Vec<i32> {
    vec![0]
}

impl StepType for Command {
    const NAME: &'static str = "command";

    fn validate(&self) -> Result<(), String> {
        if self.script.trim().is_empty() {
            return Err("`script` is empty".to_owned());
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

    fn judge(&self, reply: &Reply) -> Result<Output, StepError> {
        if !self.accept.contains(&reply.code) {
            return Err(exit_error(reply));
        }
        Ok(output(reply))
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

fn output(reply: &Reply) -> Output {
    Output::empty().with("code", reply.code).with("stdout", reply.text()).with("stderr", reply.error_text())
}

#[async_trait]
impl Step for Command {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        if self.satisfied(&*host, true).await? {
            return Ok(Check::Satisfied(output(&Reply::default())));
        }
        let mut change = Change::new(format!("run: {}", self.first_line()));
        if self.script.trim().lines().count() > 1 {
            change = change.with_diff(self.script.trim());
        }
        Ok(Check::Pending(change))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let command = host::Command {
            script: self.script.clone(),
            stdin: self.stdin.clone(),
            directory: self.directory.clone(),
            user: self.user.clone(),
            environment: self.environment.clone(),
            detached: self.detached,
        };
        let reply = cx.host().await?.run(cx.attempt(), &command).await?;
        self.judge(&reply)
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
            return Ok(Resolved::Done(output(&Reply::default())));
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
