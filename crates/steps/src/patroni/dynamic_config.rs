//! `patroni.dynamic_config`: the cluster's dynamic configuration is this one.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use similar::TextDiff;

use super::dynamic::{patch, pretty};
use super::rest::{dynamic_config, patch_config};
use super::settings::Settings;
use crate::host::HostContext;

/// The cluster's dynamic configuration is exactly this one.
///
/// Compared with `GET /config` of the host's member, and set by `PATCH /config`: what differs is changed, and what
/// isn't wanted is removed. Settings that need a restart of PostgreSQL are pending until there is one.
/// Output: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniDynamicConfig {
    /// The whole dynamic configuration, such as `"{{ steps.keys.config }}"`.
    pub config: Map<String, Value>,
    /// Patroni's configuration file, for address and password of the REST API. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniDynamicConfig {
    const NAME: &'static str = "patroni.dynamic_config";
}

impl PatroniDynamicConfig {
    fn wanted(&self) -> Value {
        Value::Object(self.config.clone())
    }

    /// The host's Patroni, and the dynamic configuration as it is.
    async fn look(&self, cx: &Context) -> Result<(Settings, Value), StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let now = dynamic_config(&*host, &settings).await?.map_err(|why| {
            StepError::failed(format!("the dynamic configuration can't be read at {}: {why}", settings.rest))
        })?;
        Ok((settings, now))
    }
}

#[async_trait]
impl Step for PatroniDynamicConfig {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let (_, now) = self.look(cx).await?;
        let wanted = self.wanted();
        if patch(&now, &wanted).is_none() {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let (before, after) = (pretty(&now), pretty(&wanted));
        let diff = TextDiff::from_lines(&before, &after).unified_diff().header("now", "wanted").to_string();
        Ok(Check::Pending(Change::new("change the dynamic configuration").with_diff(diff)))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let (settings, now) = self.look(cx).await?;
        let host = cx.host().await?;
        if let Some(patch) = patch(&now, &self.wanted()) {
            // What is changed is not on the host's disk, so its lock is proven by itself.
            host.fence(cx.attempt()).await?;
            let reply = patch_config(&*host, &settings, patch).await?;
            if reply.status != 200 {
                let said = String::from_utf8_lossy(&reply.body).trim().to_owned();
                return Err(StepError::failed(format!("PATCH /config gave {}: {said}", reply.status)));
            }
        }
        Ok(Output::empty())
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
