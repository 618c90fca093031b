//! `etcd.keyspace`: whose keys are in etcd, and whether it answers at all.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::connect::{reach, validate_endpoints, validate_prefix};
use crate::clients::{NoEtcd, TlsFiles};
use crate::host::HostContext;

/// Looks whose keys are in etcd: those below a cluster's prefix, and anyone else's. Changes nothing.
///
/// That no member answers is no failure, one that answers and has no majority is. Output: `answers`, `count` (keys below the
/// prefix), `others` (the first two levels of all other keys, each with the number of its keys).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdKeyspace {
    /// `address:port` of the members; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Begins and ends with `/` and has two levels at least: `/service/demo/`.
    pub prefix: String,
}

impl StepType for EtcdKeyspace {
    const NAME: &'static str = "etcd.keyspace";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        validate_prefix(&self.prefix)
    }
}

/// `/service/other/` of `/service/other/members/a`; a key of fewer levels as it is.
fn levels(key: &str) -> String {
    match key.match_indices('/').nth(2) {
        Some((at, _)) => key[..=at].to_owned(),
        None => key.to_owned(),
    }
}

#[async_trait]
impl Step for EtcdKeyspace {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let keys = match reach(&*host, &self.endpoints, self.tls.as_ref(), None).await? {
            Ok(client) => Some(client.keys("").await?),
            Err(nobody) if nobody.kind == NoEtcd::Silent => None,
            Err(nobody) => return Err(nobody.into()),
        };
        let answers = keys.is_some();
        let (ours, theirs): (Vec<_>, Vec<_>) =
            keys.unwrap_or_default().into_iter().partition(|key| key.key.starts_with(&self.prefix));
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        for key in theirs {
            *others.entry(levels(&key.key)).or_default() += 1;
        }
        let output =
            Output::empty().with("answers", answers).with("count", ours.len()).with("others", others);
        Ok(Check::Satisfied(output))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HOSTS, Lab, satisfied};
    use serde_json::json;

    async fn look(lab: &Lab) -> serde_json::Map<String, serde_json::Value> {
        let step: EtcdKeyspace =
            serde_json::from_value(json!({ "endpoints": ["198.18.0.11:2379"], "prefix": "/service/demo/" }))
                .unwrap();
        satisfied(step.check(&lab.on("patroni1")).await.unwrap()).0
    }

    #[tokio::test]
    async fn keys_of_others_are_told_and_an_etcd_that_is_down_too() {
        let lab = Lab::deployed().await;
        lab.world
            .edit(|state| {
                for key in ["/service/demo-other/leader", "/service/demo-other/members/a", "x"] {
                    state.etcd.put(key, "1", 0);
                }
            })
            .unwrap();
        let found = look(&lab).await;
        assert_eq!(found["others"], json!({ "/service/demo-other/": 2, "x": 1 }));
        assert!(found["count"].as_u64() > Some(3));
        for (host, _) in HOSTS {
            lab.world.stop(host, "etcd.service").unwrap();
        }
        assert_eq!(look(&lab).await["answers"], false);
    }
}
