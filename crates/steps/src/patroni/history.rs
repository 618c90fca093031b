//! `patroni.history`: which cluster a member's data is of, and how its timeline came about.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::Settings;
use crate::host::{Host, HostContext};
use crate::postgres::{Fork, control, timelines};
use crate::support::{Seen, wait_until};

/// Which cluster this member's data directory is of, its timeline, and where the timelines before were left. Changes nothing.
///
/// With `same_as` all of that must be what it is there, in the leader's data. A timeline is waited for: a replica goes over to a new one a moment
/// after its leader; another system identifier is an error at once. A replica that has an archive may lack its timeline's history
/// file, which proves nothing. Output: `system_identifier`, `timeline`, `history` (`timeline` and `at` of each
/// that was left; null where its file isn't there).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniHistory {
    /// The output of this step type on another host.
    #[serde(default)]
    pub same_as: Option<Map<String, Value>>,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds to wait. 30 by default.
    #[serde(default = "half_a_minute")]
    pub timeout: u64,
}

fn half_a_minute() -> u64 {
    30
}

impl StepType for PatroniHistory {
    const NAME: &'static str = "patroni.history";
    const WAITS: bool = true;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct History {
    system_identifier: String,
    timeline: u32,
    history: Option<Vec<Fork>>,
}

/// What differs from the leader's; none where nothing does.
fn difference(own: &History, leaders: &History) -> Result<Option<String>, StepError> {
    let History { system_identifier: identifier, timeline, history } = own;
    if *identifier != leaders.system_identifier {
        return Err(StepError::permanent(format!(
            "the data has system identifier {identifier}, the leader's has {}",
            leaders.system_identifier
        )));
    }
    if *timeline != leaders.timeline {
        return Ok(Some(format!("the data is on timeline {timeline}, the leader's on {}", leaders.timeline)));
    }
    let words = |forks: &[Fork]| {
        let left = forks.iter().map(|fork| format!("{} at {}", fork.timeline, fork.at));
        left.collect::<Vec<_>>().join(", ")
    };
    Ok(match (history, &leaders.history) {
        (Some(own), Some(leaders)) if own != leaders => Some(format!(
            "timelines were left elsewhere than in the leader's data: {}; there {}",
            words(own),
            words(leaders)
        )),
        _ => None,
    })
}

impl PatroniHistory {
    async fn look(&self, host: &dyn Host) -> Result<Seen, StepError> {
        let settings = Settings::required(host, &self.config_file).await?;
        let (bin_dir, data_dir) = (&settings.bin_dir, &settings.data_dir);
        let Some(control) = control(host, bin_dir, data_dir).await? else {
            return Ok(Seen::NotYet(format!("{data_dir} is no data directory that pg_controldata can read")));
        };
        let found = timelines(host, data_dir, &control).await?;
        let own = History {
            timeline: found.timeline.max(control.timeline),
            history: found.history.filter(|_| found.timeline >= control.timeline),
            system_identifier: control.system_identifier,
        };
        let differs = match &self.same_as {
            None => None,
            Some(leaders) => {
                let leaders = serde_json::from_value(Value::Object(leaders.clone())).map_err(|error| {
                    StepError::permanent(format!("`same_as` is no output of patroni.history: {error}"))
                })?;
                difference(&own, &leaders)?
            }
        };
        Ok(match differs {
            None => Seen::Yes(crate::support::output(&own)?),
            Some(what) => Seen::NotYet(what),
        })
    }
}

#[async_trait]
impl Step for PatroniHistory {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(self.look(&*cx.host().await?).await?.checked(cx))
    }

    fn invariant(&self, _change: &Change) -> Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let waited = wait_until(cx, Duration::from_secs(self.timeout), || self.look(&*host)).await;
        waited
            .map_err(|error| error.with_hint("`flow diagnose` tells which member differs, and what mends it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Lsn;
    use crate::testing::{DATA, HOSTS, Lab, pending, satisfied};
    use serde_json::json;

    fn history(timeline: u32, at: Option<u64>) -> History {
        let fork = |at| vec![Fork { timeline: timeline - 1, at: Lsn(at) }];
        History { system_identifier: "7".into(), timeline, history: at.map(fork) }
    }

    #[test]
    fn identifier_timeline_and_forks_must_be_the_leaders() {
        let of = |own| difference(&own, &history(2, Some(0x300_0028)));
        assert_eq!(of(history(2, Some(0x300_0028))).unwrap(), None);
        assert_eq!(of(history(2, None)).unwrap(), None, "a file that isn't there proves nothing");
        assert_eq!(of(history(3, None)).unwrap().unwrap(), "the data is on timeline 3, the leader's on 2");
        assert_eq!(
            of(history(2, Some(0x200_0000))).unwrap().unwrap(),
            "timelines were left elsewhere than in the leader's data: 1 at 0/2000000; there 1 at 0/3000028"
        );
        let other = History { system_identifier: "8".into(), ..history(2, None) };
        assert!(of(other).unwrap_err().permanent);
    }

    #[tokio::test]
    async fn members_of_one_cluster_have_one_history_also_after_a_failover() {
        let lab = Lab::deployed().await;
        lab.make("patroni1", "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        lab.make("patroni1", "systemd.unit", json!({ "unit": "patroni.service", "state": "running" })).await;
        let leader = lab.world.state().unwrap().etcd.get("/service/demo/leader").unwrap().to_owned();
        let step: PatroniHistory = serde_json::from_value(json!({})).unwrap();
        let leads = satisfied(step.check(&lab.on(&leader)).await.unwrap()).0;
        assert_eq!((&leads["timeline"], leads["history"].as_array().unwrap().len()), (&2.into(), 1));
        let same: PatroniHistory = serde_json::from_value(json!({ "same_as": leads, "timeout": 5 })).unwrap();
        for (host, _) in HOSTS {
            let own = same.apply(&lab.on(host), &Change::default()).await.unwrap();
            assert_eq!(own.0, leads, "{host}");
        }

        let other = "1\t0/1000000\tno recovery target specified\n";
        let path = format!("{DATA}/pg_wal/00000002.history");
        lab.world
            .edit_host("patroni1", |host| host.files.write(&path, other, &Default::default()).unwrap())
            .unwrap();
        let change = pending(same.check(&lab.on("patroni1")).await.unwrap());
        assert!(change.summary.contains("timelines were left elsewhere"), "{}", change.summary);
    }
}
