//! `etcd.member_joined`: a host that is new to a cluster of etcd becomes a member of it.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connect::reach;
use super::members::{Members, Who, by_another, label};
use super::settings::{self, Settings};
use crate::clients::{EtcdMember, NoEtcd, TlsFiles};
use crate::host::{Content, Host, HostChange, HostContext, Ownership, UnitVerb};
use crate::support::{Seen, address_and_port, answered, wait_until};

const UNIT: &str = "etcd.service";
/// etcd's port for clients.
const PORT: u16 = 2379;
/// What counts for the first start alone. Gone after a reboot, and without effect once there is data.
const VARIABLES: &str = "/run/flow-etcd-join.env";
/// The longest file that is compared, in bytes.
const LIMIT: u64 = 1 << 20;
const DROP_IN: &str = "/run/systemd/system/etcd.service.d/flow-join.conf";

/// A host is a voting member of etcd's cluster, where there is one: it is added, started and given its vote.
///
/// Added as a learner, which has no vote: while it catches up, and should it never start, the majority stays what it was, also of a
/// cluster of one or two. Only while all members are healthy and vote, so one after another: use it with `serial = 1`. Then it
/// is started with `ETCD_INITIAL_CLUSTER_STATE=existing`, by a drop-in of systemd that is taken away again, and promoted once it has
/// caught up. Cut short anywhere, it is gone on with. Where no other member answers, nothing is done: a new
/// cluster is made by starting all of them, or this is a member of one that is down.
/// Refused: data of a member that was removed; a member whose data is gone; a cluster without a majority.
/// Output: `state` (`member` or `none`), `member` (its id, hexadecimal, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdMemberJoined {
    /// `address:port` of the other members. By default those of `ETCD_INITIAL_CLUSTER`, at the port of this one's
    /// `ETCD_ADVERTISE_CLIENT_URLS`.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The file of its variables. `/etc/default/etcd` by default.
    #[serde(default = "settings::file")]
    pub file: String,
    /// Seconds that it may take to catch up. 300 by default.
    #[serde(default = "five_minutes")]
    pub timeout: u64,
}

fn five_minutes() -> u64 {
    300
}

impl StepType for EtcdMemberJoined {
    const NAME: &'static str = "etcd.member_joined";
    const NOT_UNDOABLE: &'static str = "a member is taken out by `flow run remove-node.toml`, which looks first whether the others can do without it";

    fn validate(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), TlsFiles::validate)
    }
}

/// What is left to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    add: bool,
    start: bool,
    promote: bool,
    tidy: bool,
}

/// Where the host stands.
enum Stands {
    /// There is no cluster that it could join.
    NoCluster,
    Member(u64),
    Joins(Left),
    Refused(String),
}

impl EtcdMemberJoined {
    fn endpoints(&self, settings: &Settings) -> Vec<String> {
        if !self.endpoints.is_empty() {
            return self.endpoints.clone();
        }
        let own = settings.client_urls.first().and_then(|url| address_and_port(url, PORT).ok());
        let port = own.map_or(PORT, |(_, port)| port);
        let others = settings.initial_cluster.iter().filter(|(_, url)| !settings.peer_urls.contains(url));
        others
            .filter_map(|(_, url)| address_and_port(url, PORT).ok())
            .map(|(address, _)| format!("{address}:{port}"))
            .collect()
    }

