//! The judgement: first what forbids any, then the case of a living leader, then that of none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::ancestry::Kinship;
use super::apart::{apart, beside, lacking};
use super::evidence::{Cluster, Configuration, Data, Keys, Node, Store, made};
use super::keep::kept_from_leading;
use super::surgery::Surgery;
use super::words::lines;
use super::{Judgement, Verdict};
use crate::clients::NoEtcd;
use crate::patroni::rest::{Report, fed};

/// The hosts by name: their order in an inventory decides nothing.
pub(super) type Nodes<'a> = BTreeMap<&'a str, &'a Node>;

/// Says what is wrong. Never that of a member's data what isn't proven.
pub(crate) fn judge(nodes: &IndexMap<String, Node>) -> Judgement {
    let nodes: Nodes<'_> = nodes.iter().map(|(host, node)| (host.as_str(), node)).collect();
    let (keys, mut doubts) = keys(&nodes);
    let (verdict, reasons) =
        unsupported(&nodes, keys).or_else(|| strangers(&nodes, keys)).unwrap_or_else(|| {
            doubts.extend(disagreements(&nodes));
            doubts.extend(unseen(&nodes));
            let leaders: Vec<&str> =
                nodes.iter().filter(|(_, node)| node.leads()).map(|(host, _)| *host).collect();
            match (keys, leaders.as_slice()) {
                (None, _) => (Verdict::Undecided, doubts),
                (Some(keys), [leader]) => Led { nodes: &nodes, keys, leader, doubts }.judge(),
                (Some(keys), []) => Leaderless { nodes: &nodes, keys, doubts }.judge(),
                (Some(_), several) => {
                    doubts.push(format!("{} serve as primaries at the same time", several.join(" and ")));
                    (Verdict::Undecided, doubts)
                }
            }
        });
    let surgery = Surgery::of(&verdict, &nodes, keys);
    Judgement { verdict, surgery, apart: apart(&nodes), reasons, evidence: lines(&nodes, keys) }
}

type Judged = (Verdict, Vec<String>);

fn unsupported(nodes: &Nodes<'_>, keys: Option<&Keys>) -> Option<Judged> {
    if let Some(whom) = keys.and_then(|keys| keys.standby_of.as_ref()) {
        let why = format!(
            "it is a standby cluster, which follows {whom}: nobody in it leads, and it is mended from there"
        );
        return Some((Verdict::NotSupported, vec![why]));
    }
    let reasons: Vec<String> = nodes
        .iter()
        .filter_map(|(host, node)| match (&node.configuration, &node.store) {
            (Configuration::Unsupported(why), _) => Some(format!("{host}: {why}")),
            (_, Store::Silent(NoEtcd::NotEtcd3, why)) => {
                Some(format!("{host}: what answers in etcd's place isn't etcd version 3: {why}"))
            }
            _ => None,
        })
        .collect();
    (!reasons.is_empty()).then_some((Verdict::NotSupported, reasons))
}

