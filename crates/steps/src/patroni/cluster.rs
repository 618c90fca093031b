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

use super::rest::{self, Api, Named, Report, fed, named, report};
use super::settings::Settings;
use crate::clients::TlsFiles;
use crate::host::{Host, HostContext};
use crate::support::{Seen, address_and_port, wait_until};

/// How often the leader is woken while its replicas don't stream.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// The cluster is healthy: one leader, all other members replicas that stream from it, one system identifier and timeline.
///
/// Every member is asked, by way of this host: the leader alone can't tell, since a replica that is still being
/// cloned streams too. Who streams is known by the members' names: from the leader, or from another that does (tag
/// `replicatefrom`). One with the tag `nostream` restores from an archive: of it only that it serves, and its system identifier,
/// are looked at. Patroni 3.0.2 tells no timeline of a replica. Waits for it. While it waits it wakes the leader (a `PATCH /config` that changes nothing),
/// which else makes new replicas' slots only at its next turn, up to `loop_wait` later. Output: `leader` (its REST
/// address), `system_identifier`, `members` (`rest`, `name`, `role`, `state`, `timeline`, `lag` in bytes, `nostream`, `pending_restart`),
/// `table` (lines for people, with the columns of `patronictl list`).
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

/// A member that serves, by its REST address.
type Member<'a> = (&'a str, &'a Report);

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

    /// What the leader says of all members; nothing where none leads alone.
    async fn names(
        &self,
        host: &dyn Host,
        tls: Option<&TlsFiles>,
        answers: &Answers<'_>,
    ) -> Result<Result<Vec<Named>, String>, StepError> {
        let leads = |(_, answer): &&(&str, Result<Report, String>)| answer.as_ref().is_ok_and(Report::leads);
        match answers.iter().filter(leads).collect::<Vec<_>>().as_slice() {
            [(leader, _)] => named(host, &Api::new(leader, tls)?).await,
            _ => Ok(Ok(Vec::new())),
        }
    }

    async fn seen(
        &self,
        host: &dyn Host,
        tls: Option<&TlsFiles>,
        answers: &Answers<'_>,
    ) -> Result<Seen, StepError> {
        let names = self.names(host, tls, answers).await?;
        Ok(self.judge(answers, names).unwrap_or_else(Seen::NotYet))
    }

    /// Whether it is healthy; else what is missing.
    fn judge(&self, answers: &Answers<'_>, names: Result<Vec<Named>, String>) -> Result<Seen, String> {
        let mut members: Vec<Member<'_>> = Vec::new();
        for (rest, answer) in answers {
            match (missing(rest, answer), answer) {
                (None, Ok(report)) => members.push((rest, report)),
                (why, _) => return Err(why.unwrap_or_default()),
            }
        }
        let leaders: Vec<Member<'_>> = members.iter().filter(|(_, report)| report.leads()).copied().collect();
        let [leader] = leaders.as_slice() else {
            let names: Vec<&str> = leaders.iter().map(|(rest, _)| *rest).collect();
            return Err(match names.as_slice() {
                [] => "no member leads".to_owned(),
                names => format!("more than one member leads: {}", names.join(", ")),
            });
        };
        let names =
            names.map_err(|why| format!("Patroni at {} doesn't tell its members: {why}", leader.0))?;
        let name = |rest: &str| {
            let at = address_and_port(rest, rest::PORT).ok();
            names.iter().find(|named| Some(&named.rest) == at.as_ref())
        };
        let named = members
            .iter()
            .map(|member| match name(member.0) {
                Some(named) => Ok((*member, named)),
                None => Err(format!("the leader's Patroni doesn't know the member at {} yet", member.0)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.follow(*leader, &named)?;
        let identifier = one_identifier(&members)?;
        let lag = |(rest, report): Member<'_>| {
            let lag =
                leader.1.position.zip(report.position).map(|(written, own)| written.saturating_sub(own));
            lag.filter(|_| rest != leader.0)
        };
        let told: Vec<_> = named
            .iter()
            .map(|(member, named)| {
                let (rest, report) = member;
                json!({ "rest": rest, "name": named.name, "role": report.role, "state": report.state, "timeline": report.timeline,
                    "lag": lag(*member), "nostream": named.nostream, "pending_restart": report.pending_restart })
            })
            .collect();
        let rows = named.iter().map(|(member, named)| row(named, member.1, lag(*member))).collect();
        let output = Output::empty()
            .with("leader", leader.0)
            .with("system_identifier", identifier)
            .with("members", told)
            .with("table", table(rows));
        Ok(Seen::Yes(output))
    }

    /// All others stream from it, and are not far behind, on its timeline.
    fn follow(&self, leader: Member<'_>, all: &[(Member<'_>, &Named)]) -> Result<(), String> {
        let replicas = || all.iter().filter(|((rest, _), _)| *rest != leader.0);
        // A replica that lost its connection may be told twice: the leader takes up to a minute to give up the old one.
        let members: Vec<_> = all.iter().map(|((_, report), named)| (named.name.as_str(), *report)).collect();
        let names = |of: &dyn Fn(&Member<'_>, &Named) -> bool| -> Vec<&str> {
            let these = all.iter().filter(|(member, named)| of(member, named));
            these.map(|(_, named)| named.name.as_str()).collect()
        };
        let live = fed(&members, names(&|(rest, _), _| *rest == leader.0));
        let archived = fed(&members, names(&|_, named| named.nostream));
        let idle: Vec<&str> = replicas()
            .map(|(_, named)| named.name.as_str())
            .filter(|name| !live.contains(name) && !archived.contains(name))
            .collect();
        if !idle.is_empty() {
            let count = replicas().count();
            return Err(format!(
                "{} of {count} replicas stream; {} doesn't",
                count - idle.len(),
                idle.join(", ")
            ));
        }
        let position = |(rest, report): Member<'_>| {
            report.position.ok_or_else(|| format!("{rest} doesn't tell its position in the WAL"))
        };
        for (member, _) in replicas().filter(|(_, named)| live.contains(named.name.as_str())) {
            let behind = position(leader)?.saturating_sub(position(*member)?);
            if behind > self.max_lag {
                return Err(format!("{} is {behind} bytes behind", member.0));
            }
            if let (Some(leads), Some(own)) = (leader.1.timeline, member.1.timeline)
                && leads != own
            {
                return Err(format!("{} is on timeline {own}, the leader on {leads}", member.0));
            }
        }
        Ok(())
    }
}