    async fn stands(&self, host: &dyn Host, settings: &Settings) -> Result<Stands, StepError> {
        let endpoints = self.endpoints(settings);
        let (member_dir, unit) = (format!("{}/member", settings.data_dir), host.unit(UNIT));
        let (data, drop_in, unit) = tokio::try_join!(host.stat(&member_dir), host.stat(DROP_IN), unit)?;
        let (has_data, tidy) = (data.is_some(), drop_in.is_some());
        match reach(host, &endpoints, self.tls.as_ref(), None).await? {
            Ok(_) => {}
            Err(nobody) if nobody.kind != NoEtcd::Silent && !has_data => {
                return Ok(Stands::Refused(format!(
                    "etcd can't answer for its cluster, so nobody can join it: {}",
                    nobody.said.join("; ")
                )));
            }
            Err(_) => return Ok(Stands::NoCluster),
        }
        let members = Members::look(host, &endpoints, self.tls.as_ref()).await?;
        let who = Who { name: &settings.name, peer_urls: &settings.peer_urls };
        let Some(own) = who.find(&members.all)? else {
            if has_data {
                return Ok(Stands::Refused(format!(
                    "{} holds the data of a member that etcd's cluster doesn't have (any more): it can't join with it",
                    settings.data_dir
                )));
            }
            return Ok(match members.in_the_way(None) {
                Some(why) => Stands::Refused(format!("{} can't join etcd now: {why}", settings.name)),
                None => Stands::Joins(Left { add: true, start: true, promote: true, tidy }),
            });
        };
        if !has_data && !own.client_urls.is_empty() {
            return Ok(Stands::Refused(format!(
                "{} is a member of etcd, and its data is gone from {}: it can't start without it",
                label(own),
                settings.data_dir
            )));
        }
        // One that the cluster was founded with and that hasn't started yet starts as the others did.
        let joins = own.learner;
        let left = Left { add: false, start: joins && unit.active != "active", promote: own.learner, tidy };
        Ok(if joins || tidy { Stands::Joins(left) } else { Stands::Member(own.id) })
    }

    async fn add(&self, cx: &Context, host: &dyn Host, settings: &Settings) -> Result<(), StepError> {
        let Some(url) = settings.peer_urls.first() else {
            return Err(StepError::permanent(format!("{} doesn't say this host's URL for peers", self.file))
                .with_hint("set ETCD_INITIAL_ADVERTISE_PEER_URLS"));
        };
        cx.progress(format!("adding {url} as a learner"));
        // etcd knows no host's lock, so it is proven by itself.
        host.fence(cx.attempt()).await?;
        let client = super::connect(host, &self.endpoints(settings), self.tls.as_ref()).await?;
        Ok(client.member_add_learner(url).await.map(drop)?)
    }

    async fn members(&self, host: &dyn Host, settings: &Settings) -> Result<Vec<EtcdMember>, StepError> {
        let client = super::connect(host, &self.endpoints(settings), self.tls.as_ref()).await?;
        Ok(client.members().await?)
    }

    /// Starts it for the first time. What the cluster is made of must be told exactly.
    async fn start(&self, cx: &Context, host: &dyn Host, settings: &Settings) -> Result<(), StepError> {
        let members = self.members(host, settings).await?;
        let name = |member: &EtcdMember| {
            if member.name.is_empty() { settings.name.clone() } else { member.name.clone() }
        };
        let pair = |member: &EtcdMember| {
            let name = name(member);
            member.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
        };
        let cluster: Vec<String> = members.iter().map(pair).collect();
        let variables =
            format!("ETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_CLUSTER_STATE=existing\n", cluster.join(","));
        write(cx, host, VARIABLES, variables).await?;
        write(cx, host, DROP_IN, format!("[Service]\nEnvironmentFile={VARIABLES}\n")).await?;
        host.change(cx.attempt(), &verb(UnitVerb::DaemonReload)).await?;
        let unit = host.unit(UNIT).await?;
        if unit.masked() {
            host.change(cx.attempt(), &verb(UnitVerb::Unmask)).await?;
        }
        if unit.active == "failed" || unit.sub == "auto-restart" {
            host.change(cx.attempt(), &verb(UnitVerb::ResetFailed)).await?;
        }
        cx.progress("starting etcd");
        Ok(host.change(cx.attempt(), &verb(UnitVerb::Start)).await?)
    }

    /// Gives it its vote, once etcd finds that it has caught up.
    async fn promote(&self, host: &dyn Host, settings: &Settings) -> Result<Seen, StepError> {
        let members = self.members(host, settings).await?;
        let who = Who { name: &settings.name, peer_urls: &settings.peer_urls };
        let Some(own) = who.find(&members)? else {
            return Err(StepError::permanent("etcd's cluster doesn't have this member any more".to_owned()));
        };
        let output = Self::output(Some(own.id));
        if !own.learner {
            return Ok(Seen::Yes(output));
        }
        let client = by_another(host, &members, own.id, self.tls.as_ref()).await?;
        Ok(match answered(client.member_promote(own.id).await)? {
            Ok(()) => Seen::Yes(output),
            Err(why) => Seen::NotYet(why),
        })
    }

