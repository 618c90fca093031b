//! `patroni.findings`: what is wrong with a cluster, by what was seen of it.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::diagnose;

/// What one step gave on each host.
pub(super) type Of = IndexMap<String, Value>;

/// Says in plain words what is wrong with a cluster, and what mends it: what `flow diagnose` tells. Asks no host.
///
/// Each argument is what a step gave on its hosts; with `tell_unseen` there, also of hosts that can't be reached. Output: `healthy`,
/// `verdict` and `reasons` as of `patroni.verdict`, `problems` (the gravest first: `kind`, `what`, `sure`, `because`, `remedy`) and
/// `evidence` (lines: what was seen). docs/json.md lists the kinds.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniFindings {
    /// Host to what `patroni.evidence` gave there: `"{{ steps.evidence.hosts }}"`.
    #[schemars(with = "IndexMap<String, Map<String, Value>>")]
    pub evidence: Of,
    /// The same of `patroni.ancestry`; by default nothing was looked up further back.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, Map<String, Value>>")]
    pub ancestry: Of,
    /// The same of `patroni.condition`; by default nothing was looked at.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, Map<String, Value>>")]
    pub condition: Of,
    /// The same of `certificate.lifetimes`.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, Map<String, Value>>")]
    pub certificates: Of,
    /// The same of `balancer.condition`.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, Map<String, Value>>")]
    pub balancers: Of,
}

impl StepType for PatroniFindings {
    const NAME: &'static str = "patroni.findings";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for PatroniFindings {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Satisfied(crate::support::output(&diagnose(self)?)?))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
