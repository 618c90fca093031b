//! `patroni.cluster`: one leader, and replicas that stream from it.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use futures_util::future::try_join_all;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::rest::{self, Api, Report, report};
use super::settings::Settings;
use crate::clients::TlsFiles;
use crate::host::{Host, HostContext};
use crate::support::{Seen, address_and_port, wait_until};

/// How often the leader is woken while its replicas don't stream.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// The cluster is healthy: one leader, all other members replicas that stream from it, one system identifier.
///
/// Every member is asked, by way of this host: the leader alone can't tell, since a replica that is still being
/// cloned streams too. Waits for it. While it waits it wakes the leader (a `PATCH /config` that changes nothing),
/// which else makes new replicas' slots only at its next turn, up to `loop_wait` later. Output: `leader` (its REST
/// address), `system_identifier`, `members` (`rest`, `role`, `state`, `timeline`, `pending_restart`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniCluster {
    /// The REST addresses of all members, `address:port`.
    pub members: Vec<String>,
    /// How far a replica may be behind, in bytes of WAL. 16 MiB by default.
    #[serde(default = "segment")]
    pub max_lag: u64,
    /// Patroni's configuration file, for the REST API's password and TLS. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds to wait. 180 by default.
    #[serde(default = "three_minutes")]
    pub timeout: u64,
}

fn segment() -> u64 {
    16 << 20
}

fn three_minutes() -> u64 {
    180
}

impl StepType for PatroniCluster {
    const NAME: &'static str = "patroni.cluster";
    const WAITS: bool = true;

    fn validate(&self) -> Result<(), String> {
        if self.members.is_empty() {
            return Err("`members` is empty".to_owned());
        }
        self.members.iter().try_for_each(|text| address_and_port(text, rest::PORT).map(|_| ()))
    }
}

/// A member by its REST address, and what it said or why it didn't.
type Answers<'a> = Vec<(&'a str, Result<Report, String>)>;

impl PatroniCluster {
    async fn ask_one(
        &self,
        host: &dyn Host,
        tls: Option<&TlsFiles>,
        member: usize,
    ) -> Result<Result<Report, String>, StepError> {
        report(host, &Api::new(&self.members[member], tls)?).await
    }

    async fn ask(&self, host: &dyn Host, tls: Option<&TlsFiles>) -> Result<Answers<'_>, StepError> {
        let each = (0..self.members.len()).map(|member| self.ask_one(host, tls, member));
        let answers = try_join_all(each).await?;
        Ok(self.members.iter().map(String::as_str).zip(answers).collect())
    }

    fn judge(&self, answers: &Answers<'_>) -> Seen {
        let mut members = Vec::new();
        for (rest, answer) in answers {
            match (missing(rest, answer), answer) {
                (None, Ok(report)) => members.push((*rest, report)),
                (why, _) => return Seen::NotYet(why.unwrap_or_default()),
            }
        }
        let (leaders, replicas): (Vec<_>, Vec<_>) = members.iter().partition(|(_, report)| report.leads());
        let [(address, leader)] = leaders.as_slice() else {
            let names: Vec<&str> = leaders.iter().map(|(rest, _)| *rest).collect();
            return Seen::NotYet(match names.as_slice() {
                [] => "no member leads".to_owned(),
                names => format!("more than one member leads: {}", names.join(", ")),
            });
        };
        // A replica that lost its connection may be told twice: the leader takes up to a minute to give up the old one.
        let streaming = leader.streaming.iter().collect::<BTreeSet<_>>().len();
        if streaming < replicas.len() {
            return Seen::NotYet(format!("{streaming} of {} replicas stream", replicas.len()));
        }
        let behind = |report: &Report| {
            leader.position.unwrap_or(0).saturating_sub(report.position.unwrap_or(u64::MAX))
        };
        if let Some((rest, report)) = replicas.iter().find(|(_, report)| behind(report) > self.max_lag) {
            return Seen::NotYet(format!("{rest} is {} bytes behind", behind(report)));
        }
        let identifiers: BTreeSet<_> =
            members.iter().map(|(_, report)| report.system_identifier.as_deref()).collect();
        let identifier = match identifiers.into_iter().collect::<Vec<_>>().as_slice() {
            [Some(one)] => (*one).to_owned(),
            [None] => return Seen::NotYet("no member knows its system identifier yet".to_owned()),
            several => {
                let known: Vec<&str> = several.iter().map(|id| id.unwrap_or("not known")).collect();
                return Seen::NotYet(format!(
                    "the members have different system identifiers: {}",
                    known.join(", ")
                ));
            }
        };
        let table: Vec<_> = members
            .iter()
            .map(|(rest, report)| {
                json!({ "rest": rest, "role": report.role, "state": report.state, "timeline": report.timeline,
                    "pending_restart": report.pending_restart })
            })
            .collect();
        let output = Output::empty()
            .with("leader", address)
            .with("system_identifier", identifier)
            .with("members", table);
        Seen::Yes(output)
    }
}

/// What a member by itself lacks; none where it leads or follows.
fn missing(rest: &str, answer: &Result<Report, String>) -> Option<String> {
    match answer {
        Err(why) => Some(format!("Patroni at {rest} doesn't answer: {why}")),
        Ok(report) if report.leads() || report.follows() => None,
        Ok(report) => {
            let paused = if report.paused {
                "; the cluster is in pause, so Patroni does nothing about it"
            } else {
                ""
            };
            Some(format!("{rest} is {}, {}{paused}", report.role, report.state))
        }
    }
}