    fn output(id: Option<u64>) -> Output {
        let state = if id.is_some() { "member" } else { "none" };
        Output::empty().with("state", state).with("member", id.map(|id| format!("{id:x}")))
    }
}

fn verb(verb: UnitVerb) -> HostChange {
    HostChange::Unit { unit: UNIT.to_owned(), verb }
}

/// A file with this text. An attempt that was cut short may have left it.
async fn write(cx: &Context, host: &dyn Host, path: &str, text: String) -> Result<(), StepError> {
    let there = host.read(path, LIMIT).await?;
    if there.is_some_and(|bytes| bytes == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder).to_owned();
    if host.stat(&folder).await?.is_none() {
        let folder = HostChange::MakeDirectory { path: folder, ownership: Ownership::default() };
        host.change(cx.attempt(), &folder).await?;
    }
    let ownership = Ownership { mode: Some(0o644), ..Ownership::default() };
    let file =
        HostChange::WriteFile { path: path.to_owned(), content: Content(text.into_bytes()), ownership };
    Ok(host.change(cx.attempt(), &file).await?)
}

/// What was only for the first start goes.
async fn tidy(cx: &Context, host: &dyn Host) -> Result<(), StepError> {
    for path in [VARIABLES, DROP_IN] {
        host.change(cx.attempt(), &HostChange::RemoveFile { path: path.to_owned() }).await?;
    }
    Ok(host.change(cx.attempt(), &verb(UnitVerb::DaemonReload)).await?)
}

const REFUSED_HINT: &str = "data that is in the way: set it aside on that host (`flow run remove-node.toml` does); a member without its \
    data, or that works no more: `flow run etcd-member-replace.toml`; and all others must be healthy: `flow diagnose`";

#[async_trait]
impl Step for EtcdMemberJoined {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let Some(settings) = Settings::of(&*host, &self.file).await? else {
            let missing = format!("there is no {}", self.file);
            return Ok(if cx.planning() {
                Check::Deferred(missing + " yet")
            } else {
                Check::Refused(missing)
            });
        };
        Ok(match self.stands(&*host, &settings).await? {
            Stands::NoCluster => Check::Satisfied(Self::output(None)),
            Stands::Member(id) => Check::Satisfied(Self::output(Some(id))),
            Stands::Refused(why) => return Err(StepError::permanent(why).with_hint(REFUSED_HINT)),
            Stands::Joins(left) => {
                let words = [
                    (left.add, "add it as a learner"),
                    (left.start, "start it"),
                    (left.promote, "give it its vote"),
                    (left.tidy && !left.promote, "take away what was only for its first start"),
                ];
                let words: Vec<&str> =
                    words.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect();
                let summary = format!("{} joins etcd: {}", settings.name, words.join(", "));
                Check::Pending(Change::new(summary).with_data(left))
            }
        })
    }

    /// That it joins. How far it is by now moves.
    fn invariant(&self, _change: &Change) -> serde_json::Value {
        "joins".into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::of(&*host, &self.file).await?;
        let settings = settings.ok_or_else(|| StepError::permanent(format!("there is no {}", self.file)))?;
        // Looked at once more: another host may have joined since the check.
        let left = match self.stands(&*host, &settings).await? {
            Stands::Joins(left) => left,
            Stands::Member(id) => return Ok(Self::output(Some(id))),
            Stands::NoCluster => {
                return Err(StepError::failed("etcd's members don't answer any more".to_owned()));
            }
            Stands::Refused(why) => return Err(StepError::permanent(why).with_hint(REFUSED_HINT)),
        };
        if left.add {
            self.add(cx, &*host, &settings).await?;
        }
        if left.start {
            self.start(cx, &*host, &settings).await?;
        }
        let waits = Duration::from_secs(self.timeout);
        let output = wait_until(cx, waits, || self.promote(&*host, &settings)).await.map_err(|error| {
            error
                .with_hint("`journalctl -u etcd` on the host; it has no vote, so the others go on without it")
        })?;
        if left.start || left.tidy {
            tidy(cx, &*host).await?;
        }
        Ok(output)
    }
}

#[cfg(test)]
#[path = "member_joined_tests.rs"]
mod tests;