/// The keys, if those who see them see the same.
pub(super) fn keys<'a>(nodes: &Nodes<'a>) -> (Option<&'a Keys>, Vec<String>) {
    let mut seen: Option<(&str, &'a Keys)> = None;
    let mut silent = Vec::new();
    for (host, node) in nodes {
        match (&node.store, seen) {
            (Store::Unknown(why) | Store::Silent(_, why), _) => {
                silent.push(format!("{host} can't read the cluster's keys: {why}"));
            }
            (Store::Keys(keys), None) => seen = Some((host, keys)),
            (Store::Keys(keys), Some((first, known))) => {
                if (&keys.initialize, &keys.leader) != (&known.initialize, &known.leader) {
                    return (
                        None,
                        vec![format!(
                            "{first} and {host} see different keys: they changed just now, or the hosts speak to two etcd clusters"
                        )],
                    );
                }
            }
        }
    }
    match seen {
        // That one host doesn't reach etcd is no matter where another does.
        Some((_, keys)) => (Some(keys), Vec::new()),
        None => (None, silent),
    }
}

/// Members in etcd that no host of the inventory is.
fn strangers(nodes: &Nodes<'_>, keys: Option<&Keys>) -> Option<Judged> {
    let names: Option<Vec<&str>> = nodes.values().map(|node| node.member()).collect();
    let names = names?;
    let strange: Vec<&str> =
        keys?.members.keys().map(String::as_str).filter(|name| !names.contains(name)).collect();
    (!strange.is_empty()).then(|| {
        let what = format!(
            "etcd names members that no host of the inventory is: {}. Another cluster uses the same scope, or the inventory lacks hosts",
            strange.join(", ")
        );
        (Verdict::TwoClusters, vec![what])
    })
}

/// Where the hosts' configurations are not one cluster's.
pub(in crate::patroni) fn disagreements(nodes: &Nodes<'_>) -> Vec<String> {
    let known: Vec<_> = nodes.iter().filter_map(|(host, node)| Some((host, node.settings()?))).collect();
    let mut doubts = Vec::new();
    for pair in known.windows(2) {
        let [(one, a), (other, b)] = pair else { continue };
        let mut differ = |what: &str, a: &str, b: &str| {
            if a != b {
                doubts.push(format!("the configurations of {one} and {other} differ in {what}: {a} and {b}"));
            }
        };
        differ("scope and namespace", &a.prefix, &b.prefix);
        differ("etcd's members", &a.endpoints.join(","), &b.endpoints.join(","));
    }
    for (index, (host, settings)) in known.iter().enumerate() {
        if let Some((other, _)) = known[..index].iter().find(|(_, earlier)| earlier.name == settings.name) {
            doubts.push(format!("{other} and {host} have the same member name, {}", settings.name));
        }
    }
    for (host, settings) in &known {
        for (seer, keys) in nodes.iter().filter_map(|(seer, node)| match &node.store {
            Store::Keys(keys) => Some((seer, keys)),
            Store::Unknown(_) | Store::Silent(..) => None,
        }) {
            if let Some(Some(address)) = keys.members.get(&settings.name)
                && *address != settings.rest
                && seer == *host
            {
                doubts.push(format!(
                    "etcd says that member {} is at {address}, its host {host} says {}",
                    settings.name, settings.rest
                ));
            }
        }
    }
    doubts
}

/// What could not be seen, and who writes without Patroni.
fn unseen(nodes: &Nodes<'_>) -> Vec<String> {
    let mut doubts = Vec::new();
    for (host, node) in nodes {
        if let Some(why) = &node.unreachable {
            doubts.push(format!("{host} can't be reached: {why}"));
            continue;
        }
        if let Configuration::Unknown(why) = &node.configuration {
            doubts.push(format!("the configuration of {host} isn't known: {why}"));
        }
        match &node.data {
            Data::Unknown(why) => doubts.push(format!("the data of {host} isn't known: {why}")),
            Data::Unreadable(what) => {
                doubts.push(format!("{host} has files in its data directory that are no cluster: {what}"));
            }
            Data::Nothing => {}
            Data::Cluster(cluster) => {
                if cluster.state == "in production" && cluster.running != Some(false) && !node.leads() {
                    doubts.push(format!("on {host} a PostgreSQL may run as a primary without its Patroni"));
                }
            }
        }
    }
    doubts
}

/// A leader lives.
struct Led<'a> {
    nodes: &'a Nodes<'a>,
    keys: &'a Keys,
    leader: &'a str,
    doubts: Vec<String>,
}

