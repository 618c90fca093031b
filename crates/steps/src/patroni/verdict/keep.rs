//! The operator says whose data is kept, where the evidence doesn't decide it.
//!
//! That overrides doubts about whose data is the right one, and no others: a host that isn't seen could be writing, and a
//! keeper that Patroni won't let lead would leave the cluster without a leader.

use super::ancestry::{Kinship, kinship};
use super::evidence::{Cluster, Configuration, Data, Keys, Node};
use super::judge::{Nodes, disagreements, live};
use super::surgery::{Surgery, forget};

/// What is done, and why so.
pub(super) type Kept = (Surgery, Vec<String>);

/// The plan that keeps the data of `keeper`, or what stands in its way.
pub(super) fn keep(nodes: &Nodes<'_>, keys: Option<&Keys>, keeper: &str) -> Result<Kept, Vec<String>> {
    let Some(node) = nodes.get(keeper) else {
        return Err(vec![format!("there is no host {keeper} to keep the data of")]);
    };
    let mut doubts = unseen(nodes);
    doubts.extend(disagreements(nodes));
    let (Some(own), Some(keys)) = (node.cluster(), keys) else {
        if node.cluster().is_none() {
            doubts.push(format!("{keeper} has no data directory that could be kept"));
        }
        if keys.is_none() {
            doubts.push("the cluster's keys can't be read, or the hosts see different ones".to_owned());
        }
        return Err(doubts);
    };
    let leaders: Vec<&str> = nodes.iter().filter(|(_, node)| node.leads()).map(|(host, _)| *host).collect();
    let goes_on = leaders == [keeper] && holds_the_key(keys, node, own);
    if !goes_on {
        doubts.extend(kept_from_leading(keys, keeper, node));
    }
    if !doubts.is_empty() {
        return Err(doubts);
    }
    let (set_aside, mut reasons) = others(nodes, keeper, own, goes_on);
    let all = || nodes.keys().map(|host| (*host).to_owned()).collect();
    let surgery = if goes_on {
        if set_aside.is_empty() {
            return Err(vec![format!(
                "{keeper} leads, and nobody has data that it lacks: there is nothing to set aside"
            )]);
        }
        reasons.insert(0, format!("{keeper} is kept, as you said; it leads, and goes on"));
        Surgery {
            stop: set_aside.clone(),
            set_aside,
            leader: node.member().map(str::to_owned),
            room_for: own.bytes,
            ..Surgery::default()
        }
    } else {
        reasons.insert(0, format!("{keeper} is kept, as you said: cluster {}", own.identifier));
        Surgery {
            stop: all(),
            stop_last: match leaders.as_slice() {
                [leader] => Some((*leader).to_owned()),
                _ => None,
            },
            set_aside,
            start_first: Some(keeper.to_owned()),
            leader: None,
            identifier: Some(own.identifier.clone()),
            revision: keys.initialize.as_ref().map_or(0, |key| key.revision),
            forget: forget(Some(keys), Some(own)),
            room_for: own.bytes,
        }
    };
    Ok((surgery, reasons))
}

/// Hosts of which something isn't known that a person's word doesn't replace.
fn unseen(nodes: &Nodes<'_>) -> Vec<String> {
    let mut doubts = Vec::new();
    for (host, node) in nodes {
        if let Some(why) = &node.unreachable {
            doubts.push(format!("{host} can't be reached, and may be writing: {why}"));
        } else if let Configuration::Unknown(why) = &node.configuration {
            doubts.push(format!("the configuration of {host} isn't known: {why}"));
        } else if let Data::Unknown(why) = &node.data {
            doubts.push(format!("the data of {host} isn't known: {why}"));
        }
    }
    doubts
}

/// It leads by a lease of its own, and runs under the identifier that the key says.
fn holds_the_key(keys: &Keys, node: &Node, own: &Cluster) -> bool {
    let leads =
        keys.leader.as_ref().is_some_and(|key| key.lease != 0 && Some(key.value.as_str()) == node.member());
    let says = keys.initialize.as_ref().is_some_and(|key| key.value == own.identifier);
    let runs = node.report.as_ref().and_then(|report| report.system_identifier.as_deref());
    leads && says && runs.is_none_or(|runs| runs == own.identifier)
}

/// What would keep the member from leading once it is started alone (Patroni 3.0.2 and 4.0.7, `ha.py`).
pub(super) fn kept_from_leading(keys: &Keys, host: &str, node: &Node) -> Vec<String> {
    let Some(settings) = node.settings() else {
        return vec![format!("the configuration of {host} isn't known")];
    };
    let (name, prefix) = (settings.name.as_str(), &settings.prefix);
    let without = |names: &[String]| !names.is_empty() && !names.iter().any(|one| one == name);
    let mut found = Vec::new();
    if keys.paused == Some(true) {
        found.push(format!(
            "{host} couldn't lead: the cluster is in pause. End it first: `patronictl resume`"
        ));
    }
    if without(&keys.sync) {
        found.push(format!(
            "{host} couldn't lead: the key `sync` lets only {} be promoted. If their data is given up: `etcdctl del {prefix}sync`",
            keys.sync.join(", ")
        ));
    }
    if without(&keys.failsafe) {
        found.push(format!(
            "{host} couldn't lead: failsafe mode is on, and the key `failsafe` lacks it. If those that it names are given up: `etcdctl del {prefix}failsafe`"
        ));
    }
    if settings.nofailover {
        found.push(format!(
            "{host} couldn't lead: its configuration has the tag `nofailover`. Take it out first"
        ));
    }
    if let Some(other) = keys.failover.as_ref().filter(|other| *other != name) {
        found.push(format!("{host} couldn't lead: a failover to {other} was asked for. Take it back: `etcdctl del {prefix}failover`"));
    }
    if let Some(key) = keys.leader.as_ref().filter(|key| key.lease == 0) {
        found.push(format!(
            "{host} couldn't lead: the leader's key is {}'s and has no lease. If that one doesn't lead: `etcdctl del {prefix}leader`",
            key.value
        ));
    }
    found
}

/// Whose data isn't proven to be in the keeper's, and a line for each host. Whoever streams from a sole leader has nothing
/// else; where several lead, or all are stopped, the WAL alone tells.
fn others(nodes: &Nodes<'_>, keeper: &str, own: &Cluster, goes_on: bool) -> (Vec<String>, Vec<String>) {
    let (mut set_aside, mut lines) = (Vec::new(), Vec::new());
    let live = live(nodes, keeper);
    for (host, other) in nodes.iter().filter(|(host, _)| **host != keeper) {
        let why = match &other.data {
            Data::Nothing => Err("it has no data, and clones".to_owned()),
            Data::Unreadable(what) => Ok(format!("its files are no cluster: {what}")),
            Data::Unknown(why) => Ok(why.clone()),
            Data::Cluster(cluster)
                if goes_on && cluster.identifier == own.identifier && live.contains(host) =>
            {
                Err(format!("it streams from {keeper}"))
            }
            Data::Cluster(cluster) => match kinship(cluster, own) {
                Kinship::Contained => Err(format!("all that it has is in {keeper}'s WAL: it follows")),
                Kinship::Ahead(why) | Kinship::Unknown(why) => Ok(why),
            },
        };
        match why {
            Ok(why) => {
                lines.push(format!("{host} is set aside: {why}"));
                set_aside.push((*host).to_owned());
            }
            Err(why) => lines.push(format!("{host} keeps its place: {why}")),
        }
    }
    (set_aside, lines)
}
