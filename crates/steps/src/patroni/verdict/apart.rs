//! Members of the cluster whose data isn't proven to be another's past: rows of their own may be in it.
//!
//! Patroni would rewind such a member when it is started, or remove its data and clone: both give its rows up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ancestry::{Kinship, kinship};
use super::evidence::{Cluster, Node};
use super::judge::{Nodes, live};
use crate::patroni::rest::Report;

/// Why a member's data isn't another's past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::patroni) struct Apart {
    /// It is proven to have what the other lacks; else it can't be told.
    pub(in crate::patroni) proven: bool,
    /// What it has, or what is missing to tell.
    pub(in crate::patroni) why: String,
}

/// These members, by host. Where several lead, or members belong to different clusters, that is what decides.
pub(super) fn apart(nodes: &Nodes<'_>) -> BTreeMap<String, Apart> {
    let clusters: Vec<(&str, &Cluster)> =
        nodes.iter().filter_map(|(host, node)| Some((*host, node.cluster()?))).collect();
    let leaders: Vec<&str> = nodes.iter().filter(|(_, node)| node.leads()).map(|(host, _)| *host).collect();
    let mut found = BTreeMap::new();
    match leaders.as_slice() {
        [leader] => {
            let Some(own) = nodes[leader].cluster() else { return found };
            let live = live(nodes, leader);
            for (host, cluster) in clusters.iter().filter(|(host, _)| host != leader) {
                let node = nodes[host];
                if cluster.identifier == own.identifier && !live.contains(host) {
                    let why = beside(node, cluster, own);
                    found.extend(of(why, leader).map(|why| ((*host).to_owned(), why)));
                }
            }
        }
        [] => {
            let one = clusters.windows(2).all(|pair| pair[0].1.identifier == pair[1].1.identifier);
            if !one || clusters.iter().any(|(_, keeper)| lacking(keeper, &clusters).is_empty()) {
                return found;
            }
            for (host, cluster) in &clusters {
                let others = clusters.iter().filter(|(other, _)| other != host);
                let why = others.filter_map(|(other, keeper)| of(kinship(cluster, keeper), other));
                // What is proven goes before what can't be told.
                found.extend(why.max_by_key(|why| why.proven).map(|why| ((*host).to_owned(), why)));
            }
        }
        _ => {}
    }
    found
}

fn of(kinship: Kinship, keeper: &str) -> Option<Apart> {
    match kinship {
        Kinship::Contained => None,
        Kinship::Ahead(why) => {
            Some(Apart { proven: true, why: format!("it may have rows that {keeper} lacks: {why}") })
        }
        Kinship::Unknown(why) => Some(Apart {
            proven: false,
            why: format!("whether it has rows that {keeper} lacks can't be told: {why}"),
        }),
    }
}

/// How a member stands to a living leader. A standby that replays on the leader's own timeline has no row of its own: it was
/// looked at a moment later.
pub(super) fn beside(node: &Node, cluster: &Cluster, leaders: &Cluster) -> Kinship {
    let follows = node.report.as_ref().is_some_and(Report::follows) && cluster.state == "in archive recovery";
    let same_way = cluster.timeline == leaders.timeline && cluster.history == leaders.history;
    let later = cluster.records.last().zip(leaders.records.last()).is_some_and(|(own, its)| own.at > its.at);
    match kinship(cluster, leaders) {
        Kinship::Ahead(_) if follows && same_way && later && cluster.history.is_some() => Kinship::Contained,
        kinship => kinship,
    }
}

/// What others have that a member isn't proven to have.
pub(super) fn lacking(keeper: &Cluster, clusters: &[(&str, &Cluster)]) -> Vec<String> {
    let others = clusters.iter().filter(|(_, other)| !std::ptr::eq(*other, keeper));
    others
        .filter_map(|(host, other)| match kinship(other, keeper) {
            Kinship::Contained => None,
            Kinship::Ahead(why) | Kinship::Unknown(why) => Some(format!("{host}: {why}")),
        })
        .collect()
}
