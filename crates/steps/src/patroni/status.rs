//! `patroni.status`: what one member is and has, also where its Patroni is dead.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rest::{Api, Report, report_for_certain};
use super::settings::Settings;
use crate::etcd::connect;
use crate::host::{Host, HostContext, Unit};
use crate::postgres::{Control, control};

/// Looks at one member: its unit, its REST API, its data directory. Changes nothing.
///
/// A Patroni that is down or starts in a loop is no failure: what can be seen is told. Output: `name`,
/// `unit` (`active (running)`), `answers`, `role` (`leader`, `replica`, null), `state`, `holds_leader_key`, `paused`, `timeline`,
/// `system_identifier` (of the data directory), `dynamic_config` (as kept in the data directory, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniStatus {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Patroni's unit. `patroni.service` by default.
    #[serde(default = "unit")]
    pub unit: String,
}

fn unit() -> String {
    "patroni.service".to_owned()
}

/// The output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) answers: bool,
    pub(super) role: Option<String>,
    pub(super) state: Option<String>,
    pub(super) holds_leader_key: bool,
    pub(super) paused: bool,
    pub(super) timeline: Option<u64>,
    pub(super) system_identifier: Option<String>,
    pub(super) dynamic_config: Option<serde_json::Value>,
}

impl StepType for PatroniStatus {
    const NAME: &'static str = "patroni.status";
    const READ_ONLY: bool = true;
}

impl Status {
    fn new(name: String, unit: &Unit, report: Option<Report>, control: Option<Control>) -> Self {
        let answers = report.is_some();
        let report = report.unwrap_or_default();
        Self {
            name,
            unit: format!("{} ({})", unit.active, unit.sub),
            answers,
            role: answers.then_some(report.role),
            state: answers.then_some(report.state),
            holds_leader_key: false,
            paused: report.paused,
            timeline: control.as_ref().map(|control| u64::from(control.timeline)).or(report.timeline),
            system_identifier: control.map(|control| control.system_identifier).or(report.system_identifier),
            dynamic_config: None,
        }
    }
}

impl PatroniStatus {
    async fn look(&self, host: &dyn Host, settings: Settings) -> Result<Status, StepError> {
        let api = Api::of(&settings)?;
        let bin_dir = if settings.bin_dir.is_empty() { "/usr/bin" } else { &settings.bin_dir };
        let dynamic = format!("{}/patroni.dynamic.json", settings.data_dir);
        let (unit, report, control, dynamic, leader) = tokio::join!(
            host.unit(&self.unit),
            report_for_certain(host, &api, None),
            control(host, bin_dir, &settings.data_dir),
            host.read(&dynamic, 1 << 20),
            leader_key(host, &settings),
        );
        // An etcd without a majority is told by the steps that need it.
        let holds_leader_key = leader.ok().flatten().is_some_and(|leader| leader == settings.name);
        let status = Status::new(settings.name, &unit?, report?.ok(), control?);
        let dynamic_config = dynamic?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Status { dynamic_config, holds_leader_key, ..status })
    }
}

/// The name of the member that holds the leader's key.
async fn leader_key(host: &dyn Host, settings: &Settings) -> Result<Option<String>, StepError> {
    let key = format!("{}leader", settings.prefix);
    let keys = connect(host, &settings.endpoints, settings.etcd_tls.as_ref()).await?.keys(&key).await?;
    Ok(keys.into_iter().find(|found| found.key == key).map(|found| found.value))
}

#[async_trait]
impl Step for PatroniStatus {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let status = self.look(&*host, settings).await?;
        Ok(Check::Satisfied(crate::support::output(&status)?))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};

    async fn status(lab: &Lab, host: &str) -> serde_json::Map<String, serde_json::Value> {
        let step: PatroniStatus = serde_json::from_value(serde_json::json!({})).unwrap();
        satisfied(step.check(&lab.on(host)).await.unwrap()).0
    }

    #[tokio::test]
    async fn a_leader_a_replica_and_a_looping_member_are_told_apart() {
        let lab = Lab::deployed().await;
        lab.break_system_id("patroni3").await;
        let leader = status(&lab, "patroni1").await;
        assert_eq!((&leader["role"], &leader["unit"]), (&"leader".into(), &"active (running)".into()));
        assert_eq!(leader["holds_leader_key"], true);
        assert_eq!(status(&lab, "patroni2").await["role"], "replica");
        assert_eq!(leader["dynamic_config"]["ttl"], 30);
        let broken = status(&lab, "patroni3").await;
        assert_eq!((&broken["answers"], &broken["role"]), (&false.into(), &serde_json::Value::Null));
        assert_eq!(broken["unit"], "activating (auto-restart)");
        assert_eq!(broken["system_identifier"], "7799999999999999999");
    }

    #[tokio::test]
    async fn one_lost_answer_makes_no_leader_silent() {
        use crate::host::sim::{Fault, FaultKind};
        let lab = Lab::deployed().await;
        for _ in 0..2 {
            lab.world.inject(Fault::at("patroni1", "http GET /patroni", FaultKind::LoseAnswer)).unwrap();
        }
        assert_eq!(status(&lab, "patroni1").await["role"], "leader");
    }
}
