//! `patroni.restarted`: no setting of a member waits for a restart of its PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::rest::{Api, Named, Report, cluster, named, post, report};
use super::settings::Settings;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// No setting of the host's member waits for a restart of its PostgreSQL (`pending restart`).
///
/// Where one does, Patroni restarts it, and only it: a member whose settings don't wait is left alone. A member that leads hands
/// the lead over first, to the replica that is least behind; clients are without a leader for a moment. Only a leader without any other
/// member is restarted where it is. Waits until it serves again, as a replica that streams. Refused in pause, where the member doesn't
/// serve, and where no replica could take the lead over. Replicas first is for `hosts` to say, one after another for `serial = 1`.
/// Output: `restarted`, `handed_over_to` (a member's name, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniRestarted {
    /// What waits, as `patroni.pending_restart` tells it, for the words of a plan: a plan believes it, a run looks.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Patroni's configuration file, for address and password of the REST API. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds that handing over, and the restart, may take each. 180 by default.
    #[serde(default = "three_minutes")]
    pub timeout: u64,
}

fn three_minutes() -> u64 {
    180
}

impl StepType for PatroniRestarted {
    const NAME: &'static str = "patroni.restarted";
    const NOT_UNDOABLE: &'static str = "a restart is over when it has happened";
}

/// How often it is asked again, where the answer is lost.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How far a replica may be behind before the next member's turn, in bytes of WAL.
const MAX_LAG: u64 = 16 << 20;

/// To whom a leader can hand over.
#[derive(Debug, PartialEq, Eq)]
enum Heir {
    /// This member.
    Is(String),
    /// There is no other member.
    Alone,
    /// There are others, and none is fit.
    Nobody,
}

/// The replica that is least behind, of those that stream; a synchronous one goes before all others.
fn heir(members: &[Value], own: &str, streaming: &[String]) -> Heir {
    let mut others = members.iter().filter(|member| member["name"] != own).peekable();
    if others.peek().is_none() {
        return Heir::Alone;
    }
    let fit = others.filter_map(|member| {
        let name = member["name"].as_str().filter(|name| streaming.iter().any(|one| one == name))?;
        let serves = matches!(member["state"].as_str(), Some("running" | "streaming"));
        let barred = member["tags"]["nofailover"] == json!(true);
        let asynchronous = !matches!(member["role"].as_str()?, "sync_standby" | "quorum_standby");
        (serves && !barred).then_some((asynchronous, member["lag"].as_u64()?, name.to_owned()))
    });
    fit.min().map_or(Heir::Nobody, |(_, _, name)| Heir::Is(name))
}

/// Something that a member is asked to do.
struct Asked {
    what: &'static str,
    path: &'static str,
    body: Value,
    /// It isn't done yet.
    undone: fn(&Report) -> bool,
}

impl PatroniRestarted {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    async fn look(host: &dyn Host, settings: &Settings) -> Result<Report, StepError> {
        let silent = |why| StepError::failed(format!("Patroni at {} doesn't answer: {why}", settings.rest));
        report(host, &Api::of(settings)?).await?.map_err(silent)
    }

    async fn heir(host: &dyn Host, settings: &Settings, seen: &Report) -> Result<Heir, StepError> {
        let members = cluster(host, &Api::of(settings)?).await?;
        Ok(heir(&members, &settings.name, &seen.streaming))
    }

    /// What is to be done of a member whose settings wait, or why it must not be.
    async fn change(
        &self,
        host: &dyn Host,
        settings: &Settings,
        seen: &Report,
    ) -> Result<Result<String, String>, StepError> {
        let name = &settings.name;
        if seen.paused {
            let why = "the cluster is in pause: PostgreSQL isn't restarted before `patronictl resume`";
            return Ok(Err(why.to_owned()));
        }
        if !seen.leads() && !seen.follows() {
            return Ok(Err(format!(
                "{name} is {}, {}: only a member that serves is restarted",
                seen.role, seen.state
            )));
        }
        let how = match seen.leads() {
            false => "restart PostgreSQL",
            true => match Self::heir(host, settings, seen).await? {
                Heir::Is(_) => "hand the lead over to a replica (switchover), then restart PostgreSQL",
                Heir::Alone => "restart PostgreSQL, the only member: clients are cut off meanwhile",
                Heir::Nobody => return Ok(Err(format!("{name} leads, {NOBODY}"))),
            },
        };
        Ok(Ok(match self.settings.as_slice() {
            [] => format!("{how}: settings wait for it"),
            settings => format!("{how}: {}", settings.join(", ")),
        }))
    }

