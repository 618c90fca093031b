//! `patroni.verdict`: what is wrong with a cluster, by what was seen of it.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Wish, judge_for};
use crate::patroni::ancestry::nodes;

/// Judges what `patroni.evidence` saw on all hosts. Asks no host.
///
/// Output: `verdict`, `reasons` and `evidence` (lists of lines), and by the verdict
///
/// - `healthy`: `leader`;
/// - `key-gone-leader-alive`: `leader`, which writes the `initialize` key back by itself, and `identifier`, what it will say;
/// - `key-wrong`: `keeper`, who has all that any member has, `identifier`, and `revision` of the wrong key (0: it is absent);
/// - `disposable`: `members`, which belong to another cluster and hold nothing, and `leader`;
/// - `kept`: `keeper`, whose data the operator keeps where the evidence doesn't decide;
/// - `no-mismatch`: the system identifiers are not what is wrong; `keeper` leads, or is to be started first;
/// - `undecided`: it can't be told whose data is the right one; `two-clusters`: members outside the inventory share the scope;
///   `not-supported`: another store than etcd version 3, or a standby cluster.
///
/// `apart` maps hosts to why their data isn't proven to be in the leader's, or, where nobody leads, in one member's: to start or to
/// clone one of them could cost rows.
///
/// And `surgery`, what is done about it: `stop` (the hosts on which Patroni is stopped), `stop_last` (of them the leader, or
/// null), `set_aside` (whose data directories are set aside), `start_first` (who starts alone, or null), `leader` (the member
/// that goes on, or null), `identifier` and `revision` (of the key, or null), `forget` (keys that would keep the first from leading), `room_for` (bytes that each of
/// `set_aside` clones, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniVerdict {
    /// Host to what `patroni.evidence` gave there: `"{{ steps.evidence.hosts }}"`.
    #[schemars(with = "IndexMap<String, serde_json::Map<String, Value>>")]
    pub nodes: IndexMap<String, Value>,
    /// The same of `patroni.ancestry`. By default nothing was looked up further back.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, serde_json::Map<String, Value>>")]
    pub ancestry: IndexMap<String, Value>,
    /// The host whose data is kept where the evidence doesn't decide whose is right. By default nobody's.
    #[serde(default)]
    pub keep: Option<String>,
    /// It was judged so before, and Patroni was stopped since: the data of `keep` is kept also where the evidence decides by now.
    #[serde(default)]
    pub again: bool,
    /// Everything is set aside, and this host begins anew. By default nothing of the kind.
    #[serde(default)]
    pub reset: Option<String>,
}

impl StepType for PatroniVerdict {
    const NAME: &'static str = "patroni.verdict";
    const READ_ONLY: bool = true;
}

#[cfg(test)]
impl PatroniVerdict {
    fn of(nodes: IndexMap<String, Value>) -> Self {
        Self { nodes, ancestry: IndexMap::new(), keep: None, again: false, reset: None }
    }
}

#[async_trait]
impl Step for PatroniVerdict {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        let given = |host: &'_ Option<String>| host.clone().filter(|host| !host.is_empty());
        let (keep, reset) = (given(&self.keep), given(&self.reset));
        let wish = match (&reset, &keep) {
            (Some(first), _) => Wish::Reset { first },
            (None, Some(host)) => Wish::Keep { host, again: self.again },
            (None, None) => Wish::None,
        };
        Ok(Check::Satisfied(crate::support::output(&judge_for(&nodes(&self.nodes, &self.ancestry)?, wish))?))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patroni::PatroniEvidence;
    use crate::testing::{DATA, HOSTS, Lab, operator, satisfied};
    use serde_json::json;

    async fn judged(lab: &Lab) -> serde_json::Map<String, Value> {
        let look: PatroniEvidence = serde_json::from_value(json!({})).unwrap();
        let mut nodes = IndexMap::new();
        for (host, _) in HOSTS {
            let seen = satisfied(look.check(&lab.on(host)).await.unwrap()).0;
            nodes.insert(host.to_owned(), Value::Object(seen));
        }
        satisfied(PatroniVerdict::of(nodes).check(&operator()).await.unwrap()).0
    }

    #[tokio::test]
    async fn a_simulated_cluster_is_healthy_until_a_member_is_initialised_anew() {
        let lab = Lab::deployed().await;
        let found = judged(&lab).await;
        assert_eq!(found["verdict"], "healthy", "{found:#?}");
        lab.world.initdb("patroni3", DATA).unwrap();
        let before = lab.effects();
        let found = judged(&lab).await;
        assert_eq!(found["verdict"], "disposable", "{found:#?}");
        assert_eq!(found["members"], json!(["patroni3"]));
        assert_eq!(lab.effects(), before, "looking changes nothing");
    }

    #[tokio::test]
    async fn a_standby_cluster_is_refused_by_name() {
        let lab = Lab::deployed().await;
        let config = json!({ "standby_cluster": { "host": "198.18.1.11" } }).to_string();
        lab.world.edit(|state| state.etcd.put("/service/demo/config", &config, 0)).unwrap();
        let found = judged(&lab).await;
        assert_eq!(found["verdict"], "not-supported", "{found:#?}");
        assert!(
            found["reasons"].to_string().contains("a standby cluster, which follows 198.18.1.11"),
            "{found:#?}"
        );
    }

    #[tokio::test]
    async fn another_step_s_output_is_refused() {
        let nodes = IndexMap::from([("patroni1".to_owned(), json!({ "role": "leader" }))]);
        let error = PatroniVerdict::of(nodes).check(&operator()).await.unwrap_err();
        assert!(error.message.starts_with("what is given of patroni1 is no output of patroni.evidence"));
    }
}
