//! `patroni.removal_off`: Patroni on a host removes no data directory by itself, for a while.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Switch;
use super::text::REMOVAL;

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
    #[serde(default = "crate::patroni::config_file")]
    pub config_file: String,
}

impl StepType for PatroniRemovalOff {
    const NAME: &'static str = "patroni.removal_off";
    const UNDOABLE: bool = true;
}

impl PatroniRemovalOff {
    fn switch(&self) -> Switch<'_> {
        Switch {
            off: &REMOVAL,
            dynamic: self.dynamic.as_ref(),
            as_before: self.as_before,
            config_file: &self.config_file,
        }
    }
}

#[async_trait]
impl Step for PatroniRemovalOff {
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