    /// Gives the lead to a replica; none where there is no other member.
    async fn hand_over(
        &self,
        cx: &Context,
        host: &dyn Host,
        settings: &Settings,
        seen: &Report,
    ) -> Result<Option<String>, StepError> {
        let heir = match Self::heir(host, settings, seen).await? {
            Heir::Is(heir) => heir,
            Heir::Alone => return Ok(None),
            Heir::Nobody => {
                return Err(StepError::failed(format!("{} leads, {NOBODY}", settings.name))
                    .with_hint("`flow diagnose` tells what is wrong with the others"));
            }
        };
        cx.progress(format!("handing the lead over to {heir}"));
        let body = json!({ "leader": settings.name, "candidate": heir });
        let asked = Asked { what: "hand the lead over", path: "/switchover", body, undone: Report::leads };
        self.ask_until(cx, host, settings, asked).await?;
        Ok(Some(heir))
    }

    async fn restart(&self, cx: &Context, host: &dyn Host, settings: &Settings) -> Result<(), StepError> {
        cx.progress("restarting PostgreSQL");
        let body = json!({ "restart_pending": true });
        let undone = |seen: &Report| seen.pending_restart;
        let asked = Asked { what: "restart PostgreSQL", path: "/restart", body, undone };
        self.ask_until(cx, host, settings, asked).await
    }

    /// Asks the member until it is done, and it serves again. What counts is what becomes of it: an answer that was lost is
    /// no failure, and it is asked again while it serves as before.
    async fn ask_until(
        &self,
        cx: &Context,
        host: &dyn Host,
        settings: &Settings,
        asked: Asked,
    ) -> Result<(), StepError> {
        let Asked { what, path, body, undone } = asked;
        let as_before = |seen: &Report| undone(seen) && (seen.leads() || seen.follows());
        let last: Mutex<Option<Instant>> = Mutex::default();
        let look = || async {
            let mut last = last.lock().await;
            let due = last.is_none_or(|at| at.elapsed() >= ASK_EVERY);
            if due && as_before(&Self::look(host, settings).await?) {
                let reply = post(host, settings, path, body.clone(), self.limit()).await?;
                // Asked a second time, it may be at it already.
                if let (None, Ok(reply)) = (last.replace(Instant::now()), reply)
                    && reply.status >= 300
                    && as_before(&Self::look(host, settings).await?)
                {
                    let said = String::from_utf8_lossy(&reply.body).trim().to_owned();
                    return Err(StepError::permanent(format!("Patroni doesn't {what}: {said}")));
                }
            }
            self.serves(host, settings, |seen| !undone(seen)).await
        };
        wait_until(cx, self.limit(), look).await.map(drop)
    }

    /// It serves in such a way, and where it is a replica, the leader sends to it, or the member that its tag `replicatefrom` names.
    async fn serves(
        &self,
        host: &dyn Host,
        settings: &Settings,
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<Seen, StepError> {
        let own = Self::look(host, settings).await?;
        let name = &settings.name;
        if !wanted(&own) || !own.leads() && !own.follows() {
            let waits = if own.pending_restart { ", its settings wait for a restart" } else { "" };
            return Ok(Seen::NotYet(format!("{name} is {}, {}{waits}", own.role, own.state)));
        }
        if own.leads() {
            return Ok(Seen::Yes(Output::empty()));
        }
        let members = match named(host, &Api::of(settings)?).await? {
            Ok(members) => members,
            Err(why) => return Ok(Seen::NotYet(format!("{name} doesn't tell the cluster's members: {why}"))),
        };
        let is_own = |member: &&Named| member.name == *name;
        if members.iter().find(is_own).is_some_and(|own| own.nostream) {
            return Ok(Seen::Yes(Output::empty()));
        }
        let Some(leader) = members.iter().find(|member| member.leads) else {
            return Ok(Seen::NotYet("no member leads".to_owned()));
        };
        let ask = async |member: &Named| {
            report(host, &Api::new(&member.address(), settings.rest_tls.as_ref())?).await
        };
        let leads = match ask(leader).await? {
            Ok(leads) => leads,
            Err(why) => return Ok(Seen::NotYet(format!("the leader's Patroni doesn't answer: {why}"))),
        };
        let from = members.iter().find(is_own).and_then(|own| own.replicates_from.as_ref());
        let sends = match members.iter().find(|member| Some(&member.name) == from) {
            Some(sender) if !leads.streaming.contains(name) => ask(sender).await?.ok(),
            _ => None,
        };
        if !leads.streaming.contains(name) && !sends.is_some_and(|sender| sender.streaming.contains(name)) {
            return Ok(Seen::NotYet(format!("{name} doesn't stream from the leader yet")));
        }
        // As much as a healthy cluster may have (`patroni.cluster`): the next one's turn is another look at that.
        Ok(match (leads.position, own.position) {
            (Some(written), Some(received)) if written.saturating_sub(received) > MAX_LAG => {
                Seen::NotYet(format!("{name} is {} bytes behind", written - received))
            }
            (Some(_), Some(_)) => Seen::Yes(Output::empty()),
            _ => Seen::NotYet(format!("how far {name} is behind isn't told")),
        })
    }
}

const NOBODY: &str = "and no replica is fit to take the lead over: it isn't restarted";

fn output(restarted: bool, handed_over_to: Option<String>) -> Output {
    Output::empty().with("restarted", restarted).with("handed_over_to", handed_over_to)
}

#[async_trait]
impl Step for PatroniRestarted {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = match Settings::of(&*host, &self.config_file).await? {
            Some(settings) => settings,
            None if cx.planning() => {
                return Ok(Check::Deferred(format!("there is no {} yet", self.config_file)));
            }
            None => return Ok(Check::Refused(format!("there is no {}", self.config_file))),
        };
        let seen = match Self::look(&*host, &settings).await {
            Err(error) if cx.planning() => return Ok(Check::Deferred(error.message)),
            seen => seen?,
        };
        let waits = seen.pending_restart || cx.planning() && !self.settings.is_empty();
        if !waits {
            return Ok(Check::Satisfied(output(false, None)));
        }
        Ok(match self.change(&*host, &settings, &seen).await? {
            Ok(words) => Check::Pending(Change::new(words)),
            Err(why) => Check::Refused(why),
        })
    }