/// A member as `patronictl list` tells it.
fn row(named: &Named, report: &Report, lag: Option<u64>) -> [String; 7] {
    let words = named.role.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    [
        named.name.clone(),
        named.rest.0.clone(),
        words.collect::<Vec<_>>().join(" "),
        report.state.clone(),
        report.timeline.map_or_else(String::new, |timeline| timeline.to_string()),
        lag.map_or_else(String::new, |bytes| (bytes >> 20).to_string()),
        if report.pending_restart { "*" } else { "" }.to_owned(),
    ]
}

/// Its lines, under a head; a column of which there is nothing to tell is left out.
fn table(mut rows: Vec<[String; 7]>) -> Vec<String> {
    rows.sort();
    let head = ["Member", "Host", "Role", "State", "TL", "Lag in MB", "Pending restart"].map(str::to_owned);
    let told: Vec<usize> =
        (0..head.len()).filter(|column| rows.iter().any(|row| !row[*column].is_empty())).collect();
    rows.insert(0, head);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 7]| {
        let cells = told.iter().map(|column| format!("{:width$}", row[*column], width = width(*column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// The members' system identifier, which all know and share.
fn one_identifier(members: &[Member<'_>]) -> Result<String, String> {
    let identifiers: BTreeSet<_> =
        members.iter().map(|(_, report)| report.system_identifier.as_deref()).collect();
    match identifiers.into_iter().collect::<Vec<_>>().as_slice() {
        [Some(one)] => Ok((*one).to_owned()),
        [None] => Err("no member knows its system identifier yet".to_owned()),
        several => {
            let known: Vec<&str> = several.iter().map(|id| id.unwrap_or("not known")).collect();
            Err(format!("the members have different system identifiers: {}", known.join(", ")))
        }
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
        let seen = self.cluster.seen(self.host, self.tls(), &answers).await?;
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
        let answers = self.ask(&*host, tls.as_ref()).await?;
        Ok(self.seen(&*host, tls.as_ref(), &answers).await?.checked(cx))
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

    fn seen_as(change: impl Fn(&mut [Report], &mut [Named])) -> Seen {
        let report = |role: &str| Report {
            state: "running".into(),
            role: role.into(),
            system_identifier: Some("7".into()),
            position: Some(100),
            ..Report::default()
        };
        let mut reports = [report("leader"), report("replica"), report("replica")];
        reports[0].streaming = vec!["b".into(), "c".into()];
        let mut names = ["a", "b", "c"].map(|name| Named {
            name: name.into(),
            rest: (format!("at-{name}"), 8008),
            role: if name == "a" { "leader" } else { "sync_standby" }.into(),
            leads: name == "a",
            nostream: false,
            replicates_from: None,
        });
        change(&mut reports, &mut names);
        let answers = ["at-a", "at-b:8008", "at-c"].into_iter().zip(reports.map(Ok)).collect();
        let judged = (PatroniCluster { max_lag: 10, ..cluster() }).judge(&answers, Ok(names.into()));
        judged.unwrap_or_else(Seen::NotYet)
    }

    fn judged_as(change: impl Fn(&mut [Report], &mut [Named])) -> String {
        match seen_as(change) {
            Seen::Yes(_) => "healthy".into(),
            Seen::NotYet(why) => why,
        }
    }

    fn judged(change: impl Fn(&mut [Report])) -> String {
        judged_as(|reports, _| change(reports))
    }

    #[test]
    fn what_is_missing_to_health_is_told() {
        assert_eq!(judged(|_| ()), "healthy");
        assert_eq!(judged(|all| all[0].role = "replica".into()), "no member leads");
        assert_eq!(
            judged(|all| all[1].role = "leader".into()),
            "more than one member leads: at-a, at-b:8008"
        );
        assert_eq!(
            judged(|all| all[2].state = "creating replica".into()),
            "at-c is replica, creating replica"
        );
        assert_eq!(judged(|all| all[1].position = Some(80)), "at-b:8008 is 20 bytes behind");
        assert_eq!(judged(|all| all[1].position = None), "at-b:8008 doesn't tell its position in the WAL");
        assert_eq!(judged(|all| all[0].position = None), "at-a doesn't tell its position in the WAL");
        assert!(
            judged(|all| all[1].system_identifier = Some("8".into()))
                .contains("different system identifiers")
        );
    }

    #[test]
    fn the_table_has_the_columns_of_patronictl_list() {
        let seen = seen_as(|reports, names| {
            names[0].name = "b".into();
            names[1].name = "a1".into();
            reports[0].streaming = vec!["a1".into(), "c".into()];
            reports.iter_mut().for_each(|report| report.timeline = Some(12));
            reports[2].pending_restart = true;
        });
        let Seen::Yes(output) = seen else { panic!() };
        let lines = [
            "Member  Host  Role          State    TL  Lag in MB  Pending restart",
            "a1      at-b  Sync Standby  running  12  0",
            "b       at-a  Leader        running  12",
            "c       at-c  Sync Standby  running  12  0          *",
        ];
        assert_eq!(output.0["table"], json!(lines));
    }

    #[test]
    fn timelines_are_compared_where_they_are_told() {
        let told = |of: [Option<u64>; 3]| {
            judged(|all| all.iter_mut().zip(of).for_each(|(one, timeline)| one.timeline = timeline))
        };
        assert_eq!(told([Some(2), Some(2), Some(2)]), "healthy");
        assert_eq!(told([Some(2), None, None]), "healthy", "Patroni 3.0.2 tells none of a replica");
        assert_eq!(told([Some(2), Some(2), Some(1)]), "at-c is on timeline 1, the leader on 2");
    }

    #[test]
    fn only_members_count_as_replicas_that_stream() {
        let stream = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            judged(|all| all[0].streaming.clone_from(&names))
        };
        assert_eq!(stream(&["b"]), "1 of 2 replicas stream; c doesn't");
        assert_eq!(stream(&["pg_receivewal", "subscription"]), "0 of 2 replicas stream; b, c doesn't");
        // A connection that was cut is told beside the new one for a while.
        assert_eq!(stream(&["b", "b"]), "1 of 2 replicas stream; c doesn't");
        assert_eq!(stream(&["c", "subscription", "b"]), "healthy");
        let unknown = judged_as(|_, names| names[2].rest.0 = "elsewhere".into());
        assert_eq!(unknown, "the leader's Patroni doesn't know the member at at-c yet");
    }

    #[test]
    fn a_replica_may_stream_from_another_that_does() {
        let from = |from: [&[&str]; 3]| {
            judged(|all| {
                for (one, names) in all.iter_mut().zip(from) {
                    one.streaming = names.iter().map(|name| (*name).to_owned()).collect();
                }
            })
        };
        assert_eq!(from([&["b"], &["c"], &[]]), "healthy");
        assert_eq!(
            from([&[], &["c"], &["b"]]),
            "0 of 2 replicas stream; b, c doesn't",
            "from one another only"
        );
    }

    #[test]
    fn of_a_member_that_lives_on_the_archive_no_stream_is_wanted() {
        let of = |change: fn(&mut [Report])| {
            judged_as(|all, names| {
                names[1].nostream = true;
                all[0].streaming = vec!["c".into()];
                all[1].position = Some(0);
                change(all);
            })
        };
        assert_eq!(of(|_| ()), "healthy");
        assert_eq!(of(|all| all[0].streaming.clear()), "1 of 2 replicas stream; c doesn't");
        assert_eq!(of(|all| all[1].state = "stopped".into()), "at-b:8008 is replica, stopped");
    }
}
