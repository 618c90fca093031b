//! `systemd.unit`: a unit that runs, or that has stopped for certain.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::content::validate_path;
use crate::host::{Host, HostChange, HostContext, Unit, UnitVerb};
use crate::support::{LOOK_EVERY, yes};

/// A systemd unit runs or has stopped, is enabled or not, masked or not.
///
/// What is not given is left as it is. "Stopped" is proven: no process of the unit's control group is
/// left, even where systemd calls the unit inactive (Debian's Patroni unit leaves its children alone). A unit
/// that is masked doesn't come back, neither after a reboot nor by somebody's `systemctl start`.
///
/// A running unit can be made to notice its configuration: `reload_after` and `restart_after` name its files. Whether it
/// has read them is told by times: a file that was written after the unit was started or reloaded is news to it, whoever
/// wrote it, and however long ago. A reload that failed counts for none.
///
/// Undo sets back what was different; what the unit wrote while it ran stays. Output: `active`, `invocation`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemdUnit {
    /// The unit: `patroni.service`.
    pub unit: String,
    /// `running` or `stopped`.
    #[serde(default)]
    pub state: Option<UnitTarget>,
    /// Starts at boot.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Can't be started at all, not even at boot.
    #[serde(default)]
    pub masked: Option<bool>,
    /// Files on the host, absolute paths. Where one was written since the unit was started or reloaded, it is reloaded;
    /// one that can't reload is restarted. With `running`, or without `state`: one that doesn't run stays so.
    #[serde(default)]
    pub reload_after: Vec<String>,
    /// The same, but the unit is restarted.
    #[serde(default)]
    pub restart_after: Vec<String>,
    /// With `stopped`: processes of its control group that live on are a failure. Set it to false only
    /// where a later step stops and proves them, such as `postgres.stopped`.
    #[serde(default = "yes")]
    pub no_process_left: bool,
    /// With `stopped`: seconds to wait for the last processes to end. 10 by default.
    #[serde(default = "ten")]
    pub grace: u64,
}

fn ten() -> u64 {
    10
}

/// What a unit is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnitTarget {
    /// It is active.
    Running,
    /// It has stopped, and no process of it is left.
    Stopped,
}

/// What was so before the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    active: bool,
    enabled: bool,
    masked: bool,
    invocation: String,
    /// What is done, in the order in which it is done.
    #[serde(default)]
    verbs: Vec<UnitVerb>,
}

impl StepType for SystemdUnit {
    const NAME: &'static str = "systemd.unit";
    const UNDOABLE: bool = true;
    const UNDO_LEAVES: Option<&'static str> = Some(
        "what the unit itself wrote while it ran, such as data and logs, and the configuration that it has read",
    );

    fn validate(&self) -> Result<(), String> {
        let files = || self.reload_after.iter().chain(&self.restart_after);
        let nothing = self.state.is_none() && self.enabled.is_none() && self.masked.is_none();
        if nothing && files().next().is_none() {
            return Err(
                "give at least one of `state`, `enabled`, `masked`, `reload_after` and `restart_after`"
                    .to_owned(),
            );
        }
        if self.state == Some(UnitTarget::Running) && self.masked == Some(true) {
            return Err("a masked unit can't be running".to_owned());
        }
        if self.state == Some(UnitTarget::Stopped) && files().next().is_some() {
            return Err(
                "`reload_after` and `restart_after` are for a unit that isn't to be stopped".to_owned()
            );
        }
        files().try_for_each(|path| validate_path(path))
    }
}

fn active(unit: &Unit) -> bool {
    matches!(unit.active.as_str(), "active" | "reloading")
}

/// Nothing of it goes on by itself: neither active, nor on its way, nor waiting to be started again.
fn down(unit: &Unit) -> bool {
    matches!(unit.active.as_str(), "inactive" | "failed")
}

fn enabled(unit: &Unit) -> bool {
    matches!(unit.file_state.as_str(), "enabled" | "enabled-runtime" | "static" | "alias" | "generated")
}