    /// It may lead no more when it is looked at again.
    fn invariant(&self, _change: &Change) -> Value {
        "restart".into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        // What is changed is not on the host's disk, so its lock is proven by itself.
        host.fence(cx.attempt()).await?;
        let seen = Self::look(&*host, &settings).await?;
        let heir = if seen.leads() { self.hand_over(cx, &*host, &settings, &seen).await? } else { None };
        host.fence(cx.attempt()).await?;
        // A leader that has handed over was started anew by that, with all its settings.
        if heir.is_none() || Self::look(&*host, &settings).await?.pending_restart {
            self.restart(cx, &*host, &settings).await?;
        }
        Ok(output(true, heir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HOSTS, Lab, pending, refused, satisfied};

    fn step() -> PatroniRestarted {
        serde_json::from_value(json!({ "timeout": 2 })).unwrap()
    }

    #[test]
    fn the_lead_goes_to_the_replica_that_is_least_behind_and_may_have_it() {
        let member = |name: &str, role: &str, state: &str, lag: Value| json!({ "name": name, "role": role, "state": state, "lag": lag });
        let mut members = vec![
            member("a", "leader", "running", Value::Null),
            member("b", "replica", "streaming", json!(700)),
            member("c", "replica", "running", json!(0)),
            member("d", "replica", "starting", json!(0)),
            member("e", "replica", "running", json!("unknown")),
            member("f", "replica", "running", json!(0)),
        ];
        let streaming = ["b", "c", "d", "e"].map(str::to_owned);
        let is = |name: &str| Heir::Is(name.to_owned());
        assert_eq!(heir(&members, "a", &streaming), is("c"));
        members[1]["role"] = json!("sync_standby");
        assert_eq!(heir(&members, "a", &streaming), is("b"), "a synchronous one has all that was committed");
        members[1]["tags"] = json!({ "nofailover": true });
        assert_eq!(heir(&members, "a", &streaming), is("c"));
        assert_eq!(heir(&members[..1], "a", &[]), Heir::Alone);
        assert_eq!(heir(&members, "a", &[]), Heir::Nobody);
    }

    /// A cluster whose settings wait for a restart on every member.
    async fn waiting() -> Lab {
        let lab = Lab::deployed().await;
        for (host, _) in HOSTS {
            satisfied(step().check(&lab.on(host)).await.unwrap());
        }
        let config = json!({ "postgresql": { "parameters": { "max_connections": 150 } } });
        lab.make("patroni2", "patroni.dynamic_config", json!({ "config": config, "merge": true })).await;
        lab
    }

    #[tokio::test]
    async fn a_member_whose_settings_wait_is_restarted_and_a_leader_hands_the_lead_over_first() {
        let lab = waiting().await;
        let replica = lab.establish(&step(), &lab.on("patroni2")).await;
        assert_eq!(replica.0.summary, "restart PostgreSQL: settings wait for it");
        assert_eq!(replica.1.0["handed_over_to"], Value::Null);
        let (change, output) = lab.establish(&step(), &lab.on("patroni1")).await;
        assert!(change.summary.starts_with("hand the lead over to a replica"), "{}", change.summary);
        assert_eq!(output.0["restarted"], true);
        let leader = lab.world.state().unwrap().etcd.get("/service/demo/leader").unwrap().to_owned();
        assert_eq!(output.0["handed_over_to"], leader.as_str());
        assert_ne!(leader, "patroni1");
        let last = pending(step().check(&lab.on("patroni3")).await.unwrap()).summary;
        let hands_over = last.starts_with("hand the lead over");
        assert_eq!(hands_over, leader == "patroni3", "{last}");
    }

    #[tokio::test]
    async fn in_pause_nothing_is_restarted() {
        let lab = waiting().await;
        let pause = json!({ "config": { "pause": true }, "merge": true });
        lab.make("patroni2", "patroni.dynamic_config", pause).await;
        for (host, _) in HOSTS {
            let why = refused(step().check(&lab.on(host)).await.unwrap());
            assert!(why.contains("in pause"), "{why}");
        }
    }
}
