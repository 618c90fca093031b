//! `patroni.archiving_off`, `patroni.archiving_on`: PostgreSQL on a host archives nothing, until an operator opens the cluster.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Switch;
use super::text::ARCHIVING;
use crate::host::{Host, HostContext};
use crate::patroni::archive::{Archive, look};
use crate::patroni::rest::{Api, Report, report};
use crate::patroni::settings::Settings;

/// PostgreSQL on this host archives no WAL: `archive_command` and `archive_library` are empty in Patroni's configuration file, until
/// `patroni.archiving_on` puts them back.
///
/// A new cluster begins its WAL's names anew, and would mix up the archive of the one before, or overwrite it. Without a command PostgreSQL keeps its
/// WAL. The host's file goes before the dynamic configuration, so this holds wherever the command was set. Only these lines are written, each with a
/// comment that names the run; where `archive_mode` is off or no command is set, nothing is. Patroni reads the file when it starts, or is reloaded.
/// Refused: a file in which `postgresql.parameters` can't be written so. Undo puts the lines back. Output: `was_on` (those that were on).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniArchivingOff {
    /// The dynamic configuration, as `etcd.prefix_saved` gives it: `"{{ steps.keys.config }}"`. By default none but what the data directory keeps of it.
    #[serde(default)]
    pub dynamic: Option<Value>,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "crate::patroni::config_file")]
    pub config_file: String,
}

impl StepType for PatroniArchivingOff {
    const NAME: &'static str = "patroni.archiving_off";
    const UNDOABLE: bool = true;
}

impl PatroniArchivingOff {
    fn switch(&self) -> Switch<'_> {
        Switch {
            off: &ARCHIVING,
            dynamic: self.dynamic.as_ref(),
            as_before: false,
            config_file: &self.config_file,
        }
    }
}

#[async_trait]
impl Step for PatroniArchivingOff {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        self.switch().check(cx).await
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        self.switch().apply(cx, change).await
    }

    async fn undo(&self, cx: &Context, _change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        self.switch().undo(cx).await
    }
}

/// PostgreSQL on this host archives its WAL again: what `patroni.archiving_off` wrote is taken out of Patroni's configuration file, whichever run wrote it.
///
/// Refused where the new cluster's WAL could come among another one's: pgBackRest's stanza must take WAL of this cluster's system identifier
/// (`stanza-upgrade`); of any other command, or a repository that doesn't answer, `archive_is_new` must say that nothing of the former
/// cluster is in its way. Where archiving isn't off by a run, nothing is done. Patroni reads the file when it is reloaded. Output: `was_on` (those that are on again), `command` (without secrets, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniArchivingOn {
    /// Nothing of a former cluster is in the archive into which flow can't look. False by default.
    #[serde(default)]
    pub archive_is_new: bool,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "crate::patroni::config_file")]
    pub config_file: String,
}

impl StepType for PatroniArchivingOn {
    const NAME: &'static str = "patroni.archiving_on";
    const DESTRUCTIVE: bool = true;
    const NOT_UNDOABLE: &'static str = "WAL has been archived";
}

impl PatroniArchivingOn {
    fn switch(&self) -> Switch<'_> {
        Switch { off: &ARCHIVING, dynamic: None, as_before: true, config_file: &self.config_file }
    }

    /// What must be done first; none where WAL can be archived.
    async fn in_the_way(&self, host: &dyn Host, archive: &Archive) -> Result<Option<String>, StepError> {
        let Some(backups) = archive.stanza() else {
            let command = archive.command.as_deref().unwrap_or("a command that isn't known yet");
            return Ok((!self.archive_is_new).then(|| {
                format!(
                    "WAL would be archived by `{command}`, and flow doesn't look into that archive: a new cluster begins WAL names anew, and \
                     would overwrite the former one's, or fail at them. Move away what is in it (keep it: the former cluster's backups need \
                     it), then --set archive_is_new=true"
                )
            }));
        };
        let settings = Settings::required(host, &self.config_file).await?;
        let own = match report(host, &Api::of(&settings)?).await? {
            Ok(Report { system_identifier: Some(own), .. }) => own,
            Ok(_) => return Err(StepError::failed("Patroni doesn't know the system identifier yet")),
            Err(why) => return Err(StepError::failed(format!("Patroni doesn't answer: {why}"))),
        };
        Ok(backups.in_the_way(&own).filter(|_| !(self.archive_is_new && backups.identifiers.is_empty())))
    }
}

#[async_trait]
impl Step for PatroniArchivingOn {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let archive = look(&*host, &self.config_file).await?;
        if archive.off_by.is_some()
            && let Some(why) = self.in_the_way(&*host, &archive).await?
        {
            return Ok(Check::Refused(why));
        }
        Ok(match self.switch().check(cx).await? {
            Check::Satisfied(output) => Check::Satisfied(output.with("command", archive.command)),
            other => other,
        })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let command = look(&*cx.host().await?, &self.config_file).await?.command;
        Ok(self.switch().apply(cx, change).await?.with("command", command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, RUN, refused, satisfied};
    use serde_json::json;

    const FILE: &str = "/etc/patroni/config.yml";

    #[tokio::test]
    async fn what_archives_is_off_with_the_run_s_name_and_no_secret_is_shown() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni3");
        let step = |with: Value| serde_json::from_value::<PatroniArchivingOff>(with).unwrap();
        let before = lab.text("patroni3", FILE).unwrap();
        satisfied(step(json!({})).check(&cx).await.unwrap());
        let parameters = json!({ "archive_mode": "on", "archive_command": "S3_KEY=abc push %p" });
        let on = json!({ "dynamic": { "postgresql": { "parameters": parameters } } });
        let (change, output) = lab.establish(&step(on.clone()), &cx).await;
        assert_eq!(output.0["was_on"], json!(["archive_command"]));
        assert!(
            lab.text("patroni3", FILE)
                .unwrap()
                .contains(&format!("archive_command: ''  # flow: no archiving, by run {RUN}"))
        );
        step(on.clone()).undo(&cx, &change, Some(&output)).await.unwrap();
        assert_eq!(lab.text("patroni3", FILE).unwrap(), before);

        let own = before.replace("postgresql:\n  listen", "postgresql:\n  parameters:\n    archive_mode: on\n    archive_command: S3_KEY=abc push %p\n  listen");
        assert_ne!(own, before);
        lab.make("patroni3", "file", json!({ "path": FILE, "content": own })).await;
        let (change, _) = lab.establish(&step(json!({})), &cx).await;
        let diff = change.diff.unwrap();
        assert!(diff.contains("push") && !diff.contains("abc"), "{diff}");
        let again = |with: Value| serde_json::from_value::<PatroniArchivingOn>(with).unwrap();
        let why = refused(again(json!({})).check(&cx).await.unwrap());
        assert!(why.contains("archive_is_new=true") && !why.contains("abc"), "{why}");
        let (_, output) = lab.establish(&again(json!({ "archive_is_new": true })), &cx).await;
        assert_eq!(output.0["command"], "S3_KEY=•••••• push %p");
        assert_eq!(lab.text("patroni3", FILE).unwrap(), own);
        satisfied(again(json!({})).check(&cx).await.unwrap());
    }
}
