//! `patroni.member`: the host's own member serves in a role.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rest::{Api, holds_the_key, report};
use super::settings::Settings;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// The host's Patroni member serves: as the leader, as a replica, or as either.
///
/// Waits for that; changes nothing. Output: `role` (`leader` or `replica`), `state`, `timeline` (null on
/// replicas of Patroni 3.0), `system_identifier`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniMember {
    /// `leader`, `replica` or `any`. `any` by default.
    #[serde(default)]
    pub role: MemberRole,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds to wait. 120 by default.
    #[serde(default = "two_minutes")]
    pub timeout: u64,
}

/// What a member is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It leads the cluster.
    Leader,
    /// It follows.
    Replica,
    /// Either.
    #[default]
    Any,
}

fn two_minutes() -> u64 {
    120
}

impl StepType for PatroniMember {
    const NAME: &'static str = "patroni.member";
    const WAITS: bool = true;
}

impl PatroniMember {
    async fn look(&self, host: &dyn Host, settings: &Settings) -> Result<Seen, StepError> {
        let api = Api::of(settings)?;
        let report = match report(host, &api).await? {
            Ok(report) => report,
            Err(why) => {
                return Ok(Seen::NotYet(format!("Patroni at {} doesn't answer: {why}", settings.rest)));
            }
        };
        let is_so = match self.role {
            MemberRole::Leader => report.leads(),
            MemberRole::Replica => report.follows(),
            MemberRole::Any => report.leads() || report.follows(),
        };
        if !is_so {
            return Ok(Seen::NotYet(format!("{} is {}, {}", settings.name, report.role, report.state)));
        }
        if self.role == MemberRole::Leader && !holds_the_key(host, &api).await? {
            return Ok(Seen::NotYet(format!(
                "{} serves as the primary, but doesn't hold the leader's key",
                settings.name
            )));
        }
        let output = Output::empty()
            .with("role", &report.role)
            .with("state", &report.state)
            .with("timeline", report.timeline)
            .with("system_identifier", &report.system_identifier);
        Ok(Seen::Yes(output))
    }
}

#[async_trait]
impl Step for PatroniMember {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let seen = match Settings::of(&*host, &self.config_file).await? {
            Some(settings) => self.look(&*host, &settings).await?,
            None if cx.planning() => Seen::NotYet(format!("there is no {} yet", self.config_file)),
            None => return Ok(Check::Refused(format!("there is no {}", self.config_file))),
        };
        Ok(seen.checked(cx))
    }

    fn invariant(&self, _change: &Change) -> serde_json::Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let waited = wait_until(cx, Duration::from_secs(self.timeout), || self.look(&*host, &settings)).await;
        waited.map_err(|error| error.with_hint("`journalctl -u patroni` on the host says what it waits for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending, satisfied};

    fn member(role: &str) -> PatroniMember {
        serde_json::from_value(serde_json::json!({ "role": role, "timeout": 0 })).unwrap()
    }

    #[tokio::test]
    async fn a_member_is_in_its_role_or_is_waited_for() {
        let lab = Lab::deployed().await;
        let output = satisfied(member("leader").check(&lab.on("patroni1")).await.unwrap());
        assert_eq!(output.0["role"], "leader");
        satisfied(member("replica").check(&lab.on("patroni2")).await.unwrap());
        let cx = lab.on("patroni2");
        let change = pending(member("leader").check(&cx).await.unwrap());
        let error = member("leader").apply(&cx, &change).await.unwrap_err();
        assert_eq!(error.message, "not so after 0 s: patroni2 is replica, running");
    }
}
