//! `patroni.unchanged`: what a judgement rests on is still so.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::evidence::PatroniEvidence;
use super::verdict::{Node, drift};
use crate::host::HostContext;

/// A host is as it was when it was judged. For `guards`: it is looked at again right before what it guards.
///
/// Compared with what `patroni.evidence` saw: whose data it is, and of a stopped one that nothing ran on it and that no
/// relation of a user and no WAL came to it; who leads, by its key with a lease; the key `initialize` with its revision; that
/// no other member came. Refused where any of it changed, with what. Changes nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniUnchanged {
    /// What `patroni.evidence` gave on this host: `"{{ steps.evidence.hosts[host.name] }}"`.
    pub seen: Map<String, Value>,
    /// The member that leads, by its name: it must hold the leader's key, with a lease. By default nobody led, and nobody may
    /// have taken the key since.
    #[serde(default)]
    pub leader: Option<String>,
    /// This run sets its data directory aside: that it is gone is no change. False by default.
    #[serde(default)]
    pub set_aside: bool,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniUnchanged {
    const NAME: &'static str = "patroni.unchanged";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for PatroniUnchanged {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let seen: Node = serde_json::from_value(Value::Object(self.seen.clone())).map_err(|error| {
            StepError::permanent(format!("`seen` is no output of patroni.evidence: {error}"))
        })?;
        let now = PatroniEvidence::new(&self.config_file).look(&*host).await?;
        let changed = drift(&seen, &now, self.leader.as_deref(), self.set_aside);
        Ok(if changed.is_empty() {
            Check::Satisfied(Output::empty())
        } else {
            Check::Refused(format!("{} isn't as it was judged: {}", host.name(), changed.join("; ")))
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, Lab, refused, satisfied};
    use serde_json::json;

    async fn judged(lab: &Lab) -> PatroniUnchanged {
        let look = PatroniEvidence::new(&super::super::config_file());
        let seen = satisfied(look.check(&lab.on("patroni3")).await.unwrap()).0;
        serde_json::from_value(json!({ "seen": seen, "leader": "patroni1" })).unwrap()
    }

    #[tokio::test]
    async fn a_member_that_was_judged_holds_until_something_comes_to_its_data_or_another_leads() {
        let lab = Lab::deployed().await;
        lab.world.initdb("patroni3", DATA).unwrap();
        let step = judged(&lab).await;
        satisfied(step.check(&lab.on("patroni3")).await.unwrap());
        let table = json!({ "path": format!("{DATA}/base/5/16385"), "content": "rows", "parents": true });
        lab.make("patroni3", "file", table).await;
        let why = refused(step.check(&lab.on("patroni3")).await.unwrap());
        assert!(why.contains("patroni3 isn't as it was judged: there are relations"), "{why}");

        let step = judged(&lab).await;
        satisfied(step.check(&lab.on("patroni3")).await.unwrap());
        let stop = json!({ "unit": "patroni.service", "state": "stopped" });
        lab.make("patroni1", "systemd.unit", stop).await;
        let why = refused(step.check(&lab.on("patroni3")).await.unwrap());
        assert!(why.contains("patroni1 doesn't hold the leader's key any more: patroni2 does"), "{why}");
    }
}