impl Led<'_> {
    fn judge(mut self) -> Judged {
        let node = self.nodes[self.leader];
        let leader = self.leader.to_owned();
        let Some(own) = node.cluster() else {
            self.doubts.push(format!("{leader} leads, but its data directory isn't what PostgreSQL runs on"));
            return (Verdict::Undecided, self.doubts);
        };
        self.holds_the_key(node, own);
        let mut odd = Vec::new();
        let mut trouble = Vec::new();
        let live = live(self.nodes, self.leader);
        for (host, other) in self.nodes.iter().filter(|(host, _)| **host != self.leader) {
            let streams = live.contains(host);
            match other.cluster() {
                Some(cluster) if cluster.identifier != own.identifier => match holds_something(cluster, own, other) {
                    None => odd.push((*host).to_owned()),
                    Some(why) => self.doubts.push(format!(
                        "{host} belongs to another cluster ({}) and isn't proven to be empty: {why}",
                        cluster.identifier
                    )),
                },
                Some(_) if streams => {}
                Some(cluster) => match beside(other, cluster, own) {
                    Kinship::Contained => trouble.push(format!("{host} doesn't stream from {leader}")),
                    Kinship::Ahead(why) => {
                        self.doubts.push(format!("{host} may have rows that {leader} lacks: {why}"));
                    }
                    Kinship::Unknown(why) => self.doubts.push(format!(
                        "{host} doesn't stream from {leader}, and whether it has rows of its own can't be told: {why}"
                    )),
                },
                None => trouble.push(format!("{host} has no data")),
            }
        }
        let initialize = self.keys.initialize.as_ref().map_or("", |key| key.value.as_str());
        if !initialize.is_empty() && initialize != own.identifier {
            self.doubts.push(format!(
                "the key `initialize` says {initialize}, but the leader {leader} runs under {}",
                own.identifier
            ));
        }
        if !self.doubts.is_empty() {
            return (Verdict::Undecided, self.doubts);
        }
        if initialize.is_empty() {
            let why = format!(
                "there is no key `initialize`, and {leader} leads: it writes the key back at its next turn"
            );
            return (Verdict::KeyGoneLeaderAlive { leader, identifier: own.identifier.clone() }, vec![why]);
        }
        if !odd.is_empty() {
            let why = odd.iter().map(|host| self.why_disposable(host)).collect();
            return (Verdict::Disposable { leader, members: odd }, why);
        }
        if trouble.is_empty() {
            let why =
                format!("{leader} leads, all others stream from it, and all belong to cluster {initialize}");
            return (Verdict::Healthy { leader }, vec![why]);
        }
        (Verdict::NoMismatch { keeper: leader }, trouble)
    }

    /// A leader is one by its lease, and by the data that it runs on.
    fn holds_the_key(&mut self, node: &Node, own: &Cluster) {
        let leader = self.leader;
        match &self.keys.leader {
            Some(key) if Some(key.value.as_str()) != node.member() => self
                .doubts
                .push(format!("{leader} serves as a primary, but the leader's key is {}'s", key.value)),
            Some(key) if key.lease == 0 => {
                self.doubts
                    .push("the leader's key has no lease: it would stay when the leader dies".to_owned());
            }
            Some(_) => {}
            None => {
                self.doubts.push(format!("{leader} serves as a primary, but nobody holds the leader's key"));
            }
        }
        let running = node.report.as_ref().and_then(|report| report.system_identifier.as_deref());
        if running.is_some_and(|running| running != own.identifier) {
            self.doubts.push(format!(
                "{leader} runs under {}, but its data directory belongs to {}",
                running.unwrap_or_default(),
                own.identifier
            ));
        }
    }

    fn why_disposable(&self, host: &str) -> String {
        let identifier = self.nodes[host].cluster().map_or("", |cluster| cluster.identifier.as_str());
        format!(
            "{host} belongs to cluster {identifier}, which was initialised after that of the leader {}, is on timeline 1, was shut down in order and has no relation of a user",
            self.leader
        )
    }
}

/// The hosts to which a leader's WAL comes: it names them among those that stream, or one does to which it comes (tag
/// `replicatefrom`), and they say so themselves.
pub(in crate::patroni) fn streaming<'a>(
    nodes: impl IntoIterator<Item = (&'a str, &'a Node)>,
    leader: &str,
) -> BTreeSet<&'a str> {
    let serves = |(host, node): (&'a str, &'a Node)| {
        let report = node.report.as_ref().filter(|report| host == leader || report.follows())?;
        Some((host, node.member()?, report))
    };
    let members: Vec<(&str, &str, &Report)> = nodes.into_iter().filter_map(serves).collect();
    let named: Vec<(&str, &Report)> = members.iter().map(|(_, name, report)| (*name, *report)).collect();
    let first = members.iter().filter(|(host, ..)| *host == leader).map(|(_, name, _)| *name);
    let fed = fed(&named, first);
    let comes = members.iter().filter(|(host, name, _)| *host != leader && fed.contains(name));
    comes.map(|(host, ..)| *host).collect()
}

/// The same of the hosts that are judged.
pub(super) fn live<'a>(nodes: &Nodes<'a>, leader: &str) -> BTreeSet<&'a str> {
    streaming(nodes.iter().map(|(host, node)| (*host, *node)), leader)
}

/// Why a member of another cluster may hold something; none where it is proven that it doesn't.
fn holds_something(cluster: &Cluster, leaders: &Cluster, node: &Node) -> Option<String> {
    match (made(&cluster.identifier), made(&leaders.identifier)) {
        (Some(own), Some(leaders)) if own > leaders => {}
        (Some(_), Some(_)) => return Some("it was initialised before the leader's cluster".to_owned()),
        _ => return Some("when it was initialised can't be told".to_owned()),
    }
    if cluster.timeline != 1 {
        return Some(format!("it is on timeline {}, so it was promoted once", cluster.timeline));
    }
    // Between two of its restarts Patroni answers, and says that PostgreSQL is stopped.
    let may_serve = node.report.as_ref().is_some_and(|report| report.state != "stopped");
    if may_serve || cluster.running != Some(false) {
        return Some("a PostgreSQL may run on it".to_owned());
    }
    if cluster.state != "shut down" {
        return Some(format!("it wasn't shut down in order (`{}`)", cluster.state));
    }
    match cluster.user_data {
        Some(false) => None,
        Some(true) => Some("it has relations, tablespaces or databases of users".to_owned()),
        None => Some("whether it has relations of users can't be told".to_owned()),
    }
}

