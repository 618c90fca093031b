//! `patroni.dynamic_config`: the cluster's dynamic configuration is this one.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use similar::TextDiff;

use super::dynamic::{merged, patch, pretty};
use super::rest::patch_config;
use super::settings::Settings;
use crate::etcd::connect;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// How long a cluster that was just made may take to have a dynamic configuration.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cluster's dynamic configuration is exactly this one, or has this in it.
///
/// Compared with what is in etcd, and set by `PATCH /config` of the host's member: what differs is changed, and what
/// isn't wanted is removed; with `merge` the rest stays. Settings that need a restart of PostgreSQL are pending until there is one.
/// Undo sets back what was there before, unless somebody has changed it since. Output: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniDynamicConfig {
    /// The whole dynamic configuration, such as `"{{ steps.keys.config }}"`. Null: any will do.
    pub config: Option<Map<String, Value>>,
    /// What isn't named in `config` stays as it is; what is null there is removed. False by default.
    #[serde(default)]
    pub merge: bool,
    /// Patroni's configuration file, for address and password of the REST API. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniDynamicConfig {
    const NAME: &'static str = "patroni.dynamic_config";
    const UNDOABLE: bool = true;
}

impl PatroniDynamicConfig {
    /// What is to come of the configuration that is there.
    fn wanted(&self, now: &Value) -> Option<Value> {
        let wanted = self.config.clone().map(Value::Object)?;
        Some(if self.merge { merged(now, &wanted) } else { wanted })
    }

    /// The host's Patroni, and the dynamic configuration as it is in etcd; null where there is none yet.
    ///
    /// Not by `GET /config`: a member answers that from what it saw at its last turn.
    async fn look(&self, host: &dyn Host) -> Result<(Settings, Value), StepError> {
        let settings = Settings::required(host, &self.config_file).await?;
        let key = format!("{}config", settings.prefix);
        let keys = connect(host, &settings.endpoints, settings.etcd_tls.as_ref()).await?.keys(&key).await?;
        let text = keys.into_iter().find(|found| found.key == key).map(|found| found.value);
        let now = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok((settings, now))
    }

    /// Asks the member to make it so. It looks at the cluster anew before it does.
    async fn set(&self, host: &dyn Host, wanted: Option<&Value>) -> Result<Seen, StepError> {
        let (settings, now) = self.look(host).await?;
        let wanted = wanted.cloned().or_else(|| self.wanted(&now));
        let Some(patch) = wanted.and_then(|wanted| patch(&now, &wanted)) else {
            return Ok(Seen::Yes(Output::empty()));
        };
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
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        if self.config.is_none() {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let (_, now) = self.look(&*cx.host().await?).await?;
        let Some(wanted) = self.wanted(&now).filter(|wanted| patch(&now, wanted).is_some()) else {
            return Ok(Check::Satisfied(Output::empty()));
        };
        let (before, after) = (pretty(&now), pretty(&wanted));
        let diff = TextDiff::from_lines(&before, &after).unified_diff().header("now", "wanted").to_string();
        Ok(Check::Pending(Change::new("change the dynamic configuration").with_diff(diff).with_data(now)))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        // What is changed is not on the host's disk, so its lock is proven by itself.
        host.fence(cx.attempt()).await?;
        wait_until(cx, PATIENCE, || self.set(&*host, None)).await
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let refused = |why: &str| {
            let hint = "see it with `patronictl show-config`, and set it by hand";
            Err(StepError::permanent(format!("the dynamic configuration {why}")).with_hint(hint).into())
        };
        if change.is_masked() {
            return refused("that was there held a secret, which isn't stored");
        }
        let before: Value = change.data()?;
        if before.is_null() {
            return refused("wasn't there before");
        }
        let Some(wanted) = self.wanted(&before) else { return Ok(()) };
        let host = cx.host().await?;
        let (_, now) = self.look(&*host).await?;
        if patch(&now, &before).is_none() {
            return Ok(());
        }
        if patch(&now, &wanted).is_some() {
            return refused("was changed since: it is left as it is");
        }
        host.fence(cx.attempt()).await.map_err(StepError::from)?;
        wait_until(cx, PATIENCE, || self.set(&*host, Some(&before))).await?;
        Ok(())
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

    #[tokio::test]
    async fn what_is_merged_in_leaves_what_others_have_set_and_can_be_taken_back() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni2");
        let config = || {
            let text = lab.world.state().unwrap().etcd.get("/service/demo/config").unwrap().to_owned();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let before = config();
        let wanted = json!({ "postgresql": { "parameters": { "max_connections": 150 } } });
        let step: PatroniDynamicConfig =
            serde_json::from_value(json!({ "config": wanted, "merge": true })).unwrap();
        let (change, _) = lab.establish(&step, &cx).await;
        assert_eq!(config()["ttl"], before["ttl"]);
        assert_eq!(config()["postgresql"]["parameters"]["max_connections"], 150);
        step.undo(&cx, &change, None).await.unwrap();
        assert_eq!(config(), before);
    }

    #[tokio::test]
    async fn what_was_there_before_is_set_back_unless_somebody_has_changed_it_since() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni2");
        let config = || {
            let text = lab.world.state().unwrap().etcd.get("/service/demo/config").unwrap().to_owned();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let before = config();
        let step = |ttl: u32| -> PatroniDynamicConfig {
            serde_json::from_value(json!({ "config": { "ttl": ttl } })).unwrap()
        };
        let (change, _) = lab.establish(&step(60), &cx).await;
        step(60).undo(&cx, &change, None).await.unwrap();
        assert_eq!(config(), before);
        step(60).undo(&cx, &change, None).await.unwrap();
        lab.establish(&step(90), &cx).await;
        let error = step(60).undo(&cx, &change, None).await.unwrap_err().to_string();
        assert_eq!(error, "the dynamic configuration was changed since: it is left as it is");
    }
}
