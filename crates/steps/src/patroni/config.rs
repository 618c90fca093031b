//! `patroni.config`: what a host's Patroni is configured to be.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::Settings;
use crate::host::HostContext;

/// Reads the Patroni configuration of a host. Changes nothing.
///
/// Output: `scope`, `namespace`, `prefix` (`/service/demo/`), `name`, `endpoints` (etcd, `address:port`), `rest` and
/// `postgres` (`address:port`), `etcd_tls` and `rest_tls` (by which files TLS is spoken, or null), `data_dir`, `bin_dir`. No passwords. Another store than etcd version 3 is refused.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniConfig {
    /// The configuration file. `/etc/patroni/config.yml` by default, as in Debian's unit.
    #[serde(default = "super::config_file")]
    pub file: String,
}

impl StepType for PatroniConfig {
    const NAME: &'static str = "patroni.config";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for PatroniConfig {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        match Settings::of(&*cx.host().await?, &self.file).await? {
            Some(settings) => Ok(Check::Satisfied(crate::support::output(&settings)?)),
            None if cx.planning() => Ok(Check::Deferred(format!("there is no {} yet", self.file))),
            None => Ok(Check::Refused(format!("there is no {}", self.file))),
        }
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, refused, satisfied};

    #[tokio::test]
    async fn a_configuration_is_given_and_a_missing_one_refused() {
        let step: PatroniConfig = serde_json::from_value(serde_json::json!({})).unwrap();
        let lab = Lab::deployed().await;
        let output = satisfied(step.check(&lab.on("patroni2")).await.unwrap()).0;
        assert_eq!((&output["name"], &output["prefix"]), (&"patroni2".into(), &"/service/demo/".into()));
        let bare = Lab::bare().await;
        assert!(refused(step.check(&bare.on("patroni1")).await.unwrap()).contains("/etc/patroni/config.yml"));
        assert!(matches!(step.check(&bare.planning("patroni1")).await.unwrap(), Check::Deferred(_)));
    }
}
