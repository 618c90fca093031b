//! `patroni.dynamic_config`: the cluster's dynamic configuration is this one.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use similar::TextDiff;

use super::dynamic::{patch, pretty};
use super::rest::patch_config;
use super::settings::Settings;
use crate::etcd::connect;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// How long a cluster that was just made may take to have a dynamic configuration.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cluster's dynamic configuration is exactly this one.
///
/// Compared with what is in etcd, and set by `PATCH /config` of the host's member: what differs is changed, and what
/// isn't wanted is removed. Settings that need a restart of PostgreSQL are pending until there is one.
/// Output: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniDynamicConfig {
    /// The whole dynamic configuration, such as `"{{ steps.keys.config }}"`. Null: any will do.
    pub config: Option<Map<String, Value>>,
    /// Patroni's configuration file, for address and password of the REST API. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniDynamicConfig {
    const NAME: &'static str = "patroni.dynamic_config";
}

impl PatroniDynamicConfig {
    fn wanted(&self) -> Option<Value> {
        self.config.clone().map(Value::Object)
    }

    /// The host's Patroni, and the dynamic configuration as it is in etcd; null where there is none yet.
    ///
    /// Not by `GET /config`: a member answers that from what it saw at its last turn.
    async fn look(&self, host: &dyn Host) -> Result<(Settings, Value), StepError> {
        let settings = Settings::required(host, &self.config_file).await?;
        let key = format!("{}config", settings.prefix);
        let keys = connect(host, &settings.endpoints).await?.keys(&key).await?;
        let text = keys.into_iter().find(|found| found.key == key).map(|found| found.value);
        let now = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok((settings, now))
    }

    /// Asks the member to make it so. It looks at the cluster anew before it does.
    async fn set(&self, host: &dyn Host, wanted: &Value) -> Result<Seen, StepError> {
        let (settings, now) = self.look(host).await?;
        let Some(patch) = patch(&now, wanted) else { return Ok(Seen::Yes(Output::empty())) };
        if now.is_null() {
            return Ok(Seen::NotYet("the cluster has no dynamic configuration yet".to_owned()));
        }
        let reply = patch_config(host, &settings, patch).await?;
        let said = String::from_utf8_lossy(&reply.body).trim().to_owned();
        match reply.status {
            200 => Ok(Seen::Yes(Output::empty())),
            // It doesn't see the cluster yet, or somebody else was faster.
            409 | 502 | 503 => Ok(Seen::NotYet(format!("PATCH /config gave {}", reply.status))),
            status => Err(StepError::permanent(format!("PATCH /config gave {status}: {said}"))),
        }
    }
}

#[async_trait]
impl Step for PatroniDynamicConfig {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let Some(wanted) = self.wanted() else { return Ok(Check::Satisfied(Output::empty())) };
        let (_, now) = self.look(&*cx.host().await?).await?;
        if patch(&now, &wanted).is_none() {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let (before, after) = (pretty(&now), pretty(&wanted));
        let diff = TextDiff::from_lines(&before, &after).unified_diff().header("now", "wanted").to_string();
        Ok(Check::Pending(Change::new("change the dynamic configuration").with_diff(diff)))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let Some(wanted) = self.wanted() else { return Ok(Output::empty()) };
        let host = cx.host().await?;
        // What is changed is not on the host's disk, so its lock is proven by itself.
        host.fence(cx.attempt()).await?;
        wait_until(cx, PATIENCE, || self.set(&*host, &wanted)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending};
    use serde_json::json;

    #[tokio::test]
    async fn the_dynamic_configuration_is_put_back_exactly() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni2");
        let wanted = json!({ "ttl": 60, "postgresql": { "parameters": { "max_connections": 77 } } });
        let step: PatroniDynamicConfig = serde_json::from_value(json!({ "config": wanted })).unwrap();
        assert!(pending(step.check(&cx).await.unwrap()).diff.unwrap().contains("+  \"ttl\": 60"));
        lab.establish(&step, &cx).await;
        let config = lab.world.state().unwrap().etcd.get("/service/demo/config").unwrap().to_owned();
        assert_eq!(serde_json::from_str::<Value>(&config).unwrap(), wanted);
    }
}