/// `active (running)`
fn words(unit: &Unit) -> String {
    if unit.load == "not-found" { "not there".to_owned() } else { format!("{} ({})", unit.active, unit.sub) }
}

impl SystemdUnit {
    /// A unit in a state, with or without a mask; for step types that are made of it.
    pub(crate) fn of(unit: &str, state: UnitTarget, masked: bool) -> Self {
        Self {
            unit: unit.to_owned(),
            state: Some(state),
            enabled: None,
            masked: Some(masked),
            reload_after: Vec::new(),
            restart_after: Vec::new(),
            no_process_left: true,
            grace: ten(),
        }
    }

    /// What of its configuration a running unit hasn't read yet: the verb for it, with its words.
    async fn news(&self, host: &dyn Host, unit: &Unit) -> Result<Option<(UnitVerb, String)>, StepError> {
        if !active(unit) {
            return Ok(None);
        }
        for (files, verb, word) in [
            (&self.restart_after, UnitVerb::Restart, "restart"),
            (&self.reload_after, UnitVerb::Reload, "reload"),
        ] {
            if files.is_empty() {
                continue;
            }
            let written = host.written_since(&self.unit, files).await?;
            if !written.is_empty() {
                return Ok(Some((verb, format!("{word}, since it hasn't read {} yet", written.join(", ")))));
            }
        }
        Ok(None)
    }

    /// What is to be done, each with its words.
    fn verbs(&self, unit: &Unit, news: Option<(UnitVerb, String)>) -> Vec<(UnitVerb, String)> {
        let mut verbs = Vec::new();
        if self.masked == Some(false) && unit.masked() {
            verbs.push((UnitVerb::Unmask, "masked -> unmasked".to_owned()));
        }
        match self.state {
            Some(UnitTarget::Running) if !active(unit) => {
                // A unit that failed too often refuses to start until that is forgotten.
                if unit.active == "failed" || unit.sub == "auto-restart" {
                    verbs.push((UnitVerb::ResetFailed, String::new()));
                }
                verbs.push((UnitVerb::Start, format!("{} -> running", words(unit))));
            }
            Some(UnitTarget::Stopped) if !down(unit) => {
                verbs.push((UnitVerb::Stop, format!("{} -> stopped", words(unit))));
            }
            _ => verbs.extend(news),
        }
        match self.enabled {
            // While it is masked, systemd doesn't say.
            Some(true) if !enabled(unit) && !unit.masked() => {
                verbs.push((UnitVerb::Enable, "disabled -> enabled".to_owned()));
            }
            Some(false) if unit.file_state.starts_with("enabled") => {
                verbs.push((UnitVerb::Disable, "enabled -> disabled".to_owned()));
            }
            _ => {}
        }
        // Last: stopping a masked unit goes by systemd's defaults, not by the unit's own settings.
        if self.masked == Some(true) && !unit.masked() {
            verbs.push((UnitVerb::Mask, "unmasked -> masked".to_owned()));
        }
        verbs
    }

    /// Processes that the stop left behind, as words; none: it has stopped for certain.
    async fn left_behind(&self, host: &dyn Host, unit: &Unit) -> Result<Option<String>, StepError> {
        let matters = self.state == Some(UnitTarget::Stopped) && self.no_process_left && down(unit);
        if !matters || unit.processes.is_empty() {
            return Ok(None);
        }
        let all = host.processes(&crate::host::ProcessQuery::default()).await?;
        let mut left: Vec<String> = all
            .iter()
            .filter(|process| unit.processes.contains(&process.pid))
            .take(3)
            .map(|process| format!("{} ({}: {})", process.pid, process.user, process.command))
            .collect();
        if left.is_empty() {
            return Ok(None);
        }
        if unit.processes.len() > left.len() {
            left.push(format!("{} in all", unit.processes.len()));
        }
        Ok(Some(format!(
            "{} is {}, but processes of it are left: {}",
            self.unit,
            unit.active,
            left.join(", ")
        )))
    }

