//! `patroni.data_in_the_way`: a data directory where a member's is to be, that isn't the cluster's.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::data_matches::{Data, foreign, is_down, judged, look, settings_or_later};
use super::settings::Settings;
use crate::host::{Host, HostContext};
use crate::postgres::processes_on;

/// Tells whether an old data directory is in the way of a member: one that `patroni.data_matches` would refuse.
///
/// For who has said that it may be set aside. Refused all the same: what anybody works on (Patroni's unit isn't stopped, or a process
/// of PostgreSQL runs there), and what is no data directory. Data of the cluster whose key is in etcd is never in the way. Changes
/// nothing. Output: `in_the_way` (why, or null), `system_identifier` (of the data that is there, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniDataInTheWay {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Patroni's unit. `patroni.service` by default.
    #[serde(default = "super::unit")]
    pub unit: String,
}

impl StepType for PatroniDataInTheWay {
    const NAME: &'static str = "patroni.data_in_the_way";
    const READ_ONLY: bool = true;
}

fn output(why: Option<String>, identifier: Option<String>) -> Output {
    Output::empty().with("in_the_way", why).with("system_identifier", identifier)
}

impl PatroniDataInTheWay {
    async fn judge(&self, host: &dyn Host, settings: &Settings) -> Result<Output, StepError> {
        let ((key, data), unit, processes) = tokio::try_join!(
            look(host, settings),
            async { Ok(host.unit(&self.unit).await?) },
            processes_on(host, &settings.data_dir)
        )?;
        let Settings { data_dir, prefix, .. } = settings;
        let (own, why) = match (data, key.as_deref()) {
            (Data::Absent, _) => return Ok(output(None, None)),
            (Data::Of(own), Some(key)) if own == key => return Ok(output(None, Some(own))),
            // Its own Patroni is at work on it.
            (Data::Of(own), Some("")) if !is_down(&unit) => return Ok(output(None, Some(own))),
            (Data::Of(own), Some(key)) => {
                let why = format!(
                    "its system identifier is {own}, and the cluster's, by {prefix}initialize, is {}",
                    if key.is_empty() { "not known yet" } else { key }
                );
                (own, why)
            }
            (Data::Of(own), None) => {
                let why = format!("its system identifier is {own}, and etcd has no cluster at {prefix}");
                (own, why)
            }
            (Data::Foreign, _) => return Err(foreign(data_dir)),
        };
        if !is_down(&unit) || !processes.is_empty() {
            let by = if processes.is_empty() { &self.unit } else { "PostgreSQL" };
            return Err(StepError::permanent(format!("{data_dir} is in use by {by}, and isn't the cluster's: {why}"))
                .with_hint("what is in use isn't set aside: `flow diagnose` says what mends it, or stop it first; nothing was changed"));
        }
        Ok(output(Some(format!("{data_dir}: {why}")), Some(own)))
    }
}

#[async_trait]
impl Step for PatroniDataInTheWay {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = match settings_or_later(cx, &*host, &self.config_file).await? {
            Ok(settings) => settings,
            Err(why) => return Ok(Check::Deferred(why)),
        };
        judged(cx, self.judge(&*host, &settings).await)
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, HOSTS, Lab, satisfied};
    use serde_json::{Value, json};

    fn step() -> PatroniDataInTheWay {
        serde_json::from_value(json!({})).unwrap()
    }

    async fn stop(lab: &Lab, host: &str) {
        lab.make(host, "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
    }

    #[tokio::test]
    async fn data_of_the_cluster_is_never_in_the_way_running_or_not() {
        let lab = Lab::deployed().await;
        stop(&lab, "patroni3").await;
        for (host, _) in HOSTS {
            let seen = satisfied(step().check(&lab.on(host)).await.unwrap());
            assert_eq!(seen.0["in_the_way"], Value::Null, "{host}");
        }
    }

    #[tokio::test]
    async fn data_of_another_cluster_is_in_the_way_once_nobody_works_on_it() {
        let lab = Lab::deployed().await;
        lab.break_system_id("patroni3").await;
        let error = step().check(&lab.on("patroni3")).await.unwrap_err();
        assert!(error.message.contains("is in use by patroni.service"), "{}", error.message);
        stop(&lab, "patroni3").await;
        let seen = satisfied(step().check(&lab.on("patroni3")).await.unwrap());
        assert!(seen.0["in_the_way"].as_str().unwrap().contains("7799999999999999999"), "{seen:?}");
    }

    #[tokio::test]
    async fn where_etcd_lost_its_keys_a_running_cluster_isnt_in_the_way() {
        let lab = Lab::deployed().await;
        let pause = json!({ "config": { "pause": true }, "merge": true });
        lab.make("patroni1", "patroni.dynamic_config", pause).await;
        // In pause PostgreSQL runs on without its Patroni.
        for (host, _) in HOSTS {
            let stopped = json!({ "unit": "patroni.service", "state": "stopped", "no_process_left": false });
            lab.make(host, "systemd.unit", stopped).await;
        }
        lab.world.edit(|state| state.etcd.keys.clear()).unwrap();
        let error = step().check(&lab.on("patroni2")).await.unwrap_err();
        assert!(error.message.contains("is in use by PostgreSQL"), "{}", error.message);
        assert!(lab.text("patroni2", &format!("{DATA}/PG_VERSION")).is_some());
    }
}
