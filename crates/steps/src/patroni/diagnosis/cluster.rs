//! Whose data is the right one: the verdict, as a finding.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::sight::Sight;
use super::{Problem, proven};
use crate::patroni::verdict::{Judgement, Node, Store, Verdict};

/// The system identifiers.
pub(super) fn problems(sight: &Sight, judgement: &Judgement) -> Option<Problem> {
    let (nodes, scope) = (&sight.nodes, sight.scope());
    let repair = Some(format!("flow run system-id-recovery.toml --confirm {scope}"));
    let because = judgement.reasons.clone();
    Some(match &judgement.verdict {
        Verdict::Healthy { .. } | Verdict::NoMismatch | Verdict::Kept { .. } => return None,
        Verdict::KeyGoneLeaderAlive { leader, .. } => {
            proven("key-gone", format!("the key `initialize` is gone, and {leader} leads"))
                .because(because)
                .mended("nothing: Patroni writes it back within `loop_wait`, 10 s by default", None, "nothing")
        }
        Verdict::KeyWrong { identifier, keeper, .. } => proven(
            "key-wrong",
            format!("the key `initialize` is wrong or gone, and all data belongs to {identifier}"),
        )
        .because(because)
        .mended(
            format!("write {identifier} to the key and start {keeper} first, then the others"),
            repair,
            "the key and Patroni's units; no data directory",
        ),
        Verdict::Disposable { members, leader } => proven(
            "disposable-members",
            format!("{} holds nothing and belongs to another cluster than the leader {leader}", members.join(", ")),
        )
        .because(because)
        .mended(
            "set its data directory aside, so that it clones the leader",
            repair,
            format!("{} alone; the directory is renamed, not removed, and the others go on", members.join(", ")),
        ),
        Verdict::Undecided if !mismatched(nodes) => return None,
        Verdict::Undecided => undecided(nodes, &scope, because),
        Verdict::TwoClusters => proven("two-clusters", "members outside the inventory use the same scope")
            .because(because)
            .mended(
                "give one of the clusters another scope, or name all its hosts in the inventory; until then change nothing",
                None,
                "nothing",
            ),
        Verdict::NotSupported => proven("not-supported", "the cluster's state is kept where flow doesn't look")
            .because(because)
            .mended("nothing that flow could do: its findings about the hosts hold all the same", None, "nothing"),
    })
}

fn undecided(nodes: &IndexMap<String, Node>, scope: &str, because: Vec<String>) -> Problem {
    let found =
        proven("undecided", "the system identifiers differ, and whose data is the right one can't be told")
            .because(because);
    let unseen: Vec<&str> =
        nodes.iter().filter(|(_, node)| node.unreachable.is_some()).map(|(host, _)| host.as_str()).collect();
    match unseen.as_slice() {
        [] => found.mended(
            "compare the evidence below and look at each member's data; start and remove nothing before you know whose is right. Then keep that one",
            Some(format!("flow run system-id-recovery.toml --set keep=HOST --confirm {scope}")),
            "what isn't proven to be in that host's data is renamed, not removed, and those members clone",
        ),
        unseen => found.mended(
            format!("make {} reachable and diagnose again; start and remove nothing until then", unseen.join(", ")),
            None,
            "nothing",
        ),
    }
}

/// Data directories of several clusters, or a key that is none of theirs.
fn mismatched(nodes: &IndexMap<String, Node>) -> bool {
    let mut identifiers: BTreeSet<&str> =
        nodes.values().filter_map(|node| Some(node.cluster()?.identifier.as_str())).collect();
    let initialize = nodes.values().filter_map(|node| match &node.store {
        Store::Keys(keys) => keys.initialize.as_ref().map(|key| key.value.as_str()),
        Store::Unknown(_) | Store::Silent(..) => None,
    });
    identifiers.extend(initialize);
    identifiers.len() > 1
}