/// Nobody leads.
struct Leaderless<'a> {
    nodes: &'a Nodes<'a>,
    keys: &'a Keys,
    doubts: Vec<String>,
}

impl Leaderless<'_> {
    fn judge(mut self) -> Judged {
        let clusters: Vec<(&str, &Cluster)> =
            self.nodes.iter().filter_map(|(host, node)| Some((*host, node.cluster()?))).collect();
        let Some(&(_, first)) = clusters.first() else {
            self.doubts.push("no host has a data directory".to_owned());
            return (Verdict::Undecided, self.doubts);
        };
        let identifier = first.identifier.clone();
        if let Some(key) = &self.keys.leader {
            self.doubts.push(if key.lease == 0 {
                format!(
                    "the leader's key is {}'s and has no lease: while it is there, nobody else can lead",
                    key.value
                )
            } else {
                format!("{} still holds the leader's key: look again once its lease has run out", key.value)
            });
        }
        if clusters.iter().any(|(_, cluster)| cluster.identifier != identifier) {
            self.doubts.push("nobody leads, and the members belong to different clusters".to_owned());
        }
        if !self.doubts.is_empty() {
            return (Verdict::Undecided, self.doubts);
        }
        let (initialize, revision) =
            self.keys.initialize.as_ref().map_or(("", 0), |key| (key.value.as_str(), key.revision));
        let (complete, keeper) = match complete(&clusters) {
            Ok(complete) => (complete[0], self.able(&complete)),
            Err(doubts) => return (Verdict::Undecided, doubts),
        };
        let has_all = |keeper: &str| {
            format!("{keeper} has all that any other member has: the last change of each is in its WAL")
        };
        if initialize == identifier {
            let agree = "nobody leads, though the key `initialize` and all data directories agree".to_owned();
            let (keeper, why) = match keeper {
                Ok(keeper) => (keeper, Vec::new()),
                Err(why) => (complete.to_owned(), why),
            };
            let reasons = [agree, has_all(&keeper)].into_iter().chain(why).collect();
            return (Verdict::NoMismatch { keeper }, reasons);
        }
        match keeper {
            Ok(keeper) => {
                let said = if initialize.is_empty() {
                    "there is no key `initialize`".to_owned()
                } else {
                    format!("the key `initialize` says {initialize}")
                };
                let why = vec![
                    format!("{said}, nobody leads, and all data directories belong to {identifier}"),
                    has_all(&keeper),
                ];
                (Verdict::KeyWrong { identifier, keeper, revision }, why)
            }
            Err(doubts) => (Verdict::Undecided, doubts),
        }
    }

    /// Of those that have all, the one that is to lead; or what keeps each of them from it.
    fn able(&self, complete: &[&str]) -> Result<String, Vec<String>> {
        let kept = |host: &str| kept_from_leading(self.keys, host, self.nodes[host]);
        // Of several that have all rows, the one that wrote last: it needs no promotion. Then the one whose WAL goes furthest.
        let was_primary = |host: &str| {
            self.nodes[host]
                .cluster()
                .is_some_and(|cluster| matches!(cluster.state.as_str(), "shut down" | "in production"))
        };
        let able = complete.iter().filter(|host| kept(host).is_empty());
        let end = |host: &str| {
            self.nodes[host].cluster().and_then(|cluster| cluster.records.last()).map(|last| last.at)
        };
        match able.min_by_key(|host| (!was_primary(host), Reverse(end(host)), **host)) {
            Some(host) => Ok((*host).to_owned()),
            None => Err(complete.iter().flat_map(|host| kept(host)).collect()),
        }
    }
}

/// The members that have all that the others have: one at least, or why there is none.
fn complete<'a>(clusters: &[(&'a str, &Cluster)]) -> Result<Vec<&'a str>, Vec<String>> {
    let looked: Vec<_> = clusters.iter().map(|(host, own)| (*host, lacking(own, clusters))).collect();
    let complete: Vec<&str> =
        looked.iter().filter(|(_, lacks)| lacks.is_empty()).map(|(host, _)| *host).collect();
    if complete.is_empty() {
        let words = looked.into_iter().map(|(host, lacks)| {
            format!("{host} isn't proven to have all that the others have: {}", lacks.join("; "))
        });
        return Err(words.collect());
    }
    Ok(complete)
}