    async fn await_end(&self, host: &dyn Host) -> Result<(), StepError> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.grace);
        loop {
            let unit = host.unit(&self.unit).await?;
            let Some(left) = self.left_behind(host, &unit).await? else { return Ok(()) };
            if tokio::time::Instant::now() >= deadline {
                return Err(StepError::failed(left).with_hint(
                    "end them in their own way first, such as `pg_ctl stop -m fast`: Patroni in pause leaves PostgreSQL running",
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn output(unit: &Unit) -> Output {
        Output::empty().with("active", &unit.active).with("invocation", &unit.invocation)
    }
}

#[async_trait]
impl Step for SystemdUnit {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let unit = host.unit(&self.unit).await?;
        let must_exist = self.state == Some(UnitTarget::Running) || self.enabled == Some(true);
        if unit.load == "not-found" && must_exist {
            let missing = format!("there is no unit {}", self.unit);
            return Ok(if cx.planning() {
                Check::Deferred(missing + " yet")
            } else {
                Check::Refused(missing)
            });
        }
        let verbs = self.verbs(&unit, self.news(&*host, &unit).await?);
        if verbs.is_empty() {
            // Known to be down, so nothing is left to do here that systemd could do.
            return Ok(match self.left_behind(&*host, &unit).await? {
                Some(left) => Check::Refused(left),
                None => Check::Satisfied(Self::output(&unit)),
            });
        }
        let before = Before {
            active: !down(&unit),
            enabled: enabled(&unit),
            masked: unit.masked(),
            invocation: unit.invocation.clone(),
            verbs: verbs.iter().map(|(verb, _)| *verb).collect(),
        };
        let words: Vec<String> =
            verbs.into_iter().map(|(_, words)| words).filter(|words| !words.is_empty()).collect();
        Ok(Check::Pending(Change::new(format!("{}: {}", self.unit, words.join(", "))).with_data(before)))
    }

    /// What is done to which unit. What is only in the way of a start counts with it: a unit that restarts again
    /// and again is in another state at every look, and one that this run has masked meanwhile is unmasked first.
    fn invariant(&self, change: &Change) -> serde_json::Value {
        let mut verbs = change.data::<Before>().map(|before| before.verbs).unwrap_or_default();
        let starts = verbs.contains(&UnitVerb::Start);
        verbs.retain(|verb| *verb != UnitVerb::ResetFailed && !(starts && *verb == UnitVerb::Unmask));
        serde_json::json!({ "unit": self.unit, "verbs": verbs })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        self.carry_out(cx).await
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let before: Before = change.data()?;
        let back = Self {
            state: self.state.map(|_| if before.active { UnitTarget::Running } else { UnitTarget::Stopped }),
            // Of a masked unit systemd doesn't tell whether it is enabled; it stays as it is below the mask.
            enabled: self.enabled.filter(|_| !before.masked).map(|_| before.enabled),
            masked: self.masked.map(|_| before.masked),
            ..self.clone()
        };
        back.carry_out(cx).await?;
        Ok(())
    }
}

impl SystemdUnit {
    /// Brings the unit to where it is to be, from wherever it is.
    async fn carry_out(&self, cx: &Context) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let unit = host.unit(&self.unit).await?;
        let mut verbs = VecDeque::from(self.verbs(&unit, self.news(&*host, &unit).await?));
        while let Some((verb, words)) = verbs.pop_front() {
            if !words.is_empty() {
                cx.progress(format!("{}: {words}", self.unit));
            }
            host.change(cx.attempt(), &HostChange::Unit { unit: self.unit.clone(), verb }).await?;
            match verb {
                UnitVerb::Stop => self.await_end(&*host).await?,
                UnitVerb::Unmask => {
                    // Only now does it show whether the unit is enabled.
                    verbs = self.verbs(&host.unit(&self.unit).await?, None).into();
                }
                _ => {}
            }
        }
        Ok(Self::output(&host.unit(&self.unit).await?))
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
