//! What is done about a verdict, host by host: the same fields for every branch, so that a workflow reads one plan.

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::evidence::{Cluster, Keys};
use super::judge::Nodes;

/// Which hosts are stopped, whose data goes aside, who starts first, and what the key must say. Hosts by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Surgery {
    /// Patroni is stopped on these, and on no others.
    pub(crate) stop: Vec<String>,
    /// Of them the one that leads: stopped together with the others, one of those could take over.
    pub(crate) stop_last: Option<String>,
    /// Their data directories are set aside, and they clone.
    pub(crate) set_aside: Vec<String>,
    /// Started alone; it must lead before another is started. None where a leader goes on.
    pub(crate) start_first: Option<String>,
    /// The member that leads and goes on, by its Patroni name.
    pub(crate) leader: Option<String>,
    /// What the key `initialize` must say; none where it isn't written.
    pub(crate) identifier: Option<String>,
    /// The revision that it is written on; 0 where there is no key.
    pub(crate) revision: i64,
    /// Keys that say that more was written once than the first member has: Patroni would not let it lead.
    pub(crate) forget: Vec<String>,
    /// Bytes of the data that those clone whose own is set aside; none where nothing is cloned, or that can't be told.
    #[serde(default)]
    pub(crate) room_for: Option<u64>,
}

impl Surgery {
    /// That of a verdict which the evidence alone decides.
    pub(super) fn of(verdict: &Verdict, nodes: &Nodes<'_>, keys: Option<&Keys>) -> Self {
        match verdict {
            Verdict::Disposable { leader, members } => Self {
                stop: members.clone(),
                set_aside: members.clone(),
                leader: nodes.get(leader.as_str()).and_then(|node| node.member()).map(str::to_owned),
                room_for: nodes.get(leader.as_str()).and_then(|node| node.cluster()?.bytes),
                ..Self::default()
            },
            Verdict::KeyWrong { identifier, keeper, revision } => Self {
                stop: nodes.keys().map(|host| (*host).to_owned()).collect(),
                start_first: Some(keeper.clone()),
                identifier: Some(identifier.clone()),
                revision: *revision,
                forget: forget(keys, nodes.get(keeper.as_str()).and_then(|node| node.cluster())),
                ..Self::default()
            },
            _ => Self::default(),
        }
    }

    /// Everything is set aside, and `first` begins anew.
    pub(super) fn reset(nodes: &Nodes<'_>, first: &str) -> Self {
        let all: Vec<String> = nodes.keys().map(|host| (*host).to_owned()).collect();
        Self {
            stop_last: Some(first.to_owned()),
            start_first: Some(first.to_owned()),
            set_aside: all.clone(),
            stop: all,
            ..Self::default()
        }
    }
}

/// The keys by which Patroni would call the member too far behind to lead (`ha.py`, `is_lagging`).
pub(super) fn forget(keys: Option<&Keys>, first: Option<&Cluster>) -> Vec<String> {
    let Some(written) = keys.and_then(|keys| keys.written.as_ref()) else { return Vec::new() };
    let has = first.and_then(|first| first.records.last()).map_or(0, |last| last.at.0);
    let lag = keys.and_then(|keys| keys.maximum_lag).unwrap_or(super::evidence::MAXIMUM_LAG);
    if written.position > has.saturating_add(lag) { vec![written.key.clone()] } else { Vec::new() }
}