/// Waits for the cluster, and is no burden to it: each question makes Patroni query its database. Between two
/// looks at all members, only one that was seen to lack something is asked.
struct Wait<'a> {
    cluster: &'a PatroniCluster,
    host: &'a dyn Host,
    settings: Option<Settings>,
    woken: Mutex<Option<Woken>>,
}

/// When the leader was last woken, and for whom.
struct Woken {
    at: Instant,
    member: usize,
}

impl Wait<'_> {
    async fn look(&self) -> Result<Seen, StepError> {
        let mut woken = self.woken.lock().await;
        if let Some(Woken { at, member }) = *woken
            && at.elapsed() < WAKE_EVERY
        {
            let answer = self.cluster.ask_one(self.host, self.tls(), member).await?;
            if let Some(why) = missing(&self.cluster.members[member], &answer) {
                return Ok(Seen::NotYet(why));
            }
        }
        let answers = self.cluster.ask(self.host, self.tls()).await?;
        let seen = self.cluster.judge(&answers);
        let leader = answers.iter().find(|(_, answer)| answer.as_ref().is_ok_and(Report::leads));
        let due = woken.as_ref().is_none_or(|last| last.at.elapsed() >= WAKE_EVERY);
        if let (Seen::NotYet(_), Some((leader, _))) = (&seen, leader) {
            if due {
                self.wake(leader).await;
            }
            let at = woken.as_ref().filter(|_| !due).map_or_else(Instant::now, |last| last.at);
            let member = answers.iter().position(|(rest, answer)| missing(rest, answer).is_some());
            *woken = Some(Woken { at, member: member.unwrap_or(0) });
        }
        Ok(seen)
    }

    fn tls(&self) -> Option<&TlsFiles> {
        self.settings.as_ref()?.rest_tls.as_ref()
    }

    async fn wake(&self, leader: &str) {
        let Some(settings) = &self.settings else { return };
        let settings = Settings { rest: leader.to_owned(), ..settings.clone() };
        rest::wake(self.host, &settings).await;
    }
}

#[async_trait]
impl Step for PatroniCluster {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let tls = Settings::of(&*host, &self.config_file).await?.and_then(|settings| settings.rest_tls);
        Ok(self.judge(&self.ask(&*host, tls.as_ref()).await?).checked(cx))
    }

    fn invariant(&self, _change: &Change) -> serde_json::Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::of(&*host, &self.config_file).await?;
        let wait = Wait { cluster: self, host: &*host, settings, woken: Mutex::default() };
        let waited = wait_until(cx, Duration::from_secs(self.timeout), || wait.look()).await;
        waited.map_err(|error| {
            error.with_hint("`journalctl -u patroni` on the members says what they wait for")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::Release;
    use crate::testing::{HOSTS, Lab, satisfied};

    fn cluster() -> PatroniCluster {
        let members: Vec<String> = HOSTS.iter().map(|(_, address)| format!("{address}:8008")).collect();
        serde_json::from_value(json!({ "members": members, "timeout": 0 })).unwrap()
    }

    #[tokio::test]
    async fn a_deployed_cluster_is_healthy_on_both_releases() {
        for release in [Release::Bookworm, Release::Trixie] {
            let lab = Lab::deployed_on(release).await;
            let output = satisfied(cluster().check(&lab.on("patroni2")).await.unwrap()).0;
            assert_eq!(output["leader"], "198.18.0.11:8008");
            assert_eq!(output["members"].as_array().unwrap().len(), 3);
        }
    }

    #[tokio::test]
    async fn a_member_that_is_down_is_named() {
        let lab = Lab::deployed().await;
        lab.break_system_id("patroni3").await;
        let error = cluster().apply(&lab.on("patroni1"), &Change::default()).await.unwrap_err();
        assert!(error.message.contains("Patroni at 198.18.0.13:8008 doesn't answer"), "{}", error.message);
    }

    fn judged(change: impl Fn(&mut [Report])) -> String {
        let report = |role: &str| Report {
            state: "running".into(),
            role: role.into(),
            system_identifier: Some("7".into()),
            position: Some(100),
            ..Report::default()
        };
        let mut reports = [report("leader"), report("replica"), report("replica")];
        reports[0].streaming = vec!["b".into(), "c".into()];
        change(&mut reports);
        let answers = ["a", "b", "c"].into_iter().zip(reports.map(Ok)).collect();
        match (PatroniCluster { max_lag: 10, ..cluster() }).judge(&answers) {
            Seen::Yes(_) => "healthy".into(),
            Seen::NotYet(why) => why,
        }
    }

    #[test]
    fn what_is_missing_to_health_is_told() {
        assert_eq!(judged(|_| ()), "healthy");
        assert_eq!(judged(|all| all[0].role = "replica".into()), "no member leads");
        assert_eq!(judged(|all| all[1].role = "leader".into()), "more than one member leads: a, b");
        assert_eq!(judged(|all| all[2].state = "creating replica".into()), "c is replica, creating replica");
        assert_eq!(judged(|all| all[0].streaming.truncate(1)), "1 of 2 replicas stream");
        // A connection that was cut is told beside the new one for a while.
        assert_eq!(judged(|all| all[0].streaming = vec!["b".into(), "b".into()]), "1 of 2 replicas stream");
        assert_eq!(judged(|all| all[1].position = Some(80)), "b is 20 bytes behind");
        assert!(
            judged(|all| all[1].system_identifier = Some("8".into()))
                .contains("different system identifiers")
        );
    }
}
