//! `patroni.has_all_of`: whether the leader has all that a copy has, so that the copy can follow it.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ancestry::look_up;
use super::evidence::PatroniEvidence;
use super::verdict::{Cluster, Data, Kinship, Node, Store, kinship};
use crate::host::HostContext;

/// Whether this host's member leads, and all that another data directory has is in its own. Changes nothing.
///
/// That is proven by the system identifier, the timelines with their fork points, and the other's last WAL record, which must be found here, the
/// same; what was recycled since can't be found, and proves nothing. A cluster in pause is none that could be joined. Output:
/// `leads`, `joins` (it leads, by the cluster's key, and has all), `system_identifier` (of this member), and `why`, in words.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniHasAllOf {
    /// `data` of `patroni.copy`.
    pub data: Map<String, Value>,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniHasAllOf {
    const NAME: &'static str = "patroni.has_all_of";
    const READ_ONLY: bool = true;
}

/// Whether the keys say that this member leads a cluster that could be joined; else why not.
fn leads(node: &Node, own: &Cluster) -> Result<(), String> {
    if !node.leads() {
        return Err("it doesn't lead".to_owned());
    }
    let Store::Keys(keys) = &node.store else {
        return Err("the cluster's keys can't be read".to_owned());
    };
    let says = keys.initialize.as_ref().is_some_and(|key| key.value == own.identifier);
    let holds =
        keys.leader.as_ref().is_some_and(|key| key.lease != 0 && Some(key.value.as_str()) == node.member());
    if !says || !holds {
        return Err("the cluster's keys say otherwise than this leader".to_owned());
    }
    if keys.paused == Some(true) {
        return Err("the cluster is in pause: Patroni would start nothing".to_owned());
    }
    Ok(())
}

#[async_trait]
impl Step for PatroniHasAllOf {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let other: Cluster = serde_json::from_value(Value::Object(self.data.clone()))
            .map_err(|error| StepError::permanent(format!("`data` is no output of patroni.copy: {error}")))?;
        let node = PatroniEvidence::new(&self.config_file).look(&*host).await?;
        let Data::Cluster(own) = node.data.clone() else {
            let output = Output::empty()
                .with("leads", false)
                .with("joins", false)
                .with("system_identifier", None::<String>);
            return Ok(Check::Satisfied(output.with("why", "it has no data")));
        };
        let verdict = match leads(&node, &own) {
            Err(why) => Err(why),
            Ok(()) if own.major != other.major => Err("it is of another version of PostgreSQL".to_owned()),
            Ok(()) => {
                let looked_up = look_up(&*host, &node, &own, &other).await?.into_iter().collect();
                let other = Cluster { rewindable: other.rewindable && own.rewindable, ..other };
                match kinship(&other, &Cluster { looked_up, ..(*own).clone() }) {
                    Kinship::Contained => Ok("the leader has all that it has".to_owned()),
                    Kinship::Ahead(why) | Kinship::Unknown(why) => Err(why),
                }
            }
        };
        let output = Output::empty()
            .with("leads", node.leads())
            .with("joins", verdict.is_ok())
            .with("system_identifier", &own.identifier)
            .with("why", verdict.unwrap_or_else(|why| why));
        Ok(Check::Satisfied(output))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patroni::PatroniCopy;
    use crate::testing::{BIN, DATA, Lab, satisfied};
    use serde_json::json;

    const ASIDE: &str = "/var/lib/postgresql/15/main.set-aside-20260102T030405Z-0123456789ab";

    async fn set_aside(lab: &Lab) {
        let stop = json!({ "unit": "patroni.service", "state": "stopped" });
        lab.make("patroni3", "systemd.unit", stop).await;
        lab.make("patroni3", "postgres.data_set_aside", json!({ "data_dir": DATA, "bin_dir": BIN })).await;
    }

    async fn asked(lab: &Lab, host: &str) -> Output {
        let copy: PatroniCopy = serde_json::from_value(json!({ "copy": ASIDE })).unwrap();
        let copy = satisfied(copy.check(&lab.on("patroni3")).await.unwrap());
        assert_eq!(copy.0["leads"], false);
        let step: PatroniHasAllOf = serde_json::from_value(json!({ "data": copy.0["data"] })).unwrap();
        satisfied(step.check(&lab.on(host)).await.unwrap())
    }

    #[tokio::test]
    async fn a_replica_s_own_copy_joins_the_leader_and_that_of_another_cluster_does_not() {
        let lab = Lab::deployed().await;
        set_aside(&lab).await;
        assert_eq!(asked(&lab, "patroni1").await.0["joins"], true);
        assert_eq!(asked(&lab, "patroni2").await.0["why"], "it doesn't lead");

        let lab = Lab::deployed().await;
        lab.break_system_id("patroni3").await;
        set_aside(&lab).await;
        let output = asked(&lab, "patroni1").await.0;
        assert_eq!((&output["leads"], &output["joins"]), (&true.into(), &false.into()));
        assert_eq!(output["why"], "it belongs to another cluster");
    }
}
