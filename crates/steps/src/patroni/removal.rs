//! `patroni.removal_off`: Patroni on a host removes no data directory by itself, for a while.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::removal_text::{OPTIONS, as_before, marked, turned_off};
use super::settings::Settings;
use crate::host::{Content, Host, HostChange, HostContext, Ownership};

/// Patroni removes no data directory where it can't follow: `remove_data_directory_on_rewind_failure` and
/// `remove_data_directory_on_diverged_timelines` are off in its configuration file, until `as_before` puts them back.
///
/// The host's file goes before the dynamic configuration, so this holds wherever they were turned on: in the file, in etcd, in what the data
/// directory keeps of it, or for a new cluster (`bootstrap.dcs`). Only these lines are written, each with a comment that says so; where neither is on,
/// nothing is. Patroni reads the file when it starts, or is reloaded. Refused: a file in which the section `postgresql` can't be
/// written so. Undo puts the lines back. Output: `was_on` (those that were on; with `as_before`, those that are again).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniRemovalOff {
    /// The dynamic configuration, as `etcd.prefix_saved` gives it: `"{{ steps.keys.config }}"`. By default none.
    #[serde(default)]
    pub dynamic: Option<Value>,
    /// What was written for a while is taken out again, whichever run wrote it. False by default.
    #[serde(default)]
    pub as_before: bool,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

/// Longer configurations are none, in bytes.
const LIMIT: u64 = 1 << 20;

impl StepType for PatroniRemovalOff {
    const NAME: &'static str = "patroni.removal_off";
    const UNDOABLE: bool = true;
}

impl PatroniRemovalOff {
    async fn text(&self, host: &dyn Host) -> Result<String, StepError> {
        let bytes = host.read(&self.config_file, LIMIT).await?;
        let bytes = bytes.ok_or_else(|| StepError::permanent(format!("there is no {}", self.config_file)))?;
        String::from_utf8(bytes).map_err(|_| StepError::permanent(format!("{} is no text", self.config_file)))
    }

    /// What the dynamic configuration says, wherever Patroni may take it from.
    async fn dynamic(&self, host: &dyn Host) -> Result<Vec<Value>, StepError> {
        let settings = Settings::required(host, &self.config_file).await?;
        let kept = host.read(&format!("{}/patroni.dynamic.json", settings.data_dir), LIMIT).await?;
        let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(self.dynamic.iter().cloned().chain(kept).collect())
    }

    /// The file as it is to be, and the options that this is about.
    async fn wanted(
        &self,
        host: &dyn Host,
    ) -> Result<Result<(String, String, Vec<&'static str>), String>, StepError> {
        let now = self.text(host).await?;
        if self.as_before {
            let options = OPTIONS.into_iter().filter(|option| marked(&now, option)).collect();
            return Ok(Ok((now.clone(), as_before(&now), options)));
        }
        let dynamic = self.dynamic(host).await?;
        Ok(turned_off(&now, &dynamic)
            .map(|(text, options)| (now, text, options))
            .map_err(|why| format!("{}: {why}", self.config_file)))
    }

    async fn write(&self, cx: &Context, host: &dyn Host, text: String) -> Result<(), StepError> {
        let write = HostChange::WriteFile {
            path: self.config_file.clone(),
            content: Content(text.into_bytes()),
            ownership: Ownership::default(),
        };
        Ok(host.change(cx.attempt(), &write).await?)
    }
}

/// The lines that differ, and no others: the file has passwords.
fn diff(now: &str, wanted: &str) -> String {
    let of_them = |line: &&str| OPTIONS.iter().any(|option| line.contains(option));
    let lines = |text: &str, sign: char, other: &str| -> String {
        let changed = text.lines().filter(of_them).filter(|line| !other.lines().any(|one| one == *line));
        changed.map(|line| format!("{sign}{line}\n")).collect()
    };
    lines(now, '-', wanted) + &lines(wanted, '+', now)
}

#[async_trait]
impl Step for PatroniRemovalOff {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let (now, wanted, options) = match self.wanted(&*host).await? {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Check::Refused(why)),
        };
        if now == wanted {
            return Ok(Check::Satisfied(Output::empty().with("was_on", Vec::<String>::new())));
        }
        let what = if self.as_before { "as it was" } else { "off for a while" };
        let change = Change::new(format!("{} in {}: {what}", options.join(", "), self.config_file));
        Ok(Check::Pending(change.with_diff(diff(&now, &wanted)).with_data(options)))
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let (_, wanted, _) = self.wanted(&*host).await?.map_err(StepError::permanent)?;
        self.write(cx, &*host, wanted).await?;
        Ok(Output::empty().with("was_on", change.data::<Vec<String>>()?))
    }

    async fn undo(&self, cx: &Context, _change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let host = cx.host().await?;
        let now = self.text(&*host).await?;
        let before = if self.as_before {
            let dynamic = self.dynamic(&*host).await?;
            turned_off(&now, &dynamic).map_err(StepError::permanent)?.0
        } else {
            as_before(&now)
        };
        if before != now {
            self.write(cx, &*host, before).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    const FILE: &str = "/etc/patroni/config.yml";

    fn step(with: Value) -> PatroniRemovalOff {
        serde_json::from_value(with).unwrap()
    }

    #[tokio::test]
    async fn what_is_on_in_etcd_is_off_in_the_file_for_a_while_and_the_file_is_then_as_it_was() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni3");
        let before = lab.text("patroni3", FILE).unwrap();
        satisfied(step(json!({})).check(&cx).await.unwrap());
        let on = json!({ "dynamic": { "postgresql": { "remove_data_directory_on_rewind_failure": true } } });
        let (change, output) = lab.establish(&step(on.clone()), &cx).await;
        assert_eq!(output.0["was_on"], json!(["remove_data_directory_on_rewind_failure"]));
        let diff = change.diff.clone().unwrap();
        assert!(diff.starts_with("+  remove_data_directory_on_rewind_failure: false  # flow: "), "{diff}");
        assert_eq!(diff.lines().count(), 1, "no line with a password is shown: {diff}");
        step(on.clone()).undo(&cx, &change, Some(&output)).await.unwrap();
        assert_eq!(lab.text("patroni3", FILE).unwrap(), before);

        lab.establish(&step(on), &cx).await;
        let (_, output) = lab.establish(&step(json!({ "as_before": true })), &cx).await;
        assert_eq!(output.0["was_on"], json!(["remove_data_directory_on_rewind_failure"]));
        assert_eq!(lab.text("patroni3", FILE).unwrap(), before);
    }
}
