//! `patroni.ancestry`: the others' last WAL records, looked for in a host's WAL further back than its evidence goes.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::verdict::{Cluster, Data, Node, Record, meeting};
use crate::host::{Host, HostContext};
use crate::postgres::record_at;

/// Looks for the end of each other member's WAL in this host's, where `patroni.evidence` didn't read so far back.
///
/// Members of a busy cluster that stopped one after another lie thousands of records apart. Changes nothing, and asks the host
/// only where there is something to look for. Output: `looked_up`, what was found; for `patroni.verdict` and `patroni.findings`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniAncestry {
    /// Host to what `patroni.evidence` gave there: `"{{ steps.evidence.hosts }}"`.
    #[schemars(with = "IndexMap<String, serde_json::Map<String, Value>>")]
    pub nodes: IndexMap<String, Value>,
}

impl StepType for PatroniAncestry {
    const NAME: &'static str = "patroni.ancestry";
    const READ_ONLY: bool = true;
}

/// What `patroni.evidence` gave, host by host, with what `patroni.ancestry` found there.
///
/// # Errors
/// What isn't the output of its step.
pub(super) fn nodes(
    evidence: &IndexMap<String, Value>,
    ancestry: &IndexMap<String, Value>,
) -> Result<IndexMap<String, Node>, StepError> {
    let one = |(host, value): (&String, &Value)| {
        let wrong = |step: &str, error| {
            StepError::permanent(format!("what is given of {host} is no output of {step}: {error}"))
        };
        let mut node: Node =
            serde_json::from_value(value.clone()).map_err(|error| wrong("patroni.evidence", error))?;
        if let (Data::Cluster(own), Some(found)) = (&mut node.data, ancestry.get(host)) {
            own.looked_up = serde_json::from_value(found["looked_up"].clone())
                .map_err(|error| wrong("patroni.ancestry", error))?;
        }
        Ok((host.clone(), node))
    };
    evidence.iter().map(one).collect()
}

/// The other's last record that this host's WAL must have too, looked up where it would be: what was read of a WAL that goes on
/// begins later.
pub(super) async fn look_up(
    host: &dyn Host,
    node: &Node,
    own: &Cluster,
    other: &Cluster,
) -> Result<Option<Record>, StepError> {
    let (Some(last), Some(settings)) = (meeting(other, own), node.settings()) else { return Ok(None) };
    if own.records.first().is_none_or(|first| first.at <= last.at) {
        return Ok(None);
    }
    for timeline in [other.timeline, own.timeline] {
        let found = record_at(host, &settings.bin_dir, &settings.data_dir, timeline, last.at).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[async_trait]
impl Step for PatroniAncestry {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let nodes = nodes(&self.nodes, &IndexMap::new())?;
        let mut found = Vec::new();
        if let Some(node) = nodes.get(host.name())
            && let Some(own) = node.cluster()
        {
            let others = nodes.iter().filter(|(name, _)| *name != host.name());
            for other in others.filter_map(|(_, other)| other.cluster()) {
                if other.identifier == own.identifier {
                    found.extend(look_up(&*host, node, own, other).await?);
                }
            }
        }
        Ok(Check::Satisfied(Output::empty().with("looked_up", found)))
    }

    /// What isn't found proves nothing.
    fn unseen(&self, _why: &StepError) -> Option<Output> {
        Some(Output::empty().with("looked_up", Vec::<Record>::new()))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
